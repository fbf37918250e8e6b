"""Finer sampling where the mass is: cells of the pose grid are divided until the integral has converged.

In-plane angles come from an FFT, so all of them are always there. For each image the views and shifts that hold nearly all
the mass are divided in four, and the cells of (chosen views) x (chosen shifts) are scored anew. The rest keeps the mass of the
coarser level, so the sum over all levels is one quadrature rule for the whole integral.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, correlate, image_orders
from .likelihood import ScalePrior
from .polar_grid import PolarGrid, fft_friendly
from .polar_images import PolarImages
from .pose_cells import Cells, Confinement, Division, choose_cells
from .pose_mass import PoseWindow, pose_mass
from .rotations import matrix_from_euler
from .row_sums import SURE, pick_rows, sum_rows
from .scoring import grid_evidence
from .shifts import ShiftGrid, subdivide
from .template_bank import TemplateBank
from .views import ViewTable, children

__all__ = ["Integral", "PoseSamples", "integrate"]


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
        ln(evidence/null) there, the largest of the finest grid.
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


def integrate(
    images: PolarImages,
    cells: list[Cells],
    table: ViewTable,
    shifts: ShiftGrid,
    n_inplane: int,
    bank: TemplateBank,
    prior: ScalePrior,
    grid: PolarGrid,
    near: PoseWindow,
    division: Division,
    confinement: Confinement | None = None,
    keep_samples: int = 0,
    max_bytes: float = 1e9,
    tick: Callable[[int], None] | None = None,
) -> Integral:
    """Integrate the likelihood over poses by dividing cells.

    Parameters
    ----------
    images : PolarImages
    cells : list of Cells
        From `cells_of_grid` or `cells_around`.
    table, shifts, n_inplane
        The grid that the cells are of.
    bank : TemplateBank
        Makes the templates of the finer views.
    prior, grid
    near : PoseWindow
        What counts as near the best pose.
    division : Division
    confinement : Confinement, optional
        Of a local search; its cells have no scores yet, so they are scored once before they are divided.
    keep_samples : int
        Number of heaviest poses to return per image.
    max_bytes : float
        Memory for the finer templates; images are worked on in groups that need no more.
    tick : callable, optional
        Called with 1 when an image has been scored once.
    """
    work = _Work(_empty(len(images), keep_samples > 0), images, bank, prior, grid, near, confinement, keep_samples)
    step, inplane, level_table, n_shifts = shifts.step, n_inplane, table, len(shifts)
    # Where cells have no scores, or none is to be divided, they are scored as they are.
    passes = [False] * (confinement is not None or division.levels == 0) + [True] * division.levels
    for number, divide in enumerate(passes):
        active = [i for i, c in enumerate(cells) if not c.done]
        if not active:
            break
        split_shifts = divide and len(shifts) > 1
        # A local search scores all its cells first; else only what holds the mass is looked at again.
        chosen_by = None if confinement is not None and not divide else division
        picks = {i: choose_cells(cells[i], chosen_by, divide) for i in active}
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
                position = torch.from_numpy(np.searchsorted(union, views)).to(templates.orders.device)
                log_prior = np.log(next_table.weights[views]) - np.log(n_shifts)
                work.score(cells[i], i, templates.take(position), next_table, views, origins, inplane, log_prior)
                if tick is not None and number == 0:
                    tick(1)
                cells[i].done = divide and abs(cells[i].change) < division.tolerance
        if split_shifts:
            step = (step[0] / 2, step[1] / 2)
        level_table = next_table
    for i, c in enumerate(cells):
        work.result.log[i], work.result.change[i] = c.total, c.change
        parts = np.append(c.view_log_mass, c.left_log_mass)
        means = np.append(c.view_mean_log, c.left_mean_log)
        work.result.mean_log[i] = np.sum(np.exp(parts - c.total) * means)
    return work.result


def _empty(count: int, samples: bool) -> Integral:
    zeros = np.zeros(count)
    return Integral(
        zeros.copy(),
        zeros.copy(),
        zeros.copy(),
        zeros.copy(),
        np.zeros((count, 3, 3)),
        np.zeros((count, 2)),
        np.full(count, -np.inf),
        [PoseSamples(zeros, zeros, zeros)] * count if samples else None,
    )


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


@dataclass
class _Work:
    """What all images of one `integrate` share."""

    result: Integral
    images: PolarImages
    bank: TemplateBank
    prior: ScalePrior
    grid: PolarGrid
    near: PoseWindow
    confinement: Confinement | None
    keep_samples: int

    def score(
        self,
        cells: Cells,
        i: int,
        templates: Templates,
        table: ViewTable,
        views: np.ndarray,
        origins: np.ndarray,
        inplane: int,
        log_prior: np.ndarray,
    ) -> None:
        """Score all poses of (views x origins x in-plane angles) for image i and take them over.

        ``log_prior`` [v] is that of a whole row (view and origin); in-plane angles share it.
        """
        image = self.images.take(slice(i, i + 1))
        orders = image_orders(image.matched, self.grid, origins, templates.orders.shape[1])
        known = grid_evidence(image, templates, self.prior, inplane)
        b = correlate(orders, templates.orders, inplane) - known.offset[0][None]  # [o, v, g]
        device = b.device
        at_zero = matrix_from_euler(table.rot_deg[views], table.tilt_deg[views], 0.0)
        if self.confinement is None:
            allowed = None
            log_prior = log_prior - np.log(inplane)
            highest = b.amax(dim=2)
        else:
            inside_range = self.confinement.inplane(i, at_zero, inplane)
            log_prior = log_prior - self.confinement.log_views[i] - np.log(inside_range.sum(axis=1))
            allowed = torch.from_numpy(inside_range).to(device)
            highest = b.masked_fill(~allowed, float("-inf")).amax(dim=2)
        peak = known.mean_evidence.expand((0, slice(None), 0)).log_ratio(highest)
        weighted = peak + torch.as_tensor(log_prior, dtype=peak.dtype, device=device)
        threshold = torch.logsumexp(weighted.flatten(), 0) - 0.5 * float(np.log(weighted.numel())) - SURE
        (oi, vi), stands_for = pick_rows(weighted, threshold, screen=True)
        reference = float(peak.max())
        chosen = b[oi, vi]
        sums, weights = sum_rows(
            chosen,
            known.evidence.expand(0).expand(vi),
            torch.full_like(highest[oi, vi], reference),
            None if allowed is None else allowed[vi],
        )
        weights, chosen = weights.cpu(), chosen.cpu()
        power = known.power[0, vi].cpu()
        vi, oi, stands_for = vi.cpu(), oi.cpu(), stands_for.cpu()
        row_prior = torch.exp(torch.as_tensor(log_prior)[vi] - float(log_prior.max()))
        scale = reference + float(log_prior.max())
        row_weight = stands_for * row_prior
        mass, moment = sums.mass.cpu() * row_weight, sums.first_moment.cpu() * row_weight
        self._take_over(cells, scale, mass, moment, vi, oi, views, origins)

        row, angle = np.unravel_index(int(weights.argmax()), tuple(weights.shape))
        view, origin = views[vi[row]], origins[oi[row]]
        rotation = matrix_from_euler(table.rot_deg[view], table.tilt_deg[view], 360.0 * angle / inplane)
        self.result.rotation[i], self.result.origin[i] = rotation, origin
        self.result.best[i] = reference + float(torch.log(weights[row, angle]))
        inside = pose_mass(
            weights * row_weight[:, None],
            at_zero,
            vi.numpy(),
            origins[oi.numpy()],
            self.bank.structure.symmetry,
            rotation,
            origin,
            self.near,
        )
        self.result.pose_mass[i] = inside * np.exp(scale - cells.total)
        if self.result.samples is not None:
            self.result.samples[i] = _samples(
                weights * row_prior[:, None], chosen, power, log_prior[vi.numpy()], self.keep_samples
            )

    @staticmethod
    def _take_over(
        cells: Cells,
        scale: float,
        mass: Tensor,
        moment: Tensor,
        vi: Tensor,
        oi: Tensor,
        views: np.ndarray,
        origins: np.ndarray,
    ) -> None:
        """Make the scored views and origins the image's cells; masses are relative to exp(scale)."""
        by_view = torch.zeros(len(views), dtype=torch.float64).index_add_(0, vi, mass)
        by_moment = torch.zeros(len(views), dtype=torch.float64).index_add_(0, vi, moment)
        by_origin = torch.zeros(len(origins), dtype=torch.float64).index_add_(0, oi, mass)
        with np.errstate(divide="ignore"):
            cells.view_log_mass = scale + np.log(by_view.numpy())
            cells.origin_log_mass = scale + np.log(by_origin.numpy())
        cells.view_mean_log = (by_moment / by_view.clamp_min(1e-300)).numpy()
        cells.views, cells.origins = views, origins
        total = float(np.logaddexp(cells.left_log_mass, scale + float(torch.log(by_view.sum()))))
        cells.change, cells.total = total - cells.total, total


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
