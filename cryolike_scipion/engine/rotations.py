"""RELION Euler angles and rotation matrices, batched, in float64.

Convention
----------
``A(rot, tilt, psi) = Z(psi) Y(tilt) Z(rot)`` with the *coordinate* rotations

    Z(a) = [[cos a, sin a, 0], [-sin a, cos a, 0], [0, 0, 1]]
    Y(b) = [[cos b, 0, -sin b], [0, 1, 0], [sin b, 0, cos b]]

so that the projection with these angles has the Fourier transform
``F2D(kx, ky) = F3D(Aᵀ (kx, ky, 0))`` and the viewing direction, in the frame of the structure, is the third
row of ``A``: ``(sin tilt cos rot, sin tilt sin rot, cos tilt)``. This is the matrix of RELION's
``Euler_angles2matrix``. Angles are degrees and matrices are ``[..., 3, 3]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

# Below this value of sin(tilt) rot and psi turn about the same axis and only their sum is defined.
_GIMBAL_SINE = 1e-9


def matrix_from_euler(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> NDArray[np.float64]:
    """RELION's matrix A(rot, tilt, psi).

    Parameters
    ----------
    rot, tilt, psi : array_like [...]
        Euler angles in degrees; broadcast against each other.

    Returns
    -------
    float64 [..., 3, 3]
    """
    a, b, g = np.broadcast_arrays(*(np.deg2rad(np.asarray(x, dtype=np.float64)) for x in (rot, tilt, psi)))
    ca, sa = np.cos(a), np.sin(a)
    cb, sb = np.cos(b), np.sin(b)
    cg, sg = np.cos(g), np.sin(g)
    matrix = np.empty(a.shape + (3, 3))
    matrix[..., 0, 0] = cg * cb * ca - sg * sa
    matrix[..., 0, 1] = cg * cb * sa + sg * ca
    matrix[..., 0, 2] = -cg * sb
    matrix[..., 1, 0] = -sg * cb * ca - cg * sa
    matrix[..., 1, 1] = -sg * cb * sa + cg * ca
    matrix[..., 1, 2] = sg * sb
    matrix[..., 2, 0] = sb * ca
    matrix[..., 2, 1] = sb * sa
    matrix[..., 2, 2] = cb
    return matrix


def euler_from_matrix(
    matrix: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Euler angles of rotation matrices; the inverse of :func:`matrix_from_euler`.

    Parameters
    ----------
    matrix : array_like [..., 3, 3]
        Rotation matrices in RELION's convention.

    Returns
    -------
    rot, tilt, psi : float64 [...]
        Degrees; rot and psi in (-180, 180], tilt in [0, 180]. Where tilt is 0 or 180 only one combination of
        rot and psi is defined; rot is then 0.
    """
    m = np.asarray(matrix, dtype=np.float64)
    sine = np.hypot(m[..., 2, 0], m[..., 2, 1])
    tilt = np.arctan2(sine, m[..., 2, 2])
    regular = sine > _GIMBAL_SINE
    rot = np.where(regular, np.arctan2(m[..., 2, 1], m[..., 2, 0]), 0.0)
    # At the poles A is Z(psi) or Z(psi) Y(180), whose first column is (±cos psi, ∓sin psi, 0).
    flip = np.where(m[..., 2, 2] < 0, -1.0, 1.0)
    at_pole = np.arctan2(-flip * m[..., 1, 0], flip * m[..., 0, 0])
    psi = np.where(regular, np.arctan2(m[..., 1, 2], -m[..., 0, 2]), at_pole)
    return _half_open(np.rad2deg(rot)), np.rad2deg(tilt), _half_open(np.rad2deg(psi))


def _half_open(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map -180 (which arctan2 gives for a negative zero) to +180."""
    return np.where(degrees <= -180.0, degrees + 360.0, degrees)


def vector_from_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """Rotation vectors e of matrices ``exp([e]×)``: the axis, as long as the angle in radians.

    Parameters
    ----------
    matrix : array_like [M, 3, 3]

    Returns
    -------
    float64 [M, 3]
        Of length 0 to π.
    """
    return Rotation.from_matrix(np.asarray(matrix, dtype=np.float64)).as_rotvec()


def random_rotations(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation matrices uniform over SO(3).

    Parameters
    ----------
    count : int
        How many.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    float64 [count, 3, 3]
    """
    rot = rng.uniform(-180.0, 180.0, count)
    tilt = np.rad2deg(np.arccos(rng.uniform(-1.0, 1.0, count)))
    psi = rng.uniform(-180.0, 180.0, count)
    return matrix_from_euler(rot, tilt, psi)


def directions(rot: ArrayLike, tilt: ArrayLike) -> NDArray[np.float64]:
    """Viewing directions as unit vectors, float64 [..., 3] (x, y, z), from rot and tilt in degrees."""
    a, b = np.broadcast_arrays(*(np.deg2rad(np.asarray(x, dtype=np.float64)) for x in (rot, tilt)))
    return np.stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)], axis=-1)


def angles_of_directions(vectors: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """rot and tilt in degrees of directions [..., 3]; the inverse of :func:`directions` for any length."""
    v = np.asarray(vectors, dtype=np.float64)
    rot = np.rad2deg(np.arctan2(v[..., 1], v[..., 0]))
    tilt = np.rad2deg(np.arctan2(np.hypot(v[..., 0], v[..., 1]), v[..., 2]))
    return _half_open(rot), tilt


def distance_deg(first: ArrayLike, second: ArrayLike, symmetry: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Angle of the rotation that takes one orientation to the other, the smallest under a symmetry group.

    Parameters
    ----------
    first, second : array_like [..., 3, 3]
        Orientations A; broadcast against each other.
    symmetry : float64 [G, 3, 3], optional
        Rotations g with density(g x) = density(x), as :func:`cryolike_scipion.engine.symmetry.rotations`
        gives. The orientations A and A g show the same image.

    Returns
    -------
    float64 [...]
        Degrees in [0, 180].
    """
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    if symmetry is None:
        symmetry = np.eye(3)[None]
    # ‖A g − B‖_F² = 8 sin²(angle/2): unlike the trace it keeps its precision at small angles.
    mates = np.einsum("...ij,gjk->...gik", a, np.asarray(symmetry, dtype=np.float64))
    squared = np.sum((mates - b[..., None, :, :]) ** 2, axis=(-2, -1)).min(axis=-1)
    return np.rad2deg(2.0 * np.arcsin(np.minimum(np.sqrt(squared / 8.0), 1.0)))
