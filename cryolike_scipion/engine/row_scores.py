"""Scores of chosen rows (image, origin, view), as lists or as dense blocks, whichever is less work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .bands import Band
from .correlation import Templates, correlate, correlate_pairs, shift_factors, shifted_rows
from .likelihood import ScalePrior
from .polar_images import PolarImages
from .row_sums import sum_rows
from .scoring import GridEvidence, TemplateTerms, evidence_of

__all__ = ["MovedImages", "Peaks", "RowScorer", "Sums"]

_LIST_COST = 7.0  # of a row in a list over one in a dense block
_PAIRS_AT_ONCE, _ROWS_AT_ONCE, _MOVED_AT_ONCE = 192, 112, 8
_POSES_AT_ONCE = 1_600_000  # rows times in-plane angles: more would leave the cache

Allowed = Callable[[int, np.ndarray], np.ndarray]


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

    def rows(self, image: int, origin: np.ndarray) -> Tensor:
        """Rows [r, K] of an image at origins ``origin`` [r]."""
        missing = np.unique(origin[~self._made[image, origin]])
        for start in range(0, len(missing), _MOVED_AT_ONCE):
            part = missing[start : start + _MOVED_AT_ONCE]
            matched = self.images.matched[image : image + 1]
            factors = shift_factors(self.band.grid, self.origins[part], matched.real.dtype, matched.device)
            self._rows[image, torch.from_numpy(part)] = shifted_rows(matched, factors, self.band.basis)
        self._made[image, missing] = True
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
    exact : bool
        With <T,T> at every in-plane angle; off, as its mean.
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
        exact: bool = True,
    ) -> None:
        self.images, self.moved, self.band, self.templates, self.prior = images, moved, band, templates, prior
        self.n_inplane, self.allowed = n_inplane, allowed
        self._terms = TemplateTerms.of(images, templates, exact)
        self._known: tuple[int, GridEvidence] | None = None

    def peaks(self, image: int, origin: np.ndarray, view: np.ndarray) -> Peaks:
        """Best poses of rows (origin[r], view[r]) of an image; in another order.

        Parameters
        ----------
        image : int
        origin, view : int64 [r]
            Indices of the moved images' origins and of the templates.
        """
        found: list[Peaks] = []
        for b, known, o, v in self._products(image, origin, view):
            if known.turn is None:  # the offset is the same at every angle
                highest = known.effective(self._masked(b, image, v).amax(dim=1, keepdim=True))
            else:
                highest = self._masked(known.effective(b), image, v).amax(dim=1, keepdim=True)
            found.append(self._peaks(highest, known, o, v))
        best = max(found, key=lambda f: f.peak.max())
        origins, views, peak, power = _joined(found, ("origin", "view", "peak", "power"))
        return Peaks(origins, views, peak, power, best.scale)

    def sums(self, image: int, origin: np.ndarray, view: np.ndarray) -> Sums:
        """Sums of rows over in-plane angles; parameters as for `peaks`."""
        found: list[Sums] = []
        for b, known, o, v in self._products(image, origin, view):
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
        for b, known, _, v in self._products(image, origin, view, dense=False):
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

    def _products(self, image: int, origin: np.ndarray, view: np.ndarray, dense: bool = True):
        """Blocks of inner products [r, g] with their evidence and the rows' origins and views."""
        device = self.templates.rows.device
        if dense:
            origins, views = np.unique(origin), np.unique(view)
            if len(origins) * len(views) <= _LIST_COST * len(origin):
                yield from self._dense(image, origins, views, origin, view)
                return
        for start in range(0, len(origin), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            v = torch.from_numpy(view[part]).to(device)
            moved = self.moved.rows(image, origin[part])
            b = correlate_pairs(moved, self.templates.rows[v], self.band.basis, self.n_inplane)
            yield b, self._evidence(image).take(v), origin[part], view[part]

    def _dense(self, image: int, origins: np.ndarray, views: np.ndarray, origin: np.ndarray, view: np.ndarray):
        wanted = np.zeros((len(origins), len(views)), dtype=bool)
        wanted[np.searchsorted(origins, origin), np.searchsorted(views, view)] = True
        rows = max(1, min(_ROWS_AT_ONCE, len(origins)))
        at_once = max(8, _POSES_AT_ONCE // (self.n_inplane * rows))
        moved = self.moved.rows(image, origins)
        for first in range(0, len(views), at_once):
            part = views[first : first + at_once]
            index = torch.from_numpy(part).to(moved.device)
            templates = self.templates.rows[index]
            for start in range(0, len(origins), rows):
                asked = np.flatnonzero(wanted[start : start + rows, first : first + at_once].ravel())
                if not len(asked):
                    continue
                b = correlate(moved[start : start + rows], templates, self.band.basis, self.n_inplane).flatten(0, 1)
                if len(asked) < len(b):
                    b = b[torch.from_numpy(asked).to(b.device)]
                asked_views = part[asked % len(part)]
                known = self._evidence(image).take(torch.from_numpy(asked_views).to(b.device))
                yield b, known, origins[start + asked // len(part)], asked_views

    def _evidence(self, image: int) -> GridEvidence:
        """Of an image and every view."""
        if self._known is None or self._known[0] != image:
            rows = slice(image, image + 1)
            known = evidence_of(self.images.take(rows), self._terms.take(rows), self.prior, self.n_inplane)
            self._known = image, known.take(0)
        return self._known[1]


def _joined(found: list, names: tuple[str, ...]) -> list[np.ndarray]:
    return [np.concatenate([getattr(f, name) for f in found]) for name in names]
