"""Every view, in-plane angle and shift of a grid, in one streaming pass with bounded memory.

For a block of images, shifts and views all inner products come from `correlate`. The best pose is kept, the mass of all
poses is summed in float64, and the rows (a view and a shift) that hold most of it are named; see `row_sums` for what is left
out and how it is measured.
On a GPU `fused_kernel` does all of this but the last sums without writing the inner products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, correlate_parts, shift_factors, shifted_rows
from .fused_kernel import FusedScorer, FusedScores, uses_kernel
from .likelihood import ScalePrior
from .optima import Optima
from .polar_grid import PolarGrid
from .polar_images import PolarImages
from .radial_basis import RadialBasis
from .row_sums import SURE, pick_rows, sampling_interval, sum_rows
from .scoring import GridEvidence, TemplateTerms, evidence_of
from .shifts import ShiftGrid

__all__ = ["BlockSizes", "GridScores", "search_grid"]

_NOTHING = 1e-3
_NOTICED = 1e-7  # share of the mass from which on a row is named
_ROWS, _POSES = 112, 8_000_000  # rows of images x shifts, and poses, at a time
_GPU_ROWS, _GPU_ITEMS = 2048, 1 << 22  # the same, of the kernel: fewer would leave a GPU idle


@dataclass(frozen=True)
class BlockSizes:
    """How many images and views are compared at a time; None: as many as the cache holds."""

    images: int | None = None
    views: int | None = None

    def fit(self, shifts: int, n_inplane: int, fused: bool = False) -> tuple[int, int, int]:
        """Images, shifts and views of a block for numbers of shifts and angles; ``fused``: for the kernel on a GPU."""
        rows, items = (_GPU_ROWS, _GPU_ITEMS) if fused else (_ROWS, _POSES // n_inplane)
        images = self.images or max(1, min(rows if fused else 64, rows // shifts))
        some = min(shifts, max(1, rows // images))
        return images, some, self.views or max(16, items // (images * some))


@dataclass
class GridScores:
    """Scores of images against one structure on a grid; logs are natural and relative to the null model.

    Attributes
    ----------
    best : float64 [m]
        Largest log-ratio.
    view, shift, inplane : int64 [m]
        Where it is.
    scale : float64 [m]
        Posterior mean of the scale there.
    reference : float64 [m]
        The sums below are relative to ``exp(reference)``.
    mass : float64 [m]
        ``Σ prior · evidence/null`` over all poses, prior normalised over the whole grid.
    moment : float64 [m]
        The same sum with every term times its log-ratio.
    power : float64 [m]
        Mean <T,T>.
    heavy : list of dict
        For each image the rows that hold most: ``row`` (shift · V + view, int64), ``log_mass`` and ``mean_log`` (float64).
    optima : Optima or None
    """

    best: Tensor
    view: Tensor
    shift: Tensor
    inplane: Tensor
    scale: Tensor
    reference: Tensor
    mass: Tensor
    moment: Tensor
    power: Tensor
    heavy: list[dict[str, np.ndarray]]
    optima: Optima | None = None

    @classmethod
    def empty(cls, images: int, device, optima: Optima | None = None) -> GridScores:
        zeros = torch.zeros(images, dtype=torch.float64, device=device)
        lowest = torch.full_like(zeros, float("-inf"))
        position = torch.zeros(images, dtype=torch.int64, device=device)
        places = (position, position.clone(), position.clone())
        sums = (zeros, lowest.clone(), zeros.clone(), zeros.clone(), zeros.clone())
        return cls(lowest, *places, *sums, [{} for _ in range(images)], optima)

    @property
    def integrated(self) -> Tensor:
        """ln of the whole sum, float64 [m]."""
        return torch.log(self.mass) + self.reference

    @property
    def mean_log(self) -> Tensor:
        """Posterior mean of the log-ratio, float64 [m]."""
        return self.moment / self.mass


def search_grid(
    images: PolarImages,
    templates: Templates,
    view_weights: np.ndarray,
    shifts: ShiftGrid,
    n_inplane: int,
    prior: ScalePrior,
    grid: PolarGrid,
    basis: RadialBasis,
    blocks: BlockSizes = BlockSizes(),
    screen: bool = True,
    optima: Optima | None = None,
    most_heavy: int = 4096,
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
    basis : RadialBasis
        Of the templates.
    blocks : BlockSizes
    screen : bool
        Sum only a part of the rows that cannot matter; off, every row is summed (the plain path).
    optima : Optima, optional
        Collects best values by view, shift or rotation.
    most_heavy : int
        Rows to name for each image.
    tick : callable, optional
        Called with the number of images of each finished block.
    """
    device = images.matched.device
    result = GridScores.empty(len(images), device, optima)
    size = len(shifts) * len(templates)
    log_prior = torch.log(torch.as_tensor(view_weights, dtype=torch.float64, device=device))
    log_prior -= float(np.log(len(shifts) * n_inplane))
    interval = sampling_interval(len(templates) * len(shifts)) if screen else 0
    scorer = None
    if optima is None and uses_kernel(device, templates.rows.dtype):
        scorer = FusedScorer(templates.rows, basis, n_inplane)
    per_image, per_shift, per_view = blocks.fit(len(shifts), n_inplane, scorer is not None)
    factors = shift_factors(grid, shifts.origins, images.matched.real.dtype, device)
    for start in range(0, len(images), per_image):
        some = images.take(slice(start, start + per_image))
        heavy: list[tuple[Tensor, ...]] = []
        terms = TemplateTerms.of(some, templates)
        rows = torch.cat([
            shifted_rows(some.matched[:, None], factors[o : o + per_shift], basis).unflatten(0, (len(some), -1))
            for o in range(0, len(shifts), per_shift)
        ], dim=1)  # fmt: skip
        for first in range(0, len(templates), per_view):
            views = slice(first, first + per_view)
            part = templates.take(views)
            scores = evidence_of(some, terms.views(views), prior, n_inplane)
            for offset in range(0, len(shifts), per_shift):
                own = rows[:, offset : offset + per_shift]
                corner = start, offset, first
                if scorer is not None:
                    fused = scorer(own.flatten(0, 1), scores, views)
                    found = _absorb_fused(result, corner, fused, own.shape[1], scores, log_prior[views], size)
                else:
                    products = _Products(scores)
                    for place, b in correlate_parts(own.flatten(0, 1), part.rows, basis, n_inplane):
                        b = b.unflatten(0, own.shape[:2])
                        if optima is not None:
                            optima.update(start, offset, first + place.start, b, scores.take((slice(None), place)), some)
                        products.add(place, b)
                    found = _absorb(result, corner, products, scores, log_prior[views], interval, size)
                heavy.append(_heavy(result, corner, *found, len(templates)))
        _keep_heavy(result, start, len(some), heavy, most_heavy)
        if tick is not None:
            tick(len(some))
    return result


