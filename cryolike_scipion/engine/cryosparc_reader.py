"""Particles from cryoSPARC's ``.cs`` files, by way of the RELION tables that say the same.

cryoSPARC's pose is a rotation vector e; RELION's matrix is
``A = exp([e]×)ᵀ``. Its shift, in pixels of the alignment, has the sign of RELION's origin, so that
``origin (Å) = shift × alignments3D/psize_A`` (both as pyem's csparc2star converts them).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .cryosparc_files import CryosparcTable
from .errors import InputError
from .particles import ParticleDocument
from .rotations import euler_from_matrix
from .star_file import loop_lines, parse_star, quote

VERSION_COMMENT = "# version 30001"
logger = logging.getLogger(__name__)

_MULTI = "alignments3D_multi/"
_SEVERAL = re.compile(r"alignments3D_multi/|alignments_class(3D)?_\d+/")
# Fields that change an image and whose definition cryoSPARC does not publish, with the value that means nothing.
_NOT_USED = {
    "ctf/tilt_A": 0, "ctf/trefoil_A": 0, "ctf/tetra_A": 0, "ctf/anisomag": 0, "ctf/shift_A": 0, "ctf/scale": 1,
}  # fmt: skip

_OPTICS = {
    "rlnImagePixelSize": "blob/psize_A",
    "rlnImageSize": "blob/shape",
    "rlnVoltage": "ctf/accel_kv",
    "rlnSphericalAberration": "ctf/cs_mm",
    "rlnAmplitudeContrast": "ctf/amp_contrast",
}
_PLAIN = {
    "rlnMicrographName": "location/micrograph_path",
    "rlnDefocusU": "ctf/df1_A",
    "rlnDefocusV": "ctf/df2_A",
    "rlnCtfBfactor": "ctf/bfactor",
    "cryolikeImageSign": "blob/sign",
    "cryolikeCryosparcUid": "uid",
}
_RADIANS = {"rlnDefocusAngle": "ctf/df_angle_rad", "rlnPhaseShift": "ctf/phase_shift_rad"}


def read_cryosparc(table: CryosparcTable) -> ParticleDocument:
    """Particles of a cryoSPARC job as RELION 3.1 tables.

    The columns are those RELION has for the same values, ``cryolikeImageSign`` (``blob/sign``: -1 where
    protein is dark) and ``cryolikeCryosparcUid``. Image names lose cryoSPARC's leading ``>``. Of alignments to several
    3D classes the most probable one's is taken.

    Parameters
    ----------
    table : CryosparcTable

    Returns
    -------
    ParticleDocument

    Raises
    ------
    InputError
        If the file does not say where the images are.
    """
    path, data = table.path, table.data
    for field in ("blob/path", "blob/idx"):
        if field not in _fields(data):
            raise InputError(
                f"the file does not say where the images are (no field {field})",
                path,
                remedy="Give the job's particles file together with its passthrough file, or export the particles",
            )
    optics_labels, optics_rows, group = _optics(data)
    columns: dict[str, list[str]] = {
        "rlnImageName": _image_names(data, path),
        "rlnOpticsGroup": [str(g + 1) for g in group],
    }
    for label, field in _PLAIN.items():
        if field in _fields(data):
            columns[label] = [quote(text) for text in _texts(data[field])]
    for label, field in _RADIANS.items():
        if field in _fields(data):
            columns[label] = _fixed(np.rad2deg(data[field].astype(np.float64)))
    columns.update(_alignment(data))
    lines = [
        VERSION_COMMENT,
        "",
        *loop_lines("optics", optics_labels, optics_rows),
        VERSION_COMMENT,
        "",
        *loop_lines("particles", list(columns), map(" ".join, zip(*columns.values()))),
    ]
    star = parse_star("\n".join(lines), path)
    _say_what_is_left_out(data, path)
    return ParticleDocument(star, star.tables[1], star.tables[0], cryosparc=data)


def _fields(data: NDArray[np.void]) -> tuple[str, ...]:
    return data.dtype.names or ()


def _texts(values: NDArray) -> list[str]:
    """Values as text: bytes decoded, numbers with the digits that give the same number back."""
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "surrogateescape") for value in values]
    return values.astype(str).tolist()


def _fixed(values: NDArray[np.float64]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _image_names(data: NDArray[np.void], path: Path) -> list[str]:
    names = []
    for row, (frame, stack) in enumerate(zip(data["blob/idx"], _texts(data["blob/path"])), 1):
        try:
            names.append(quote(f"{int(frame) + 1:06d}@{stack.removeprefix('>')}"))
        except InputError as error:
            raise InputError(
                f"the name of the image stack cannot be written to a STAR file ({stack!r})",
                path,
                row,
                error.remedy,
            ) from None
    return names


def _optics(data: NDArray[np.void]) -> tuple[Sequence[str], list[str], NDArray[np.int64]]:
    """Labels and rows of the optics table, and each particle's group, counted from 0."""
    columns: dict[str, list[str]] = {}
    for label, field in _OPTICS.items():
        if field in _fields(data):
            columns[label] = _texts(data[field][:, 0] if field == "blob/shape" else data[field])
    exposure = data["ctf/exp_group_id"] if "ctf/exp_group_id" in _fields(data) else np.zeros(len(data), np.uint32)
    places: dict[tuple[str, ...], int] = {}
    group = np.array([places.setdefault(key, len(places)) for key in zip(_texts(exposure), *columns.values())])
    rows = [" ".join([str(n), f"opticsGroup{n}", "2", *key[1:]]) for n, key in enumerate(places, 1)]
    return ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImageDimensionality", *columns], rows, group


