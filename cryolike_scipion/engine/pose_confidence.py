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
_BLOCK = 1 << 16  # angles at a time
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
    off = [np.subtract.outer(rows.origin[:, axis], origin[first][:, axis]) for axis in (0, 1)]
    reach = off[0] ** 2 + off[1] ** 2 <= (near.shift * (1 + 1e-9)) ** 2
    for j, one in enumerate(rotation[first]):
        if j == 0:
            tilted = _tilted(at.at_zero, one, mates)
            reach[:, 0] &= tilted <= np.deg2rad(near.angle_deg)
        else:
            reach[reach[:, j], j] = _tilted(at.at_zero[reach[:, j]], one, mates) <= np.deg2rad(near.angle_deg)
    heavy = np.flatnonzero((weights > _LIGHT * weights.max()).any(axis=0))  # in-plane angles that any row needs
    turn = 2 * np.pi * heavy / weights.shape[1]
    weights, turns = weights[:, heavy], np.stack([np.cos(turn), np.sin(turn), np.ones(len(turn))])
    others = np.setdiff1d(np.arange(len(share)), top)
    mass = _masses(weights, at.at_zero[top], turns, rotation[first], reach[top], share[others], reach[others], mates, near)
    squares = _squares(weights, at.at_zero[top], turns, rotation[0], mates) + share[others] @ tilted[others] ** 2
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


def _tilted(at_zero, one, mates) -> NDArray[np.float64]:
    """Angle (radian) of views [r] to that of a pose or the nearest of its symmetry mates."""
    return np.arccos(np.clip(((one @ mates)[:, 2] @ at_zero[:, 2].T).max(axis=0, initial=-1.0), -1, 1))


def _traces(at_zero, one, mates) -> NDArray[np.float64]:
    """Coefficients [r, mates, 3] of cos, sin and 1 of the in-plane angle in the trace of Z(angle) A mateᵀ, for A [r, 3, 3]."""
    to = one @ mates
    x, y, z = to.transpose(1, 2, 0)
    a, b, c = at_zero.transpose(1, 0, 2)
    return np.stack([a @ x + b @ y, b @ x - a @ y, c @ z], axis=-1)


def _masses(weights, at_zero, turns, distinct, reach, share, others_reach, mates, near: PoseWindow) -> NDArray[np.float64]:
    """Probability of what counts as each distinct pose, [d].

    Rows that were looked at, with ``weights`` [r, g] of poses ``at_zero`` [r, 3, 3] turned in the plane (``turns`` [3, g]: cos,
    sin, 1), count pose by pose; the others, of which each has a ``share``, as those do on average whose views and origins are
    as near (``reach`` [r, d]).
    """
    least = 1 + 2 * np.cos(np.deg2rad(near.angle_deg))
    free, left = weights.copy(), share.copy()
    mass = np.zeros(len(distinct))
    for j, one in enumerate(distinct):
        rows = np.flatnonzero(reach[:, j])
        if not len(rows):
            continue
        traces = _traces(at_zero[rows], one, mates)
        row, mate = np.nonzero(np.hypot(traces[..., 0], traces[..., 1]) + traces[..., 2] >= least)
        hit = np.zeros((len(rows), weights.shape[1]), dtype=bool)
        if len(row):
            own, start = np.unique(row, return_index=True)
            hit[own] = np.logical_or.reduceat(traces[row, mate] @ turns >= least, start, axis=0)
        taken = free[rows] * hit
        free[rows] -= taken
        within = float(weights[rows].sum())
        part = left * others_reach[:, j] * (float((weights[rows] * hit).sum()) / within if within > 0 else 0.0)
        left = left - part
        mass[j] = taken.sum() + part.sum()
    return mass


def _squares(weights, at_zero, turns, one, mates) -> float:
    """Sum of weighted squares of angles (radian) to a pose or the nearest of its mates; arguments as above."""
    traces, total = _traces(at_zero, one, mates), 0.0
    step = max(1, _BLOCK // (len(mates) * weights.shape[1]))
    for start in range(0, len(weights), step):
        best = (traces[start : start + step] @ turns).max(axis=1, initial=-1.0)
        total += float((weights[start : start + step] * np.arccos(np.clip((best - 1) / 2, -1, 1)) ** 2).sum())
    return total


def _angle(rotations: np.ndarray, one: np.ndarray, mates: np.ndarray) -> NDArray[np.float64]:
    """Angle (radian) of rotations [r, 3, 3] to another one or the nearest of its symmetry mates."""
    trace = (one @ mates).reshape(len(mates), 9) @ rotations.reshape(-1, 9).T
    return np.arccos(np.clip((trace.max(axis=0, initial=-1.0) - 1) / 2, -1, 1))
