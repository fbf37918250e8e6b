"""Merging runs over different structures and different rows."""

import numpy as np
import pytest

from cryolike_scipion.engine import merge_run
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.progress import Progress
from cryolike_scipion.engine.results import (
    PER_PARTICLE,
    PER_STRUCTURE,
    Quantity,
    Results,
    StructureEntry,
    columns_for_star,
    load_results,
)
from cryolike_scipion.engine.star_file import read_star

from .particle_files import write_set

STRUCTURES = [StructureEntry(label, f"{label}.mrc", "C1", label * 8) for label in "ABC"]
COUNT = 6


def whole_run():
    """Scores of all structures and rows; image 4 (from 0) is missing."""
    rng = np.random.default_rng(5)
    chunk = {name: rng.normal(size=(3, COUNT)) for name in PER_STRUCTURE}
    chunk["best_template"] = rng.integers(1, 50, size=(3, COUNT))
    status = np.zeros(COUNT, np.uint8)
    status[4] = 3
    for array in chunk.values():
        array[:, 4] = 0
    return Results.from_chunks(STRUCTURES, [{**chunk, "status": status, "null_log_density": rng.normal(size=COUNT) - 1e3}])


def write_run(folder, star, structures, rows, **parameters):
    """Write the part of :func:`whole_run` that a run over some structures and rows would make."""
    whole, particles = whole_run(), read_particles(star).take(rows)
    arrays = {name: getattr(whole, name)[np.ix_(structures, rows)] for name in PER_STRUCTURE}
    arrays |= {name: getattr(whole, name)[rows] for name in PER_PARTICLE}
    results = Results.from_chunks([whole.structures[k] for k in structures], [arrays])
    results.parameters = {"resolution": 8.0, "rows": str(rows), "out": str(folder), **parameters}
    results.grids["views"] = Quantity(np.arange(len(structures)), "degree", "views")
    results.identify(particles)
    results.save(folder)
    write_particles(folder / "particles.star", particles, columns_for_star(results, particles))
    return folder


def merge(folders, out, **options):
    merge_run.run({"runs": [str(f) for f in folders], "out": str(out), "priors": None, **options}, Progress(bar=False))
    return load_results(out)


@pytest.fixture
def star(tmp_path):
    return write_set(tmp_path / "in", COUNT, tail="\ndata_job\n\n_x 1\n")


ALL = list(range(COUNT))
PLANS = {
    "structures": [([0], ALL), ([1, 2], ALL)],
    "rows": [([0, 1, 2], ALL[3:]), ([0, 1, 2], ALL[:3])],
    "both": [([0], ALL[:2]), ([1], ALL[2:]), ([2], ALL[2:]), ([1, 2], ALL[:2]), ([0], ALL[2:])],
}


