"""The best distinct poses of every particle under every structure, as a result keeps them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from .agreement import row_keys
from .pose_confidence import POSE_COLUMNS
from .results import Quantity, Results

__all__ = ["BEST_POSES", "merge_best_poses", "no_best_poses", "poses_to_keep", "put_best_poses"]

BEST_POSES = "best_poses"
_MOST = 0.25  # of the run's memory
_MEANING = (
    f"best distinct poses, best first: {', '.join(POSE_COLUMNS)}, the probability given the structure; NaN where there are "
    "fewer [structures × particles × poses × columns]"
)
logger = logging.getLogger(__name__)


def poses_to_keep(wanted: int, structures: int, particles: int, memory: float) -> int:
    """As many as wanted, or as fit into their share of the run's memory (bytes)."""
    each = structures * particles * len(POSE_COLUMNS) * 4
    fit = min(wanted, int(_MOST * memory / max(each, 1)))
    if fit < wanted:
        logger.warning("%d best poses are kept in place of %d: more would take too much memory", fit, wanted)
    return fit


def no_best_poses(poses: int, structures: int, particles: int) -> Quantity:
    """Room for so many poses of all particles [K, M, poses, columns], to be filled by `put_best_poses`."""
    values = np.full((structures, particles, poses, len(POSE_COLUMNS)), np.nan, dtype=np.float32)
    return Quantity(values, "degree, angstrom, nat, 1", _MEANING)


def put_best_poses(kept: Quantity, rows: range, poses: np.ndarray) -> None:
    """Put poses [poses, columns, K, m] of particles ``rows`` into their place; an earlier start may have kept more or fewer."""
    count = min(len(poses), kept.values.shape[2])
    kept.values[:, rows.start : rows.stop, :count] = poses[:count].transpose(2, 3, 0, 1)


def merge_best_poses(merged: Results, parts: Sequence[Results]) -> None:
    """Put those of several runs together; nothing is kept unless all of them have some."""
    if not all(BEST_POSES in part.extras for part in parts):
        return
    place = {key: i for i, key in enumerate(row_keys(merged))}
    number = {entry: k for k, entry in enumerate(merged.structures)}
    count = min(part.extras[BEST_POSES].values.shape[2] for part in parts)
    kept = no_best_poses(count, len(number), len(place))
    for part in parts:
        rows = np.array([place[key] for key in row_keys(part)], dtype=np.int64)
        for k, entry in enumerate(part.structures):
            kept.values[number[entry], rows] = part.extras[BEST_POSES].values[k, :, :count]
    merged.extras[BEST_POSES] = kept
