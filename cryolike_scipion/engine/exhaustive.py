"""Every view, in-plane angle and shift of a grid, in one streaming pass with bounded memory.

For a block of images and a block of views all inner products come from `correlate`. The best pose is kept, and the
masses of every view and of every shift are summed in float64; see `row_sums` for what is left out and how it is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, correlate, image_orders
from .likelihood import ScalePrior
from .optima import Optima
from .polar_grid import PolarGrid
from .polar_images import PolarImages
from .row_sums import SURE, pick_rows, sum_rows
from .scoring import GridEvidence, grid_evidence
from .shifts import ShiftGrid

__all__ = ["BlockSizes", "GridScores", "search_grid"]


@dataclass(frozen=True)
class BlockSizes:
    """How many images and views are compared at a time."""

    images: int = 8
    views: int = 128


@dataclass
class GridScores:
    """Scores of images against one structure on a grid; logs are natural and relative to the null model.

    Attributes
    ----------
    best : float64 [m]
        Largest log-likelihood ratio, with <T,T> averaged over in-plane angles (it differs where the CTF is astigmatic).
    view, shift, inplane : int64 [m]
        Where it is.
    reference : float64 [m]
        The sums below are relative to ``exp(reference)``.
    view_mass : float64 [m, v]
        ``Σ_{o,g} prior · evidence/null`` of each view, prior normalised over the whole grid.
    view_moment : float64 [m, v]
        The same sum with every term times its log-ratio.
    shift_mass : float64 [m, o]
        The mass by shift.
    optima : Optima or None
    """

    best: Tensor
    view: Tensor
    shift: Tensor
    inplane: Tensor
    reference: Tensor
    view_mass: Tensor
    view_moment: Tensor
    shift_mass: Tensor
    optima: Optima | None = None

    @classmethod
    def empty(cls, images: int, views: int, shifts: int, device, optima: Optima | None = None) -> GridScores:
        lowest = torch.full((images,), float("-inf"), dtype=torch.float64, device=device)
        position = torch.zeros(images, dtype=torch.int64, device=device)
        by_view = torch.zeros(images, views, dtype=torch.float64, device=device)
        by_shift = torch.zeros(images, shifts, dtype=torch.float64, device=device)
        return cls(
            lowest, position, position.clone(), position.clone(), lowest.clone(), by_view, by_view.clone(), by_shift, optima
        )

    @property
    def log_mass(self) -> Tensor:
        """ln of the mass of each view, float64 [m, v]; -inf where no row was summed."""
        return torch.log(self.view_mass) + self.reference[:, None]

    @property
    def mean_log(self) -> Tensor:
        """Posterior mean of the log-ratio inside each view, float64 [m, v]; 0 where no row was summed."""
        return torch.where(self.view_mass > 0, self.view_moment / self.view_mass, self.view_mass.new_zeros(()))

    @property
    def shift_log_mass(self) -> Tensor:
        """ln of the mass of each shift, float64 [m, o]."""
        return torch.log(self.shift_mass) + self.reference[:, None]

    @property
    def integrated(self) -> Tensor:
        """ln of the whole sum, float64 [m]."""
        return torch.log(self.view_mass.sum(dim=1)) + self.reference


def search_grid(
    images: PolarImages,
    templates: Templates,
    view_weights: np.ndarray,
    shifts: ShiftGrid,
    n_inplane: int,
    prior: ScalePrior,
    grid: PolarGrid,
    blocks: BlockSizes = BlockSizes(),
    screen: bool = True,
    optima: Optima | None = None,
    tick: Callable[[int], None] | None = None,
) -> GridScores:
    """Score every pose of the grid.

    Parameters
    ----------
    images : PolarImages
    templates : Templates
        One structure, all views.
    view_weights : float64 [v]
        Prior of the views; sums to 1.
    shifts : ShiftGrid
    n_inplane : int
        Number of in-plane angles.
    prior : ScalePrior
    grid : PolarGrid
    blocks : BlockSizes
    screen : bool
        Sum only a sample of the rows that cannot matter; off, every row is summed (the plain path).
    optima : Optima, optional
        Collects best values by view, shift or rotation.
    tick : callable, optional
        Called with the number of images of each finished block.
    """
    device = images.matched.device
    result = GridScores.empty(len(images), len(templates), len(shifts), device, optima)
    log_weights = torch.log(torch.as_tensor(view_weights, dtype=torch.float64, device=device))
    for start in range(0, len(images), blocks.images):
        rows = slice(start, min(start + blocks.images, len(images)))
        some = images.take(rows)
        orders = image_orders(some.matched, grid, shifts.origins, templates.orders.shape[1])
        for first in range(0, len(templates), blocks.views):
            views = slice(first, min(first + blocks.views, len(templates)))
            part = templates.take(views)
            b = correlate(orders, part.orders, n_inplane)
            b = b.view(len(some), len(shifts), len(part), n_inplane)
            scores = grid_evidence(some, part, prior, n_inplane)
            if optima is not None:
                optima.update(start, first, b, scores, some)
            _absorb(result, rows, first, b, scores, log_weights[views], screen)
        if tick is not None:
            tick(len(some))
    return result


def _absorb(
    result: GridScores, rows: slice, first: int, b: Tensor, scores: GridEvidence, log_weights: Tensor, screen: bool
) -> None:
    """Fold one block of raw inner products [m, o, v, g] into the result."""
    _, o, _, g = b.shape
    highest = b.amax(dim=3) - scores.offset.transpose(1, 2)
    # Where <T,T> does not depend on psi the score rises with b: its maximum over psi is at the largest b.
    peak = scores.mean_evidence.log_ratio(highest.transpose(1, 2)).transpose(1, 2)
    _absorb_best(result, rows, first, peak, b)
    log_prior = log_weights - float(np.log(o * g))
    weighted = peak + log_prior.to(peak)
    known = torch.log(result.view_mass[rows].sum(dim=1)) + result.reference[rows]
    known = torch.maximum(known, torch.logsumexp(weighted.flatten(1).double(), dim=1)).to(peak)
    # A row of N holds at most exp(peak)/N, so that sampling those below sqrt(N) exp(known - SURE) adds little noise.
    threshold = known + 0.5 * float(np.log(o * result.view_mass.shape[1])) - SURE
    (mi, oi, vi), stands_for = pick_rows(peak, threshold[:, None, None], screen)
    reference = torch.maximum(result.reference[rows], peak.flatten(1).amax(dim=1).double())
    _raise_reference(result, rows, reference)
    batch = max(1, 2**23 // g)
    for begin in range(0, len(mi), batch):
        part = slice(begin, begin + batch)
        im, io, iv = mi[part], oi[part], vi[part]
        values = b[im, io, iv] - scores.offset[im, iv]
        sums, _ = sum_rows(values, scores.evidence.expand((im, iv)), reference[im].to(values))
        mass = sums.mass * stands_for[part] * torch.exp(log_prior[iv])
        moment = sums.first_moment * stands_for[part] * torch.exp(log_prior[iv])
        result.view_mass.view(-1).index_add_(0, (im + rows.start) * result.view_mass.shape[1] + iv + first, mass)
        result.view_moment.view(-1).index_add_(0, (im + rows.start) * result.view_mass.shape[1] + iv + first, moment)
        result.shift_mass.view(-1).index_add_(0, (im + rows.start) * o + io, mass)


def _raise_reference(result: GridScores, rows: slice, reference: Tensor) -> None:
    """Express the running sums relative to a higher reference."""
    old = result.reference[rows]
    factor = torch.exp(torch.where(old == float("-inf"), old, old - reference))[:, None]
    for sums in (result.view_mass, result.view_moment, result.shift_mass):
        sums[rows] *= factor
    result.reference[rows] = reference


def _absorb_best(result: GridScores, rows: slice, first: int, peak: Tensor, b: Tensor) -> None:
    """Keep the best pose of every image of a block of row maxima [m, o, v] of b [m, o, v, g]."""
    views = peak.shape[2]
    top, row = peak.flatten(1).max(dim=1)
    better = top.double() > result.best[rows]
    inplane = b.flatten(1, 2)[torch.arange(len(row), device=row.device), row].argmax(dim=1)
    for target, value in (
        (result.best, top.double()),
        (result.view, row % views + first),
        (result.shift, row // views),
        (result.inplane, inplane),
    ):
        target[rows] = torch.where(better, value, target[rows])
