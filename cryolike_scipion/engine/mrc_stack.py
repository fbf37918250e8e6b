"""The header of an MRC image stack, and its images memory-mapped as far as the file goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz"}


class StackError(Exception):
    """An image stack cannot be read; ``args`` are what is wrong and the remedy."""


@dataclass(frozen=True)
class StackHeader:
    """What the header of a stack says, and how much of it the file holds.

    Attributes
    ----------
    path : Path
    nx, ny, nz : int
        Columns, rows and images.
    dtype : numpy.dtype
        Of a pixel, with byte order.
    offset : int
        Bytes before the first pixel.
    available : int
        Images that are whole in the file; fewer than `nz` in a truncated one.
    """

    path: Path
    nx: int
    ny: int
    nz: int
    dtype: np.dtype
    offset: int
    available: int


def read_stack_header(path: str | os.PathLike[str]) -> StackHeader:
    """Read the header of an MRC stack (modes 0, 1, 2, 6 and 12; either byte order; any extended header).

    Raises
    ------
    StackError
        If the file is missing, cannot be read, or is not such a stack.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise StackError(
            f"the image stack {path} does not exist",
            "Give the folder that the image names are relative to with --root",
        ) from None
    except OSError as error:
        raise StackError(f"the image stack {path} cannot be read ({error.strerror})", "Check its rights") from None
    return _header(Path(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=65536)
def _header(path: Path, size: int, mtime_ns: int) -> StackHeader:
    """The header of a file; size and time are parameters so that a changed file is read again."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_HEADER_BYTES)
    except OSError as error:
        raise StackError(f"the image stack {path} cannot be read ({error.strerror})", "Check its rights") from None
    if raw[:2] in _COMPRESSED:
        raise StackError(f"the image stack {path} is compressed ({_COMPRESSED[raw[:2]]})", "Decompress it")
    if len(raw) < _HEADER_BYTES:
        raise StackError(
            f"the image stack {path} is truncated: {len(raw)} bytes, less than an MRC header",
            "Copy or extract it again",
        )
    for order in "<>":
        words = np.frombuffer(raw, dtype=f"{order}i4")
        nx, ny, nz, mode, extended = (int(words[i]) for i in (0, 1, 2, 3, 23))
        # In the wrong byte order every size below 65536 becomes 65536 or more.
        if 0 < nx < 65536 and 0 < ny < 65536 and nz > 0 and 0 <= mode < 102 and extended >= 0:
            break
    else:
        raise StackError(f"{path} is not an MRC image stack", "Convert the images to MRC (.mrcs)")
    if mode not in _MODES:
        raise StackError(
            f"{path} is an MRC file of mode {mode}, which is not read",
            "Convert the images to mode 2 (32-bit float)",
        )
    dtype = np.dtype(order + _MODES[mode])
    offset = _HEADER_BYTES + extended
    available = min(nz, max(0, size - offset) // (nx * ny * dtype.itemsize))
    return StackHeader(path, nx, ny, nz, dtype, offset, available)


def open_stack(header: StackHeader) -> NDArray[np.generic]:
    """The whole images of a stack, memory-mapped read-only: [available, ny, nx] in the file's own type."""
    shape = (header.available, header.ny, header.nx)
    if header.available == 0:
        return np.empty(shape, dtype=header.dtype)
    return np.memmap(header.path, dtype=header.dtype, mode="r", offset=header.offset, shape=shape)
