"""Particle images before the Fourier transform: contrast, background, mask; and sums over the Fourier band.

Every function works on batches ``[m, N, N]`` (rows y, columns x, centre ``N // 2``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import j1
from torch import Tensor

from .errors import InputError

__all__ = ["BandPower", "ImageSettings", "centred_spectrum", "mask_of", "prepare", "soft_disc"]


@dataclass(frozen=True)
class ImageSettings:
    """What is done to an image before it is compared.

    Attributes
    ----------
    invert : bool
        Multiply by -1 (particles that are dark where RELION's are bright).
    normalise : bool
        Subtract the mean and divide by the standard deviation of the background.
    background_diameter : float or None
        Diameter (Å) outside which pixels are background; the box side if None.
    mask_diameter : float or None
        Diameter (Å) of the soft circular mask; no mask if None.
    mask_edge : float
        Width (Å) of the mask's raised-cosine edge, outside the diameter.
    """

    invert: bool = False
    normalise: bool = True
    background_diameter: float | None = None
    mask_diameter: float | None = None
    mask_edge: float = 0.0


def distance_from_centre(box: int, device: torch.device | str = "cpu") -> Tensor:
    """Distance of every pixel from pixel ``box // 2``, in pixels: float64 [N, N]."""
    axis = torch.arange(box, dtype=torch.float64, device=device) - box // 2
    return torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)


def soft_disc(box: int, radius: float, edge: float, device: torch.device | str = "cpu") -> Tensor:
    """One inside ``radius``, zero beyond ``radius + edge`` (pixels), raised cosine between: float64 [N, N]."""
    distance = distance_from_centre(box, device)
    if edge <= 0:
        return (distance <= radius).double()
    phase = ((distance - radius) / edge).clamp(0, 1)
    return 0.5 * (1 + torch.cos(np.pi * phase))


def mask_of(settings: ImageSettings, box: int, pixel_size: float, device="cpu") -> Tensor:
    """The mask M on the pixel grid, float64 [N, N]; ones without a mask."""
    if settings.mask_diameter is None:
        return torch.ones(box, box, dtype=torch.float64, device=device)
    radius = settings.mask_diameter / 2 / pixel_size
    return soft_disc(box, radius, settings.mask_edge / pixel_size, device)


def prepare(images: Tensor, signs: Tensor, settings: ImageSettings, pixel_size: float) -> Tensor:
    """Contrast and background; the mask is applied later, where it is needed.

    Parameters
    ----------
    images : Tensor [m, N, N]
    signs : Tensor [m]
        Contrast of each image as its metadata states it (+1 protein bright, -1 dark).
    settings : ImageSettings
    pixel_size : float
        Å.

    Returns
    -------
    Tensor [m, N, N]
        Protein bright, background of mean 0 and standard deviation 1 where asked for.
    """
    factor = signs.to(images) * (-1 if settings.invert else 1)
    if not settings.normalise:
        return images * factor[:, None, None]
    box = images.shape[-1]
    diameter = settings.background_diameter or settings.mask_diameter or box * pixel_size
    outside = _outside(box, diameter / 2 / pixel_size, str(images.device))
    if len(outside) < 32:
        raise InputError(
            f"outside a background diameter of {diameter:g} Å only {len(outside)} pixels of the box are left",
            remedy="Give a smaller --background-diameter or --mask-diameter, or --no-normalise.",
        )
    pixels = images.flatten(1)
    background = pixels.index_select(1, outside).double()
    mean = background.mean(dim=1)
    deviation = torch.linalg.vector_norm(background - mean[:, None], dim=1) / (len(outside) - 1) ** 0.5
    # An image whose background is flat (simulated without noise) keeps its grey scale: it has no noise to measure.
    flat = deviation <= 1e-6 * pixels.abs().amax(dim=1)
    gain = factor / torch.where(flat, torch.ones_like(deviation), deviation)
    return (images - mean.to(images)[:, None, None]) * gain.to(images)[:, None, None]


