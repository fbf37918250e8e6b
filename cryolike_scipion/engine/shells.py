"""The Fourier transform of a structure on concentric spheres, tabulated for slices on a polar grid.

Every slice on a polar grid meets the sphere of radius k_n in a great circle, at the same directions for every n. On such a
sphere the transform of a density within a radius R is a trigonometric polynomial of degree about ``2 pi k_n R`` in the polar
angle theta and the azimuth phi, with theta continued over the poles (double Fourier sphere; Townsend, Wilber & Wright, SIAM J.
Sci. Comput. 38, C403, 2016). It is tabulated twice as finely as this needs, ready for the kernel of :mod:`.es_kernel`, and a
direction costs one sum over w² entries of the table, each a row of all radii: the weights are the same for every radius.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from .es_kernel import OVERSAMPLING, Kernel
from .fourier_volume import FourierVolume
from .polar_grid import PolarGrid, fft_friendly, largest_ring_number
from .workers import parallel

__all__ = ["ShellTable"]

_DEGREE_ACCURACY = 1e-7
_POINTS_AT_ONCE = 1 << 12
_SAMPLES_AT_ONCE = 1 << 20
_RADII_AT_ONCE = 16  # written side by side: a column alone would touch every line of the table


class ShellTable:
    """Transform of a structure on the spheres of a polar grid's radii, in single precision.

    Parameters
    ----------
    volume : FourierVolume
        What is tabulated; not needed afterwards.
    grid : PolarGrid
    extent : float
        Radius (Å) about the centre that holds the density.
    eps : float
        Relative accuracy of the interpolation on each sphere.
    device : str or torch.device
        Where the table is kept and used.

    Notes
    -----
    Holds about ``(2 pi k_max R)² · 4 n`` complex values for n radii: about two thirds of a zero-padded volume. It is not
    changed after it is made, so that any number of threads may use it.
    """

    def __init__(
        self, volume: FourierVolume, grid: PolarGrid, extent: float, eps: float, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self._kernel = Kernel.of_accuracy(eps)
        width = self._kernel.width
        samples = [_samples(extent, k) for k in grid.radii]
        self._cells = fft_friendly(int(np.ceil(OVERSAMPLING * max(*samples, 2 * width))))
        self._margin = width // 2 + 1
        self._n_radii = grid.n_radii
        angles = grid.angles_half
        self._directions = torch.as_tensor(np.stack([np.cos(angles), np.sin(angles)]), device=self.device)
        table = np.empty((self._rows * self._cells, grid.n_radii), dtype=np.complex64)

        def fill(group: slice) -> None:
            # Neighbouring spheres together: their points are then dense enough in the volume to share what is read of it.
            counts = samples[group]
            points = [_upper_half(k, count) for k, count in zip(grid.radii[group], counts)]
            values = np.split(volume.at(np.concatenate(points)), np.cumsum([len(some) for some in points])[:-1])
            columns = [self._tabulate(_doubled(some.reshape(-1, count))) for some, count in zip(values, counts)]
            table[:, group] = np.stack(columns).reshape(len(columns), -1).T

        for _ in parallel(fill, _groups(samples)):
            pass
        self._table = torch.from_numpy(table.view(np.float32)).to(self.device)

    @property
    def _rows(self) -> int:
        """Cells in theta: from 0 to 90 degrees, and the kernel's reach on either side."""
        return self._cells // 4 + 1 + 2 * self._margin

    def _tabulate(self, values: NDArray[np.complex128]) -> NDArray[np.complexfloating]:
        """Values on a doubled sphere [theta, phi] as entries of the table [row, cell]."""
        count = len(values)
        mode = scipy.fft.fftfreq(count, 1.0 / count).astype(np.int64)
        factor = 1.0 / (count * self._kernel.transform(mode, self._cells))
        modes = scipy.fft.fft2(values, overwrite_x=True) * (factor[:, None] * factor)
        padded = np.zeros((self._cells, count), dtype=modes.dtype)
        padded[mode] = modes
        rows = np.arange(-self._margin, self._rows - self._margin)
        some = scipy.fft.ifft(padded, axis=0, norm="forward", overwrite_x=True)[rows]
        padded = np.zeros((len(rows), self._cells), dtype=modes.dtype)
        padded[:, mode] = some
        return scipy.fft.ifft(padded, axis=1, norm="forward", overwrite_x=True)

    def slices(self, rotations: NDArray[np.float64]) -> Tensor:
        """Slices at orientations A, float64 [V, 3, 3] -> complex64 [V, n, W/2]."""
        turned = torch.as_tensor(rotations[:, :2], dtype=torch.float64, device=self.device)
        directions = torch.einsum("cw,vcx->vwx", self._directions, turned)
        views, angles = directions.shape[:2]
        found = torch.empty(views, self._n_radii, angles, dtype=torch.complex64, device=self.device)
        batch = max(1, _POINTS_AT_ONCE // angles)
        for start in range(0, views, batch):
            part = slice(start, start + batch)
            values = self._interpolate(directions[part].flatten(0, 1))
            found[part] = values.unflatten(0, (-1, angles)).transpose(1, 2)
        return found

    def _interpolate(self, directions: Tensor) -> Tensor:
        """Values at unit vectors [p, 3]: complex64 [p, n]."""
        x, y, z = directions.unbind(1)
        lower = torch.where(z < 0, -1.0, 1.0)  # F(−k) = conj F(k): only the upper half of the sphere is there
        per_radian = self._cells / (2 * np.pi)
        row, row_weight = self._kernel.taps(torch.atan2(torch.hypot(x, y), z.abs()) * per_radian)
        cell, cell_weight = self._kernel.taps(torch.atan2(lower * y, lower * x) * per_radian)
        index = (row + self._margin)[:, :, None] * self._cells + (cell % self._cells)[:, None, :]
        weights = row_weight[:, :, None] * cell_weight[:, None, :]
        values = torch.nn.functional.embedding_bag(
            index.flatten(1), self._table, mode="sum", per_sample_weights=weights.flatten(1)
        )
        values[:, 1::2] *= lower[:, None].to(values)
        return torch.view_as_complex(values.view(len(values), -1, 2))


def _samples(extent: float, k: float) -> int:
    """Samples round a great circle that hold the transform on the sphere of radius k."""
    return fft_friendly(2 * (largest_ring_number(extent, k, _DEGREE_ACCURACY) + 1))


def _groups(samples: list[int]) -> list[slice]:
    """Spheres that are worked on together, for their numbers of samples round a great circle."""
    groups, first = [], 0
    while first < len(samples):
        last, points = first, 0
        while last < len(samples) and last - first < _RADII_AT_ONCE and points < _SAMPLES_AT_ONCE:
            points += samples[last] ** 2 // 4
            last += 1
        groups.append(slice(first, last))
        first = last
    return groups


def _upper_half(k: float, count: int) -> NDArray[np.float64]:
    """Frequencies [p, 3] at the samples with theta from 0 to 90 degrees, phi running fastest."""
    angle = 2.0 * np.pi * np.arange(count) / count
    theta, phi = angle[: count // 4 + 1, None], angle
    axes = np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta))
    return k * np.stack(axes, axis=-1).reshape(-1, 3)


def _doubled(upper: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """Values for theta from 0 to 90 degrees continued to all theta: [count, count]."""
    count = upper.shape[1]
    quarter, half = count // 4, count // 2
    values = np.empty((count, count), dtype=upper.dtype)
    values[: quarter + 1] = upper
    values[half - np.arange(quarter + 1)] = np.roll(upper, half, axis=1).conj()  # F(−k) = conj F(k)
    values[half + 1 :] = np.roll(values[half - 1 : 0 : -1], half, axis=1)  # −theta at phi is theta at phi + pi
    return values
