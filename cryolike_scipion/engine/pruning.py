"""Which rows of a level can matter at the next, when scores have only been seen through a low-pass.

Given a parent's score s (a log-likelihood ratio with information I), that of a child whose template has correlation rho with
the parent's and information I' is, where the child is not the truth, normal with mean ``r (s + I/2) - I'/2`` and variance
``D = I' (1 - rho²)``, r the share of the parent's template in the child's. So the best of very many children is found among
parents well below the best one, and how far below follows from D. The mass expected in a row is that of its children up to
the highest score that any child of any row can be expected to have: larger ones are too rare to occur (as in Derrida's
random energy model, Phys. Rev. B 24, 2613, 1981), and counting them would keep too few rows.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtr

from .levels import Link

__all__ = ["Outlook", "keep"]

_HIGHEST = 4096  # rows that decide the highest score
_FREE_TURNS = 3.0  # poses per row, of its in-plane angles, that count as independent near its best


class Outlook:
    """What the scores of parents tell about their children.

    Parameters
    ----------
    score : float64 [r]
        Largest log-ratio of every row.
    information, below : float64 [r]
        I of every row's template and I' of its children's, nat.
    log_prior : float64 [r]
        Of the rows.
    children : int64 [r]
        Final rows below each.
    link : Link
    """

    def __init__(
        self,
        score: np.ndarray,
        information: np.ndarray,
        below: np.ndarray,
        log_prior: np.ndarray,
        children: np.ndarray,
        link: Link,
    ) -> None:
        carried = min(link.carried, 1.0)
        mean = carried * (score + information / 2) - below / 2
        # D, and what the score of a true pose's parent varies by with its place in the cell
        variance = np.maximum(below * (1 - link.correlation), 1e-3) + (information * link.spread) ** 2
        width = np.sqrt(variance)
        top = np.argpartition(-mean, _HIGHEST)[:_HIGHEST] if len(mean) > _HIGHEST else slice(None)
        highest = _highest(mean[top], width[top], children[top] * _FREE_TURNS)
        self.log_mass = log_prior + mean + variance / 2 + log_ndtr((highest - mean - variance) / width)
        best = int(np.argmax(score))
        self.near_best = float(score[best]), float(information[best])


def _highest(mean: np.ndarray, width: np.ndarray, count: np.ndarray) -> float:
    """Score above which half a child is expected, of ``count`` children normal about ``mean``."""
    low, high = float(mean.max()) - 3 * float(width.max()), float(mean.max()) + 8 * float(width.max())
    for _ in range(14):
        middle = 0.5 * (low + high)
        if float(count @ ndtr((mean - middle) / width)) > 0.5:
            low = middle
        else:
            high = middle
    return high


def keep(log_mass: np.ndarray, share: float) -> np.ndarray:
    """The fewest rows that hold all but ``share`` of the mass: indices, heaviest first."""
    order = np.argsort(-log_mass, kind="stable")
    mass = np.exp(log_mass[order] - log_mass[order[0]])
    held = np.cumsum(mass)
    return order[: int(np.searchsorted(held, (1 - share) * held[-1])) + 1]
