"""The integrated log-likelihood on an exhaustive grid that is finer than a run's in every dimension."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryolike_scipion import engine
from cryolike_scipion.engine.division import Division
from cryolike_scipion.engine.exhaustive import BlockSizes
from cryolike_scipion.engine.levels import single_level
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_chunk import Scoring, score_chunk
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.pose_search import StructureSearch
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.shifts import ShiftGrid, subdivide
from cryolike_scipion.engine.views import healpix_views

from .small_sets import write_maps

_PILOT = 30  # particles that the contrast is learned from, at least


@dataclass(frozen=True)
class Convergence:
    """Errors (nat) of a run's integrated log-likelihoods and what the run said of them.

    Attributes
    ----------
    own, other, odds : float64 [m]
        Run less finer grid, of the particle's structure, of the other one, and of their difference.
    change, error : float64 [2, m]
        The run's ``integrated_change`` and ``integrated_error``.
    """

    own: np.ndarray
    other: np.ndarray
    odds: np.ndarray
    change: np.ndarray
    error: np.ndarray


def compare_with_finer(folder, snr, count, box=20, resolution=18.0, shift=3.0, symmetry="C1", seed=1, **scoring):
    """Simulate particles of two structures, score them as a run does by default, and compare with a grid four times finer."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    blobs = {} if symmetry == "C1" else {"count": 4}
    maps = write_maps(folder, 2, box=box, symmetry=symmetry, **blobs)
    engine.run(
        "simulate", structures=maps, out=str(folder), count=max(count, _PILOT), snr=snr, resolution=resolution, max_shift=shift,
        seed=seed, scale_spread=0.1, offset_spread=0.1, defocus_max=12000.0,
    )  # fmt: skip
    engine.run(
        "likelihood", particles=[str(folder / "particles.star")], structures=maps, out=str(folder / "scores"),
        resolution=resolution, max_shift=float(np.sqrt(2) * shift), symmetry=[symmetry], no_report=True, **scoring,
    )  # fmt: skip
    results, rows = load_results(folder / "scores"), np.arange(count)
    off = results.integrated[:, :count] - on_finer_grid(results, rows)
    own = read_particles([folder / "truth.star"]).class_number[:count] - 1
    change, error = (results.extras[f"integrated_{name}"].values[:, :count] for name in ("change", "error"))
    return Convergence(off[own, rows], off[1 - own, rows], off[own, rows] - off[1 - own, rows], change, error)


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
