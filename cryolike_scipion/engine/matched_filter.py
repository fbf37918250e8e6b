"""Images behind their CTF once more, cut with a window, at the points of a polar grid.

An image is padded against wrap-around, transformed, multiplied by its CTF, brought back on as few pixels as the band needs,
multiplied by a window, and transformed once more, on a grid twice as fine, between whose cells the polar points are
interpolated. What this needs is the same for all images of one box, and is made once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from .ctf import CtfPoints
from .es_kernel import OVERSAMPLING, Kernel
from .image_prep import soft_disc
from .polar_grid import PolarGrid

__all__ = ["IMAGES_AT_ONCE", "MatchedFilter"]

_EPS = {torch.float32: 1e-5, torch.float64: 1e-9}
IMAGES_AT_ONCE = 16  # a row of the table is then whole vectors of the processor, and the work stays in its cache


class MatchedFilter:
    """Transform of window · (CTF * image) at the stored half circle of a polar grid; the same for any number of threads.

    Parameters
    ----------
    pixel_size : float
        Å.
    padded : int
        DFT length P that keeps what the CTF carries over the edge from the window.
    radius, edge : float
        Å: the window is 1 up to the radius, and falls to 0 over the edge.
    grid : PolarGrid
        Frequencies beyond its ``k_max`` are left out where that saves work: before the window or after, an inner product with a
        template, which has none, is as near to that without a window.
    dtype : torch.float32 or torch.float64
        Of images.
    """

    def __init__(
        self, pixel_size: float, padded: int, radius: float, edge: float, grid: PolarGrid, dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self._padded, self._grid = padded, grid
        cells = min(padded // 2, int(np.ceil(grid.k_max * padded * pixel_size)) + 1)  # of the band, from zero frequency
        small = int(next_fast_len(2 * cells + 2, real=True))
        self._small = padded if small >= padded else small
        self._rows = _around_zero(padded // 2 if self._small == padded else cells, padded)
        self._columns = padded // 2 + 1 if self._small == padded else cells + 1
        frequency = np.fft.fftfreq(padded, pixel_size)
        across = np.fft.rfftfreq(padded, pixel_size)[: self._columns]
        kx, ky = np.meshgrid(across, frequency[self._rows], indexing="ij")
        self._ctf = CtfPoints(kx, ky, device)
        coarse = pixel_size * padded / self._small
        self._reach = min(int(np.ceil((radius + edge) / coarse)), (self._small - 1) // 2)
        self._kernel = Kernel.of_accuracy(_EPS[dtype])
        least = max(OVERSAMPLING * (2 * self._reach + 1), 2 * self._kernel.width + 2)
        self._fine = int(next_fast_len(int(np.ceil(least / 2)))) * 2
        self._window = self._window_of(radius / coarse, edge / coarse, coarse / padded).to(device, dtype)
        self._taps_of(coarse, dtype, device)

    def _window_of(self, radius: float, edge: float, unit: float) -> Tensor:
        """unit² · window over the kernel's transform, the centre at index 0: float64 [2 reach + 1, 2 reach + 1]."""
        size = 2 * self._reach + 1
        offset = np.arange(size) - self._reach
        factor = torch.from_numpy(unit / self._kernel.transform(offset, self._fine))
        window = soft_disc(size, radius, edge) * factor[:, None] * factor
        return torch.roll(window, (-self._reach, -self._reach), dims=(0, 1))

    def _taps_of(self, pixel: float, dtype: torch.dtype, device: torch.device | str) -> None:
        """Cells and weights of every polar point, in the half plane kx >= 0 with the kernel's reach on either side."""
        points = self._grid.points_half().copy()
        points[:, self._grid.n_half // 2 :] *= -1.0  # to kx >= 0, where the value is the conjugate
        kx, ky = torch.from_numpy(points.reshape(-1, 2) * pixel * self._fine).unbind(1)
        self._margin = self._kernel.width // 2 + 1
        column, column_weight = self._kernel.taps(kx, dtype)
        row, row_weight = self._kernel.taps(ky, dtype)
        column += self._margin
        self._table_columns = int(column.max()) + 1
        index = column[:, :, None] * self._fine + (row % self._fine)[:, None, :]
        self._index = index.flatten(1).to(device)
        self._weights = (column_weight[:, :, None] * row_weight[:, None, :]).flatten(1).to(device)

    def __call__(self, spectrum: Tensor, arguments: dict[str, Tensor], out: Tensor) -> None:
        """Coefficients (grey · Å²) into ``out`` [m, n, W/2], at best of `IMAGES_AT_ONCE` images.

        Parameters
        ----------
        spectrum : complex Tensor [m, P / 2 + 1, P]
            From `centred_spectrum`; is overwritten.
        arguments : dict of float64 Tensor [m]
            Of `ctf`.
        out : complex Tensor [m, n, W/2]
        """
        self._interpolate(self._spectra(self._filtered(spectrum, self._ctf(arguments, out.real.dtype))), out)

    def _filtered(self, spectrum: Tensor, transfer: Tensor) -> Tensor:
        """CTF * image in the rows of the window, without scale: [m, 2 reach + 1, small], the centre at index 0."""
        if self._small < self._padded:
            few = spectrum.new_zeros(len(spectrum), self._columns, self._small)
            kept, cells = spectrum[:, : self._columns], self._columns - 1
            torch.mul(kept[..., : cells + 1], transfer[..., : cells + 1], out=few[..., : cells + 1])
            torch.mul(kept[..., self._padded - cells :], transfer[..., cells + 1 :], out=few[..., self._small - cells :])
            spectrum = few
        else:
            spectrum *= transfer
        back = torch.fft.ifft(spectrum, norm="forward").transpose(1, 2)
        reach = self._reach
        within = torch.cat([back[:, : reach + 1], back[:, self._small - reach :]], dim=1)
        return torch.fft.irfft(within, n=self._small, norm="forward")

    def _spectra(self, filtered: Tensor) -> Tensor:
        """Transform of the windowed images on the fine grid, kx >= 0: complex [m, fine / 2 + 1, fine] over kx, ky."""
        reach, fine = self._reach, self._fine
        rows = filtered.new_zeros(len(filtered), 2 * reach + 1, fine)
        torch.mul(filtered[..., : reach + 1], self._window[:, : reach + 1], out=rows[..., : reach + 1])
        torch.mul(filtered[..., self._small - reach :], self._window[:, reach + 1 :], out=rows[..., fine - reach :])
        along = torch.fft.rfft(rows).transpose(1, 2)
        columns = along.new_zeros(len(filtered), fine // 2 + 1, fine)
        columns[..., : reach + 1] = along[..., : reach + 1]
        columns[..., fine - reach :] = along[..., reach + 1 :]
        return torch.fft.fft(columns)

    def _interpolate(self, spectra: Tensor, out: Tensor) -> None:
        """Values at the polar points into ``out`` [m, n, W/2]."""
        count, fine, half = len(spectra), self._fine, self._fine // 2
        last = min(self._table_columns - self._margin - 1, half)
        first, beyond = self._margin, self._table_columns - self._margin - 1 - last
        table = spectra.new_empty(self._table_columns, fine, count)  # images innermost: every tap is a sum of whole rows
        table[first : first + last + 1] = spectra[:, : last + 1].permute(1, 2, 0)
        # F(−k) = conj F(k), and the grid is periodic.
        self._mirror(spectra[:, 1 : first + 1], table[:first])
        self._mirror(spectra[:, half - beyond : half], table[first + last + 1 :])
        flat = torch.view_as_real(table).view(fine * self._table_columns, 2 * count)
        found = torch.nn.functional.embedding_bag(self._index, flat, mode="sum", per_sample_weights=self._weights)
        values = torch.view_as_complex(found.view(self._grid.n_radii, self._grid.n_half, count, 2)).permute(2, 0, 1)
        middle = self._grid.n_half // 2
        out[..., :middle] = values[..., :middle]
        out[..., middle:] = values[..., middle:].conj()

    @staticmethod
    def _mirror(columns: Tensor, out: Tensor) -> None:
        """The conjugate of columns [m, c, fine] at −k into ``out`` [c, fine, m]."""
        mirrored = columns.permute(1, 2, 0).flip(0).conj()
        out[:, 0], out[:, 1:] = mirrored[:, 0], mirrored[:, 1:].flip(1)


def _around_zero(cells: int, length: int) -> NDArray[np.int64]:
    """Indices of a DFT's frequencies from 0 to ``cells``, and from −cells to −1; each once."""
    return np.unique(np.concatenate([np.arange(cells + 1), np.arange(length - cells, length)]))
