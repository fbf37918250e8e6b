"""Particles with their poses, structures and scores as ``particles.cs``, which cryoSPARC imports as a result group.

A particle that came from a ``.cs`` file keeps its uid and every field it had, byte for byte, except ``alignments3D/*``,
whose old values go to ``input_alignments3D/*``. Others get the fields that cryoSPARC's own files have, with their types.
``particles.csg`` beside it says which groups of fields cryoSPARC finds.

Poses: cryoSPARC's rotation vector e with RELION's matrix ``A = exp([e]×)ᵀ``; shifts are RELION's origins in pixels (both as
pyem's csparc2star converts them).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .atomic import atomic_path, write_bytes
from .cryosparc_files import load_table
from .image_stacks import OK, STATUS_NAMES
from .particle_table import FLIPPED_LABEL
from .particles import Particles
from .results import Results, columns_for_star
from .rotations import matrix_from_euler, vector_from_matrix
from .stack_paths import file_part

logger = logging.getLogger(__name__)

TABLE, GROUP = "particles.cs", "particles.csg"
_SPACE = "alignments3D"
_INPUT = "input_"
_OURS = "cryolike"
# What cryoSPARC's alignments say of an error function that is not ours.
_WITHOUT_MEANING = ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "weight", "pose_ess", "shift_ess")
_UID_LABEL = "cryolikeCryosparcUid"
# Columns of RELION for which cryoSPARC has fields whose definition it does not publish.
_NOT_WRITTEN = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00")


def has_uids(particles: Particles) -> bool:
    """Whether every source is a ``.cs`` file, or one of ours that was made from one."""
    return all(_UID_LABEL in document.particles.labels for document in particles.documents)


def write_cryosparc(
    out: str | os.PathLike[str], results: Results, particles: Particles, runs: Sequence[Path] | None = None
) -> None:
    """Write ``particles.cs`` and ``particles.csg`` into a folder, each atomically.

    Parameters
    ----------
    out : path
        Folder.
    results : Results
    particles : Particles
        The same particles.
    runs : sequence of Path, optional
        Where the sources are the ``particles.star`` of these runs, one each: their ``particles.cs``, where all have one,
        holds what the particles had before.
    """
    out = Path(out)
    tables: list[NDArray[np.void] | None] = [document.cryosparc for document in particles.documents]
    if runs and all((folder / TABLE).is_file() for folder in runs):
        tables = [load_table(folder / TABLE) for folder in runs]
    columns = _source_columns(particles, tables, out)
    posed = columns_for_star(results, particles)
    columns |= _alignment(results, particles, posed, columns)
    columns |= _scores(results, posed)
    table = np.zeros(len(particles), dtype=[(name, v.dtype, v.shape[1:]) for name, v in columns.items()])
    for name, values in columns.items():
        table[name] = values
    with atomic_path(out / TABLE) as temporary, open(temporary, "wb") as file:
        np.save(file, table, allow_pickle=False)
    write_bytes(out / GROUP, _group_text(list(columns), len(particles)).encode("utf-8"))


def _source_columns(particles: Particles, tables: Sequence[NDArray[np.void] | None], out: Path) -> dict[str, NDArray]:
    """Every field that the particles had, in their order; 0 or an empty text where one of several sources lacks it."""
    parts: list[dict[str, NDArray]] = []
    times: Counter[bytes] = Counter()
    for source, table in enumerate(tables):
        mine = particles.take(particles.source_index == source)
        if table is None:
            _say_what_is_left_out(particles, source)
            own = _fields_of(mine, source, out, times)
        else:
            own = _before_scoring(table[mine.row - 1])
            own["blob/path"] = _moved(own["blob/path"], mine, out)
            own = _completed(own, _fields_of(mine, source, out, times))
        parts.append(own)
    order = np.argsort(np.concatenate([np.flatnonzero(particles.source_index == s) for s in range(len(parts))]))
    columns = {}
    for name in dict.fromkeys(name for own in parts for name in own):
        like = next(own[name] for own in parts if name in own)
        pieces = [own[name] if name in own else np.zeros((len(own["uid"]), *like.shape[1:]), like.dtype) for own in parts]
        columns[name] = np.concatenate(pieces)[order]
    return columns


def _completed(own: dict[str, NDArray], known: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The fields of a ``.cs`` file with those it lacks, such as a pixel size that was given as an option; alignments last."""
    alignment = {name: values for name, values in own.items() if name.startswith(_SPACE + "/")}
    lacking = {name: values for name, values in known.items() if name not in own and not name.startswith(_SPACE + "/")}
    return {name: values for name, values in own.items() if name not in alignment} | lacking | alignment


