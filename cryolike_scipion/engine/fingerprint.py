"""Hashes of everything that decides a result, so that old and new results never mix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .mrc_stack import StackError, read_stack_header
from .particles import Particles


def canonical_json(value: object) -> str:
    """JSON text that is the same for equal values: sorted keys, no blanks, paths and numpy values plain.

    Raises
    ------
    TypeError
        For what has no plain form.
    ValueError
        For NaN and infinity, which JSON has not.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)


def fingerprint(decides: Mapping[str, object]) -> str:
    """SHA-256, in hexadecimal, of the canonical JSON of what decides a result."""
    return hashlib.sha256(canonical_json(decides).encode("ascii")).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def particles_identity(particles: Particles) -> dict[str, object]:
    """What identifies particles and their images, for :func:`fingerprint`.

    The sources and their rows count by content, not by name, so that a moved project keeps its results.
    Stacks count by name, size, time of change and number of whole images: reading all images would take as
    long as scoring them.
    """
    return {
        "sources": [source_sha256(particles, number) for number in range(len(particles.sources))],
        "source_index": _array_sha256(particles.source_index),
        "rows": _array_sha256(particles.row),
        "stacks": fingerprint({"stacks": [stack_identity(stack) for stack in particles.stacks]}),
    }


def source_sha256(particles: Particles, number: int = 0) -> str:
    """SHA-256 of the text of one source's tables (for a ``.cs`` file, of its RELION form)."""
    lines = particles.documents[number].star.lines
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def stack_identity(path: str | os.PathLike[str]) -> list[object]:
    """Name, bytes, time of change (ns) and whole images of a stack; zeros where it cannot be read."""
    name = os.fsencode(Path(path).name).decode("ascii", "backslashreplace")
    try:
        header = read_stack_header(path)
        status = os.stat(path)
    except (StackError, OSError):
        return [name, 0, 0, 0]
    return [name, status.st_size, status.st_mtime_ns, header.available]


def _array_sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
