"""How the C library treats memory that was freed.

glibc hands large blocks back to the kernel as soon as they are freed, and every block asked for again comes back page by page,
each cleared. Work in batches frees and asks for the same few megabytes thousands of times; the pages then cost as much as
transforms of images in them.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST_FROM_HEAP = 32 << 20  # the most that glibc takes
_KEPT = 256 << 20


def keep_freed_memory(kept: int = _KEPT) -> bool:
    """Have glibc reuse freed blocks of up to 32 MB, and keep up to ``kept`` bytes of them; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = (
        (_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP),
        (_M_TRIM_THRESHOLD, kept),
        (_M_TOP_PAD, _LARGEST_FROM_HEAP),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in wanted)
