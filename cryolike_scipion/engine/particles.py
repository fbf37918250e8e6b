"""Particles: where each image is, its optics, CTF and pose, from RELION or cryoSPARC files.

Lengths are Å and angles degrees, as everywhere in the engine; poses are RELION's Euler angles and origins
(the origin is what has to be added to the image's coordinates to centre the particle).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .aberrations import Aberrations
from .cryosparc_files import files_of_group, job_file, together
from .errors import InputError, problem_line
from .star_file import StarFile, StarTable

_JOB_FILES = ("particles.star", "run_data.star")
_JOB_PATTERNS = ("run_it*_data.star", "run_ct*_it*_data.star")


@dataclass(frozen=True)
class OpticsGroup:
    """Values that the particles of one group share.

    Attributes
    ----------
    name : str
        The source's name of the group.
    pixel_size : float
        Å.
    box : int
        Edge of the square images in pixels; 0 where neither the table nor a readable stack tells it.
    voltage_kv : float
        Acceleration voltage in kV.
    cs_mm : float
        Spherical aberration in mm.
    amplitude_contrast : float
        Fraction, 0 to 1.
    aberrations : Aberrations
        Of higher order, and the magnification.
    phase_flipped : bool
        Whether the images' phases were turned where the CTF is negative.
    """

    name: str
    pixel_size: float
    box: int
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    aberrations: Aberrations = dataclasses.field(default_factory=Aberrations)
    phase_flipped: bool = False

    @property
    def nyquist(self) -> float:
        """Spatial frequency (1/Å) up to which the images, once undistorted, hold detail in every direction."""
        return 0.5 / self.pixel_size * min(1.0, self.aberrations.stretch)


@dataclass(frozen=True, eq=False)
class ParticleDocument:
    """The parsed source file, for the writer, which keeps its text.

    Attributes
    ----------
    star : StarFile
        The file's tables. For a cryoSPARC file: its RELION form.
    particles : StarTable
        The table with a row for each particle.
    optics : StarTable or None
        RELION 3.1's optics table; ``None`` for the older one-table layout.
    roots : tuple of Path
        Folders in which the relative image names were found.
    cryosparc : structured array, or None
        For a cryoSPARC file: its rows, with what other files of the job added.
    """

    star: StarFile
    particles: StarTable
    optics: StarTable | None
    roots: tuple[Path, ...] = ()
    cryosparc: NDArray[np.void] | None = None


@dataclass(frozen=True, eq=False)
class Particles:
    """A table of M particles; every array has a value for each, in the order of the source.

    Attributes
    ----------
    sources : tuple of Path
        The files read.
    source_index : int64 [M]
        Which of them.
    row : int64 [M]
        Row in that file's particle table, counted from 1.
    optics : tuple of OpticsGroup
    optics_index : int64 [M]
    stacks : tuple of Path
        Image stacks, absolute. They need not exist: reading a particle of a missing stack gives a status.
    stack_index, frame : int64 [M]
        Which stack, and which image of it, counted from 0.
    defocus_u, defocus_v : float64 [M]
        Å, positive is underfocus.
    defocus_angle_deg, phase_shift_deg : float64 [M]
    ctf_bfactor : float64 [M]
        Å².
    ctf_scale : float64 [M]
    sign : float64 [M]
        +1 where protein is bright in the image (RELION), -1 where it is dark (cryoSPARC's ``blob/sign``). The
        images are read as they are: the caller applies it.
    rot, tilt, psi : float64 [M]
        Degrees; 0 where the source has none.
    origin_x, origin_y : float64 [M]
        Å; 0 where the source has none.
    has_pose : bool
        Whether every source has all three angles.
    class_number : int64 [M]
        0 where the source has none.
    coefficients, coefficients_hash : list of str, or None
        Where the polar coefficients of each image are and what made them, as `cryolike-scipion particles`
        wrote it.
    documents : tuple of ParticleDocument
        The parsed sources.
    """

    sources: tuple[Path, ...]
    source_index: NDArray[np.int64]
    row: NDArray[np.int64]
    optics: tuple[OpticsGroup, ...]
    optics_index: NDArray[np.int64]
    stacks: tuple[Path, ...]
    stack_index: NDArray[np.int64]
    frame: NDArray[np.int64]
    defocus_u: NDArray[np.float64]
    defocus_v: NDArray[np.float64]
    defocus_angle_deg: NDArray[np.float64]
    phase_shift_deg: NDArray[np.float64]
    ctf_bfactor: NDArray[np.float64]
    ctf_scale: NDArray[np.float64]
    sign: NDArray[np.float64]
    rot: NDArray[np.float64]
    tilt: NDArray[np.float64]
    psi: NDArray[np.float64]
    origin_x: NDArray[np.float64]
    origin_y: NDArray[np.float64]
    has_pose: bool
    class_number: NDArray[np.int64]
    coefficients: list[str] | None
    coefficients_hash: list[str] | None
    documents: tuple[ParticleDocument, ...]

    def __len__(self) -> int:
        """Number of particles."""
        return len(self.row)

    @property
    def source(self) -> Path:
        """The (first) file read."""
        return self.sources[0]

    @property
    def document(self) -> ParticleDocument:
        """The (first) parsed source."""
        return self.documents[0]

    @property
    def pixel_size(self) -> NDArray[np.float64]:
        """Pixel size of each particle, float64 [M], Å."""
        return np.array([group.pixel_size for group in self.optics])[self.optics_index]

    @property
    def box(self) -> NDArray[np.int64]:
        """Box edge of each particle, int64 [M], pixels."""
        return np.array([group.box for group in self.optics], dtype=np.int64)[self.optics_index]

    def take(self, indices: ArrayLike) -> Particles:
        """The particles at these indices (counted from 0), in that order; the sources stay whole."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                fields[field.name] = value[chosen]
            elif isinstance(value, list):
                fields[field.name] = [value[i] for i in chosen]
        return dataclasses.replace(self, **fields)

    def where(self, index: int) -> tuple[Path, int]:
        """File and row (counted from 1) that a particle comes from, for messages."""
        return self.sources[int(self.source_index[index])], int(self.row[index])

    def problem(self, index: int, message: str, remedy: str) -> str:
        """One line about a particle: ``FILE, row N: message. Remedy.``"""
        return problem_line(message, *self.where(index), remedy)

    def image_names(self) -> list[str]:
        """The source's own name of each image, such as ``000001@Extract/job007/a.mrcs``."""
        texts = [d.particles.columns(["rlnImageName"], d.star.path)["rlnImageName"] for d in self.documents]
        return [texts[s][r - 1] for s, r in zip(self.source_index, self.row)]


def read_particles(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    pixel_size: float | None = None,
    amplitude_contrast: float | None = None,
) -> Particles:
    """Read particles from one or several files, one after the other.

    Parameters
    ----------
    paths : path or sequence of paths
        RELION STAR files (3.0 and later), cryoSPARC ``.cs`` files (particles and passthrough of one job become one table) and
        result groups (``.csg``), or folders: of a RELION or cryoSPARC job, or of `cryolike-scipion particles`.
    root : path, optional
        Folder to which relative image names are relative. Without it they are looked for from the current
        folder, from the file's folder and from the folders above it.
    pixel_size : float, optional
        Å; where a source does not say it.
    amplitude_contrast : float, optional
        Fraction; where a source does not say it.

    Returns
    -------
    Particles
        Image stacks that are missing are no error here: reading their images gives a status.

    Raises
    ------
    InputError
        If a file is missing, empty, lacks columns, has values that are not numbers or cannot be right (pixel
        size 0, a box that differs from its stack's, images that are not square), or contradicts the options.
    """
    from .cryosparc_reader import read_cryosparc
    from .star_reader import particles_from_document, read_star_document

    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("no particle file is given", remedy="Give a STAR file, a .cs file or a job folder")
    files = [particle_file(path) for path in given]
    files = [own for file in files for own in (files_of_group(file) if file.suffix.lower() == ".csg" else [file])]
    tables = {table.path: table for table in together([file for file in files if file.suffix.lower() == ".cs"])}
    parts = []
    for file in files:
        if file.suffix.lower() == ".cs" and file not in tables:
            continue  # its fields were added to another one
        document = read_cryosparc(tables[file]) if file in tables else read_star_document(file)
        parts.append(particles_from_document(document, root=root, pixel_size=pixel_size, amplitude_contrast=amplitude_contrast))
    return parts[0] if len(parts) == 1 else _join(parts)


def particle_file(path: str | os.PathLike[str]) -> Path:
    """The particle file that a path means: the file itself, or the one in a job folder.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise InputError("the file does not exist", path, remedy="Check its name")
    for name in _JOB_FILES:
        if (path / name).is_file():
            return path / name
    cryosparc = job_file(path)
    if cryosparc is not None:
        return cryosparc
    for pattern in _JOB_PATTERNS:
        iterations = sorted(path.glob(pattern))
        if iterations:
            return iterations[-1]
    raise InputError(
        "the folder holds no particles.star, no run_data.star and no particles of cryoSPARC",
        path,
        remedy="Give the folder of a finished job, or the STAR or .cs file itself",
    )


def _join(parts: list[Particles]) -> Particles:
    """Particles of several sources as one table."""
    optics: dict[OpticsGroup, int] = {}
    stacks: dict[Path, int] = {}
    fields: dict[str, Any] = {}
    index: dict[str, list[NDArray[np.int64]]] = {"source_index": [], "optics_index": [], "stack_index": []}
    for number, part in enumerate(parts):
        index["source_index"].append(np.full(len(part), number, dtype=np.int64))
        to_optics = np.array([optics.setdefault(group, len(optics)) for group in part.optics], dtype=np.int64)
        index["optics_index"].append(to_optics[part.optics_index])
        to_stack = np.array([stacks.setdefault(stack, len(stacks)) for stack in part.stacks], dtype=np.int64)
        index["stack_index"].append(to_stack[part.stack_index])
    for field in dataclasses.fields(Particles):
        values = [getattr(part, field.name) for part in parts]
        if field.name in index:
            fields[field.name] = np.concatenate(index[field.name])
        elif isinstance(values[0], np.ndarray):
            fields[field.name] = np.concatenate(values)
    for name in ("coefficients", "coefficients_hash"):
        columns = [getattr(part, name) for part in parts]
        fields[name] = None if any(c is None for c in columns) else [text for c in columns for text in c]
    return Particles(
        sources=tuple(p.sources[0] for p in parts),
        documents=tuple(p.documents[0] for p in parts),
        optics=tuple(optics),
        stacks=tuple(stacks),
        has_pose=all(p.has_pose for p in parts),
        **fields,
    )
