"""How the populations of a mixture change when its particles are drawn anew.

Each replicate draws as many particles, with replacement. Its populations are the most likely ones under the prior, found from
those of all particles by chords: Newton steps in ``u = x^(1/3)`` (see `mixture_posterior`) that keep the second derivative of
the whole set. Unlike the posterior, their spread does not trust the likelihoods.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from .mixture import Mixture
from .mixture_posterior import PopulationPosterior

__all__ = ["bootstrap_populations"]

_CHORDS = 3
_AT_ONCE = 50


def bootstrap_populations(
    mixture: Mixture, posterior: PopulationPosterior, replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Populations of bootstrap replicates, float64 [replicates, K].

    Parameters
    ----------
    mixture : Mixture
    posterior : PopulationPosterior
        Of the same mixture.
    replicates : int
    rng : numpy.random.Generator
    """
    extra = posterior.concentration - 1 / 3
    total = mixture.particles + mixture.structures * extra
    u = np.cbrt(posterior.mode)
    root = np.linalg.cholesky(9 * (posterior.overlap + extra * np.eye(len(u))) / np.outer(u, u)), True
    found = []
    for start in range(0, replicates, _AT_ONCE):
        count = min(_AT_ONCE, replicates - start)
        weights = _draw(mixture.particles, count, rng)
        here: NDArray[np.float64] = np.repeat(u[:, None], count, axis=1)
        for _ in range(_CHORDS):
            slope = mixture.slope(mixture.density(np.power(here, 3)), weights)
            step = cho_solve(root, 3 * here**2 * (slope - total) + 3 * extra / here)
            here = np.maximum(here + step, 0.1 * here)
        x = here.T**3
        found.append(x / x.sum(axis=1, keepdims=True))
    return np.concatenate(found) if found else np.zeros((0, len(u)))


def _draw(particles: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How often each particle is drawn: float32 [M, count]."""
    drawn = rng.integers(particles, size=(count, particles))
    return np.stack([np.bincount(row, minlength=particles) for row in drawn], axis=1).astype(np.float32)
