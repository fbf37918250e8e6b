"""What the benchmarks share: the machine and the versions in words, timing, processes measured from outside, tables."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from cryolike_scipion import __version__
from cryolike_scipion.tests.process_memory import peak_resident, resident_of_all

GIB = 2.0**30
MACHINE_TOLD = "CRYOLIKE_BENCH_MACHINE_TOLD"  # set by a document that has said it at its top
_SAMPLE_SECONDS = 0.02  # between two looks at a process


def processor() -> str:
    """Name of the processor, as the kernel has it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def hardware() -> str:
    """Processor, cores that this process may use, memory and GPU, in one line."""
    import torch  # not before the engine, which says how its threads wait

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()} ({platform.machine()}), {cores} cores, {memory:.0f} GiB memory{gpu}"


def versions() -> str:
    """Versions of this package and of what computes for it, in one line."""
    import finufft
    import torch

    return (
        f"cryolike-scipion {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, finufft {finufft.__version__}"
    )


def print_machine() -> None:
    """Print hardware and versions, unless the document that this is a part of has said them."""
    if MACHINE_TOLD not in os.environ:
        print(f"{hardware()}; {versions()}.")


def best_of(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


@dataclass(frozen=True)
class Usage:
    """What a process used.

    Attributes
    ----------
    wall : seconds from start to end.
    cpu : seconds of all threads, user and system.
    peak : bytes, largest resident memory, with that of forked processes.
    """

    wall: float
    cpu: float
    peak: float

    @property
    def cores(self) -> float:
        """Cores busy on average."""
        return self.cpu / self.wall


def measure(command: Sequence[object], timeout: float = float("inf")) -> Usage:
    """Run a command to its end and say what it used.

    The peak is that of the process, or of all that it forked together, as far as looks every few hundredths of a second tell.

    Parameters
    ----------
    command : program and arguments.
    timeout : seconds.

    Raises
    ------
    RuntimeError
        If it fails; the message holds what it wrote.
    TimeoutError
        If it does not end in time; it is stopped then.
    """
    words, peak, late = [str(word) for word in command], 0.0, False
    with TemporaryFile() as written:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=written, stderr=subprocess.STDOUT)
        while True:
            peak = max(peak, peak_resident(process.pid), resident_of_all(process.pid))
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - start > timeout and not late:
                late = True
                process.kill()
            time.sleep(_SAMPLE_SECONDS)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        written.seek(0)
        text = written.read().decode(errors="replace")
    if late:
        raise TimeoutError(f"not finished after {timeout:g} s")
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit status {process.returncode}\n{text}")
    return Usage(wall, used.ru_utime + used.ru_stime, peak)


def python(code: str) -> list[str]:
    """The command that runs a piece of code in a fresh interpreter."""
    return [sys.executable, "-c", code]


def cryolike(verb: str, **options: object) -> list[str]:
    """The command line of a verb: ``max_shift=9`` is ``--max-shift 9``; ``True`` is a flag, ``None`` is left out."""
    words = [sys.executable, "-m", "cryolike_scipion", verb]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append("--" + name.replace("_", "-"))
        values = value if isinstance(value, (list, tuple)) else [] if value is True else [value]
        words += [str(item) for item in values]
    return words
