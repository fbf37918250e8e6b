"""Populations of structures from the likelihoods of particles, with everything that says how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .distinguish import groups_alike, known_of_division
from .mixture import BestPopulations, Mixture, maximise
from .mixture_bootstrap import bootstrap_populations
from .mixture_posterior import PopulationPosterior, sample_posterior

__all__ = ["AlikeGroup", "Ensemble", "estimate"]

LEVEL = 0.95  # of all intervals


@dataclass(frozen=True)
class AlikeGroup:
    """Structures, from 0, that the particles cannot tell apart, and the sum of their populations with its interval."""

    members: list[int]
    population: float
    low: float
    high: float


@dataclass(frozen=True)
class Ensemble:
    """Populations of K structures.

    Attributes
    ----------
    best : BestPopulations
        The most likely ones.
    posterior : PopulationPosterior
    interval : float64 [2, K]
        Credible, of 95 %.
    bootstrap : float64 [2, K]
        Percentile interval of 95 % over replicates; NaN without any.
    known : float64 [K, K]
        How much of the division between two structures the particles tell, see `distinguish`.
    alike : list of AlikeGroup
    particles : int
    replicates : int
    """

    best: BestPopulations
    posterior: PopulationPosterior
    interval: NDArray[np.float64]
    bootstrap: NDArray[np.float64]
    known: NDArray[np.float64]
    alike: list[AlikeGroup]
    particles: int
    replicates: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """Posterior mean, [K]."""
        return self.posterior.draws.mean(axis=0)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Posterior standard deviation, [K]."""
        return self.posterior.draws.std(axis=0)

    @property
    def effective_particles(self) -> float:
        """Particles of known structure that would give all populations as surely, taken together."""
        draws, prior = self.posterior.draws, len(self.mean) * self.posterior.concentration
        return max(float((self.mean * (1 - self.mean)).sum() / max(draws.var(axis=0).sum(), 1e-300)) - 1 - prior, 0.0)

    @property
    def effective_structures(self) -> float:
        """Exponential of the entropy of the mean populations: of how many equal ones they are worth."""
        p = self.mean
        return float(np.exp(-(p * np.log(np.maximum(p, 1e-300))).sum()))


def estimate(values: NDArray[np.floating], concentration: float = 0.5, replicates: int = 200, seed: int = 1) -> Ensemble:
    """Estimate populations.

    Parameters
    ----------
    values : float [K, M]
        Log-likelihoods, nat.
    concentration : float
        Of the Dirichlet prior, above 1/3.
    replicates : int
        Of the bootstrap.
    seed : int
        Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    mixture = Mixture.of(values)
    best = maximise(mixture)
    posterior = sample_posterior(mixture, best, concentration, rng)
    again = bootstrap_populations(mixture, posterior, replicates, rng)
    tail = (1 - LEVEL) / 2
    bootstrap = np.quantile(again, [tail, 1 - tail], axis=0) if replicates else np.full((2, len(values)), np.nan)
    known = known_of_division(posterior.mode / posterior.mode.sum(), posterior.overlap, mixture.particles)
    groups = []
    for members in groups_alike(posterior.draws.mean(axis=0), known, mixture.particles):
        together = posterior.draws[:, members].sum(axis=1)
        low, high = np.quantile(together, [tail, 1 - tail])
        groups.append(AlikeGroup(members, float(together.mean()), float(low), float(high)))
    return Ensemble(best, posterior, posterior.interval(LEVEL), bootstrap, known, groups, mixture.particles, replicates)
