"""What a run writes for others: per-structure STAR files, scores.csv, particles.cs, and the matrix Xmipp's readers take."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from cryolike_scipion.engine import merge_run, result_files
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.progress import Progress
from cryolike_scipion.engine.result_files import refuse_results, write_particle_files
from cryolike_scipion.engine.results import PER_PARTICLE, PER_STRUCTURE, Results, StructureEntry, load_results
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.star_file import read_star, split_row

from .helpers import shared_data
from .particle_files import PARTICLES, cryosparc_array, random_images, write_cryosparc, write_set, write_stack

STRUCTURES = [StructureEntry("open", "a.mrc"), StructureEntry("closed, 'é'", "b.mrc"), StructureEntry("never", "c.mrc")]
COUNT = 9
BAD = 4  # an image that could not be scored
EXPORTS = {"csv": True, "cs": True, "assigned_above": 0.8}


def results_of(particles, seed=0):
    """Results in which structures 1 and 2 share the particles, some of them barely; image BAD is constant."""
    rng = np.random.default_rng(seed)
    count = len(particles)
    status = np.where(np.arange(count) == BAD, 1, 0).astype(np.uint8)
    chunk = {name: rng.normal(size=(3, count)) for name in PER_STRUCTURE}
    chunk["integrated"] = rng.normal(scale=3, size=(3, count)) - np.array([[0], [0], [60]])
    chunk |= {"rot": rng.uniform(-180, 180, (3, count)), "tilt": rng.uniform(0, 180, (3, count))}
    chunk |= {"psi": rng.uniform(-180, 180, (3, count)), "best_template": rng.integers(1, 9, (3, count))}
    chunk = {name: values * (status == 0) for name, values in chunk.items()}
    chunk |= {"status": status, "null_log_density": rng.normal(size=count)}
    results = Results.from_chunks(STRUCTURES, [chunk])
    results.identify(particles)
    return results


def written(folder, particles, **parameters):
    """Write the files of made-up results; return these."""
    results = results_of(particles)
    results.save(folder)
    write_particle_files(Path(folder), results, particles, {**EXPORTS, **parameters})
    return results


@pytest.fixture
def particles(tmp_path):
    head = PARTICLES + "_rlnMystery #6\n_rlnClassNumber #7\n_rlnRandomSubset #8\n"
    rows = [f"{i}@images.mrcs 1 {1e4 + i:.2f} 9000.50 1{i} 'x {i}' 7 {1 + i % 2}" for i in range(1, COUNT + 1)]
    return read_particles(write_set(tmp_path / "in", COUNT, head=head, rows=rows))


# ---------------------------------------------------------------- a file for each structure


@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0])
def test_each_structure_gets_the_particles_that_are_surely_its_own(tmp_path, particles, threshold):
    results = written(tmp_path / "out", particles, assigned_above=threshold)
    whole = read_star(tmp_path / "out" / "particles.star")
    sure = results.of_best("structure_posterior") >= threshold
    assert sure[results.status == 0].all() == (threshold == 0.0)  # else the threshold is not tried
    for k in (1, 2):
        rows = np.flatnonzero((results.best_structure == k) & sure)
        path = tmp_path / "out" / "assigned" / f"{k:03d}.star"
        if len(rows) == 0:
            assert not path.exists()
            continue
        own = read_star(path)
        assert own.find("particles").labels == whole.find("particles").labels
        place = own.find("particles").labels.index("rlnClassNumber")
        for text, row in zip(own.find("particles").rows, rows):
            expected = split_row(whole.find("particles").rows[row])
            assert expected[place] == str(k)
            expected[place] = "1"  # the only reference of a refinement of its own
            assert split_row(text) == expected
        assert own.find("optics").rows == whole.find("optics").rows
        assert set(own.find("particles").columns(["cryolikeBestStructure"])["cryolikeBestStructure"]) == {str(k)}
    assert not (tmp_path / "out" / "assigned" / "003.star").exists()


def test_files_of_an_earlier_threshold_do_not_stay(tmp_path, particles):
    written(tmp_path, particles, assigned_above=0.0)
    assert sorted(path.name for path in (tmp_path / "assigned").iterdir()) == ["001.star", "002.star"]
    results = results_of(particles)
    results.integrated[1] -= 100  # nothing chooses the second one any more
    results.update_posteriors()
    write_particle_files(tmp_path, results, particles, EXPORTS)
    assert [path.name for path in (tmp_path / "assigned").iterdir()] == ["001.star"]


def test_nothing_more_is_written_than_asked_for(tmp_path, particles):
    written(tmp_path / "out", particles, csv=False, cs=False, assigned_above=None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["matrix.npy", "particles.star", "scores.h5"]


@pytest.mark.parametrize("name", ["particles.cs", "scores.csv", "assigned/002.star"])
def test_an_input_is_not_overwritten(tmp_path, name):
    (tmp_path / "assigned").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="would overwrite this input"):
        refuse_results(tmp_path, [str(tmp_path / name)])


# ---------------------------------------------------------------- a table


def test_the_table_has_every_score(tmp_path, particles):
    results = written(tmp_path, particles)
    with open(tmp_path / "scores.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == COUNT and [int(row["row"]) for row in rows] == list(range(1, COUNT + 1))
    assert [row["imageName"] for row in rows] == particles.image_names()
    assert [int(row["bestStructure"]) for row in rows] == results.best_structure.tolist()
    for i, row in enumerate(rows):
        best = results.best_structure[i] - 1
        if i == BAD:
            assert (row["status"], row["bestStructure"], row["bestLabel"]) == ("constant", "0", "")
            assert row["logLikelihood"] == row["posterior_2"] == row["rot"] == ""
            continue
        assert row["bestLabel"] == STRUCTURES[best].label
        assert float(row["logLikelihood"]) == results.integrated[best, i] == float(row[f"logLikelihood_{best + 1}"])
        assert float(row["tilt"]) == results.tilt[best, i] and float(row["originYAngst"]) == results.origin_y[best, i]
        assert [float(row[f"posterior_{k}"]) for k in (1, 2, 3)] == results.structure_posterior[:, i].tolist()
    header = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[0]
    assert not set(header) & set(" '\"")


# ---------------------------------------------------------------- the matrix


def test_the_matrix_is_turned_as_xmipps(tmp_path, particles):
    """Its likelihood protocol appends the particles' scores volume by volume and reshapes them; rows are volumes."""
    results = written(tmp_path, particles)
    appended = [score for k in range(3) for score in results.integrated[k]]
    theirs = np.array(appended).reshape((3, -1))
    ours = np.load(tmp_path / "matrix.npy", allow_pickle=False)
    assert np.array_equal(ours, theirs) and ours.flags.c_contiguous and ours.dtype == np.float64
    good = results.status == 0
    assert np.array_equal((np.argmax(ours, axis=0) + 1)[good], results.best_structure[good])  # its classes


