"""Columns of a particle table as numbers, with errors that name file, row and value."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .particles import ParticleDocument
from .stack_paths import ROOT_NUMBER_LABEL
from .star_file import StarTable

OPTICS_LABELS = (
    "rlnImagePixelSize",
    "rlnImageSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
ABERRATION_LABELS = (
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnOddZernike",
    "rlnEvenZernike",
    "rlnMagMat00",
    "rlnMagMat01",
    "rlnMagMat10",
    "rlnMagMat11",
)
# What RELION calls images that were changed by their CTF: the first change can be undone.
FLIPPED_LABEL = "rlnCtfDataArePhaseFlipped"
CORRECTED_LABELS = ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataAreCtfCorrected")
_PARTICLE_LABELS = (
    "rlnImageName",
    "rlnOpticsGroup",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnPhaseShift",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnOriginX",
    "rlnOriginY",
    "rlnClassNumber",
    "rlnMagnification",
    "rlnDetectorPixelSize",
    "rlnPixelSize",
    "rlnImageDimensionality",
    "cryolikeImageSign",
    "cryolikeCoefficients",
    "cryolikeCoefficientsHash",
    ROOT_NUMBER_LABEL,
)
TOMOGRAPHY_LABELS = ("rlnTomoParticleName", "rlnTomoSubtomogramsAre2DStacks")
_SHARED_LABELS = (*OPTICS_LABELS, *ABERRATION_LABELS, FLIPPED_LABEL, *CORRECTED_LABELS, *TOMOGRAPHY_LABELS)


class ParticleTable:
    """Columns of the particle table, or of its row's optics group, as numbers; knows how to say what is
    wrong."""

    def __init__(self, document: ParticleDocument) -> None:
        self.path: Path = document.star.path
        table = document.particles
        self.texts = table.columns((*_PARTICLE_LABELS, *_SHARED_LABELS), self.path)
        self.size = len(table.rows)
        self.optics_texts: dict[str, list[str]] = {}
        self.group_names: list[str] = []
        self.group_index = np.zeros(self.size, dtype=np.int64)
        if document.optics is not None:
            self._read_optics(document.optics)

    def __len__(self) -> int:
        return self.size

    def _read_optics(self, table: StarTable) -> None:
        labels = (*_SHARED_LABELS, "rlnOpticsGroup", "rlnOpticsGroupName", "rlnImageDimensionality")
        self.optics_texts = table.columns(labels, self.path)
        numbers = self.optics_texts.get("rlnOpticsGroup", [str(n) for n in range(1, len(table.rows) + 1)])
        self.group_names = self.optics_texts.get("rlnOpticsGroupName", [f"opticsGroup{n}" for n in numbers])
        place = {text: i for i, text in enumerate(numbers)}
        if "rlnOpticsGroup" in self.texts:
            for i, text in enumerate(self.texts["rlnOpticsGroup"]):
                if text not in place:
                    raise InputError(
                        f"the optics table has no group {text}",
                        self.path,
                        i + 1,
                        "Correct rlnOpticsGroup, or add the group to the optics table",
                    )
                self.group_index[i] = place[text]
        elif len(numbers) > 1:
            raise InputError(
                "the particles have no column rlnOpticsGroup, and there are several optics groups",
                self.path,
                remedy="Export the particles again, with rlnOpticsGroup",
            )

    def has(self, label: str) -> bool:
        return label in self.texts or label in self.optics_texts

    def number(
        self, label: str, default: float = math.nan, allowed: Callable[[float], bool] | None = None
    ) -> NDArray[np.float64]:
        """Numbers of a column, one a particle; the particle table goes before the optics table, as in
        RELION."""
        if label in self.texts:
            values = _numbers(self.texts[label], label, self.path)
        elif label in self.optics_texts:
            values = _numbers(self.optics_texts[label], f"optics table: {label}", self.path)[self.group_index]
        else:
            return np.full(self.size, default)
        bad = ~np.isfinite(values)
        if allowed is not None:
            bad |= ~np.fromiter((allowed(v) for v in values.tolist()), dtype=bool, count=self.size)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{label} is {values[row]:g}", self.path, row + 1, f"Correct {label}, or remove the row")
        return values

    def lists(self, label: str) -> list[tuple[float, ...]]:
        """A list of numbers, written ``[1,2,3]``, for each particle; empty ones where there is no such column."""
        texts = self.shared_texts(label)
        known: dict[str, tuple[float, ...]] = {}
        for row, text in enumerate(texts, 1):
            if text not in known:
                try:
                    known[text] = tuple(float(part) for part in text.strip("[] ").split(",") if part.strip())
                    if not all(map(math.isfinite, known[text])):
                        raise ValueError
                except ValueError:
                    raise InputError(
                        f"{label} is not a list of numbers ('{text}')", self.path, row, f"Write {label} as [0.1,0.2,...]"
                    ) from None
        return [known[text] for text in texts]

    def shared_texts(self, label: str) -> list[str]:
        """Text of a column of the particles or else of their optics groups, empty where there is none."""
        if label in self.texts:
            return self.texts[label]
        groups = self.optics_texts.get(label)
        return [""] * self.size if groups is None else [groups[g] for g in self.group_index]

    def ctf(self, label: str, allowed: Callable[[float], bool] | None = None) -> NDArray[np.float64]:
        """Numbers of a column without which there is no CTF."""
        if not self.has(label):
            raise InputError(
                f"there is no CTF: the column {label} is missing",
                self.path,
                remedy="Estimate the CTF and extract or export the particles with it (defocus, voltage, spherical aberration)",
            )
        return self.number(label, allowed=allowed)


def _numbers(texts: list[str], label: str, path: Path) -> NDArray[np.float64]:
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        for row, text in enumerate(texts, 1):
            try:
                float(text)
            except ValueError:
                raise InputError(
                    f"{label} is not a number ('{text}')", path, row, "Correct the value, or remove the row"
                ) from None
        raise
