"""The polar Fourier grid on which images and projections are compared.

Radial nodes are those of the Gauss rule for the weight ``k dk`` on ``[0, k_max]`` (Gauss-Jacobi with alpha = 0,
beta = 1); angles are equispaced. Images are real, so ``F(k, theta + pi) = conj F(k, theta)`` and only the half circle
``theta in [0, pi)`` is stored.

The numbers of nodes and angles follow from a stated accuracy: for two functions whose supports have radii ``a`` and
``b`` the inner product holds the plane waves ``exp(2 pi i k . x)`` with ``|x| <= a + b``, so the rule is chosen as the
smallest that integrates each of these over the disc to the wanted accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import j0, jv, roots_jacobi

__all__ = [
    "PolarGrid",
    "choose_grid",
    "fft_friendly",
    "gauss_radial_rule",
    "inplane_count",
    "largest_ring_number",
    "radial_interpolation",
]


@dataclass(frozen=True)
class PolarGrid:
    """Polar sampling of the disc ``|k| <= k_max``.

    Attributes
    ----------
    radii : float64 [n]
        Radial nodes, 1/Å, increasing.
    weights : float64 [n]
        Quadrature weights, Å⁻²: ``∫ f d²k ≈ Σ_n weights_n · mean_w f(k_n, theta_w)``; they sum to ``pi k_max²``.
    n_angles : int
        Number W of angles on the full circle, a multiple of four.
    k_max : float
        Radius of the disc, 1/Å.
    """

    radii: np.ndarray
    weights: np.ndarray
    n_angles: int
    k_max: float

    def __post_init__(self) -> None:
        if self.n_angles % 4 or self.n_angles < 4:
            raise ValueError(f"n_angles must be a positive multiple of 4, not {self.n_angles}")
        if len(self.radii) != len(self.weights):
            raise ValueError(f"{len(self.radii)} radii but {len(self.weights)} weights")

    @property
    def n_radii(self) -> int:
        return len(self.radii)

    @property
    def n_half(self) -> int:
        """Number of stored angles, W / 2."""
        return self.n_angles // 2

    @property
    def angles_half(self) -> np.ndarray:
        """Stored angles theta_w = 2 pi w / W in [0, pi), radian: float64 [W/2]."""
        return 2 * np.pi * np.arange(self.n_half) / self.n_angles

    def points_half(self) -> np.ndarray:
        """Stored points as (kx, ky), 1/Å: float64 [n, W/2, 2]."""
        theta = self.angles_half
        directions = np.stack([np.cos(theta), np.sin(theta)], axis=-1)
        return self.radii[:, None, None] * directions[None]


def gauss_radial_rule(n_radii: int, k_max: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss rule of the disc: radii [n] (1/Å) and weights [n] (Å⁻²) with ``Σ weights = pi k_max²``.

    Exact for polynomials in k up to degree ``2 n - 1`` under the weight ``2 pi k dk``.
    """
    x, w = _unit_rule(n_radii)
    return k_max * x, np.pi * k_max**2 * w


@lru_cache(maxsize=64)
def _unit_rule(n_radii: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = roots_jacobi(n_radii, 0.0, 1.0)
    return (x + 1) / 2, w / w.sum()


def radial_interpolation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Matrix [t, s] of the polynomial through the values at ``source`` nodes, evaluated at ``target`` radii.

    Barycentric Lagrange form (Berrut & Trefethen, SIAM Review 46, 2004, eq. 4.2), float64.
    """
    scale = 4.0 / (source.max() - source.min())  # capacity one: keeps the products in range
    differences = scale * (source[:, None] - source[None, :])
    np.fill_diagonal(differences, 1.0)
    log_weights = -np.log(np.abs(differences)).sum(axis=1)
    signs = np.prod(np.sign(differences), axis=1)
    bary = signs * np.exp(log_weights - log_weights.max())
    gap = target[:, None] - source[None, :]
    hit = gap == 0
    terms = bary[None, :] / np.where(hit, 1.0, gap)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    rows = hit.any(axis=1)
    matrix[rows] = hit[rows]
    return matrix


def choose_grid(k_max: float, image_radius: float, template_radius: float, accuracy: float = 1e-6) -> PolarGrid:
    """Smallest polar grid with a stated accuracy for given supports.

    Parameters
    ----------
    k_max : float
        Band limit, 1/Å.
    image_radius, template_radius : float
        Radii (Å) of the discs that hold the image (after its window) and the template.
    accuracy : float
        Largest error of the rule on ``exp(2 pi i k . x)``, ``|x| <= image_radius + template_radius``, relative to the
        area of the band; also the root mean square error of radial interpolation of a template between the nodes.

    Raises
    ------
    ValueError
        If a length or the accuracy is not positive.
    """
    if min(k_max, image_radius, template_radius, accuracy) <= 0:
        raise ValueError(f"k_max {k_max}, radii {image_radius}, {template_radius} and accuracy {accuracy} must be positive")
    extent = image_radius + template_radius
    n_radii = _smallest(lambda n: _radial_error(n, k_max * extent, k_max * template_radius), accuracy)
    wave = 2 * np.pi * k_max * extent
    n_angles = 4 * _smallest(lambda n: 2 * abs(float(jv(4 * n, wave))) if 4 * n > wave else 1.0, accuracy)
    radii, weights = gauss_radial_rule(n_radii, k_max)
    return PolarGrid(radii, weights, fft_friendly(n_angles), k_max)


def fft_friendly(n: int, factor: int = 4) -> int:
    """Smallest number >= n that is a multiple of ``factor`` and has no prime factor above five."""
    candidate = -(-n // factor) * factor
    while not _is_smooth(candidate):
        candidate += factor
    return candidate


def largest_ring_number(radius: float, k_max: float, accuracy: float = 1e-6) -> int:
    """Highest angular order of a function of extent ``radius`` (Å) in the band: |J_q(2 pi k_max r)| <= accuracy beyond."""
    wave = 2 * np.pi * k_max * radius
    order = int(np.ceil(wave))
    while abs(float(jv(order + 1, wave))) > accuracy:
        order += 1
    return order


def inplane_count(orders: int, step_deg: float | None = None) -> int:
    """Number of in-plane angles: enough for the orders, and a spacing of at most ``step_deg``."""
    count = 2 * (orders + 1)
    if step_deg is not None:
        count = max(count, int(np.ceil(360 / step_deg)))
    return fft_friendly(count, 32 if count > 128 else 8)  # multiples of 32 are transformed faster, more than they are longer


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _smallest(error, accuracy: float) -> int:
    """Smallest n >= 4 with error(n) <= accuracy, for an error that falls beyond some n."""
    low, high = 3, 4
    while error(high) > accuracy:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if error(middle) <= accuracy:
            high = middle
        else:
            low = middle
    return high


def _radial_error(n_radii: int, extent: float, template_extent: float) -> float:
    """Largest relative error of the n-point rule on J0(2 pi k r), k in [0, 1], r <= extent, and of interpolation."""
    radii, weights = gauss_radial_rule(n_radii, 1.0)
    r = np.linspace(extent / 200, extent, 200)
    rule = j0(2 * np.pi * r[:, None] * radii) @ weights / np.pi
    argument = 2 * np.pi * r
    exact = 2 * jv(1, argument) / argument
    fine = np.linspace(0, 1, 4 * n_radii + 1)
    matrix = radial_interpolation(radii, fine)
    wave = np.exp(2j * np.pi * template_extent * radii)
    middle = np.abs(matrix @ wave - np.exp(2j * np.pi * template_extent * fine))
    return max(float(np.abs(rule - exact).max()), float(np.sqrt(np.mean(middle**2))))
