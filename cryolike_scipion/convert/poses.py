"""Scipion's transformation matrices and RELION's angles and origins.

Frames: RELION's Euler matrix ``A(rot, tilt, psi)`` (ZYZ, degrees, coordinate rotation) and its origin ``o``
(Å, what has to be added to the image to centre it).
Scipion stores ``inv(M)`` with ``M = [A | -o / pixel]`` for
particles with a projection alignment (ALIGN_PROJ), shifts in pixels.
"""

import numpy as np

_POLE = 1e-12


def euler_matrices(rot, tilt, psi):
    """Return RELION's rotation matrices.

    Parameters
    ----------
    rot, tilt, psi : array_like, [M]
        Euler angles in degrees.

    Returns
    -------
    ndarray, float64, [M, 3, 3]
        ``A = Rz(psi) Ry(tilt) Rz(rot)`` as coordinate rotations (RELION, ``Euler_angles2matrix``).
    """
    alpha, beta, gamma = (np.deg2rad(np.atleast_1d(np.asarray(angle, dtype=np.float64))) for angle in (rot, tilt, psi))
    ca, cb, cg = np.cos(alpha), np.cos(beta), np.cos(gamma)
    sa, sb, sg = np.sin(alpha), np.sin(beta), np.sin(gamma)
    rows = [
        [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
        [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        [sb * ca, sb * sa, cb],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def euler_angles(matrices):
    """Return RELION's angles of rotation matrices: the inverse of :func:`euler_matrices`.

    Parameters
    ----------
    matrices : ndarray, [M, 3, 3]

    Returns
    -------
    rot, tilt, psi : ndarray, float64, [M]
        Degrees; tilt in 0 to 180.  Where tilt is 0 or 180, rot is 0 and psi carries the in-plane angle.
    """
    sine = np.hypot(matrices[:, 2, 0], matrices[:, 2, 1])
    tilt = np.arctan2(sine, matrices[:, 2, 2])
    pole = sine < _POLE
    rot = np.where(pole, 0.0, np.arctan2(matrices[:, 2, 1], matrices[:, 2, 0]))
    psi = np.where(
        pole,
        np.arctan2(matrices[:, 0, 1], matrices[:, 1, 1]),
        np.arctan2(matrices[:, 1, 2], -matrices[:, 0, 2]),
    )
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def transforms_from_poses(rot, tilt, psi, origin_x, origin_y, pixel):
    """Return the matrices that Scipion stores for RELION's poses.

    Parameters
    ----------
    rot, tilt, psi : array_like, [M]
        Euler angles in degrees.
    origin_x, origin_y : array_like, [M]
        Origins in Å.
    pixel : float or array_like, [M]
        Pixel size of the particles in Å.

    Returns
    -------
    ndarray, float64, [M, 4, 4]
        For ``Transform(matrix=...)`` of a set with ALIGN_PROJ.
    """
    rotation = euler_matrices(rot, tilt, psi)
    matrices = np.zeros((len(rotation), 4, 4))
    # inv([A | t]) = [A' | -A' t] with t = -o / pixel
    matrices[:, :3, :3] = rotation.transpose(0, 2, 1)
    origin = np.zeros((len(rotation), 3))
    origin[:, 0] = np.asarray(origin_x) / pixel
    origin[:, 1] = np.asarray(origin_y) / pixel
    matrices[:, :3, 3] = np.einsum("mij,mj->mi", matrices[:, :3, :3], origin)
    matrices[:, 3, 3] = 1.0
    return matrices


def poses_from_transforms(matrices, pixel):
    """Return RELION's poses of the matrices that Scipion stores; undoes :func:`transforms_from_poses`.

    Parameters
    ----------
    matrices : array_like, [M, 4, 4]
    pixel : float or array_like, [M]
        Pixel size of the particles in Å.

    Returns
    -------
    rot, tilt, psi, origin_x, origin_y : ndarray, float64, [M]
        Degrees and Å.
    """
    matrices = np.asarray(matrices, dtype=np.float64).reshape(-1, 4, 4)
    forward = np.linalg.inv(matrices)
    rot, tilt, psi = euler_angles(forward[:, :3, :3])
    return rot, tilt, psi, -forward[:, 0, 3] * pixel, -forward[:, 1, 3] * pixel


def same_poses(one, other, pixel):
    """Whether poses are the same but for rounding: rotation matrices to 1e-6, origins to 1e-4 pixels.

    Parameters
    ----------
    one, other : ndarray, [M, 5]
        rot, tilt, psi, origin x and y, in degrees and Å.
    pixel : ndarray, [M]
        Å.

    Returns
    -------
    ndarray, bool, [M]
    """
    turned = np.abs(euler_matrices(*one[:, :3].T) - euler_matrices(*other[:, :3].T)).max(axis=(1, 2))
    moved = np.abs(one[:, 3:] - other[:, 3:]).max(axis=1) / pixel
    return (turned < 1e-6) & (moved < 1e-4)
