"""Which noise spectra a likelihood run begins with: none, those of another run, or those of its images' background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InputError
from .noise_background import background_noise
from .noise_micrographs import with_micrographs
from .noise_spectrum import NoiseModel
from .particles import Particles
from .polar_settings import PolarSettings
from .shared_scale import shared_noise

__all__ = ["choose_noise", "shared_from"]


def shared_from(parameters: Mapping[str, Any]) -> str | None:
    """Folder of the run whose spectra are taken: that of the scale, or one named for the noise alone.

    Raises
    ------
    InputError
        If both are named, or noise that is white is to have a spectrum.
    """
    scale, noise = parameters["scale_from"], parameters["noise_from"]
    if noise is not None and parameters["noise"] == "white":
        raise InputError("white noise has no spectrum to take from another run", remedy="Add --noise radial.")
    if noise is not None and scale is not None:
        raise InputError("both --scale-from and --noise-from are given", remedy="Give the first alone: it takes both.")
    return scale if noise is None else noise


def choose_noise(
    parameters: Mapping[str, Any], particles: Particles, settings: PolarSettings, known: NoiseModel | None = None
) -> NoiseModel | None:
    """Spectra of the optics groups, those that are ``known`` or such as the parameters say, and of micrographs where these are
    asked for; None where the noise is white.

    Raises
    ------
    InputError
        See `shared_from` and `shared_noise`.
    """
    run = shared_from(parameters)
    if parameters["noise"] == "white":
        return None
    if known is None:
        known = background_noise(particles, settings) if run is None else shared_noise(run, particles.optics)
    return with_micrographs(known, particles, settings) if parameters["noise_per"] == "micrograph" else known