@pytest.mark.parametrize("plan", PLANS)
def test_parts_become_the_whole(tmp_path, star, plan):
    folders = [write_run(tmp_path / f"run {i}", star, *part) for i, part in enumerate(PLANS[plan])]
    merged, whole = merge(folders, tmp_path / "out"), whole_run()
    order = [whole.labels.index(label) for label in merged.labels]
    assert sorted(order) == [0, 1, 2]
    for name in PER_STRUCTURE:
        assert np.allclose(getattr(merged, name), getattr(whole, name)[order], rtol=1e-14, atol=0), name
    assert np.array_equal(merged.status, whole.status) and np.array_equal(merged.null_log_density, whole.null_log_density)
    best = np.array([0, *(order.index(k) + 1 for k in range(3))])
    assert np.array_equal(merged.best_structure, best[whole.best_structure])
    assert merged.row.tolist() == list(range(1, COUNT + 1))
    assert np.array_equal(np.load(tmp_path / "out" / "matrix.npy"), merged.integrated)
    reference = tmp_path / "one.star"
    whole.structures = [whole.structures[k] for k in order]
    for name in PER_STRUCTURE:
        setattr(whole, name, getattr(whole, name)[order])
    whole.update_posteriors()
    write_particles(reference, read_particles(star), columns_for_star(whole, read_particles(star)))
    found, expected = read_star(tmp_path / "out" / "particles.star"), read_star(reference)
    assert found.find("particles").rows == expected.find("particles").rows
    assert found.find("particles").labels == expected.find("particles").labels
    assert found.find("optics").rows == expected.find("optics").rows and found.find("job").rows == ["1"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_merged_run_can_be_merged_again(tmp_path, star):
    parts = [write_run(tmp_path / str(k), star, [k], ALL) for k in range(3)]
    merge(parts[:2], tmp_path / "ab")
    merged = merge([tmp_path / "ab", parts[2]], tmp_path / "abc")
    assert merged.labels == ["A", "B", "C"] and np.array_equal(merged.integrated, whole_run().integrated)


def test_priors_and_grids(tmp_path, star):
    parts = [write_run(tmp_path / "0", star, [0], ALL), write_run(tmp_path / "1", star, [1, 2], ALL)]
    merged = merge(parts, tmp_path / "out", priors=[1.0, 0.0, 0.0])
    assert set(merged.best_structure) == {0, 1} and merged.priors.tolist() == [1, 0, 0]
    assert sorted(merged.grids) == ["run1_views", "run2_views"]
    same = [write_run(tmp_path / "2", star, [0], ALL), write_run(tmp_path / "3", star, [1], ALL)]
    assert list(merge(same, tmp_path / "out2").grids) == ["views"]


def error_of(folders, out, **options):
    with pytest.raises(InputError) as caught:
        merge(folders, out, **options)
    assert not out.exists() or not list(out.glob("*"))
    return str(caught.value)


def test_runs_that_do_not_fit(tmp_path, star):
    a, b = write_run(tmp_path / "a", star, [0], ALL), write_run(tmp_path / "b", star, [1], ALL)
    out = tmp_path / "out"
    assert "fewer than two runs" in error_of([a], out)
    assert "there is no result" in error_of([a, tmp_path / "gone"], out)
    assert "the structure 'A' is also in" in error_of([a, write_run(tmp_path / "a2", star, [0], ALL)], out)
    other = write_run(tmp_path / "c", star, [1], ALL, resolution=9.0)
    assert f"{other}: resolution is 9.0, and 8.0 in {a}. Merge runs" in error_of([a, other], out)
    assert "row 3 is also in" in error_of([a, write_run(tmp_path / "d", star, [0], [2, 3])], out)
    half = write_run(tmp_path / "e", star, [0, 1], [0, 1])
    assert "no scores for the structure 'B'" in error_of([half, write_run(tmp_path / "f", star, [0], [2, 3])], out)
    assert "2 prior weights were given for" in error_of(
        [a, b, write_run(tmp_path / "g", star, [2], ALL)], out, priors=[1.0, 1.0]
    )
    with pytest.raises(InputError, match="the output folder is one of the runs"):
        merge([a, b], a)


def test_runs_over_several_particle_files_become_one_table(tmp_path, star):
    """As particles come: two files, the second in two parts, added to a run that was merged before."""
    other = write_set(tmp_path / "other", COUNT)
    other.write_text(star.read_text().replace("10002.10", "10002.20"))
    structures = [0, 1, 2]
    a = write_run(tmp_path / "a", star, structures, ALL)
    b, c = (write_run(tmp_path / name, other, structures, rows) for name, rows in (("b", ALL[:4]), ("c", ALL[4:])))
    merge([a, c], tmp_path / "first")
    merged, whole = merge([tmp_path / "first", b], tmp_path / "out"), whole_run()
    for name in PER_STRUCTURE:
        assert np.array_equal(getattr(merged, name), np.tile(getattr(whole, name), 2)), name
    assert merged.source_index.tolist() == [0] * COUNT + [1] * COUNT
    assert merged.row.tolist() == [i + 1 for i in ALL] * 2
    assert merged.parameters["runs"] == [str(a), str(c), str(b)]
    table = read_particles(tmp_path / "out" / "particles.star")
    assert np.count_nonzero(table.defocus_u == 10002.2) == np.count_nonzero(read_particles(star).defocus_u == 10002.1) == 1


def test_another_particle_file_needs_every_structure(tmp_path, star):
    a = write_run(tmp_path / "a", star, [0], ALL)
    other = write_set(tmp_path / "other", COUNT)
    other.write_text(star.read_text().replace("10002.10", "10002.20"))
    message = error_of([a, write_run(tmp_path / "b", other, [1], ALL)], tmp_path / "out")
    assert "no scores for the structure" in message


def test_runs_that_saw_other_images(tmp_path, star):
    a, b = write_run(tmp_path / "a", star, [0], ALL), write_run(tmp_path / "b", star, [1], ALL)
    changed = load_results(b)
    changed.null_log_density[3] += 0.1
    changed.save(b)
    assert f"{b}, row 4: the image differs from that of the run in {a}" in error_of([a, b], tmp_path / "out")


def test_contrasts_are_compared_by_group_not_by_number(tmp_path, star, caplog):
    """The second run's file has the groups in another order; only "B" differs, and another pixel is another group."""

    def prior(*groups):
        contrast = {"groups": {str(n): {"mu": mu, "tau": 1.0} for n, (_, _, mu) in enumerate(groups)}}
        return {"scale_prior": {**contrast, "optics": [[name, pixel] for name, pixel, _ in groups]}}

    a = write_run(tmp_path / "a", star, [0], ALL, **prior(("A", 2.5, 1.0), ("B", 2.5, 3.0), ("C", 1.0, 1.0)))
    b = write_run(tmp_path / "b", star, [1], ALL, **prior(("B", 2.5, 5.0), ("A", 2.5, 1.0), ("C", 2.0, 9.0)))
    merge([a, b], tmp_path / "out")
    said = [line for line in caplog.messages if "learned different contrasts" in line]
    assert len(said) == 1 and "(3 and 5) in optics group B:" in said[0]


def test_runs_with_other_numbers_of_best_poses_keep_the_smaller(tmp_path, star):
    runs = [write_run(tmp_path / str(n), star, [n], ALL, best_poses=n + 2) for n in (0, 1)]
    for n, folder in enumerate(runs):
        results = load_results(folder)
        results.extras["best_poses"] = Quantity(np.full((1, COUNT, n + 2, 7), n, np.float32), "1", "poses")
        results.save(folder)
    found = merge(runs, tmp_path / "out")
    assert found.extras["best_poses"].values.shape == (2, COUNT, 2, 7) and found.parameters["best_poses"] == 2
    assert merge(runs[::-1], tmp_path / "again").parameters["best_poses"] == 2


def test_labels_that_mean_two_things(tmp_path, star):
    a, b = write_run(tmp_path / "a", star, [0], ALL), write_run(tmp_path / "b", star, [1], ALL)
    changed = load_results(b)
    changed.structures = [StructureEntry("A", "other.mrc", "C1", "0")]
    changed.save(b)
    assert "the label 'A' stands for another structure" in error_of([a, b], tmp_path / "out")


def test_a_folder_with_parts_of_two_runs(tmp_path, star):
    a, b = write_run(tmp_path / "a", star, [0], ALL), write_run(tmp_path / "b", star, [1], ALL[:3])
    (a / "particles.star").write_bytes((b / "particles.star").read_bytes())
    assert "particles.star has 3 rows, scores.h5 has 6" in error_of([a, b], tmp_path / "out")


def test_a_merge_survives_pictures_that_cannot_be_made(tmp_path, star, monkeypatch, caplog):
    def fail(*_):
        assert (tmp_path / "out" / "particles.star").exists()
        raise RuntimeError("no ink")

    for name in ("merge_galleries", "write_report"):
        monkeypatch.setattr(merge_run, name, fail)
    runs = [write_run(tmp_path / name, star, [k], ALL) for k, name in enumerate("ab")]
    assert merge(runs, tmp_path / "out").labels == ["A", "B"]
    assert caplog.text.count("RuntimeError: no ink") == 2


def test_priors_over_views_of_different_input_poses_are_not_merged(tmp_path, star):
    parts = [write_run(tmp_path / f"{i}", star, [0, 1, 2], rows, input_views=views)
             for i, (rows, views) in enumerate([(ALL[:2], "a"), (ALL[2:4], "b"), (ALL[4:], "a")])]  # fmt: skip
    with pytest.raises(InputError, match=r"other input poses.*--scale-from"):
        merge(parts[:2], tmp_path / "out")
    assert len(merge([parts[0], parts[2]], tmp_path / "out").row) == COUNT - 2
