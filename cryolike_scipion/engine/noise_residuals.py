"""Noise spectra refined from what is left of images without their particles.

The background tells of the noise beside the particle. Inside the mask it may be another: of ice of another thickness, or of
what the structures lack. So some particles are searched with the spectrum of the background, their best projection is
subtracted, and the spectrum of the rest, which is flat where the first one was right, corrects it.
"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import torch
from torch import Tensor

from .ctf import CtfPoints
from .image_prep import mask_of
from .image_stacks import OK
from .likelihood import ScalePrior
from .likelihood_chunk import STAGES, Scoring, forked, score_chunk
from .likelihood_setup import Setup
from .noise_background import RingPower, describe, prepared_images
from .noise_spectrum import NoiseModel, unit_mean, whitened
from .progress import Progress
from .rotations import matrix_from_euler
from .simulate import HalfPlane
from .slices import SliceMaker
from .template_power import ctf_arguments

__all__ = ["refined_noise"]

logger = logging.getLogger(__name__)

_FEWEST = 8  # images of a group


def refined_noise(scoring: Scoring, chosen: dict[int, np.ndarray], prior: ScalePrior, progress: Progress) -> NoiseModel:
    """Spectra corrected by the residuals of some particles.

    Parameters
    ----------
    scoring : Scoring
        With the spectra to correct in its settings.
    chosen : dict of int64 [m]
        Rows of each optics group.
    prior : ScalePrior
        With which their poses are searched.
    progress : Progress
    """
    setup = scoring.setup
    noise = setup.settings.noise
    assert noise is not None
    scoring = dataclasses.replace(scoring, priors=dict.fromkeys(chosen, prior), keep="pose", keep_poses=0)
    total = sum(len(rows) for rows in chosen.values()) * len(setup.structures)
    progress.start(total * STAGES, "refining the noise spectrum", "steps")
    with forked(scoring) as ready:
        found = {g: score_chunk(ready, rows, progress.update) for g, rows in chosen.items()}
    spectra = list(noise.spectra)
    for g, rows in chosen.items():
        rings = _residual_power(setup, noise, g, rows, found[g])
        name = setup.particles.optics[g].name
        if rings.images < _FEWEST:
            logger.info("noise of optics group %s: too few images to correct that of the background", name)
            continue
        correction = rings.spectrum(noise.top, len(spectra[g]))
        spectra[g] = unit_mean(np.add(spectra[g], correction), noise.top)
        refined = NoiseModel(noise.top, tuple(spectra))
        text = describe(refined, g, setup.settings.k_max)
        logger.info("noise of optics group %s, refined by the residuals of %d particles: %s", name, rings.images, text)
    progress.close()
    return dataclasses.replace(noise, spectra=tuple(spectra))


def _residual_power(setup: Setup, noise: NoiseModel, g: int, rows: np.ndarray, found: dict[str, np.ndarray]) -> RingPower:
    """Power of the whitened images of one group, within the mask, less their best projections."""
    particles, settings, group = setup.particles, setup.settings, setup.particles.optics[g]
    mask = mask_of(settings.images, group.box, group.pixel_size)
    rings = RingPower(mask, group.pixel_size)
    plane = HalfPlane(group.box, group.pixel_size, min(settings.k_max, 0.5 / group.pixel_size))
    makers = [SliceMaker(structure, plane.points()) for structure in setup.structures]
    best = found["integrated"].argmax(axis=0)
    place = {int(row): i for i, row in enumerate(rows) if found["status"][i] == OK}
    for some, images in prepared_images(particles, rows, settings):
        kept = [i for i, row in enumerate(some) if int(row) in place]
        if not kept:
            continue
        some, images = some[kept], whitened(images[kept], group.pixel_size, noise, g, some[kept])
        at = np.array([place[int(row)] for row in some])
        pose = {name: found[name][best[at], at] for name in ("rot", "tilt", "psi", "origin_x", "origin_y")}
        rotation = matrix_from_euler(pose["rot"], pose["tilt"], pose["psi"])
        origin = group.aberrations.origin_undistorted(np.stack([pose["origin_x"], pose["origin_y"]], axis=1))
        values = torch.zeros(len(some), len(plane.points()), dtype=torch.complex128)
        for k in np.unique(best[at]):
            own = np.flatnonzero(best[at] == k)
            values[own] = makers[k](rotation[own]).to(torch.complex128)
        rings.add(images - _fit(images, _posed(setup, plane, values, some, origin, noise), mask))
    return rings


def _posed(setup: Setup, plane: HalfPlane, values: Tensor, rows: np.ndarray, origin: np.ndarray, noise: NoiseModel) -> Tensor:
    """Projections behind the whitened CTF and moved, float64 [m, N, N], from slices [m, p]."""
    points = plane.points()
    transfer = CtfPoints(points[:, 0], points[:, 1])(ctf_arguments(setup.particles, rows, noise=noise), torch.float64)
    phase = 2 * torch.pi * torch.as_tensor(origin @ points.T)
    return plane.image(values * transfer * torch.polar(torch.ones_like(phase), phase))


def _fit(images: Tensor, templates: Tensor, mask: Tensor) -> Tensor:
    """Scale times template that fits each image behind the mask, its offset free: [m, N, N]."""
    squared = mask.square()
    total = squared.sum()

    def centred(values: Tensor) -> Tensor:
        return values - ((values * squared).sum(dim=(1, 2)) / total)[:, None, None]

    template = centred(templates)
    product = (template * centred(images) * squared).sum(dim=(1, 2))
    power = (template.square() * squared).sum(dim=(1, 2))
    scale = torch.where(power > 0, (product / power).clamp_min(0.0), 0.0)
    return scale[:, None, None] * templates
