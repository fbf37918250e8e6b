"""Whole runs of ``cryolike-scipion likelihood`` on particles with known truth: time, memory, and the answer's quality.

Each run is a process of its own. The grid setting has views every 3.8°, shifts every pixel within ±6 pixels and no
finer levels; the other one is what the program chooses. ``--profile`` adds where the time of one run goes.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import GIB, Usage, cryolike, markdown, measure, print_machine
from particles import Agreement, Dataset, agreement, simulate
from stages import profile_table

from cryolike_scipion.engine.compute import available_threads
from cryolike_scipion.parameters import get

GRID, DEFAULTS = "grid", "defaults"
_SAMPLING = {GRID: "3.8°, 1 px, ±6 px", DEFAULTS: "by the program"}
_SWEPT_STRUCTURES = 2  # where the number of particles varies


@dataclass(frozen=True)
class Run:
    """One measured run: its setting, what it used and what it found."""

    particles: int
    structures: int
    setting: str
    usage: Usage
    found: Agreement


def search_options(data: Dataset, setting: str) -> dict[str, Any]:
    """The sampling of a setting, as options of ``likelihood``; lengths in Å."""
    if setting == DEFAULTS:
        return {}
    return {"angular_step": 3.8, "shift_step": data.pixel, "max_shift": 6 * data.pixel, "levels": 0}


def run_once(
    data: Dataset, out: Path, count: int, structures: int, setting: str, threads: int | None, search: str, timeout: float
) -> Run:
    """Score the first `count` particles against the first `structures` structures in a new process."""
    shutil.rmtree(out, ignore_errors=True)
    command = cryolike(
        "likelihood",
        particles=data.particles,
        structures=data.structures[:structures],
        rows=f"1:{count}",
        search=search,
        threads=threads,
        out=out,
        **search_options(data, setting),
    )
    usage = measure(command, timeout)
    return Run(count, structures, setting, usage, agreement(out, data))


def table(runs: Sequence[Run]) -> str:
    """The runs as a Markdown table."""
    header = (
        "particles",
        "structures",
        "sampling",
        "wall (s)",
        "CPU (s)",
        "cores busy",
        "peak memory (GiB)",
        "particles/s",
        "ms per particle × structure",
        "structure accuracy",
        "pose error, median (°)",
        "within 15°",
    )
    rows = [
        (
            run.particles,
            run.structures,
            _SAMPLING[run.setting],
            f"{run.usage.wall:.1f}",
            f"{run.usage.cpu:.1f}",
            f"{run.usage.cores:.2f}",
            f"{run.usage.peak / GIB:.2f}",
            f"{run.particles / run.usage.wall:.3g}",
            f"{1e3 * run.usage.wall / (run.particles * run.structures):.3g}",
            f"{run.found.accuracy:.4f}" if run.structures > 1 else "",
            f"{run.found.pose_error:.2f}",
            f"{run.found.near:.3f}",
        )
        for run in runs
    ]
    return markdown(header, rows)


@dataclass(frozen=True)
class Line:
    """``seconds = start + slope · count`` by least squares of the relative error, and the largest of these errors."""

    start: float
    slope: float
    error: float


def fit_line(counts: Sequence[int], seconds: Sequence[float]) -> Line:
    """Fit a line to at least two times."""
    x, y = np.asarray(counts, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return Line(float(start), float(slope), float(np.abs((start + slope * x) / y - 1).max()))


def sweeps(runs: Sequence[Run]) -> list[tuple[str, list[tuple[int, float]], str]]:
    """Times of the grid setting against particles and against structures: what varies, (count, seconds), what is fixed."""
    grid = [run for run in runs if run.setting == GRID]
    fewest = min(run.particles for run in grid)
    against_particles = sorted((run.particles, run.usage.wall) for run in grid if run.structures == _SWEPT_STRUCTURES)
    against_structures = sorted((run.structures, run.usage.wall) for run in grid if run.particles == fewest)
    return [
        ("particles", against_particles, f"{_SWEPT_STRUCTURES} structures"),
        ("structures", against_structures, f"{fewest:,} particles"),
    ]


def describe_lines(runs: Sequence[Run]) -> str:
    """The fitted lines in words, for each sweep of three or more counts."""
    lines = []
    for what, points, fixed in sweeps(runs):
        if len(points) < 3:
            continue
        line = fit_line(*zip(*points))
        lines.append(
            f"Time against {what} ({fixed}): {line.start:.1f} s + {line.slope:.4g} s each; no run is farther than "
            f"{100 * line.error:.1f} % from the line."
        )
    return "\n".join(lines)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Draw time against particles and against structures, with the fitted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (what, points, fixed) in zip(figure.subplots(1, 2), sweeps(runs)):
        if not points:
            continue
        counts, seconds = zip(*points)
        axis.plot(counts, seconds, "o", color="#2a6f97")
        if len(points) > 1:
            line, ends = fit_line(counts, seconds), np.array([0, max(counts)])
            text = f"{line.start:.1f} s + {line.slope:.3g} s each"
            axis.plot(ends, line.start + line.slope * ends, color="#d1495b", lw=1, label=text)
            axis.legend(frameon=False)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(xlabel=what, ylabel="wall-clock time (s)", title=fixed, xlim=(0, None), ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def parser() -> argparse.ArgumentParser:
    """The options."""
    own = argparse.ArgumentParser(description=__doc__)
    own.add_argument("--particles", type=int, nargs="+", default=[50, 100, 200], help="numbers of particles")
    own.add_argument("--structures", type=int, nargs="+", default=[1, 2, 4], help="numbers of structures")
    own.add_argument("--box", type=int, default=64, help="pixels; the box is 190 Å wide")
    own.add_argument("--snr", type=float, default=0.05, help="variance of the signal over that of the noise")
    own.add_argument("--settings", nargs="+", choices=(GRID, DEFAULTS), default=[GRID, DEFAULTS], help="samplings")
    own.add_argument("--search", choices=get("likelihood", "search").choices, help="default: the program's own")
    own.add_argument("--threads", type=int, help="default: all cores")
    own.add_argument("--timeout", type=float, default=20000.0, help="seconds that a run may take")
    own.add_argument("--plot", type=Path, metavar="FILE", help="PNG of time against particles and structures")
    own.add_argument("--profile", action="store_true", help="add the stages of a run of the fewest particles")
    own.add_argument("--data", type=Path, metavar="DIR", help="folder that keeps the simulated particles for the next time")
    return own


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    options = parser().parse_args(arguments)
    most, fewest = max(options.particles), min(options.particles)
    with TemporaryDirectory() as scratch:
        data = simulate(options.data or Path(scratch), most, options.box, max(*options.structures, 2), options.snr)
        out = Path(scratch) / "out"
        fixed = (options.threads, options.search, options.timeout)
        cases = [(count, _SWEPT_STRUCTURES, setting) for setting in options.settings for count in options.particles]
        if GRID in options.settings:
            cases += [(fewest, number, GRID) for number in options.structures if number != _SWEPT_STRUCTURES]
        print_machine()
        print(
            f"`likelihood` on simulated particles of {options.box} pixels at {data.pixel:.3g} Å, SNR {options.snr:g}; search "
            f"{options.search or get('likelihood', 'search').default}; {options.threads or available_threads()} threads; "
            "each row one process, start to end.\n"
        )
        runs, failed = [], []
        for count, structures, setting in cases:
            try:
                runs.append(run_once(data, out, count, structures, setting, *fixed))
            except TimeoutError as error:
                failed.append(f"{count} particles, {structures} structures, {_SAMPLING[setting]}: {error}.")
        print("\n".join([table(runs), "", *failed]))
        if any(run.setting == GRID for run in runs):
            print(describe_lines(runs))
            if options.plot:
                plot(runs, options.plot)
        if options.profile:
            for setting in options.settings:
                print(f"\n{fewest} particles, {_SWEPT_STRUCTURES} structures, sampling {_SAMPLING[setting]}:\n")
                given = search_options(data, setting) | {"search": options.search, "threads": options.threads}
                print(profile_table(data, Path(scratch) / f"profile_{setting == GRID}", fewest, _SWEPT_STRUCTURES, given))


if __name__ == "__main__":
    main()
