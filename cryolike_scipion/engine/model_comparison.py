"""Which structure a whole set of particles prefers, if one structure made them all, and how many particles decide it.

The log evidence of a set is the sum of its particles' integrated log-likelihoods. A single image can dominate such a sum, so
its error comes from leaving out one particle at a time (jackknife), and what it takes to overturn it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPARED", "SetComparison", "compare_over_set"]

_FEW = 3
_BLOCK = 1 << 22  # numbers handled at a time
# Arrays of `SetComparison` with unit and meaning.
COMPARED = (
    ("total", "nat", "log evidence of all particles if this structure made them, over the null"),
    ("mean", "nat", "the same per particle"),
    ("behind", "nat", "total of the best structure less this one's"),
    ("error", "nat", "jackknife standard error of `behind`"),
    ("for_best", "1", "particles that are more likely under the best structure"),
    ("deciding", "1", "least number of particles without which this structure would be as good as the best one; 0 for it"),
)


@dataclass(frozen=True)
class SetComparison:
    """Log evidence of a set of M particles under each of K structures, against the best one.

    Attributes
    ----------
    total : float64 [K]
        ``Σ_m L[k, m]``, nat, relative to the null.
    mean : float64 [K]
        Per particle, nat.
    best : int
        Structure of the largest total, from 0.
    behind : float64 [K]
        total of the best less this one's, nat.
    error : float64 [K]
        Jackknife standard error of `behind`, nat.
    for_best : int64 [K]
        Particles that are more likely under the best structure than under this one.
    deciding : int64 [K]
        Least number of particles without which this structure would be as good as the best one; 0 for the best.
    """

    total: NDArray[np.float64]
    mean: NDArray[np.float64]
    best: int
    behind: NDArray[np.float64]
    error: NDArray[np.float64]
    for_best: NDArray[np.int64]
    deciding: NDArray[np.int64]

    @property
    def fragile(self) -> NDArray[np.bool_]:
        """Structures, [K], behind by less than two errors, or only because of `_FEW` particles or fewer."""
        other = np.arange(len(self.total)) != self.best
        return other & ((self.behind < 2 * self.error) | (self.deciding <= _FEW))


def compare_over_set(integrated: NDArray[np.floating]) -> SetComparison:
    """Compare structures by log-likelihoods [K, M], M > 0, which are read in pieces (so they may lie in a mapped file)."""
    structures, count = integrated.shape
    step = max(1, _BLOCK // count)
    pieces = [slice(start, start + step) for start in range(0, structures, step)]
    total = np.concatenate([integrated[piece].sum(axis=1, dtype=np.float64) for piece in pieces])
    best = int(np.argmax(total))
    top = np.array(integrated[best], dtype=np.float64)
    parts = [_behind(top - integrated[piece]) for piece in pieces]
    behind, error, for_best, deciding = (np.concatenate(each) for each in zip(*parts))
    deciding[best] = 0
    return SetComparison(
        total=total, mean=total / count, best=best, behind=behind, error=error, for_best=for_best, deciding=deciding
    )


def _behind(difference: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """`behind`, `error`, `for_best` and `deciding` of differences [k, M] to the best structure."""
    count = difference.shape[1]
    behind = difference.sum(axis=1)
    # The sum is M times the mean. The mean without particle m differs from that of all by (d_m - mean) / (M - 1), so that the
    # jackknife's variance of the sum, M² (M - 1) / M times the sum of their squares, is this in closed form.
    spread = ((difference - difference.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    error = np.sqrt(spread * count / max(count - 1, 1))
    falling = np.cumsum(-np.sort(-difference, axis=1), axis=1)
    overturned = np.argmax(falling >= behind[:, None] - 1e-9 * np.abs(behind[:, None]), axis=1) + 1
    return behind, error, (difference > 0).sum(axis=1), overturned
