"""Results: posteriors, files and the columns of particles.star."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.model_comparison import COMPARED
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import (
    PER_PARTICLE,
    PER_STRUCTURE,
    Quantity,
    Results,
    StructureEntry,
    columns_for_star,
    load_results,
)
from cryolike_scipion.engine.structure_posteriors import structure_posteriors

from .particle_files import PARTICLES, write_set

STRUCTURES = [
    StructureEntry("open", "/maps/a b.mrc", "C4", "aa"),
    StructureEntry("closed é", "b.pdb", "C1", "bb"),
]


def filled(count=4, seed=0):
    """Results of two structures with random scores; image 2 (from 0) is constant."""
    rng = np.random.default_rng(seed)
    status = np.zeros(count, np.uint8)
    status[2:3] = 1
    chunk = {name: rng.normal(size=(2, count)) * (status == 0) for name in PER_STRUCTURE}
    chunk["best_template"] = rng.integers(1, 50, size=(2, count)) * (status == 0)
    chunk.update(status=status, null_log_density=rng.normal(size=count) * (status == 0))
    results = Results.from_chunks(STRUCTURES, [chunk])
    results.parameters, results.versions = {"resolution": 8.0, "labels": ["é"]}, {"torch": "2"}
    results.grids["shift_x"] = Quantity(np.arange(3.0), "angstrom", "origins along x")
    results.extras["per_template"] = Quantity(np.zeros((1, 2)), "nat", "best for each template")
    return results


def test_posteriors_are_those_of_the_definition():
    scores = np.array([[1.0, 700.0, -1e5], [0.0, 0.0, -1e5 + 2]])
    found = structure_posteriors(scores)
    odds = np.exp(scores[0] - scores[1])
    assert found.dtype == np.float64
    assert np.allclose(found[0], [odds[0] / (1 + odds[0]), 1, 1 / (1 + np.exp(2))], rtol=1e-14)
    weighted = structure_posteriors(scores, [3, 1])
    assert np.allclose(weighted[0, 0] / weighted[1, 0], 3 * np.e)
    assert structure_posteriors(scores, [1, 0])[1].tolist() == [0, 0, 0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_posteriors_sum_to_1_and_ignore_a_common_term(scores, term):
    column = np.array(scores)[:, None]
    found = structure_posteriors(column)
    assert np.isclose(found.sum(), 1, atol=1e-12)
    assert np.allclose(structure_posteriors(column + term), found, atol=1e-8)


@pytest.mark.parametrize("priors", [[1], [1, -1], [0, 0], [np.nan, 1]])
def test_wrong_priors(priors):
    with pytest.raises(InputError, match="prior weights"):
        structure_posteriors(np.zeros((2, 1)), priors)


def test_chunks_are_joined_in_order():
    whole = filled(5)
    arrays = {name: getattr(whole, name) for name in (*PER_STRUCTURE, *PER_PARTICLE)}
    parts = [{name: array[..., part] for name, array in arrays.items()} for part in (slice(0, 3), slice(3, 5))]
    joined = Results.from_chunks(STRUCTURES, parts)
    for name, array in arrays.items():
        assert np.array_equal(getattr(joined, name), array) and getattr(joined, name).dtype == array.dtype, name


def test_images_without_a_score_belong_to_no_structure():
    results = filled()
    assert results.best_structure[2] == 0 and not results.structure_posterior[:, 2].any()
    good = results.status == 0
    assert np.array_equal(results.best_structure[good], np.argmax(results.integrated[:, good], axis=0) + 1)
    results.update_posteriors([1e-9, 1])
    assert set(results.best_structure[good]) == {2} and np.allclose(results.priors, [1e-9, 1], rtol=1e-8)
    assert np.array_equal(results.of_best("cc")[good], results.cc[1, good])


def test_files_hold_everything_with_units_and_meanings(tmp_path):
    results = filled()
    particles = read_particles(write_set(tmp_path))
    results.identify(particles)
    results.save(tmp_path)
    matrix = np.load(tmp_path / "matrix.npy", allow_pickle=False)
    assert matrix.dtype == np.float64 and np.array_equal(matrix, results.integrated)
    with h5py.File(tmp_path / "scores.h5") as file:
        datasets = []
        file.visititems(lambda name, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) == len(PER_STRUCTURE) + len(PER_PARTICLE) + len(COMPARED) + 1 + 3 + 2
        assert all({"unit", "meaning"} <= set(dataset.attrs) for dataset in datasets)
        assert file["rot"].attrs["unit"] == "degree" and "[structures × particles]" in file["rot"].attrs["meaning"]
        assert json.loads(file.attrs["parameters"]) == results.parameters
    again = load_results(tmp_path)
    for name in (*PER_STRUCTURE, *PER_PARTICLE, "priors", "row", "source_index"):
        assert np.array_equal(getattr(again, name), getattr(results, name)), name
        assert getattr(again, name).dtype == getattr(results, name).dtype
    assert [vars(s) for s in again.structures] == [vars(s) for s in STRUCTURES] and again.labels == [
        "open",
        "closed é",
    ]
    assert again.image_name == particles.image_names() and again.sources == results.sources
    assert again.versions == results.versions and again.grids["shift_x"].unit == "angstrom"
    assert np.array_equal(again.extras["per_template"].values, np.zeros((1, 2)))


def test_results_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="there is no result"):
        load_results(tmp_path)
    (tmp_path / "scores.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match="the result cannot be read"):
        load_results(tmp_path)
    with h5py.File(tmp_path / "scores.h5", "w") as file:
        file.attrs["format"] = 99
    with pytest.raises(InputError, match="the result has format 99"):
        load_results(tmp_path)


def test_columns(tmp_path):
    head = PARTICLES + "_rlnAngleRot #6\n_rlnAngleTilt #7\n_rlnAnglePsi #8\n_rlnOriginXAngst #9\n_rlnOriginYAngst #10\n"
    rows = [f"{i}@images.mrcs 1 10000 9000 0 1{i} 2{i} 3{i} 4{i} 5{i}" for i in range(1, 5)]
    particles = read_particles(write_set(tmp_path, head=head, rows=rows))
    results = filled()
    columns = columns_for_star(results, particles)
    best = results.best_structure - 1
    for i in (0, 1, 3):
        assert columns["rlnAngleRot"][i] == results.rot[best[i], i]
        assert columns["rlnOriginYAngst"][i] == results.origin_y[best[i], i]
        assert columns["cryolikeLogLikelihood"][i] == columns["rlnLogLikeliContribution"][i] == results.integrated[best[i], i]
        assert columns["rlnMaxValueProbDistribution"][i] == (
            results.pose_posterior[best[i], i] * results.structure_posterior[best[i], i]
        )
        assert columns["rlnClassNumber"][i] == columns["cryolikeBestStructure"][i] == best[i] + 1
        assert columns["cryolikeBestTemplate"][i] == results.best_template[best[i], i]
    assert [columns[name][2] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst")] == [13, 23, 33, 43]
    assert columns["cryolikeStatus"] == ["ok", "ok", "constant", "ok"]
    scores = [name for name in columns if name.startswith("cryolike") and name != "cryolikeStatus"]
    assert len(scores) == 14 and all(columns[name][2] == 0 for name in (*scores, "rlnClassNumber"))
    write_particles(tmp_path / "out.star", particles, columns)
    table = read_particles(tmp_path / "out.star")
    assert table.has_pose and table.class_number.tolist() == results.best_structure.tolist()
    assert np.allclose(table.rot, columns["rlnAngleRot"], atol=1e-6) and table.rot[2] == 13
