"""How sure the pose of one particle under one structure is: its best distinct poses, their probabilities, and their spread.

Poses within a window (`PoseWindow`) of a better one, symmetry mates included, count as that one. The heaviest rows of the
search are looked at pose by pose; what the other rows hold is told by their views and origins, and by the rows beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import symmetry
from .division import LastRows
from .pose_mass import PoseWindow
from .pose_rows import PoseRows
from .rotations import euler_from_matrix, matrix_from_euler

__all__ = ["GAP_LIMIT", "POSE_COLUMNS", "PoseConfidence", "only_pose", "pose_confidence"]

# Columns of a kept pose: degrees, Å, nat, and the probability of poses that count as it.
POSE_COLUMNS = ("rot", "tilt", "psi", "origin_x", "origin_y", "log_likelihood", "probability")
GAP_LIMIT = 50.0  # nat; where no second pose comes as near as this
_SHARE = 0.995  # of the mass that is looked at pose by pose
_ROWS, _POSES, _DISTINCT = 64, 384, 24  # at most: rows, poses of them, distinct poses
_LIGHT = 1e-6  # of the heaviest pose: lighter ones are left out


@dataclass(frozen=True)
class PoseConfidence:
    """What the posterior of the pose looks like.

    Attributes
    ----------
    effective : float
        Number of distinct poses of the same probability that would be as spread: one over the sum of squared probabilities.
    gap : float
        Log-likelihood of the best pose less that of the second best distinct one, nat; at most `GAP_LIMIT`.
    spread_deg : float
        Root mean square angle to the best pose, degrees.
    poses : float32 [k, 7]
        The best distinct poses, heaviest first; columns are `POSE_COLUMNS`. NaN where there are fewer.
    """

    effective: float
    gap: float
    spread_deg: float
    poses: NDArray[np.float32]

    def moved(self, by: NDArray[np.float64]) -> PoseConfidence:
        """The same with origins moved by [2] (Å)."""
        poses = self.poses.copy()
        poses[:, 3:5] += by
        return replace(self, poses=poses)


def only_pose(rotation: np.ndarray, origin: np.ndarray, log_likelihood: float, keep: int) -> PoseConfidence:
    """The confidence where a single pose was scored."""
    poses = np.full((keep, len(POSE_COLUMNS)), np.nan, dtype=np.float32)
    poses[:1] = [*(float(a) for a in euler_from_matrix(rotation)), *origin, log_likelihood, 1.0]
    return PoseConfidence(1.0, GAP_LIMIT, 0.0, poses)


def pose_confidence(rows: PoseRows, at: LastRows, group: str, near: PoseWindow, keep: int) -> PoseConfidence:
    """Look at the heaviest poses of one image.

    Parameters
    ----------
    rows : PoseRows
        After the last division.
    at : LastRows
        Where they can be scored.
    group : str
        Symmetry of the structure.
    near : PoseWindow
        What counts as one pose.
    keep : int
        Poses to keep.
    """
    share = np.exp(rows.log_mass - rows.total)
    top = np.argsort(-share)[:_ROWS]
    top = top[: int(np.searchsorted(np.cumsum(share[top]), _SHARE * share.sum())) + 1]
    logs, _, _ = at.scorer.poses(at.image, at.origin[top], at.view[top])
    weights = np.exp(logs + rows.log_prior[top, None] - rows.total)
    flat = weights.ravel()
    some = np.argpartition(-flat, _POSES)[:_POSES] if flat.size > _POSES else np.arange(flat.size)
    some = some[flat[some] > _LIGHT * flat[some].max()]
    some = some[np.argsort(-flat[some])]
    row, angle = np.unravel_index(some, weights.shape)
    rotation = matrix_from_euler(0.0, 0.0, 360.0 * angle / weights.shape[1]) @ at.at_zero[top][row]
    origin = rows.origin[top][row]
    mates = symmetry.rotations(group)
    first = _distinct(rotation, origin, mates, near)
    facing = np.stack([(at.at_zero[:, 2] @ (rotation[f] @ mates)[:, 2].T).max(axis=1, initial=-1.0) for f in first], axis=1)
    tilted = np.arccos(np.clip(facing, -1, 1))
    apart = np.hypot(*(rows.origin[:, None] - origin[first]).transpose(2, 0, 1))
    reach = (tilted <= np.deg2rad(near.angle_deg)) & (apart <= near.shift * (1 + 1e-9))
    turns = matrix_from_euler(0.0, 0.0, 360.0 * np.arange(weights.shape[1]) / weights.shape[1])
    turned = turns[None] @ at.at_zero[top][:, None]
    others = np.setdiff1d(np.arange(len(share)), top)
    mass = _masses(weights, turned, rotation[first], reach[top], share[others], reach[others], mates, near)
    squares = float((weights * _angle(turned, rotation[0], mates) ** 2).sum()) + share[others] @ tilted[others, 0] ** 2
    spread = float(np.rad2deg(np.sqrt(squares / max(weights.sum() + share[others].sum(), 1e-300))))
    values = logs[row, angle]
    gap = float(min(values[first[0]] - values[first[1]], GAP_LIMIT)) if len(first) > 1 else GAP_LIMIT
    poses = np.full((keep, len(POSE_COLUMNS)), np.nan, dtype=np.float32)
    chosen = first[:keep]
    angles = euler_from_matrix(rotation[chosen])
    poses[: len(chosen)] = np.column_stack([*angles, origin[chosen], values[chosen], mass[: len(chosen)]])
    return PoseConfidence(1.0 / max(float((mass**2).sum()), 1e-6), max(gap, 0.0), spread, poses)


def _distinct(rotation, origin, mates, near: PoseWindow) -> NDArray[np.int64]:
    """Indices of the best poses, of which none is near a better one; poses come best first."""
    first: list[int] = []
    left = np.arange(len(rotation))
    while len(left) and len(first) < _DISTINCT:
        best = int(left[0])
        close = np.hypot(*(origin[left] - origin[best]).T) <= near.shift * (1 + 1e-9)
        inside = np.zeros(len(left), dtype=bool)
        inside[close] = _angle(rotation[left[close]], rotation[best], mates) <= np.deg2rad(near.angle_deg)
        first.append(best)
        left = left[~inside]
    return np.array(first)


def _masses(weights, turned, distinct, reach, share, others_reach, mates, near: PoseWindow) -> NDArray[np.float64]:
    """Probability of what counts as each distinct pose, [d].

    Rows that were looked at, with ``weights`` [r, g] of poses ``turned`` [r, g, 3, 3], count pose by pose; the others, of
    which each has a ``share``, as those do on average whose views and origins are as near (``reach`` [r, d]).
    """
    free, left = weights.copy(), share.copy()
    mass = np.zeros(len(distinct))
    for j, one in enumerate(distinct):
        rows = np.flatnonzero(reach[:, j])
        if not len(rows):
            continue
        hit = _angle(turned[rows], one, mates) <= np.deg2rad(near.angle_deg)
        taken = free[rows] * hit
        free[rows] -= taken
        within = float(weights[rows].sum())
        part = left * others_reach[:, j] * (float((weights[rows] * hit).sum()) / within if within > 0 else 0.0)
        left = left - part
        mass[j] = taken.sum() + part.sum()
    return mass


def _angle(rotations: np.ndarray, one: np.ndarray, mates: np.ndarray) -> NDArray[np.float64]:
    """Angle (radian) of rotations [..., 3, 3] to another one or the nearest of its symmetry mates."""
    trace = rotations.reshape(-1, 9) @ (one @ mates).reshape(len(mates), 9).T
    angle = np.arccos(np.clip((trace.max(axis=1, initial=-1.0) - 1) / 2, -1, 1))
    return angle.reshape(rotations.shape[:-2])
