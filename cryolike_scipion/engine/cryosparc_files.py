"""cryoSPARC's ``.cs`` files: loaded without pickle, and the files of one job put together by particle.

A job writes what it computed to one file, and passes the rest of what its particles have on in another (``…passthrough…``).
Both have a row a particle with the same ``uid``, not always in the same order; fields come in groups with one prefix
(``blob/``, ``ctf/``, ``alignments3D/``). Of a group that both have, the job's own is the newer one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["CryosparcTable", "files_of_group", "job_file", "load_table", "together"]

logger = logging.getLogger(__name__)

_ID = "uid"
_METAFILE = re.compile(r"^\s*metafile:\s*(['\"]?)>?(.+?)\1\s*$")
_LARGEST_HEADER = 200_000  # bytes of numpy's header: hundreds of fields


@dataclass(frozen=True)
class CryosparcTable:
    """Particles of one job.

    Attributes
    ----------
    path : Path
        The file whose rows these are.
    others : tuple of Path
        Files from which fields were added.
    data : structured array [M]
    """

    path: Path
    others: tuple[Path, ...]
    data: NDArray[np.void]


def load_table(path: str | os.PathLike[str]) -> NDArray[np.void]:
    """Rows of a ``.cs`` file, a numpy structured array.

    Raises
    ------
    InputError
        If the file is missing, is no structured array, holds objects (they would have to be unpickled), or is empty.
    """
    path, remedy = Path(path), "Export the particles from cryoSPARC and give the exported .cs file"
    try:
        data = np.load(path, allow_pickle=False, max_header_size=_LARGEST_HEADER)  # type: ignore[call-arg]
    except OSError as error:
        reason = error.strerror or "not a numpy file"
        raise InputError(
            f"the file cannot be read ({reason})", path, remedy="Check that it is a .cs file of particles"
        ) from None
    except (ValueError, EOFError):
        raise InputError("the file is not a numpy structured array", path, remedy=remedy) from None
    if not isinstance(data, np.ndarray) or data.dtype.names is None or data.ndim != 1:
        raise InputError("the file is not a table of particles", path, remedy=remedy)
    if len(data) == 0:
        raise InputError("the file has no particles", path, remedy="Give a file with at least one particle")
    return data


def together(paths: Sequence[Path]) -> list[CryosparcTable]:
    """The given files, those of one job put together.

    A file called passthrough adds its groups of fields to each other given file that shares particles with it. So does one with
    image names to one without: what has none is what a job wrote about images that another made. Groups that are then still
    missing come from passthrough files of the same folder that have all the particles.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of CryosparcTable
        In the order of `paths`, without those that were added to others.

    Raises
    ------
    InputError
        If a file cannot be read, a uid occurs twice, or a file that was given to be added lacks some of the particles.
    """
    loaded = {path: load_table(path) for path in paths}
    main = [path for path in loaded if "passthrough" not in path.name] or list(loaded)[:1]
    bare = [path for path in main if "blob/path" not in _names(loaded[path])]
    main = [path for path in main if path in bare or not any(_shared(loaded[path], loaded[b]) for b in bare)]
    tables, used = [], set(main)
    for path in main:
        data = loaded[path]
        others: list[Path] = []
        for other in (p for p in loaded if p not in main):
            if _shared(data, loaded[other]):
                used.add(other)
                found = _add(data, path, loaded[other], other)
                if found is not data:
                    data, others = found, [*others, other]
        for other in sorted(path.parent.glob("*passthrough*.cs")):
            if not any(_same(other, p) for p in loaded):
                found = _add_if_whole(data, path, other)
                if found is not data:
                    data, others = found, [*others, other]
        tables.append(CryosparcTable(path, tuple(others), data))
    for path in loaded:
        if path not in used:
            raise InputError(
                "the file shares no particles with the other given files",
                path,
                remedy="Give the particles and passthrough files of one job",
            )
    return tables


def job_file(folder: Path) -> Path | None:
    """The particles of a job's folder: its own file of the last iteration, or else the exported one; None where there is none.

    Raises
    ------
    InputError
        If the job has particles of several classes and none of all.
    """
    files = [p for p in folder.glob("*particles*.cs") if "passthrough" not in p.name]
    of_all = [p for p in files if not re.search(r"class_?\d+", p.name)]
    if files and not of_all:
        names = ", ".join(sorted(p.name for p in files)[:3])
        raise InputError(
            f"the folder holds particles of single classes only ({names})", folder, remedy="Give the .cs files that you mean"
        )
    return max(of_all, key=_natural, default=None)


def files_of_group(path: Path) -> list[Path]:
    """The ``.cs`` files that a result group (``.csg``, a text file that cryoSPARC writes) names.

    Raises
    ------
    InputError
        If it names none.
    """
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    names = [match[2] for match in map(_METAFILE.match, lines) if match]
    files = list(dict.fromkeys(path.parent / name for name in names if name.endswith(".cs")))
    if not files:
        raise InputError("the result group names no .cs file", path, remedy="Give the .cs files themselves")
    return files


def _natural(path: Path) -> list[tuple[int, str]]:
    """Key that sorts numbers in names by value; a name without an iteration is the last one."""
    return [(int(part), "") if part.isdigit() else (10**12, part) for part in re.split(r"(\d+)", path.name)]


def _names(data: NDArray[np.void]) -> tuple[str, ...]:
    return data.dtype.names or ()


def _groups(data: NDArray[np.void]) -> set[str]:
    return {name.partition("/")[0] for name in _names(data)} - {_ID}


def _same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def _shared(one: NDArray[np.void], other: NDArray[np.void]) -> bool:
    if _ID not in _names(one) or _ID not in _names(other):
        return False
    return bool(np.isin(one[_ID], other[_ID]).any())


def _add(data: NDArray[np.void], path: Path, more: NDArray[np.void], other: Path) -> NDArray[np.void]:
    """The rows with the groups of fields of another file that they lack."""
    wanted = [name for name in _names(more) if name != _ID and name.partition("/")[0] not in _groups(data)]
    if not wanted:
        return data
    order = np.argsort(more[_ID], kind="stable")
    sorted_ids = more[_ID][order]
    if (sorted_ids[1:] == sorted_ids[:-1]).any():
        raise InputError("a uid occurs twice", other, remedy="Give the files of one job, each once")
    place = np.minimum(np.searchsorted(sorted_ids, data[_ID]), len(more) - 1)
    there = sorted_ids[place] == data[_ID]
    if not there.all():
        row = int(np.argmin(there))
        raise InputError(
            f"{np.count_nonzero(~there)} of {len(data)} particles are not in {other} (the first has uid {data[_ID][row]})",
            path,
            row + 1,
            "Give the passthrough file of the same job",
        )
    logger.info("%s: %s from %s", path.name, ", ".join(sorted({n.partition("/")[0] for n in wanted})), other.name)
    kinds = [(name, data.dtype[name]) for name in _names(data)] + [(name, more.dtype[name]) for name in wanted]
    joined = np.empty(len(data), dtype=kinds)
    for name in _names(data):
        joined[name] = data[name]
    for name in wanted:
        joined[name] = more[name][order[place]]
    return joined


def _add_if_whole(data: NDArray[np.void], path: Path, other: Path) -> NDArray[np.void]:
    """As `_add` for a file that nobody named: left out where it does not fit."""
    try:
        more = load_table(other)
        if _ID in _names(data) and _ID in _names(more) and np.isin(data[_ID], more[_ID]).all():
            return _add(data, path, more, other)
    except InputError:
        logger.debug("%s is left out", other)
    return data
