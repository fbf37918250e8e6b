"""Higher-order aberrations of the particles of a STAR file, and images that cannot be scored."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .aberrations import Aberrations, beam_tilt_coefficients
from .ctf import wavelength
from .errors import InputError
from .particle_table import ABERRATION_LABELS, CORRECTED_LABELS, TOMOGRAPHY_LABELS, ParticleTable
from .particles import OpticsGroup

__all__ = ["aberrations_of", "refuse_corrected", "refuse_tomography", "say_what_is_applied"]

logger = logging.getLogger(__name__)

_MAGNIFICATION = (("rlnMagMat00", 1.0), ("rlnMagMat01", 0.0), ("rlnMagMat10", 0.0), ("rlnMagMat11", 1.0))
_FARTHEST = 0.5  # a magnification matrix farther from one than this is no calibration but an error
_SAID = {
    "rlnCtfDataAreCtfPremultiplied": "multiplied by their CTF",
    "rlnCtfDataAreCtfCorrected": "corrected for their CTF",
}


def aberrations_of(
    table: ParticleTable, voltage: NDArray[np.float64], cs: NDArray[np.float64]
) -> tuple[list[Aberrations], NDArray[np.int64]]:
    """The distinct aberrations, and each particle's.

    Raises
    ------
    InputError
        If a value is no number, or a magnification matrix is far from one.
    """
    if not any(table.has(label) for label in ABERRATION_LABELS):
        return [Aberrations()], np.zeros(len(table), dtype=np.int64)
    odd, even = table.lists("rlnOddZernike"), table.lists("rlnEvenZernike")
    tilt = np.stack([table.number(f"rlnBeamTilt{axis}", 0.0) for axis in "XY"], axis=1)
    matrix = np.stack([table.number(label, default) for label, default in _MAGNIFICATION], axis=1)
    far = np.abs(matrix - [default for _, default in _MAGNIFICATION]).max(axis=1) > _FARTHEST
    if far.any():
        row = int(np.argmax(far))
        raise InputError(
            f"the magnification matrix is {matrix[row].tolist()} (rlnMagMat00, 01, 10, 11)",
            table.path,
            row + 1,
            "Correct it: it is close to 1, 0, 0, 1",
        )
    lam = wavelength(torch.from_numpy(voltage)).tolist()
    known: dict[tuple, int] = {}
    places: dict[Aberrations, int] = {}
    index = np.empty(len(table), dtype=np.int64)
    rows = zip(odd, even, map(tuple, tilt.tolist()), map(tuple, matrix.tolist()), cs.tolist(), lam)
    for i, key in enumerate(rows):
        if key not in known:
            known[key] = places.setdefault(_aberrations(*key), len(places))
        index[i] = known[key]
    return list(places), index


def _aberrations(odd, even, tilt, matrix, cs: float, lam: float) -> Aberrations:
    if any(tilt):
        odd = beam_tilt_coefficients(odd, tilt, cs, lam)
    return Aberrations(_trimmed(odd), _trimmed(even), matrix)


def _trimmed(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """Without zeros at the end."""
    last = max((i for i, value in enumerate(coefficients, 1) if value), default=0)
    return tuple(coefficients[:last])


def say_what_is_applied(table: ParticleTable, optics: Sequence[OpticsGroup], optics_index: NDArray[np.int64]) -> None:
    """Log how many particles have aberrations and a distortion that will be corrected."""
    of = {
        "antisymmetric aberrations (beam tilt, trefoil, …)": [any(group.aberrations.odd) for group in optics],
        "symmetric aberrations (tetrafoil, …)": [any(group.aberrations.even) for group in optics],
        "anisotropic magnification": [group.aberrations.distorts for group in optics],
        "flipped phases": [group.phase_flipped for group in optics],
    }
    for what, groups in of.items():
        count = int(np.count_nonzero(np.array(groups)[optics_index]))
        if count:
            logger.info("%s: %s taken into account for %d of %d particles", table.path, what, count, len(table))


def refuse_tomography(table: ParticleTable) -> None:
    """Refuse subtomograms, whose images are tilt series.

    Raises
    ------
    InputError
        If the file has columns of them.
    """
    label = next((label for label in TOMOGRAPHY_LABELS if table.has(label)), None)
    if label is not None and any(text not in ("0", "") for text in table.shared_texts(label)):
        raise InputError(
            f"the particles are subtomograms (the file has {label})", table.path, remedy="Give single-particle images"
        )


def refuse_corrected(table: ParticleTable) -> None:
    """Refuse images that were changed by their CTF.

    Raises
    ------
    InputError
        If the file says so of a particle.
    """
    for label in CORRECTED_LABELS:
        if not table.has(label):
            continue
        values = table.number(label)
        if values.any():
            raise InputError(
                f"the images are {_SAID[label]} ({label} is {values[values != 0][0]:g})",
                table.path,
                int(np.argmax(values != 0)) + 1,
                "Extract them again without it: the likelihood needs images as the microscope made them",
            )
