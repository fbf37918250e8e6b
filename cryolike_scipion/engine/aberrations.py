"""Lens aberrations of higher order and anisotropic magnification, as RELION defines them.

With k the frequency (1/Å) in the image and ``q = M k`` that of the undistorted one, M the magnification matrix
(``rlnMagMat00`` … ``rlnMagMat11``), the transform of an image is

    F(k) = slice(q) · CTF(q) · exp(i Σ_j o_j Z_j(q)),        CTF = sin(χ(q) + asin A − Σ_j e_j Z_j(q))

o are the antisymmetric coefficients (``rlnOddZernike``), e the symmetric ones (``rlnEvenZernike``), in radians, and Z the
Zernike polynomials ``R_nm(|q|) cos(m θ)``, ``sin`` for m < 0, of the frequency in 1/Å itself. The beam tilt t
(``rlnBeamTiltX``, ``Y``, mrad) adds ``−2π Cs λ² |q|² (q·t)`` to the antisymmetric phase.
(Zivanov, Nakane & Scheres, IUCrJ 7, 253 (2020), and RELION's own code for order and sign.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Aberrations", "beam_tilt_coefficients", "even_polynomials", "odd_polynomials"]

_IDENTITY = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Aberrations:
    """What the particles of one optics group share beyond the CTF of lowest order.

    Attributes
    ----------
    odd : tuple of float
        Coefficients of the antisymmetric polynomials in RELION's order (n = 1: y, x; n = 3: …), radians; beam tilt included.
    even : tuple of float
        Coefficients of the symmetric ones (n = 0; n = 2: …), radians.
    magnification : tuple of four float
        M by rows; it takes a frequency of the image to that of the undistorted image.
    """

    odd: tuple[float, ...] = ()
    even: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = _IDENTITY

    @property
    def matrix(self) -> NDArray[np.float64]:
        """M, float64 [2, 2]."""
        return np.array(self.magnification, dtype=np.float64).reshape(2, 2)

    @property
    def distorts(self) -> bool:
        """Whether M is not one."""
        return self.magnification != _IDENTITY

    @property
    def changes_images(self) -> bool:
        """Whether images have to be corrected: antisymmetric phases or a distortion."""
        return self.distorts or any(self.odd)

    @property
    def stretch(self) -> float:
        """Least factor by which M lengthens a frequency: the image's Nyquist frequency times it is known all around."""
        return float(np.linalg.svd(self.matrix, compute_uv=False)[-1])

    def odd_phase(self, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
        """Antisymmetric phase, radians, at frequencies (1/Å) of the undistorted image."""
        return np.tensordot(np.array(self.odd), odd_polynomials(len(self.odd), kx, ky), axes=1)

    def origin_in_image(self, origin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Origins [..., 2] (Å) in the image as it is, as files have them, from those in the undistorted one."""
        return origin @ self.matrix

    def origin_undistorted(self, origin: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `origin_in_image`."""
        return origin @ np.linalg.inv(self.matrix)


def beam_tilt_coefficients(
    odd: Sequence[float], tilt_mrad: tuple[float, float], cs_mm: float, wavelength: float
) -> tuple[float, ...]:
    """Antisymmetric coefficients with a beam tilt added: ``r² x = (Z_3,1 + 2 Z_1,1) / 3``, and likewise y."""
    total = list(odd) + [0.0] * max(0, 6 - len(odd))
    scale = -2.0 * math.pi * 1e7 * cs_mm * wavelength**2 * 1e-3 / 3.0
    for tilt, first, third in zip(tilt_mrad, (1, 0), (4, 3)):
        total[third] += scale * tilt
        total[first] += 2.0 * scale * tilt
    return tuple(total)


def even_polynomials(count: int, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first symmetric polynomials at frequencies [...]: float64 [count, ...]."""
    return _polynomials([_even(j) for j in range(count)], kx, ky)


def odd_polynomials(count: int, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first antisymmetric polynomials at frequencies [...]: float64 [count, ...]."""
    return _polynomials([_odd(j) for j in range(count)], kx, ky)


def _even(j: int) -> tuple[int, int]:
    k = math.isqrt(j)
    return 2 * (j - k * k - k), 2 * k


def _odd(j: int) -> tuple[int, int]:
    k = (math.isqrt(1 + 4 * j) - 1) // 2
    n = 2 * k + 1
    return 2 * (j - k * k - k) - n, n


def _polynomials(numbers: list[tuple[int, int]], kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
    radius, angle = np.hypot(kx, ky), np.arctan2(ky, kx)
    wave = [np.cos(m * angle) if m >= 0 else np.sin(-m * angle) for m, _ in numbers]
    found = [_radial(abs(m), n, radius) * w for (m, n), w in zip(numbers, wave)]
    return np.array(found, dtype=np.float64).reshape(len(numbers), *np.shape(radius))


def _radial(m: int, n: int, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """R_nm(r) = Σ_s (−1)^s (n−s)! / (s! ((n+m)/2 − s)! ((n−m)/2 − s)!) r^(n−2s)."""
    total = np.zeros_like(radius)
    for s in range((n - m) // 2 + 1):
        below = math.factorial(s) * math.factorial((n + m) // 2 - s) * math.factorial((n - m) // 2 - s)
        total += (-1) ** s * math.factorial(n - s) // below * radius ** (n - 2 * s)
    return total
