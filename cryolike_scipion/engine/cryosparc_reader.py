"""Particles from cryoSPARC's ``.cs`` files, by way of the RELION tables that say the same.

A ``.cs`` file is a numpy structured array. cryoSPARC's pose is a rotation vector e; RELION's matrix is
``A = exp([e]×)ᵀ``. Its shift, in pixels of the alignment, has the sign of RELION's origin, so that
``origin (Å) = shift × alignments3D/psize_A`` (both as pyem's csparc2star converts them).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .particles import ParticleDocument
from .rotations import euler_from_matrix
from .star_file import loop_lines, parse_star, quote

VERSION_COMMENT = "# version 30001"

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


def read_cryosparc(path: str | os.PathLike[str]) -> ParticleDocument:
    """Read a ``.cs`` file as RELION 3.1 tables.

    The columns are those RELION has for the same values, ``cryolikeImageSign`` (``blob/sign``: -1 where
    protein is dark) and ``cryolikeCryosparcUid``. Image names lose cryoSPARC's leading ``>``.

    Parameters
    ----------
    path : path

    Returns
    -------
    ParticleDocument

    Raises
    ------
    InputError
        If the file is no structured array, is empty, or does not say where the images are.
    """
    path = Path(path)
    data = _load(path)
    for field in ("blob/path", "blob/idx"):
        if field not in _fields(data):
            raise InputError(
                f"the file does not say where the images are (no field {field})",
                path,
                remedy="Give the job's own particles file, or export the particles: a passthrough file alone is not enough",
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
    return ParticleDocument(star, star.tables[1], star.tables[0])


def _load(path: Path) -> NDArray[np.void]:
    try:
        data = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(
            f"the file cannot be read ({error.strerror or 'not a numpy file'})",
            path,
            remedy="Check that it is a .cs file of particles",
        ) from None
    except ValueError:
        raise InputError(
            "the file is not a numpy structured array",
            path,
            remedy="Export the particles from cryoSPARC and give the exported .cs file",
        ) from None
    if not isinstance(data, np.ndarray) or data.dtype.names is None or data.ndim != 1:
        raise InputError(
            "the file is not a table of particles",
            path,
            remedy="Export the particles from cryoSPARC and give the exported .cs file",
        )
    if len(data) == 0:
        raise InputError("the file has no particles", path, remedy="Give a file with at least one particle")
    return data


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
    names = _fields(data)
    space = next((s for s in ("alignments3D", "alignments2D") if f"{s}/pose" in names), None)
    if space is None:
        return {}
    pose = data[f"{space}/pose"].astype(np.float64)
    columns: dict[str, list[str]] = {}
    if space == "alignments3D":
        for name, angle in zip(("Rot", "Tilt", "Psi"), euler_from_matrix(_matrices(pose))):
            columns[f"rlnAngle{name}"] = _fixed(angle)
    else:
        columns["rlnAnglePsi"] = _fixed(np.rad2deg(pose))
    if f"{space}/shift" in names:
        own_pixel = f"{space}/psize_A"
        pixel = data[own_pixel if own_pixel in names else "blob/psize_A"].astype(np.float64)
        shift = data[f"{space}/shift"].astype(np.float64) * pixel[:, None]
        columns["rlnOriginXAngst"], columns["rlnOriginYAngst"] = _fixed(shift[:, 0]), _fixed(shift[:, 1])
    for label, field in (("rlnClassNumber", "class"), ("rlnRandomSubset", "split")):
        if f"{space}/{field}" in names:
            columns[label] = _texts(data[f"{space}/{field}"].astype(np.int64) + 1)
    return columns


def _matrices(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """RELION matrices [M, 3, 3] of rotation vectors [M, 3] in radians: Rodrigues' formula, transposed."""
    angle = np.linalg.norm(vectors, axis=1)
    axis = vectors / np.where(angle > 0, angle, 1.0)[:, None]
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= np.swapaxes(cross, 1, 2)
    sine, versine = np.sin(angle)[:, None, None], (1.0 - np.cos(angle))[:, None, None]
    return np.swapaxes(np.eye(3) + sine * cross + versine * (cross @ cross), 1, 2)
