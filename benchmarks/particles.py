"""Particles with known truth for the benchmarks, made by the program's own ``simulate``, and how well a run finds it.

The structures are made-up proteins in two states, 140 Å across, in a box of 190 Å; the particles show the two states
of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import cryolike, measure

from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.synthetic_structure import write_structures

WIDTH = 190.0  # Å, edge of the box
_STATES = 2
_NEAR_DEG = 15.0
_SHIFT_PIXELS = 4.0  # largest along x and y: within the 6 pixels that the benchmarks search


@dataclass(frozen=True)
class Dataset:
    """Simulated particles.

    Attributes
    ----------
    particles, truth : STAR files; the first is what a user has.
    structures : files; the particles show the first two.
    box : pixels.
    """

    particles: Path
    truth: Path
    structures: tuple[Path, ...]
    box: int

    @property
    def pixel(self) -> float:
        """Å."""
        return WIDTH / self.box


@dataclass(frozen=True)
class Agreement:
    """How a run agrees with the truth.

    Attributes
    ----------
    accuracy : fraction of particles given to their structure.
    pose_error : degrees, median, of the pose under the particle's own structure.
    near : fraction of those poses within 15°.
    """

    accuracy: float
    pose_error: float
    near: float


def simulate(folder: Path, count: int, box: int, structures: int = _STATES, snr: float = 0.05, seed: int = 1) -> Dataset:
    """Write particles into a folder, or take those that an earlier call with the same arguments left there.

    Parameters
    ----------
    folder : the set gets a folder of its own in it.
    count : particles.
    box : pixels.
    structures : how many structures to compare with; those beyond two are of other made-up proteins.
    snr : variance of the clean images over that of the noise, over the whole box.
    seed : of the random numbers.
    """
    models: list[Path] = []
    for protein in range((max(structures, _STATES) + 1) // _STATES):
        own = folder / f"protein_{protein + 1}"
        own.mkdir(parents=True, exist_ok=True)
        models += write_structures(own, protein + 1)
    out = folder / f"box_{box}_count_{count}_snr_{snr:g}_seed_{seed}"
    data = Dataset(out / "particles.star", out / "truth.star", tuple(models), box)
    if not data.truth.exists():  # written last
        options = {"count": count, "box": box, "pixel": data.pixel, "snr": snr, "max_shift": _SHIFT_PIXELS * data.pixel}
        measure(cryolike("simulate", structures=models[:_STATES], **options, seed=seed, out=out))
    return data


def agreement(out: Path, data: Dataset) -> Agreement:
    """Compare the results of a run with the truth, row by row; particles whose structure was not offered are left out."""
    found, truth = load_results(out), read_particles([data.truth])
    rows = found.row - 1
    right = truth.class_number[rows]
    offered = np.flatnonzero(right <= len(found.structures))
    rows, own = rows[offered], (right[offered] - 1, offered)
    mine = matrix_from_euler(found.rot[own], found.tilt[own], found.psi[own])
    error = distance_deg(mine, matrix_from_euler(truth.rot[rows], truth.tilt[rows], truth.psi[rows]))
    return Agreement(
        float((found.best_structure[offered] == right[offered]).mean()),
        float(np.median(error)),
        float((error < _NEAR_DEG).mean()),
    )
