"""The levels of a coarse-to-fine search: bands with the views and shifts that suit them, down to the grid asked for.

A template up to k turns into another one over about ``0.5 / (k R)`` of angle and ``0.5 / k`` of shift, R the structure's
radius; half of that is taken as the step, so that a cell's centre tells about all of it. Each halving of the band needs four
times fewer views and shifts. Cells of a level are the views and shifts of the next that lie nearest to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from . import symmetry
from .bands import Band
from .correlation import shift_factors
from .shifts import ShiftGrid, grid_by_radius
from .template_bank import TemplateBank
from .views import ViewTable, healpix_views, nearest_view

__all__ = ["Level", "Link", "build_levels", "coarse_bands", "measure_link", "single_level"]

_COARSEST_DEG = 8.0
_LEAST_PART = 0.3
_STEP = 0.25  # over the band limit (times the radius)
_PAIRS = 32  # of poses that a link is measured with


@dataclass(frozen=True)
class Link:
    """How the templates of a level are related to those of the next, averages over pairs of poses.

    Attributes
    ----------
    carried : float
        ``<T, T'>/<T,T>``, T the parent's template and T' the child's.
    correlation : float
        ``<T, T'>² / (<T,T><T',T'>)``.
    gain : float
        ``<T',T'>/<T,T>``.
    spread : float
        Standard deviation of ``carried`` from pair to pair.
    """

    carried: float
    correlation: float
    gain: float
    spread: float


@dataclass
class Level:
    """Views and shifts of one band, and the cells of the final grid that they stand for.

    Attributes
    ----------
    band : int
        Index of the band.
    table : ViewTable
    shifts : ShiftGrid
    view_parent : int64 [v], shift_parent : int64 [o]
        Indices in the level before; empty in the first.
    view_weight : float64 [v], shift_weight : float64 [o]
        Prior of the final views and shifts below each; each sums to 1.
    view_count : int64 [v], shift_count : int64 [o]
        Their numbers.
    link : Link or None
        To the next level; None in the last.
    """

    band: int
    table: ViewTable
    shifts: ShiftGrid
    view_parent: np.ndarray
    shift_parent: np.ndarray
    view_weight: np.ndarray
    shift_weight: np.ndarray
    view_count: np.ndarray
    shift_count: np.ndarray
    link: Link | None = None
    _children: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def keep_children(self, below: Level, final_view: np.ndarray, final_shift: np.ndarray) -> None:
        """Remember which views and shifts of the next level, and of the last, lie below each of this one.

        ``final_view`` and ``final_shift`` are the views and shifts of this level above those of the last.
        """
        for name, parent, count in (
            ("view", below.view_parent, len(self.table)),
            ("shift", below.shift_parent, len(self.shifts)),
            ("final view", final_view, len(self.table)),
            ("final shift", final_shift, len(self.shifts)),
        ):
            order = np.argsort(parent, kind="stable")
            self._children[name] = (order, np.searchsorted(parent[order], np.arange(count + 1)))

    def random_final(self, shift: np.ndarray, view: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random final row (shift, view) below each of given rows."""
        (shifts, s0), (views, v0) = self._children["final shift"], self._children["final view"]
        o = s0[shift] + rng.integers(s0[shift + 1] - s0[shift])
        v = v0[view] + rng.integers(v0[view + 1] - v0[view])
        return shifts[o], views[v]

    def children(self, shift: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (shift, view) of the next level below given rows of this one: all pairs of their children."""
        (shifts, s0), (views, v0) = self._children["shift"], self._children["view"]
        ns, nv = s0[shift + 1] - s0[shift], v0[view + 1] - v0[view]
        total = ns * nv
        row = np.repeat(np.arange(len(shift)), total)
        place = np.arange(len(row)) - np.repeat(np.cumsum(total) - total, total)
        return shifts[s0[shift[row]] + place // nv[row]], views[v0[view[row]] + place % nv[row]]


def coarse_bands(k_max: float, radius: float, power: Callable[[float], float]) -> list[float]:
    """Band limits (1/Å) of a search, lowest first.

    They are halved from ``k_max`` while the views stay closer than 8° and a band holds a good part of the next one's power
    ``power(k)``: what a smaller part says is worth little.
    """
    found = [k_max]
    while True:
        k = found[0] / 2
        if natural_step_deg(k, radius) > _COARSEST_DEG or power(k) < _LEAST_PART * power(found[0]):
            return found
        found.insert(0, k)


def natural_step_deg(k: float, radius: float) -> float:
    """Angle (degrees) between views that suits a band limit k (1/Å) and a radius (Å)."""
    return float(np.rad2deg(_STEP / (k * radius)))


def build_levels(bands: list[Band], structure: int, table: ViewTable, shifts: ShiftGrid, ring_ctf: np.ndarray) -> list[Level]:
    """Levels of one structure, coarse to fine; the last has the given views and shifts and the full band.

    Parameters
    ----------
    bands : list of Band
        Lowest first.
    structure : int
        Index in the bands' banks.
    table : ViewTable
    shifts : ShiftGrid
    ring_ctf : float64 [n]
        CTF² at the radii of the full band, mean over images, for the links.
    """
    radius = bands[-1].banks[structure].structure.radius
    plans: list[tuple[int, float, float]] = []
    finest = max(shifts.step)
    for index, band in enumerate(bands):
        k = band.grid.k_max
        plans.append((index, max(table.step_deg, natural_step_deg(k, radius)), max(finest, _STEP / k)))
    while plans[-1][1] > 1.01 * table.step_deg or plans[-1][2] > 1.01 * finest:
        plans.append((len(bands) - 1, max(table.step_deg, plans[-1][1] / 2), max(finest, plans[-1][2] / 2)))
    tables, grids = [table], [shifts]
    for _, step, width in plans[-2::-1]:
        tables.insert(0, tables[0] if step <= 1.01 * table.step_deg else healpix_views(step, table.symmetry))
        wide = len(shifts) > 1 and width > 1.01 * finest
        grids.insert(0, grid_by_radius(shifts.reach + width / 2, width) if wide else grids[0])
    levels = _linked(plans, tables, grids)
    final_view, final_shift = np.arange(len(table)), np.arange(len(shifts))
    for upper, lower in zip(levels[-2::-1], levels[::-1]):
        final_view, final_shift = lower.view_parent[final_view], lower.shift_parent[final_shift]
        upper.keep_children(lower, final_view, final_shift)
        upper.link = _measure(bands, structure, upper, lower, ring_ctf)
    return levels


def single_level(table: ViewTable, shifts: ShiftGrid) -> list[Level]:
    """The grid alone, at full band."""
    return _linked([(0, table.step_deg, 0.0)], [table], [shifts])


def _linked(plans, tables: list[ViewTable], grids: list[ShiftGrid]) -> list[Level]:
    """Levels from fine to coarse: parents by nearness, weights and counts summed up; what has no children is dropped."""
    levels: list[Level] = []
    view_weight: np.ndarray = tables[-1].weights
    shift_weight: np.ndarray = np.full(len(grids[-1]), 1 / len(grids[-1]))
    view_count, shift_count = np.ones(len(tables[-1]), np.int64), np.ones(len(grids[-1]), np.int64)
    table, shifts = tables[-1], grids[-1]
    for i in range(len(plans) - 1, -1, -1):
        none = np.zeros(0, np.int64)
        level = Level(plans[i][0], table, shifts, none, none, view_weight, shift_weight, view_count, shift_count)
        levels.insert(0, level)
        if i == 0:
            break
        above, over = tables[i - 1], grids[i - 1]
        if above is tables[i]:
            parent, upper_table = np.arange(len(table)), table
        else:
            found = nearest_view(above, table.directions())
            used, parent = np.unique(found, return_inverse=True)
            upper_table = _views(above, used)
        if over is grids[i]:
            shift_parent, upper_shifts = np.arange(len(shifts)), shifts
        else:
            _, near = cKDTree(over.origins).query(shifts.origins)
            used, shift_parent = np.unique(near, return_inverse=True)
            upper_shifts = ShiftGrid(over.origins[used], over.step)
        level.view_parent, level.shift_parent = parent, shift_parent
        view_weight = np.bincount(parent, view_weight, len(upper_table))
        view_count = np.bincount(parent, view_count, len(upper_table)).astype(np.int64)
        shift_weight = np.bincount(shift_parent, shift_weight, len(upper_shifts))
        shift_count = np.bincount(shift_parent, shift_count, len(upper_shifts)).astype(np.int64)
        table, shifts = upper_table, upper_shifts
    return levels


def _views(table: ViewTable, index: np.ndarray) -> ViewTable:
    return ViewTable(
        table.rot_deg[index],
        table.tilt_deg[index],
        table.weights[index],
        table.symmetry,
        table.step_deg,
        table.nside,
        None if table.cells is None else table.cells[index],
    )


def _measure(bands: list[Band], structure: int, upper: Level, lower: Level, ring_ctf: np.ndarray) -> Link:
    """The link between two levels, over random cells."""
    rng = np.random.default_rng(7)
    child = rng.integers(len(lower.table), size=_PAIRS)
    shift = rng.integers(len(lower.shifts), size=_PAIRS)
    above, below = upper.table.rotations()[lower.view_parent[child]], lower.table.directions()[child]
    below = _nearest_mate(below, above[:, 2], upper.table.symmetry)
    turn = rng.uniform(-0.5, 0.5, _PAIRS) * 2 * np.pi / bands[upper.band].n_inplane
    moved = Rotation.from_rotvec(turn[:, None] * [0.0, 0.0, 1.0]).as_matrix() @ _turned_to(above, below)
    offset = lower.shifts.origins[shift] - upper.shifts.origins[lower.shift_parent[shift]]
    limits = bands[upper.band].grid.k_max, bands[lower.band].grid.k_max
    return measure_link(bands[-1].banks[structure], above, moved, offset, limits, ring_ctf)


def measure_link(
    bank: TemplateBank,
    parents: np.ndarray,
    children: np.ndarray,
    offset: np.ndarray,
    limits: tuple[float, float],
    ring_ctf: np.ndarray,
) -> Link:
    """Products of templates of parents and children, each up to its band.

    Parameters
    ----------
    bank : TemplateBank
        Of the full band.
    parents, children : float64 [r, 3, 3]
        Rotations.
    offset : float64 [r, 2]
        Origins of the children less those of their parents, Å.
    limits : tuple of float
        Bands of parents and of children, 1/Å.
    ring_ctf : float64 [n]
        CTF² at the radii, mean over images.
    """
    grid = bank.grid
    weights = torch.as_tensor(grid.weights * ring_ctf, device=bank.device)
    radii = torch.as_tensor(grid.radii, device=bank.device)
    in_upper, in_lower = (weights * (radii <= limit) for limit in limits)
    here, there = bank.slices(parents), bank.slices(children)
    moved = there * shift_factors(grid, offset, here.real.dtype, bank.device).conj()
    power = (here.real**2 + here.imag**2).mean(dim=-1).double() @ in_upper
    below = (there.real**2 + there.imag**2).mean(dim=-1).double() @ in_lower
    both = (here.conj() * moved).real.mean(dim=-1).double() @ torch.minimum(in_upper, in_lower)
    correlation = both.sum() ** 2 / (power.sum() * below.sum())
    carried = both / power
    return Link(float(carried.mean()), float(correlation), float(below.sum() / power.sum()), float(carried.std()))


def _nearest_mate(directions: np.ndarray, to: np.ndarray, group: str) -> np.ndarray:
    mates = np.einsum("gij,rj->rgi", symmetry.rotations(group), directions)
    best = np.einsum("rgi,ri->rg", mates, to).argmax(axis=1)
    return mates[np.arange(len(mates)), best]


def _turned_to(rotations: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Rotations [r, 3, 3] tilted, by the shortest way, to see along other directions [r, 3]."""
    axis = np.cross(rotations[:, 2], directions)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.arctan2(sine, np.einsum("ri,ri->r", rotations[:, 2], directions)[:, None])
    turn = Rotation.from_rotvec(axis / np.maximum(sine, 1e-12) * angle).as_matrix()
    return rotations @ turn.transpose(0, 2, 1)
