"""Inner products of images with templates over all in-plane rotations: half orders, a product per order, one inverse FFT.

``b(psi) = Re Σ_n w_n mean_theta conj(G(k_n, theta)) T(k_n, theta + psi) = Σ_q X_q exp(i q psi)`` with
``X_q = Σ_n w_n conj(G_nq) T_nq`` and ``X_-q = conj X_q``: orders q >= 0 suffice, and the sum over radii is one over the few
functions of a `RadialBasis`. Of images the conjugate is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .polar_grid import PolarGrid
from .radial_basis import RadialBasis
from .template_power import PowerRule, ring_power

__all__ = [
    "ShiftFactors",
    "Templates",
    "correlate",
    "correlate_pairs",
    "correlate_parts",
    "make_templates",
    "shift_factors",
    "shifted_rows",
]

_PRODUCTS_AT_ONCE = 1 << 18  # 2 MB of single precision: more would leave the cache


@dataclass(frozen=True)
class Templates:
    """Slices of one structure at psi = 0, packed for `correlate`.

    Attributes
    ----------
    rows : complex Tensor [v, K]
        Coefficients in the radial basis.
    zeroth : real Tensor [v, n]
        Ring means (order 0, real).
    power : complex64 [v, p, j]
        From `ring_power`.
    """

    rows: Tensor
    zeroth: Tensor
    power: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index) -> Templates:
        return Templates(self.rows[index], self.zeroth[index], self.power[index])

    @classmethod
    def join(cls, parts: list[Templates]) -> Templates:
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(p, f) for p in parts]) for f in ("rows", "zeroth", "power")))


def make_templates(slices: Tensor, rule: PowerRule, basis: RadialBasis) -> Templates:
    """Pack half-circle slices [v, n, W/2]."""
    return Templates(rows=basis.project(slices), zeroth=slices.real.mean(dim=-1), power=ring_power(rule, slices))


def shift_factors(grid: PolarGrid, origins: np.ndarray, dtype: torch.dtype, device="cpu") -> Tensor:
    """``exp(-2 pi i k . origin)``, which moves an image to its origin: complex [..., n, W/2] from origins [..., 2] in Å."""
    theta = torch.as_tensor(grid.angles_half, device=device)
    shifts = torch.as_tensor(np.asarray(origins), dtype=torch.float64, device=device)
    along = (-2 * torch.pi * (shifts[..., :1] * torch.cos(theta) + shifts[..., 1:] * torch.sin(theta))).to(dtype)
    phase = torch.as_tensor(grid.radii, dtype=dtype, device=device)[:, None] * along[..., None, :]
    return torch.complex(torch.cos(phase), torch.sin(phase))


class ShiftFactors:
    """`shift_factors` of chosen origins of a grid, as products of those along x and along y, of which there are few.

    Parameters
    ----------
    grid : PolarGrid
    origins : float64 [o, 2]
        Å.
    dtype : real torch dtype
    device : torch device
    """

    def __init__(self, grid: PolarGrid, origins: np.ndarray, dtype: torch.dtype, device="cpu") -> None:
        self._along: list[Tensor] = []
        self._place: list[np.ndarray] = []
        for axis in (0, 1):
            values, place = np.unique(origins[:, axis], return_inverse=True)
            points = np.zeros((len(values), 2))
            points[:, axis] = values
            self._along.append(shift_factors(grid, points, dtype, device))
            self._place.append(place)

    def __call__(self, index: np.ndarray) -> Tensor:
        """Complex [r, n, W/2] for origins ``index`` int64 [r]."""
        x, y = (along[torch.from_numpy(place[index]).to(along.device)] for along, place in zip(self._along, self._place))
        return x.mul_(y)


def shifted_rows(matched: Tensor, factors: Tensor, basis: RadialBasis) -> Tensor:
    """Conjugated coefficients of moved images.

    Parameters
    ----------
    matched : complex Tensor [..., n, W/2]
        From `PolarImages`.
    factors : complex Tensor [..., n, W/2]
        From `shift_factors`; broadcast against ``matched``.

    Returns
    -------
    complex Tensor [r, K], r the product of the leading (broadcast) axes
    """
    return basis.project((matched * factors).flatten(0, -3)).conj_physical()


def correlate(images: Tensor, templates: Tensor, basis: RadialBasis, n_inplane: int) -> Tensor:
    """b for every row of images, view and in-plane angle 2 pi j / n_inplane.

    Parameters
    ----------
    images : complex Tensor [r, K]
        From `shifted_rows`.
    templates : complex Tensor [v, K]
        `Templates.rows`.
    basis : RadialBasis
    n_inplane : int
        At least 2 n_orders angles, even.

    Returns
    -------
    real Tensor [r, v, n_inplane]
    """
    parts = [b for _, b in correlate_parts(images, templates, basis, n_inplane)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def correlate_parts(images: Tensor, templates: Tensor, basis: RadialBasis, n_inplane: int) -> Iterator[tuple[slice, Tensor]]:
    """The same for consecutive views, as few at a time as the cache holds: which, and b [r, their number, n_inplane]."""
    rows = len(images)
    views = min(_views_at_once(rows, basis.n_orders), len(templates))
    products = images.new_empty(basis.n_orders, rows * views)
    spectrum = images.new_empty(rows * views, n_inplane // 2 + 1)
    spectrum[:, basis.n_orders :] = 0
    for first in range(0, len(templates), views):
        some = templates[first : first + views]
        if len(some) < views:  # whole memory again: products of all orders in one piece are much faster
            products = products.flatten()[: basis.n_orders * rows * len(some)].view(basis.n_orders, rows * len(some))
            spectrum = spectrum[: rows * len(some)]
        for block in basis.blocks:
            own = products[block.first : block.first + block.count].unflatten(1, (rows, len(some)))
            torch.bmm(block.of(images), block.of(some).mT, out=own)
        spectrum[:, : basis.n_orders] = products.T
        b = torch.fft.irfft(spectrum, n=n_inplane, dim=-1, norm="forward")
        yield slice(first, first + len(some)), b.unflatten(0, (rows, len(some)))


def _views_at_once(rows: int, orders: int) -> int:
    """Views whose products with so many rows of images stay in the cache."""
    views = max(1, _PRODUCTS_AT_ONCE // (rows * orders))
    while views > 1 and -4 < (rows * views + 256) % 512 - 256 < 4:  # all orders of a product would share a few sets of it
        views -= 1
    return views


def correlate_pairs(images: Tensor, templates: Tensor, basis: RadialBasis, n_inplane: int) -> Tensor:
    """b [r, n_inplane] of row r of the images [r, K] with row r of the templates [r, K]."""
    products = images * templates
    spectrum = images.new_zeros(len(images), n_inplane // 2 + 1)
    for block in basis.blocks:
        own = products[:, block.place].unflatten(1, (block.count, block.rank))
        torch.sum(own, dim=2, out=spectrum[:, block.first : block.first + block.count])
    return torch.fft.irfft(spectrum, n=n_inplane, dim=-1, norm="forward")
