"""From rows of a particle table to polar images: read, prepare, transform, or take from a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .coefficient_store import CoefficientCache
from .errors import InputError
from .image_correction import corrected
from .image_stacks import CONSTANT, OK, read_images
from .noise_spectrum import whitened
from .particles import Particles
from .polar_images import PolarImages, offset_weights, padded_size, polar_images
from .polar_settings import PolarSettings
from .template_power import PowerRule, ctf_arguments, delocalisation, power_weights

__all__ = ["Converted", "convert"]

_BATCH_BYTES = 2**28  # of padded transforms


@dataclass(frozen=True)
class Converted:
    """Polar images of the usable rows, and what became of every row.

    ``images`` holds the rows with status 0, in order; ``usable`` int64 [u] are their positions among the ``m`` rows asked
    for, ``status`` uint8 [m].
    """

    images: PolarImages | None
    usable: np.ndarray
    status: np.ndarray


def convert(
    particles: Particles,
    indices: np.ndarray,
    settings: PolarSettings,
    rule: PowerRule,
    bad_images: str,
    cache: CoefficientCache | None = None,
    device: torch.device | str = "cpu",
) -> Converted:
    """Polar images of some particles of one optics group.

    Parameters
    ----------
    particles : Particles
    indices : int64 [m]
        Rows, counted from 0; all of one optics group.
    settings : PolarSettings
    rule : PowerRule
    bad_images : str
        "stop" or "flag".
    cache : CoefficientCache, optional
        Coefficients made before; only those with the right hash are used.

    Raises
    ------
    InputError
        If an image cannot be used and ``bad_images`` is "stop".
    """
    status = np.zeros(len(indices), dtype=np.uint8)
    found: dict[int, tuple[Path, int]] = {} if cache is None else cache.find(particles, indices)
    fresh = np.array([i for i in range(len(indices)) if i not in found], dtype=np.int64)
    parts: list[tuple[np.ndarray, PolarImages]] = []
    if len(fresh):
        images, fresh_status, problems = read_images(particles, indices[fresh])
        if bad_images == "stop" and (fresh_status != OK).any():
            raise InputError(next(p for p in problems if p is not None))
        status[fresh] = fresh_status
        good = fresh_status == OK
        if good.any():
            rows = fresh[good]
            made = _transform(particles, indices[rows], images if good.all() else images[good], settings, rule, device)
            flat = ~_has_contrast(made)
            if flat.any():
                first = int(indices[rows[flat][0]])
                if bad_images == "stop":
                    raise InputError(
                        particles.problem(
                            first,
                            "the image has no contrast inside the mask and the resolution limit",
                            "Remove the particle, or use --bad-images flag",
                        )
                    )
                status[rows[flat]] = CONSTANT
                rows, made = rows[~flat], made.take(torch.from_numpy(np.flatnonzero(~flat)))
            if len(rows):
                parts.append((rows, made))
    if cache is not None and found:
        rows = np.array(sorted(found), dtype=np.int64)
        parts.append((rows, _stored(particles, indices[rows], [found[i] for i in rows], cache, settings, rule, device)))
    if not parts:
        return Converted(None, np.zeros(0, dtype=np.int64), status)
    if len(parts) == 1:
        return Converted(parts[0][1], parts[0][0], status)
    usable = np.concatenate([rows for rows, _ in parts])
    joined = PolarImages.join([images for _, images in parts])
    order = np.argsort(usable)
    return Converted(joined.take(torch.from_numpy(order)), usable[order], status)


def _has_contrast(images: PolarImages) -> np.ndarray:
    """Whether an image holds more than an offset: bool [m]."""
    power = images.projected_power.cpu().numpy()
    return np.isfinite(power) & (power > 1e-12 * images.image_power.cpu().numpy()) & (power > 0)


def _transform(particles, rows, images, settings: PolarSettings, rule, device) -> PolarImages:
    number = int(particles.optics_index[rows[0]])
    group, noise = particles.optics[number], settings.noise
    arguments = ctf_arguments(particles, rows, device, noise)
    spread = delocalisation(ctf_arguments(particles, np.arange(len(particles)), noise=noise), settings.k_max)
    kind = torch.float64 if settings.precision == "double" else torch.float32
    padded = padded_size(images.shape[-1], group.pixel_size, settings.window, spread)
    batch = max(1, _BATCH_BYTES // (32 * padded**2))
    parts = []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        some = {name: values[part] for name, values in arguments.items()}
        pixels = _without_mean(torch.as_tensor(images[part], dtype=kind, device=device))
        pixels = corrected(pixels, group, some)
        if noise is not None:
            pixels = whitened(pixels, group.pixel_size, noise, number, rows[part])
        parts.append(
            polar_images(
                pixels,
                torch.as_tensor(particles.sign[rows[part]], device=device),
                some,
                settings.images,
                settings.grid,
                rule,
                settings.window,
                group.pixel_size,
                padded,
            )
        )
    return parts[0] if len(parts) == 1 else PolarImages.join(parts)


def _without_mean(pixels: torch.Tensor) -> torch.Tensor:
    """Images [m, N, N] less their means."""
    # The offset is a free parameter. A large one (raw grey values) would cost digits, and what of it the CTF carries over the
    # edge of the box is not in the inner product of template and box.
    return pixels - pixels.mean(dim=(1, 2), keepdim=True, dtype=torch.float64).to(pixels)


def _stored(particles, rows, places, cache: CoefficientCache, settings: PolarSettings, rule, device) -> PolarImages:
    """Stored coefficients; what depends on the CTF alone is computed."""
    group = particles.optics[particles.optics_index[rows[0]]]
    stored = cache.read(places)
    arguments = ctf_arguments(particles, rows, device, settings.noise)
    offset = offset_weights(settings.images, group.box, group.pixel_size, arguments, settings.grid, settings.window)
    scalars = {name: torch.as_tensor(stored[name], device=device) for name in CoefficientCache.SCALARS}
    return PolarImages(
        matched=torch.as_tensor(stored["matched"], device=device),
        power=power_weights(rule, arguments),
        offset=offset,
        pixel_size=torch.full_like(scalars["dof"], group.pixel_size),
        **scalars,
    )
