"""The part of a template's power that a mask on the image leaves.

A mask cuts what the CTF carries away from the particle, and the rim of a structure that is larger than the mask. <T,T> is
then that of the masked template. The share that is left, ``|M CTF T|² / |CTF T|²``, is measured for a few defoci over views
spread evenly on the sphere, at the centred pose, and interpolated in defocus; its change from view to view and with the shift
is of second order and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .ctf import ctf
from .image_prep import ImageSettings, mask_of
from .simulate import HalfPlane
from .slices import SliceMaker
from .structures import Structure
from .views import healpix_views

__all__ = ["kept_power"]

_DEFOCI = 6
_STEP_DEG = 20.0


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
    points = torch.as_tensor(plane.points())
    k, theta = torch.hypot(points[:, 0], points[:, 1]), torch.atan2(points[:, 1], points[:, 0])
    slices = SliceMaker(structure, plane.points())(healpix_views(_STEP_DEG).rotations()).to(torch.complex128)
    mask = torch.zeros(wide, wide, dtype=torch.float64)
    start = wide // 2 - box // 2
    mask[start : start + box, start : start + box] = mask_of(settings, box, pixel_size)
    shares = []
    for i in chosen:
        projections = plane.image(slices * ctf(k, theta, **{name: value[i].cpu() for name, value in arguments.items()}))
        shares.append(float(((mask * projections) ** 2).sum() / (projections**2).sum()))
    return np.interp(defocus, defocus[chosen], shares)
