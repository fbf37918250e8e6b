"""Levels of a search: every row of the grid lies below exactly one row of each, and what is summed up below them."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.levels import build_levels, coarse_bands, measure_link, single_level
from cryolike_scipion.engine.rotations import random_rotations
from cryolike_scipion.engine.shifts import grid_by_count, grid_by_radius
from cryolike_scipion.engine.views import healpix_views, view_table

from .level_trial import level_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return {group: level_set(tmp_path_factory.mktemp(group), 0.1, count=3, symmetry=group) for group in ("C1", "C4")}


def _user_views(count, rng):
    z = rng.uniform(-1, 1, count)
    return view_table(rng.uniform(-180, 180, count), np.rad2deg(np.arccos(z)), rng.uniform(0.5, 2.0, count))


def _case(sets, kind):
    group = "C4" if kind == "C4" else "C1"
    setup, rng = sets[group].setup, np.random.default_rng(3)
    table = _user_views(900, rng) if kind == "list" else healpix_views(3.0 if kind == "fine" else 5.0, group)
    shifts = {"one shift": grid_by_radius(0.0, 4.0), "columns": grid_by_count(3, 5, 6.0)}.get(kind, grid_by_radius(9.0, 2.0))
    levels = build_levels(setup.bands, 1, table, shifts, setup.ring_ctf)
    return SimpleNamespace(levels=levels, table=table, shifts=shifts, group=group, bands=setup.bands)


KINDS = ["plain", "fine", "C4", "list", "one shift", "columns"]


@pytest.fixture(scope="module", params=KINDS)
def case(request, sets):
    return _case(sets, request.param)


def _ancestors(levels, origin, view):
    """(origin, view) of final rows in every level, coarsest first."""
    found = [(origin, view)]
    for level in levels[:0:-1]:
        found.insert(0, (level.shift_parent[found[0][0]], level.view_parent[found[0][1]]))
    return found


def test_the_last_level_is_the_grid_and_bands_rise(case):
    levels = case.levels
    assert len(levels) >= 2 and levels[-1].table is case.table and levels[-1].shifts is case.shifts
    assert [level.band for level in levels] == sorted(level.band for level in levels)
    assert levels[0].band == 0 and levels[-1].band == len(case.bands) - 1
    assert np.array_equal(levels[-1].view_weight, case.table.weights)
    assert np.allclose(levels[-1].shift_weight, 1 / len(case.shifts))
    for upper, lower in zip(levels, levels[1:]):
        assert len(upper.table) <= len(lower.table) and len(upper.shifts) <= len(lower.shifts)
        assert upper.link is not None and np.isfinite([upper.link.carried, upper.link.spread]).all()
        assert 0 <= upper.link.correlation <= 1 + 1e-6 and upper.link.gain >= 0
    assert levels[-1].link is None


def test_weights_and_counts_add_up(case):
    for level in case.levels:
        assert level.view_weight.sum() == pytest.approx(1.0) and level.shift_weight.sum() == pytest.approx(1.0)
        assert level.view_count.sum() == len(case.table) and level.shift_count.sum() == len(case.shifts)
        assert level.view_count.min() >= 1 and level.shift_count.min() >= 1
    view, shift = np.arange(len(case.table)), np.arange(len(case.shifts))
    for number, level in list(enumerate(case.levels))[::-1]:
        # by the ancestors of the final rows, not by sums of sums
        above_shift = _ancestors(case.levels, shift, np.zeros(len(shift), int))[number][0]
        above_view = _ancestors(case.levels, np.zeros(len(view), int), view)[number][1]
        assert np.array_equal(np.bincount(above_view, minlength=len(level.table)), level.view_count)
        assert np.array_equal(np.bincount(above_shift, minlength=len(level.shifts)), level.shift_count)
        assert np.allclose(np.bincount(above_view, case.table.weights, len(level.table)), level.view_weight)


def test_parents_are_the_nearest(case):
    mates = symmetry.rotations(case.group)
    for upper, lower in zip(case.levels, case.levels[1:]):
        all_mates = np.einsum("gij,vj->gvi", mates, upper.table.directions())
        cosines = np.einsum("gvi,ui->guv", all_mates, lower.table.directions()).max(axis=0)
        chosen = cosines[np.arange(len(lower.table)), lower.view_parent]
        assert (chosen >= cosines.max(axis=1) - 1e-9).all()
        far = np.linalg.norm(lower.shifts.origins[:, None] - upper.shifts.origins[None], axis=2)
        assert (far[np.arange(len(lower.shifts)), lower.shift_parent] <= far.min(axis=1) + 1e-9).all()


def test_children_are_every_row_of_the_next_level_once(case):
    for upper, lower in zip(case.levels, case.levels[1:]):
        o, v = (a.ravel() for a in np.indices((len(upper.shifts), len(upper.table))))
        shift, view = upper.children(o, v)
        assert len(shift) == len(lower.shifts) * len(lower.table)
        assert len(np.unique(shift * len(lower.table) + view)) == len(shift)
        rng = np.random.default_rng(1)
        pick = rng.choice(len(o), size=min(40, len(o)), replace=False)
        shift, view = upper.children(o[pick], v[pick])
        found = set(zip(lower.shift_parent[shift], lower.view_parent[view]))
        assert found == set(zip(o[pick], v[pick]))
        of_views = np.bincount(lower.view_parent, minlength=len(upper.table))
        of_shifts = np.bincount(lower.shift_parent, minlength=len(upper.shifts))
        assert len(shift) == (of_views[v[pick]] * of_shifts[o[pick]]).sum()
    assert all(len(part) == 0 for part in case.levels[0].children(np.zeros(0, int), np.zeros(0, int)))


def test_random_final_rows_lie_below_their_row_and_are_all_as_likely(case):
    rng = np.random.default_rng(2)
    for number, level in enumerate(case.levels[:-1]):
        o, v = rng.integers(len(level.shifts), size=300), rng.integers(len(level.table), size=300)
        above = _ancestors(case.levels, *level.random_final(o, v, rng))[number]
        assert np.array_equal(above[0], o) and np.array_equal(above[1], v)
    level = case.levels[0]
    o, v = int(level.shift_count.argmax()), int(level.view_count.argmax())
    size = int(level.shift_count[o] * level.view_count[v])
    draws = 60 * size
    shift, view = level.random_final(np.full(draws, o), np.full(draws, v), rng)
    counts = np.unique(shift * len(case.table) + view, return_counts=True)[1]
    assert len(counts) == size
    # chi-square of size - 1 degrees of freedom, five standard deviations
    assert ((counts - 60.0) ** 2 / 60.0).sum() < size - 1 + 5 * np.sqrt(2 * size)


def test_band_limits_halve_down_to_coarse_views():
    def even(k):
        return 1.0

    assert coarse_bands(0.125, 70.0, even) == pytest.approx([0.125 / 4, 0.125 / 2, 0.125])
    assert coarse_bands(0.05, 20.0, even) == [0.05]
    # a band that holds next to nothing of the next one's power is left out
    assert coarse_bands(0.125, 70.0, lambda k: 1.0 if k > 0.1 else 1e-6) == [0.125]
    assert coarse_bands(0.125, 70.0, lambda k: 1.0 if k > 0.05 else 1e-6) == pytest.approx([0.125 / 2, 0.125])
    for k_max, radius in ((0.3, 100.0), (0.17, 64.0)):
        bands = coarse_bands(k_max, radius, even)
        assert bands[-1] == k_max and np.allclose(np.diff(np.log2(bands)), 1.0)
        steps = np.rad2deg(0.25 / (np.array(bands) * radius))
        assert steps[0] <= 8.0 < 2 * steps[0]


def test_a_grid_alone_is_one_level():
    table, shifts = healpix_views(20.0, "C4"), grid_by_radius(8.0, 4.0)
    (level,) = single_level(table, shifts)
    assert level.band == 0 and level.table is table and level.shifts is shifts and level.link is None
    assert np.array_equal(level.view_weight, table.weights) and np.array_equal(level.view_count, np.ones(len(table)))
    assert level.shift_weight.sum() == pytest.approx(1.0)


def test_links_of_poses_with_themselves_and_with_others(sets):
    setup = sets["C1"].setup
    bank, k = setup.banks[0], setup.settings.grid.k_max
    rng = np.random.default_rng(4)
    here, there, still = random_rotations(16, rng), random_rotations(16, rng), np.zeros((16, 2))
    same = measure_link(bank, here, here, still, (k, k), setup.ring_ctf)
    assert [same.carried, same.correlation, same.gain] == pytest.approx([1.0] * 3, abs=1e-5) and same.spread < 1e-5
    wider = measure_link(bank, here, here, still, (k / 2, k), setup.ring_ctf)
    assert wider.carried == pytest.approx(1.0, abs=1e-5) and wider.gain > 1
    assert wider.correlation == pytest.approx(1 / wider.gain, rel=1e-4)
    moved = measure_link(bank, here, here, still + [0.15 / k, 0.0], (k, k), setup.ring_ctf)
    other = measure_link(bank, here, there, still, (k, k), setup.ring_ctf)
    assert other.correlation < moved.correlation < same.correlation and other.carried < moved.carried < 1
    assert moved.gain == pytest.approx(1.0, abs=1e-5)
