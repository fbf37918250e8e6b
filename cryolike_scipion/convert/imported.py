"""A RELION 3.1 STAR file, as the engine's verb ``star`` writes it, as Scipion particles."""

from typing import List

import numpy as np
from pwem.objects import Acquisition, Coordinate, CTFModel, Particle, Transform
from pyworkflow.object import Float, Integer

from ..objects import IMAGE_SIGN_ATTRIBUTE
from .optics_groups import groups_text, joined, parse_groups
from .poses import transforms_from_poses
from .star import read_columns

_POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_OPTICS = ("rlnOpticsGroup", "rlnImagePixelSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_PLACE = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")
_SIGN = "cryolikeImageSign"
# Attributes as a RELION import makes them, and as `particles.write_particles` and RELION's export read them.
_CARRIED = {"rlnCtfBfactor": Float, "rlnCtfScalefactor": Float, "rlnRandomSubset": Integer, "rlnGroupNumber": Integer}
# Their attributes, where these have other names.
_ATTRIBUTES = {"rlnPhaseShift": "_ctfModel._phaseShift", _SIGN: IMAGE_SIGN_ATTRIBUTE}
# What a file without these columns means.
_NEUTRAL = {"rlnPhaseShift": "0", "rlnCtfBfactor": "0", "rlnCtfScalefactor": "1", _SIGN: "1"}
_SAME_PIXEL = 1e-4
_MAGNIFICATION = 10000  # files have none, and Scipion takes an acquisition without for none at all


class ParticleFileError(ValueError):
    """The file cannot become one Scipion set; the text says why and what to do."""


class ImportedParticles:
    """The particles of a STAR file, one after the other.

    Parameters
    ----------
    star : a file of the verb ``star``.
    source : what to call it in messages.

    Attributes
    ----------
    pixel : float
        Å.
    acquisition : Acquisition
        Of the first optics group; all groups are in its ``opticsGroupInfo``.
    posed : bool
        Whether every particle has a pose.

    Raises
    ------
    ParticleFileError
        If the optics groups have different pixel sizes, or the particles have no CTF.
    """

    def __init__(self, star, source):
        optics = read_columns(star, "optics", _OPTICS)
        pixels = [float(text) for text in optics["rlnImagePixelSize"]]
        if max(pixels) - min(pixels) > _SAME_PIXEL * min(pixels):
            raise ParticleFileError(
                f"{source} has optics groups of different pixel sizes, from {min(pixels)} to {max(pixels)} Å, but a "
                "Scipion set has one. Import each group from a file of its own."
            )
        self.pixel = pixels[0]
        self.acquisition = Acquisition(
            voltage=float(optics["rlnVoltage"][0]),
            sphericalAberration=float(optics["rlnSphericalAberration"][0]),
            amplitudeContrast=float(optics["rlnAmplitudeContrast"][0]),
            magnification=_MAGNIFICATION,
        )
        self.acquisition.opticsGroupInfo.set(_storable(_optics_text(star)))
        self._source, self._numbers = source, {}
        names = ("rlnImageName", "rlnOpticsGroup", "rlnPhaseShift", "rlnClassNumber", _SIGN)
        self._columns = read_columns(star, "particles", names + _CTF + _POSE + _PLACE + tuple(_CARRIED))
        if any(name not in self._columns for name in _CTF):
            raise ParticleFileError(f"The particles of {source} have no defocus. Estimate their CTF before importing them.")
        self.posed = all(name in self._columns for name in _POSE)
        self._matrices = None
        if self.posed:
            rot, tilt, psi, x, y = (np.array(self._columns[name], dtype=np.float64) for name in _POSE)
            self._matrices = transforms_from_poses(rot, tilt, psi, x, y, self.pixel)

    def __len__(self):
        return len(self._columns["rlnImageName"])

    def follow(self, particles):
        """Make these particles such that they can stand behind those of a set: its columns, and groups beside its own.

        Parameters
        ----------
        particles : SetOfParticles
            With at least one particle; it gets the new optics groups.

        Raises
        ------
        ParticleFileError
            If the set's pixel size is another one, or the set or these particles have columns that the others lack.
        """
        pixel, first = particles.getSamplingRate(), particles.getFirstItem()
        if abs(pixel - self.pixel) > _SAME_PIXEL * self.pixel:
            raise ParticleFileError(
                f"{self._source} has a pixel size of {self.pixel:g} Å, and the files before it have {pixel:g} Å. Import them "
                "separately."
            )
        present = set(first.getObjDict())
        for name, text in _NEUTRAL.items():
            if _ATTRIBUTES.get(name, "_" + name) in present:
                self._columns.setdefault(name, [text] * len(self))
            elif all(float(each) == float(text) for each in self._columns.get(name, [])):
                self._columns.pop(name, None)
        other = present ^ set(self._particle(0).getObjDict())
        if other:
            names = ", ".join(sorted({name.split(".")[0].lstrip("_") for name in other}))
            raise ParticleFileError(
                f"{self._source} does not have the same columns as the files before it ({names}), but a Scipion set has the "
                "same for all its particles. Import them separately."
            )
        known = particles.getAcquisition().opticsGroupInfo
        groups, self._numbers = joined(parse_groups(known.get()), parse_groups(self.acquisition.opticsGroupInfo.get()))
        known.set(groups_text(groups))
        self.acquisition.opticsGroupInfo.set(known.get())

    def __iter__(self):
        """Yield new particles without ids."""
        for row in range(len(self)):
            yield self._particle(row)

    def _particle(self, row):
        index, stack = self._columns["rlnImageName"][row].split("@", 1)
        if stack != _storable(stack):
            raise ParticleFileError(
                f"{self._source} has images in {_storable(stack)!r}, a name that is not UTF-8 and that Scipion cannot keep. "
                "Rename the file or folder."
            )
        particle = Particle(location=(int(index), stack))
        particle.setSamplingRate(self.pixel)
        particle.setAcquisition(self.acquisition)
        ctf = CTFModel(**dict(zip(("defocusU", "defocusV", "defocusAngle"), (self._number(name, row) for name in _CTF))))
        if "rlnPhaseShift" in self._columns:
            ctf.setPhaseShift(self._number("rlnPhaseShift", row))
        particle.setCTF(ctf)
        if self._matrices is not None:
            particle.setTransform(Transform(matrix=self._matrices[row]))
        if "rlnClassNumber" in self._columns:
            particle.setClassId(int(self._columns["rlnClassNumber"][row]))
        if all(name in self._columns for name in _PLACE):
            place = Coordinate(x=round(self._number(_PLACE[1], row)), y=round(self._number(_PLACE[2], row)))
            place.setMicName(_storable(self._columns[_PLACE[0]][row]))
            particle.setCoordinate(place)
        group = int(self._columns["rlnOpticsGroup"][row])
        particle._rlnOpticsGroup = Integer(self._numbers.get(group, group))
        for name, kind in _CARRIED.items():
            if name in self._columns:
                setattr(particle, "_" + name, kind(self._number(name, row)))
        if _SIGN in self._columns:
            setattr(particle, IMAGE_SIGN_ATTRIBUTE, Integer(int(self._number(_SIGN, row))))
        return particle

    def _number(self, name, row):
        return float(self._columns[name][row])


def _storable(text):
    """Return a text with marks in place of the bytes that were not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _optics_text(star):
    """Return the table of optics groups of a STAR file as text."""
    kept: List[str] = []
    with open(star, encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            if line.startswith("data_"):
                if kept:
                    break
                if line.strip() == "data_optics":
                    kept = ["\n# version 30001\n\n"]
            if kept:
                kept.append(line)
    return "".join(kept)
