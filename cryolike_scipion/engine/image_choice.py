"""How a run prepares its images: what was asked for, what stored coefficients have, or a mask that fits the structures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..mask_room import roomy_mask
from .image_prep import ImageSettings
from .particles import OpticsGroup
from .polar_settings import PolarSettings
from .shared_scale import shared_mask

__all__ = ["choose_images", "default_mask", "image_settings"]

# Where none of these is asked for, converted particles are compared as they were converted.
_PREPARATION = ("mask_diameter", "invert", "background_diameter", "no_normalise")
_STEP = 0.1  # of the box: runs over structures of nearly one size get one mask, so that they can be merged


def image_settings(parameters: Mapping[str, Any], diameter: float | None, pixel_size: float) -> ImageSettings:
    """What was asked for, with a mask of ``diameter`` (Å); its edge is 5 % of that, at least three pixels of ``pixel_size``."""
    return ImageSettings(
        invert=parameters["invert"],
        normalise=not parameters["no_normalise"],
        background_diameter=parameters["background_diameter"],
        mask_diameter=diameter,
        mask_edge=0.0 if diameter is None else max(0.05 * diameter, 3 * pixel_size),
    )


def choose_images(
    parameters: Mapping[str, Any],
    stored: PolarSettings | None,
    radius: float,
    reach: float,
    k_max: float,
    optics: Sequence[OpticsGroup],
) -> ImageSettings:
    """Image preparation of a likelihood run.

    Parameters
    ----------
    parameters : mapping
        Of the verb ``likelihood``. A ``mask_diameter`` of 0 is no mask, None the default one.
    stored : PolarSettings or None
        Of coefficients that the particles have.
    radius, reach, k_max, optics
        See `default_mask`.

    Raises
    ------
    InputError
        If the run of ``scale_from``, whose mask is taken, cannot be read.
    """
    if stored is not None and all(parameters[name] is None or parameters[name] is False for name in _PREPARATION):
        return stored.images
    diameter = parameters["mask_diameter"]
    if diameter is None:
        shared = parameters["scale_from"]
        diameter = default_mask(radius, reach, k_max, optics) if shared is None else shared_mask(shared)
    return image_settings(parameters, diameter or None, max(group.pixel_size for group in optics))


def default_mask(radius: float, reach: float, k_max: float, optics: Sequence[OpticsGroup]) -> float | None:
    """Diameter of the default mask: the structure, moved as far as the search goes, with what the CTF spreads around it.

    A mask that cuts off what the CTF spreads loses much of what tells structures apart at high resolution.

    Parameters
    ----------
    radius : float
        Å, of the widest structure.
    reach : float
        Å, farthest origin from the centre of the box.
    k_max : float
        Band limit, 1/Å.
    optics : sequence of OpticsGroup

    Returns
    -------
    float or None
        Å, a multiple of a tenth of the smallest box; None where the box has no room for it.
    """
    box = min(group.box * group.pixel_size for group in optics)
    step = _STEP * box
    diameter = step * math.ceil(max(roomy_mask(2 * radius, reach, 1 / k_max, group.voltage_kv) for group in optics) / step)
    return diameter if diameter < box else None
