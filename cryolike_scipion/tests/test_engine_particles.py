"""Reading particles: RELION files of both layouts, cryoSPARC files, job folders, and what is wrong there."""

import numpy as np
import pytest

from cryolike_scipion.engine.errors import InputError, problem_line
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.engine.star_file import parse_star, quote, split_row, unquote

from .helpers import shared_data
from .particle_files import (
    OPTICS,
    PARTICLES,
    cryosparc_array,
    random_images,
    write_cryosparc,
    write_set,
    write_stack,
)

OLD = """data_

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnVoltage #6
_rlnSphericalAberration #7
_rlnAmplitudeContrast #8
_rlnMagnification #9
_rlnDetectorPixelSize #10
_rlnOriginX #11
_rlnOriginY #12
"""


def error_of(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        read_particles(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


# ---------------------------------------------------------------- STAR text


@pytest.mark.parametrize(
    "row, tokens",
    [
        ("a 1 2.5", ["a", "1", "2.5"]),
        ("  a\t1  ", ["a", "1"]),
        ("'a b' \"c d\" e", ["'a b'", '"c d"', "e"]),
        ("a'b c\"d", ["a'b", 'c"d']),
        ("'it's here' x", ["'it's here'", "x"]),
        ("a 1 # comment", ["a", "1"]),
        ("é_ü [0.1,0.2] data_1/x loop_", ["é_ü", "[0.1,0.2]", "data_1/x", "loop_"]),
        ("a\u00a0b c", ["a\u00a0b", "c"]),
        ('"" x', ['""', "x"]),
    ],
)
def test_a_row_is_split_as_relion_does(row, tokens):
    assert split_row(row) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "with blank",
        "it's",
        'say "x"',
        "",
        "#1",
        "_x",
        "it's a blank",
        "é ü",
        "'q'",
        "tab\there",
        "a#b",
        "$(x) %s;y",
        "0001@a b.mrcs",
    ],
)
def test_a_quoted_text_reads_back(text):
    written = quote(text)
    assert split_row(f"x {written} y") == ["x", written, "y"]
    assert unquote(written) == text


@pytest.mark.parametrize("text", ["two\nlines", "both 'kinds' of \"quotes\""])
def test_a_text_that_no_star_file_holds_is_refused(text):
    with pytest.raises(InputError, match="a STAR file cannot hold"):
        quote(text)


def test_tables_and_their_lines():
    star = parse_star("# c\ndata_general\n_a 1\n_b 'x y'\n\ndata_p\nloop_\n_c #1\n_d #2\n1 2\n\n3 4\n", "f.star")
    general, table = star.tables
    assert (general.name, general.labels, general.rows) == ("general", ("a", "b"), ["1 'x y'"])
    assert general.columns(["b"]) == {"b": ["x y"]}
    assert table.columns(["d", "c", "e"]) == {"d": ["2", "4"], "c": ["1", "3"]}
    assert star.lines[table.body_line] == "loop_" and star.lines[table.end_line - 1] == "3 4"


@pytest.mark.parametrize(
    "text, message",
    [
        ("nonsense\n", "line 1 is not part of a STAR table"),
        ("data_x\nnonsense\n", "line 2 belongs to no column"),
        ("data_x\nloop_\n_a\n_a\n1 2\n", "names the column _a twice"),
    ],
)
def test_what_is_no_star_file(text, message):
    with pytest.raises(InputError, match=message):
        parse_star(text, "f.star")


def test_gemmi_reads_the_same_values():
    from gemmi import cif

    path = shared_data("trpv1_real") / "particles.star"
    ours = read_particles(path).document.particles
    theirs = cif.read(str(path)).find_block("particles")
    for label in ours.labels:
        assert ours.columns([label])[label] == [cif.as_string(v) for v in theirs.find_values(f"_{label}")]


# ---------------------------------------------------------------- RELION


