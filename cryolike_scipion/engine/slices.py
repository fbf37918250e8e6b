"""Central slices of a structure's Fourier transform at any orientation.

The transform of a density on voxels x_j (measured from voxel ``N // 2``) is

    F(k) = pixel³ · Σ_j ρ(x_j) exp(−2πi k·x_j) ≈ ∫ ρ(x) exp(−2πi k·x) d³x        [ρ · Å³]

and the slice of orientation A at (kx, ky) is ``F(Aᵀ (kx, ky, 0))``. Beyond the structure's own band limit it
is 0.

F is evaluated by a non-uniform FFT of type 2 (finufft; Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput.
41, 2019): divide the density by the transform of a kernel, take one zero-padded FFT, and interpolate with the
kernel. The padded FFT depends on the structure alone, so it is made once; every later view costs its
interpolation only.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .gridding import KERNEL_REACH, LEAST_CELLS, kernel_plan, kernel_transform
from .polar_grid import PolarGrid, fft_friendly
from .structures import Structure

_EPS = {torch.complex64: 1e-5, torch.complex128: 1e-12}
_POINTS_AT_ONCE = 1 << 20
_BAND_SLACK = 1.0 + 1e-9  # a radius equal to the band limit but for rounding is inside


class FourierVolume:
    """The Fourier transform of a structure at any frequency.

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
    Holds at most (2 N)³ complex values, 134 MB for N = 128 in single precision, less where ``k_max`` is below
    Nyquist.
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
        size = structure.density.shape[0]
        self._fine = fft_friendly(max(2 * size, LEAST_CELLS), 2)
        self._eps = _EPS[dtype] if eps is None else eps
        # Only the part of the grid that the kernel can reach from within the band is kept.
        reach = int(np.ceil(self.k_max * _BAND_SLACK * self.pixel_size * self._fine)) + KERNEL_REACH
        self._kept = min(self._fine, max(2 * reach, LEAST_CELLS))
        self._grid = self._padded_transform(structure.density)
        self._plan = kernel_plan(2, (self._kept,) * 3, self._eps, self._complex)

    def _padded_transform(self, density: NDArray[np.float32]) -> NDArray[np.complexfloating]:
        """Transform on the fine grid, [z, y, x], zero frequency in the middle, ready for interpolation."""
        size, fine = density.shape[0], self._fine
        offset = np.arange(size) - size // 2
        # (−1)^offset puts zero frequency at the middle of the grid.
        factor = np.where(offset % 2 == 0, 1.0, -1.0) / kernel_transform(fine, offset, self._eps, self._complex)
        weighted = density * (factor[:, None, None] * factor[:, None] * factor * self.pixel_size**3)
        padded = np.zeros((fine,) * 3, dtype=self._complex)
        place = offset % fine
        padded[np.ix_(place, place, place)] = weighted
        transform = scipy.fft.fftn(padded, overwrite_x=True, workers=torch.get_num_threads())
        if self._kept == fine:
            return transform
        middle = slice((fine - self._kept) // 2, (fine + self._kept) // 2)
        return np.ascontiguousarray(transform[middle, middle, middle])

    def at(self, frequencies: NDArray[np.float64]) -> NDArray:
        """F at frequencies (kx, ky, kz) in 1/Å, float64 [P, 3] -> complex [P]; 0 beyond the band limit."""
        values = np.zeros(len(frequencies), dtype=self._complex)
        limit = (self.k_max * _BAND_SLACK) ** 2
        to_grid = 2.0 * np.pi * self.pixel_size * self._fine / self._kept  # a turn is the whole kept grid
        for start in range(0, len(frequencies), _POINTS_AT_ONCE):
            part = frequencies[start : start + _POINTS_AT_ONCE]
            inside = np.einsum("pc,pc->p", part, part) <= limit
            if not inside.any():
                continue
            points = (to_grid * part[inside].T).astype(self._real)
            self._plan.setpts(*(np.ascontiguousarray(axis) for axis in points[::-1]))
            target = values[start : start + _POINTS_AT_ONCE]
            target[inside] = self._plan.execute(self._grid)
        return values


class SliceMaker:
    """Central slices of one structure at fixed points of the slice plane.

    Parameters
    ----------
    structure : Structure
        What to slice.
    grid : PolarGrid or array_like [..., 2]
        Where: the stored half circle of a polar grid, or points (kx, ky) in 1/Å.
    dtype : torch.complex64 or torch.complex128
        Precision.
    eps : float, optional
        Relative accuracy; see :class:`FourierVolume`.
    device : str or torch.device
        Where the slices are wanted. They are computed on the CPU.
    """

    def __init__(
        self,
        structure: Structure,
        grid: PolarGrid | ArrayLike,
        dtype: torch.dtype = torch.complex64,
        eps: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        points = grid.points_half() if isinstance(grid, PolarGrid) else np.asarray(grid, dtype=np.float64)
        self._shape = points.shape[:-1]
        self._points = points.reshape(-1, 2)
        self._device = torch.device(device)
        largest = float(np.sqrt(np.max(np.sum(self._points**2, axis=1))))
        self.volume = FourierVolume(structure, dtype, eps, largest)

    def __call__(self, rotations: NDArray[np.float64]) -> Tensor:
        """Slices at orientations A, float64 [V, 3, 3] -> complex [V, ...]; for a polar grid [V, n, W/2].

        ``F(Aᵀ (kx, ky, 0))``: the in-plane angle psi is part of A. In units of density times Å³.
        """
        rotations = np.asarray(rotations, dtype=np.float64)
        values = np.empty((len(rotations), len(self._points)), dtype=self.volume._complex)
        batch = max(1, _POINTS_AT_ONCE // max(1, len(self._points)))
        for start in range(0, len(rotations), batch):
            part = rotations[start : start + batch]
            frequencies = (self._points @ part[:, :2, :]).reshape(-1, 3)
            values[start : start + batch] = self.volume.at(frequencies).reshape(len(part), -1)
        return torch.from_numpy(values.reshape(len(rotations), *self._shape)).to(self._device)
