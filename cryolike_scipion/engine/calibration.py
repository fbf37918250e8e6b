"""Whether probabilities are what they claim to be, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import symmetry
from .pose_confidence import POSE_COLUMNS
from .rotations import matrix_from_euler

__all__ = ["Reliability", "pose_regions", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Claimed probabilities against how often they came true.

    Attributes
    ----------
    claimed, observed : float64 [b]
        Mean claim and frequency in each bin that holds any.
    count : int64 [b]
    mean_claimed, mean_observed : float
        Over all.
    error : float
        Expected calibration error: mean of ``|claimed - observed|`` over bins, weighted by their counts.
    """

    claimed: NDArray[np.float64]
    observed: NDArray[np.float64]
    count: NDArray[np.int64]
    mean_claimed: float
    mean_observed: float
    error: float

    @property
    def gap(self) -> float:
        """Mean claim less frequency: positive is over-confident."""
        return self.mean_claimed - self.mean_observed

    @property
    def gap_error(self) -> float:
        """Standard error of `gap`, of a calibrated claim."""
        total = self.count.sum()
        return float(np.sqrt((self.count * self.claimed * (1 - self.claimed)).sum()) / total)


def reliability(claimed: ArrayLike, true: ArrayLike, bins: int = 10) -> Reliability:
    """Compare claims [m] with what was true (bool [m]), in bins of equal count.

    Bins of equal count (Nixon et al., CVPR Workshops 2019) leave none empty; claims that are equal stay together.
    """
    p, hit = np.asarray(claimed, dtype=np.float64), np.asarray(true, dtype=np.float64)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, p)
    count = np.bincount(which, minlength=len(edges) + 1)
    held = count > 0
    mean, share = (np.bincount(which, v, minlength=len(count))[held] / count[held] for v in (p, hit))
    count = count[held]
    error = float((count * np.abs(mean - share)).sum() / len(p))
    return Reliability(mean, share, count, float(p.mean()), float(hit.mean()), error)


def pose_regions(
    poses: NDArray[np.floating],
    true_rotation: NDArray[np.float64],
    true_origin: NDArray[np.float64],
    group: str,
    angle_deg: float,
    shift: float,
    level: float = 0.9,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Credible regions of poses, and whether they hold the true ones.

    A region is the union of windows about the best distinct poses: as many as it takes to hold ``level``, or all kept ones.

    Parameters
    ----------
    poses : float [m, k, 7]
        Best distinct poses (`POSE_COLUMNS`) of each particle.
    true_rotation : float64 [m, 3, 3]
    true_origin : float64 [m, 2]
        Å.
    group : str
        Symmetry of the structure.
    angle_deg, shift : float
        The window: degrees and Å.
    level : float

    Returns
    -------
    claimed : float64 [m]
        Probability of each region.
    held : bool [m]
    """
    column = {name: poses[..., i].astype(np.float64) for i, name in enumerate(POSE_COLUMNS)}
    probability = np.nan_to_num(column["probability"])
    before = np.cumsum(probability, axis=1) - probability
    used = (before < level) & np.isfinite(column["rot"])
    angles = (np.nan_to_num(column[name]).ravel() for name in ("rot", "tilt", "psi"))
    rotations = matrix_from_euler(*angles).reshape(*used.shape, 3, 3)
    mates = np.einsum("mij,gjk->mgik", true_rotation, symmetry.rotations(group))
    trace = np.einsum("mkij,mgij->mkg", rotations, mates).max(axis=2)
    near = (trace - 1) / 2 >= np.cos(np.deg2rad(angle_deg))
    near &= np.hypot(column["origin_x"] - true_origin[:, :1], column["origin_y"] - true_origin[:, 1:]) <= shift
    return np.minimum((probability * used).sum(axis=1), 1.0), (near & used).any(axis=1)
