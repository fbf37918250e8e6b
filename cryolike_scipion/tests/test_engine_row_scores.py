"""Chosen rows scored as lists, as dense blocks and by the search of the whole grid: the same rows, the same sums."""

import numpy as np
import pytest
from scipy.special import logsumexp

from cryolike_scipion.engine import exhaustive, row_blocks, row_scores
from cryolike_scipion.engine.row_scores import MovedImages, RowScorer

from .search_trial import COUNT, Trial

LIST, DENSE = 0.0, 1e9


@pytest.fixture(scope="module", params=[900.0, 0.0], ids=["astigmatic", "round"])
def trial(request):
    return Trial(0.1, astigmatism=request.param, compression=1e-5)


@pytest.fixture(scope="module")
def exact(trial):
    """ln(evidence/null) [m, v, o, g] in float64."""
    return trial.tensor()[0]


def _scorer(trial, allowed=None):
    band = trial.comparison.band
    moved = MovedImages(trial.images, band, trial.shifts.origins)
    return RowScorer(trial.images, moved, band, trial.templates, trial.prior, trial.inplane, allowed)


def _some_rows(trial, count, seed=0):
    rng = np.random.default_rng(seed)
    size = len(trial.shifts) * len(trial.table)
    return np.divmod(rng.choice(size, count, replace=False), len(trial.table))


def _aligned(found, origin, view):
    """Positions in ``found`` of given rows; every row is there once."""
    key, wanted = found.origin * 10**6 + found.view, origin * 10**6 + view
    assert len(key) == len(wanted) and set(key) == set(wanted) and len(set(key)) == len(key)
    order = np.argsort(key)
    return order[np.searchsorted(key[order], wanted)]


@pytest.mark.parametrize("cost", [LIST, DENSE], ids=["list", "dense"])
@pytest.mark.parametrize("count", [1, 13, 192, 700])
def test_sums_and_peaks_are_those_of_every_pose(trial, exact, monkeypatch, cost, count):
    monkeypatch.setattr(row_blocks, "_LIST_COST", cost)
    scorer = _scorer(trial)
    origin, view = _some_rows(trial, count)
    astigmatic = float(trial.comparison.arguments["defocus_u"][0] - trial.comparison.arguments["defocus_v"][0]) > 0
    for image in (0, COUNT - 1):
        rows = exact[image, view, origin]
        sums, peaks = scorer.sums(image, origin, view), scorer.peaks(image, origin, view)
        at = _aligned(sums, origin, view)
        # of rows that count; far below the best of all the clamped logarithm does not matter
        assert np.abs(sums.log_mass[at] - logsumexp(rows, axis=1)).max() < 5e-3
        weights = np.exp(rows - logsumexp(rows, axis=1, keepdims=True))
        assert np.abs(sums.mean_log[at] - (weights * rows).sum(axis=1)).max() < 0.02
        # but for half the logarithm of <T,T>'s change with psi, and (peaks) the change itself
        assert np.abs(sums.peak[at] - rows.max(axis=1)).max() < 0.03
        assert np.abs(peaks.peak[_aligned(peaks, origin, view)] - rows.max(axis=1)).max() < (1.5 if astigmatic else 0.03)
        top = int(sums.peak.argmax())
        best = exact[image, sums.view[top], sums.origin[top]]
        assert best.max() - best[sums.angle] < 0.03
        assert sums.scale == pytest.approx(peaks.scale, rel=0.05)


def test_the_whole_grid_gives_the_same_rows(trial, monkeypatch):
    monkeypatch.setattr(exhaustive, "_NOTICED", 0.0)
    scores = trial.search(screen=False, most_heavy=10**9)
    scorer = _scorer(trial)
    origin, view = (a.ravel() for a in np.indices((len(trial.shifts), len(trial.table))))
    prior = np.log(trial.table.weights[view]) - np.log(len(trial.shifts) * trial.inplane)
    masses = trial.row_masses(scores)
    for image in range(COUNT):
        sums = scorer.sums(image, origin, view)
        at = _aligned(sums, origin, view)
        whole = masses[image, origin, view]
        heavy = whole > whole.max() - 15
        assert np.abs(sums.log_mass[at] + prior - whole)[heavy].max() < 2e-3
        assert logsumexp(sums.log_mass[at] + prior) == pytest.approx(float(scores.integrated[image]), abs=1e-3)
        assert sums.peak.max() == pytest.approx(float(scores.best[image]), abs=1e-3)


def test_poses_of_rows_come_in_their_order(trial, exact):
    scorer = _scorer(trial)
    origin, view = _some_rows(trial, 250, 1)
    origin, view = np.append(origin, origin[:9]), np.append(view, view[:9])  # some twice
    logs, products, powers = scorer.poses(2, origin, view)
    # The normal limit of Student's t has lighter tails, where the contrast is inverted.
    upright = exact[2, view, origin] > -1.0
    assert upright.mean() > 0.2 and np.abs(logs - exact[2, view, origin])[upright].max() < 0.01
    assert logs.shape == products.shape == (259, trial.inplane) and powers.shape in ((259, 1), (259, trial.inplane))
    cc = trial.tensor()[1][2, view, origin]
    c = float(trial.images.projected_power[2])
    assert np.abs(products / np.sqrt(powers * c) - cc).max() < 2e-5


@pytest.mark.parametrize("cost", [LIST, DENSE], ids=["list", "dense"])
def test_angles_that_are_not_allowed_do_not_count(trial, exact, monkeypatch, cost):
    monkeypatch.setattr(row_blocks, "_LIST_COST", cost)
    free = np.random.default_rng(4).uniform(size=(len(trial.table), trial.inplane)) < 0.2
    free[np.arange(len(free)), np.arange(len(free)) % trial.inplane] = True  # one at least
    scorer = _scorer(trial, lambda image, views: free[views])
    origin, view = _some_rows(trial, 300, 2)
    masked = np.where(free[view], exact[1, view, origin], -np.inf)
    sums = scorer.sums(1, origin, view)
    at = _aligned(sums, origin, view)
    assert np.abs(sums.log_mass[at] - logsumexp(masked, axis=1)).max() < 5e-3
    assert np.abs(sums.peak[at] - masked.max(axis=1)).max() < 0.03
    top = int(sums.peak.argmax())
    assert free[sums.view[top], sums.angle]
    logs, _, _ = scorer.poses(1, origin, view)
    assert np.array_equal(np.isfinite(logs), free[view])


def test_moved_images_are_made_once_and_given_as_asked(trial, monkeypatch):
    """In any order and number, also as many as there are origins."""
    band, count = trial.comparison.band, len(trial.shifts)
    made, shifted_rows = [], row_scores.shifted_rows

    def counted(matched, factors, basis):
        made.append(len(factors))
        return shifted_rows(matched, factors, basis)

    monkeypatch.setattr(row_scores, "shifted_rows", counted)
    moved = MovedImages(trial.images, band, trial.shifts.origins)
    few = moved.rows(1, np.array([3, 3, 0]))
    assert sum(made) == 2
    every = moved.rows(1, np.arange(count)).clone()
    assert sum(made) == count
    for asked in (np.zeros(count, int), np.arange(count)[::-1].copy(), np.array([5, 1])):
        rows = moved.rows(1, asked)
        assert len(rows) == len(asked) and all((rows[i] == every[o]).all() for i, o in enumerate(asked))
    assert (few[0] == every[3]).all() and (few[2] == every[0]).all()
    assert sum(made) == count
    other = moved.rows(0, np.arange(count))
    assert not (other == every).all()
