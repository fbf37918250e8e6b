"""A structure's density on the grid of the particles, so that both open side by side."""

from __future__ import annotations

import numpy as np

from .fourier_volume import FourierVolume
from .structures import Structure

__all__ = ["density_on_grid"]


def density_on_grid(structure: Structure, box: int, pixel_size: float) -> np.ndarray:
    """Density of a structure on ``box``³ voxels of ``pixel_size`` (Å), band-limited to both grids: float32 [z, y, x].

    The transform is sampled at the new grid's frequencies, as in a projection, and brought back by an inverse FFT; what lies
    outside the new box wraps around.
    """
    full = np.fft.fftfreq(box, pixel_size)
    half = np.fft.rfftfreq(box, pixel_size)
    kz, ky, kx = np.meshgrid(full, full, half, indexing="ij")
    inside = kx**2 + ky**2 + kz**2 < min(structure.k_max, 0.5 / pixel_size) ** 2 * (1 - 1e-9)
    spectrum = np.zeros(inside.shape, dtype=np.complex64)
    spectrum[inside] = FourierVolume(structure).at(np.stack([kx[inside], ky[inside], kz[inside]], axis=-1))
    density = np.fft.irfftn(spectrum, s=(box, box, box), axes=(0, 1, 2)) / pixel_size**3
    return np.roll(density, (box // 2,) * 3, axis=(0, 1, 2)).astype(np.float32)