def _say_what_is_left_out(particles: Particles, source: int) -> None:
    document = particles.documents[source]
    labels = {*document.particles.labels, *(document.optics.labels if document.optics is not None else ())}
    left_out = [label for label in _NOT_WRITTEN if label in labels]
    if left_out:
        logger.warning("%s does not hold %s of %s", TABLE, ", ".join(left_out), particles.sources[source])
    own = np.unique(particles.optics_index[particles.source_index == source])
    if any(particles.optics[g].phase_flipped for g in own):
        logger.warning(
            "%s does not hold %s of %s: cryoSPARC would correct these images, which are phase-flipped, again",
            TABLE,
            FLIPPED_LABEL,
            particles.sources[source],
        )


def _before_scoring(table: NDArray[np.void]) -> dict[str, NDArray]:
    """The fields of a ``.cs`` file without those that a run of ours added, and with those that it moved in their place."""
    fields = {name: table[name] for name in table.dtype.names or ()}
    if not any(name.startswith(_OURS + "/") for name in fields):
        return fields
    kept = {name[len(_INPUT) :]: values for name, values in fields.items() if name.startswith(_INPUT)}
    own = {name: values for name, values in fields.items() if not name.startswith((_OURS + "/", _INPUT, _SPACE + "/"))}
    return own | kept


def _moved(paths: NDArray, particles: Particles, out: Path) -> NDArray:
    """Image names of an exported group, which are relative to its folder (``>``), made relative to `out`.

    Those of stacks that are not there stay as they are.
    """
    there = np.array([stack.is_file() for stack in particles.stacks])[particles.stack_index]
    change = there & np.char.startswith(paths, b">")
    return np.where(change, _stack_names(particles, out), paths) if change.any() else paths


def _stack_names(particles: Particles, out: Path) -> NDArray:
    names = [b">" + os.fsencode(os.path.relpath(stack, out)) for stack in particles.stacks]
    return np.array(names, dtype="S")[particles.stack_index]


def _fields_of(particles: Particles, source: int, out: Path, times: Counter[bytes]) -> dict[str, NDArray]:
    """cryoSPARC's fields for particles of a STAR file; `times` counts the images named so far."""
    table = particles.documents[source].particles
    labels = ["rlnImageName", _UID_LABEL, "rlnMicrographName", "rlnRandomSubset"]
    rows = particles.row - 1
    texts = {label: [own[r] for r in rows] for label, own in table.columns(labels, particles.sources[source]).items()}
    count = len(rows)
    group = [particles.optics[i] for i in particles.optics_index]
    fields: dict[str, NDArray] = {
        "uid": _uids(texts["rlnImageName"], texts.get(_UID_LABEL), times),
        "blob/path": _stack_names(particles, out),
        "blob/idx": particles.frame.astype("<u4"),
        "blob/shape": np.repeat(particles.box[:, None], 2, axis=1).astype("<u4"),
        "blob/psize_A": particles.pixel_size.astype("<f4"),
        "blob/sign": particles.sign.astype("<f4"),
        "ctf/type": np.full(count, b"imported"),
        "ctf/exp_group_id": particles.optics_index.astype("<u4"),
        "ctf/accel_kv": np.array([g.voltage_kv for g in group], "<f4"),
        "ctf/cs_mm": np.array([g.cs_mm for g in group], "<f4"),
        "ctf/amp_contrast": np.array([g.amplitude_contrast for g in group], "<f4"),
        "ctf/df1_A": particles.defocus_u.astype("<f4"),
        "ctf/df2_A": particles.defocus_v.astype("<f4"),
        "ctf/df_angle_rad": np.deg2rad(particles.defocus_angle_deg).astype("<f4"),
        "ctf/phase_shift_rad": np.deg2rad(particles.phase_shift_deg).astype("<f4"),
        "ctf/scale": particles.ctf_scale.astype("<f4"),
        "ctf/scale_const": np.zeros(count, "<f4"),
        "ctf/bfactor": particles.ctf_bfactor.astype("<f4"),
    }
    if "rlnMicrographName" in texts:
        names = [name.encode("utf-8", "surrogateescape") for name in texts["rlnMicrographName"]]
        fields["location/micrograph_path"] = np.array(names, dtype="S")
    if "rlnRandomSubset" in texts:
        halves = np.array(texts["rlnRandomSubset"], np.float64)
        fields[f"{_SPACE}/split"] = np.where(halves == 2, 1, 0).astype("<u4")
    return fields


