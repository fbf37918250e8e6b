"""The scores of a likelihood run for viewers, from ``scores.h5`` and without an object a particle."""

import json
import os
from dataclasses import dataclass, field

import h5py
import numpy as np

from ..constants import OUTPUT_GALLERY, OUTPUT_SCORES, OUTPUT_STAR
from .inspection import item_ids, row_of_item
from .results import ResultError

ANGLE, SHIFT = "input_angle_difference", "input_shift_difference"


@dataclass
class RunScores:
    """Arrays of a run; only those asked for are read.

    Attributes
    ----------
    folder : str
        The run's output folder.
    labels : list of str
        Of the structures.
    best : ndarray, int64, [M]
        Best structure, from 0; -1 where the image could not be scored.
    """

    folder: str
    labels: list = field(init=False)
    best: np.ndarray = field(init=False)
    _arrays: dict = field(init=False, default_factory=dict)

    def __post_init__(self):
        try:
            with h5py.File(self._path(), "r") as file:
                self.labels = [entry["label"] for entry in json.loads(file.attrs["structures"])]
                self.best = file["best_structure"][()] - 1
        except (OSError, KeyError) as error:
            raise ResultError(f"{self._path()}: the scores cannot be read ({error})") from None

    def compared(self):
        """Return resolution limit and mask diameter (Å; None: no mask) with which images and templates were compared."""
        with h5py.File(self._path(), "r") as file:
            polar = json.loads(file.attrs["parameters"])["polar"]
        return 1 / polar["k_max"], polar["images"]["mask_diameter"]

    def _path(self):
        return os.path.join(self.folder, OUTPUT_SCORES)

    @property
    def scored(self):
        """Which particles have scores: bool, [M]."""
        return self.best >= 0

    def matrix(self, name):
        """Return an array [K, M], such as ``integrated``."""
        if name not in self._arrays:
            with h5py.File(self._path(), "r") as file:
                self._arrays[name] = file[name][()]
        return self._arrays[name]

    def of_best(self, name):
        """Return an array at the best structure of each particle that could be scored: [m]."""
        places, values = np.flatnonzero(self.scored), self.matrix(name)
        return values[places] if values.ndim == 1 else values[self.best[places], places]

    def extra(self, name):
        """Return a further array of the particles that could be scored: [m], None if the run has none."""
        with h5py.File(self._path(), "r") as file:
            return file["extra"][name][()][self.scored] if name in file["extra"] else None

    def row_of_item(self, item_id):
        """Return the row (from 1) of a Scipion item.

        Raises
        ------
        KeyError
            If there is no such item.
        """
        return row_of_item(os.path.join(self.folder, OUTPUT_STAR), item_id)

    def gallery(self):
        """Return the pictures of the run: dict of arrays, None if it has none.

        Its members are numbered by their Scipion items (0: none), in place of the engine's rows.
        """
        path = os.path.join(self.folder, OUTPUT_GALLERY)
        if not os.path.exists(path):
            return None
        with np.load(path, allow_pickle=False) as stored:
            pictures = {name: stored[name] for name in stored.files}
        items = np.array([0, *item_ids(os.path.join(self.folder, OUTPUT_STAR))])
        return dict(pictures, member_row=items[pictures["member_row"]])
