"""RELION's own programs go on from what a run wrote: tables, stacks, reconstructions and refinements."""

import re
import subprocess

import mrcfile
import numpy as np
import pytest

from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.star_file import read_star, split_row, unquote

from .helpers import program
from .likelihood_runs import run_without_report
from .small_sets import simulate, write_maps

COUNT = 60
TAIL = "\n# kept as it is\ndata_job\n\n_rlnJobTypeLabel  relion.class3d  # odd   spacing\n_oddNote 'two  words'\n"
SETTINGS = {"angular_step": 18.0, "levels": 0, "resolution": 12.0, "assigned_above": 0.9}


def relion(name, *arguments, folder):
    """Run a program of RELION in a folder; return what it printed."""
    command = [program(f"relion_{name}"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def column(star, label, table="particles"):
    return read_star(star).find(table).columns([label])[label]


def correlation(one, other):
    first, second = (mrcfile.read(path).astype(float).ravel() for path in (one, other))
    return np.corrcoef(first, second)[0, 1]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Particles of two structures and two optics groups with columns and tables that nobody knows, scored."""
    folder = tmp_path_factory.mktemp("relion")
    maps = write_maps(folder)
    simulate(folder, maps, count=COUNT, snr=2.0)
    particles = read_particles([folder / "truth.star"])
    columns = {
        "rlnOpticsGroup": 1 + np.arange(COUNT) % 2,
        "rlnMicrographName": [f"mic{i // 10}_'a'.mrc" for i in range(COUNT)],
        "oddNumber": [f"0{i}.500e+00" for i in range(COUNT)],
        "rlnRandomSubset": 1 + np.arange(COUNT) // 2 % 2,
    }
    order = np.random.default_rng(3).permutation(COUNT)
    chosen = {name: [values[i] for i in order] for name, values in columns.items()}
    write_particles(folder / "plain.star", particles.take(order), chosen, keep_overwritten=False)
    text = (folder / "plain.star").read_text(encoding="utf-8")
    (row,) = re.findall(r"^1 \S+ .*$", text.split("data_particles")[0], flags=re.MULTILINE)
    second = re.sub(r"^1 \S+", "2 'the second'", row)
    (folder / "input.star").write_text(text.replace(row, f"{row}\n{second}", 1).rstrip() + "\n" + TAIL, encoding="utf-8")
    out = folder / "out"
    run_without_report((folder, maps), out, **SETTINGS)
    return folder, out, maps


def test_every_value_of_the_input_is_there_character_by_character(scored):
    folder, out, _ = scored
    before, after = read_star(folder / "input.star"), read_star(out / "particles.star")
    given, written = before.find("particles"), after.find("particles")
    names = {label: "cryolikeInput" + label.removeprefix("rln").removeprefix("cryolike") for label in given.labels}
    overwritten = {label: name for label, name in names.items() if name in written.labels}
    assert {"rlnAngleRot", "rlnClassNumber", "rlnOriginXAngst"} == overwritten.keys() & {
        "rlnAngleRot", "rlnClassNumber", "rlnOriginXAngst", "oddNumber", "rlnMicrographName"
    }  # fmt: skip
    for label in given.labels:
        place, kept = given.labels.index(label), written.labels.index(overwritten.get(label, label))
        one = [split_row(row)[place] for row in given.rows]
        assert one == [split_row(row)[kept] for row in written.rows], label
    assert len(written.rows) == COUNT
    assert after.find("optics").rows == before.find("optics").rows
    assert TAIL.strip() in (out / "particles.star").read_text(encoding="utf-8")


def test_star_printtable_prints_what_we_wrote(scored):
    folder, out, _ = scored
    table = read_star(out / "particles.star").find("particles")
    assert {"rlnImageName", "oddNumber", "cryolikeLogLikelihood", "cryolikeInputAngleRot"} <= set(table.labels)
    for label, ours in table.columns(table.labels).items():
        printed = relion("star_printtable", out / "particles.star", "data_particles", label, folder=folder).splitlines()
        theirs = [unquote(text.strip()) for text in printed]
        if label.startswith("rln") and label not in ("rlnImageName", "rlnMicrographName"):  # RELION's own numbers
            assert np.allclose(np.array(theirs, float), np.array(ours, float), rtol=1e-5, atol=1e-5), label
        else:
            assert theirs == ours, label
    status = relion("star_printtable", out / "particles.star", "data_particles", "cryolikeStatus", folder=folder)
    assert status.split() == ["ok"] * COUNT


def test_stack_create_keeps_the_order_of_the_rows(scored, tmp_path):
    folder, out, _ = scored
    relion("stack_create", "--i", out / "particles.star", "--o", tmp_path / "stack", folder=folder)
    frames = read_particles([out / "particles.star"]).frame
    assert np.allclose(mrcfile.read(tmp_path / "stack.mrcs"), mrcfile.read(folder / "particles.mrcs")[frames])
    assert column(tmp_path / "stack.star", "cryolikeLogLikelihood")
    assert np.array_equal(read_particles([tmp_path / "stack.star"]).class_number, load_results(out).best_structure)


def test_image_handler_works_on_our_rows(scored, tmp_path):
    folder, out, _ = scored
    copy = tmp_path / "rows.star"
    particles = read_particles([out / "particles.star"])
    # It appends each image to its stack, whatever number the row has: rows must be in the order of the stack.
    write_particles(copy, particles.take(np.argsort(particles.frame)), {})
    relion("image_handler", "--i", copy, "--o", "negative", "--multiply_constant", "-2", folder=folder)
    changed = read_particles([tmp_path / "rows_negative.star"], root=folder)
    before = read_particles([copy])
    stacks = [mrcfile.read(path) for path in changed.stacks]
    images = np.array([stacks[s][f] for s, f in zip(changed.stack_index, changed.frame)])
    assert np.allclose(images, -2 * mrcfile.read(folder / "particles.mrcs")[before.frame])
    assert np.array_equal(changed.defocus_u, before.defocus_u)


@pytest.mark.parametrize("k", [1, 2])
def test_reconstructions_show_the_structures(scored, tmp_path, k):
    folder, out, maps = scored
    whole, own = tmp_path / "class.mrc", tmp_path / "own.mrc"
    relion("reconstruct", "--i", out / "particles.star", "--o", whole, "--ctf", "--class", k, folder=folder)
    relion("reconstruct", "--i", out / "assigned" / f"{k:03d}.star", "--o", own, "--ctf", folder=folder)
    for found in (whole, own):
        right, wrong = correlation(found, maps[k - 1]), correlation(found, maps[2 - k])
        assert right > 0.5 and right > wrong + 0.1, (right, wrong)


REFINE = ("--ctf", "--ctf_corrected_ref", "--skip_align", "--dont_check_norm", "--iter", 1)
REFINE += ("--tau2_fudge", 2, "--particle_diameter", 75, "--ini_high", 12, "--j", 1)


def test_refine_starts_from_our_poses(scored, tmp_path):
    folder, out, maps = scored
    references = tmp_path / "references.star"
    references.write_text("data_\n\nloop_\n_rlnReferenceImage #1\n" + "".join(f"{path}\n" for path in maps), encoding="utf-8")
    relion("refine", "--i", out / "particles.star", "--o", tmp_path / "run", "--ref", references, *REFINE, folder=folder)
    after, ours = read_particles([tmp_path / "run_it001_data.star"], root=folder), read_particles([out / "particles.star"])
    place = {key: i for i, key in enumerate(zip(ours.image_names()))}
    rows = [place[key] for key in zip(after.image_names())]
    assert sorted(rows) == list(range(COUNT))
    turned = (matrix_from_euler(p.rot, p.tilt, p.psi) for p in (after, ours.take(rows)))
    assert distance_deg(*turned).max() < 1e-3
    # RELION shifts images by whole pixels beforehand and keeps the rest: its origins are ours to rounding.
    for name in ("origin_x", "origin_y"):
        assert np.abs(getattr(after, name) - getattr(ours, name)[rows]).max() < 1e-3 * after.pixel_size.max()
    assert (after.class_number == ours.class_number[rows]).mean() > 0.8
    assert column(tmp_path / "run_it001_data.star", "cryolikeLogLikelihood")


@pytest.mark.parametrize("k", [1, 2])
def test_refine_starts_from_our_classes(scored, tmp_path, k):
    folder, out, maps = scored
    star, other = out / "assigned" / f"{k:03d}.star", maps[2 - k]
    first = "--firstiter_cc"  # from the wrong map on purpose: what comes out is what the particles show
    relion("refine", "--i", star, "--o", tmp_path / "run", "--ref", other, *REFINE, first, folder=folder)
    found = tmp_path / "run_it001_class001.mrc"
    assert correlation(found, maps[k - 1]) > correlation(found, other) + 0.1
    assert len(column(tmp_path / "run_it001_data.star", "rlnImageName")) == len(column(star, "rlnImageName"))
