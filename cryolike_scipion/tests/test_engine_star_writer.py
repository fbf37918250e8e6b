"""Writing particles: every input value stays as it was written, RELION reads the file, and so do we."""

import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.star_file import quote, read_star

from .helpers import program, shared_data
from .particle_files import (
    OPTICS,
    PARTICLES,
    cryosparc_array,
    random_images,
    write_cryosparc,
    write_set,
    write_stack,
)


def written(path, particles, columns, **options):
    write_particles(path, particles, columns, **options)
    return read_star(path)


def column(star, label, table="particles"):
    return star.find(table).columns([label])[label]


def relion_rows(star, folder, label="rlnDefocusU"):
    """The particle rows that RELION writes after it has read a file."""
    copy = folder / "relion.star"
    done = subprocess.run(
        [
            program("relion_star_handler"),
            "--i",
            str(star),
            "--o",
            str(copy),
            "--select",
            label,
            "--minval",
            "-1e30",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and copy.exists(), done.stdout + done.stderr
    return read_star(copy)


def test_input_text_order_and_tables_are_kept(tmp_path):
    tail = "\n# a comment\ndata_other\n\n_rlnThing  'kept as it is' # even this\n\ndata_empty\n"
    head = PARTICLES + "_rlnMystery #6\n_rlnNote #7\n"
    rows = [
        "000002@images.mrcs 1 1.0e4 09000.00 -0.0 [1,2] 'two words'",
        '1@images.mrcs\t1   1 2 3 x "it\'s"',
    ]
    star = write_set(tmp_path, head=head, rows=rows, tail=tail)
    path = tmp_path / "out" / "particles.star"
    result = written(path, read_particles(star), {"cryolikeStatus": ["ok", "nan"], "cryolikeScale": np.array([1, 0.5])})
    text = path.read_text()
    assert text.startswith(OPTICS + PARTICLES.split("loop_")[0])
    assert text.index(rows[0] + " ok 1.000000\n") < text.index(rows[1] + " nan 0.500000\n")
    assert tail.rstrip() in text
    assert result.find("particles").labels == (
        "rlnImageName",
        "rlnOpticsGroup",
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnDefocusAngle",
        "rlnMystery",
        "rlnNote",
        "cryolikeStatus",
        "cryolikeScale",
    )


def test_overwritten_columns_are_kept_at_the_end(tmp_path):
    head = PARTICLES + "_rlnAngleRot #6\n_rlnOther #7\n_rlnAngleTilt #8\n_rlnAnglePsi #9\n"
    star = write_set(tmp_path, 2, head=head, rows=[f"{i}@images.mrcs 1 1 2 3 10.5{i} x{i} 0 0" for i in (1, 2)])
    first = written(tmp_path / "a.star", read_particles(star), {"cryolikeScale": [1.0, 2.0], "rlnAngleRot": [7.0, 8.0]})
    table = first.find("particles")
    assert table.labels[5:] == (
        "rlnAngleRot",
        "rlnOther",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "cryolikeScale",
        "cryolikeInputAngleRot",
    )
    assert table.rows[1].split()[5:] == ["8.000000", "x2", "0", "0", "2.000000", "10.52"]
    again = {"rlnAngleRot": [1.0, 1.0], "cryolikeScale": [3.0, 3.0]}
    second = written(tmp_path / "b.star", read_particles(tmp_path / "a.star"), again)
    assert column(second, "cryolikeInputAngleRot") == ["10.51", "10.52"]
    assert column(second, "cryolikeInput2AngleRot") == ["7.000000", "8.000000"]
    assert column(second, "cryolikeInputScale") == ["1.000000", "2.000000"]
    third = written(tmp_path / "c.star", read_particles(tmp_path / "a.star"), again, keep_overwritten=False)
    assert third.find("particles").labels == table.labels and column(third, "rlnAngleRot") == ["1.000000"] * 2


def test_a_stale_cache_is_not_kept(tmp_path):
    head = PARTICLES + "_cryolikeCoefficients #6\n"
    star = write_set(tmp_path, 1, head=head, rows=["1@images.mrcs 1 1 2 3 1@old.h5"])
    result = written(tmp_path / "a.star", read_particles(star), {"cryolikeCoefficients": ["1@new.h5"]})
    assert result.find("particles").labels[-1] == "cryolikeCoefficients"


def test_rows_follow_the_particles(tmp_path):
    particles = read_particles(write_set(tmp_path)).take([2, 0])
    result = written(tmp_path / "a.star", particles, {"cryolikeScale": np.array([0.25, 0.75], np.float32)})
    assert column(result, "rlnImageName") == ["000003@images.mrcs", "000001@images.mrcs"]
    assert column(result, "cryolikeScale") == ["0.250000", "0.750000"]


def test_a_comment_in_a_row_does_not_hide_new_columns(tmp_path):
    star = write_set(tmp_path, rows=["1@images.mrcs 1 1 2 3 # mine"])
    assert column(written(tmp_path / "a.star", read_particles(star), {"cryolikeStatus": ["ok"]}), "cryolikeStatus") == ["ok"]


def test_a_particle_table_before_the_optics_table_and_windows_line_ends(tmp_path):
    star = write_set(tmp_path, 2)
    optics, particles = star.read_text().split("\n# version 30001\n\ndata_particles")
    star.write_bytes(("data_particles" + particles + "\n" + optics).replace("\n", "\r\n").encode())
    result = written(tmp_path / "a.star", read_particles(star), {"cryolikeStatus": ["ok", "ok"]})
    assert [t.name for t in result.tables] == ["particles", "optics", "cryolike_images"]
    assert len(read_particles(tmp_path / "a.star")) == 2


def test_a_single_particle_written_as_a_list(tmp_path):
    star = write_set(tmp_path, rows=[])
    star.write_text(OPTICS + "\ndata_particles\n\n_rlnImageName 1@images.mrcs\n_rlnDefocusU 5\n_rlnOpticsGroup 1\n")
    result = written(tmp_path / "a.star", read_particles(star), {"rlnDefocusU": [6.0]})
    assert column(result, "rlnDefocusU") == ["6.000000"] and column(result, "cryolikeInputDefocusU") == ["5"]


def test_old_layout_becomes_the_new_one(tmp_path):
    old = shared_data("ribosome_real") / "empiar_10076_7.star"
    particles = read_particles(old)
    columns = {"rlnAngleRot": np.arange(7.0), "cryolikeStatus": ["ok"] * 7}
    result = written(tmp_path / "a.star", particles, columns)
    assert [t.name for t in result.tables] == ["optics", "particles", "cryolike_images"]
    assert column(result, "rlnImagePixelSize", "optics") == ["1.309998"]
    assert column(result, "rlnImageSize", "optics") == ["320"]
    for label in particles.document.particles.labels:
        assert column(result, label) == particles.document.particles.columns([label])[label]
    again = read_particles(tmp_path / "a.star")
    assert np.allclose(again.pixel_size, particles.pixel_size, rtol=1e-6) and again.stacks == particles.stacks


def test_origins_in_pixels_get_companions_or_make_way(tmp_path):
    write_stack(tmp_path / "images.mrcs", random_images(1))
    star = tmp_path / "old.star"
    labels = [
        "rlnImageName",
        "rlnDefocusU",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnMagnification",
        "rlnDetectorPixelSize",
        "rlnOriginX",
        "rlnOriginY",
    ]
    star.write_text(
        "data_\nloop_\n" + "".join(f"_{label}\n" for label in labels) + "1@images.mrcs 10000 300 2.7 0.1 25000 5 1.50 -2\n"
    )
    kept = written(tmp_path / "a.star", read_particles(star), {})
    assert column(kept, "rlnOriginX") == ["1.50"] and column(kept, "rlnOriginXAngst") == ["3.000000"]
    assert read_particles(tmp_path / "a.star").origin_y.tolist() == [-4]
    new = written(tmp_path / "b.star", read_particles(star), {"rlnOriginXAngst": [9.0], "rlnOriginYAngst": [8.0]})
    assert "rlnOriginX" not in new.find("particles").labels and column(new, "cryolikeInputOriginX") == ["1.50"]
    assert column(new, "rlnOriginXAngst") == ["9.000000"] and column(new, "rlnOriginYAngst") == ["8.000000"]


def test_values_from_options_are_written_to_the_optics_table(tmp_path):
    optics = OPTICS.replace("_rlnImagePixelSize #3\n", "").replace("2.500000 8", "8")
    star = write_set(tmp_path, 2, optics=optics)
    result = written(tmp_path / "a.star", read_particles(star, pixel_size=2.5), {})
    assert column(result, "rlnImagePixelSize", "optics") == ["2.500000"]
    assert read_particles(tmp_path / "a.star").optics == read_particles(star, pixel_size=2.5).optics


def test_cryosparc_becomes_relion(tmp_path):
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(3))
    array = cryosparc_array(
        3,
        alignments3D__pose=np.full((3, 3), 0.3, np.float32),
        alignments3D__shift=np.full((3, 2), 1.5, np.float32),
    )
    particles = read_particles(write_cryosparc(tmp_path / "p.cs", array))
    result = written(tmp_path / "out" / "a.star", particles, {"cryolikeStatus": ["ok"] * 3})
    assert column(result, "rlnImageName")[2] == "000003@J1/images.mrcs"
    assert column(result, "cryolikeCryosparcUid") == [str(2**63 + i) for i in range(3)]
    again = read_particles(tmp_path / "out" / "a.star")
    for name in ("defocus_u", "phase_shift_deg", "sign", "rot", "psi", "origin_x", "frame"):
        assert np.array_equal(getattr(again, name), getattr(particles, name)), name
    assert again.stacks == particles.stacks and again.optics == particles.optics


@pytest.mark.parametrize("folder", ["plain", 'it\'s a ü "name" (50%) $(x)', "new\nline"])
def test_our_output_finds_the_images_from_any_folder(tmp_path, folder):
    star = write_set(tmp_path / folder)
    write_particles(tmp_path / "far" / "away" / "a.star", read_particles(star), {})
    again = read_particles(tmp_path / "far" / "away" / "a.star")
    assert again.stacks == (tmp_path / folder / "images.mrcs",)
    write_particles(tmp_path / "b.star", again, {})
    assert read_particles(tmp_path / "b.star").stacks == again.stacks
    assert (tmp_path / "b.star").read_text().count("data_cryolike_images") == 1


def test_several_files_become_one(tmp_path):
    first = write_set(tmp_path / "a", 2, tail="\ndata_job\n\n_x 1\n")
    second = write_set(
        tmp_path / "b",
        2,
        head=PARTICLES + "_rlnMicrographName #6\n_rlnRandomSubset #7\n",
        rows=[f"{i}@images.mrcs 1 5 6 7 'm {i}.mrc' 2" for i in (1, 2)],
        tail="\ndata_job\n\n_x 2\n",
    )
    second.write_text(second.read_text().replace("300.0 2.7", "200.0 2.7"))
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(1))
    third = write_cryosparc(tmp_path / "p.cs", cryosparc_array(1))
    particles = read_particles([first, second, third])
    result = written(tmp_path / "out" / "a.star", particles.take([4, 0, 1, 2, 3]), {"cryolikeStatus": ["ok"] * 5})
    assert column(result, "rlnOpticsGroup") == ["3", "1", "1", "2", "2"]
    assert len(set(column(result, "rlnOpticsGroupName", "optics"))) == 3
    assert column(result, "rlnMicrographName") == ["None", "None", "None", "m 1.mrc", "m 2.mrc"]
    assert column(result, "rlnRandomSubset") == ["0", "0", "0", "2", "2"]
    assert column(result, "cryolikeImageSign") == ["-1.0", "1", "1", "1", "1"]
    assert column(result, "cryolikeImageRootNumber") == ["3", "1", "1", "2", "2"]
    assert column(result, "x", "job") == ["1"] and column(result, "x", "job_2") == ["2"]
    few = written(tmp_path / "out" / "few.star", particles.take([0, 1]), {})  # no row of the file with more columns
    assert column(few, "rlnMicrographName") == column(few, "rlnRandomSubset") == ["0", "0"]
    again = read_particles(tmp_path / "out" / "a.star")
    # Two folders hold an images.mrcs: each row still finds its own, also after another round.
    paths = [tmp_path / folder / "images.mrcs" for folder in ("J1", "a", "a", "b", "b")]
    write_particles(tmp_path / "out" / "b.star", again.take([3, 4]), {})
    once_more = read_particles([tmp_path / "out" / "b.star", tmp_path / "out" / "a.star"])
    write_particles(tmp_path / "out" / "c.star", once_more, {})
    last = read_particles(tmp_path / "out" / "c.star")
    for table, order in ((again, range(5)), (once_more, [3, 4, *range(5)]), (last, [3, 4, *range(5)])):
        assert [table.stacks[i] for i in table.stack_index] == [paths[i] for i in order]
    assert again.sign.tolist() == [-1, 1, 1, 1, 1]
    assert [again.optics[i].voltage_kv for i in again.optics_index] == [300, 300, 300, 200, 200]


