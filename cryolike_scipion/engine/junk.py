"""Images that are not like the others: noise, ice, carbon, other molecules.

What tells them is the log evidence that an image shows any of the structures over that of no particle. Its size depends on the
set (noise, contrast, resolution), so that it is told in robust standard deviations from the set's median.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

__all__ = ["log_evidence_of_any", "robust_z"]

_NORMAL = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


def log_evidence_of_any(integrated: NDArray[np.float64], priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``ln Σ_k prior_k exp(L[k, m])``, nat, [M], of log-likelihoods [K, M] over the null."""
    return np.asarray(logsumexp(integrated, axis=0, b=priors[:, None]))


def robust_z(values: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Difference from the median of the good ones over their scaled median absolute deviation, [M]; 0 for the others."""
    if not good.any():
        return np.zeros(len(values))
    centre = np.median(values[good])
    width = _NORMAL * np.median(np.abs(values[good] - centre))
    return np.where(good, (values - centre) / max(float(width), 1e-9), 0.0)
