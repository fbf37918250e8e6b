"""The posterior of a mixture's populations under a Dirichlet prior.

Write populations as ``p = x / Σ x`` with ``x = u³``, u > 0. With a Dirichlet prior of concentration a (for each of K
structures), ``a' = a - 1/3`` and ``c = M + K a'``, the density

    ln f(u) = Σ_m ln Σ_k x_k exp(L[k, m]) + 3 a' Σ_k ln u_k - c Σ_k x_k

is the product of the posterior of p and of a Gamma distribution of Σ x, which p does not depend on: draws of u give draws of p.
The cube root of a Gamma variable is all but normal, however small its shape (Wilson & Hilferty, PNAS 17, 684, 1931), so that
f is near its normal approximation also for structures that hold few particles or none. The most likely x sums to 1, and the
negative second derivative there is ``9 (R Rᵀ + a' 1)_jk / (u_j u_k)``, R[k, m] the probability of structure k for particle m.

Draws from that normal distribution are weighted by the true density (importance sampling). Structures that cannot be told apart
(`distinguish`) are drawn as one: the sum of their populations as above, with the sum of their concentrations, and how it
divides from the Dirichlet prior of the division, which is what the whole prior says of it. Where too few draws would carry the
weight, Hamiltonian Monte Carlo (Neal, Handbook of MCMC, 2011, ch. 5) with the same
precision as its metric goes on from them, many chains at a time. Neither assumes that the posterior is normal. With more
structures than `_ALWAYS_EXACT`, where chains would take long or do not agree, the normal distribution itself is used, cut off
at u = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from .distinguish import groups_alike, known_of_division
from .mixture import BestPopulations, Mixture

__all__ = ["PopulationPosterior", "sample_posterior"]

_THIRD = 1 / 3
_DRAWS = 2000
_LEAST_EFFICIENT = 0.1  # share of draws that must count for importance sampling to be believed
_ALWAYS_EXACT = 40  # structures
_LARGEST_EXACT = 5e6  # structures times particles, for more structures than that: chains take about a minute of a core
_AGREE = 1.1  # R̂ from which chains do not
_MODE_STEPS, _MODE_TOLERANCE = 12, 0.01  # nat per structure
_CHAINS, _WARM, _KEPT = 32, 3, 6  # chains, and trajectories of each of a large problem
_CHEAP = 2e9  # multiplications of one gradient of all chains up to which more trajectories are drawn
_FARTHEST = 1.5  # u; where all particles show one structure it is 1
_TRAJECTORY = 1.5  # widths of the normal approximation: a quarter of a period


@dataclass(frozen=True)
class PopulationPosterior:
    """Draws from the posterior of the populations.

    Attributes
    ----------
    draws : float64 [s, K]
        Populations, all of the same weight.
    mode : float64 [K]
        x where f is largest.
    overlap : float64 [K, K]
        R Rᵀ there.
    method : str
        "importance", "hamiltonian" or "normal".
    quality : float
        Importance sampling: share of draws that counted. Hamiltonian: largest ratio of the spread over all chains to that
        within (split R̂), 1 where they agree. Normal: 0.
    concentration : float
        Of the prior.
    alike : bool
        Whether some structures cannot be told apart. How the sum of their populations divides is far from normal.
    """

    draws: NDArray[np.float64]
    mode: NDArray[np.float64]
    overlap: NDArray[np.float64]
    method: str
    quality: float
    concentration: float
    alike: bool = False

    @property
    def sound(self) -> bool:
        """Whether the draws can be believed."""
        return not (self.alike if self.method == "normal" else self.method == "hamiltonian" and self.quality >= _AGREE)

    def interval(self, level: float = 0.95) -> NDArray[np.float64]:
        """Equal-tailed credible intervals, [2, K]."""
        tail = (1 - level) / 2
        return np.quantile(self.draws, [tail, 1 - tail], axis=0)

    @property
    def effective_particles(self) -> NDArray[np.float64]:
        """Particles of known structure that would give populations as sure as these are, [K]: those of a Beta distribution of
        the same mean and width, without the prior's.
        """
        mean, variance = self.draws.mean(axis=0), self.draws.var(axis=0)
        prior = len(self.mode) * self.concentration
        return np.maximum(mean * (1 - mean) / np.maximum(variance, 1e-300) - 1 - prior, 0.0)


def sample_posterior(
    mixture: Mixture, best: BestPopulations, concentration: float, rng: np.random.Generator
) -> PopulationPosterior:
    """Draw populations.

    Parameters
    ----------
    mixture : Mixture
    best : BestPopulations
        Where to start.
    concentration : float
        Of the Dirichlet prior, for each structure, above 1/3; 1 is uniform.
    rng : numpy.random.Generator
    """
    target = _Target(mixture, np.full(mixture.structures, concentration - _THIRD))
    x, overlap = target.mode(best.populations)
    u, root = target.normal(x, overlap)
    population = x / x.sum()
    groups = groups_alike(population, known_of_division(population, overlap, mixture.particles), mixture.particles)
    many = mixture.structures > _ALWAYS_EXACT
    if many and mixture.structures * mixture.particles > _LARGEST_EXACT:
        return PopulationPosterior(_normal(u, root, rng), x, overlap, "normal", 0.0, concentration, bool(groups))
    found = _importance_of_groups(mixture, x, groups, concentration, rng) if groups else _importance(target, u, root, rng)
    if found is not None:
        return PopulationPosterior(found[0], x, overlap, "importance", found[1], concentration, bool(groups))
    draws, ratio = _hamiltonian(target, u, root, rng)
    if many and not ratio < _AGREE:
        return PopulationPosterior(_normal(u, root, rng), x, overlap, "normal", 0.0, concentration, bool(groups))
    return PopulationPosterior(draws, x, overlap, "hamiltonian", ratio, concentration, bool(groups))


@dataclass(frozen=True)
class _Target:
    """ln f(u) and its derivatives; u is [K] or [K, s]. ``extra`` is a' of each structure, [K]."""

    mixture: Mixture
    extra: NDArray[np.float64]

    @property
    def total(self) -> float:
        return self.mixture.particles + float(self.extra.sum())

    def value(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.mixture.log_likelihood(u**3) + self.prior(u)

    def prior(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """What does not depend on the particles."""
        return 3 * self.extra @ np.log(u) - self.total * (u**3).sum(axis=0)

    def value_and_gradient(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        value, density = self.mixture.log_likelihood_and_density(u**3)
        slope = 3 * u**2 * (self.mixture.slope(density) - self.total) + 3 * (self.extra / u.T).T
        return value + self.prior(u), slope

    def normal(self, x: NDArray[np.float64], overlap: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and (lower) Cholesky factor of the precision of the normal approximation at the mode."""
        u = np.cbrt(x)
        return u, np.linalg.cholesky(9 * (overlap + np.diag(self.extra)) / np.outer(u, u))

    def mode(self, start: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x where f is largest, and R Rᵀ there: Newton steps in ln x from populations [K]."""
        x = (self.mixture.particles * start + self.extra) / self.total
        value, gradient = self.value_and_gradient(np.cbrt(x))
        overlap = self._overlap(x)
        for _ in range(_MODE_STEPS):
            slope = gradient * np.cbrt(x) / 3
            step = cho_solve((np.linalg.cholesky(overlap + np.diag(self.extra)), True), slope)
            if float(step @ slope) < _MODE_TOLERANCE * len(x):
                break
            step *= min(1.0, 2.0 / float(np.abs(step).max()))
            for length in (1.0, 0.5, 0.25, 0.1, 0.02):
                tried = x * np.exp(length * step)
                higher, uphill = self.value_and_gradient(np.cbrt(tried))
                if higher > value:
                    break
            else:
                break
            x, value, gradient = tried, higher, uphill
            overlap = self._overlap(x)
        return x, overlap

    def _overlap(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.mixture.curvature(self.mixture.density(x)) * np.outer(x, x)


def _normal(mode, root, rng) -> NDArray[np.float64]:
    """Draws [s, K] of the normal approximation; what lies below u = 0 is at 0."""
    noise = rng.standard_normal((len(mode), _DRAWS))
    x = np.maximum(mode[:, None] + solve_triangular(root.T, noise), 0.0).T ** 3
    return x / x.sum(axis=1, keepdims=True)


def _importance(target: _Target, mode, root, rng) -> tuple[NDArray[np.float64], float] | None:
    """Draws [s, K] by importance sampling and the share that counted; None where too few did."""
    u, noise = _inside(mode, root, rng)
    return _weighted(u**3, target.value(u) + 0.5 * (noise**2).sum(axis=0), rng)


def _importance_of_groups(mixture: Mixture, x, groups: list[list[int]], concentration: float, rng):
    """The same with structures of a group drawn as one, whose sum then is divided by the prior."""
    single = [[k] for k in range(len(x)) if not any(k in group for group in groups)]
    members = single + groups
    division = np.zeros((len(x), len(members)))
    for g, group in enumerate(members):
        division[group, g] = x[group] / x[group].sum()
    joined = Mixture(mixture.relative @ division.astype(np.float32), mixture.highest)
    target = _Target(joined, np.array([len(group) * concentration for group in members]) - _THIRD)
    mode, overlap = target.mode(np.array([x[group].sum() for group in members]) / x.sum())
    u, noise = _inside(*target.normal(mode, overlap), rng)
    drawn = np.empty((len(x), u.shape[1]))
    for g, group in enumerate(members):
        drawn[group] = rng.dirichlet(np.full(len(group), concentration), u.shape[1]).T * u[g] ** 3
    return _weighted(drawn, mixture.log_likelihood(drawn) + target.prior(u) + 0.5 * (noise**2).sum(axis=0), rng)


def _inside(mode, root, rng) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws [K, s] of the normal approximation with u > 0, and their standard normal numbers."""
    noise = rng.standard_normal((len(mode), _DRAWS))
    u = mode[:, None] + solve_triangular(root.T, noise)
    inside = (u > 0).all(axis=0)
    return u[:, inside], noise[:, inside]


def _weighted(drawn, logs, rng) -> tuple[NDArray[np.float64], float] | None:
    """Draws [s, K] as often as exp(logs) says of x [K, s]."""
    if drawn.shape[1] < _DRAWS * _LEAST_EFFICIENT:
        return None
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    counted = 1.0 / float((weights**2).sum()) / _DRAWS
    if counted < _LEAST_EFFICIENT:
        return None
    x = drawn.T
    points = (np.arange(_DRAWS) + rng.uniform()) / _DRAWS  # systematic: each draw as often as its weight says, up to one
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)
    return (x / x.sum(axis=1, keepdims=True))[chosen], counted


def _hamiltonian(target: _Target, mode, root, rng) -> tuple[NDArray[np.float64], float]:
    """Draws [s, K] of many chains, and their largest split R̂."""
    count = len(mode)
    more = 2 if 2.0 * target.mixture.particles * count * _CHAINS > _CHEAP else 10

    def at(q):
        u = mode[:, None] + solve_triangular(root.T, q)
        value, gradient = target.value_and_gradient(np.clip(u, 1e-3 * mode[:, None], _FARTHEST))
        value = np.where(((u > 0) & (u < _FARTHEST)).all(axis=0), value, -np.inf)
        return u, value, solve_triangular(root, gradient, lower=True)

    q = _start(mode, root, rng)
    u, value, slope = at(q)
    step = min(1.0, 1.6 * count**-0.25)
    kept = []
    for number in range((_WARM + _KEPT) * more):
        momentum = rng.standard_normal(q.shape)
        energy = value - 0.5 * (momentum**2).sum(axis=0)
        length = step * rng.uniform(0.8, 1.2)
        new, pace, push = q, momentum, slope
        for _ in range(max(1, round(_TRAJECTORY / step))):
            pace = pace + 0.5 * length * push
            new = new + length * pace
            there, height, push = at(new)
            pace = pace + 0.5 * length * push
        odds = np.exp(np.clip(height - 0.5 * np.minimum((pace**2).sum(axis=0), 1e300) - energy, -700.0, 0.0))
        taken = rng.uniform(size=_CHAINS) < odds
        q, u, slope, value = (np.where(taken, a, b) for a, b in ((new, q), (there, u), (push, slope), (height, value)))
        if number < _WARM * more:
            step = min(step * float(np.clip(1 + (odds.mean() - 0.8), 0.5, 1.25)), 1.2)
        else:
            x = (u**3).T
            kept.append(x / x.sum(axis=1, keepdims=True))
    draws = np.array(kept)
    return draws.reshape(-1, count), _split_ratio(np.cbrt(draws))


def _start(mode, root, rng) -> NDArray[np.float64]:
    """Draws [K, chains] of the normal approximation, within u > 0."""
    noise = rng.standard_normal((len(mode), _CHAINS))
    inside = np.clip(mode[:, None] + solve_triangular(root.T, noise), 0.2 * mode[:, None], 0.8 * _FARTHEST)
    return root.T @ (inside - mode[:, None])


def _split_ratio(values: NDArray[np.float64]) -> float:
    """Largest split R̂ over quantities of draws [t, chains, K] (Gelman et al., Bayesian Data Analysis, 3rd ed., §11.4)."""
    half = len(values) // 2
    chains = np.concatenate([values[:half], values[half : 2 * half]], axis=1)
    within = chains.var(axis=0, ddof=1).mean(axis=0)
    between = chains.mean(axis=0).var(axis=0, ddof=1)
    return float(np.sqrt((half - 1) / half + between / np.maximum(within, 1e-300)).max())
