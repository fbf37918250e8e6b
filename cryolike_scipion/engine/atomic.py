"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".cryolike-tmp"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` that becomes `path` when the block ends without an exception.

    The data reach the disk (fsync) before the rename, so a power cut leaves the old file or the new one.
    After an exception the temporary file is removed and an existing `path` is as it was.

    Parameters
    ----------
    path : path
        The file to write. Its folder is made when it is missing.

    Yields
    ------
    Path
        Where to write. Close the file before the block ends.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{secrets.token_hex(8)}{_SUFFIX}"
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(folder: str | os.PathLike[str]) -> int:
    """Remove temporary files of :func:`atomic_path` that a killed run left in `folder`; return how many.

    Call it only while no other process writes to the folder.
    """
    count = 0
    for leftover in Path(folder).glob(f".*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)
        count += 1
    return count


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
