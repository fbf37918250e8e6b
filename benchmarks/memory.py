"""Peak resident memory of ``likelihood`` against the bound that ``--memory`` sets, whatever is scored."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import GIB, Usage, cryolike, markdown, measure, print_machine, python
from particles import Dataset, simulate

from cryolike_scipion.engine.compute import available_threads
from cryolike_scipion.parameters import get

_SNR = 0.05


def empty_process() -> float:
    """Bytes of a process that has imported what a run imports, and has done nothing."""
    # The sleep lets the sampling see the end of the imports.
    code = "import time, cryolike_scipion.engine.likelihood_run, matplotlib.figure; time.sleep(0.1)"
    return measure(python(code)).peak


def run(data: Dataset, out: Path, bound: float, count: int, structures: int, timeout: float, options: dict[str, Any]) -> Usage:
    """Score the first `count` particles against the first `structures` structures within `bound` GiB."""
    shutil.rmtree(out, ignore_errors=True)
    command = cryolike(
        "likelihood",
        particles=data.particles,
        structures=data.structures[:structures],
        rows=f"1:{count}",
        memory=bound,
        out=out,
        **options,
    )
    return measure(command, timeout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bounds", type=float, nargs="+", default=[1.0], help="GiB")
    parser.add_argument("--boxes", type=int, nargs="+", default=[64], help="pixels; the box is 190 Å wide")
    parser.add_argument("--particles", type=int, nargs="+", default=[10, 40], help="numbers of particles")
    parser.add_argument("--structures", type=int, nargs="+", default=[2], help="numbers of structures")
    parser.add_argument("--angular-step", type=float, default=3.8, metavar="DEG", help="degrees; 0: the program's choice")
    parser.add_argument("--max-shift", type=float, default=2.0, metavar="PX", help="pixels, every pixel tried")
    parser.add_argument("--levels", type=int, default=1, help="finer levels")
    parser.add_argument("--search", choices=get("likelihood", "search").choices, help="default: the program's own")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds that a run may take")
    options = parser.parse_args(arguments)
    print_machine()
    print(
        f"`likelihood` with --memory; search {options.search or get('likelihood', 'search').default}, "
        f"{f'{options.angular_step:g}°' if options.angular_step else 'views by the program'}, shifts every pixel within "
        f"±{options.max_shift:g} pixels, {options.levels} finer levels, {options.threads or available_threads()} threads. "
        f"A process that has only imported the packages holds {empty_process() / GIB:.2f} GiB.\n"
    )
    rows = []
    with TemporaryDirectory() as scratch:
        for box in options.boxes:
            data = simulate(Path(scratch), max(options.particles), box, max(*options.structures, 2), _SNR)
            sampling = {
                "angular_step": options.angular_step or None,
                "shift_step": data.pixel,
                "max_shift": options.max_shift * data.pixel,
                "levels": options.levels,
                "search": options.search,
                "threads": options.threads,
            }
            for bound, count, structures in product(options.bounds, options.particles, options.structures):
                case = (box, count, structures, f"{bound:g}")
                try:
                    usage = run(data, Path(scratch) / "out", bound, count, structures, options.timeout, sampling)
                except TimeoutError as error:
                    rows.append((*case, str(error), "", ""))
                    continue
                verdict = "yes" if usage.peak <= bound * GIB else "**no**"
                rows.append((*case, f"{usage.peak / GIB:.2f}", verdict, f"{usage.wall:.1f}"))
    header = ("box (pixels)", "particles", "structures", "bound (GiB)", "peak resident (GiB)", "within", "wall (s)")
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
