"""How much of the posterior lies near a pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import symmetry

__all__ = ["PoseWindow", "pose_mass"]


@dataclass(frozen=True)
class PoseWindow:
    """What counts as the same pose: rotations within ``angle_deg`` and origins within ``shift`` (Å)."""

    angle_deg: float = 5.0
    shift: float = 1.0

    def may_hold(self, at_zero: np.ndarray, group: str, rotation: np.ndarray) -> np.ndarray:
        """Which views, with rotations ``at_zero`` [v, 3, 3] at psi = 0, can be near a rotation or its mates: bool [v]."""
        mates = np.einsum("ij,gjk->gik", rotation, symmetry.rotations(group))
        return (at_zero[:, 2] @ mates[:, 2].T >= np.cos(np.deg2rad(self.angle_deg))).any(axis=1)


def pose_mass(
    weights: Tensor,
    at_zero: np.ndarray,
    row_view: np.ndarray,
    row_origin: np.ndarray,
    group: str,
    rotation: np.ndarray,
    origin: np.ndarray,
    near: PoseWindow,
) -> float:
    """Sum of ``weights`` over poses near a given one, symmetry mates of the structure included.

    Parameters
    ----------
    weights : Tensor [r, g]
        By row and in-plane angle 2 pi j / g.
    at_zero : float64 [v, 3, 3]
        Rotations of the views at psi = 0.
    row_view : int64 [r]
        View of each row.
    row_origin : float64 [r, 2]
        Origin of each row, Å.
    group : str
        Symmetry of the structure.
    rotation : float64 [3, 3]
    origin : float64 [2]
        Å.
    near : PoseWindow
    """
    angle = 2 * np.pi * np.arange(weights.shape[1]) / weights.shape[1]
    inside = _near_rotations(at_zero, angle, np.einsum("ij,gjk->gik", rotation, symmetry.rotations(group)), near.angle_deg)
    close = np.hypot(*(row_origin - origin).T) <= near.shift * (1 + 1e-9)
    rows = np.flatnonzero(close & inside.any(axis=1)[row_view])
    chosen = weights[torch.from_numpy(rows)].double()
    return float(chosen[torch.from_numpy(inside[row_view[rows]])].sum())


def _near_rotations(at_zero: np.ndarray, angle: np.ndarray, mates: np.ndarray, limit_deg: float) -> np.ndarray:
    """Whether view v turned by angle g is within the limit of any of the rotations ``mates``: bool [v, g]."""
    inside = np.zeros((len(at_zero), len(angle)), dtype=bool)
    facing = at_zero[:, 2] @ mates[:, 2].T >= np.cos(np.deg2rad(limit_deg))
    least_trace = 1 + 2 * np.cos(np.deg2rad(limit_deg))
    for v, g in np.argwhere(facing):
        # trace of Z(psi) M with M = A(view) mateᵀ and Z the in-plane rotation of RELION's convention
        m = at_zero[v] @ mates[g].T
        trace = np.cos(angle) * (m[0, 0] + m[1, 1]) + np.sin(angle) * (m[1, 0] - m[0, 1]) + m[2, 2]
        inside[v] |= trace >= least_trace
    return inside
