"""Converted particles, to look at: some images before and after their preparation, and one's spectrum and CTF."""

from __future__ import annotations

import numpy as np
import torch

from ..plots.templates import radial_power
from .coefficient_store import CoefficientCache
from .ctf import ctf
from .errors import InputError
from .image_correction import corrected
from .image_prep import ImageSettings, mask_of, prepare
from .image_stacks import OK, read_images
from .particles import Particles
from .spread import spread
from .template_power import ctf_arguments

__all__ = ["as_compared", "look_at_particles"]

_SHOWN = 8
_ANGLES = 32
_CTF_POINTS = 400


def look_at_particles(particles: Particles, place: int) -> dict[str, np.ndarray]:
    """Arrays of the file that the verb ``inspect`` writes for a folder of ``particles``.

    Parameters
    ----------
    particles : Particles
        As the verb ``particles`` wrote them.
    place : int
        Row, from 0; some that are spread over the set follow it.

    Returns
    -------
    dict
        ``rows`` [v] (from 1), ``raw`` and ``prepared`` [v, N, N]: as in the file, and as they are compared (flipped phases and
        aberrations, contrast, background, mask, band limit); ``frequency`` [r] (1/Å) and ``power`` [r] of the first, as it is
        in the file; ``ctf_frequency`` [c] (1/Å) and ``ctf_squared`` [c], its CTF² averaged over angles; ``defocus`` (Å, mean of
        both axes), ``pixel_size`` (Å), ``k_max`` (1/Å).

    Raises
    ------
    InputError
        If the particles have no coefficients, or the image could not be read.
    """
    settings = CoefficientCache.stored_settings(particles)
    if settings is None:
        raise InputError(
            "the particles have no polar coefficients", particles.source, remedy="Run 'cryolike-scipion particles' first."
        )
    group = particles.optics[particles.optics_index[place]]
    alike = np.flatnonzero(particles.optics_index == particles.optics_index[place])
    others = alike[np.linspace(0, len(alike) - 1, min(len(alike), 4 * _SHOWN)).astype(np.int64)]
    rows = np.array([place, *others[others != place]])
    raw, status, problems = read_images(particles, rows)
    if status[0] != OK:
        raise InputError(str(problems[0]))
    kept = np.flatnonzero(status == OK)
    kept = spread(kept, _SHOWN)
    rows, raw = rows[kept], raw[kept]
    images = _limited(as_compared(particles, rows, raw, settings.images), group.pixel_size, settings.k_max)
    frequency, power = radial_power(raw[:1], group.pixel_size)
    theta = torch.as_tensor(np.pi * np.arange(_ANGLES) / _ANGLES)
    fine = np.linspace(0.0, frequency[-1], _CTF_POINTS)
    transfer = ctf(torch.as_tensor(fine)[:, None], theta, **ctf_arguments(particles, rows[:1]))
    return {
        "rows": rows + 1,
        "raw": raw,
        "prepared": images.numpy(),
        "frequency": frequency,
        "power": power,
        "ctf_frequency": fine,
        "ctf_squared": (transfer**2).mean(dim=1).numpy(),
        "defocus": np.array((particles.defocus_u[place] + particles.defocus_v[place]) / 2),
        "pixel_size": np.array(group.pixel_size),
        "k_max": np.array(settings.k_max),
    }


def as_compared(particles: Particles, rows: np.ndarray, raw: np.ndarray, settings: ImageSettings) -> torch.Tensor:
    """Images of particles of one optics group as they are compared, but for the band limit.

    Parameters
    ----------
    particles : Particles
    rows : int [m]
        From 0.
    raw : float32 [m, N, N]
        Their images as in the files.
    settings : ImageSettings

    Returns
    -------
    float64 [m, N, N]
        Without flipped phases and aberrations, prepared, behind the mask.
    """
    group = particles.optics[particles.optics_index[rows[0]]]
    pixels = corrected(torch.as_tensor(raw), group, ctf_arguments(particles, rows))
    images = prepare(pixels, torch.as_tensor(particles.sign[rows]), settings, group.pixel_size).double()
    return images * mask_of(settings, group.box, group.pixel_size)


def _limited(images: torch.Tensor, pixel_size: float, k_max: float) -> torch.Tensor:
    """Images [v, N, N] without what lies beyond ``k_max`` (1/Å)."""
    size = images.shape[-1]
    ky, kx = torch.fft.fftfreq(size, pixel_size)[:, None], torch.fft.rfftfreq(size, pixel_size)[None]
    return torch.fft.irfft2(torch.fft.rfft2(images) * (torch.hypot(ky, kx) <= k_max), s=(size, size))
