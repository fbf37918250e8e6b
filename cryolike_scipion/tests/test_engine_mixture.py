"""Populations of a mixture: the largest likelihood, the posterior, its intervals, and what cannot be known."""

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import beta

from cryolike_scipion.engine import mixture_posterior
from cryolike_scipion.engine.distinguish import known_of_division
from cryolike_scipion.engine.ensemble import estimate
from cryolike_scipion.engine.mixture import Mixture, maximise
from cryolike_scipion.engine.mixture_posterior import sample_posterior

from .mixtures import centres, mixture_of, shares


def _decided(counts):
    """Log-likelihoods of particles of which everybody knows the structure."""
    which = np.repeat(np.arange(len(counts)), counts)
    return np.where(np.arange(len(counts))[:, None] == which, 0.0, -60.0)


def test_most_likely_populations_are_those_of_a_general_optimiser():
    values, _ = mixture_of(centres(4, 0.7, 1), shares(4, 0.6), 400, np.random.default_rng(2))

    def cost(free):
        p = np.exp(np.append(free, 0.0))
        return -np.log((p / p.sum()) @ np.exp(values - values.max(axis=0))).sum()

    found = maximise(Mixture.of(values))
    general = minimize(cost, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    expected = np.exp(np.append(general.x, 0.0))
    assert found.populations == pytest.approx(expected / expected.sum(), abs=2e-3)
    assert found.log_likelihood == pytest.approx(-general.fun + values.max(axis=0).sum(), abs=0.02)


@pytest.mark.parametrize("structures, spread", [(2, 0.3), (20, 0.4), (60, 0.8)])
def test_no_populations_are_better_by_more_than_the_gap(structures, spread):
    rng = np.random.default_rng(3)
    values, _ = mixture_of(centres(structures, spread, 3), shares(structures, 0.5), 600, rng)
    mixture = Mixture.of(values)
    found = maximise(mixture)
    assert 0 <= found.gap <= 0.01
    here = mixture.log_likelihood(found.populations)
    for _ in range(50):
        other = 0.9 * found.populations + 0.1 * rng.dirichlet(np.full(structures, 0.3))
        assert mixture.log_likelihood(other) <= here + found.gap + 1e-3


def test_many_populations_at_once_do_not_take_memory_for_each_particle():
    values, _ = mixture_of(centres(3, 0.7, 1), shares(3, 0.6), 20000, np.random.default_rng(2))
    mixture, populations = Mixture.of(values), np.random.default_rng(3).dirichlet(np.ones(3), 1000).T
    tracemalloc.start()
    found = mixture.log_likelihood(populations)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.5 * 4 * found.size * mixture.particles
    assert found[:5] == pytest.approx([float(mixture.log_likelihood_and_density(p)[0]) for p in populations.T[:5]], rel=1e-6)


def test_hopeless_structures_do_not_break_the_climb():
    values = np.vstack([mixture_of(centres(2, 1, 4), shares(2, 0.5), 300, np.random.default_rng(4))[0], np.full(300, -1e6)])
    found = maximise(Mixture.of(values))
    assert found.populations[2] < 1e-6
    assert np.isfinite(found.log_likelihood)


@pytest.mark.parametrize("counts", [(40, 10), (3, 97), (25, 0, 75)])
def test_posterior_of_decided_particles_is_a_dirichlet_distribution(counts):
    mixture = Mixture.of(_decided(counts))
    posterior = sample_posterior(mixture, maximise(mixture), 0.5, np.random.default_rng(5))
    total = sum(counts) + 0.5 * len(counts)
    for k, count in enumerate(counts):
        own = beta(count + 0.5, total - count - 0.5)
        draws = posterior.draws[:, k]
        assert draws.mean() == pytest.approx(own.mean(), abs=0.2 * own.std() + 1e-4)
        assert np.quantile(draws, 0.975) == pytest.approx(own.ppf(0.975), abs=0.35 * own.std())
        assert np.quantile(draws, 0.025) == pytest.approx(own.ppf(0.025), abs=0.35 * own.std())


def test_two_ways_of_drawing_agree(monkeypatch):
    from cryolike_scipion.engine import mixture_posterior

    values, _ = mixture_of(centres(4, 0.6, 6), shares(4, 0.8), 500, np.random.default_rng(6))
    mixture = Mixture.of(values)
    best = maximise(mixture)
    weighted = sample_posterior(mixture, best, 1.0, np.random.default_rng(1))
    monkeypatch.setattr(mixture_posterior, "_LEAST_EFFICIENT", 2.0)
    chained = sample_posterior(mixture, best, 1.0, np.random.default_rng(1))
    assert (weighted.method, chained.method) == ("importance", "hamiltonian")
    assert chained.sound
    width = weighted.draws.std(axis=0)
    assert np.all(np.abs(weighted.draws.mean(axis=0) - chained.draws.mean(axis=0)) < 0.2 * width)
    assert np.all(np.abs(weighted.interval() - chained.interval()) < 0.5 * width)


@pytest.mark.parametrize("structures, first", [(2, 0.5), (2, 0.95), (5, 0.8), (20, 0.5)])
def test_intervals_hold_the_truth(structures, first):
    truth, points, rng = shares(structures, first), centres(structures, 1.0, 7), np.random.default_rng(8)
    held = []
    for _ in range(60):
        mixture = Mixture.of(mixture_of(points, truth, 800, rng)[0])
        low, high = sample_posterior(mixture, maximise(mixture), 0.5, rng).interval()
        held.append((low <= truth) & (truth <= high))
    # 3.3 standard errors of independent repeats for few structures; benchmarks/ensemble.py has the long run.
    assert np.mean(held) == pytest.approx(0.95, abs=3.3 * np.sqrt(0.95 * 0.05 / (60 * min(structures - 1, 4))))


def test_structures_that_are_the_same_are_named_and_only_their_sum_is_claimed():
    points = centres(3, 1.0, 9)
    points[2] = points[1]
    values, _ = mixture_of(points, np.array([0.5, 0.4, 0.1]), 2000, np.random.default_rng(9))
    found = estimate(values, replicates=20)
    assert [group.members for group in found.alike] == [[1, 2]]
    group = found.alike[0]
    assert group.low < 0.5 < group.high and group.high - group.low < 0.08
    assert found.interval[1, 2] - found.interval[0, 2] > 0.3
    assert found.known[1, 2] < 1e-6 < 0.3 < found.known[0, 1]


def test_information_about_a_division_is_one_for_decided_particles():
    mixture = Mixture.of(_decided((60, 40)))
    p = np.array([0.6, 0.4])
    overlap = mixture.curvature(mixture.density(p)) * np.outer(p, p)
    assert known_of_division(p, overlap, 100)[0, 1] == pytest.approx(1.0, abs=1e-5)


def test_effective_particles_are_all_of_them_when_decided_and_fewer_when_not():
    decided = estimate(_decided((300, 200)), replicates=0)
    assert decided.effective_particles == pytest.approx(500, rel=0.15)
    blurred = estimate(mixture_of(centres(2, 0.3, 10), shares(2, 0.6), 500, np.random.default_rng(10))[0], replicates=0)
    assert blurred.effective_particles < 250


def test_bootstrap_spread_is_that_of_new_particles():
    points, truth, rng = centres(3, 0.7, 11), np.array([0.6, 0.3, 0.1]), np.random.default_rng(11)
    anew = np.array([maximise(Mixture.of(mixture_of(points, truth, 600, rng)[0])).populations for _ in range(80)])
    found = estimate(mixture_of(points, truth, 600, rng)[0], replicates=200)
    width = (found.bootstrap[1] - found.bootstrap[0]) / (2 * 1.96)
    assert width == pytest.approx(anew.std(axis=0), rel=0.35)


def test_a_large_problem_uses_the_normal_approximation_and_covers(monkeypatch):
    truth = np.random.default_rng(12).dirichlet(np.ones(60))
    values, _ = mixture_of(centres(60, 1.2, 12), truth, 2000, np.random.default_rng(12))
    exact = estimate(values, replicates=0)
    monkeypatch.setattr(mixture_posterior, "_LARGEST_EXACT", 100_000)
    found = estimate(values, replicates=10)
    assert (exact.posterior.method, found.posterior.method) == ("hamiltonian", "normal")
    for one in (exact, found):
        held = (one.interval[0] <= truth) & (truth <= one.interval[1])
        assert held.mean() > 0.85
        assert one.mean == pytest.approx(truth, abs=0.015)
    assert exact.posterior.quality < 1.1 and exact.mean == pytest.approx(found.mean, abs=0.005)
