"""Inner products of images with templates over all in-plane rotations: half orders, a product per order, one inverse FFT.

``b(psi) = Re Σ_n w_n mean_theta conj(G(k_n, theta)) T(k_n, theta + psi) = Σ_q X_q exp(i q psi)`` with
``X_q = Σ_n w_n conj(G_nq) T_nq`` and ``X_-q = conj X_q``: orders q >= 0 suffice. Arrays are order-major,
``[q, row, n] x [q, n, view]``, so that each order is one dense complex product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .polar_grid import PolarGrid
from .template_power import PowerRule, ring_power

__all__ = ["Templates", "correlate", "full_circle_orders", "image_orders", "make_templates"]


@dataclass(frozen=True)
class Templates:
    """Slices of one structure at psi = 0, packed for `correlate`.

    Attributes
    ----------
    orders : complex64 [v, q, n]
        Angular orders 0 … Q; view-major so that a few views can be taken without a copy of the rest.
    zeroth : float32 [v, n]
        Ring means (order 0, real).
    power : complex64 [v, p, j]
        From `ring_power`.
    """

    orders: Tensor
    zeroth: Tensor
    power: Tensor

    def __len__(self) -> int:
        return len(self.orders)

    def take(self, index) -> Templates:
        return Templates(self.orders[index], self.zeroth[index], self.power[index])


def full_circle_orders(half: Tensor, n_orders: int) -> Tensor:
    """Angular orders 0 … n_orders - 1 of a real image's transform given on the half circle.

    ``F_q = mean_theta F(theta) exp(-i q theta)``: [..., n_orders] from [..., W/2]; the other half circle is the
    conjugate.
    """
    count = 2 * half.shape[-1]
    if n_orders > count // 2:
        raise ValueError(f"{n_orders} orders need at least {2 * n_orders} angles, not {count}")
    return torch.fft.fft(torch.cat([half, half.conj()], dim=-1), dim=-1, norm="forward")[..., :n_orders]


def make_templates(slices: Tensor, rule: PowerRule, n_orders: int) -> Templates:
    """Pack half-circle slices [v, n, W/2]."""
    orders = full_circle_orders(slices, n_orders)
    return Templates(
        orders=orders.transpose(1, 2).contiguous(),
        zeroth=orders[..., 0].real.contiguous(),
        power=ring_power(rule, slices),
    )


def image_orders(matched: Tensor, grid: PolarGrid, origins: np.ndarray, n_orders: int) -> Tensor:
    """Orders of the images moved by every origin: complex [q, m·o, n], conjugated and weighted.

    Parameters
    ----------
    matched : complex Tensor [m, n, W/2]
        From `PolarImages`.
    origins : float64 [o, 2] or [m, o, 2]
        Origins (Å), common to all images or particular to each.
    """
    points = torch.as_tensor(grid.points_half(), device=matched.device)
    shifts = torch.as_tensor(np.asarray(origins), dtype=points.dtype, device=matched.device)
    phase = -2 * torch.pi * torch.einsum("nwx,...ox->...onw", points, shifts)
    real = matched.real.dtype
    factor = torch.polar(torch.ones((), dtype=real, device=matched.device), phase.to(real))
    moved = matched[:, None] * factor
    orders = full_circle_orders(moved, n_orders).conj()
    orders = orders * torch.as_tensor(grid.weights, dtype=real, device=matched.device)[:, None]
    images, count = moved.shape[:2]
    return orders.permute(3, 0, 1, 2).reshape(n_orders, images * count, grid.n_radii)


def correlate(images: Tensor, templates: Tensor, n_inplane: int) -> Tensor:
    """b for every row, view and in-plane angle 2 pi j / n_inplane.

    Parameters
    ----------
    images : complex Tensor [q, r, n]
        From `image_orders`.
    templates : complex Tensor [v, q, n]
        `Templates.orders`.
    n_inplane : int
        At least 2 Q + 2 angles.

    Returns
    -------
    real Tensor [r, v, n_inplane]
    """
    products = torch.bmm(images, templates.permute(1, 2, 0))
    return torch.fft.irfft(products.permute(1, 2, 0).contiguous(), n=n_inplane, dim=-1, norm="forward")
