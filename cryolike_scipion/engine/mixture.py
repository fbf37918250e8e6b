"""A mixture of known components: how well populations explain a set of particles, and the best ones.

With ``L[k, m]`` the log-likelihood of particle m under structure k, populations p explain the particles with

    ln P(particles | p) = Σ_m ln Σ_k p_k exp(L[k, m]),

a concave function of p. With ``g_k = (1/M) Σ_m exp(L[k, m]) / Σ_j p_j exp(L[j, m])`` no populations explain them better than p
by more than ``M (max_k g_k - 1)`` nat (Lindsay, Ann. Stat. 11, 86, 1983): that tells when to stop. Expectation-maximisation,
``p_k <- p_k g_k``, is accelerated by squared extrapolation (Varadhan & Roland, Scand. J. Stat. 35, 335, 2008) and finished by
Newton steps with p >= 0 (Kim, Carbonetto, Stephens & Anitescu, J. Comput. Graph. Stat. 29, 261, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["BestPopulations", "Mixture", "maximise"]

_FLOOR = -80.0  # nat below the best structure, beyond which a structure counts as that far below: float32 holds it
_BLOCK = 1 << 22  # numbers handled at a time where float64 is needed
_CYCLES = 15  # of expectation-maximisation before Newton steps
_NEWTON = 60
_RIDGE = 1e-9
_LEAST = np.float32(1e-37)


@dataclass(frozen=True)
class Mixture:
    """Likelihoods of particles under structures, relative to each particle's best.

    Attributes
    ----------
    relative : float32 [M, K]
        ``exp(L[k, m] - max_j L[j, m])``.
    highest : float64 [M]
        ``max_j L[j, m]``, nat.
    """

    relative: NDArray[np.float32]
    highest: NDArray[np.float64]

    @classmethod
    def of(cls, log_likelihood: NDArray[np.floating]) -> Mixture:
        """From log-likelihoods [K, M], nat, which are read in pieces (so they may lie in a mapped file)."""
        count, particles = log_likelihood.shape
        relative = np.empty((particles, count), dtype=np.float32)
        highest = np.empty(particles)
        step = max(1, _BLOCK // count)
        for start in range(0, particles, step):
            part = np.array(log_likelihood[:, start : start + step].T, dtype=np.float64)
            top = part.max(axis=1)
            part -= top[:, None]
            np.maximum(part, _FLOOR, out=part)
            relative[start : start + step] = np.exp(part, dtype=np.float32, casting="same_kind")
            highest[start : start + step] = top
        return cls(relative, highest)

    @property
    def particles(self) -> int:
        """Number of particles M."""
        return self.relative.shape[0]

    @property
    def structures(self) -> int:
        """Number of structures K."""
        return self.relative.shape[1]

    def density(self, populations: NDArray[np.float64]) -> NDArray[np.float32]:
        """``Σ_k p_k relative[m, k]`` for populations [K] or [K, s]: float32 [M] or [M, s]."""
        return self.relative @ populations.astype(np.float32)

    def log_likelihood(self, populations: NDArray[np.float64]) -> NDArray[np.float64]:
        """ln P(particles | p) less ``Σ highest`` for populations [K] or [K, s]: float64, a number or [s]."""
        step = max(256, _BLOCK // populations.size)  # s densities of each particle are much where s is large
        parts = (Mixture(self.relative[i : i + step], self.highest[i : i + step]) for i in range(0, self.particles, step))
        return sum((part.log_likelihood_and_density(populations)[0] for part in parts), np.zeros(populations.shape[1:]))

    def log_likelihood_and_density(self, populations: NDArray[np.float64]):
        """Both of the above, of all particles at once."""
        density = self.density(populations)
        return np.log(np.maximum(density, _LEAST)).sum(axis=0, dtype=np.float64), density

    def slope(self, density: NDArray[np.float32], weights: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """``Σ_m weights_m relative[m, k] / density_m``: float64 [K], or [K, s] for densities or weights [M, s]."""
        with np.errstate(over="ignore", divide="ignore"):
            share = 1.0 / density if weights is None else weights.astype(np.float32) / density
        return (self.relative.T @ share.astype(np.float32)).astype(np.float64)

    def curvature(self, density: NDArray[np.float32], chosen: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """``Σ_m relative[m, j] relative[m, k] / density_m²`` of the chosen structures (all without): float64 [c, c]."""
        columns = self.relative if chosen is None else self.relative[:, chosen]
        total = np.zeros((columns.shape[1],) * 2)
        step = max(256, _BLOCK // columns.shape[1])
        for start in range(0, len(columns), step):
            part = columns[start : start + step] / density[start : start + step, None]
            total += part.T @ part
        return total


@dataclass(frozen=True)
class BestPopulations:
    """The most likely populations.

    Attributes
    ----------
    populations : float64 [K]
        Sum 1.
    gap : float
        How much better other populations may explain the particles: the bound above, or where it is less what a Newton step
        would gain, nat.
    log_likelihood : float
        ln P(particles | populations), nat.
    steps : int
        Passes over the matrix that it took.
    """

    populations: NDArray[np.float64]
    gap: float
    log_likelihood: float
    steps: int


def maximise(mixture: Mixture, tolerance: float = 0.01) -> BestPopulations:
    """Find the populations under which the particles are most likely.

    Parameters
    ----------
    mixture : Mixture
    tolerance : float
        Stop when no populations can be better by more than this, nat.
    """
    climb = _Climb(mixture)
    for _ in range(_CYCLES):
        if climb.gap <= tolerance:
            break
        climb.extrapolate()
    for _ in range(_NEWTON):
        if climb.gap <= tolerance or not climb.newton(tolerance):
            break
    total = climb.value + float(mixture.highest.sum())
    return BestPopulations(climb.populations, max(climb.gap, 0.0), total, climb.steps)


class _Climb:
    """The current populations of a climb, with everything one pass over the matrix tells about them."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.steps = mixture, 0
        self._go(np.full(mixture.structures, 1.0 / mixture.structures))

    def _go(self, populations: NDArray[np.float64]) -> None:
        self.populations = populations
        value, self.density = self.mixture.log_likelihood_and_density(populations)
        self.value = float(value)
        self.g = self.mixture.slope(self.density) / self.mixture.particles
        self.gap = self.mixture.particles * (float(self.g.max()) - 1)
        self.steps += 1

    def extrapolate(self) -> None:
        """Two steps of expectation-maximisation, and as far along their bend as the likelihood rises."""
        first = self.populations
        self._go(_normalised(first * self.g))
        second = self.populations
        third = _normalised(second * self.g)
        change = second - first
        bend = (third - second) - change
        length = np.linalg.norm(bend)
        reached = self.value
        if length > 1e-12:
            far = min(-1.0, -float(np.linalg.norm(change) / length))
            tried = first - 2 * far * change + far**2 * bend
            self._go(_normalised(np.maximum(tried, 1e-3 * third)))
            if self.value >= reached:
                return
        self._go(third)

    def newton(self, tolerance: float) -> bool:
        """A step to the maximum of the quadratic about here with p >= 0; False where less than the tolerance is gained."""
        count = self.mixture.particles
        chosen = np.flatnonzero((self.populations * count > 1e-3) | (self.g > 1.0))
        here = self.populations[chosen]
        hessian = self.mixture.curvature(self.density, chosen) / count
        # The objective -(1/M) Σ ln Σ p L + Σ p has its minimum where Σ p = 1; H p = g.
        root = np.linalg.cholesky(hessian + _RIDGE * np.trace(hessian) / len(chosen) * np.eye(len(chosen)))
        wanted, _ = nnls(root.T, np.linalg.solve(root, hessian @ here + self.g[chosen] - 1.0), maxiter=20 * len(chosen))
        change = wanted - here
        gain = count * float((self.g[chosen] - 1.0) @ change - 0.5 * change @ hessian @ change)
        if gain <= tolerance:
            self.gap = min(self.gap, gain)
            return False
        start, before = self.populations, self.value
        for length in (1.0, 0.5, 0.25, 0.1, 0.02):
            tried = np.zeros_like(start)
            tried[chosen] = here + length * change
            if tried.sum() > 0:
                self._go(_normalised(tried))
                if self.value > before:
                    return True
        self._go(start)
        return False


def _normalised(populations: NDArray[np.float64]) -> NDArray[np.float64]:
    return populations / populations.sum()
