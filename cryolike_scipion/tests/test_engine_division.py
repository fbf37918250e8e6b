"""Division of the rows that hold the mass: one quadrature over all levels, against exhaustive searches of finer grids."""

import numpy as np
import pytest

from cryolike_scipion.engine.division import Division
from cryolike_scipion.engine.exhaustive import search_grid
from cryolike_scipion.engine.likelihood import log_evidence
from cryolike_scipion.engine.polar_grid import fft_friendly
from cryolike_scipion.engine.pose_mass import PoseWindow
from cryolike_scipion.engine.pose_scores import score_poses
from cryolike_scipion.engine.rotations import distance_deg
from cryolike_scipion.engine.shifts import ShiftGrid, subdivide
from cryolike_scipion.engine.views import children

from .search_trial import Trial


def _fine_grid(trial, levels):
    """The cells of the trial's grid, all divided: views, shifts and in-plane angles of an exhaustive search."""
    table, origins, step = trial.table, trial.shifts.origins, trial.shifts.step
    for _ in range(levels):
        table = children(table, np.arange(len(table)))
        origins, step = subdivide(origins, step)
    return table, ShiftGrid(origins, step)


def _exhaustive(trial, levels, i):
    """ln of the sum over all cells, divided ``levels`` times, whose view is within 35 degrees of image i's truth."""
    table, shifts = _fine_grid(trial, levels)
    inplane = fft_friendly(max(trial.inplane, int(360 / table.step_deg)))
    near = np.flatnonzero(table.directions() @ trial.rotations[i, 2] > np.cos(np.deg2rad(35)))
    templates = trial.bank.templates(table, near)
    image = trial.images.take(slice(i, i + 1))
    scores = search_grid(
        image, templates, table.weights[near], shifts, inplane, trial.prior, trial.comparison.grid, trial.bank.basis
    )
    return float(scores.integrated)


@pytest.fixture(scope="module")
def faint():
    """As finely searched as a run would: 7.3 degrees for 57 Å at 0.06 1/Å."""
    return Trial(0.1, step=7.5)


@pytest.fixture(scope="module")
def faint_scores(faint):
    return faint.search(faint.images.take(slice(0, 3)))


def test_division_of_cells_converges_to_a_fine_exhaustive_search(faint):
    """Two divisions, of the heavy cells only, against all cells divided twice: 1.8 degrees, 1 Å, 1.8 degrees in psi."""
    exact = np.array([_exhaustive(faint, 2, i) for i in range(3)])
    assert np.abs(faint.integrate(3, 2, division=Division()).log - exact).max() < 0.1  # fewer rows by default
    found = [faint.integrate(3, levels) for levels in (0, 1, 2, 3)]
    errors = [np.abs(one.log - exact).max() for one in found]
    assert errors[0] > 1.0 and errors[1] < 0.3
    assert errors[2] < 0.03
    assert errors[3] < 0.1  # finer than the exhaustive search, whose own error this is
    assert np.abs(found[3].change).max() < 0.1 < np.abs(found[1].change).max()
    assert (found[3].mean_log > found[3].log + 1.0).all()  # information is gained
    for i, one in enumerate(found[1:]):
        exact_best = score_poses(faint.images.take(slice(0, 3)), one.rotation, one.origin, faint.bank, faint.prior)
        assert np.abs(exact_best.log_ratio - one.best).max() < 0.05, i  # but for ln of <T,T>'s change with psi
    assert (distance_deg(found[3].rotation, faint.rotations[:3]) < 15).all()


def test_division_keeps_the_mass_of_sharp_posteriors():
    """At three times the signal (60 nat) the coarse grid is up to 12 nat off; the divided one is not."""
    trial = Trial(0.3, step=7.5)
    scores = trial.search(trial.images.take(slice(0, 2)))
    exact = np.array([_exhaustive(trial, 2, i) for i in range(2)])
    assert np.abs(scores.integrated.numpy() - exact).max() > 5
    assert np.abs(trial.integrate(2, 2).log - exact).max() < 0.05


def test_memory_limit_does_not_change_the_integral(faint):
    free = faint.integrate(3, 2)
    tight = faint.integrate(3, 2, max_bytes=300 * faint.bank.bytes_per_view())
    assert np.abs(free.log - tight.log).max() < 1e-5
    assert np.array_equal(free.rotation, tight.rotation) and np.array_equal(free.origin, tight.origin)


def test_mass_near_the_best_pose_converges_too(faint):
    near = PoseWindow(5.0, 4.0)
    masses = [faint.integrate(3, levels, near).pose_mass for levels in (0, 2, 3)]
    assert np.abs(masses[2] - masses[1]).max() < 0.06
    assert np.abs(masses[0] - masses[1]).max() > 0.1
    assert masses[2].min() > 0.1 and masses[2].max() < 0.8
    # A wide window holds nearly everything, a narrow one little.
    wide = faint.integrate(3, 2, PoseWindow(30.0, 8.0)).pose_mass
    narrow = faint.integrate(3, 2, PoseWindow(2.5, 1.5)).pose_mass
    assert wide.min() > 0.95 and wide.max() <= 1.0 + 1e-6
    assert np.all(narrow < 0.5 * masses[1]) and narrow.min() > 0


def test_no_division_scores_the_cells_as_they_are(faint, faint_scores):
    found = faint.integrate(3, 0, samples=40)
    assert np.abs(found.log - faint_scores.integrated.numpy()).max() < 1e-6
    assert np.abs(found.mean_log - faint_scores.mean_log.numpy()).max() < 1e-4
    # The kept samples are the heaviest poses of the tensor, astigmatism included.
    logs, _ = faint.tensor(faint.images.take(slice(0, 3)))
    assert np.abs(found.best - logs.reshape(3, -1).max(axis=1)).max() < 0.03
    weighted = (logs + faint.log_prior()).reshape(3, -1)
    for i, sample in enumerate(found.samples):
        c, n = float(faint.images.projected_power[i]), float(faint.images.dof[i])
        ours = np.sort(log_evidence(sample.power, sample.product, c, n, faint.prior) + sample.log_prior)[::-1]
        exact = np.sort(weighted[i])[::-1][:40]
        heavy = exact > exact[0] - 4  # those of lighter rows are not looked at
        assert heavy.sum() > 3 and np.abs(ours - exact)[heavy].max() < 0.01
