"""Particles from RELION's STAR tables, of one table (3.0 and before) or with an optics table (3.1 on)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote as percent_decode

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .mrc_stack import StackError, read_stack_header
from .particle_table import FLIPPED_LABEL, ParticleTable
from .particles import OpticsGroup, ParticleDocument, Particles
from .stack_paths import ROOT_LABEL, ROOT_NUMBER_LABEL, ROOT_TABLE, find_stacks
from .star_aberrations import aberrations_of, refuse_corrected, refuse_tomography, say_what_is_applied
from .star_file import StarFile, read_star

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
        raise InputError(
            "no table has the column rlnImageName",
            star.path,
            remedy="Give the STAR file of extracted particles, not that of micrographs or coordinates",
        )
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
    table = ParticleTable(document)
    refuse_tomography(table)
    frames, names = _split_image_names(table)
    stacks, stack_index, roots = _stacks(table, names, document.roots, root)
    pixel = _pixel_sizes(table, pixel_size)
    contrast = _amplitude_contrast(table, amplitude_contrast)
    box = _boxes(table, stacks, stack_index)
    voltage = table.ctf("rlnVoltage", lambda v: v > 0)
    cs = table.ctf("rlnSphericalAberration", lambda v: v >= 0)
    refuse_corrected(table)
    optics, optics_index = _optics_groups(table, pixel, box, voltage, cs, contrast)
    say_what_is_applied(table, optics, optics_index)

    defocus_u = table.ctf("rlnDefocusU")
    origins = {}
    for axis in "XY":
        in_pixels = table.number(f"rlnOrigin{axis}", 0.0) * pixel
        angstrom = f"rlnOrigin{axis}Angst"
        origins[axis] = table.number(angstrom) if table.has(angstrom) else in_pixels
    rows = len(table)
    return Particles(
        sources=(table.path,),
        source_index=np.zeros(rows, dtype=np.int64),
        row=np.arange(1, rows + 1),
        optics=optics,
        optics_index=optics_index,
        stacks=stacks,
        stack_index=stack_index,
        frame=frames,
        defocus_u=defocus_u,
        defocus_v=table.ctf("rlnDefocusV") if table.has("rlnDefocusV") else defocus_u.copy(),
        defocus_angle_deg=table.number("rlnDefocusAngle", 0.0),
        phase_shift_deg=table.number("rlnPhaseShift", 0.0),
        ctf_bfactor=table.number("rlnCtfBfactor", 0.0),
        ctf_scale=table.number("rlnCtfScalefactor", 1.0),
        sign=table.number("cryolikeImageSign", 1.0, allowed=lambda v: abs(v) == 1),
        rot=table.number("rlnAngleRot", 0.0),
        tilt=table.number("rlnAngleTilt", 0.0),
        psi=table.number("rlnAnglePsi", 0.0),
        origin_x=origins["X"],
        origin_y=origins["Y"],
        has_pose=all(table.has(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")),
        class_number=table.number("rlnClassNumber", 0.0).astype(np.int64),
        coefficients=table.texts.get("cryolikeCoefficients"),
        coefficients_hash=table.texts.get("cryolikeCoefficientsHash"),
        documents=(dataclasses.replace(document, roots=roots),),
    )


def _split_image_names(table: ParticleTable) -> tuple[NDArray[np.int64], list[str]]:
    """Frames (from 0) and stack names of ``NNNNNN@stack``; a name without @ is the first image of its
    file."""
    dimensions = table.number("rlnImageDimensionality", 2.0)
    if np.any(dimensions != 2):
        raise InputError(
            "the particles are volumes, not images (rlnImageDimensionality is 3)",
            table.path,
            int(np.argmax(dimensions != 2)) + 1,
            "Give single-particle images",
        )
    frames = np.zeros(len(table), dtype=np.int64)
    names: list[str] = []
    for row, text in enumerate(table.texts["rlnImageName"], 1):
        head, separator, name = text.partition("@")
        if not separator:
            head, name = "1", text
        try:
            frames[row - 1] = int(head) - 1
        except ValueError:
            raise InputError(
                f"the image name does not begin with a number ('{text}')",
                table.path,
                row,
                "Write it as NUMBER@STACK, such as 000001@particles.mrcs",
            ) from None
        if not name:
            raise InputError(
                f"the image name has no file ('{text}')",
                table.path,
                row,
                "Write it as NUMBER@STACK, such as 000001@particles.mrcs",
            )
        names.append(name)
    return frames, names


def _stacks(
    table: ParticleTable, names: list[str], recorded: tuple[Path, ...], root: str | os.PathLike[str] | None
) -> tuple[tuple[Path, ...], NDArray[np.int64], tuple[Path, ...]]:
    """The stacks, each particle's stack, and the folders to which relative names are relative."""
    numbered = ROOT_NUMBER_LABEL in table.texts and len(recorded) > 0
    numbers = table.texts[ROOT_NUMBER_LABEL] if numbered else ["0"] * len(names)
    folders = {"0": recorded} | {str(n): (folder,) for n, folder in enumerate(recorded, 1)}
    stacks: dict[tuple[str, str], Path] = {}
    used: dict[Path, None] = {}
    keys = list(zip(numbers, names))
    for number in dict.fromkeys(numbers):
        if number not in folders:
            raise InputError(
                f"{ROOT_NUMBER_LABEL} is {number}, and the file names {len(recorded)} folders",
                table.path,
                numbers.index(number) + 1,
                "Write the file again",
            )
        wanted = dict.fromkeys(name for own, name in keys if own == number)
        found, roots = find_stacks(wanted, table.path, root, folders[number])
        stacks |= {(number, name): path for name, path in found.items()}
        used |= dict.fromkeys(roots)
    place = {key: i for i, key in enumerate(stacks)}
    index = np.array([place[key] for key in keys], dtype=np.int64)
    # Numbers in the rows count the recorded folders, so these stay as they are.
    return tuple(stacks.values()), index, recorded if numbered else tuple(used) or recorded


