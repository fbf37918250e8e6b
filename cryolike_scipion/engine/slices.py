"""Central slices of a structure's Fourier transform at any orientation.

The slice of orientation A at (kx, ky) is ``F(Aᵀ (kx, ky, 0))``, F as in :mod:`.fourier_volume`. Beyond the structure's own
band limit it is 0.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .density_map import extent
from .fourier_volume import FourierVolume
from .polar_grid import PolarGrid
from .shells import ShellTable
from .structures import Structure

__all__ = ["SliceMaker"]

_EPS = 1e-5
_POINTS_AT_ONCE = 1 << 18


class SliceMaker:
    """Central slices of one structure at fixed points of the slice plane; may be called from several threads at once.

    On a polar grid in single precision the spheres of its radii are tabulated first, and a slice then costs little. At other
    points, and in double precision, every point is interpolated in the volume.

    Parameters
    ----------
    structure : Structure
        What to slice.
    grid : PolarGrid or array_like [..., 2]
        Where: the stored half circle of a polar grid, or points (kx, ky) in 1/Å.
    dtype : torch.complex64 or torch.complex128
        Precision.
    eps : float, optional
        Relative accuracy; default 1e-5 in single and 1e-12 in double precision.
    device : str or torch.device
        Where the slices are wanted. Only those on a polar grid in single precision are also computed there.
    """

    def __init__(
        self,
        structure: Structure,
        grid: PolarGrid | ArrayLike,
        dtype: torch.dtype = torch.complex64,
        eps: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._shells: ShellTable | None = None
        if isinstance(grid, PolarGrid) and dtype == torch.complex64:
            eps = _EPS if eps is None else eps
            volume = FourierVolume(structure, dtype, max(0.1 * eps, 1e-6), float(grid.radii[-1]))
            self._shells = ShellTable(volume, grid, extent(structure.density, structure.pixel_size), eps, device)
            return
        points = grid.points_half() if isinstance(grid, PolarGrid) else np.asarray(grid, dtype=np.float64)
        self._shape = points.shape[:-1]
        self._points = points.reshape(-1, 2)
        self._dtype = np.complex64 if dtype == torch.complex64 else np.complex128
        largest = float(np.sqrt(np.max(np.sum(self._points**2, axis=1))))
        self._volume = FourierVolume(structure, dtype, eps, largest)

    def __call__(self, rotations: NDArray[np.float64]) -> Tensor:
        """Slices at orientations A, float64 [V, 3, 3] -> complex [V, ...]; for a polar grid [V, n, W/2].

        ``F(Aᵀ (kx, ky, 0))``: the in-plane angle psi is part of A. In units of density times Å³.
        """
        rotations = np.asarray(rotations, dtype=np.float64)
        if self._shells is not None:
            return self._shells.slices(rotations)
        values = np.empty((len(rotations), len(self._points)), dtype=self._dtype)
        batch = max(1, _POINTS_AT_ONCE // max(1, len(self._points)))
        for start in range(0, len(rotations), batch):
            part = rotations[start : start + batch]
            frequencies = (self._points @ part[:, :2, :]).reshape(-1, 3)
            values[start : start + batch] = self._volume.at(frequencies).reshape(len(part), -1)
        return torch.from_numpy(values.reshape(len(rotations), *self._shape)).to(self._device)
