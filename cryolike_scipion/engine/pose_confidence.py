"""How sure the pose of one particle under one structure is: its best distinct poses, their probabilities, and their spread.

Poses within a window (`PoseWindow`) of a better one, symmetry mates included, count as that one. The heaviest rows of the
search are looked at pose by pose; what the other rows hold is told by their views and origins alone.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    first, mass = _distinct(rotation, origin, flat[some], mates, near)
    # Light poses of rows that were looked at lie about the heavy ones: they are shared out among the distinct poses.
    mass *= share[top].sum() / max(flat[some].sum(), 1e-300)
    squares = flat[some] @ _angle(rotation, rotation[0], mates) ** 2 / max(flat[some].sum(), 1e-300)
    others = np.setdiff1d(np.arange(len(share)), top)
    facing = np.stack(
        [(at.at_zero[others, 2] @ (rotation[f] @ mates)[:, 2].T).max(axis=1, initial=-1.0) for f in first], axis=1
    )
    tilted = np.arccos(np.clip(facing, -1, 1))
    apart = np.hypot(*(rows.origin[others][:, None] - origin[first]).transpose(2, 0, 1))
    inside = (tilted <= np.deg2rad(near.angle_deg)) & (apart <= near.shift * (1 + 1e-9))
    counts = inside.any(axis=1)
    np.add.at(mass, inside[counts].argmax(axis=1), share[others][counts])
    squares = share[top].sum() * squares + share[others] @ tilted[:, 0] ** 2
    spread = float(np.rad2deg(np.sqrt(squares / share.sum())))
    values = logs[row, angle]
    gap = float(min(values[first[0]] - values[first[1]], GAP_LIMIT)) if len(first) > 1 else GAP_LIMIT
    poses = np.full((keep, len(POSE_COLUMNS)), np.nan, dtype=np.float32)
    chosen = first[:keep]
    angles = euler_from_matrix(rotation[chosen])
    poses[: len(chosen)] = np.column_stack([*angles, origin[chosen], values[chosen], mass[: len(chosen)]])
    return PoseConfidence(1.0 / max(float((mass**2).sum()), 1e-6), max(gap, 0.0), spread, poses)


def _distinct(rotation, origin, weights, mates, near: PoseWindow) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of the best poses of which none is near a better one, and the weight of all that count as each."""
    first: list[int] = []
    mass: list[float] = []
    left = np.arange(len(weights))
    while len(left) and len(first) < _DISTINCT:
        best = int(left[0])
        close = np.hypot(*(origin[left] - origin[best]).T) <= near.shift * (1 + 1e-9)
        inside = np.zeros(len(left), dtype=bool)
        inside[close] = _angle(rotation[left[close]], rotation[best], mates) <= np.deg2rad(near.angle_deg)
        first.append(best)
        mass.append(float(weights[left[inside]].sum()))
        left = left[~inside]
    return np.array(first), np.array(mass)


def _angle(rotations: np.ndarray, one: np.ndarray, mates: np.ndarray) -> NDArray[np.float64]:
    """Angle (radian) of rotations [r, 3, 3] to another one or the nearest of its symmetry mates."""
    trace = rotations.reshape(len(rotations), 9) @ (one @ mates).reshape(len(mates), 9).T
    return np.arccos(np.clip((trace.max(axis=1, initial=-1.0) - 1) / 2, -1, 1))
