"""Work on independent parts in processes that share what this one has made.

A search takes many short steps, between which Python's lock lets only one thread go on: two threads are 1.4 times as fast as
one, and more are hardly faster. Forked processes read the templates of the process that they came from, without a copy.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch

from .compute import thread_count
from .errors import InputError
from .workers import be_worker

__all__ = ["ForkedWorkers", "process_count"]

logger = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PATIENCE = 5.0  # seconds that a process has to end by itself

Tick = Callable[[int], None]


def process_count(device: str) -> int:
    """How many processes a run works in: as many as threads where torch's process may be forked (on Linux, without the context
    of a GPU), else one, with threads.
    """
    forks = sys.platform.startswith("linux") and not device.startswith("cuda")
    return thread_count() if forks else 1


class ForkedWorkers:
    """Processes that compute one function of the items that they are given, each in one thread.

    Parameters
    ----------
    function : callable
        ``function(item, tick)``; it sees everything as it was when the workers were made, and what it changes stays in its
        process. Items and results travel between processes.
    count : int

    Use as ``with ForkedWorkers(function, count) as workers``.
    """

    def __init__(self, function: Callable[[Any, Tick], Any], count: int) -> None:
        context = multiprocessing.get_context("fork")
        self._connections: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        for _ in range(count):
            here, there = context.Pipe()
            arguments = (function, there, [*self._connections, here], os.getpid())
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._connections.append(here)
            self._processes.append(process)

    def __enter__(self) -> ForkedWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()  # a worker that waits for an item ends
        for process in self._processes:
            if kind is not None:
                process.kill()
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()

    def map(self, items: Sequence[Any], tick: Tick | None = None) -> Iterator[Any]:
        """Results for the items, in their order. Workers that are done early take the next item.

        Parameters
        ----------
        items : sequence
        tick : callable, optional
            Gets the numbers that the function's calls tick.

        Raises
        ------
        InputError
            If the system ended a worker.
        Exception
            The first that a call raised.
        """
        waiting, found = deque(enumerate(items)), {}
        busy = 0
        for connection in self._connections[: len(items)]:
            connection.send(waiting.popleft())
            busy += 1
        done = 0
        while busy:
            heard = wait(self._connections)
            for connection in [each for each in self._connections if each in heard]:
                kind, number, value = self._receive(connection)
                if kind == "tick":
                    if tick is not None:
                        tick(value)
                    continue
                busy -= 1
                if kind == "failed":
                    raise value
                found[number] = value
                if waiting:
                    connection.send(waiting.popleft())
                    busy += 1
            while done in found:
                yield found.pop(done)
                done += 1

    def _receive(self, connection: Connection) -> tuple[str, int, Any]:
        try:
            return connection.recv()
        except (EOFError, ConnectionError):
            process = self._processes[self._connections.index(connection)]
            process.join(_PATIENCE)
            code = process.exitcode
            raise InputError(
                f"a process of this run was ended from outside ({_ending(code)})",
                remedy="Run the same command again to continue; with fewer --threads if memory was short",
            ) from None


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    return f"signal {-code}, {signal.Signals(-code).name}"


def _serve(function: Callable[[Any, Tick], Any], connection: Connection, others: list[Connection], parent: int) -> None:
    """What a worker does until its parent closes the connection, or is gone."""
    for other in others:  # or the end of the parent would not close them
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it, too, and ends its workers
    _end_with(parent)
    torch.set_num_threads(1)  # the threads that the parent's torch had are not here: waiting for them would never end
    be_worker()

    def tick(number: int) -> None:
        connection.send(("tick", -1, number))

    while True:
        try:
            number, item = connection.recv()
        except (EOFError, ConnectionError):
            return
        answer: tuple[str, int, Any]
        try:
            answer = "done", number, function(item, tick)
        except InputError as error:
            answer = "failed", number, error
        except Exception:
            answer = "failed", number, RuntimeError(f"in a process that computes:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except ConnectionError:  # nobody waits for it
            return


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent is gone: a run that was killed must leave nothing that computes."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        logger.debug("this system does not end processes with their parent")
    if os.getppid() != parent:
        os._exit(1)
