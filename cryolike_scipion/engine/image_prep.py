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

__all__ = ["BandNorm", "ImageSettings", "band_norm", "prepare", "soft_disc"]


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
    images = images * factor[:, None, None]
    if not settings.normalise:
        return images
    box = images.shape[-1]
    diameter = settings.background_diameter or settings.mask_diameter or box * pixel_size
    outside = distance_from_centre(box, images.device) > diameter / 2 / pixel_size
    if int(outside.sum()) < 32:
        raise InputError(
            f"outside a background diameter of {diameter:g} Å only {int(outside.sum())} pixels of the box are left",
            remedy="Give a smaller --background-diameter or --mask-diameter, or --no-normalise.",
        )
    background = images[:, outside].double()
    mean = background.mean(dim=1)
    deviation = background.std(dim=1)
    # An image whose background is flat (simulated without noise) keeps its grey scale: it has no noise to measure.
    deviation = torch.where(deviation > 1e-6 * images.double().abs().amax((1, 2)), deviation, torch.ones_like(deviation))
    return ((images - mean[:, None, None]) / deviation[:, None, None]).to(images.dtype)


@dataclass(frozen=True)
class BandNorm:
    """Powers of masked images over the Fourier band, in Å² x grey² (`∫_{|k|<=k_max} d²k`), float64 [m].

    ``image`` is <Y,Y>, ``cross`` <s,Y>, ``mask`` <s,s>; Y is the masked image and s the mask.
    """

    image: Tensor
    cross: Tensor
    mask: Tensor

    @property
    def projected(self) -> Tensor:
        """c = <Y,Y> - <s,Y>²/<s,s>."""
        return self.image - self.cross**2 / self.mask


@lru_cache(maxsize=8)
def _disc_weights(size: int, radius: float, device: str) -> Tensor:
    """Weights [P, P//2+1] that turn a padded DFT into the exact integral over the disc of ``radius`` cycles/pixel.

    ``∫_{|k|<=radius} |Σ_x Y_x exp(-2 pi i k.x)|² d²k = Σ_{x,x'} Y_x Y_x' radius J1(2 pi radius r)/r``: a convolution,
    done by the DFT of the kernel on a grid of at least 2 N - 1 points.
    """
    axis = np.fft.fftfreq(size, 1 / size)
    r = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        kernel = np.where(r > 0, radius * j1(2 * np.pi * radius * r) / r, np.pi * radius**2)
    weights = np.fft.rfft2(kernel).real / size**2
    weights[:, 1 : (size + 1) // 2] *= 2  # the columns that rfft2 leaves out
    return torch.from_numpy(weights).to(device)


def band_norm(spectrum: Tensor, mask_spectrum: Tensor, size: int, k_max: float, pixel_size: float) -> BandNorm:
    """Powers over the band from padded transforms.

    Parameters
    ----------
    spectrum : complex Tensor [m, P, P//2+1]
        ``rfft2`` of the masked images, padded to P >= 2 N - 1.
    mask_spectrum : complex Tensor [P, P//2+1]
        ``rfft2`` of the mask, padded likewise.
    size : int
        P.
    k_max : float
        1/Å.
    pixel_size : float
        Å.
    """
    weights = _disc_weights(size, k_max * pixel_size, str(spectrum.device))
    unit = pixel_size**2  # pixel^4 of the two transforms, pixel^-2 of d²k
    image = (spectrum.abs().double() ** 2 * weights).sum((1, 2)) * unit
    cross = ((spectrum * mask_spectrum.conj()).real.double() * weights).sum((1, 2)) * unit
    mask = (mask_spectrum.abs().double() ** 2 * weights).sum() * unit
    return BandNorm(image, cross, mask.expand_as(image))
