"""Finer sampling where the mass is: cells of the pose grid are divided until the integral has converged.

A cell is a view (a HEALPix cell or a patch of the tangent plane) times a shift (a square); in-plane angles come from an
FFT, so all of them are always there, twice as many at every level. For each image the views and shifts that hold nearly
all the mass are divided in four, and the cells of (chosen views) x (chosen shifts) are scored anew. The rest keeps the mass
of the coarser level. Cells tile the grid, so the sum over all levels is one quadrature rule for the whole integral.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, correlate, image_orders
from .exhaustive import GridScores
from .likelihood import ScalePrior
from .polar_grid import PolarGrid, fft_friendly
from .polar_images import PolarImages
from .pose_mass import PoseWindow, pose_mass
from .rotations import matrix_from_euler
from .row_sums import pick_rows, sum_rows
from .scoring import grid_evidence
from .shifts import ShiftGrid, subdivide
from .template_bank import TemplateBank
from .views import ViewTable, children

__all__ = ["Division", "Integral", "PoseSamples", "integrate"]


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


@dataclass(frozen=True)
class PoseSamples:
    """The heaviest poses of one image and structure, from which the scale prior is learned.

    ``log_prior`` [s], ``power`` [s] (a) and ``product`` [s] (b, offset removed), float64.
    """

    log_prior: np.ndarray
    power: np.ndarray
    product: np.ndarray


@dataclass
class Integral:
    """Integrated likelihoods of images under one structure; logs are relative to the null model.

    Attributes
    ----------
    log : float64 [m]
        ``ln Σ prior · evidence/null`` over all poses.
    mean_log : float64 [m]
        Posterior mean of the log-ratio; ``mean_log - log`` is the information gained over the prior, nat.
    change : float64 [m]
        Change of ``log`` by the last level: an estimate of its error.
    pose_mass : float64 [m]
        Posterior mass near the best pose.
    rotation : float64 [m, 3, 3]
        Best pose of the finest grid.
    origin : float64 [m, 2]
        Å.
    best : float64 [m]
        ln(evidence/null) there.
    samples : list of PoseSamples, or None
    """

    log: np.ndarray
    mean_log: np.ndarray
    change: np.ndarray
    pose_mass: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    best: np.ndarray
    samples: list[PoseSamples] | None = None


@dataclass
class _Cells:
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


def integrate(
    images: PolarImages,
    scores: GridScores,
    table: ViewTable,
    shifts: ShiftGrid,
    n_inplane: int,
    bank: TemplateBank,
    prior: ScalePrior,
    grid: PolarGrid,
    near: PoseWindow,
    division: Division = Division(),
    keep_samples: int = 0,
    max_bytes: float = 1e9,
) -> Integral:
    """Integrate the likelihood over poses, starting from the scores of a grid.

    Parameters
    ----------
    images, scores, table, shifts, n_inplane
        What `search_grid` was given and returned.
    bank : TemplateBank
        Makes the templates of the finer views.
    prior, grid
    near : PoseWindow
        What counts as near the best pose.
    division : Division
    keep_samples : int
        Number of heaviest poses to return per image.
    max_bytes : float
        Memory for the finer templates; images are worked on in groups that need no more.
    """
    cells = [_start(scores, i, shifts) for i in range(len(images))]
    result = _empty(len(images), keep_samples > 0)
    step, inplane, level_table = shifts.step, n_inplane, table
    n_shifts = len(shifts)
    for level in range(max(1, division.levels)):
        # Without levels the grid's own cells are scored once more, for the best pose and the mass around it.
        divide = division.levels > 0
        active = [i for i, c in enumerate(cells) if not c.done]
        if not active:
            break
        split_shifts = divide and len(shifts) > 1
        picks = {i: _choose_cells(cells[i], division, divide) for i in active}
        next_table = children(level_table, np.arange(len(level_table))) if divide else level_table
        if 360 / inplane > 1.6 * next_table.step_deg:
            inplane = fft_friendly(2 * inplane)
        n_shifts = n_shifts * 4 if split_shifts else n_shifts
        for group, union in _groups(active, picks, max_bytes / bank.bytes_per_view()):
            templates = bank.templates(next_table, union)
            for i in group:
                views, chosen = picks[i]
                origins = cells[i].origins[chosen]
                if split_shifts:
                    origins, _ = subdivide(origins, step)
                position = np.searchsorted(union, views)
                log_prior = np.log(next_table.weights[views]) - np.log(n_shifts * inplane)
                _score(
                    result, cells[i], i, images.take(slice(i, i + 1)), templates.take(torch.from_numpy(position)),
                    next_table, views, origins, inplane, log_prior, prior, grid, near, keep_samples,
                )
        if split_shifts:
            step = (step[0] / 2, step[1] / 2)
        level_table = next_table
        for i in active:
            cells[i].done = abs(cells[i].change) < division.tolerance
    for i, c in enumerate(cells):
        result.log[i], result.change[i] = c.total, c.change
        parts = np.append(c.view_log_mass, c.left_log_mass)
        means = np.append(c.view_mean_log, c.left_mean_log)
        result.mean_log[i] = np.sum(np.exp(parts - c.total) * means)
    return result


def _empty(count: int, samples: bool) -> Integral:
    zeros = np.zeros(count)
    return Integral(
        zeros.copy(), zeros.copy(), zeros.copy(), zeros.copy(), np.zeros((count, 3, 3)), np.zeros((count, 2)),
        np.full(count, -np.inf), [PoseSamples(zeros, zeros, zeros)] * count if samples else None,
    )


def _start(scores: GridScores, i: int, shifts: ShiftGrid) -> _Cells:
    mass = scores.log_mass[i].cpu().numpy()
    held = np.flatnonzero(np.isfinite(mass))
    return _Cells(
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


def _choose_cells(cells: _Cells, division: Division, divide: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pick views and shifts; what is not picked moves to the mass left behind. Returns view ids and shift indices."""
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
    if divide:
        chosen = (4 * chosen[:, None] + np.arange(4)).reshape(-1)
    return chosen, origins


