"""Particles from RELION's STAR tables: the one-table layout (3.0 and before) and the one with an optics table (3.1 on)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote as percent_decode

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .mrc_stack import StackError, read_stack_header
from .particles import OpticsGroup, ParticleDocument, Particles
from .stack_paths import ROOT_LABEL, ROOT_TABLE, find_stacks
from .star_file import StarFile, StarTable, read_star

OPTICS_LABELS = ("rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_PARTICLE_LABELS = (
    "rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
    "rlnCtfBfactor", "rlnCtfScalefactor", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
    "rlnOriginYAngst", "rlnOriginX", "rlnOriginY", "rlnClassNumber", "rlnMagnification", "rlnDetectorPixelSize",
    "rlnPixelSize", "rlnImageDimensionality", "cryolikeImageSign", "cryolikeCoefficients", "cryolikeCoefficientsHash")
# Two pixel sizes are the same when they differ by less than this fraction: magnification columns are rounded.
_PIXEL_TOLERANCE = 1e-3


def read_star_document(path: str | os.PathLike[str]) -> ParticleDocument:
    """Read a STAR file and find its particle and optics tables.

    Raises
    ------
    InputError
        If no table has image names, or it has no rows.
    """
    star = read_star(path)
    optics = star.find("optics")
    tables = [t for t in star.tables if "rlnImageName" in t.labels and t is not optics]
    named = [t for t in tables if t.name == "particles"]
    if not tables:
        raise InputError("no table has the column rlnImageName", star.path,
                         remedy="Give the STAR file of extracted particles, not that of micrographs or coordinates")
    table = (named or tables)[0]
    if not table.rows:
        raise InputError("the particle table is empty", star.path, remedy="Give a file with at least one particle")
    if optics is not None and not optics.rows:
        raise InputError("the optics table is empty", star.path, remedy="Export the particles again")
    return ParticleDocument(star, table, optics, _recorded_roots(star))


def particles_from_document(
    document: ParticleDocument,
    *,
    root: str | os.PathLike[str] | None = None,
    pixel_size: float | None = None,
    amplitude_contrast: float | None = None,
) -> Particles:
    """Make :class:`Particles` of a parsed STAR file; parameters and errors as `read_particles`."""
    reader = _Reader(document)
    frames, names = _split_image_names(reader)
    unique = list(dict.fromkeys(names))
    recorded = document.roots
    found, roots = find_stacks(unique, reader.path, root, recorded)
    number = {name: i for i, name in enumerate(unique)}
    stack_index = np.array([number[name] for name in names], dtype=np.int64)
    stacks = tuple(found[name] for name in unique)

    pixel = _pixel_sizes(reader, pixel_size)
    contrast = _amplitude_contrast(reader, amplitude_contrast)
    box = _boxes(reader, stacks, stack_index)
    voltage = reader.ctf("rlnVoltage", lambda v: v > 0)
    cs = reader.ctf("rlnSphericalAberration", lambda v: v >= 0)
    optics, optics_index = _optics_groups(reader, pixel, box, voltage, cs, contrast)

    defocus_u = reader.ctf("rlnDefocusU")
    origins = {}
    for axis in "XY":
        in_pixels = reader.number(f"rlnOrigin{axis}", 0.0) * pixel
        angstrom = f"rlnOrigin{axis}Angst"
        origins[axis] = reader.number(angstrom) if reader.has(angstrom) else in_pixels
    rows = len(reader)
    return Particles(
        sources=(reader.path,), source_index=np.zeros(rows, dtype=np.int64), row=np.arange(1, rows + 1),
        optics=optics, optics_index=optics_index, stacks=stacks, stack_index=stack_index, frame=frames,
        defocus_u=defocus_u,
        defocus_v=reader.ctf("rlnDefocusV") if reader.has("rlnDefocusV") else defocus_u.copy(),
        defocus_angle_deg=reader.number("rlnDefocusAngle", 0.0),
        phase_shift_deg=reader.number("rlnPhaseShift", 0.0),
        ctf_bfactor=reader.number("rlnCtfBfactor", 0.0), ctf_scale=reader.number("rlnCtfScalefactor", 1.0),
        sign=reader.number("cryolikeImageSign", 1.0, allowed=lambda v: abs(v) == 1),
        rot=reader.number("rlnAngleRot", 0.0), tilt=reader.number("rlnAngleTilt", 0.0),
        psi=reader.number("rlnAnglePsi", 0.0), origin_x=origins["X"], origin_y=origins["Y"],
        has_pose=all(reader.has(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")),
        class_number=reader.number("rlnClassNumber", 0.0).astype(np.int64),
        coefficients=reader.texts.get("cryolikeCoefficients"),
        coefficients_hash=reader.texts.get("cryolikeCoefficientsHash"),
        documents=(ParticleDocument(document.star, document.particles, document.optics, roots or recorded),))


class _Reader:
    """Columns of the particle table, or of its row's optics group, as numbers; knows how to say what is wrong."""

    def __init__(self, document: ParticleDocument) -> None:
        self.path: Path = document.star.path
        table = document.particles
        self.texts = table.columns((*_PARTICLE_LABELS, *OPTICS_LABELS), self.path)
        self.size = len(table.rows)
        self.optics_texts: dict[str, list[str]] = {}
        self.group_names: list[str] = []
        self.group_index = np.zeros(self.size, dtype=np.int64)
        if document.optics is not None:
            self._read_optics(document.optics)

    def __len__(self) -> int:
        return self.size

    def _read_optics(self, table: StarTable) -> None:
        labels = (*OPTICS_LABELS, "rlnOpticsGroup", "rlnOpticsGroupName", "rlnImageDimensionality")
        self.optics_texts = table.columns(labels, self.path)
        numbers = self.optics_texts.get("rlnOpticsGroup", [str(n) for n in range(1, len(table.rows) + 1)])
        self.group_names = self.optics_texts.get("rlnOpticsGroupName", [f"opticsGroup{n}" for n in numbers])
        place = {text: i for i, text in enumerate(numbers)}
        if "rlnOpticsGroup" in self.texts:
            for i, text in enumerate(self.texts["rlnOpticsGroup"]):
                if text not in place:
                    raise InputError(f"the optics table has no group {text}", self.path, i + 1,
                                     "Correct rlnOpticsGroup, or add the group to the optics table")
                self.group_index[i] = place[text]
        elif len(numbers) > 1:
            raise InputError("the particles have no column rlnOpticsGroup, and there are several optics groups",
                             self.path, remedy="Export the particles again, with rlnOpticsGroup")

    def has(self, label: str) -> bool:
        return label in self.texts or label in self.optics_texts

    def number(
        self, label: str, default: float = math.nan, allowed: Callable[[float], bool] | None = None
    ) -> NDArray[np.float64]:
        """Numbers of a column, one a particle; the particle table goes before the optics table, as in RELION."""
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
            raise InputError(f"{label} is {values[row]:g}", self.path, row + 1,
                             f"Correct {label}, or remove the row")
        return values

    def ctf(self, label: str, allowed: Callable[[float], bool] | None = None) -> NDArray[np.float64]:
        """Numbers of a column without which there is no CTF."""
        if not self.has(label):
            raise InputError(f"there is no CTF: the column {label} is missing", self.path,
                             remedy="Estimate the CTF and extract or export the particles with it (defocus, voltage, "
                                    "spherical aberration)")
        return self.number(label, allowed=allowed)


