"""A set of particles, written as the STAR file that the engine reads.

The file has RELION's 3.1 layout, an extra column ``cryolikeItemId`` on which the results are joined, and the
place of each particle's polar coefficients if it has one.  Images stay where they are.  What the importer dropped comes from
the original STAR file, where that is known: optics groups, further columns and tables, and the text of every number that
Scipion did not change.
"""

import itertools
import os

import numpy as np
from pwem.constants import ALIGN_PROJ

from ..constants import COEFFICIENTS, COEFFICIENTS_HASH, ITEM_ID
from ..objects import COEFFICIENTS_ATTRIBUTE, COEFFICIENTS_HASH_ATTRIBUTE, IMAGE_SIGN_ATTRIBUTE
from .optics import OpticsTable
from .original_star import SOURCE_IMAGE
from .poses import poses_from_transforms, same_poses
from .star import number, quoted, write_star

_BLOCK = 1000
_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
# Attributes that a RELION import leaves on a particle and the engine, or RELION after it, can use.
_CARRIED = ("rlnCtfBfactor", "rlnCtfScalefactor", "rlnRandomSubset", "rlnGroupNumber")
_PLACE = ("rlnCoordinateX", "rlnCoordinateY")
# What the set says of a particle, and not its original file.
PROVIDED = ("rlnImageName", "rlnOpticsGroup", "rlnPhaseShift", "cryolikeImageSign", *_CTF, *_CARRIED, *_POSE)


def write_particles(particles, star, names, ids=None, original=None):
    """Write the enabled particles of a set.

    Parameters
    ----------
    particles : SetOfParticles
        With a CTF; in ALIGN_PROJ the poses are written, too.
    star : path of the STAR file; it appears only when it is complete.
    names : StackNames
        Gives image stacks names that a STAR file can hold.
    ids : set of int
        Write only these particles.
    original : OriginalStar
        The file that they were imported from; its `missed` says afterwards which of them it does not have.

    Returns
    -------
    int
        The number of particles written.

    Raises
    ------
    ValueError
        If a particle has no CTF, or no pose where the set says so, or if no particle is enabled.
    """
    where = None if ids is None else f"id >= {min(ids)} and id <= {max(ids)}"
    items = particles.iterItems(where=where)
    enabled = (item for item in items if item.isEnabled() and (ids is None or item.getObjId() in ids))
    first = next(enabled, None)
    if first is None:
        raise ValueError("The input set has no enabled particle. Enable some, or choose another set.")
    writer = _Rows(particles, first, names, original)
    body = star + ".rows.tmp"
    count = 0
    try:
        with open(body, "w", encoding="utf-8", errors="surrogateescape") as stream:
            # The set hands out one and the same object for every row, so what is needed is taken at once.
            records = (writer.record(item) for item in itertools.chain([first], enabled))
            for block in iter(lambda: list(itertools.islice(records, _BLOCK)), []):
                stream.writelines(" ".join(row) + "\n" for row in writer.rows(block))
                count += len(block)
        with open(body, encoding="utf-8", errors="surrogateescape") as stream:
            further = original.tables if original is not None else []
            write_star(star, [writer.optics.table(), ("particles", writer.columns, stream), *further])
    finally:
        os.remove(body)
    return count


