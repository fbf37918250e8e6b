"""The hierarchical search against the exhaustive one on the same grid, and its estimate of what it left out."""

import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp

from cryolike_scipion.engine import exhaustive
from cryolike_scipion.engine.exhaustive import BlockSizes
from cryolike_scipion.engine.hierarchical import LevelSearch, Tolerance
from cryolike_scipion.engine.levels import single_level
from cryolike_scipion.engine.likelihood_chunk import Scoring

from .level_trial import begun, every_pose, fitting_prior, level_set

COUNT = 8


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """By SNR: the set, a scale prior, and `GridScores` of every pose under both structures."""
    made = {}

    def of(snr):
        if snr not in made:
            case = level_set(tmp_path_factory.mktemp("levels"), snr, count=COUNT)
            case.prior = fitting_prior(case)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(exhaustive, "_NOTICED", 0.0)
                case.exact = [every_pose(case, k, case.prior) for k in (0, 1)]
            made[snr] = case
        return made[snr]

    return of


def _found(case, **options):
    """Integrals under both structures as a run makes them."""
    scoring = Scoring(case.setup, case.searches, {}, BlockSizes(), 16)
    return list(case.piece.integrals(scoring, case.prior, lambda _: None, [None, None], **options))


# From hardly visible particles to 160 nat of information.
@pytest.mark.parametrize("snr", [0.015, 0.05, 0.2])
def test_integrals_and_poses_are_those_of_every_pose(cases, snr):
    case = cases(snr)
    found = _found(case)
    right = case.shown[None] == np.arange(2)[:, None]
    exact = np.array([scores.integrated.numpy() for scores in case.exact])
    off = np.abs(np.array([f.log for f in found]) - exact)
    allowed = np.maximum(0.02, 4 * np.array([f.error for f in found]))
    assert (off <= allowed)[right].all(), off[right]
    assert (off <= allowed)[~right].all(), off[~right]
    best = np.array([scores.best.numpy() for scores in case.exact])
    assert (np.array([f.best for f in found]) >= best - 0.01).all()
    mean = np.array([scores.mean_log.numpy() for scores in case.exact])
    assert np.abs(np.array([f.mean_log for f in found]) - mean)[right].max() < 0.1
    assert np.array_equal(exact.argmax(axis=0), np.array([f.log for f in found]).argmax(axis=0))


def test_few_rows_are_summed_where_a_particle_is_seen(cases):
    case = cases(0.2)
    size = len(case.searches[0].table) * len(case.searches[0].shifts)
    for k in (0, 1):
        for one, shown in zip(begun(case, k, case.prior), case.shown):
            assert sum(len(part.view) for part in one.sums) < size * (0.05 if shown == k else 0.6)


def test_the_same_seeds_give_the_same_answer(cases):
    case = cases(0.05)
    first, second = _found(case), _found(case)
    for one, two in zip(first, second):
        assert np.array_equal(one.log, two.log) and np.array_equal(one.origin, two.origin)


def _half_open(seed):
    """An exploration that opens rows at random, so that most of the mass may stay closed."""

    def explore(self):
        rng = np.random.default_rng(seed + self.image)
        first = self.levels[0]
        self.look(0, *(a.ravel() for a in np.indices((len(first.shifts), len(first.table)))))
        for level, pool in enumerate(self.pools):
            chosen = rng.uniform(size=len(pool.origin)) < 0.4
            chosen[rng.integers(len(chosen))] = True
            self.open_below(level, chosen)

    return explore


def _closed(case, k, one):
    """ln of the exact mass of all rows that were not summed, and of all rows."""
    heavy = case.exact[k].heavy[one.image]
    width = len(case.searches[k].table)
    summed = np.concatenate([part.origin * width + part.view for part in one.sums])
    assert len(np.unique(summed)) == len(summed), "a row is summed twice"
    left = heavy["log_mass"][~np.isin(heavy["row"], summed)]
    return logsumexp(left), float(case.exact[k].integrated[one.image])


