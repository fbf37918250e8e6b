"""Density maps from MRC files, and how far from the centre a map reaches.

As in RELION the centre of a map is voxel ``N // 2`` on every axis; the origin and start fields of the header
are ignored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_REAL_MODES = (0, 1, 2, 6, 12)
_ANISOTROPY = 1e-3  # relative difference of pixel sizes that is taken for rounding in the header
_POWER_INSIDE = 0.9999
_POWER_BEYOND = 1e-13  # of a map's power, beyond its extent
_EDGE_SHELL = 0.95  # of the half box: where the background of a map is measured


@dataclass(frozen=True)
class DensityMap:
    """A cubic map.

    Attributes
    ----------
    density : float32 [z, y, x]
        Grey values as in the file.
    pixel_size : float
        Å.
    """

    density: NDArray[np.float32]
    pixel_size: float


def read_map(path: str | Path) -> DensityMap:
    """Read a cubic map (``.mrc`` or ``.map``, also compressed with gzip or bzip2).

    Modes 0, 1, 2, 6 and 12 (signed and unsigned integers, half and single precision). The axis order of the
    header is honoured, its origin and start are ignored.

    Raises
    ------
    InputError
        If the file is missing or no MRC file, is truncated, complex, not a cube, has no or an anisotropic
        pixel size, or holds NaN, infinite or only equal values.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a file longer than its header says can be read
            with mrcfile.open(path, permissive=False) as handle:
                return _checked(path, handle)
    except FileNotFoundError:
        raise InputError("map does not exist", file=path, remedy="Check the name.") from None
    except (OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"map cannot be read ({reason})", file=path, remedy="Give a complete MRC file.") from None


def _checked(path: Path, handle: mrcfile.mrcfile.MrcFile) -> DensityMap:
    header, data = handle.header, handle.data
    if data is None or data.size == 0:
        raise InputError("map holds no data", file=path, remedy="Give a complete MRC file.")
    if int(header.mode) not in _REAL_MODES:
        raise InputError(f"map has mode {int(header.mode)}", file=path, remedy="Give a map of real numbers.")
    if data.ndim != 3 or len(set(data.shape)) != 1:
        size = " × ".join(str(n) for n in reversed(data.shape))
        raise InputError(f"map is not a cube ({size} voxels)", file=path, remedy="Pad or crop it to a cube.")
    axes = (int(header.mapc), int(header.mapr), int(header.maps))
    if axes == (0, 0, 0):
        axes = (1, 2, 3)
    if sorted(axes) != [1, 2, 3]:
        raise InputError(f"header has axis order {axes}", file=path, remedy="Write the map anew as 1, 2, 3.")
    density = np.transpose(data, [2 - axes.index(3), 2 - axes.index(2), 2 - axes.index(1)]).astype(np.float32)
    voxel = np.array([handle.voxel_size.x, handle.voxel_size.y, handle.voxel_size.z], dtype=np.float64)
    if not np.all(np.isfinite(voxel)) or np.any(voxel <= 0):
        raise InputError(
            f"pixel size is {voxel[0]:g} Å",
            file=path,
            remedy="Write the pixel size into the header of the map.",
        )
    if np.ptp(voxel) > _ANISOTROPY * voxel.mean():
        sizes = " × ".join(f"{v:g}" for v in voxel)
        raise InputError(f"pixel size differs between axes ({sizes} Å)", file=path, remedy="Resample the map.")
    if not np.all(np.isfinite(density)):
        count = int(np.count_nonzero(~np.isfinite(density)))
        raise InputError(f"map holds {count} NaN or infinite values", file=path, remedy="Repair the map.")
    if density.min() == density.max():
        raise InputError(f"map is constant ({density.flat[0]:g})", file=path, remedy="Give a map with a structure.")
    return DensityMap(np.ascontiguousarray(density), float(voxel.mean()))


def support_radius(density: NDArray[np.floating], pixel_size: float) -> float:
    """Radius about the centre that holds 99.99 % of a map's power above its background, Å, at most half the
    box.

    Background mean and variance are those of the shell between 0.95 and 1 half box. A map with as much power
    there as inside gets half the box.

    Parameters
    ----------
    density : [z, y, x]
        Cubic map.
    pixel_size : float
        Å.
    """
    half = density.shape[0] // 2
    shell_sum, shell_square, count = _shells(density)
    edge = slice(int(_EDGE_SHELL * half), half)
    mean = shell_sum[edge].sum() / count[edge].sum()
    variance = shell_square[edge].sum() / count[edge].sum() - mean**2
    power = shell_square - 2.0 * mean * shell_sum + count * (mean**2 - variance)
    inside = np.cumsum(power[:half])
    if inside[-1] <= 0:
        return half * pixel_size
    shells = int(np.argmax(inside >= _POWER_INSIDE * inside[-1])) + 1
    return min(shells, half) * pixel_size


def extent(density: NDArray[np.floating], pixel_size: float) -> float:
    """Radius about the centre beyond which a density is 0 but for 1e-13 of its power, Å."""
    _, square, _ = _shells(density)
    beyond = np.cumsum(square[::-1])[::-1]
    return float(np.count_nonzero(beyond > _POWER_BEYOND * beyond[0]) * pixel_size)


def _shells(density: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Sum, sum of squares and number of voxels in shells one voxel wide about the centre, each [2 N]."""
    size = density.shape[0]
    shell_sum, shell_square = np.zeros(2 * size), np.zeros(2 * size)
    count = np.zeros(2 * size, dtype=np.int64)
    axis2 = (np.arange(size) - size // 2) ** 2
    for z in range(size):  # by planes, so that no second volume is needed
        shell = np.sqrt(axis2[z] + axis2[:, None] + axis2[None, :]).astype(np.int64).ravel()
        plane = np.asarray(density[z], dtype=np.float64).ravel()
        shell_sum += np.bincount(shell, plane, minlength=2 * size)
        shell_square += np.bincount(shell, plane**2, minlength=2 * size)
        count += np.bincount(shell, minlength=2 * size)
    return shell_sum, shell_square, count