def _groups(active: list[int], picks: dict, most: float):
    """Consecutive images whose views together fit in memory, with the union of their views."""
    group: list[int] = []
    union = np.zeros(0, dtype=np.int64)
    for i in active:
        joined = np.union1d(union, picks[i][0])
        if group and len(joined) > most:
            yield group, union
            group, joined = [], np.unique(picks[i][0])
        group.append(i)
        union = joined
    yield group, union


def _score(
    result: Integral, cells: _Cells, i: int, image: PolarImages, templates: Templates, table: ViewTable,
    views: np.ndarray, origins: np.ndarray, inplane: int, log_prior: np.ndarray, prior: ScalePrior, grid: PolarGrid,
    near: PoseWindow, keep_samples: int,
) -> None:
    """Score all poses of (views x origins x in-plane angles) for one image and take them over."""
    orders = image_orders(image.matched, grid, origins, templates.orders.shape[1])
    b = correlate(orders, templates.orders, inplane)  # [o, v, g]
    known = grid_evidence(image, templates, prior, inplane)
    highest, where = b.max(dim=2)
    peak = known.mean_evidence.expand((0, slice(None), 0)).log_ratio(highest - known.offset[0, :, 0])
    weighted = peak + torch.as_tensor(log_prior, dtype=peak.dtype)
    # Of the rows whose peak lies below a twentieth of the average row's only a sample is summed.
    threshold = torch.logsumexp(weighted.flatten(), 0) - float(np.log(20.0 * weighted.numel()))
    (oi, vi), stands_for = pick_rows(weighted, threshold, screen=True)
    reference = float(peak.max())
    sums, weights = sum_rows(
        b[oi, vi] - known.offset[0, vi], known.evidence.expand(0).expand(vi), torch.full_like(highest[oi, vi], reference)
    )
    row_prior = torch.exp(torch.as_tensor(log_prior)[vi] - float(log_prior.max()))
    scale = reference + float(log_prior.max())
    mass = sums.mass * stands_for * row_prior
    by_view = torch.zeros(len(views), dtype=torch.float64).index_add_(0, vi, mass)
    moment = torch.zeros(len(views), dtype=torch.float64).index_add_(0, vi, sums.first_moment * stands_for * row_prior)
    by_origin = torch.zeros(len(origins), dtype=torch.float64).index_add_(0, oi, mass)
    with np.errstate(divide="ignore"):
        cells.view_log_mass = scale + np.log(by_view.numpy())
        cells.origin_log_mass = scale + np.log(by_origin.numpy())
    cells.view_mean_log = (moment / by_view.clamp_min(1e-300)).numpy()
    cells.views, cells.origins = views, origins
    total = float(np.logaddexp(cells.left_log_mass, scale + float(torch.log(by_view.sum()))))
    cells.change, cells.total = total - cells.total, total

    o, v = np.unravel_index(int(peak.argmax()), tuple(peak.shape))
    rotation = matrix_from_euler(table.rot_deg[views[v]], table.tilt_deg[views[v]], 360.0 * int(where[o, v]) / inplane)
    result.rotation[i], result.origin[i], result.best[i] = rotation, origins[o], reference
    at_zero = matrix_from_euler(table.rot_deg[views], table.tilt_deg[views], 0.0)
    inside = pose_mass(
        weights * (stands_for * row_prior)[:, None], at_zero, vi.numpy(), origins[oi.numpy()], table.symmetry, rotation,
        origins[o], near,
    )
    result.pose_mass[i] = inside * np.exp(scale - total)
    if keep_samples and result.samples is not None:
        result.samples[i] = _samples(weights * row_prior[:, None], b[oi, vi] - known.offset[0, vi], known.power[0, vi],
                                     log_prior[vi.numpy()], keep_samples)


def _samples(weights: Tensor, b: Tensor, power: Tensor, log_prior: np.ndarray, count: int) -> PoseSamples:
    """The heaviest poses among rows: weights and b [r, g], power [r, 1 or g], log_prior [r]."""
    flat = weights.flatten()
    index = torch.topk(flat, min(count, flat.numel())).indices
    row, inplane = index // b.shape[1], index % b.shape[1]
    return PoseSamples(
        log_prior=log_prior[row.numpy()],
        power=power[row, inplane if power.shape[1] > 1 else torch.zeros_like(inplane)].double().numpy(),
        product=b.flatten()[index].double().numpy(),
    )
