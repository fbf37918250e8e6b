"""Low-pass versions of a comparison: the same images and structures up to a lower band limit, on a smaller grid.

Inner products of low-pass templates with the images cost a fraction, since radii, angular orders, views and shifts all need
coarser sampling. The likelihood stays that of the whole image; only the template lacks its finer part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from .image_prep import ImageSettings
from .noise_spectrum import NoiseModel
from .particles import Particles
from .polar_grid import PolarGrid, choose_grid, inplane_count, radial_interpolation
from .polar_images import PolarImages, Window, offset_weights
from .radial_basis import RadialBasis, full_circle_orders
from .structures import Structure
from .template_bank import TemplateBank, common_basis
from .template_power import PowerRule, ctf_arguments, power_rule, power_weights

__all__ = ["Band", "band_images", "low_band"]

# Scores of low-pass templates only choose where to look closer.
_GRID_ACCURACY, _BASIS_ACCURACY = 1e-3, 3e-3


@dataclass(frozen=True)
class Band:
    """Grid, rule, basis and templates up to a band limit.

    Attributes
    ----------
    grid : PolarGrid
    rule : PowerRule
    basis : RadialBasis
        Common to all structures.
    banks : list of TemplateBank
        One per structure.
    n_inplane : int
        In-plane angles.
    """

    grid: PolarGrid
    rule: PowerRule
    basis: RadialBasis
    banks: list[TemplateBank]
    n_inplane: int


def low_band(full: Band, k_max: float, window: Window, structures: list[Structure], arguments, rotations: np.ndarray) -> Band:
    """The band up to ``k_max`` (1/Å) of a comparison.

    Parameters
    ----------
    full : Band
    window : Window
        Of the images.
    structures : list of Structure
    arguments : dict of Tensor
        CTF arguments of all images.
    rotations : float64 [v, 3, 3]
        Views from which the basis is learned.
    """
    radius = max(s.radius for s in structures)
    grid = choose_grid(k_max, window.radius + window.edge, radius, _GRID_ACCURACY)
    rule = power_rule(grid, radius, arguments)
    double = full.banks[0].dtype == torch.complex128
    banks = [
        TemplateBank(dataclasses.replace(s, k_max=k_max), grid, rule, bank.scale, bank.device, double)
        for s, bank in zip(structures, full.banks)
    ]
    basis = common_basis(banks, rotations, _BASIS_ACCURACY)
    for bank in banks:
        bank.basis = basis
    return Band(grid, rule, basis, banks, inplane_count(basis.n_orders - 1))


def band_images(
    images: PolarImages,
    full: PolarGrid,
    band: Band,
    particles: Particles,
    rows: np.ndarray,
    settings: ImageSettings,
    window: Window,
    noise: NoiseModel | None = None,
) -> PolarImages:
    """Images on a band's grid, from those on the full one; powers of the image itself stay those of the full band.

    Parameters
    ----------
    images : PolarImages
        Of particles ``rows``, all of one optics group.
    full : PolarGrid
    band : Band
    particles : Particles
    rows : int64 [m]
    settings : ImageSettings
    window : Window
    noise : NoiseModel, optional
        By which the images are whitened.
    """
    group = particles.optics[particles.optics_index[rows[0]]]
    arguments = ctf_arguments(particles, rows, images.matched.device, noise)
    matrix = torch.as_tensor(radial_interpolation(full.radii, band.grid.radii), device=images.matched.device)
    return dataclasses.replace(
        images,
        matched=_fewer_angles(matrix.to(images.matched) @ images.matched, band.grid.n_half),
        power=power_weights(band.rule, arguments),
        offset=offset_weights(settings, group.box, group.pixel_size, arguments, band.grid, window),
    )


def _fewer_angles(half: torch.Tensor, n_half: int) -> torch.Tensor:
    """Half-circle values [..., W/2] on fewer angles [..., n_half], through their orders."""
    orders = full_circle_orders(half, min(n_half, half.shape[-1]))
    spectrum = orders.new_zeros(*orders.shape[:-1], 2 * n_half)
    spectrum[..., : orders.shape[-1]] = orders
    # F(theta + pi) = conj F(theta): even orders are those of a real function, odd ones of an imaginary one.
    sign = torch.ones(orders.shape[-1] - 1, device=orders.device, dtype=orders.real.dtype)
    sign[::2] = -1
    spectrum[..., -(orders.shape[-1] - 1) :] = (orders[..., 1:].conj() * sign).flip(-1)
    return torch.fft.ifft(spectrum, dim=-1, norm="forward")[..., :n_half]
