"""The header of an MRC image stack, and its images: memory-mapped as far as the file goes, or unpacked.

RELION itself reads compressed stacks of movies only (bzip2, xz), but archives keep particles so, and unpacking a whole set to
score it once takes a second copy of it. A packed stack has no random access: it is unpacked whole into memory, those last used
are kept there up to a number of bytes, and one that is too large for that is refused.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_LARGEST_UNPACKED = 4 * 2**30  # bytes
_PART_BYTES = 2**20
_KEPT_UNPACKED = 2**30  # bytes; the last one is kept whatever its size

logger = logging.getLogger(__name__)


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
        Images that are whole in the file; fewer than `nz` in a truncated one. Of a packed file, what its header says.
    packed : bool
        Compressed with gzip, bzip2 or xz.
    stamp : tuple of int
        Bytes and time of change (ns) of the file.
    """

    path: Path
    nx: int
    ny: int
    nz: int
    dtype: np.dtype
    offset: int
    available: int
    packed: bool = False
    stamp: tuple[int, int] = (0, 0)


def read_stack_header(path: str | os.PathLike[str]) -> StackHeader:
    """Read the header of an MRC stack (modes 0, 1, 2, 6 and 12; either byte order; any extended header; also packed).

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
        opener = _OPENERS.get(raw[:2])
        if opener is not None:
            with opener(path) as file:
                raw = file.read(_HEADER_BYTES)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StackError(f"the image stack {path} cannot be read ({reason})", "Check the file and its rights") from None
    if raw[:4] == _ZSTANDARD:
        raise StackError(f"the image stack {path} is compressed (zstandard)", "Decompress it")
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
    if opener is not None and nx * ny * nz * dtype.itemsize > _LARGEST_UNPACKED:
        raise StackError(
            f"the image stack {path} is compressed and too large to be unpacked in memory "
            f"({nx * ny * nz * dtype.itemsize / 2**30:.1f} GiB)",
            "Decompress it",
        )
    whole = nz if opener is not None else max(0, size - offset) // (nx * ny * dtype.itemsize)
    return StackHeader(path, nx, ny, nz, dtype, offset, min(nz, whole), opener is not None, (size, mtime_ns))


def open_stack(header: StackHeader) -> NDArray[np.generic]:
    """The whole images of a stack in the file's own type, [images, ny, nx]: memory-mapped read-only, or unpacked.

    A packed file that is cut off, or damaged, gives the images before that.
    """
    if header.packed:
        return _UNPACKED.get(header)
    shape = (header.available, header.ny, header.nx)
    if header.available == 0:
        return np.empty(shape, dtype=header.dtype)
    return np.memmap(header.path, dtype=header.dtype, mode="r", offset=header.offset, shape=shape)


class _Unpacked:
    """The images of the packed stacks last used; says once that they are too many to be kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[StackHeader, NDArray[np.generic]] = OrderedDict()
        self._seen: set[StackHeader] = set()
        self._warned = False
        self._state, self._unpacking = Lock(), Lock()

    def get(self, header: StackHeader) -> NDArray[np.generic]:
        images = self._find(header)
        if images is None:
            with self._unpacking:  # else several threads would unpack one stack
                images = self._find(header)
                if images is None:
                    self._warn(header)
                    images = _unpack(header)
                    self._keep(header, images)
        return images

    def _find(self, header: StackHeader) -> NDArray[np.generic] | None:
        with self._state:
            if header in self._kept:
                self._kept.move_to_end(header)
            return self._kept.get(header)

    def _keep(self, header: StackHeader, images: NDArray[np.generic]) -> None:
        with self._state:
            self._kept[header] = images
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _KEPT_UNPACKED:
                self._kept.popitem(last=False)

    def _warn(self, header: StackHeader) -> None:
        if header in self._seen and not self._warned:
            self._warned = True
            logger.warning(
                "the compressed image stack %s is unpacked again, since no more than %.1f GiB of such stacks are kept: "
                "sort the particles by stack, or decompress the stacks",
                header.path,
                _KEPT_UNPACKED / 2**30,
            )
        self._seen.add(header)


_UNPACKED = _Unpacked()


def _unpack(header: StackHeader) -> NDArray[np.generic]:
    image = header.nx * header.ny * header.dtype.itemsize
    data = bytearray()
    with open(header.path, "rb") as file:
        opener = _OPENERS[file.read(2)]
    with opener(header.path) as file:
        try:
            file.read(header.offset)
            while len(data) < image * header.nz:
                part = file.read(min(_PART_BYTES, image * header.nz - len(data)))
                if not part:
                    break
                data += part
        except (EOFError, OSError, lzma.LZMAError, zlib.error):
            pass  # what came before stands
    whole = len(data) // image
    images = np.frombuffer(data, dtype=header.dtype, count=whole * header.nx * header.ny)
    return images.reshape(whole, header.ny, header.nx)
