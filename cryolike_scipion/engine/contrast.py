"""Whether particles are dark where projections are bright."""

from __future__ import annotations

import dataclasses

import numpy as np

from .bands import band_images
from .conversion import convert
from .likelihood import ScalePrior
from .likelihood_setup import Setup
from .polar_images import PolarImages
from .pose_search import StructureSearch
from .row_scores import MovedImages, RowScorer
from .spread import spread

__all__ = ["inverted_share"]

_IMAGES, _FEWEST = 24, 12


def inverted_share(setup: Setup, search: StructureSearch) -> float | None:
    """Share of a few particles that a structure explains better with inverted contrast, over all poses of the coarsest level.

    Parameters
    ----------
    setup : Setup
    search : StructureSearch
        Of the first structure.

    Returns
    -------
    float or None
        None where too few images can be read. Noise alone gives a half.
    """
    group = setup.particles.optics_index
    rows = np.flatnonzero(group == group[0])
    rows = spread(rows, _IMAGES)
    converted = convert(setup.particles, rows, setup.settings, setup.rule, "flag", setup.cache, setup.device)
    images = converted.images
    if images is None or len(images) < _FEWEST:
        return None
    rows, settings = rows[converted.usable], setup.settings
    images = setup.behind_mask(0, images, rows)
    band = setup.bands[0]
    if len(setup.bands) > 1:
        images = band_images(
            images, settings.grid, band, setup.particles, rows, settings.images, settings.window, settings.noise
        )
    upright, inverted = (_integrated(setup, search, some) for some in (images, _negative(images)))
    return float((inverted > upright).mean())


def _negative(images: PolarImages) -> PolarImages:
    return dataclasses.replace(images, matched=-images.matched, cross_power=-images.cross_power)


def _integrated(setup: Setup, search: StructureSearch, images: PolarImages) -> np.ndarray:
    """ln of the evidence over the coarsest level with a flat scale, which does not know how strong the contrast should be."""
    level, band = search.levels[0], setup.bands[0]
    moved = MovedImages(images, band, level.shifts.origins)
    scorer = RowScorer(images, moved, band, search.templates(0), ScalePrior(flat=True), band.n_inplane)
    origin, view = (a.ravel() for a in np.indices((len(level.shifts), len(level.table))))
    return np.array([np.logaddexp.reduce(scorer.sums(i, origin, view).log_mass) for i in range(len(images))])
