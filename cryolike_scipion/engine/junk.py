"""Images that are not like the others: noise, ice, carbon, other molecules.

What tells them is the log evidence that an image shows any of the structures over that of no particle. Its size depends on the
set and its optics (noise, contrast, resolution), so that it is told in robust standard deviations from the median of its optics
group, where that is large enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

__all__ = ["log_evidence_of_any", "robust_z"]

_NORMAL = 1.4826  # of a normal distribution: standard deviation over median absolute deviation
_FEWEST = 30  # images of a group, for its own median


def log_evidence_of_any(integrated: NDArray[np.float64], priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``ln Σ_k prior_k exp(L[k, m])``, nat, [M], of log-likelihoods [K, M] over the null."""
    return np.asarray(logsumexp(integrated, axis=0, b=priors[:, None]))


def robust_z(
    values: NDArray[np.float64], good: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Difference from the median of the good ones over their scaled median absolute deviation, [M]; 0 for the others.

    With ``groups`` [M], such as optics groups, those of the own group count, or all where it has less than `_FEWEST` good ones.
    """
    found = np.zeros(len(values))
    if not good.any():
        return found
    found[good] = _z(values[good])
    for group in () if groups is None else np.unique(groups):
        own = good & (groups == group)
        if own.sum() >= _FEWEST:
            found[own] = _z(values[own])
    return found


def _z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    off = values - np.median(values)
    return off / max(_NORMAL * float(np.median(np.abs(off))), 1e-9)
