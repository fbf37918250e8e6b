"""Finer sampling where the mass is: rows of poses are divided until the integral has converged.

A row, a view and an origin with all in-plane angles, is divided into the sixteen of its four finer views and four finer
origins. Rows that are not divided keep the mass of the coarser level, times what a sample of them, drawn by mass, gains or
loses by division: the midpoint of a cell is above its mean where the likelihood peaks and below it on the slopes, so that to
divide the heaviest rows alone would make the sum too small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .bands import Band
from .correlation import Templates
from .fine_views import FineViews
from .levels import Link, measure_link
from .likelihood import ScalePrior
from .polar_grid import fft_friendly
from .polar_images import PolarImages
from .pose_rows import PoseRows
from .pruning import Outlook, keep
from .rotations import matrix_from_euler
from .row_scores import MovedImages, RowScorer
from .template_bank import TemplateBank

__all__ = ["Confinement", "Division", "LastRows", "RowGrid", "divide_rows", "division_link", "finer"]

_PAIRS = 24
_SAMPLED = 64  # of the rows that are not divided
_NEGLIGIBLE = 2e-3  # share of the mass in rows of which no sample is taken


@dataclass(frozen=True)
class Division:
    """How rows are chosen for division.

    Attributes
    ----------
    levels : int
        How many times rows may be divided.
    share : float
        Expected mass in rows that are not divided.
    most : int
        Rows divided per image and level.
    tolerance : float
        Stop dividing an image when a level moved its log-likelihood by less, nat.
    """

    levels: int = 2
    share: float = 1e-3
    most: int = 192
    tolerance: float = 0.01


@dataclass(frozen=True)
class RowGrid:
    """Sampling of the rows: division of the views, step of the origins along x and y (Å), number of in-plane angles."""

    division: int
    step: tuple[float, float]
    n_inplane: int


@dataclass(frozen=True)
class Confinement:
    """Poses a local search is confined to.

    Attributes
    ----------
    rotation : float64 [m, 3, 3]
        The input poses.
    range_deg : float
        Largest angle between views, and largest in-plane turn, from the input pose.
    """

    rotation: np.ndarray
    range_deg: float

    def views(self, image: int, directions: np.ndarray) -> np.ndarray:
        """Indices of the directions [v, 3] within the range of the input pose, or of the nearest one."""
        cosine = directions @ self.rotation[image][2]
        return np.flatnonzero(cosine >= min(np.cos(np.deg2rad(self.range_deg)), cosine.max()))

    def inplane(self, image: int, at_zero: np.ndarray, count: int) -> np.ndarray:
        """Which in-plane angles of views with rotations ``at_zero`` [v, 3, 3] are allowed: bool [v, count]."""
        relative = np.einsum("ij,vkj->vik", self.rotation[image], at_zero)
        nearest = np.arctan2(relative[:, 0, 1] - relative[:, 1, 0], relative[:, 0, 0] + relative[:, 1, 1])
        angle = 2 * np.pi * np.arange(count) / count
        off = np.abs((angle[None, :] - nearest[:, None] + np.pi) % (2 * np.pi) - np.pi)
        return off <= np.maximum(np.deg2rad(self.range_deg), off.min(axis=1, keepdims=True))


def division_link(bank: TemplateBank, fine: FineViews, grid: RowGrid, ring_ctf: np.ndarray) -> Link:
    """How the template of a row is related to those of the rows that it is divided into."""
    rng = np.random.default_rng(5)
    above, below = fine.table(grid.division), fine.table(grid.division + 1)
    view = rng.integers(len(above), size=_PAIRS)
    parents = above.rotations()[view]
    children = below.rotations()[4 * view + rng.integers(4, size=_PAIRS)]
    # Turned in the plane so that both are as near as can be, up to the spacing of the in-plane angles.
    relative = np.einsum("rij,rkj->rik", parents, children)
    turn = np.arctan2(relative[:, 0, 1] - relative[:, 1, 0], relative[:, 0, 0] + relative[:, 1, 1])
    turn += rng.uniform(-0.5, 0.5, _PAIRS) * 2 * np.pi / grid.n_inplane
    children = matrix_from_euler(0.0, 0.0, np.rad2deg(turn)) @ children
    offset = rng.choice([-0.25, 0.25], size=(_PAIRS, 2)) * grid.step
    return measure_link(bank, parents, children, offset, (bank.grid.k_max,) * 2, ring_ctf)


@dataclass
class LastRows:
    """Where the rows of one image can be scored again.

    Attributes
    ----------
    scorer : RowScorer
    image : int
        Its index there.
    origin, view : int64 [r]
        Indices in the scorer's moved images and templates, of every row.
    at_zero : float64 [r, 3, 3]
        Rotations of the rows' views at psi = 0.
    """

    scorer: RowScorer
    image: int
    origin: np.ndarray
    view: np.ndarray
    at_zero: np.ndarray


def divide_rows(
    images: PolarImages,
    rows: list[PoseRows],
    last: list[LastRows],
    band: Band,
    fine: FineViews,
    links: list[Link],
    grid: RowGrid,
    prior: ScalePrior,
    division: Division,
    confinement: Confinement | None = None,
) -> np.ndarray:
    """Divide the heaviest rows of every image; ``rows`` and ``last`` are changed in place.

    Parameters
    ----------
    images : PolarImages
    rows : list of PoseRows
        One per image, on the grid.
    last : list of LastRows
        One per image.
    band : Band
        The full one.
    fine : FineViews
    links : list of Link
        From `division_link`, one per level.
    grid : RowGrid
        Of the rows.
    prior : ScalePrior
    division : Division
    confinement : Confinement, optional
        Of a local search.

    Returns
    -------
    float64 [m]
        Change of the log of the integral by each image's last level.
    """
    changes = np.zeros(len(rows))
    active = list(range(len(rows)))
    for link in links[: division.levels]:
        if not active:
            break
        samples = {i: _leave_light(images, i, rows[i], link, division) for i in active}
        drawn = [one.rows.view for one in samples.values() if one is not None]
        parents = np.unique(np.concatenate([rows[i].view for i in active] + drawn))
        views = (4 * parents[:, None] + np.arange(4)).ravel()
        below = finer(grid, fine)
        templates = fine.templates(below.division, views)
        for i in active:
            before = rows[i].total
            last[i] = _divide(images, i, rows[i], parents, templates, grid, below, band, fine, prior, confinement)
            sample = samples[i]
            if sample is not None:
                _divide(images, i, sample.rows, parents, templates, grid, below, band, fine, prior, confinement)
                sample.apply(rows[i], grid.step)
            changes[i] = rows[i].total - before
        active = [i for i in active if abs(changes[i]) > division.tolerance]
        grid = below
    return changes


def finer(grid: RowGrid, fine: FineViews) -> RowGrid:
    """Sampling of the rows after one division."""
    views = fine.table(grid.division + 1)
    close = 360 / grid.n_inplane > 1.6 * views.step_deg
    step = (grid.step[0] / 2, grid.step[1] / 2)
    return RowGrid(grid.division + 1, step, fft_friendly(2 * grid.n_inplane, 32) if close else grid.n_inplane)


@dataclass
class _Sample:
    """Some of the rows that are left undivided, drawn by mass.

    Attributes
    ----------
    rows : PoseRows
        Each of mass one before it is divided.
    view, origin : int64 [s], float64 [s, 2]
        Of these rows before.
    times : int64 [s]
        How often each was drawn.
    log_mass : float
        Of all rows that are left.
    """

    rows: PoseRows
    view: np.ndarray
    origin: np.ndarray
    times: np.ndarray
    log_mass: float

    def apply(self, rows: PoseRows, step: tuple[float, float]) -> None:
        """Multiply the mass of what is left by what the divided sample gained."""
        child = self.rows
        near = np.abs(child.origin[:, None] - self.origin) < 0.3 * np.array(step) + 1e-6
        mine = near.all(axis=2) & (child.view[:, None] // 4 == self.view)
        gained = np.exp(child.log_mass) @ mine
        mean = np.average(gained, weights=self.times)
        share = np.exp(self.log_mass - rows.left_log_mass)
        rows.left_log_mass += float(np.log(max(1.0 + share * (mean - 1.0), 1e-3 * share)))
        error = np.exp(self.log_mass - rows.total) * gained.std(ddof=1) / np.sqrt(len(gained))
        rows.error = float(np.hypot(rows.error, error))


def _leave_light(images: PolarImages, i: int, rows: PoseRows, link: Link, division: Division) -> _Sample | None:
    """Move the rows that are not worth dividing to what is left; a sample of them where they hold a part of the mass."""
    scale, power = rows.scale, rows.power
    noise = float(images.projected_power[i] / images.dof[i])
    count = len(rows.view)
    information = np.full(count, scale**2 * power / noise)
    below = information * link.gain
    outlook = Outlook(rows.log_mass - rows.log_prior, information, below, rows.log_prior, np.full(count, 16), link)
    kept = keep(outlook.log_mass, division.share)[: division.most]
    light = np.ones(len(rows.view), dtype=bool)
    light[kept] = False
    sample = _sample(rows, np.flatnonzero(light))
    rows.leave(light)
    return sample


def _sample(rows: PoseRows, light: np.ndarray) -> _Sample | None:
    """Rows drawn from ``light`` at equal distances of mass, or None where these hold next to nothing."""
    if len(light) < _SAMPLED:
        return None
    logs = rows.log_mass[light]
    whole = float(np.logaddexp.reduce(logs))
    if not whole > rows.total + np.log(_NEGLIGIBLE):
        return None
    order = np.argsort(-logs, kind="stable")
    held = np.cumsum(np.exp(logs[order] - whole))
    place = np.searchsorted(held / held[-1], (np.arange(_SAMPLED) + 0.5) / _SAMPLED)
    drawn, times = np.unique(light[order[np.minimum(place, len(light) - 1)]], return_counts=True)
    if len(drawn) < _SAMPLED // 2:  # a few rows hold it: their own slope says nothing of the others
        return None
    log_prior = rows.log_prior[drawn] - rows.log_mass[drawn]
    own = replace(
        rows, view=rows.view[drawn], origin=rows.origin[drawn], log_prior=log_prior, log_mass=np.zeros(len(drawn)),
        mean_log=rows.mean_log[drawn],
    )  # fmt: skip
    return _Sample(own, own.view, own.origin, times, whole)


def _divide(
    images: PolarImages,
    i: int,
    rows: PoseRows,
    parents: np.ndarray,
    templates: Templates,
    grid: RowGrid,
    below: RowGrid,
    band: Band,
    fine: FineViews,
    prior: ScalePrior,
    confinement: Confinement | None,
) -> LastRows:
    """Replace rows by the sixteen that each is divided into (by four where there is a single shift)."""
    quarter = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) / 4 * grid.step
    shifts = quarter if any(grid.step) else np.zeros((1, 2))
    origin = (rows.origin[:, None, None] + shifts[None, None]).repeat(4, axis=1).reshape(-1, 2)
    child = np.repeat(4 * rows.view[:, None] + np.arange(4), len(shifts), axis=1).ravel()
    place = 4 * np.searchsorted(parents, child // 4) + child % 4
    turns = below.n_inplane / grid.n_inplane
    log_prior = np.repeat(rows.log_prior - np.log(4 * len(shifts) * turns), 4 * len(shifts))
    origins, where = _unique_origins(origin)
    image = images.take(slice(i, i + 1))
    table = fine.table(below.division)
    at_zero = matrix_from_euler(table.rot_deg[child], table.tilt_deg[child], 0.0)
    allowed = None
    if confinement is not None:
        zero = {int(p): a for p, a in zip(place, at_zero)}

        def allowed(_: int, views: np.ndarray) -> np.ndarray:
            return confinement.inplane(i, np.array([zero[int(v)] for v in views]), below.n_inplane)

        # The prior is uniform over the allowed angles, whose number changes with their spacing.
        log_prior += np.log(turns) + np.log(_count(confinement, i, rows, grid, fine)).repeat(4 * len(shifts))
        log_prior -= np.log(confinement.inplane(i, at_zero, below.n_inplane).sum(axis=1))
    scorer = RowScorer(image, MovedImages(image, band, origins), band, templates, prior, below.n_inplane, allowed)
    found = scorer.sums(0, where, place)
    ids = (4 * parents[:, None] + np.arange(4)).ravel()
    width = len(ids)
    order = np.argsort(where * width + place)
    row = order[np.searchsorted((where * width + place)[order], found.origin * width + found.view)]
    rows.view, rows.origin, rows.log_prior = child[row], origin[row], log_prior[row]
    rows.log_mass, rows.mean_log = found.log_mass + rows.log_prior, found.mean_log
    rows.scored += len(row)
    top = int(found.peak.argmax())
    if found.peak[top] > rows.best:
        view = child[row[top]]
        psi = 360.0 * found.angle / below.n_inplane
        rows.best, rows.best_origin = float(found.peak[top]), origin[row[top]]
        rows.best_rotation = matrix_from_euler(table.rot_deg[view], table.tilt_deg[view], psi)
        rows.scale, rows.power = found.scale, float(found.power.mean())
    return LastRows(scorer, 0, found.origin, found.view, at_zero[row])


def _count(confinement: Confinement, i: int, rows: PoseRows, grid: RowGrid, fine: FineViews) -> np.ndarray:
    table = fine.table(grid.division)
    at_zero = matrix_from_euler(table.rot_deg[rows.view], table.tilt_deg[rows.view], 0.0)
    return confinement.inplane(i, at_zero, grid.n_inplane).sum(axis=1)


def _unique_origins(origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct origins (to 1e-6 Å) and the index of each row's."""
    _, first, where = np.unique(np.round(origins * 1e6).astype(np.int64), axis=0, return_index=True, return_inverse=True)
    return origins[first], where.ravel()