class _Rows:
    """The rows of the particle table and the optics groups met on the way."""

    def __init__(self, particles, first, names, original):
        self._names = names
        self._original = original
        self.optics = OpticsTable(particles, original)
        self._posed = particles.getAlignment() == ALIGN_PROJ
        self._provided = ["rlnImageName", "rlnOpticsGroup", *_CTF]
        phase = first.hasCTF() and first.getCTF().hasPhaseShift()
        self._phase = bool(phase)
        self._carried = [label for label in _CARRIED if first.hasAttribute("_" + label)]
        self._sign = first.hasAttribute(IMAGE_SIGN_ATTRIBUTE)
        self._provided += ["rlnPhaseShift"] * self._phase + self._carried + ["cryolikeImageSign"] * self._sign
        place = original is None and first.hasCoordinate()
        self._micrograph = place and bool(first.getCoordinate().getMicName())
        self._place = place and first.getCoordinate().getX() is not None
        self._coefficients = first.hasAttribute(COEFFICIENTS_ATTRIBUTE)
        self._others = [] if original is None else original.columns_beside(self._provided + list(_POSE) * self._posed)
        self.columns = self._provided + ["rlnMicrographName"] * self._micrograph + list(_PLACE) * self._place
        self.columns += self._others + [SOURCE_IMAGE] * (original is not None)
        self.columns += [COEFFICIENTS, COEFFICIENTS_HASH] * self._coefficients
        self.columns += [ITEM_ID] + list(_POSE) * self._posed

    def record(self, item):
        """Return the texts of one particle, its matrix, its pixel size and its row in the original file."""
        if not item.hasCTF():
            raise ValueError(f"Particle {item.getObjId()} has no CTF. Estimate it, or import the particles with it.")
        index, stack = item.getLocation()
        index = max(index, 1)
        row = self._original.row(index, stack, item.getObjId()) if self._original is not None else None
        ctf = item.getCTF()
        pixel = item.getSamplingRate()
        texts = [f"{index:06d}@{self._names(stack)}", str(self.optics.group(item, pixel, row))]
        texts += self._defocus(row, ctf.getDefocus())
        values = []
        if self._phase:
            values.append(ctf.getPhaseShift() or 0.0)
        values += [item.getAttributeValue("_" + label, 0.0) for label in self._carried]
        if self._sign:
            values.append(item.getAttributeValue(IMAGE_SIGN_ATTRIBUTE) or 1)
        texts += [self._text(row, label, value) for label, value in zip(self._provided[5:], values)]
        if self._micrograph:
            texts.append(_one_word(item.getCoordinate().getMicName()))
        if self._place:
            texts += [number(value) for value in item.getCoordinate().getPosition()]
        if self._original is not None:
            texts += self._original.others(row, self._others)
            texts.append(quoted(self._original.text(row, "rlnImageName") or "None"))
        if self._coefficients:
            texts += [
                quoted(item.getAttributeValue(name) or "none") for name in (COEFFICIENTS_ATTRIBUTE, COEFFICIENTS_HASH_ATTRIBUTE)
            ]
        texts.append(str(item.getObjId()))
        matrix = None
        if self._posed:
            if not item.hasTransform():
                raise ValueError(f"Particle {item.getObjId()} has no pose, though its set says that it is aligned.")
            matrix = np.array(item.getTransform().getMatrix(), dtype=np.float64)
        return texts, matrix, pixel, row

    def _defocus(self, row, values):
        return [number(value) for value in values] if row is None else self._original.exact_defocus(row, _CTF, values)

    def _text(self, row, label, value):
        return number(value) if row is None else self._original.exact(row, label, value)

    def rows(self, block):
        """Yield the complete rows of a block of records."""
        if not self._posed:
            yield from (record[0] for record in block)
            return
        pixels = np.array([pixel for _, _, pixel, _ in block])
        poses = np.stack(poses_from_transforms([matrix for _, matrix, _, _ in block], pixels), axis=1)
        given = [self._original.texts(row, _POSE) if row is not None else None for _, _, _, row in block]
        there = [i for i, texts in enumerate(given) if texts is not None]
        same = np.zeros(len(block), dtype=bool)
        if there:
            same[there] = same_poses(poses[there], np.array([given[i] for i in there], dtype=np.float64), pixels[there])
        for i, (texts, _, _, _) in enumerate(block):
            yield texts + (given[i] if same[i] else [number(value) for value in poses[i]])


def _one_word(name):
    return "".join(letter if letter.isprintable() and letter not in " '\"#$;" else "_" for letter in name)
