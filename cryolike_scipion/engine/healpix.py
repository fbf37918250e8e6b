"""HEALPix cells of the sphere, numbered so that each cell splits exactly into four.

HEALPix (Górski et al., ApJ 622, 759, 2005) divides the sphere into 12 square faces of equal area, and each
face into ``nside²`` cells of equal area. Here a cell is ``face · nside² + x · nside + y`` with 0 ≤ x, y <
nside counted from the southern corner of the face, for any ``nside`` and not only powers of two; the cells of
``2 nside`` numbered (2x, 2y) … (2x+1, 2y+1) tile cell (x, y) of ``nside`` exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# For each face: row of its southern corner, in units of nside from the north pole, and column of its centre.
_FACE_ROW = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_FACE_COLUMN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def cell_count(nside: int) -> int:
    """Number of cells, 12 nside²."""
    return 12 * nside * nside


def spacing_deg(nside: int) -> float:
    """Side of a square as large as a cell, in degrees: 58.6° / nside."""
    return float(np.rad2deg(np.sqrt(4.0 * np.pi / cell_count(nside))))


def nside_for(step_deg: float) -> int:
    """Smallest nside whose spacing does not exceed ``step_deg``."""
    return max(1, int(np.ceil(spacing_deg(1) / step_deg * (1.0 - 1e-12))))


def children(cells: NDArray[np.int64], nside: int) -> NDArray[np.int64]:
    """The four cells of ``2 nside`` that tile each given cell of ``nside``: int64 [V] -> int64 [V, 4]."""
    face, x, y = _split(cells, nside)
    fine = 2 * nside
    dx, dy = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    return (face[:, None] * fine + 2 * x[:, None] + dx) * fine + 2 * y[:, None] + dy


def centres(cells: NDArray[np.int64], nside: int) -> NDArray[np.float64]:
    """Unit vectors (x, y, z) of the centres of cells: int64 [V] -> float64 [V, 3]."""
    face, x, y = _split(cells, nside)
    # Ring number counted from the north pole, 1 … 4 nside − 1.
    ring = _FACE_ROW[face] * nside - x - y - 1
    north, south = ring < nside, ring > 3 * nside
    in_ring = np.where(north, ring, np.where(south, 4 * nside - ring, nside))
    cap = in_ring.astype(np.float64) ** 2 / (3.0 * nside**2)
    z = np.where(north, 1.0 - cap, np.where(south, cap - 1.0, (2 * nside - ring) * 2.0 / (3.0 * nside)))
    # In the caps 1 − z² is formed without cancellation.
    sine = np.sqrt(np.where(north | south, cap * (2.0 - cap), 1.0 - z * z))
    # The column counts quarters of π/in_ring; a face's own column shrinks with the ring in the caps.
    column = _FACE_COLUMN[face] * in_ring + x - y
    azimuth = column * (np.pi / 4.0) / in_ring
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), z], axis=-1)


def _split(cells: NDArray[np.int64], nside: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    cells = np.asarray(cells, dtype=np.int64)
    face, rest = np.divmod(cells, nside * nside)
    x, y = np.divmod(rest, nside)
    return face, x, y