def test_relion_31(tmp_path):
    particles = read_particles(write_set(tmp_path))
    assert len(particles) == 4
    (group,) = particles.optics
    assert (group.name, group.pixel_size, group.box) == ("opticsGroup1", 2.5, 8)
    assert (group.voltage_kv, group.cs_mm, group.amplitude_contrast) == (300, 2.7, 0.1)
    assert particles.stacks == (tmp_path / "images.mrcs",)
    assert particles.frame.tolist() == [0, 1, 2, 3] and particles.row.tolist() == [1, 2, 3, 4]
    assert particles.defocus_u.tolist() == [10000.1, 10001.1, 10002.1, 10003.1]
    assert particles.defocus_v[1] == 9001 and particles.defocus_angle_deg[3] == 30
    assert not particles.has_pose and not particles.rot.any() and not particles.class_number.any()
    assert np.all(particles.sign == 1) and np.all(particles.ctf_scale == 1) and not particles.ctf_bfactor.any()
    assert particles.coefficients is None


def test_relion_30_takes_pixel_size_and_origins_from_the_magnification(tmp_path):
    write_stack(tmp_path / "images.mrcs", random_images(2))
    star = tmp_path / "old.star"
    star.write_text(
        OLD + "1@images.mrcs m 10000 9000 5 300 2.7 0.07 50000 5 2.0 -3\n"
        "2@images.mrcs m 10000 9000 5 200 2.0 0.10 50000 5 0 0\n"
    )
    particles = read_particles(star)
    assert np.allclose(particles.pixel_size, 1.0)
    assert [g.voltage_kv for g in particles.optics] == [300, 200] and particles.optics_index.tolist() == [
        0,
        1,
    ]
    assert particles.origin_x.tolist() == [2, 0] and particles.origin_y.tolist() == [-3, 0]
    assert particles.box.tolist() == [8, 8]


