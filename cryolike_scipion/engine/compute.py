"""Which device computes, and on how many threads."""

import os
import re
from typing import Optional

import torch

from .errors import InputError

_threads: Optional[int] = None


def choose_device(name: str) -> str:
    """Return the torch name of the device that `name` stands for.

    Parameters
    ----------
    name : ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    InputError
        If the name is none of these, or there is no such GPU.
    """
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise InputError(f"device {name!r} is not known", remedy="Use auto, cpu, cuda or cuda:N.")
    index = int(match.group(1) or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise InputError(
            f"device {name!r} was asked for, but torch sees {count} CUDA devices",
            remedy="Use --device cpu, or install a torch that supports this GPU.",
        )
    return f"cuda:{index}"


def available_threads() -> int:
    """Return the number of CPU threads that this process may use.

    OMP_NUM_THREADS where it is set, else the CPUs that the scheduler allows (a queue may allow fewer than
    the machine has).
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_threads(count: Optional[int]) -> int:
    """Let the engine work in `count` threads (all that are available for None); return the number.

    torch's own operations get one thread each: see :mod:`cryolike_scipion.engine.workers`.
    """
    global _threads
    _threads = available_threads() if count is None else count
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")  # some containers ask for less
    return _threads


def thread_count() -> int:
    """Number of threads that the engine works in: of the last `use_threads`, else all that are available."""
    return available_threads() if _threads is None else _threads