@pytest.mark.parametrize("snr", [0.015, 0.05])
def test_the_estimate_of_the_closed_mass_is_unbiased(cases, monkeypatch, snr):
    """Mean over many draws of the estimate over the exact mass that is closed; the standard error is honest, too."""
    monkeypatch.setattr(LevelSearch, "explore", _half_open(3))
    case, seeds = cases(snr), 300
    for k in (0, 1):
        for one in begun(case, k, case.prior, samples=64)[:2]:
            closed, whole = _closed(case, k, one)
            assert np.exp(closed - whole) > 0.05
            drawn = [one.closed_mass(np.random.default_rng(seed)) for seed in range(seeds)]
            ratio = np.exp(np.array([left for left, _, _ in drawn]) - closed)
            spread = ratio.std(ddof=1) / np.sqrt(seeds)
            assert spread < 0.15 and abs(ratio.mean() - 1) < 4 * spread, (snr, k, one.image)
            # of the log of the whole
            wholes = np.logaddexp(np.log(ratio) + closed, one.total())
            errors = np.array([error for _, _, error in drawn])
            assert 0.5 < np.sqrt(np.mean(errors**2)) / wholes.std() < 2.0


def test_every_row_is_summed_or_below_one_closed_row(cases, monkeypatch):
    case = cases(0.05)
    for explore in (LevelSearch.explore, _half_open(1)):
        monkeypatch.setattr(LevelSearch, "explore", explore)
        for one in begun(case, 1, case.prior)[:3]:
            size = len(one.levels[-1].table) * len(one.levels[-1].shifts)
            closed, prior = 0, 0.0
            for level, pool in zip(one.levels, one.pools):
                closed += int((level.shift_count[pool.origin] * level.view_count[pool.view]).sum())
                prior += float((level.shift_weight[pool.origin] * level.view_weight[pool.view]).sum())
            summed = sum(len(part.view) for part in one.sums)
            assert summed + closed == size
            of_summed = sum(np.exp(one.log_prior(part.origin, part.view)).sum() for part in one.sums)
            assert prior + of_summed * one.scorers[-1].n_inplane == pytest.approx(1.0)


def test_more_is_opened_until_the_error_is_small(cases, monkeypatch):
    """From an exploration that missed most: rounds bring the error down, and the integral to the exact one."""
    monkeypatch.setattr(LevelSearch, "explore", _half_open(5))
    case = cases(0.05)
    exact = case.exact[0].integrated.numpy()
    before = [one.closed_mass(np.random.default_rng(0))[2] for one in begun(case, 0, case.prior)]
    kept, opened = [], []
    for rounds in (0, 6):
        rows = [one.finish(np.random.default_rng(1))[0] for one in begun(case, 0, case.prior, rounds=rounds, error=1e-3)]
        kept.append(rows)
        opened.append(sum(r.scored for r in rows))
    assert opened[1] > opened[0] and max(before) > 0.05
    assert np.median([r.error for r in kept[1]]) < 0.1 * np.median([r.error for r in kept[0]]) + 1e-4
    off = np.abs([r.total - e for r, e in zip(kept[1], exact)])
    assert np.median(off) < 0.02 and np.median(off) <= np.median([abs(r.total - e) for r, e in zip(kept[0], exact)])


def test_rows_carry_their_masses_and_poses(cases):
    """What is returned for division: the rows that were summed, with priors, and the best pose among all that were seen."""
    case = cases(0.05)
    search = case.searches[1]
    for one in begun(case, 1, case.prior)[:4]:
        rows, (origin, view) = one.finish(np.random.default_rng(2))
        heavy = case.exact[1].heavy[one.image]
        exact = dict(zip(heavy["row"].tolist(), heavy["log_mass"]))
        row = origin * len(search.table) + view
        assert np.array_equal(rows.view, view) and np.array_equal(rows.origin, search.shifts.origins[origin])
        wanted = np.array([exact.get(int(r), -np.inf) for r in row])
        top = wanted > wanted.max() - 12
        assert np.abs(rows.log_mass - wanted)[top].max() < 5e-3
        prior = search.table.weights[view] / len(search.shifts) / search.n_inplane
        assert np.allclose(rows.log_prior, np.log(prior))
        assert rows.best == pytest.approx(float(case.exact[1].best[one.image]), abs=0.01) or case.shown[one.image] != 1


def test_one_level_is_an_exhaustive_search(cases):
    case = cases(0.05)
    search = case.searches[0]
    flat = dataclasses.replace(single_level(search.table, search.shifts)[0], band=len(case.setup.bands) - 1)
    scorer = begun(case, 0, case.prior)[0].scorers[-1]
    for image in (0, 5):
        one = LevelSearch(image, [flat], [scorer], 1.0, case.prior.mu, Tolerance())
        one.explore()
        rows, _ = one.finish(np.random.default_rng(0))
        assert rows.error == 0.0 and rows.left_log_mass == -np.inf
        assert rows.total == pytest.approx(float(case.exact[0].integrated[image]), abs=2e-3)
        assert rows.scored == len(search.table) * len(search.shifts)
