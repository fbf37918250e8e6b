"""Which structures the particles cannot tell apart.

What particles say about how a population divides between structures j and k, of that which they would say if the structure of
each were known, is

    ρ_jk = (1/M) · x_j x_k / (x_j + x_k) · Σ_m ((l_jm - l_km) / f_m)²,

the observed over the complete information, l the likelihoods and f = Σ x l. It is 1 where every particle is decided, and 0
where both structures make all particles equally likely: then only the sum of their populations is known.
``ρ_jk M (x_j + x_k)`` is the number of particles of known structure that would tell as much about the division.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

__all__ = ["groups_alike", "known_of_division"]

_UNKNOWN = 10.0  # particles of known structure: with fewer the division is known to 15 % at best
_FEW = 20.0  # expected particles of a pair below which there is nothing to divide


def known_of_division(populations: NDArray[np.float64], overlap: NDArray[np.float64], particles: int) -> NDArray[np.float64]:
    """ρ of all pairs, float64 [K, K]; 1 on the diagonal.

    Parameters
    ----------
    populations : float64 [K]
        All positive.
    overlap : float64 [K, K]
        ``Σ_m R_jm R_km`` with R the probabilities under these populations.
    particles : int
    """
    x = populations
    scaled = overlap / np.outer(x, x)
    own = np.diag(scaled)
    squares = own[:, None] + own[None, :] - 2 * scaled
    known = squares * np.outer(x, x) / (x[:, None] + x[None, :]) / particles
    np.fill_diagonal(known, 1.0)
    return np.clip(known, 0.0, 1.0)


def groups_alike(populations: NDArray[np.float64], known: NDArray[np.float64], particles: int) -> list[list[int]]:
    """Groups of at least two structures, from 0, of which no two can be told apart; without those that hold next to nothing."""
    count = len(populations)
    if count < 2:
        return []
    of_pair = (populations[:, None] + populations[None, :]) * particles
    distance = np.where(of_pair < _FEW, np.inf, known * of_pair).clip(max=1e6)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), method="complete")
    cluster = fcluster(tree, _UNKNOWN, criterion="distance")
    groups = [np.flatnonzero(cluster == c).tolist() for c in np.unique(cluster)]
    return sorted((g for g in groups if len(g) > 1), key=lambda g: -populations[g].sum())
