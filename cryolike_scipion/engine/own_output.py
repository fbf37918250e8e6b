"""Output must not replace what a run reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError

__all__ = ["refuse_overwriting"]


def refuse_overwriting(out: str | os.PathLike[str], written: Iterable[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse an output folder in which one of the files to be written is an input.

    Parameters
    ----------
    out : path
        Output folder; need not exist.
    written : iterable of str
        Names, or glob patterns, of what the run writes there.
    inputs : iterable of path
        Files and folders that the run reads.

    Raises
    ------
    InputError
        If an input would be overwritten.
    """
    folder = Path(out).resolve()
    patterns = list(written)
    for source in map(Path, inputs):
        place = source.resolve()
        inside = place.parent == folder and any(place.match(pattern) for pattern in patterns)
        if inside or (place == folder and place.is_dir()):
            raise InputError("the output would overwrite this input", source, remedy="Choose another folder with --out.")
