"""How far the best poses lie from those that the particles came with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import symmetry
from .particles import Particles
from .results import Quantity, Results
from .rotations import distance_deg, matrix_from_euler

__all__ = ["ANGLE", "SHIFT", "add_agreement", "merge_agreement", "row_keys"]

ANGLE, SHIFT = "input_angle_difference", "input_shift_difference"


def add_agreement(results: Results, particles: Particles) -> None:
    """Note the differences in ``results.extras``; nothing where the particles came without poses.

    The angle is that of the rotation from one orientation to the other, the smallest under the point group of the particle's
    best structure; both are NaN for images that could not be scored.

    Parameters
    ----------
    results : Results
    particles : Particles
        The same particles, with the poses they came with.
    """
    if not particles.has_pose:
        return
    angle, shift = np.full(len(particles), np.nan), np.full(len(particles), np.nan)
    found = {name: results.of_best(name) for name in ("rot", "tilt", "psi", "origin_x", "origin_y")}
    for k, entry in enumerate(results.structures, start=1):
        own = np.flatnonzero(results.best_structure == k)
        before = matrix_from_euler(particles.rot[own], particles.tilt[own], particles.psi[own])
        after = matrix_from_euler(found["rot"][own], found["tilt"][own], found["psi"][own])
        angle[own] = distance_deg(before, after, symmetry.rotations(entry.symmetry))
        shift[own] = np.hypot(
            found["origin_x"][own] - particles.origin_x[own], found["origin_y"][own] - particles.origin_y[own]
        )
    meaning = "of the best pose from the one that the particle came with; NaN where it could not be scored [particles]"
    results.extras[ANGLE] = Quantity(angle, "degree", f"angle {meaning}")
    results.extras[SHIFT] = Quantity(shift, "angstrom", f"distance of the origin {meaning}")


def merge_agreement(merged: Results, parts: Sequence[Results]) -> None:
    """Note the differences of merged runs, each particle's from the run that has its best structure.

    Parameters
    ----------
    merged : Results
        With its posteriors.
    parts : sequence of Results
        The runs; nothing is noted unless all of them know the differences.
    """
    if not all(ANGLE in part.extras for part in parts):
        return
    place = {key: i for i, key in enumerate(row_keys(merged))}
    number = {entry: k for k, entry in enumerate(merged.structures, start=1)}
    values = {name: np.full(len(place), np.nan) for name in (ANGLE, SHIFT)}
    for part in parts:
        rows = np.array([place[key] for key in row_keys(part)], dtype=np.int64)
        mine = np.isin(merged.best_structure[rows], [number[entry] for entry in part.structures])
        for name, column in values.items():
            column[rows[mine]] = part.extras[name].values[mine]
    for name, column in values.items():
        like = parts[0].extras[name]
        merged.extras[name] = Quantity(column, like.unit, like.meaning)


def row_keys(results: Results) -> list[tuple[str, int]]:
    """Source and row of each particle."""
    return [(results.sources[s], int(r)) for s, r in zip(results.source_index, results.row)]
