"""Particle images on the polar grid, ready to be compared with templates.

The inner product of an image with a template behind the CTF is ``<M² Y, CTF T> = <CTF M² Y, T>``: multiplying the image
by its CTF leaves a template that is compact, whatever the defocus. So the image is masked, multiplied by its CTF on a
padded Cartesian grid (no wrap-around), cut with a window that is one wherever a shifted template can be, and only then
transformed to the polar points. The grid then needs to resolve the window and the template, not the CTF's
delocalisation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import finufft
import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from .ctf import CtfPoints
from .image_prep import BandPower, ImageSettings, centred_spectrum, mask_of, prepare, soft_disc
from .likelihood import degrees_of_freedom
from .matched_filter import IMAGES_AT_ONCE, MatchedFilter
from .polar_grid import PolarGrid
from .template_power import PowerRule, power_weights

__all__ = ["PolarImages", "Window", "offset_weights", "padded_size", "polar_images", "transform_to_polar"]


@dataclass(frozen=True)
class Window:
    """Disc (Å) in which a shifted template can lie, and the width of the soft edge around it."""

    radius: float
    edge: float


@dataclass(frozen=True)
class PolarImages:
    """Images on one polar grid.

    Attributes
    ----------
    matched : complex64 [m, n, W/2]
        Transform of window · (CTF * M² Y) at the stored half circle, Å² x grey.
    power : complex64 [m, p, j]
        CTF² weights of the power nodes, see `template_power`.
    offset : float32 [m, n]
        Quadrature weight times the ring mean of the transform of M² times the CTF: with the zeroth angular order of a
        template, ``<s, T> = Σ_n offset_n T_0(k_n)`` for every pose inside the mask.
    image_power, cross_power, mask_power : float64 [m]
        <Y,Y>, <s,Y>, <s,s> over the band.
    dof : float64 [m]
        Degrees of freedom n.
    pixel_size : float64 [m]
        Å.
    """

    matched: Tensor
    power: Tensor
    offset: Tensor
    image_power: Tensor
    cross_power: Tensor
    mask_power: Tensor
    dof: Tensor
    pixel_size: Tensor

    def __len__(self) -> int:
        return len(self.matched)

    @property
    def projected_power(self) -> Tensor:
        """c, float64 [m]."""
        return self.image_power - self.cross_power**2 / self.mask_power

    def take(self, index) -> PolarImages:
        return PolarImages(*(getattr(self, field.name)[index] for field in fields(self)))

    @classmethod
    def join(cls, parts: list[PolarImages]) -> PolarImages:
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def padded_size(box: int, pixel_size: float, window: Window, spread: float) -> int:
    """DFT length without wrap-around inside the window for a delocalisation of ``spread`` (Å), at most four boxes."""
    reach = box / 2 + (window.radius + window.edge + spread) / pixel_size
    return int(next_fast_len(max(2 * box - 1, min(int(np.ceil(reach)), 4 * box)), real=True))


def transform_to_polar(images: Tensor, grid: PolarGrid, pixel_size: float, accuracy: float = 1e-6) -> Tensor:
    """``F(k) = pixel² Σ_x image(x) exp(-2 pi i k.x)`` at the stored half circle.

    Parameters
    ----------
    images : Tensor [m, L, L]
        Centre at index ``L // 2``; float32 or float64 decides the precision.
    grid : PolarGrid
    pixel_size : float
        Å.
    accuracy : float
        Relative tolerance of the NUFFT.

    Returns
    -------
    complex Tensor [m, n, W/2]
    """
    kind = torch.complex64 if images.dtype == torch.float32 else torch.complex128
    points = (2 * np.pi * pixel_size * grid.points_half()).reshape(-1, 2)
    real = np.float32 if kind == torch.complex64 else np.float64
    x, y = (np.ascontiguousarray(points[:, i], dtype=real) for i in (1, 0))
    values = finufft.nufft2d2(
        x,
        y,
        images.to(kind).cpu().numpy(),
        isign=-1,
        eps=accuracy,
        nthreads=torch.get_num_threads(),
    )
    result = torch.from_numpy(values.reshape(len(images), grid.n_radii, grid.n_half) * real(pixel_size**2))
    return result.to(images.device)


@dataclass(frozen=True)
class _Rings:
    """What a polar grid consists of, as a key."""

    k_max: float
    n_angles: int
    radii: bytes
    weights: bytes

    @classmethod
    def of(cls, grid: PolarGrid) -> _Rings:
        return cls(grid.k_max, grid.n_angles, grid.radii.tobytes(), grid.weights.tobytes())

    def grid(self) -> PolarGrid:
        return PolarGrid(np.frombuffer(self.radii).copy(), np.frombuffer(self.weights).copy(), self.n_angles, self.k_max)


@dataclass(frozen=True)
class _Tables:
    """What the images of one box, pixel size and mask have in common."""

    mask: Tensor | None
    band_power: BandPower
    matched_filter: MatchedFilter
    dof: float


@lru_cache(maxsize=4)
def _tables(
    box: int, pixel_size: float, padded: int, settings: ImageSettings, window: Window, rings: _Rings, dtype: torch.dtype,
    device: str,
) -> _Tables:  # fmt: skip
    grid, mask = rings.grid(), mask_of(settings, box, pixel_size, device)
    return _Tables(
        mask=None if settings.mask_diameter is None else mask.to(dtype),
        band_power=BandPower(mask, padded, grid.k_max, pixel_size, dtype),
        matched_filter=MatchedFilter(pixel_size, padded, window.radius, window.edge, grid, dtype, device),
        dof=degrees_of_freedom(grid.k_max, pixel_size, mask),
    )


def polar_images(
    images: Tensor,
    signs: Tensor,
    arguments: dict[str, Tensor],
    settings: ImageSettings,
    grid: PolarGrid,
    rule: PowerRule,
    window: Window,
    pixel_size: float,
    padded: int,
) -> PolarImages:
    """Bring images of one box and pixel size to the polar grid.

    Parameters
    ----------
    images : float32 Tensor [m, N, N]
    signs : Tensor [m]
        Contrast of the metadata, +1 or -1.
    arguments : dict of float64 Tensor [m]
        Of `ctf`, from `ctf_arguments`.
    settings, grid, rule, window
        What to do, and onto which grid.
    pixel_size : float
        Å.
    padded : int
        From `padded_size`.
    """
    images = prepare(images, signs, settings, pixel_size)
    box, device = images.shape[-1], str(images.device)
    tables = _tables(box, pixel_size, padded, settings, window, _Rings.of(grid), images.dtype, device)
    kind = torch.complex64 if images.dtype == torch.float32 else torch.complex128
    matched = torch.empty(len(images), grid.n_radii, grid.n_half, dtype=kind, device=images.device)
    image_power, cross_power = torch.empty(2, len(images), dtype=torch.float64, device=images.device)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        masked = images[part] if tables.mask is None else images[part] * tables.mask
        spectrum = centred_spectrum(masked, padded)
        image_power[part], cross_power[part] = tables.band_power(masked, spectrum)
        if tables.mask is not None:
            spectrum = centred_spectrum(masked * tables.mask, padded)
        some = {name: value[part] for name, value in arguments.items()}
        tables.matched_filter(spectrum, some, matched[part])
    return PolarImages(
        matched=matched,
        power=power_weights(rule, arguments),
        offset=offset_weights(settings, box, pixel_size, arguments, grid, window),
        image_power=image_power,
        cross_power=cross_power,
        mask_power=torch.full_like(image_power, tables.band_power.mask_power),
        dof=torch.full_like(image_power, tables.dof),
        pixel_size=torch.full_like(image_power, pixel_size),
    )


def offset_weights(
    settings: ImageSettings, box: int, pixel_size: float, arguments: dict[str, Tensor], grid: PolarGrid, window: Window
) -> Tensor:
    """See `PolarImages.offset`: float32 [m, n].

    Where there is no mask the box is replaced by the window: both are one wherever the template is, so that their
    inner products with it agree, and the window's transform dies off quickly.
    """
    device = arguments["voltage_kv"].device
    profile, points = _offset_profile(settings, box, pixel_size, _Rings.of(grid), window, str(device))
    return (points(arguments, torch.float64).mean(dim=-1) * profile).float()


@lru_cache(maxsize=8)
def _offset_profile(
    settings: ImageSettings, box: int, pixel_size: float, rings: _Rings, window: Window, device: str
) -> tuple[Tensor, CtfPoints]:
    """Weight times ring mean of the transform of M², float64 [n], and the points [n, 16] where the CTF is averaged."""
    if settings.mask_diameter is None:
        reach = int(np.ceil((window.radius + 2 * window.edge) / pixel_size))
        squared_mask = soft_disc(2 * reach + 1, window.radius / pixel_size, 2 * window.edge / pixel_size)
    else:
        squared_mask = mask_of(settings, box, pixel_size) ** 2
    grid = rings.grid()
    ring = PolarGrid(grid.radii, grid.weights, 64, grid.k_max)  # a mask of pixels is not quite round
    means = transform_to_polar(squared_mask[None], ring, pixel_size, 1e-9)[0].real.mean(dim=1)
    theta = np.pi * np.arange(16) / 16
    points = CtfPoints(grid.radii[:, None] * np.cos(theta), grid.radii[:, None] * np.sin(theta), device)
    return (means * torch.from_numpy(grid.weights)).to(device), points
