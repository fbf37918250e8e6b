"""CryoLike's search written out in torch, as a reference for speed: its grid, its products, its inverse FFT.

Full-circle Fourier images and templates on N + 1 radii and 2 N angles; their transforms over the angle are
multiplied and summed over the radius for every order of either sign, an inverse FFT gives all in-plane
rotations, and the largest real part is kept for every image, template and shift.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryolike_scipion.engine.polar_grid import PolarGrid, gauss_radial_rule


def reference_grid(box: int, k_max: float) -> PolarGrid:
    """The grid of N + 1 radii and 2 N angles."""
    return PolarGrid(*gauss_radial_rule(box + 1, k_max), 2 * box, k_max)


def full_circle(half: Tensor) -> Tensor:
    """Values on the full circle [..., W] of real images given on the half circle [..., W/2]."""
    return torch.cat([half, half.conj()], dim=-1)


def shifted_orders(images: Tensor, grid: PolarGrid, origins: Tensor) -> Tensor:
    """Angular transforms of images moved by each origin, conjugated and weighted: [m, s, n, q].

    Parameters
    ----------
    images : complex [m, n, W], full circle.
    origins : float64 [s, 2], Å.
    """
    theta = 2 * math.pi * torch.arange(grid.n_angles, dtype=torch.float64) / grid.n_angles
    direction = torch.stack([torch.cos(theta), torch.sin(theta)], dim=-1)
    phase = 2 * math.pi * torch.as_tensor(grid.radii)[:, None] * (origins @ direction.T)[:, None, :]
    moved = images[:, None] * torch.polar(torch.ones_like(phase), -phase).to(images.dtype)
    weights = torch.as_tensor(grid.weights, dtype=images.real.dtype)[:, None]
    return torch.fft.fft(moved, dim=-1, norm="forward").conj() * weights


def correlate(images: Tensor, templates: Tensor) -> Tensor:
    """Inner products [m, s, v, w] for every rotation, from [m, s, n, q] and template transforms [v, n, q]."""
    products = torch.einsum("msnq,vnq->msvq", images, templates)
    return torch.fft.ifft(products, dim=-1, norm="forward").real


def search(images: Tensor, templates: Tensor, grid: PolarGrid, origins: Tensor, batch: tuple[int, int]) -> Tensor:
    """The largest inner product over rotations for every image, shift and template, [m, s, v].

    Parameters
    ----------
    images, templates : complex [m, n, W] and transforms [v, n, q] over the angle (norm "forward").
    batch : images and templates at a time.
    """
    best = torch.empty(len(images), len(origins), len(templates))
    for i in range(0, len(images), batch[0]):
        orders = shifted_orders(images[i : i + batch[0]], grid, origins)
        for j in range(0, len(templates), batch[1]):
            values = correlate(orders, templates[j : j + batch[1]])
            best[i : i + batch[0], :, j : j + batch[1]] = values.amax(dim=-1)
    return best
