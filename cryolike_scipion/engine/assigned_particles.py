"""The particles of each structure as a STAR file of its own, ready for a refinement of that structure alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .particle_star import write_particles
from .particles import Particles
from .results import Results

logger = logging.getLogger(__name__)

FOLDER = "assigned"
PATTERN = "[0-9][0-9][0-9].star"


def write_assigned(
    out: Path,
    results: Results,
    particles: Particles,
    columns: Mapping[str, Sequence[object] | np.ndarray],
    threshold: float,
    *,
    keep_overwritten: bool = True,
) -> None:
    """Write ``assigned/001.star`` and so on: the particles of structure 1, and so on.

    A particle goes to its best structure, if the posterior probability of that is at least `threshold`; all others go
    nowhere. The rows are those of ``particles.star``, but for ``rlnClassNumber``, which is 1: each file is for a refinement
    with one reference. ``cryolikeBestStructure`` keeps the structure's number. A structure without particles gets no file,
    and files of an earlier run are removed.

    Parameters
    ----------
    out : Path
        Folder of the run.
    results : Results
    particles : Particles
        The same particles.
    columns : mapping of label to sequence [M]
        The new columns of ``particles.star``.
    threshold : float
        Probability, 0 to 1.
    keep_overwritten : bool
        As for :func:`~cryolike_scipion.engine.particle_star.write_particles`.
    """
    folder = out / FOLDER
    posterior = results.of_best("structure_posterior")
    written = set()
    for k, label in enumerate(results.labels, start=1):
        chosen = np.flatnonzero((results.best_structure == k) & (posterior >= threshold))
        logger.info("%s: %d particles with a posterior of at least %g", label, len(chosen), threshold)
        if len(chosen) == 0:
            continue
        own = {name: [values[i] for i in chosen] for name, values in columns.items()}
        own["rlnClassNumber"] = [1] * len(chosen)
        path = folder / f"{k:03d}.star"
        write_particles(path, particles.take(chosen), own, keep_overwritten=keep_overwritten)
        written.add(path)
    for path in folder.glob(PATTERN):
        if path not in written:
            path.unlink()
