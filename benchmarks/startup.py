"""How long the program takes to start, and a job of ten particles: what a user waits for before anything is scored."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common import Usage, cryolike, markdown, measure, print_machine, python
from particles import Dataset, simulate

from cryolike_scipion.engine.compute import available_threads
from cryolike_scipion.parameters import get

_PARTICLES = 10
_SNR = 0.1
# So few poses that nothing but starting, reading and writing is left.
_FEW_POSES = {"angular_step": 30, "max_shift": 0, "levels": 0}


def best(command: Sequence[object], repeats: int, timeout: float) -> Usage:
    """The fastest of some runs of a command."""
    return min((measure(command, timeout) for _ in range(repeats)), key=lambda usage: usage.wall)


def starts(repeats: int, timeout: float) -> list[tuple[str, Usage]]:
    """Commands that score nothing, and torch alone for comparison."""
    commands = {
        "`cryolike-scipion --help`": [sys.executable, "-m", "cryolike_scipion", "--help"],
        "`cryolike-scipion likelihood --help`": [sys.executable, "-m", "cryolike_scipion", "likelihood", "--help"],
        "`import torch` alone": python("import torch"),
        "import of the likelihood engine": python("import cryolike_scipion.engine.likelihood_run"),
    }
    return [(name, best(command, repeats, timeout)) for name, command in commands.items()]


def job(data: Dataset, out: Path, threads: int | None, search: str | None, **options: object) -> list[str]:
    """The command that scores ten particles against both structures, from nothing."""
    return cryolike(
        "likelihood",
        particles=data.particles,
        structures=data.structures,
        rows=f"1:{_PARTICLES}",
        threads=threads,
        search=search,
        restart=True,
        out=out,
        **options,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[32], help="pixels; the box is 190 Å wide")
    parser.add_argument("--particles", type=Path, metavar="STAR", help="score the first ten of these too")
    parser.add_argument("--structures", type=Path, nargs="+", metavar="FILE", help="against these")
    parser.add_argument("--search", choices=get("likelihood", "search").choices, help="default: the program's own")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest of so many runs counts")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a run may take")
    options = parser.parse_args(arguments)
    if bool(options.particles) != bool(options.structures):
        parser.error("--particles and --structures go together")
    print_machine()
    print(
        f"Jobs: `likelihood` of {_PARTICLES} particles against 2 simulated structures, search "
        f"{options.search or get('likelihood', 'search').default}, sampling by the program, SNR {_SNR:g}, "
        f"{options.threads or available_threads()} threads. Fastest of {options.repeats} processes, files in cache.\n"
    )
    rows = [(name, f"{usage.wall:.2f}", f"{usage.cpu:.2f}") for name, usage in starts(options.repeats, options.timeout)]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sets = [(f"simulated, {box} pixels", simulate(folder, _PARTICLES, box, snr=_SNR)) for box in options.boxes]
        if options.particles:
            given = Dataset(options.particles, options.particles, tuple(options.structures), 0)
            sets.append((options.particles.name, given))
        fixed = (folder / "out", options.threads, options.search)
        for name, data in sets:
            for what, sampling in (("hardly any poses", _FEW_POSES), ("a whole search", {})):
                try:
                    usage = best(job(data, *fixed, **sampling), options.repeats, options.timeout)
                    times = (f"{usage.wall:.2f}", f"{usage.cpu:.2f}")
                except TimeoutError:
                    times = (f"> {options.timeout:g}", "")
                rows.append((f"10 particles, {name}: {what}", *times))
    print(markdown(("command", "wall (s)", "CPU (s)"), rows))


if __name__ == "__main__":
    main()