def _numbers(texts: list[str], label: str, path: Path) -> NDArray[np.float64]:
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        for row, text in enumerate(texts, 1):
            try:
                float(text)
            except ValueError:
                raise InputError(f"{label} is not a number ('{text}')", path, row,
                                 "Correct the value, or remove the row") from None
        raise


def _split_image_names(reader: _Reader) -> tuple[NDArray[np.int64], list[str]]:
    """Frames (from 0) and stack names of ``NNNNNN@stack``; a name without @ is the first image of its file."""
    dimensions = reader.number("rlnImageDimensionality", 2.0)
    if np.any(dimensions != 2):
        raise InputError("the particles are volumes, not images (rlnImageDimensionality is 3)", reader.path,
                         int(np.argmax(dimensions != 2)) + 1, "Give single-particle images")
    frames = np.zeros(len(reader), dtype=np.int64)
    names: list[str] = []
    for row, text in enumerate(reader.texts["rlnImageName"], 1):
        head, separator, name = text.partition("@")
        if not separator:
            head, name = "1", text
        try:
            frames[row - 1] = int(head) - 1
        except ValueError:
            raise InputError(f"the image name does not begin with a number ('{text}')", reader.path, row,
                             "Write it as NUMBER@STACK, such as 000001@particles.mrcs") from None
        if not name:
            raise InputError(f"the image name has no file ('{text}')", reader.path, row,
                             "Write it as NUMBER@STACK, such as 000001@particles.mrcs")
        names.append(name)
    return frames, names


