"""The integrated log-likelihood on an exhaustive grid that is finer than a run's in every dimension."""

import dataclasses

import numpy as np

from cryolike_scipion.engine.division import Division
from cryolike_scipion.engine.exhaustive import BlockSizes
from cryolike_scipion.engine.levels import single_level
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_chunk import Scoring, score_chunk
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.pose_search import StructureSearch
from cryolike_scipion.engine.shifts import ShiftGrid, subdivide
from cryolike_scipion.engine.views import healpix_views


def finer_setup(setup, halvings=2):
    """A run's setup with steps of views, in-plane angles and shifts halved so often, every pose of which is to be summed.

    Shifts stay in the cells of the run's own grid, so that both integrals are over the same shifts.
    """
    factor = 2**halvings
    tables = [healpix_views(table.step_deg / factor, table.symmetry) for table in setup.tables]
    origins, step = setup.shifts.origins, setup.shifts.step
    for _ in range(halvings):
        origins, step = subdivide(origins, step)
    shifts = ShiftGrid(origins, step)
    return dataclasses.replace(
        setup,
        levels=[single_level(table, shifts) for table in tables],
        bands=setup.bands[-1:],
        shifts=shifts,
        n_inplane=factor * setup.n_inplane,
        division=Division(levels=0),
        search="exhaustive",
    )


def on_finer_grid(results, rows=None, halvings=2):
    """Integrated log-likelihoods (nat) [K, m] of the particles ``rows`` (from 0; default all) of a run, on the finer grid and
    with the contrast prior that the run learned.
    """
    setup = finer_setup(prepare_run(results.parameters, "cpu"), halvings)
    searches = [
        StructureSearch(k, setup.bands, levels, setup.division, setup.near, setup.n_inplane, setup.ring_ctf, 2**28)
        for k, levels in enumerate(setup.levels)
    ]
    priors = {int(g): ScalePrior(**values) for g, values in results.parameters["scale_prior"]["groups"].items()}
    rows = np.arange(len(setup.particles)) if rows is None else np.asarray(rows)
    return score_chunk(Scoring(setup, searches, priors, BlockSizes(), len(rows)), rows)["integrated"]
