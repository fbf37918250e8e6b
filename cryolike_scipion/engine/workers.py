"""Work on independent parts in threads, each with one thread of torch's own.

torch, numpy and finufft release Python's lock while they compute, so that threads over images keep all cores busy. Threads
inside one operation do not: most operations here are too short to share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

import torch

from .compute import thread_count

__all__ = ["be_worker", "parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_here = local()


def parallel(function: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None) -> Iterator[Result]:
    """Results of a function for every item, in the items' order; one after the other where a worker calls it.

    Parameters
    ----------
    function : callable
        Must not change what other calls read.
    items : sequence
    threads : int, optional
        Default: `compute.thread_count`.

    Raises
    ------
    Exception
        The first that a call raised; calls not begun by then are dropped.
    """
    count = min(thread_count() if threads is None else threads, len(items))
    if count <= 1 or getattr(_here, "is_worker", False):
        yield from map(function, items)
        return
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    pool = ThreadPoolExecutor(count, initializer=be_worker)
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def be_worker() -> None:
    """Let `parallel` do its work here, in the thread that calls it."""
    _here.is_worker = True