def _uids(images: Sequence[str], texts: Sequence[str] | None, times: Counter[bytes]) -> NDArray[np.uint64]:
    """The uids that the rows name, or else 64 bits of the hash of each image's number and the source's own name of its stack.

    They stay when a project is moved. A name that was there before, for the same image or that of another folder, counts too.
    """
    if texts is not None:
        return np.array([int(text) for text in texts], dtype="<u8")
    keys = []
    for image in images:
        number, separator, stack = image.rpartition("@")
        key = b"%d\0" % int(number if separator else 1) + file_part(stack).encode("utf-8", "surrogateescape")
        times[key] += 1
        keys.append(key if times[key] == 1 else key + b"\0%d" % times[key])
    return np.array([int.from_bytes(hashlib.sha256(key).digest()[:8], "little") for key in keys], dtype="<u8")


def _alignment(
    results: Results, particles: Particles, posed: Mapping[str, object], columns: Mapping[str, NDArray]
) -> dict[str, NDArray]:
    """The fields of alignments3D, and under ``input_`` those that the particles had."""
    kept = {_INPUT + name: values for name, values in columns.items() if name.startswith(_SPACE + "/")}
    count = len(particles)
    matrix = matrix_from_euler(*(np.asarray(posed[f"rlnAngle{name}"]) for name in ("Rot", "Tilt", "Psi")))
    pixel = columns["blob/psize_A"].astype(np.float64)
    origin = np.stack([np.asarray(posed[f"rlnOrigin{axis}Angst"]) for axis in "XY"], axis=1)
    posterior = results.structure_posterior
    sharp = np.square(posterior).sum(axis=0)
    own = {
        "split": columns.get(f"{_SPACE}/split", (np.arange(count) % 2).astype("<u4")),
        "shift": (origin / pixel[:, None]).astype("<f4"),
        "pose": vector_from_matrix(np.swapaxes(matrix, 1, 2)).astype("<f4"),
        "psize_A": columns["blob/psize_A"],
        **{name: np.zeros(count, "<f4") for name in _WITHOUT_MEANING},
        "alpha": np.ones(count, "<f4"),
        "class_posterior": np.where(results.status == OK, results.of_best("structure_posterior"), 0).astype("<f4"),
        "class": np.maximum(results.best_structure - 1, 0).astype("<u4"),
        "class_ess": np.where(sharp > 0, 1 / np.where(sharp > 0, sharp, 1), 0).astype("<f4"),
    }
    return {f"{_SPACE}/{name}": values for name, values in own.items()} | kept


def _scores(results: Results, posed: Mapping[str, object]) -> dict[str, NDArray]:
    """Our columns of ``particles.star``, and log-likelihood and posterior of every structure."""
    scores: dict[str, NDArray] = {}
    for label, values in posed.items():
        if label.startswith("cryolike") and label != "cryolikeStatus":
            array = np.asarray(values)
            name = label[len("cryolike")].lower() + label[len("cryolike") + 1 :]
            scores[f"{_OURS}/{name}"] = array.astype("<f8" if array.dtype.kind == "f" else "<u4")
    scores[f"{_OURS}/status"] = np.array([name.encode() for name in STATUS_NAMES])[results.status]
    scores[f"{_OURS}/logLikelihoods"] = np.ascontiguousarray(results.integrated.T, "<f8")
    scores[f"{_OURS}/posteriors"] = np.ascontiguousarray(results.structure_posterior.T, "<f8")
    return scores


def _group_text(fields: Sequence[str], count: int) -> str:
    """The result group's description, as cryoSPARC exports it; its own groups of fields only."""
    groups = dict.fromkeys(name.partition("/")[0] for name in fields if "/" in name)
    own = [name for name in groups if name != _OURS and not name.startswith(_INPUT)]
    results = "".join(
        f"  {name}:\n    metafile: '>{TABLE}'\n    num_items: {count}\n    type: particle.{name}\n" for name in sorted(own)
    )
    created = time.strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"created: {created}\ngroup:\n  description: Particles scored by cryolike-scipion {__version__}\n"
        f"  name: particles\n  title: Scored particles\n  type: particle\nresults:\n{results}version: v4.4.1\n"
    )