def test_optics_tables_that_do_not_fit_together(tmp_path):
    first, second = write_set(tmp_path / "a"), write_set(tmp_path / "b")
    second.write_text(second.read_text().replace("_rlnImageDimensionality", "_rlnMtfFileName"))
    with pytest.raises(InputError, match="the optics table lacks rlnMtfFileName"):
        write_particles(tmp_path / "c.star", read_particles([first, second]), {})
    assert not (tmp_path / "c.star").exists()


def test_wrong_columns_and_no_half_written_file(tmp_path):
    particles = read_particles(write_set(tmp_path))
    path = tmp_path / "a.star"
    path.write_text("before")
    for values, message in (([1.0], "has shape"), ([1.0, np.nan, 1.0, 1.0], "not finite")):
        with pytest.raises(ValueError, match=message):
            write_particles(path, particles, {"cryolikeScale": np.array(values)})
    particles.document.particles.rows[3] = "too short"
    with pytest.raises(IndexError):
        write_particles(path, particles, {"rlnDefocusAngle": np.zeros(4)})
    assert path.read_text() == "before" and sorted(p.name for p in tmp_path.glob(".*")) == []


NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters="'"),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(notes=st.lists(NAMES, min_size=1, max_size=5), numbers=st.data())
def test_any_text_survives(tmp_path_factory, notes, numbers):
    folder = tmp_path_factory.mktemp("star")
    values = [numbers.draw(st.sampled_from(["1", "1.0", "01.50", "1e3", "+2", "-0.000"])) for _ in notes]
    rows = [f"{i}@images.mrcs 1 {v} 9000 0 {quote(n)}" for i, (n, v) in enumerate(zip(notes, values), 1)]
    star = write_set(folder, len(notes), head=PARTICLES + "_rlnNote #6\n", rows=rows)
    result = written(folder / "a.star", read_particles(star), {"rlnDefocusU": np.arange(len(notes)) + 0.5})
    assert column(result, "rlnNote") == notes
    assert column(result, "cryolikeInputDefocusU") == values


