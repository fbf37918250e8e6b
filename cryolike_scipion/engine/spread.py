"""A few of many rows, spread over all of them."""

from __future__ import annotations

import numpy as np

__all__ = ["spread"]


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of rows [m], evenly spaced, with the first and the last one."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), count)).round().astype(np.int64)]
