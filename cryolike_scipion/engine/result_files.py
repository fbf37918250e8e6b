"""The particles of a run as files: ``particles.star``, and on request what other programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..constants import OUTPUT_GALLERY
from .assigned_particles import FOLDER, PATTERN, write_assigned
from .cryosparc_writer import GROUP, TABLE, has_uids, write_cryosparc
from .own_output import refuse_overwriting
from .particle_star import write_particles
from .particles import Particles
from .report_run import REPORT
from .results import Results, columns_for_star
from .score_table import write_table

__all__ = ["EXPORTS", "refuse_results", "remove_results", "write_particle_files"]

# Parameters that ask for further files; they decide nothing of the scores.
EXPORTS = frozenset({"assigned_above", "csv", "cs"})
_PARTICLES, _SCORES = "particles.star", "scores.csv"
_WRITTEN = (_PARTICLES, "matrix.npy", "scores.h5", REPORT, OUTPUT_GALLERY, _SCORES, TABLE, GROUP)


def write_particle_files(
    out: Path,
    results: Results,
    particles: Particles,
    parameters: Mapping[str, Any],
    runs: Sequence[Path] | None = None,
) -> None:
    """Write ``particles.star``, and then what `parameters` ask for.

    Parameters
    ----------
    out : Path
        Folder.
    results : Results
    particles : Particles
        The same particles.
    parameters : mapping
        ``assigned_above``, ``csv`` and ``cs`` of the verb. ``particles.cs`` is also written for particles that have
        cryoSPARC's uids.
    runs : sequence of Path, optional
        Runs of ours whose ``particles.star`` are the sources of `particles`, one each: the columns that are overwritten are
        ours and not kept.
    """
    keep = runs is None
    columns = columns_for_star(results, particles)
    write_particles(out / _PARTICLES, particles, columns, keep_overwritten=keep)
    if parameters.get("csv"):
        write_table(out / _SCORES, results, particles)
    if parameters.get("cs") or has_uids(particles):
        write_cryosparc(out, results, particles, runs)
    if parameters.get("assigned_above") is not None:
        write_assigned(out, results, particles, columns, parameters["assigned_above"], keep_overwritten=keep)


def refuse_results(out: Path, inputs: Sequence[str]) -> None:
    """Raise :class:`InputError` where one of the inputs is a file that a run writes into `out`."""
    refuse_overwriting(out, _WRITTEN, inputs)
    refuse_overwriting(out / FOLDER, (PATTERN,), inputs)


def remove_results(out: Path) -> None:
    """Remove what an earlier run wrote, so that it is not taken for this one's."""
    for path in (*(out / name for name in _WRITTEN), *(out / FOLDER).glob(PATTERN)):
        path.unlink(missing_ok=True)
