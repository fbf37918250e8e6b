"""The Fourier transform of a structure at any frequency.

The transform of a density on voxels x_j (measured from voxel ``N // 2``) is

    F(k) = pixel³ · Σ_j ρ(x_j) exp(−2πi k·x_j) ≈ ∫ ρ(x) exp(−2πi k·x) d³x        [ρ · Å³]

It is evaluated by a non-uniform FFT of type 2 (finufft; Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput.
41, 2019): divide the density by the transform of a kernel, take one zero-padded FFT, and interpolate with the
kernel. The padded FFT depends on the structure alone, so it is made once; F(−k) = conj F(k) leaves half of it.
"""

from __future__ import annotations

import threading

import finufft
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from .gridding import KERNEL_REACH, LEAST_CELLS, kernel_plan, kernel_transform
from .polar_grid import fft_friendly
from .structures import Structure

__all__ = ["FourierVolume"]

_EPS = {torch.complex64: 1e-5, torch.complex128: 1e-12}
_POINTS_AT_ONCE = 1 << 20
_BAND_SLACK = 1.0 + 1e-9  # a radius equal to the band limit but for rounding is inside


class FourierVolume:
    """The Fourier transform of a structure at any frequency; may be used from several threads at once.

    Parameters
    ----------
    structure : Structure
        The density; its grey values times Å³ are the unit of the transform.
    dtype : torch.complex64 or torch.complex128
        Precision of the result and of the work.
    eps : float, optional
        Relative accuracy of the transform; default 1e-5 in single and 1e-12 in double precision.
    k_max : float, optional
        Radius (1/Å) of the ball that will be asked for; F is 0 beyond it. Default: the structure's own limit.

    Notes
    -----
    Holds at most (2 N)³ / 2 complex values, 70 MB for N = 128 in single precision, less where ``k_max`` is below
    Nyquist, and while it is made half as much again.
    """

    def __init__(
        self,
        structure: Structure,
        dtype: torch.dtype = torch.complex64,
        eps: float | None = None,
        k_max: float | None = None,
    ) -> None:
        self.pixel_size = structure.pixel_size
        self.k_max = structure.k_max if k_max is None else min(k_max, structure.k_max)
        self._complex = np.complex64 if dtype == torch.complex64 else np.complex128
        self._real = np.float32 if dtype == torch.complex64 else np.float64
        self._fine = fft_friendly(max(2 * structure.box, LEAST_CELLS), 2)
        self._eps = _EPS[dtype] if eps is None else eps
        # Only the part of the grid that the kernel can reach from within the band is kept.
        reach = int(np.ceil(self.k_max * _BAND_SLACK * self.pixel_size * self._fine)) + KERNEL_REACH
        reach = max(reach, LEAST_CELLS // 2)
        self._first = np.array([-KERNEL_REACH, -reach, -reach])  # of x, y, z: lowest mode of the grid
        self._shape = (2 * reach, 2 * reach, max(reach + KERNEL_REACH, LEAST_CELLS))
        self._grid = self._padded_transform(structure.density)
        self._plans = threading.local()

    def _padded_transform(self, density: NDArray[np.float32]) -> NDArray[np.complexfloating]:
        """Transform on the kept part of the fine grid, [z, y, x], ready for interpolation.

        By planes and axis by axis, so that neither zeros nor modes that are not kept take memory.
        """
        size, fine = density.shape[0], self._fine
        offset = np.arange(size) - size // 2
        place = offset % fine
        factor = 1.0 / kernel_transform(fine, offset, self._eps, self._complex)
        plane = self.pixel_size**3 * factor[:, None] * factor
        z_modes, y_modes, x_modes = (np.arange(n) + first for n, first in zip(self._shape, self._first[::-1]))
        x_modes = x_modes % fine
        lower = np.flatnonzero(x_modes > fine // 2)
        x_modes[lower] = fine - x_modes[lower]
        by_plane = np.empty((size, *self._shape[1:]), dtype=self._complex)
        rows = np.zeros((size, fine), dtype=self._real)
        columns = np.zeros((fine, len(x_modes)), dtype=self._complex)
        for z in range(size):
            rows[:, place] = density[z] * (factor[z] * plane)
            along_x = scipy.fft.rfft(rows, axis=1)[:, x_modes]
            along_x[:, lower] = along_x[:, lower].conj()
            columns[place] = along_x
            by_plane[z] = scipy.fft.fft(columns, axis=0)[y_modes % fine]
        grid: NDArray[np.complexfloating] = np.empty(self._shape, dtype=self._complex)
        for y in range(self._shape[1]):
            columns[place] = by_plane[:, y]
            grid[:, y] = scipy.fft.fft(columns, axis=0)[z_modes % fine]
        return grid

    def at(self, frequencies: NDArray[np.float64]) -> NDArray:
        """F at frequencies (kx, ky, kz) in 1/Å, float64 [P, 3] -> complex [P]; 0 beyond the band limit."""
        values = np.empty(len(frequencies), dtype=self._complex)
        for start in range(0, len(frequencies), _POINTS_AT_ONCE):
            part = slice(start, start + _POINTS_AT_ONCE)
            values[part] = self._at(frequencies[part])
        return values

    def _at(self, frequencies: NDArray[np.float64]) -> NDArray:
        inside = np.einsum("pc,pc->p", frequencies, frequencies) <= (self.k_max * _BAND_SLACK) ** 2
        everything = bool(inside.all())
        asked = frequencies if everything else frequencies[inside]
        lower = asked[:, 0] < 0
        cells = asked * np.where(lower, -1.0, 1.0)[:, None]
        cells *= self.pixel_size * self._fine
        cells -= self._first
        # In finufft's convention a turn is the whole axis, and the angle 0 its middle.
        angles = [((2.0 * np.pi / n) * cells[:, i] - np.pi).astype(self._real) for i, n in enumerate(self._shape[::-1])]
        found = np.zeros(0, dtype=self._complex)
        if len(asked):
            plan = self._plan()
            plan.setpts(*angles[::-1])
            found = plan.execute(self._grid)
            np.conjugate(found, out=found, where=lower)
        if everything:
            return found
        values = np.zeros(len(frequencies), dtype=self._complex)
        values[inside] = found
        return values

    def _plan(self) -> finufft.Plan:
        """This thread's plan: a plan remembers its points."""
        if not hasattr(self._plans, "plan"):
            self._plans.plan = kernel_plan(2, self._shape, self._eps, self._complex)
        return self._plans.plan