# ---------------------------------------------------------------- cryoSPARC

REAL = ("P12_J24_particles.cs", "J2_particles_exported.cs")


def _rotation(particles):
    return matrix_from_euler(particles.rot, particles.tilt, particles.psi)


def assert_poses(particles, results, degrees=1e-4, pixels=1e-4):
    """The poses that a reader finds are those of the best structures."""
    good = results.status == 0
    mine = matrix_from_euler(*(results.of_best(name) for name in ("rot", "tilt", "psi")))
    assert distance_deg(_rotation(particles), mine)[good].max() < degrees
    for name in ("origin_x", "origin_y"):
        assert np.allclose(
            getattr(particles, name)[good], results.of_best(name)[good], atol=pixels * particles.pixel_size.min()
        )


@pytest.mark.parametrize("name", REAL)
def test_real_cryosparc_rows_come_back_with_every_field(tmp_path, name):
    source = shared_data("cryosparc") / name
    before = np.load(source, allow_pickle=False)
    particles = read_particles(source)
    results = written(tmp_path, particles, cs=False)  # the uids ask for it
    after = np.load(tmp_path / "particles.cs", allow_pickle=False)
    reference = np.load(shared_data("cryosparc") / REAL[0], allow_pickle=False).dtype
    assert np.array_equal(after["uid"], before["uid"])
    for field in before.dtype.names:
        kept = f"input_{field}" if field.startswith("alignments3D") else field
        assert after.dtype[kept] == before.dtype[field], field
        assert after[kept].tobytes() == before[field].tobytes(), field
    for field in reference.names:
        if field.startswith("alignments3D"):
            assert after.dtype[field] == reference[field], field
    good = results.status == 0
    assert np.array_equal(after["alignments3D/class"][good] + 1, results.best_structure[good])
    assert np.allclose(after["alignments3D/class_posterior"], results.of_best("structure_posterior"), atol=1e-6)
    assert np.array_equal(after["cryolike/logLikelihoods"], results.integrated.T)
    assert after["cryolike/status"][BAD] == b"constant" and after["alignments3D/class_posterior"][BAD] == 0
    again = read_particles(tmp_path / "particles.cs")
    assert_poses(again, results)
    for name in ("defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "sign", "frame", "optics_index"):
        assert np.array_equal(getattr(again, name), getattr(particles, name)), name
    assert again.optics == particles.optics


def test_an_exported_group_finds_its_images_from_the_new_folder(tmp_path):
    write_stack(tmp_path / "export" / "J1" / "images.mrcs", random_images(COUNT))
    star = write_cryosparc(tmp_path / "export" / "p.cs", cryosparc_array(COUNT))
    particles = read_particles(star)
    written(tmp_path / "far" / "out", particles)
    table = np.load(tmp_path / "far" / "out" / "particles.cs", allow_pickle=False)
    assert set(table["blob/path"]) == {b">../../export/J1/images.mrcs"}
    assert [os.path.realpath(p) for p in read_particles(tmp_path / "far" / "out" / "particles.cs").stacks] == [
        str(tmp_path / "export" / "J1" / "images.mrcs")
    ]


def test_particles_of_relion_become_cryosparcs(tmp_path, particles):
    results = written(tmp_path / "out", particles)
    table = np.load(tmp_path / "out" / "particles.cs", allow_pickle=False)
    reference = np.load(shared_data("cryosparc") / REAL[0], allow_pickle=False).dtype
    for field in reference.names:
        assert field in table.dtype.names, field
        assert table.dtype[field] == reference[field] or reference[field].kind == "S", field
    assert len(set(table["uid"])) == COUNT and table["uid"].min() > 0
    assert table["alignments3D/split"].tolist() == [i % 2 for i in range(1, COUNT + 1)]
    again = read_particles(tmp_path / "out" / "particles.cs")
    assert_poses(again, results)
    for name in ("defocus_u", "defocus_v", "defocus_angle_deg", "pixel_size"):
        assert np.allclose(getattr(again, name), getattr(particles, name), rtol=1e-6), name
    assert np.array_equal(again.frame, particles.frame) and np.array_equal(again.sign, particles.sign)
    assert [os.path.realpath(p) for p in again.stacks] == [os.path.realpath(p) for p in particles.stacks]
    written(tmp_path / "other", particles)
    other = np.load(tmp_path / "other" / "particles.cs", allow_pickle=False)
    assert np.array_equal(other["uid"], table["uid"])  # the same images, the same uids


def test_what_cryosparc_files_cannot_hold_is_said(tmp_path, caplog):
    star = write_set(
        tmp_path,
        COUNT,
        head=PARTICLES + "_rlnBeamTiltX #6\n",
        rows=[f"{i}@images.mrcs 1 1 1 1 0.2" for i in range(1, COUNT + 1)],
    )
    with caplog.at_level("WARNING"):
        written(tmp_path / "out", read_particles(star))
    assert f"particles.cs does not hold rlnBeamTiltX of {star}" in caplog.text


def test_uids_stay_when_a_project_is_moved_and_none_occurs_twice(tmp_path):
    def uids(*folders):
        out = tmp_path / "-".join(folders)
        written(out, read_particles([tmp_path / name / "input.star" for name in folders]), cs=True)
        return np.load(out / "particles.cs", allow_pickle=False)["uid"].tolist()

    rows = [f"{1 + i % 8}@images.mrcs 1 1 1 1" for i in range(COUNT)]  # the first image twice
    star = write_set(tmp_path / "here", COUNT, rows=rows)
    before = uids("here")
    (tmp_path / "here").rename(tmp_path / "there")
    other = write_set(tmp_path / "other", COUNT, rows=rows)  # other images of the same names
    assert not star.exists() and other.exists()
    assert uids("there") == before and len(set(before)) == COUNT
    both = uids("there", "other")
    assert both[:COUNT] == before and len(set(both)) == 2 * COUNT


@pytest.mark.parametrize("flipped", [0, 1])
def test_phase_flipped_images_are_not_given_to_cryosparc_unsaid(tmp_path, caplog, flipped):
    rows = [f"{i}@images.mrcs 1 1 1 1 {flipped}" for i in range(1, COUNT + 1)]
    star = write_set(tmp_path, COUNT, head=PARTICLES + "_rlnCtfDataArePhaseFlipped #6\n", rows=rows)
    with caplog.at_level("WARNING"):
        written(tmp_path / "out", read_particles(star))
    said = f"does not hold rlnCtfDataArePhaseFlipped of {star}: cryoSPARC would correct these images"
    assert (said in caplog.text) == bool(flipped)


def test_a_cryosparc_file_that_lacks_what_was_given_gets_it(tmp_path):
    source = write_cryosparc(tmp_path / "p.cs", cryosparc_array(COUNT, blob__psize_A=None, ctf__amp_contrast=None))
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(COUNT))
    particles = read_particles(source, pixel_size=1.25, amplitude_contrast=0.07)
    results = written(tmp_path / "out", particles)
    again = read_particles(tmp_path / "out" / "particles.cs")
    assert set(again.pixel_size) == {1.25} and again.optics[0].amplitude_contrast == pytest.approx(0.07)
    assert_poses(again, results)


