"""What a likelihood run learns from a few particles before it scores all: the contrast prior, and radial noise's spectrum."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from .likelihood import ScalePrior
from .likelihood_chunk import STAGES, Scoring, forked, pilot_images
from .noise_residuals import refined_noise
from .noise_spectrum import NoiseModel
from .particles import Particles
from .progress import Progress
from .scale_prior import learn_scale
from .spread import spread

__all__ = ["learn_noise", "learn_prior", "pilot_rows"]

logger = logging.getLogger(__name__)

_START_INFORMATION = 100.0  # tau² <T,T> of the prior with which the pilot is searched
_WIDE = ScalePrior(0.0, float(np.sqrt(_START_INFORMATION / 0.5)))
_SMALL_GROUP = 30
_LEAST_PARTICLES = 0.1  # of a pilot, for its scale to be believed


def learn_prior(scoring: Scoring, parameters: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Learn the scale prior of every optics group from its first readable particles, evenly spaced over the set.

    Returns
    -------
    dict
        ``kind`` and ``groups``, as `write_scale` takes them.
    """
    setup = scoring.setup
    chosen = pilot_rows(setup.particles, parameters["pilot"])
    if parameters["scale"] == "free":
        return {"kind": "free", "groups": {str(g): {"flat": True} for g in chosen}}
    total = sum(len(rows) for rows in chosen.values()) * len(setup.structures)
    progress.start(total * STAGES, "learning the scale", "steps")
    with forked(scoring) as ready:
        images = {g: pilot_images(ready, rows, _WIDE, progress.update) for g, rows in chosen.items()}
    progress.close()
    pooled = learn_scale([image for some in images.values() for image in some], _WIDE)
    learned = {}
    for g, some in images.items():
        fit = learn_scale(some, _WIDE) if len(some) >= _SMALL_GROUP else pooled
        if fit.particle_fraction < _LEAST_PARTICLES:
            logger.warning(
                "scale of optics group %s: only %.0f %% of the pilot look like these structures; a wide prior is used",
                setup.particles.optics[g].name,
                100 * fit.particle_fraction,
            )
            learned[str(g)] = {"mu": _WIDE.mu, "tau": _WIDE.tau}
            continue
        learned[str(g)] = {"mu": fit.prior.mu, "tau": fit.prior.tau}
        logger.info(
            "scale of optics group %s: mean %.4g, width %.3g of the noise, from %d particles (%.0f %% of them informative)",
            setup.particles.optics[g].name,
            fit.prior.mu,
            fit.prior.tau,
            fit.images,
            100 * fit.particle_fraction,
        )
    return {"kind": "learned", "groups": learned}


def learn_noise(scoring: Scoring, parameters: dict[str, Any], progress: Progress) -> NoiseModel:
    """Spectra of radial noise, refined by what is left of the pilot's particles without their projections."""
    return refined_noise(scoring, pilot_rows(scoring.setup.particles, parameters["pilot"]), _WIDE, progress)


def pilot_rows(particles: Particles, count: int) -> dict[int, np.ndarray]:
    """Of each optics group at most ``count`` rows and a third of a larger group's, evenly spaced."""
    chosen = {}
    for g in np.unique(particles.optics_index):
        rows = np.flatnonzero(particles.optics_index == g)
        chosen[int(g)] = spread(rows, min(count, max(_SMALL_GROUP, len(rows) // 3)))
    return chosen
