"""Which structure an image shows: prior and posterior probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError


def structure_posteriors(integrated: ArrayLike, priors: ArrayLike | None = None) -> NDArray[np.float64]:
    """Posterior probabilities of structures from integrated log-likelihoods.

    ``p_k = π_k exp(L_k) / Σ_j π_j exp(L_j)``, in float64 with the largest term taken out.

    Parameters
    ----------
    integrated : array_like [K, M]
        nat.
    priors : array_like [K], optional
        Prior weights; equal without. A structure of weight 0 gets posterior 0.

    Returns
    -------
    float64 [K, M]
        Each column sums to 1.
    """
    scores = np.asarray(integrated, dtype=np.float64)
    prior = prior_probabilities(priors, len(scores))
    with np.errstate(divide="ignore"):
        logs = scores + np.log(prior)[:, None]
    weights = np.exp(logs - logs.max(axis=0, initial=-np.inf))
    return weights / weights.sum(axis=0)


def prior_probabilities(weights: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """Prior weights of `count` structures as probabilities; equal ones for ``None`` or none given.

    Raises
    ------
    InputError
        If their number is wrong, one is negative, or all are 0.
    """
    if weights is None or np.size(weights) == 0:
        return np.full(count, 1.0 / count)
    prior = np.asarray(weights, dtype=np.float64)
    if prior.shape != (count,):
        raise InputError(
            f"{prior.size} prior weights were given for {count} structures",
            remedy="Give one weight for each structure with --priors, in their order",
        )
    if not np.all(np.isfinite(prior)) or np.any(prior < 0) or prior.sum() <= 0:
        raise InputError(
            f"the prior weights are {', '.join(f'{p:g}' for p in prior)}",
            remedy="Give weights that are not negative and not all 0 with --priors",
        )
    return prior / prior.sum()