# ---------------------------------------------------------------- RELION


@pytest.mark.parametrize(
    "case",
    [
        "two_state/two_state_truth.star",
        "trpv1_real/particles.star",
        "ribosome_real/empiar_10076_7.star",
        "ribosome_real/empiar_10076_7.cs",
        "cryosparc/P12_J24_particles.cs",
    ],
)
def test_relion_reads_what_we_write(tmp_path, case):
    folder, name = case.split("/")
    particles = read_particles(shared_data(folder) / name)
    count = len(particles)
    score = np.linspace(-1, 1, count)
    columns = {
        "rlnAngleRot": np.arange(count) % 360 - 180.0,
        "rlnOriginXAngst": np.full(count, 1.25),
        "rlnClassNumber": np.ones(count, int),
        "cryolikeLogLikelihood": score,
        "cryolikeStatus": ["ok"] * count,
    }
    path = tmp_path / "particles.star"
    write_particles(path, particles, columns)
    copy = relion_rows(path, tmp_path)
    assert column(copy, "rlnImageName") == particles.image_names()
    assert np.allclose(np.array(column(copy, "rlnAngleRot"), float), columns["rlnAngleRot"])
    assert np.allclose(np.array(column(copy, "rlnDefocusU"), float), particles.defocus_u, atol=1e-2)
    assert np.allclose(np.array(column(copy, "cryolikeLogLikelihood"), float), score, atol=1e-6)
    assert column(copy, "cryolikeStatus") == ["ok"] * count
    printed = subprocess.run(
        [program("relion_star_printtable"), str(path), "data_particles", "rlnClassNumber", "cryolikeStatus"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert printed.stdout.splitlines() == ["1 ok"] * count


def test_relion_reads_quoted_and_odd_values(tmp_path):
    notes = ["two words", "it's", "é ü", "data_1/m.mrc", "[0.1,0.2]", 'a"b', ""]
    rows = [f"{i}@images.mrcs 1 100{i} 9000 0 {quote(n)}" for i, n in enumerate(notes, 1)]
    star = write_set(tmp_path, len(notes), head=PARTICLES + "_rlnMicrographName #6\n", rows=rows)
    write_particles(
        tmp_path / "a.star",
        read_particles(star),
        {"cryolikeStatus": [f"{n} x" for n in notes[:4]] + ["x"] * 3},
    )
    copy = relion_rows(tmp_path / "a.star", tmp_path)
    assert column(copy, "rlnMicrographName") == notes
    assert column(copy, "cryolikeStatus") == [
        "two words x",
        "it's x",
        "é ü x",
        "data_1/m.mrc x",
        "x",
        "x",
        "x",
    ]
