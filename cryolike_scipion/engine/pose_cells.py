"""Cells of the pose grid of one image: which hold its mass, and which are worth dividing.

A cell is a view (a HEALPix cell or a patch of the tangent plane) times a shift (a square). Cells tile the grid, and so do the
four that a cell is divided into.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .exhaustive import GridScores
from .shifts import ShiftGrid
from .views import ViewTable

__all__ = ["Cells", "Confinement", "Division", "cells_around", "cells_of_grid", "choose_cells"]


@dataclass(frozen=True)
class Division:
    """How cells are chosen for division.

    Attributes
    ----------
    levels : int
        How many times cells may be divided.
    tempering : float
        Exponent of the masses while choosing, below one: a cell's centre underestimates a narrow peak inside it.
    coverage : float
        Fraction of the tempered mass that the chosen views (and the chosen shifts) hold.
    max_views, max_shifts : int
        Most views and shifts divided per image and level.
    tolerance : float
        Stop dividing an image when a level moved its log-likelihood by less, nat.
    """

    levels: int = 2
    tempering: float = 0.7
    coverage: float = 0.999
    max_views: int = 96
    max_shifts: int = 24
    tolerance: float = 0.01


@dataclass
class Cells:
    """State of one image: views and shifts of the current level with their masses, and what was left behind."""

    views: np.ndarray
    view_log_mass: np.ndarray
    view_mean_log: np.ndarray
    origins: np.ndarray
    origin_log_mass: np.ndarray
    left_log_mass: float
    left_mean_log: float
    total: float
    change: float = np.inf
    done: bool = False


@dataclass(frozen=True)
class Confinement:
    """Poses a local search is confined to.

    Attributes
    ----------
    rotation : float64 [m, 3, 3]
        The input poses.
    range_deg : float
        Largest angle from the input's direction, and largest in-plane turn from it.
    log_views : float64 [m]
        ln of the weight of the table's views inside the cone of each image.
    """

    rotation: np.ndarray
    range_deg: float
    log_views: np.ndarray

    def inplane(self, image: int, at_zero: np.ndarray, count: int) -> np.ndarray:
        """Which in-plane angles of views with rotations ``at_zero`` [v, 3, 3] are allowed: bool [v, count]."""
        relative = np.einsum("ij,vkj->vik", self.rotation[image], at_zero)
        nearest = np.arctan2(relative[:, 0, 1] - relative[:, 1, 0], relative[:, 0, 0] + relative[:, 1, 1])
        angle = 2 * np.pi * np.arange(count) / count
        off = np.abs((angle[None, :] - nearest[:, None] + np.pi) % (2 * np.pi) - np.pi)
        return off <= np.maximum(np.deg2rad(self.range_deg), off.min(axis=1, keepdims=True))


def cells_of_grid(scores: GridScores, shifts: ShiftGrid) -> list[Cells]:
    """Cells that start from the scores of a grid."""
    return [_start(scores, i, shifts) for i in range(len(scores.best))]


def cells_around(
    rotations: np.ndarray, origins: np.ndarray, range_deg: float, table: ViewTable, shifts: ShiftGrid
) -> tuple[list[Cells], Confinement]:
    """Cells around given poses [m, 3, 3] and origins [m, 2] (Å): views within ``range_deg`` and shifts about the origin."""
    directions = table.directions()
    cells, log_views = [], np.zeros(len(rotations))
    for i, rotation in enumerate(rotations):
        cosine = directions @ rotation[2]
        inside = np.flatnonzero(cosine >= min(np.cos(np.deg2rad(range_deg)), cosine.max()))
        log_views[i] = np.log(table.weights[inside].sum())
        even = np.zeros(len(inside))
        cells.append(Cells(inside, even, even, origins[i] + shifts.origins, np.zeros(len(shifts)), -np.inf, 0.0, 0.0))
    return cells, Confinement(rotations, range_deg, log_views)


def _start(scores: GridScores, i: int, shifts: ShiftGrid) -> Cells:
    mass = scores.log_mass[i].cpu().numpy()
    held = np.flatnonzero(np.isfinite(mass))
    return Cells(
        views=held,
        view_log_mass=mass[held],
        view_mean_log=scores.mean_log[i].cpu().numpy()[held],
        origins=shifts.origins,
        origin_log_mass=scores.shift_log_mass[i].cpu().numpy(),
        left_log_mass=-np.inf,
        left_mean_log=0.0,
        total=float(np.logaddexp.reduce(mass[held])),
    )


def _heaviest(log_mass: np.ndarray, division: Division, most: int) -> np.ndarray:
    """Indices of the entries that hold ``coverage`` of the tempered mass, heaviest first."""
    order = np.argsort(-log_mass, kind="stable")
    tempered = np.exp(division.tempering * (log_mass[order] - log_mass[order[0]]))
    share = np.cumsum(tempered) / tempered.sum()
    count = int(np.searchsorted(share, division.coverage)) + 1
    return order[: min(count, most)]


def choose_cells(cells: Cells, division: Division | None, divide: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pick views and shifts (all with None): ids of the views to score, divided or not, and indices of the shifts.

    What is not picked moves to the mass left behind.
    """
    if division is None:
        return cells.views, np.arange(len(cells.origins))
    views = _heaviest(cells.view_log_mass, division, division.max_views)
    origins = np.sort(_heaviest(cells.origin_log_mass, division, division.max_shifts))
    rest = np.ones(len(cells.views), dtype=bool)
    rest[views] = False
    all_shifts = np.logaddexp.reduce(cells.origin_log_mass)
    share = np.exp(np.logaddexp.reduce(cells.origin_log_mass[origins]) - all_shifts)
    with np.errstate(divide="ignore"):
        outside = cells.view_log_mass[views] + np.log(max(1.0 - share, 0.0))
    masses = np.concatenate([[cells.left_log_mass], cells.view_log_mass[rest], outside])
    means = np.concatenate([[cells.left_mean_log], cells.view_mean_log[rest], cells.view_mean_log[views]])
    cells.left_log_mass = float(np.logaddexp.reduce(masses))
    if np.isfinite(cells.left_log_mass):
        cells.left_mean_log = float(np.sum(np.exp(masses - cells.left_log_mass) * means))
    chosen = np.sort(cells.views[views])
    return (4 * chosen[:, None] + np.arange(4)).reshape(-1) if divide else chosen, origins