class _Products:
    """Inner products of a block, effective ones where <T,T> depends on the angle, in parts of its views.

    Parameters
    ----------
    scores : GridEvidence
        Of the block's images and views.
    """

    def __init__(self, scores: GridEvidence) -> None:
        self._known = scores.take((slice(None), None))  # [m, 1, v, …]
        self._places: list[slice] = []
        self._parts: list[Tensor] = []
        self._highest: list[Tensor] = []

    def add(self, place: slice, b: Tensor) -> None:
        """Raw inner products [m, o, v, g] of the next views."""
        known = self._known.take((slice(None), slice(None), place))
        if known.turn is not None:
            b = known.effective(b)
        highest = b.amax(dim=3, keepdim=True)
        self._highest.append(highest if known.turn is not None else highest - known.offset)
        self._places.append(place)
        self._parts.append(b)

    @property
    def n_inplane(self) -> int:
        """In-plane angles of a row."""
        return self._parts[0].shape[-1]

    def highest(self) -> tuple[Tensor, Tensor]:
        """The largest of every row [m, o, v], without offset, and the log-ratio there."""
        best = torch.cat(self._highest, dim=2)
        return best[..., 0], self._known.evidence.log_ratio(best)[..., 0]

    def rows(self, image: Tensor, shift: Tensor, view: Tensor) -> Tensor:
        """Rows [r, g], without offset where it is the same at every angle."""
        if len(self._parts) == 1:
            found = self._parts[0][image, shift, view]
        else:
            found = self._parts[0].new_empty(len(image), self._parts[0].shape[-1])
            for place, part in zip(self._places, self._parts):
                own = torch.nonzero((view >= place.start) & (view < place.stop))[:, 0]
                found[own] = part[image[own], shift[own], view[own] - place.start]
        return found if self._known.turn is not None else found - self._known.offset[image, 0, view]


