"""A set of particles, written as the STAR file that the engine reads.

The file has RELION's 3.1 layout, an extra column ``cryolikeItemId`` on which the results are joined, and the
place of each particle's polar coefficients if it has one.  Images stay where they are.
"""

import itertools
import os

import numpy as np
from pwem.constants import ALIGN_PROJ

from ..constants import COEFFICIENTS, COEFFICIENTS_HASH, ITEM_ID
from ..objects import COEFFICIENTS_ATTRIBUTE, COEFFICIENTS_HASH_ATTRIBUTE, IMAGE_SIGN_ATTRIBUTE
from .poses import poses_from_transforms
from .star import number, parse_columns, quoted, write_star

_BLOCK = 1000
_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_OPTICS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnImagePixelSize",
    "rlnImageSize",
    "rlnImageDimensionality",
)
# Attributes that a RELION import leaves on a particle and the engine, or RELION after it, can use.
_CARRIED = ("rlnCtfBfactor", "rlnCtfScalefactor", "rlnRandomSubset", "rlnGroupNumber")


def write_particles(particles, star, names, ids=None):
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
    writer = _Rows(particles, first, names)
    body = star + ".rows.tmp"
    count = 0
    try:
        with open(body, "w", encoding="utf-8") as stream:
            # The set hands out one and the same object for every row, so what is needed is taken at once.
            records = (writer.record(item) for item in itertools.chain([first], enabled))
            for block in iter(lambda: list(itertools.islice(records, _BLOCK)), []):
                stream.writelines(" ".join(row) + "\n" for row in writer.rows(block))
                count += len(block)
        with open(body, encoding="utf-8") as stream:
            optics = ("optics", _OPTICS, writer.optics_rows())
            write_star(star, [optics, ("particles", writer.columns, stream)])
    finally:
        os.remove(body)
    return count


class _Rows:
    """The rows of the particle table and the optics groups met on the way."""

    def __init__(self, particles, first, names):
        self._names = names
        self._box = particles.getXDim()
        self._known = _optics_by_number(particles.getAcquisition())
        self._groups = {}
        self._posed = particles.getAlignment() == ALIGN_PROJ
        self._phase = first.hasCTF() and first.getCTF().hasPhaseShift()
        self._coefficients = first.hasAttribute(COEFFICIENTS_ATTRIBUTE)
        self._carried = [label for label in _CARRIED if first.hasAttribute("_" + label)]
        self._sign = first.hasAttribute(IMAGE_SIGN_ATTRIBUTE)
        self._micrograph = first.hasCoordinate() and bool(first.getCoordinate().getMicName())
        self.columns = ["rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
        self.columns += ["rlnPhaseShift"] * bool(self._phase) + self._carried
        self.columns += ["cryolikeImageSign"] * self._sign + ["rlnMicrographName"] * self._micrograph
        self.columns += [COEFFICIENTS, COEFFICIENTS_HASH] * self._coefficients
        self.columns += [ITEM_ID] + list(_POSE) * self._posed

    def record(self, item):
        """Return the texts of one particle, its matrix and its pixel size."""
        if not item.hasCTF():
            raise ValueError(f"Particle {item.getObjId()} has no CTF. Estimate it, or import the particles with it.")
        index, stack = item.getLocation()
        ctf = item.getCTF()
        pixel = item.getSamplingRate()
        texts = [f"{max(index, 1):06d}@{self._names(stack)}", str(self._group(item, pixel))]
        texts += [number(value) for value in ctf.getDefocus()]
        if self._phase:
            texts.append(number(ctf.getPhaseShift() or 0.0))
        texts += [number(item.getAttributeValue("_" + label, 0.0)) for label in self._carried]
        if self._sign:
            texts.append(str(item.getAttributeValue(IMAGE_SIGN_ATTRIBUTE) or 1))
        if self._micrograph:
            texts.append(_one_word(item.getCoordinate().getMicName()))
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
        return texts, matrix, pixel

    def rows(self, block):
        """Yield the complete rows of a block of records."""
        if not self._posed:
            yield from (texts for texts, _, _ in block)
            return
        poses = poses_from_transforms([matrix for _, matrix, _ in block], np.array([pixel for _, _, pixel in block]))
        for (texts, _, _), pose in zip(block, zip(*poses)):
            yield texts + [number(value) for value in pose]

    def _group(self, item, pixel):
        acquisition = item.getAcquisition()
        label = int(item.getAttributeValue("_rlnOpticsGroup", 1) or 1)
        name, optics = self._known.get(
            label,
            (
                f"opticsGroup{label}",
                (
                    acquisition.getVoltage(),
                    acquisition.getSphericalAberration(),
                    acquisition.getAmplitudeContrast(),
                ),
            ),
        )
        if any(value is None for value in optics + (pixel,)):
            raise ValueError(
                f"Particle {item.getObjId()} lacks its voltage, spherical aberration, amplitude contrast "
                "or pixel size. Import the particles with these values."
            )
        return self._groups.setdefault((name,) + optics + (pixel,), len(self._groups) + 1)

    def optics_rows(self):
        """Return the rows of the optics table."""
        return [
            [quoted(key[0]), str(index)] + [number(value) for value in key[1:]] + [str(self._box), "2"]
            for key, index in self._groups.items()
        ]


def _optics_by_number(acquisition):
    """Return RELION's optics groups as kept by its import: number to (name, (kV, mm, amplitude contrast))."""
    text = acquisition.getAttributeValue("opticsGroupInfo")
    if not text:
        return {}
    table = parse_columns(text.splitlines(), "optics", _OPTICS, "the optics groups of the input set")
    if not all(name in table for name in _OPTICS[:5]):
        return {}
    return {
        int(label): (name, (float(kv), float(cs), float(contrast)))
        for name, label, kv, cs, contrast in zip(*(table[column] for column in _OPTICS[:5]))
    }


def _one_word(name):
    return "".join(letter if letter.isprintable() and letter not in " '\"#$;" else "_" for letter in name)
