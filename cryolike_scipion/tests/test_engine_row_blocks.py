"""Rows gathered into blocks: every row is there, and less is computed than in one block."""

import numpy as np
import pytest

from cryolike_scipion.engine.row_blocks import distinct, row_blocks


def _rows(blocks):
    """Rows of all blocks, sorted."""
    found = []
    for block in blocks:
        if block.wanted is None:
            found.append(np.stack([block.origins, block.views]))
        else:
            assert block.wanted.shape == (len(block.origins), len(block.views))
            assert (np.diff(block.origins) > 0).all() and (np.diff(block.views) > 0).all()
            assert block.wanted.any(axis=1).all()
            origin, view = np.nonzero(block.wanted)
            found.append(np.stack([block.origins[origin], block.views[view]]))
    rows = np.concatenate(found, axis=1)
    return rows[:, np.lexsort(rows)]


def _pairs(blocks):
    return sum(block.wanted.size for block in blocks)


def _sorted(origin, view):
    rows = np.stack([origin, view])
    return rows[:, np.lexsort(rows)]


def _clusters(rng, count):
    """Runs of neighbouring views, each run with its own few origins."""
    runs = []
    for first in rng.choice(np.arange(0, 3000, 30), count, replace=False):
        o, v = np.meshgrid(rng.choice(100, 5, replace=False), first + np.arange(20))
        runs.append(np.stack([o.ravel(), v.ravel()]))
    return np.concatenate(runs, axis=1)


@pytest.mark.parametrize("cost", [0.0, 30.0, 1e9])
def test_every_row_is_in_one_block(cost):
    rng = np.random.default_rng(0)
    scattered = np.divmod(rng.choice(4000, 900, replace=False), 100)
    for origin, view in (_clusters(rng, 7), scattered, (np.array([3]), np.array([8]))):
        shuffled = rng.permutation(len(origin))
        found = _rows(row_blocks(origin[shuffled], view[shuffled], cost))
        assert np.array_equal(found, _sorted(origin, view))


def test_clusters_become_blocks_of_their_own():
    origin, view = _clusters(np.random.default_rng(1), 12)
    one = len(np.unique(origin)) * len(np.unique(view))
    blocks = row_blocks(origin, view, 30.0)
    assert len(blocks) > 5 and _pairs(blocks) < 0.4 * one
    assert len(row_blocks(origin, view, 1e5)) == 1  # where a block costs more than all pairs


def test_scattered_rows_are_a_list():
    rng = np.random.default_rng(2)
    origin, view = rng.choice(200, 60, replace=False), rng.choice(3000, 60, replace=False)
    (block,) = row_blocks(origin, view, 100.0)
    assert block.wanted is None and np.array_equal(block.origins, origin) and np.array_equal(block.views, view)


def test_distinct_is_unique():
    values = np.random.default_rng(3).integers(0, 50, 200)
    found, place = distinct(values)
    expected, where = np.unique(values, return_inverse=True)
    assert np.array_equal(found, expected) and np.array_equal(place, where)