def test_particles_are_written_before_what_else_was_asked_for(tmp_path, particles, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    for name in ("write_table", "write_cryosparc", "write_assigned"):
        monkeypatch.setattr(result_files, name, fail)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path, particles)
    assert (tmp_path / "particles.star").exists()


def test_the_group_file_names_what_is_there(tmp_path, particles):
    written(tmp_path, particles)
    text = (tmp_path / "particles.csg").read_text(encoding="utf-8")
    results = text.split("results:\n")[1].split("version:")[0]
    groups = [line.strip(" :") for line in results.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert groups == ["alignments3D", "blob", "ctf"]
    assert results.count("metafile: '>particles.cs'") == 3 and results.count(f"num_items: {COUNT}") == 3
    assert "type: particle.ctf" in results


def test_a_second_run_keeps_what_the_first_input_had(tmp_path):
    array = cryosparc_array(
        COUNT, alignments3D__pose=np.full((COUNT, 3), 0.3, np.float32), alignments3D__shift=np.full((COUNT, 2), 1.5, np.float32)
    )
    first = read_particles(write_cryosparc(tmp_path / "p.cs", array))
    written(tmp_path / "one", first)
    written(tmp_path / "two", read_particles(tmp_path / "one" / "particles.cs"))
    table = np.load(tmp_path / "two" / "particles.cs", allow_pickle=False)
    assert table["input_alignments3D/pose"].tobytes() == array["alignments3D/pose"].tobytes()
    assert not [name for name in table.dtype.names if name.startswith("input_input")]


def test_sources_of_both_kinds_become_one_table(tmp_path, particles):
    array = cryosparc_array(2, alignments3D__pose=np.full((2, 3), 0.3, np.float32))
    both = read_particles([particles.source, write_cryosparc(tmp_path / "p.cs", array)]).take([9, 0, 1, 10, 3, 4, 5, 2, 6])
    results = written(tmp_path, both)
    table = np.load(tmp_path / "particles.cs", allow_pickle=False)
    assert table["uid"][[0, 3]].tolist() == array["uid"].tolist()
    assert np.allclose(table["ctf/df1_A"], both.defocus_u, rtol=1e-6)
    assert table["input_alignments3D/pose"][[0, 3]].tobytes() == array["alignments3D/pose"].tobytes()
    assert np.allclose(
        table["cryolike/logLikelihood"], [0 if i == BAD else x for i, x in enumerate(results.of_best("integrated"))]
    )


# ---------------------------------------------------------------- merge


def test_merged_runs_export_what_one_run_would(tmp_path, monkeypatch):
    monkeypatch.setattr(merge_run, "write_report", lambda *_: None)
    write_stack(tmp_path / "J1" / "images.mrcs", random_images(COUNT))
    array = cryosparc_array(COUNT, alignments3D__pose=np.full((COUNT, 3), 0.3, np.float32))
    particles = read_particles(write_cryosparc(tmp_path / "p.cs", array))
    whole = written(tmp_path / "whole", particles)
    for part, rows in (("a", np.arange(5, COUNT)), ("b", np.arange(5))):
        arrays = {name: getattr(whole, name)[:, rows] for name in PER_STRUCTURE}
        arrays |= {name: getattr(whole, name)[rows] for name in PER_PARTICLE}
        results = Results.from_chunks(STRUCTURES, [arrays])
        some = particles.take(rows)
        results.identify(some)
        results.save(tmp_path / part)
        write_particle_files(tmp_path / part, results, some, {})
    runs = [str(tmp_path / part) for part in "ab"]
    merge_run.run({"runs": runs, "out": str(tmp_path / "merged"), "priors": None, **EXPORTS}, Progress(bar=False))
    assert np.array_equal(load_results(tmp_path / "merged").integrated, whole.integrated)
    one, two = (np.load(tmp_path / name / "particles.cs", allow_pickle=False) for name in ("whole", "merged"))
    assert one.dtype == two.dtype
    for name in one.dtype.names:
        assert one[name].tobytes() == two[name].tobytes(), name
    for name in ("assigned/001.star", "assigned/002.star"):
        first, second = (read_star(tmp_path / folder / name).find("particles") for folder in ("whole", "merged"))
        assert first.labels == second.labels and first.rows == second.rows