def _alignment(data: NDArray[np.void]) -> dict[str, list[str]]:
    """Columns of the 3D alignment, or else of the 2D one (in-plane angle and origin only)."""
    space, fields = _alignment_fields(data)
    if "pose" not in fields:
        return {}
    pose = fields["pose"].astype(np.float64)
    columns: dict[str, list[str]] = {}
    if space == "alignments3D":
        for name, angle in zip(("Rot", "Tilt", "Psi"), euler_from_matrix(_matrices(pose))):
            columns[f"rlnAngle{name}"] = _fixed(angle)
    else:
        columns["rlnAnglePsi"] = _fixed(np.rad2deg(pose))
    pixel = fields.get("psize_A", data["blob/psize_A"] if "blob/psize_A" in _fields(data) else None)
    if "shift" in fields and pixel is not None:
        shift = fields["shift"].astype(np.float64) * pixel.astype(np.float64)[:, None]
        columns["rlnOriginXAngst"], columns["rlnOriginYAngst"] = _fixed(shift[:, 0]), _fixed(shift[:, 1])
    for label, field in (("rlnClassNumber", "class"), ("rlnRandomSubset", "split")):
        if field in fields:
            columns[label] = _texts(fields[field].astype(np.int64) + 1)
    return columns


def _alignment_fields(data: NDArray[np.void]) -> tuple[str, dict[str, NDArray]]:
    """The kind of alignment, and its fields, a value a particle: of several 3D classes those of the most probable one."""
    names = _fields(data)
    if "alignments3D/pose" in names or not any(_SEVERAL.match(name) for name in names):
        space = "alignments3D" if "alignments3D/pose" in names else "alignments2D"
        return space, {name.partition("/")[2]: data[name] for name in names if name.startswith(space + "/")}
    several = {name[len(_MULTI) :]: data[name] for name in names if name.startswith(_MULTI)}  # [M, classes, ...]
    if not several:
        # Of older versions: alignments_class_0/pose, alignments_class_1/pose, …
        spaces = sorted({name.partition("/")[0] for name in names if _SEVERAL.match(name)}, key=lambda s: (len(s), s))
        shared = [n.partition("/")[2] for n in names if n.startswith(spaces[0] + "/")]
        shared = [field for field in shared if all(f"{space}/{field}" in names for space in spaces)]
        several = {field: np.stack([data[f"{space}/{field}"] for space in spaces], axis=1) for field in shared}
    if "class_posterior" not in several:
        return "alignments3D", {}
    best, rows = several["class_posterior"].argmax(axis=1), np.arange(len(data))
    fields = {name: values[rows, best] if values.ndim > 1 else values for name, values in several.items()}
    return "alignments3D", {"class": best, **fields}


def _say_what_is_left_out(data: NDArray[np.void], path: Path) -> None:
    """A warning where particles have values that are not used."""
    found = []
    for field, plain in _NOT_USED.items():
        if field in _fields(data):
            count = int(np.count_nonzero((data[field] != plain).reshape(len(data), -1).any(axis=1)))
            if count:
                found.append(f"{field} (in {count} of {len(data)} rows)")
    if found:
        logger.warning(
            "%s: not applied, because cryoSPARC does not publish how it defines them: %s. Fine detail fits less well for it; "
            "RELION's columns for aberrations and magnification are applied",
            path,
            ", ".join(found),
        )


def _matrices(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """RELION matrices [M, 3, 3] of rotation vectors [M, 3] in radians: Rodrigues' formula, transposed."""
    angle = np.linalg.norm(vectors, axis=1)
    axis = vectors / np.where(angle > 0, angle, 1.0)[:, None]
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= np.swapaxes(cross, 1, 2)
    sine, versine = np.sin(angle)[:, None, None], (1.0 - np.cos(angle))[:, None, None]
    return np.swapaxes(np.eye(3) + sine * cross + versine * (cross @ cross), 1, 2)
