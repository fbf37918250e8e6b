"""Noise spectra from what images show around the particle, and mean powers of rings, from which spectra are made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .image_correction import corrected
from .image_prep import prepare, soft_disc
from .image_stacks import OK, read_images
from .noise_spectrum import NoiseModel, fitted_spectrum, term_count
from .particles import OpticsGroup, Particles
from .polar_settings import PolarSettings
from .spread import spread
from .template_power import ctf_arguments

__all__ = ["RingPower", "background_noise", "background_weight", "describe", "prepared_images"]

logger = logging.getLogger(__name__)

_IMAGES = 300  # per optics group, evenly spread over the set
_PIXELS_AT_ONCE = 2**21
_LEFT = 0.4  # of a ring's power, without the mean: less cannot be told
_EDGE = 3.0  # pixels, of the hole around the particle


@dataclass
class RingPower:
    """Mean power of images of one box on the rings of their transform.

    Parameters
    ----------
    weight : float64 Tensor [N, N]
        With which images are multiplied, such as a mask.
    pixel_size : float
        Å.

    Attributes
    ----------
    images : int
        How many were added.
    """

    weight: Tensor
    pixel_size: float
    images: int = 0
    _sums: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Find the ring of every frequency."""
        box = len(self.weight)
        ky = torch.fft.fftfreq(box, 1 / box, dtype=torch.float64)[:, None]
        kx = torch.arange(box // 2 + 1, dtype=torch.float64)
        self._ring = torch.hypot(kx, ky).round().long().flatten()
        twice = torch.full((box // 2 + 1,), 2.0, dtype=torch.float64)  # columns that stand for their conjugates, too
        twice[0] = 1.0
        if box % 2 == 0:
            twice[-1] = 1.0
        self._times = twice.expand(box, -1).flatten()
        self._cells = torch.bincount(self._ring, self._times)
        self._of_white = self._rings(self._power_of_white()[None])[0]
        self._sums = np.zeros(len(self._cells))

    def _power_of_white(self) -> Tensor:
        """Expected power of white noise of variance 1 behind the weight and without its mean, float64 [N, N // 2 + 1]."""
        total, squares = self.weight.sum(), self.weight.square()
        one, two = torch.fft.rfft2(self.weight), torch.fft.rfft2(squares)
        return squares.sum() * (1 + one.abs().square() / total**2) - 2 * (one.conj() * two).real / total

    @property
    def _known(self) -> np.ndarray:
        return (self._of_white > _LEFT * self._of_white.max()).numpy()

    def _rings(self, squared: Tensor) -> Tensor:
        """Means over rings [m, r] of transforms' squares [m, N, N // 2 + 1]."""
        rings = squared.new_zeros(len(squared), len(self._cells))
        return rings.index_add_(1, self._ring, squared.flatten(1) * self._times) / self._cells

    @property
    def k(self) -> np.ndarray:
        """Frequencies of the rings, 1/Å."""
        return np.arange(len(self._cells)) / (len(self.weight) * self.pixel_size)

    @property
    def power(self) -> np.ndarray:
        """Mean power of each ring, float64 [r]; the mean of an image over all rings counts as 1."""
        return self._sums / max(self.images, 1)

    @property
    def count(self) -> np.ndarray:
        """Independent values behind the power of each ring; none where the unknown offset takes most of it."""
        share = float(self.weight.square().sum()) / self.weight.numel()
        return 0.5 * self.images * share * self._cells.numpy() * self._known

    def add(self, images: Tensor) -> None:
        """Images [m, N, N], each with the same right to be heard whatever its grey scale."""
        weight = self.weight
        mean = (images.double() * weight).sum(dim=(1, 2)) / weight.sum()
        pixels = (images.double() - mean[:, None, None]) * weight
        rings = self._rings(torch.fft.rfft2(pixels).abs().square()) / self._of_white.clamp_min(1e-9 * self._of_white.max())
        nyquist = len(weight) // 2 + 1
        own = torch.arange(nyquist, dtype=torch.float64) * torch.from_numpy(self._known[:nyquist])
        level = (rings[:, :nyquist] * own).sum(dim=1) / own.sum()
        good = torch.isfinite(level) & (level > 0)
        self._sums += (rings[good] / level[good, None]).sum(dim=0).numpy()
        self.images += int(good.sum())

    def spectrum(self, top: float, terms: int) -> tuple[float, ...]:
        """Coefficients of the smooth spectrum through the rings; see `fitted_spectrum`."""
        return fitted_spectrum(self.k, self.power, self.count, top, terms)


def prepared_images(particles: Particles, rows: np.ndarray, settings: PolarSettings) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Readable images of particles of one optics group, some at a time: rows [m], and float64 [m, N, N] as they are compared,
    but for mask and band limit."""
    group = particles.optics[particles.optics_index[rows[0]]]
    count = max(1, _PIXELS_AT_ONCE // group.box**2)
    for start in range(0, len(rows), count):
        some = rows[start : start + count]
        raw, status, _ = read_images(particles, some)
        some, raw = some[status == OK], raw[status == OK]
        if not len(some):
            continue
        pixels = torch.as_tensor(raw, dtype=torch.float64)
        pixels = corrected(pixels - pixels.mean(dim=(1, 2), keepdim=True), group, ctf_arguments(particles, some))
        yield some, prepare(pixels, torch.as_tensor(particles.sign[some]), settings.images, group.pixel_size)


def background_noise(particles: Particles, settings: PolarSettings) -> NoiseModel:
    """Spectra of all optics groups from the images outside the disc in which the structures are searched.

    Where the box has no room around that disc its corners are taken.
    """
    top = max(group.nyquist for group in particles.optics)
    terms = min(term_count(group.box) for group in particles.optics)
    spectra = []
    for g, group in enumerate(particles.optics):
        rows = np.flatnonzero(particles.optics_index == g)
        rows = spread(rows, _IMAGES)
        rings = RingPower(background_weight(group, settings), group.pixel_size)
        if len(rows):
            for _, images in prepared_images(particles, rows, settings):
                rings.add(images)
        spectra.append(rings.spectrum(top, terms))
        logger.info(
            "noise of optics group %s, from the background of %d images: %s", group.name, rings.images,
            describe(NoiseModel(top, (spectra[-1],)), 0, settings.k_max),
        )  # fmt: skip
        fades = NoiseModel(top, (spectra[-1],)).fades_at(0, settings.k_max)
        if fades is not None:
            logger.warning(
                "the images of optics group %s hold hardly any noise beyond %.3g Å: they seem filtered, which projections "
                "are not; set --resolution to that",
                group.name,
                1 / fades,
            )
    return NoiseModel(top, tuple(spectra), tuple(spectra))


def background_weight(group: OpticsGroup, settings: PolarSettings) -> Tensor:
    """One outside the disc in which the structures are searched, or in the corners of a small box: float64 [N, N]."""
    radius = min(settings.window.radius / group.pixel_size, group.box / 2 - _EDGE)
    return 1.0 - soft_disc(group.box, radius, _EDGE)


def describe(noise: NoiseModel, group: int, k_max: float) -> str:
    """The spectrum in a few words."""
    k = k_max * np.array([0.1, 0.3, 0.6, 1.0])
    return ", ".join(f"{p:.3g} at {1 / q:.3g} Å" for p, q in zip(noise.power(group, k), k))
