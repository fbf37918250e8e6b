"""One particle with its best templates, as the engine's ``inspect`` writes it."""

import os
import zipfile
from dataclasses import dataclass

import numpy as np

from ..constants import ITEM_ID
from .star import read_columns


@dataclass(frozen=True)
class Landscape:
    """Log-ratios of a particle to the null over the first grid of one structure, nat.

    Attributes
    ----------
    rot, tilt, by_view : ndarray, float64, [V]
        Degrees of every view, and its best score over shifts and in-plane angles.
    shifts : ndarray, float64, [O, 2]
        Origins x and y, Å.
    inplane : ndarray, float64, [G]
        Degrees.
    by_shift : ndarray, float64, [O, G]
        Best score over views.
    """

    rot: np.ndarray
    tilt: np.ndarray
    by_view: np.ndarray
    shifts: np.ndarray
    inplane: np.ndarray
    by_shift: np.ndarray


@dataclass(frozen=True)
class Inspection:
    """A particle beside its best template of each of K structures.

    Attributes
    ----------
    image : ndarray, float, [N, N]
        The particle as it was scored.
    templates : ndarray, float, [K, N, N]
        With the particle's CTF, at the best pose, on the particle's grey scale.
    residual : ndarray, float, [K, N, N]
        Particle minus template.
    labels : list of str
        Names of the structures.
    cc, log_likelihood, posterior : ndarray, float, [K]
        Cross-correlation, integrated log-likelihood (nat, less the null's) and probability of the structure.
    landscapes : tuple of Landscape
        One a structure, if they were asked for.
    """

    image: np.ndarray
    templates: np.ndarray
    residual: np.ndarray
    labels: list
    cc: np.ndarray
    log_likelihood: np.ndarray
    posterior: np.ndarray
    landscapes: tuple = ()


def item_ids(star):
    """Return the Scipion item of every row in the engine's ``particles.star``: list of int."""
    return [int(text) for text in read_columns(star, "particles", [ITEM_ID])[ITEM_ID]]


def row_of_item(star, item_id):
    """Return the row (from 1) of a Scipion item in the engine's ``particles.star``.

    Raises
    ------
    KeyError
        If there is no such item.
    """
    try:
        return item_ids(star).index(int(item_id)) + 1
    except ValueError:
        raise KeyError(f"there is no particle {item_id} in {star}") from None


def is_fresh(path, star):
    """Whether an inspection's file was made after the result that it shows."""
    return os.path.exists(path) and zipfile.is_zipfile(path) and os.stat(path).st_mtime_ns > os.stat(star).st_mtime_ns


def read_inspection(path):
    """Read the file of :class:`Inspection`."""
    with np.load(path, allow_pickle=False) as arrays:
        return Inspection(
            image=arrays["image"],
            templates=arrays["templates"],
            residual=arrays["residual"],
            labels=[str(label) for label in arrays["labels"]],
            cc=arrays["cc"],
            log_likelihood=arrays["log_likelihood"],
            posterior=arrays["structure_posterior"],
            landscapes=tuple(_landscapes(arrays, len(arrays["labels"]))),
        )


def _landscapes(arrays, count):
    names = ("view_rot", "view_tilt", "view_score", "shift", "inplane", "shift_inplane_score")
    for number in range(1, count + 1):
        if f"view_score_{number:03d}" in arrays:
            yield Landscape(*(arrays[f"{name}_{number:03d}"] for name in names))
