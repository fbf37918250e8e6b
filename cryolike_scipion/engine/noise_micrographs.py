"""Noise spectra of single micrographs, whose ice and defocus differ, from the background of their particles."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from numpy.typing import NDArray

from .noise_background import RingPower, background_weight, prepared_images
from .noise_spectrum import MicrographSpectra, NoiseModel, whitened
from .particles import Particles
from .polar_settings import PolarSettings
from .spread import spread

__all__ = ["with_micrographs"]

logger = logging.getLogger(__name__)

_LABEL = "rlnMicrographName"
_FEWEST, _MOST = 10, 30  # particles; a micrograph of fewer keeps the spectrum of its group


def with_micrographs(noise: NoiseModel, particles: Particles, settings: PolarSettings) -> NoiseModel:
    """The same spectra, with what those of single micrographs differ from them.

    A micrograph's background is compared with that of its optics group, so that what residuals correct there holds for both.
    """
    names = _micrographs(particles)
    if names is None:
        logger.warning("the particles have no %s: each optics group has one noise spectrum", _LABEL)
        return noise
    around = dataclasses.replace(noise, spectra=noise.background or noise.spectra, micrographs=None)
    # One micrograph in two optics groups counts as two.
    _, first, which = np.unique(np.stack([particles.optics_index, names]), axis=1, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    place = np.full(len(first), -1)
    differences: list[tuple[float, ...]] = []
    for m in np.argsort(first, kind="stable"):
        rows = np.flatnonzero(which == m)
        if len(rows) < _FEWEST:
            continue
        g = int(particles.optics_index[rows[0]])
        group = particles.optics[g]
        rings = RingPower(background_weight(group, settings), group.pixel_size)
        for _, images in prepared_images(particles, spread(rows, _MOST), settings):
            rings.add(whitened(images, group.pixel_size, around, g))
        if rings.images >= _FEWEST:
            place[m] = len(differences)
            differences.append(rings.spectrum(noise.top, len(noise.spectra[g])))
    logger.info("%d of %d micrographs have noise spectra of their own, the others their group's", len(differences), len(first))
    if not differences:
        return noise
    return dataclasses.replace(noise, micrographs=MicrographSpectra(np.array(differences), place[which]))


def _micrographs(particles: Particles) -> NDArray[np.int64] | None:
    """A number for each particle's micrograph; None where a source does not name them."""
    if any(_LABEL not in d.particles.labels for d in particles.documents):
        return None
    texts = [d.particles.columns([_LABEL], d.star.path)[_LABEL] for d in particles.documents]
    names = [texts[s][r - 1] for s, r in zip(particles.source_index, particles.row)]
    return np.unique(np.array(names), return_inverse=True)[1].reshape(-1)