def test_real_particles_of_both_layouts_and_of_cryosparc_agree():
    folder = shared_data("ribosome_real")
    old, cs = (read_particles(folder / f"empiar_10076_7.{ending}") for ending in ("star", "cs"))
    assert old.sign.tolist() == [1] * 7 and cs.sign.tolist() == [-1] * 7
    for particles in (old, cs):
        assert particles.box.tolist() == [320] * 7 and len(particles.optics) == 1
        assert particles.stacks == (folder / "empiar_10076_7.mrc",)
    for name in ("defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "pixel_size", "frame"):
        assert np.allclose(getattr(old, name), getattr(cs, name), rtol=1e-6, atol=1e-6), name


def test_poses_of_the_real_data():
    particles = read_particles(shared_data("trpv1_real") / "particles.star")
    assert particles.has_pose and particles.rot[0] == -30.073301 and particles.origin_y[0] == -6.120969
    assert particles.optics[0].name == "opticsGroup7" and set(particles.class_number) == {1}


def test_optics_values_of_the_particle_come_first_and_split_the_group(tmp_path):
    head = PARTICLES + "_rlnVoltage #6\n"
    rows = [f"{i + 1}@images.mrcs 1 10000 9000 0 {200 + 100 * (i % 2)}" for i in range(4)]
    particles = read_particles(write_set(tmp_path, head=head, rows=rows))
    assert [g.voltage_kv for g in particles.optics] == [200, 300] and particles.optics_index.tolist() == [
        0,
        1,
        0,
        1,
    ]


@pytest.mark.parametrize("place", ["root", "cwd", "beside", "above"])
def test_where_stacks_are_looked_for(tmp_path, monkeypatch, place):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    star = write_set(project / "Refine3D" / "job1", rows=["1@Extract/a b.mrcs 1 10000 9000 0"])
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folder = {"root": tmp_path / "data", "cwd": elsewhere, "beside": star.parent, "above": project}[place]
    star.write_text(star.read_text().replace("1@Extract/a b.mrcs", "'1@Extract/a b.mrcs'"))
    write_stack(folder / "Extract" / "a b.mrcs", random_images(1))
    particles = read_particles(star, root=tmp_path / "data" if place == "root" else None)
    assert particles.stacks == (folder / "Extract" / "a b.mrcs",)
    assert particles.document.roots == (folder,)
    assert particles.image_names() == ["1@Extract/a b.mrcs"]


def test_a_format_behind_the_name_is_not_part_of_it(tmp_path):
    names = ["1@images.mrcs:mrcs", "2@images.mrcs", "1@odd:name.mrcs"]
    star = write_set(tmp_path, rows=[f"{name} 1 10000 9000 0" for name in names])
    write_stack(tmp_path / "odd:name.mrcs", random_images(1))
    particles = read_particles(star)
    assert [particles.stacks[i].name for i in particles.stack_index] == ["images.mrcs", "images.mrcs", "odd:name.mrcs"]
    assert particles.image_names() == names


def test_the_root_that_was_given_goes_first(tmp_path):
    star = write_set(tmp_path / "a")
    write_stack(tmp_path / "b" / "images.mrcs", random_images(4))
    assert read_particles(star, root=tmp_path / "b").stacks == (tmp_path / "b" / "images.mrcs",)


def test_a_missing_stack_is_no_error_while_the_box_is_known(tmp_path):
    star = write_set(tmp_path, rows=["1@images.mrcs 1 10000 9000 0", "1@gone.mrcs 1 10000 9000 0"])
    particles = read_particles(star)
    assert particles.stacks[1] == tmp_path / "gone.mrcs" and particles.box.tolist() == [8, 8]


@pytest.mark.parametrize("name", ["particles.star", "run_data.star", "run_it025_data.star"])
def test_job_folders(tmp_path, name):
    write_set(tmp_path).rename(tmp_path / name)
    if name == "run_it025_data.star":
        (tmp_path / "run_it003_data.star").write_text("data_x\n")
    assert read_particles(tmp_path).source == tmp_path / name


def test_several_files_become_one_table(tmp_path):
    first, second = write_set(tmp_path / "a", 2), write_set(tmp_path / "b", 3)
    second.write_text(second.read_text().replace("2.500000", "3.0"))
    particles = read_particles([first, second])
    assert len(particles) == 5 and particles.sources == (first, second)
    assert particles.row.tolist() == [1, 2, 1, 2, 3] and particles.source_index.tolist() == [0, 0, 1, 1, 1]
    assert particles.pixel_size.tolist() == [2.5, 2.5, 3, 3, 3]
    assert [particles.stacks[i].parent.name for i in particles.stack_index] == ["a", "a", "b", "b", "b"]
    assert particles.where(3) == (second, 2)


def test_take(tmp_path):
    particles = read_particles(write_set(tmp_path))
    for chosen in (np.array([3, 1]), [3, 1]):
        part = particles.take(chosen)
        assert part.row.tolist() == [4, 2] and part.frame.tolist() == [3, 1] and len(part) == 2
    assert particles.take(particles.row > 2).row.tolist() == [3, 4]
    assert part.image_names() == ["000004@images.mrcs", "000002@images.mrcs"]


def test_coefficients_columns(tmp_path):
    head = PARTICLES + "_cryolikeCoefficients #6\n_cryolikeCoefficientsHash #7\n"
    rows = [f"{i + 1}@images.mrcs 1 10000 9000 0 {i + 1}@polar.h5 abc" for i in range(2)]
    particles = read_particles(write_set(tmp_path, head=head, rows=rows)).take([1])
    assert particles.coefficients == ["2@polar.h5"] and particles.coefficients_hash == ["abc"]


def test_options_fill_what_the_file_lacks(tmp_path):
    optics = OPTICS.replace("_rlnImagePixelSize #3\n", "").replace("_rlnAmplitudeContrast #8\n", "")
    optics = optics.replace("1 opticsGroup1 2.500000 8 2 300.0 2.7 0.1", "1 opticsGroup1 8 2 300.0 2.7")
    star = write_set(tmp_path, optics=optics)
    group = read_particles(star, pixel_size=4, amplitude_contrast=0.07).optics[0]
    assert (group.pixel_size, group.amplitude_contrast) == (4, 0.07)
    assert "Give it in Å with --pixel" in error_of(star, amplitude_contrast=0.07)
    assert "Give it with --amplitude-contrast" in error_of(star, pixel_size=4)


def test_options_that_contradict_the_file(tmp_path):
    star = write_set(tmp_path)
    assert read_particles(star, pixel_size=2.5002, amplitude_contrast=0.1).optics[0].pixel_size == 2.5
    assert "2.5 Å in the file, and 2.6 Å was given" in error_of(star, pixel_size=2.6)
    assert "0.1 in the file, and 0.07 was given" in error_of(star, amplitude_contrast=0.07)


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    "old, new, row, message",
    [
        ("10002.10", "abc", 3, "rlnDefocusU is not a number ('abc')"),
        ("10002.10", "nan", 3, "rlnDefocusU is nan"),
        ("9001.0", "inf", 2, "rlnDefocusV is inf"),
        ("2.500000", "0", 1, "the pixel size is 0 Å"),
        ("2.500000", "-1", 1, "the pixel size is -1 Å"),
        ("300.0 2.7", "0 2.7", 1, "rlnVoltage is 0"),
        ("2.7 0.1", "2.7 1.5", 1, "rlnAmplitudeContrast is 1.5"),
        ("2.500000 8 2", "2.500000 16 2", 1, "8 pixels wide"),
        ("2.500000 8 2", "2.500000 8 3", 1, "volumes, not images"),
        ("000003@images.mrcs", "x@images.mrcs", 3, "does not begin with a number ('x@images.mrcs')"),
        ("000003@images.mrcs", "3@", 3, "has no file"),
        ("000003@images.mrcs 1", "000003@images.mrcs 2", 3, "the optics table has no group 2"),
        (
            "000003@images.mrcs 1",
            "000003@images.mrcs",
            3,
            "the row has 4 values, the table particles has 5 columns",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_row(tmp_path, old, new, row, message):
    star = write_set(tmp_path)
    text = star.read_text()
    assert old in text
    star.write_text(text.replace(old, new))
    line = error_of(star)
    assert line.startswith(f"{star}, row {row}: ") and message in line


@pytest.mark.parametrize("label", ["rlnVoltage", "rlnSphericalAberration", "rlnDefocusU"])
def test_no_ctf(tmp_path, label):
    star = write_set(tmp_path)
    star.write_text(star.read_text().replace(f"_{label} ", f"_other{label} "))
    line = error_of(star)
    assert f"there is no CTF: the column {label} is missing" in line and "Estimate the CTF" in line


def test_wrong_files(tmp_path):
    assert "the file does not exist" in error_of(tmp_path / "gone.star")
    assert "no particle file is given" in error_of([])
    assert "holds no particles.star" in error_of(tmp_path)
    star = write_set(tmp_path, rows=[])
    assert "the particle table is empty" in error_of(star)
    star.write_text(OPTICS + PARTICLES.replace("rlnImageName", "rlnMicrographName") + "a 1 1 1 1\n")
    assert "no table has the column rlnImageName" in error_of(star)


def test_images_that_are_not_square(tmp_path):
    star = write_set(tmp_path)
    write_stack(tmp_path / "images.mrcs", np.zeros((4, 8, 6)))
    assert "the images are not square (6 x 8 pixels" in error_of(star)


def test_no_box_anywhere(tmp_path):
    star = write_set(tmp_path, optics=OPTICS.replace("_rlnImageSize ", "_other "))
    assert read_particles(star).box.tolist() == [8] * 4
    (tmp_path / "images.mrcs").unlink()
    assert "no image stack can be read" in error_of(star)


def test_an_error_is_one_line_whatever_the_name():
    text = str(InputError("bad value (3)", "a\nb\x1b é.star", 7, "Correct it"))
    assert text == "a\\nb\\x1b é.star, row 7: bad value (3). Correct it."
    assert problem_line("x", remedy="y.") == "x. y."


# ---------------------------------------------------------------- cryoSPARC


def test_cryosparc_values(tmp_path):
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(3))
    pose = np.array([[0, 0, 0.3], [0.1, -2.0, 0.7], [0, 0, 0]], np.float32)
    shift = np.array([[1, -2], [0.5, 0], [0, 3]], np.float32)
    array = cryosparc_array(
        3,
        alignments3D__pose=pose,
        alignments3D__shift=shift,
        alignments3D__psize_A=np.full(3, 5, np.float32),
        alignments3D__class=np.array([0, 1, 0], np.uint32),
    )
    (tmp_path / "J2").mkdir()
    particles = read_particles(write_cryosparc(tmp_path / "J2" / "p.cs", array))
    assert particles.stacks == (tmp_path / "J1" / "images.mrcs",) and particles.frame.tolist() == [0, 1, 2]
    assert particles.sign.tolist() == [-1] * 3 and particles.pixel_size.tolist() == [2.5] * 3
    assert np.float32(particles.defocus_u[0]) == np.float32(12345.678)
    assert np.allclose(particles.phase_shift_deg, 90) and np.allclose(particles.defocus_angle_deg, np.rad2deg(0.5))
    assert np.allclose(particles.origin_x, [5, 2.5, 0]) and np.allclose(particles.origin_y, [-10, 0, 15])
    assert particles.class_number.tolist() == [1, 2, 1] and particles.has_pose
    from scipy.spatial.transform import Rotation

    expected = Rotation.from_rotvec(pose.astype(float)).as_matrix().transpose(0, 2, 1)
    assert np.allclose(matrix_from_euler(particles.rot, particles.tilt, particles.psi), expected, atol=1e-7)


def test_real_cryosparc_files():
    folder = shared_data("cryosparc")
    refined = read_particles(folder / "P12_J24_particles.cs")
    assert len(refined) == 2019 and refined.has_pose and refined.box[0] == 180
    assert np.allclose([refined.origin_x[0], refined.origin_y[0]], [11.334375 * 2.95, -1.828125 * 2.95])
    classified = read_particles(folder / "J2_particles_exported.cs")
    assert len(classified) == 22 and not classified.has_pose
    assert np.allclose(classified.psi[0], np.rad2deg(5.8985004)) and np.isclose(classified.origin_y[0], 12 * 1.3450001)
    assert classified.image_names()[0].startswith("000001@J1/imported/")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"blob__path": None}, "no field blob/path"),
        ({"ctf__df1_A": None}, "there is no CTF: the column rlnDefocusU is missing"),
        ({"ctf__amp_contrast": None}, "the amplitude contrast is missing"),
        ({"blob__psize_A": np.zeros(2, np.float32)}, "the pixel size is 0 Å"),
        ({"ctf__df1_A": np.array([1e4, np.nan], np.float32)}, "row 2: rlnDefocusU is nan"),
        (
            {"blob__path": np.array([b"a\nb.mrcs", b"c"])},
            "row 1: the name of the image stack cannot be written",
        ),
    ],
)
def test_wrong_cryosparc_files(tmp_path, change, message):
    assert message in error_of(write_cryosparc(tmp_path / "p.cs", cryosparc_array(2, **change)))


def test_a_cryosparc_file_is_never_unpickled(tmp_path):
    path = tmp_path / "p.cs"
    with open(path, "wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "not a numpy structured array" in error_of(path)
    path.write_bytes(b"\x94CSDAT")
    assert "Export the particles from cryoSPARC" in error_of(path)
    write_cryosparc(path, cryosparc_array(0))
    assert "the file has no particles" in error_of(path)
