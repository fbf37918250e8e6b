"""The best distinct poses of every particle under every structure, as a result keeps them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from .agreement import row_keys
from .pose_confidence import POSE_COLUMNS
from .results import Quantity, Results

__all__ = ["BEST_POSES", "add_best_poses", "merge_best_poses", "poses_to_keep"]

BEST_POSES = "best_poses"
_MOST_BYTES = 2**31
_MEANING = (
    f"best distinct poses, best first: {', '.join(POSE_COLUMNS)}, the probability given the structure; NaN where there are "
    "fewer [structures × particles × poses × columns]"
)
logger = logging.getLogger(__name__)


def poses_to_keep(wanted: int, structures: int, particles: int) -> int:
    """As many as wanted, or as fit into `_MOST_BYTES`."""
    each = structures * particles * len(POSE_COLUMNS) * 4
    fit = min(wanted, _MOST_BYTES // max(each, 1))
    if fit < wanted:
        logger.warning("%d best poses are kept in place of %d: more would take too much memory", fit, wanted)
    return fit


def add_best_poses(results: Results, poses: np.ndarray) -> None:
    """Keep poses [poses, columns, K, M] in a result; nothing where there are none."""
    if len(poses):
        values = np.ascontiguousarray(poses.transpose(2, 3, 0, 1))
        results.extras[BEST_POSES] = Quantity(values, "degree, angstrom, nat, 1", _MEANING)


def merge_best_poses(merged: Results, parts: Sequence[Results]) -> None:
    """Put those of several runs together; nothing is kept unless all of them have some."""
    if not all(BEST_POSES in part.extras for part in parts):
        return
    place = {key: i for i, key in enumerate(row_keys(merged))}
    number = {entry: k for k, entry in enumerate(merged.structures)}
    count = min(part.extras[BEST_POSES].values.shape[2] for part in parts)
    values = np.full((len(number), len(place), count, len(POSE_COLUMNS)), np.nan, dtype=np.float32)
    for part in parts:
        rows = np.array([place[key] for key in row_keys(part)], dtype=np.int64)
        for k, entry in enumerate(part.structures):
            values[number[entry], rows] = part.extras[BEST_POSES].values[k, :, :count]
    merged.extras[BEST_POSES] = Quantity(values, parts[0].extras[BEST_POSES].unit, _MEANING)