def _pixel_sizes(reader: _Reader, given: float | None) -> NDArray[np.float64]:
    """Pixel size of each particle, Å: from the optics, from magnification and detector pixel (µm), or as given."""
    name = next((n for n in ("rlnImagePixelSize", "rlnPixelSize") if reader.has(n)), None)
    if name is not None:
        pixel = reader.number(name)
    elif reader.has("rlnMagnification") and reader.has("rlnDetectorPixelSize"):
        name = "rlnDetectorPixelSize"
        magnification = reader.number("rlnMagnification", allowed=lambda v: v > 0)
        pixel = reader.number("rlnDetectorPixelSize") * 1e4 / magnification
    elif given is not None:
        return np.full(len(reader), float(given))
    else:
        raise InputError("the pixel size is missing (no rlnImagePixelSize, nor rlnMagnification with "
                         "rlnDetectorPixelSize)", reader.path, remedy="Give it in Å with --pixel")
    if np.any(pixel <= 0):
        row = int(np.argmax(pixel <= 0))
        raise InputError(f"the pixel size is {pixel[row]:g} Å ({name})", reader.path, row + 1,
                         "Correct it in the file; it is more than 0")
    if given is not None:
        other = np.abs(pixel - given) > _PIXEL_TOLERANCE * given
        if other.any():
            row = int(np.argmax(other))
            raise InputError(f"the pixel size is {pixel[row]:g} Å in the file, and {given:g} Å was given",
                             reader.path, row + 1, "Leave out --pixel, or correct the file")
    return pixel


def _amplitude_contrast(reader: _Reader, given: float | None) -> NDArray[np.float64]:
    label = "rlnAmplitudeContrast"
    if not reader.has(label):
        if given is None:
            raise InputError("the amplitude contrast is missing (no rlnAmplitudeContrast)", reader.path,
                             remedy="Give it with --amplitude-contrast (usually 0.07 or 0.1)")
        return np.full(len(reader), float(given))
    contrast = reader.number(label, allowed=lambda v: 0 <= v <= 1)
    if given is not None and np.any(np.abs(contrast - given) > 1e-6):
        row = int(np.argmax(np.abs(contrast - given) > 1e-6))
        raise InputError(f"the amplitude contrast is {contrast[row]:g} in the file, and {given:g} was given",
                         reader.path, row + 1, "Leave out --amplitude-contrast, or correct the file")
    return contrast


def _boxes(reader: _Reader, stacks: tuple[Path, ...], stack_index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Box of each particle in pixels, from the stacks' headers; the table's own must agree.

    A stack that cannot be read has no say: its particles get a status when their images are read.
    """
    _, first = np.unique(stack_index, return_index=True)
    width = np.zeros(len(stacks), dtype=np.int64)
    for stack, row in zip(stack_index[first], first):
        try:
            header = read_stack_header(stacks[stack])
        except StackError:
            continue
        if header.nx != header.ny:
            raise InputError(f"the images are not square ({header.nx} x {header.ny} pixels in {stacks[stack]})",
                             reader.path, int(row) + 1, "Extract the particles again in a square box")
        width[stack] = header.nx
    found = width[stack_index]
    if reader.has("rlnImageSize"):
        box = reader.number("rlnImageSize", allowed=lambda v: v >= 1 and v == int(v)).astype(np.int64)
        differs = (found > 0) & (found != box)
        if differs.any():
            row = int(np.argmax(differs))
            raise InputError(
                f"the images are {found[row]} pixels wide in {stacks[stack_index[row]]}, and rlnImageSize is "
                f"{box[row]}", reader.path, row + 1, "Export the particles again, or correct rlnImageSize")
        return box
    if not found.any():
        raise InputError(f"no image stack can be read (the first is {stacks[stack_index[0]]})", reader.path, 1,
                         "Give the folder that the image names are relative to with --root")
    # With the box unknown these particles cannot be read either; they join the others so that they get a status.
    return np.where(found > 0, found, np.bincount(found[found > 0]).argmax())


class _Key(NamedTuple):
    """What makes particles one optics group."""

    source_group: int
    pixel: float
    box: int
    voltage: float
    cs: float
    contrast: float


def _optics_groups(
    reader: _Reader, pixel: NDArray[np.float64], box: NDArray[np.int64], voltage: NDArray[np.float64],
    cs: NDArray[np.float64], contrast: NDArray[np.float64],
) -> tuple[tuple[OpticsGroup, ...], NDArray[np.int64]]:
    """Groups of equal values, in the order of first use, and each particle's group."""
    places: dict[_Key, int] = {}
    index = np.empty(len(reader), dtype=np.int64)
    columns = (reader.group_index, pixel, box, voltage, cs, contrast)
    for i, values in enumerate(zip(*(column.tolist() for column in columns))):
        index[i] = places.setdefault(_Key(*values), len(places))
    groups = []
    for key, number in places.items():
        names = reader.group_names
        name = names[key.source_group] if names else f"opticsGroup{number + 1}"
        groups.append(OpticsGroup(name, key.pixel, key.box, key.voltage, key.cs, key.contrast))
    return tuple(groups), index


def _recorded_roots(star: StarFile) -> tuple[Path, ...]:
    """Folders of relative image names that an earlier run of ours wrote into the file."""
    table = star.find(ROOT_TABLE)
    if table is None:
        return ()
    texts = table.columns([ROOT_LABEL], star.path).get(ROOT_LABEL, [])
    return tuple(Path(percent_decode(text)) for text in texts)
