"""Where the image stacks of a particle file are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT_TABLE = "cryolike_images"
ROOT_LABEL = "cryolikeImageRoot"
# In the particle table, where the images of several files come from several folders: which of them, from 1.
ROOT_NUMBER_LABEL = "cryolikeImageRootNumber"


def file_part(name: str) -> str:
    """A stack's name without the format that RELION allows behind it, as in ``particles.mrc:mrcs``."""
    stem, colon, kind = name.rpartition(":")
    return stem if colon and kind in ("mrc", "mrcs", "st") else name


def find_stacks(
    names: Iterable[str],
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    recorded: Sequence[Path] = (),
) -> tuple[dict[str, Path], tuple[Path, ...]]:
    """Find image stacks by the names that a particle file gives them.

    An absolute name is taken as it is. A relative one is looked for from `root`, the recorded folders, the
    current folder, the file's own folder and then each folder above it (a RELION or cryoSPARC project writes
    names relative to the project).

    Parameters
    ----------
    names : iterable of str
        File names as in the particle file.
    source : path
        The particle file.
    root : path, optional
        The folder the user says that names are relative to.
    recorded : sequence of Path
        Folders that an earlier run wrote into the file.

    Returns
    -------
    found : dict of name to Path
        Absolute paths. A stack that is nowhere gets the path it would have in `root`, or else beside the
        file.
    roots : tuple of Path
        The folders in which relative names were found, in the order of first use.
    """
    folder = Path(os.path.abspath(source)).parent
    bases = [Path(os.path.abspath(root))] if root is not None else []
    bases += [*recorded, Path.cwd(), folder, *folder.parents]
    missing_base = folder if root is None else bases[0]
    found: dict[str, Path] = {}
    used: dict[Path, None] = {}
    for name in names:
        file = file_part(name)
        if os.path.isabs(file):
            found[name] = Path(file)
            continue
        base = next((b for b in bases if (b / file).is_file()), None)
        found[name] = (base or missing_base) / file
        if base is not None:
            used[base] = None
    return found, tuple(used)