def _pixel_sizes(table: ParticleTable, given: float | None) -> NDArray[np.float64]:
    """Pixel size of each particle, Å: from the optics, from magnification and detector pixel (µm), or as
    given."""
    name = next((n for n in ("rlnImagePixelSize", "rlnPixelSize") if table.has(n)), None)
    if name is not None:
        pixel = table.number(name)
    elif table.has("rlnMagnification") and table.has("rlnDetectorPixelSize"):
        name = "rlnDetectorPixelSize"
        magnification = table.number("rlnMagnification", allowed=lambda v: v > 0)
        pixel = table.number("rlnDetectorPixelSize") * 1e4 / magnification
    elif given is not None:
        return np.full(len(table), float(given))
    else:
        raise InputError(
            "the pixel size is missing (no rlnImagePixelSize, nor rlnMagnification with rlnDetectorPixelSize)",
            table.path,
            remedy="Give it in Å with --pixel",
        )
    if np.any(pixel <= 0):
        row = int(np.argmax(pixel <= 0))
        raise InputError(
            f"the pixel size is {pixel[row]:g} Å ({name})",
            table.path,
            row + 1,
            "Correct it in the file; it is more than 0",
        )
    if given is not None:
        other = np.abs(pixel - given) > _PIXEL_TOLERANCE * given
        if other.any():
            row = int(np.argmax(other))
            raise InputError(
                f"the pixel size is {pixel[row]:g} Å in the file, and {given:g} Å was given",
                table.path,
                row + 1,
                "Leave out --pixel, or correct the file",
            )
    return pixel


def _amplitude_contrast(table: ParticleTable, given: float | None) -> NDArray[np.float64]:
    label = "rlnAmplitudeContrast"
    if not table.has(label):
        if given is None:
            raise InputError(
                "the amplitude contrast is missing (no rlnAmplitudeContrast)",
                table.path,
                remedy="Give it with --amplitude-contrast (usually 0.07 or 0.1)",
            )
        return np.full(len(table), float(given))
    contrast = table.number(label, allowed=lambda v: 0 <= v <= 1)
    if given is not None and np.any(np.abs(contrast - given) > 1e-6):
        row = int(np.argmax(np.abs(contrast - given) > 1e-6))
        raise InputError(
            f"the amplitude contrast is {contrast[row]:g} in the file, and {given:g} was given",
            table.path,
            row + 1,
            "Leave out --amplitude-contrast, or correct the file",
        )
    return contrast


def _boxes(table: ParticleTable, stacks: tuple[Path, ...], stack_index: NDArray[np.int64]) -> NDArray[np.int64]:
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
            raise InputError(
                f"the images are not square ({header.nx} x {header.ny} pixels in {stacks[stack]})",
                table.path,
                int(row) + 1,
                "Extract the particles again in a square box",
            )
        width[stack] = header.nx
    found = width[stack_index]
    if table.has("rlnImageSize"):
        box = table.number("rlnImageSize", allowed=lambda v: v >= 1 and v == int(v)).astype(np.int64)
        differs = (found > 0) & (found != box)
        if differs.any():
            row = int(np.argmax(differs))
            raise InputError(
                f"the images are {found[row]} pixels wide in {stacks[stack_index[row]]}, and rlnImageSize is {box[row]}",
                table.path,
                row + 1,
                "Export the particles again, or correct rlnImageSize",
            )
        return box
    if not found.any():
        raise InputError(
            f"no image stack can be read (the first is {stacks[stack_index[0]]})",
            table.path,
            1,
            "Give the folder that the image names are relative to with --root",
        )
    # With the box unknown these particles cannot be read either; they join the others so that they get a
    # status.
    return np.where(found > 0, found, np.bincount(found[found > 0]).argmax())


class _Key(NamedTuple):
    """What makes particles one optics group."""

    source_group: int
    pixel: float
    box: int
    voltage: float
    cs: float
    contrast: float
    aberrations: int
    flipped: bool


def _optics_groups(
    table: ParticleTable,
    pixel: NDArray[np.float64],
    box: NDArray[np.int64],
    voltage: NDArray[np.float64],
    cs: NDArray[np.float64],
    contrast: NDArray[np.float64],
) -> tuple[tuple[OpticsGroup, ...], NDArray[np.int64]]:
    """Groups of equal values, in the order of first use, and each particle's group."""
    places: dict[_Key, int] = {}
    index = np.empty(len(table), dtype=np.int64)
    aberrations, aberration_index = aberrations_of(table, voltage, cs)
    flipped = table.number(FLIPPED_LABEL, 0.0) != 0
    columns = (table.group_index, pixel, box, voltage, cs, contrast, aberration_index, flipped)
    for i, values in enumerate(zip(*(column.tolist() for column in columns))):
        index[i] = places.setdefault(_Key(*values), len(places))
    groups = []
    for key, number in places.items():
        names = table.group_names
        name = names[key.source_group] if names else f"opticsGroup{number + 1}"
        shared = aberrations[key.aberrations]
        groups.append(OpticsGroup(name, key.pixel, key.box, key.voltage, key.cs, key.contrast, shared, key.flipped))
    return tuple(groups), index


def _recorded_roots(star: StarFile) -> tuple[Path, ...]:
    """Folders of relative image names that an earlier run of ours wrote into the file."""
    table = star.find(ROOT_TABLE)
    if table is None:
        return ()
    texts = table.columns([ROOT_LABEL], star.path).get(ROOT_LABEL, [])
    return tuple(Path(percent_decode(text)) for text in texts)
