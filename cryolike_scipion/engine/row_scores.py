"""Scores of chosen rows (image, origin, view), as lists or as dense blocks, whichever is less work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .bands import Band
from .correlation import ShiftFactors, Templates, correlate_pairs, correlate_parts, shifted_rows
from .likelihood import ScalePrior
from .polar_images import PolarImages
from .row_blocks import RowBlock, distinct, row_blocks
from .row_sums import sum_rows
from .scoring import GridEvidence, TemplateTerms, astigmatic, evidence_of

__all__ = ["MovedImages", "Peaks", "RowScorer", "Sums"]

_PAIRS_AT_ONCE, _ROWS_AT_ONCE, _MOVED_AT_ONCE = 192, 112, 8
_POSES_AT_ONCE = 1_600_000  # rows times in-plane angles that are summed together
# Of a block of rows, over that of one multiplication for a coefficient, and of an in-plane angle over the same.
_BLOCK_COST, _ANGLE_COST = 4e5, 10.0

Allowed = Callable[[int, np.ndarray], np.ndarray]
Rows = tuple[Tensor, np.ndarray, np.ndarray]  # inner products [r, g], origins and views [r]
# Inner products [n, g]; which of the rows were asked for, int64 [r], None: all; their origins and views [r].
Products = tuple[Tensor, "np.ndarray | None", np.ndarray, np.ndarray]


@dataclass
class Peaks:
    """Rows scored by their best pose.

    Attributes
    ----------
    origin, view : int64 [r]
    peak : float64 [r]
        Largest log-ratio over in-plane angles, with <T,T> averaged over them.
    power : float64 [r]
        <T,T>, mean over in-plane angles.
    scale : float
        Posterior mean of the scale at the best row.
    """

    origin: np.ndarray
    view: np.ndarray
    peak: np.ndarray
    power: np.ndarray
    scale: float


@dataclass
class Sums(Peaks):
    """Rows summed over in-plane angles.

    Attributes
    ----------
    log_mass : float64 [r]
        ln Σ_g evidence/null, no prior.
    mean_log : float64 [r]
        Mean log-ratio under it.
    angle : int
        In-plane angle of the best pose of the best row.
    """

    log_mass: np.ndarray
    mean_log: np.ndarray
    angle: int


class MovedImages:
    """Coefficients of images moved to the origins of a grid, made when asked for and then kept.

    Parameters
    ----------
    images : PolarImages
    band : Band
    origins : float64 [o, 2]
        Å.
    """

    def __init__(self, images: PolarImages, band: Band, origins: np.ndarray) -> None:
        self.images, self.band, self.origins = images, band, origins
        shape = len(images), len(origins), band.basis.size
        self._rows = torch.empty(shape, dtype=images.matched.dtype, device=images.matched.device)
        self._made = np.zeros(shape[:2], dtype=bool)
        self._factors = ShiftFactors(band.grid, origins, images.matched.real.dtype, images.matched.device)

    def make(self, image: int, origin: np.ndarray) -> None:
        """Move an image to origins, int64 in any order: many at once take less time than one by one."""
        missing = np.zeros(len(self.origins), dtype=bool)
        missing[origin] = True
        missing &= ~self._made[image]
        places, matched = np.flatnonzero(missing), self.images.matched[image : image + 1]
        for start in range(0, len(places), _MOVED_AT_ONCE):
            part = places[start : start + _MOVED_AT_ONCE]
            self._rows[image, torch.from_numpy(part)] = shifted_rows(matched, self._factors(part), self.band.basis)
        self._made[image] |= missing

    def rows(self, image: int, origin: np.ndarray) -> Tensor:
        """Rows [r, K] of an image at origins ``origin`` [r]."""
        self.make(image, origin)
        if np.array_equal(origin, np.arange(len(self.origins))):
            return self._rows[image]
        return self._rows[image, torch.from_numpy(origin).to(self._rows.device)]


class RowScorer:
    """Scores rows of images with some templates.

    Parameters
    ----------
    images : PolarImages
        On the band's grid, behind the mask of the structure.
    moved : MovedImages
        The same images at the origins that rows may name.
    band : Band
    templates : Templates
    prior : ScalePrior
    n_inplane : int
    allowed : callable, optional
        ``allowed(image, views)``, bool [v, n_inplane]: in-plane angles that a local search may use.
    """

    def __init__(
        self,
        images: PolarImages,
        moved: MovedImages,
        band: Band,
        templates: Templates,
        prior: ScalePrior,
        n_inplane: int,
        allowed: Allowed | None = None,
    ) -> None:
        self.images, self.moved, self.band, self.templates, self.prior = images, moved, band, templates, prior
        self.n_inplane, self.allowed = n_inplane, allowed
        self._terms = TemplateTerms.of(images, templates, exact=False)

    @cached_property
    def _astigmatic(self) -> bool:
        """Coarse levels, which ask for peaks alone, need not know."""
        return astigmatic(self.images, self.templates)

    def peaks(self, image: int, origin: np.ndarray, view: np.ndarray) -> Peaks:
        """Best poses of rows (origin[r], view[r]) of an image, <T,T> averaged over in-plane angles; in another order.

        Parameters
        ----------
        image : int
        origin, view : int64 [r]
            Indices of the moved images' origins and of the templates.
        """
        found = self._products(image, origin, view)
        rows = [(_asked(b.amax(dim=1, keepdim=True), asked), o, v) for b, asked, o, v in found]
        highest, origins, views = _joined_rows(rows)
        known = self._evidence(image, views, exact=False)
        return self._peaks(known.effective(highest), known, origins, views)

    def sums(self, image: int, origin: np.ndarray, view: np.ndarray) -> Sums:
        """Sums of rows over in-plane angles; parameters as for `peaks`."""
        found: list[Sums] = []
        for b, o, v in _together(self._products(image, origin, view)):
            known = self._evidence(image, v)
            effective = known.effective(b)
            allowed = self._masked(effective, image, v)
            p = self._peaks(allowed.amax(dim=1, keepdim=True), known, o, v)
            reference = torch.as_tensor(p.peak, dtype=b.dtype, device=b.device)
            inside = None if allowed is effective else torch.isfinite(allowed)
            sums = sum_rows(effective, known.evidence, reference, known.turn, inside)
            mass = sums.mass.cpu().numpy()
            with np.errstate(divide="ignore", invalid="ignore"):
                log_mass, mean = p.peak + np.log(mass), np.where(mass > 0, sums.first_moment.cpu().numpy() / mass, 0.0)
            angle = int(allowed[int(p.peak.argmax())].argmax())
            found.append(Sums(o, v, p.peak, p.power, p.scale, log_mass, mean, angle))
        best = max(found, key=lambda f: f.peak.max())
        origins, views, peak, power = _joined(found, ("origin", "view", "peak", "power"))
        log_mass, mean_log = _joined(found, ("log_mass", "mean_log"))
        return Sums(origins, views, peak, power, best.scale, log_mass, mean_log, best.angle)

    def poses(self, image: int, origin: np.ndarray, view: np.ndarray):
        """Every pose of rows, in their order: log-ratio [r, g], b (offset removed) [r, g], <T,T> [r, 1 or g]; float64."""
        found = []
        for b, _, _, v in self._list(image, RowBlock(origin, view)):
            known = self._evidence(image, v)
            logs = known.log_ratio(b)
            allowed = self._masked(b, image, v)
            if allowed is not b:
                logs = logs.masked_fill(torch.isinf(allowed), float("-inf"))
            found.append([t.double().cpu().numpy() for t in (logs, b - known.offset, known.power)])
        return tuple(np.concatenate(parts) for parts in zip(*found))

    def _masked(self, b: Tensor, image: int, view: np.ndarray) -> Tensor:
        if self.allowed is None:
            return b
        return b.masked_fill(~torch.from_numpy(self.allowed(image, view)).to(b.device), float("-inf"))

    @staticmethod
    def _peaks(highest: Tensor, known: GridEvidence, origin: np.ndarray, view: np.ndarray) -> Peaks:
        """From the largest effective inner product of every row, [r, 1]."""
        peak = known.evidence.log_ratio(highest)[:, 0]
        best = int(peak.argmax())
        scale = float(known.evidence.scale(highest)[best])
        power = known.power.mean(dim=1).double().cpu().numpy()
        return Peaks(origin, view, peak.double().cpu().numpy(), power, scale)

    def _products(self, image: int, origin: np.ndarray, view: np.ndarray) -> Iterator[Products]:
        """Inner products of rows, some at a time."""
        self.moved.make(image, origin)
        work = self.band.basis.size + _ANGLE_COST * self.n_inplane
        for block in row_blocks(origin, view, _BLOCK_COST / work):
            yield from self._list(image, block) if block.wanted is None else self._dense(image, block)

    def _list(self, image: int, block: RowBlock) -> Iterator[Products]:
        for start in range(0, len(block.views), _PAIRS_AT_ONCE):
            origin, view = (rows[start : start + _PAIRS_AT_ONCE] for rows in (block.origins, block.views))
            moved, templates = self.moved.rows(image, origin), self._templates_of(view)
            yield correlate_pairs(moved, templates, self.band.basis, self.n_inplane), None, origin, view

    def _dense(self, image: int, block: RowBlock) -> Iterator[Products]:
        assert block.wanted is not None
        moved, templates = self.moved.rows(image, block.origins), self._templates_of(block.views)
        for start in range(0, len(block.origins), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for place, b in correlate_parts(moved[rows], templates, self.band.basis, self.n_inplane):
                origin, view = np.nonzero(block.wanted[rows, place])
                asked = None if len(origin) == b.shape[0] * b.shape[1] else origin * b.shape[1] + view
                yield b.flatten(0, 1), asked, block.origins[rows][origin], block.views[place][view]

    def _templates_of(self, views: np.ndarray) -> Tensor:
        """Coefficients [v, K]."""
        if np.array_equal(views, np.arange(len(self.templates))):
            return self.templates.rows
        return self.templates.rows[torch.from_numpy(views).to(self.templates.rows.device)]

    def _evidence(self, image: int, view: np.ndarray, exact: bool = True) -> GridEvidence:
        """Of an image and views [r], each as often as it is there; not ``exact``: with <T,T> as its mean over angles."""
        views, place = distinct(view)
        index = torch.from_numpy(views).to(self.templates.rows.device)
        images = self.images.take(slice(image, image + 1))
        terms = self._terms.take(slice(image, image + 1)).views(index)
        if exact and self._astigmatic:
            terms = terms.with_orders(images, self.templates.power[index])
        known = evidence_of(images, terms, self.prior, self.n_inplane)
        return known.take((0, torch.from_numpy(place).to(index.device)))


def _together(parts: Iterable[Products]) -> Iterator[Rows]:
    """The rows asked for of parts, joined until they are as many poses as should be worked on at a time."""
    found: list[Rows] = []
    poses = 0
    for b, asked, origin, view in parts:
        found.append((_asked(b, asked), origin, view))
        poses += found[-1][0].numel()
        if poses > _POSES_AT_ONCE:
            yield _joined_rows(found)
            found, poses = [], 0
    if found:
        yield _joined_rows(found)


def _asked(rows: Tensor, asked: np.ndarray | None) -> Tensor:
    """The rows that were asked for; None: all."""
    return rows if asked is None else rows[torch.from_numpy(asked).to(rows.device)]


def _joined_rows(parts: list[Rows]) -> Rows:
    return torch.cat([b for b, _, _ in parts]), *(np.concatenate([part[n] for part in parts]) for n in (1, 2))


def _joined(found: list, names: tuple[str, ...]) -> list[np.ndarray]:
    return [np.concatenate([getattr(f, name) for f in found]) for name in names]