@lru_cache(maxsize=8)
def _outside(box: int, radius: float, device: str) -> Tensor:
    """Indices of the pixels farther than ``radius`` (pixels) from the centre, in the flattened image."""
    return torch.nonzero(distance_from_centre(box, device).flatten() > radius)[:, 0]


def centred_spectrum(images: Tensor, size: int) -> Tensor:
    """DFT of images [m, N, N] padded to ``size``, the centre at index 0: complex [m, size // 2 + 1, size] over kx >= 0 and ky.

    In memory ky runs fastest, as the second pass of the transform leaves it.
    """
    centre = images.shape[-1] // 2
    after, before = images.shape[-1] - centre, size - centre  # from the centre on, and where what is before it goes
    rows = images.new_zeros(len(images), images.shape[1], size)
    rows[..., :after] = images[..., centre:]
    rows[..., before:] = images[..., :centre]
    along = torch.fft.rfft(rows).transpose(1, 2)
    columns = along.new_zeros(len(images), size // 2 + 1, size)
    columns[..., :after] = along[..., centre:]
    columns[..., before:] = along[..., :centre]
    return torch.fft.fft(columns)


def _disc_weights(size: int, radius: float, device: str) -> Tensor:
    """Weights [P//2+1, P] that turn a padded DFT into the exact integral over the disc of ``radius`` cycles/pixel.

    ``∫_{|k|<=radius} |Σ_x Y_x exp(-2 pi i k.x)|² d²k = Σ_{x,x'} Y_x Y_x' radius J1(2 pi radius r)/r``: a convolution,
    done by the DFT of the kernel on a grid of at least 2 N - 1 points.
    """
    axis = np.fft.fftfreq(size, 1 / size)
    r = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        kernel = np.where(r > 0, radius * j1(2 * np.pi * radius * r) / r, np.pi * radius**2)
    weights = np.ascontiguousarray(np.fft.rfft2(kernel).real.T) / size**2
    weights[1 : (size + 1) // 2] *= 2  # the columns that rfft2 leaves out
    return torch.from_numpy(weights).to(device)


class BandPower:
    """Powers over the Fourier band of images behind one mask, ``∫_{|k|<=k_max} d²k`` in Å² x grey².

    Parameters
    ----------
    mask : float64 Tensor [N, N]
        s; ones without a mask.
    size : int
        DFT length, at least 2 N - 1.
    k_max : float
        1/Å.
    pixel_size : float
        Å.
    dtype : torch.float32 or torch.float64
        Of the images.

    Attributes
    ----------
    mask_power : float
        <s,s>.
    """

    def __init__(self, mask: Tensor, size: int, k_max: float, pixel_size: float, dtype: torch.dtype) -> None:
        # pixel^4 of the two transforms, pixel^-2 of d²k
        weights = pixel_size**2 * _disc_weights(size, k_max * pixel_size, str(mask.device))
        spectrum = centred_spectrum(mask[None], size)[0]
        self.mask_power = float((spectrum.abs() ** 2 * weights).sum())
        self._weights = weights.repeat_interleave(2, dim=1).flatten().to(dtype)
        weights[1 : (size + 1) // 2] /= 2  # the inverse transform counts both half planes itself
        filtered = torch.fft.irfft2((spectrum * weights).T, s=(size, size), norm="forward")
        centre = len(mask) // 2
        index = torch.arange(-centre, len(mask) - centre, device=mask.device) % size
        self._filtered_mask = filtered[index][:, index].flatten()

    def __call__(self, masked: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """<Y,Y> and <s,Y>, float64 [m], of masked images Y [m, N, N] and their `centred_spectrum`."""
        image = torch.view_as_real(spectrum).flatten(1).square() @ self._weights
        return image.double(), masked.flatten(1).double() @ self._filtered_mask
