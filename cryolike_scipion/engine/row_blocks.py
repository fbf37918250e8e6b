"""Rows (an origin and a view) scattered over a grid, gathered into dense blocks: products of matrices are fast, lists are not.

Rows that a search opens lie in clusters: neighbouring views, which have neighbouring indices, with the same few origins. So the
views are cut into runs, each with the origins that it needs; the length of the runs is the one with which least is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["RowBlock", "distinct", "row_blocks"]

_LIST_COST = 7.0  # of a row in a list over one in a dense block
_LENGTHS = (8, 16, 32, 64, 128, 256)  # of runs of views


@dataclass(frozen=True)
class RowBlock:
    """All pairs of some origins and some views, or a list of rows.

    Attributes
    ----------
    origins : int64 [o], views : int64 [v]
        Of a dense block in rising order; of a list, those of each of its rows.
    wanted : bool [o, v] or None
        Which of the pairs were asked for; None is a list.
    """

    origins: np.ndarray
    views: np.ndarray
    wanted: np.ndarray | None = None


def row_blocks(origin: np.ndarray, view: np.ndarray, block_cost: float) -> list[RowBlock]:
    """Blocks that hold every row, each pair once.

    Parameters
    ----------
    origin, view : int64 [r]
    block_cost : float
        Of a block, over that of one of its pairs.
    """
    origins, o = distinct(origin)
    views, v = distinct(view)
    wanted = np.zeros((len(origins), len(views)), dtype=bool)
    wanted[o, v] = True
    lengths = [n for n in _LENGTHS if n < len(views)] + [len(views)]
    needed = [np.logical_or.reduceat(wanted, np.arange(0, len(views), n), axis=1) for n in lengths]
    costs = [_pairs(runs, n, len(views)) + block_cost * runs.shape[1] for runs, n in zip(needed, lengths)]
    best = int(np.argmin(costs))
    if costs[best] > _LIST_COST * len(origin):
        return [RowBlock(origin, view)]
    blocks = []
    for run, first in enumerate(range(0, len(views), lengths[best])):
        own, part = np.flatnonzero(needed[best][:, run]), slice(first, first + lengths[best])
        blocks.append(RowBlock(origins[own], views[part], wanted[own, part]))
    return blocks


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different values of small indices [r] in rising order, and where in them each is: `numpy.unique` without a sort."""
    there = np.zeros(int(values.max()) + 1, dtype=bool)
    there[values] = True
    found = np.flatnonzero(there)
    place = np.cumsum(there) - 1
    return found, place[values]


def _pairs(needed: np.ndarray, length: int, views: int) -> int:
    """Pairs in blocks of runs of views, given which origins each needs, bool [o, runs]."""
    sizes = np.full(needed.shape[1], length)
    sizes[-1] = views - length * (needed.shape[1] - 1)
    return int(needed.sum(axis=0) @ sizes)