def _absorb(
    result: GridScores,
    corner: tuple[int, int, int],
    products: _Products,
    scores: GridEvidence,
    log_prior: Tensor,
    interval: int,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Fold one block of inner products, whose first image, shift and view are given, into the result.

    Returns masses (relative to the reference) and moments of its rows, float64 [m, o, v].
    """
    highest, peak = products.highest()
    m, o, v = peak.shape
    rows = slice(corner[0], corner[0] + m)

    def inplane_of(image: Tensor, row: Tensor) -> Tensor:
        return products.rows(image, row // v, row % v).argmax(dim=1)

    _keep_best(result, corner, peak, highest, inplane_of, scores)
    result.power[rows] += scores.power.mean(dim=2).sum(dim=1).double() * (o / size)
    reference = result.reference[rows]
    weighted = torch.exp((peak - reference.to(peak)[:, None, None] + log_prior.to(peak)).clamp_min_(-80.0))
    known_mass = torch.maximum(result.mass[rows], weighted.flatten(1).double().sum(dim=1))
    # A row holds at most g times its best pose; those with less than exp(-SURE) / sqrt(N) of the mass add little noise.
    g = products.n_inplane
    threshold = known_mass * float(np.exp(-SURE) / (g * np.sqrt(size)))
    chosen, matters = pick_rows(weighted, threshold.to(peak)[:, None, None], interval)
    if interval > 0:  # rows that hold less than `_NOTHING` of the mass together are not even sampled
        chosen &= weighted > (known_mass * float(_NOTHING / (g * size))).to(peak)[:, None, None]
    im, io, iv = torch.nonzero(chosen, as_tuple=True)
    own = scores.take((im, iv))
    values = products.rows(im, io, iv)
    sums = sum_rows(values, own.evidence, reference.to(values)[im], own.turn)
    prior = torch.exp(log_prior)[iv]
    mass = torch.zeros(peak.shape, dtype=torch.float64, device=peak.device)
    moment = torch.zeros_like(mass)
    mass[im, io, iv] = sums.mass * prior
    moment[im, io, iv] = sums.first_moment * prior
    if interval > 0:
        mass, moment = _filled(mass, moment, weighted.double(), peak.double(), chosen, chosen & ~matters)
    result.mass[rows] += mass.sum(dim=(1, 2))
    result.moment[rows] += moment.sum(dim=(1, 2))
    return mass, moment


def _absorb_fused(
    result: GridScores,
    corner: tuple[int, int, int],
    fused: FusedScores,
    shifts: int,
    scores: GridEvidence,
    log_prior: Tensor,
    size: int,
) -> tuple[Tensor, Tensor]:
    """The same as `_absorb` for rows (image, shift) and views that the kernel has summed, every one of them."""
    shape = len(scores.offset), shifts
    best, inplane, log_mass, mean_log = (
        getattr(fused, name).unflatten(0, shape) for name in ("best", "inplane", "log_mass", "mean_log")
    )
    rows = slice(corner[0], corner[0] + shape[0])
    known = scores.take((slice(None), None))
    peak = known.evidence.log_ratio(best[..., None])[..., 0]
    _keep_best(result, corner, peak, best, lambda image, row: inplane.flatten(1)[image, row].long(), scores)
    result.power[rows] += scores.power.mean(dim=2).sum(dim=1).double() * (shifts / size)
    mass = torch.exp(log_mass.double() - result.reference[rows][:, None, None] + log_prior)
    moment = mass * mean_log.double()
    result.mass[rows] += mass.sum(dim=(1, 2))
    result.moment[rows] += moment.sum(dim=(1, 2))
    return mass, moment


def _keep_best(
    result: GridScores,
    corner: tuple[int, int, int],
    peak: Tensor,
    highest: Tensor,
    inplane_of: Callable[[Tensor, Tensor], Tensor],
    scores: GridEvidence,
) -> None:
    """Take over better poses of a block, and raise the reference to them.

    Parameters
    ----------
    peak, highest : Tensor [m, o, v]
        Largest log-ratio over in-plane angles, and the (effective) b that has it.
    inplane_of : callable
        In-plane angle [m] of it in row ``row[m]`` (shift · v + view) of image ``image[m]``.
    """
    m, _, v = peak.shape
    rows = slice(corner[0], corner[0] + m)
    top, row = peak.flatten(1).max(dim=1)
    better = top.double() > result.best[rows]
    if bool(better.any()):
        image = torch.arange(m, device=row.device)
        scale = scores.evidence.expand((image, row % v)).scale(highest.flatten(1)[image, row][:, None])[:, 0]
        for target, value in (
            (result.best, top.double()),
            (result.view, row % v + corner[2]),
            (result.shift, row // v + corner[1]),
            (result.inplane, inplane_of(image, row)),
            (result.scale, scale.double()),
        ):
            target[rows] = torch.where(better, value, target[rows])
    _raise_reference(result, rows, torch.maximum(result.reference[rows], top.double()))


def _filled(
    mass: Tensor, moment: Tensor, weighted: Tensor, peak: Tensor, chosen: Tensor, sample: Tensor
) -> tuple[Tensor, Tensor]:
    """Masses and moments [m, o, v] with those of rows not chosen put in proportion to their best poses, as in the sample."""
    none = weighted.new_zeros(())

    def of_sample(values: Tensor) -> Tensor:
        return torch.where(sample, values, none).sum(dim=(1, 2), keepdim=True)

    total = of_sample(mass)
    guess = weighted * (total / of_sample(weighted).clamp_min(1e-300))
    below = of_sample(moment - mass * peak) / total.clamp_min(1e-300)
    return torch.where(chosen, mass, guess), torch.where(chosen, moment, guess * (peak + below))


def _raise_reference(result: GridScores, rows: slice, reference: Tensor) -> None:
    """Express the running sums relative to a higher reference."""
    old = result.reference[rows]
    if torch.equal(old, reference):
        return
    factor = torch.exp(torch.where(old == float("-inf"), old, old - reference))
    result.mass[rows] *= factor
    result.moment[rows] *= factor
    result.reference[rows] = reference


def _heavy(
    result: GridScores, corner: tuple[int, int, int], mass: Tensor, moment: Tensor, n_views: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of a block that hold more than `_NOTICED` of what is known: image, row, ln mass and mean log-ratio."""
    known = result.mass[corner[0] : corner[0] + len(mass), None, None]
    image, shift, view = torch.nonzero(mass > _NOTICED * known, as_tuple=True)
    own = mass[image, shift, view]
    row = (shift + corner[1]) * n_views + view + corner[2]
    return image, row, torch.log(own) + result.reference[corner[0] + image], moment[image, shift, view] / own


def _keep_heavy(result: GridScores, start: int, count: int, blocks: list[tuple[Tensor, ...]], most: int) -> None:
    """Name the heaviest rows of each image of a block."""
    image, row, log_mass, mean_log = (torch.cat(parts).cpu().numpy() for parts in zip(*blocks))
    order = np.lexsort((-log_mass, image))
    bounds = np.searchsorted(image[order], np.arange(count + 1))
    for i in range(count):
        own = order[bounds[i] : min(bounds[i + 1], bounds[i] + most)]
        result.heavy[start + i] = {"row": row[own], "log_mass": log_mass[own], "mean_log": mean_log[own]}
