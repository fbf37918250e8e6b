"""What the engine wrote, as Scipion items: scores and poses of particles, and templates."""

import json
import os

import numpy as np
from pwem.objects import Transform
from pyworkflow.object import Float, Integer, String

from ..constants import COEFFICIENTS, COEFFICIENTS_HASH, ITEM_ID, OUTPUT_TEMPLATES, STATUS_OK
from ..objects import (
    COEFFICIENTS_ATTRIBUTE,
    COEFFICIENTS_HASH_ATTRIBUTE,
    SCORE_ATTRIBUTES,
    CryolikeTemplates,
)
from .poses import transforms_from_poses
from .star import read_columns

_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_PYTHON = {Float: float, Integer: int, String: str}


class ResultError(Exception):
    """The engine's files do not fit the input; the text says what is wrong."""


class ParticleScores:
    """The rows of the engine's ``particles.star``, found by the id of the Scipion item.

    Parameters
    ----------
    star : path of the engine's ``particles.star``.
    pixel : pixel size of the particles in Å.
    """

    def __init__(self, star, pixel):
        columns = read_columns(star, "particles", (ITEM_ID,) + _POSE + tuple(SCORE_ATTRIBUTES))
        missing = [name for name in (ITEM_ID,) + _POSE + tuple(SCORE_ATTRIBUTES) if name not in columns]
        if missing:
            raise ResultError("{} lacks the columns {}".format(star, ", ".join(missing)))
        self._star = star
        self._row = {int(text): row for row, text in enumerate(columns[ITEM_ID])}
        self._values = {
            attribute: (kind, [_PYTHON[kind](text) for text in columns[name]])
            for name, (attribute, kind) in SCORE_ATTRIBUTES.items()
        }
        rot, tilt, psi, x, y = (np.array(columns[name], dtype=np.float64) for name in _POSE)
        self._matrices = transforms_from_poses(rot, tilt, psi, x, y, pixel)

    def __len__(self):
        return len(self._row)

    def row(self, item_id):
        """Return the row of a particle in ``particles.star``, counted from 1."""
        if item_id not in self._row:
            raise ResultError(f"{self._star} has no row for particle {item_id}")
        return self._row[item_id] + 1

    def apply(self, item):
        """Put scores and pose on the particle `item`; its class is its best structure, 0 if it has none."""
        row = self.row(item.getObjId()) - 1
        for attribute, (kind, values) in self._values.items():
            setattr(item, attribute, kind(values[row]))
        item.setTransform(Transform(matrix=self._matrices[row]))
        item.setClassId(item.getAttributeValue("_cryolike_bestStructure"))

    def count_bad(self):
        """Return how many particles could not be scored."""
        return sum(status != STATUS_OK for status in self._values["_cryolike_status"][1])

    def assigned(self, structures):
        """Return how many particles chose each of this many structures: ndarray, int64, [K]."""
        chosen = np.array(self._values["_cryolike_bestStructure"][1], dtype=np.int64)
        return np.bincount(chosen[chosen > 0], minlength=structures + 1)[1:]


class CoefficientPlaces:
    """Where each particle's polar coefficients are, as the engine's verb ``particles`` says it."""

    def __init__(self, star):
        columns = read_columns(star, "particles", (ITEM_ID, COEFFICIENTS, COEFFICIENTS_HASH))
        if len(columns) != 3:
            raise ResultError(f"{star} does not say where the coefficients are")
        self._star = star
        self._places = {
            int(item): (place, made)
            for item, place, made in zip(columns[ITEM_ID], columns[COEFFICIENTS], columns[COEFFICIENTS_HASH])
        }

    def apply(self, item):
        """Put place and hash of the coefficients on the particle `item`."""
        if item.getObjId() not in self._places:
            raise ResultError(f"{self._star} has no row for particle {item.getObjId()}")
        place, made = self._places[item.getObjId()]
        setattr(item, COEFFICIENTS_ATTRIBUTE, String(place))
        setattr(item, COEFFICIENTS_HASH_ATTRIBUTE, String(made))


def read_templates(path, sources):
    """Yield the items of a template set.

    Parameters
    ----------
    path : the engine's ``templates.json``; names in it are relative to its folder.
    sources : list of str
        The structures' own files, in their order. A file with several models has a structure for each.
    """
    entries = _template_entries(path)
    used = {entry["input"] for entry in entries}
    if used != set(range(len(sources))):
        raise ResultError(f"{path} has structures of {len(used)} files in place of {len(sources)}")
    folder = os.path.dirname(path)
    for entry in entries:
        item = CryolikeTemplates()
        item.setFileName(os.path.join(folder, entry["file"]))
        item.setStructure(sources[entry["input"]])
        item.setLabel(entry["label"])
        item.setSymmetry(entry["symmetry"])
        item.setViews(entry["views"])
        if entry.get("preview"):
            item.setPreview(os.path.join(folder, entry["preview"]))
        yield item


def preview_views(item):
    """Return the numbers (from 1) of the views that the preview of a CryolikeTemplates shows."""
    folder, name = os.path.split(item.getFileName())
    entries = _template_entries(os.path.join(folder, OUTPUT_TEMPLATES))
    return next(entry["preview_views"] for entry in entries if entry["file"] == name)


def _template_entries(path):
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)
