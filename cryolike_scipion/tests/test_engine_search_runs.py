"""Runs with the hierarchical and the exhaustive search on one set: the same answers, whatever the number of threads."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine import compute, likelihood_run, memory
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

from .level_trial import BOX, GRID
from .small_sets import poses_of, score, simulate, write_maps

COUNT = 16
OPTIONS = {**GRID, "angular_step": 6.0, "levels": 2}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(compute, "_threads", None)
    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    maps = write_maps(folder, 2, box=BOX, count=14, radius=46.0, sigma=4.0)
    simulate(folder, maps, count=COUNT, snr=0.08)
    return folder, maps


@pytest.fixture(scope="module")
def hierarchical(particles, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return score(tmp_path_factory.mktemp("hierarchical"), particles[0] / "truth.star", particles[1], **OPTIONS)


def test_it_is_the_default_and_finds_the_truth(particles, hierarchical):
    folder, _ = particles
    assert hierarchical.parameters["search"] == "hierarchical"
    angles, origins = poses_of(folder / "truth.star")
    best = hierarchical.best_structure - 1
    rows = np.arange(COUNT)
    rotation = matrix_from_euler(*(getattr(hierarchical, n)[best, rows] for n in ("rot", "tilt", "psi")))
    assert np.median(distance_deg(rotation, matrix_from_euler(*angles.T))) < 4.0
    off = np.stack([hierarchical.origin_x[best, rows], hierarchical.origin_y[best, rows]], axis=1) - origins
    assert np.median(np.hypot(*off.T)) < 1.5


def test_errors_of_the_integral_are_told(hierarchical):
    error = hierarchical.extras["integrated_error"].values
    assert error.shape == (2, COUNT) and (error >= 0).all() and np.median(error) < 0.01
    assert np.abs(hierarchical.extras["integrated_change"].values).max() > 0


def test_the_exhaustive_search_gives_the_same(particles, hierarchical, tmp_path):
    exhaustive = score(tmp_path, particles[0] / "truth.star", particles[1], search="exhaustive", **OPTIONS)
    assert np.array_equal(exhaustive.best_structure, hierarchical.best_structure)
    # The same grid; the rows that are divided after it, and the learned prior, may differ a little.
    off = np.abs(exhaustive.integrated - hierarchical.integrated)
    rows = np.arange(COUNT)
    assert off[hierarchical.best_structure - 1, rows].max() < 0.1 and np.median(off) < 0.02 and off.max() < 0.5
    assert (hierarchical.max > exhaustive.max - 0.05).mean() > 0.9
    assert exhaustive.extras["integrated_error"].values.max() < 0.02  # of the rows that were not divided alone


def test_threads_change_nothing(particles, hierarchical, tmp_path, monkeypatch):
    """Pieces of three images: six of them at work by two. Finer views are made in the order in which they are asked for,
    several at a time, and round off by how many: 1e-6 nat and 1e-3 degrees or Å.
    """
    monkeypatch.setattr(memory, "_PIECE", 3)
    compute.use_threads(1)
    one = score(tmp_path / "one", particles[0] / "truth.star", particles[1], **OPTIONS)
    compute.use_threads(2)
    two = score(tmp_path / "two", particles[0] / "truth.star", particles[1], **OPTIONS)
    for name in ("integrated", "max", "pose_posterior"):
        assert np.abs(getattr(one, name) - getattr(two, name)).max() < 1e-6, name
    for name in ("rot", "tilt", "psi", "origin_x"):
        assert np.abs(getattr(one, name) - getattr(two, name)).max() < 1e-3, name
    assert np.abs(one.integrated - hierarchical.integrated).max() < 0.02  # nor do the pieces
