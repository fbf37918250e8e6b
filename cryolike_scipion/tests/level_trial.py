"""A small set on disk, prepared for a hierarchical search of several levels, and its exhaustive answer."""

from types import SimpleNamespace

import numpy as np

from cryolike_scipion import parameters
from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.exhaustive import search_grid
from cryolike_scipion.engine.hierarchical import Tolerance
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_chunk import _Piece
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.pose_search import StructureSearch

from .small_sets import simulate, write_maps

GRID = {"angular_step": 4.0, "max_shift": 8.0, "shift_step": 4.0, "resolution": 8.2, "levels": 0, "memory": 1.0}
BOX = 44


def level_set(folder, snr, count=6, symmetry="C1", **options):
    """Particles of two structures, of which ``shown`` [m] is the one that each shows, and everything that scores them."""
    blobs = {"count": 14 if symmetry == "C1" else 5, "radius": 46.0, "sigma": 4.0}
    maps = write_maps(folder, 2, box=BOX, symmetry=symmetry, **blobs)
    simulate(folder, maps, count=count, snr=snr, symmetry=[symmetry])
    return prepared(folder / "truth.star", maps, symmetry=[symmetry], **options)


def prepared(star, maps, **options):
    """The setup, converted images and one search per structure of a run over a set."""
    given = {"particles": [str(star)], "structures": maps, "out": "unused", "search": "hierarchical", **GRID, **options}
    setup = prepare_run(parameters.complete("likelihood", given), "cpu")
    rows = np.arange(len(setup.particles))
    images = convert(setup.particles, rows, setup.settings, setup.rule, "stop").images
    searches = [
        StructureSearch(k, setup.bands, levels, setup.division, setup.near, setup.n_inplane, setup.ring_ctf, 2.0**28)
        for k, levels in enumerate(setup.levels)
    ]
    return SimpleNamespace(
        setup=setup, images=images, rows=rows, searches=searches, piece=_Piece(setup, images, rows),
        shown=setup.particles.class_number - 1,
    )  # fmt: skip


def moved(case, k):
    """Moved images for every level of structure k."""
    return [case.piece._moved_to(level.band, level.shifts.origins) for level in case.searches[k].levels]


def begun(case, k, prior, **tolerance):
    """Explored searches of all images under structure k."""
    return case.searches[k].begin(case.piece.bands, moved(case, k), prior, Tolerance(**tolerance))


def every_pose(case, k, prior):
    """`GridScores` of the whole grid of structure k, nothing left out."""
    search, setup = case.searches[k], case.setup
    return search_grid(
        case.images, search.templates(), search.table.weights, search.shifts, setup.n_inplane, prior, setup.settings.grid,
        setup.bands[-1].basis, screen=False, most_heavy=10**9,
    )  # fmt: skip


def fitting_prior(case):
    """A scale prior near what a run would learn: the mean and spread of the best poses of the right structures."""
    wide = ScalePrior(0.0, 14.0)
    found = [every_pose(case, k, wide).scale.numpy() for k in range(len(case.searches))]
    scales = np.array([found[k][i] for i, k in enumerate(case.shown)])
    noise = np.sqrt((case.images.projected_power / case.images.dof).double().numpy())
    return ScalePrior(float(np.mean(scales)), max(float(np.std(scales / noise)), 0.3))
