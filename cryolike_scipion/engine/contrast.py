"""Whether particles are dark where projections are bright."""

from __future__ import annotations

import dataclasses

import numpy as np

from .conversion import convert
from .exhaustive import BlockSizes, search_grid
from .likelihood import ScalePrior
from .likelihood_setup import Setup
from .polar_images import PolarImages

__all__ = ["inverted_share"]

_IMAGES, _FEWEST = 24, 12


def inverted_share(setup: Setup, templates, blocks: BlockSizes) -> float | None:
    """Share of a few particles that the first structure explains better with inverted contrast, over all poses of the grid.

    Parameters
    ----------
    setup : Setup
    templates : Templates
        Of the first structure and its table.
    blocks : BlockSizes

    Returns
    -------
    float or None
        None where too few images can be read. Noise alone gives a half.
    """
    group = setup.particles.optics_index
    rows = np.flatnonzero(group == group[0])
    rows = rows[np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).round().astype(np.int64)]
    converted = convert(setup.particles, rows, setup.settings, setup.rule, "flag", setup.cache, setup.device)
    images = converted.images
    if images is None or len(images) < _FEWEST:
        return None
    images = setup.behind_mask(0, images, rows[converted.usable])
    upright, inverted = (_integrated(setup, some, templates, blocks) for some in (images, _negative(images)))
    return float((inverted > upright).mean())


def _negative(images: PolarImages) -> PolarImages:
    return dataclasses.replace(images, matched=-images.matched, cross_power=-images.cross_power)


def _integrated(setup: Setup, images: PolarImages, templates, blocks: BlockSizes) -> np.ndarray:
    """ln of the evidence over the grid with a flat scale, which does not know how strong the contrast should be."""
    scores = search_grid(
        images,
        templates,
        setup.tables[0].weights,
        setup.shifts,
        setup.n_inplane,
        ScalePrior(flat=True),
        setup.settings.grid,
        blocks,
    )
    return scores.integrated.cpu().numpy()
