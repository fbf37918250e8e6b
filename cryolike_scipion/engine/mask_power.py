"""The part of a template's power that a mask on the image leaves.

A mask cuts what the CTF carries away from the particle, and the rim of a structure that is larger than the mask. <T,T> is
then that of the masked template. The share that is left, ``|M CTF T|² / |CTF T|²``, is measured for a few defoci over views
spread evenly on the sphere, at the centred pose, and interpolated in defocus; its change from view to view and with the shift
is of second order and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .ctf import CtfPoints
from .image_prep import ImageSettings, mask_of
from .particles import Particles
from .polar_settings import PolarSettings
from .simulate import HalfPlane
from .slices import SliceMaker
from .structures import Structure
from .template_power import ctf_arguments
from .views import healpix_views

__all__ = ["kept_power", "kept_shares"]

logger = logging.getLogger(__name__)

_DEFOCI = 6
_STEP_DEG = 20.0
_CUTS = 0.7  # share of a template's power below which a mask is said to be tight
_VIEWS_AT_ONCE = 16  # more would leave the cache


def kept_power(
    structure: Structure, settings: ImageSettings, box: int, pixel_size: float, k_max: float, arguments: Mapping[str, Tensor]
) -> np.ndarray:
    """Share of <T,T> that the mask leaves, for every image of one optics group.

    Parameters
    ----------
    structure : Structure
    settings : ImageSettings
        With a mask.
    box : int
        Pixels of the images.
    pixel_size : float
        Å.
    k_max : float
        Band limit, 1/Å.
    arguments : mapping of name to Tensor [m]
        Of `ctf`.

    Returns
    -------
    float64 [m]
        In (0, 1].
    """
    defocus = (0.5 * (arguments["defocus_u"] + arguments["defocus_v"])).cpu().numpy()
    order = np.argsort(defocus, kind="stable")
    chosen = np.unique(order[np.linspace(0, len(order) - 1, min(_DEFOCI, len(order))).round().astype(int)])
    chosen = chosen[np.argsort(defocus[chosen], kind="stable")]
    wide = 2 * box
    plane = HalfPlane(wide, pixel_size, min(k_max, 0.5 / pixel_size))
    points, places = plane.points(), plane.indices()
    slices = SliceMaker(structure, points)(healpix_views(_STEP_DEG).rotations())
    of_chosen = {name: value.cpu()[chosen] for name, value in arguments.items()}
    transfer = CtfPoints(points[:, 0], points[:, 1])(of_chosen, torch.float32)
    mask = torch.zeros(wide, wide, dtype=torch.float64)
    mask[:box, :box] = mask_of(settings, box, pixel_size) ** 2
    mask = torch.roll(mask, (-(box // 2), -(box // 2)), dims=(0, 1))  # the centre at index 0, as in an inverse transform
    weights = torch.stack([mask, torch.ones_like(mask)]).flatten(1).T.float()
    powers = [_powers(slices * one, places, wide, weights) for one in transfer]
    return np.interp(defocus, defocus[chosen], [float(inside / whole) for inside, whole in powers])


def kept_shares(particles: Particles, structures: list[Structure], settings: PolarSettings) -> list[np.ndarray] | None:
    """Share of <T,T> that the mask leaves, float64 [M] for each structure; None without a mask."""
    if settings.images.mask_diameter is None:
        return None
    kept = [np.ones(len(particles)) for _ in structures]
    for g in np.unique(particles.optics_index):
        group, rows = particles.optics[g], np.flatnonzero(particles.optics_index == g)
        arguments = ctf_arguments(particles, rows, noise=settings.noise)
        for share, structure in zip(kept, structures):
            share[rows] = kept_power(structure, settings.images, group.box, group.pixel_size, settings.k_max, arguments)
    least = min(float(share.min()) for share in kept)
    if least < _CUTS:
        logger.warning("the mask leaves only %.0f %% of some templates' power: a wider one would keep more", 100 * least)
    return kept


def _powers(values: Tensor, places: tuple[np.ndarray, np.ndarray], size: int, weights: Tensor) -> Tensor:
    """Sums over views and pixels of the squared projections times the columns of ``weights`` [size², w]: float64 [w].

    ``values`` complex64 [v, p] are the projections' transforms at the places (row, column) of a half plane.
    """
    rows, columns = (torch.from_numpy(place) for place in places)
    total = torch.zeros(weights.shape[1], dtype=torch.float64)
    for some in values.split(_VIEWS_AT_ONCE):
        spectrum = some.new_zeros(len(some), size, size // 2 + 1)
        spectrum[:, rows, columns] = some
        total += (torch.fft.irfft2(spectrum, s=(size, size)).flatten(1).square_() @ weights).double().sum(dim=0)
    return total
