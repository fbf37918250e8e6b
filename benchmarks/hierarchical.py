"""The hierarchical search against the exhaustive one of the same grid: how far apart their answers are, and their times.

By default on simulated particles of two structures, with views every 3.8° and shifts every pixel within ±6 pixels; with
``--star`` on particles given. Both searches use the same scale prior, learned from the particles, in single precision, and
are timed in as many processes after templates and conversion. Poses are those of the grid, not refined.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import markdown, print_machine
from particles import simulate
from searching import Case, Found, Searches

from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.compute import available_threads
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.parameters import get

_CLOSE, _TIE = 0.02, 0.01  # nat
_NEAR_DEG = 15.0
_SHIFT_PIXELS = 6.0
_QUICK, _FULL = ((0.05,), 16), ((0.02, 0.05, 0.2), 500)  # SNRs, particles of each


@dataclass(frozen=True)
class Truth:
    """What particles show: ``structure`` int64 [M] from 0, ``rotation`` float64 [M, 3, 3] or None."""

    structure: np.ndarray
    rotation: np.ndarray | None


@dataclass(frozen=True)
class Closeness:
    """How near a search comes to the exhaustive one over some (particle, structure) pairs.

    Attributes
    ----------
    pairs : how many.
    within : share with \\|Δ\\| <= 0.02 nat, Δ the difference of the integrated log-likelihoods.
    median, high, worst : of \\|Δ\\|: median, 99th percentile and largest, nat.
    reported, real : root mean square of the reported standard error, and of Δ, nat.
    best_pose : share whose best pose scores as high, or higher, within 0.01 nat.
    rows : share of the grid's rows that were summed at full band.
    """

    pairs: int
    within: float
    median: float
    high: float
    worst: float
    reported: float
    real: float
    best_pose: float
    rows: float


@dataclass(frozen=True)
class Quality:
    """Against the truth: share of right structures, median pose error (degrees), share of poses within 15°; None: unknown."""

    structures: float | None
    pose_error: float | None
    near: float | None


def read_truth(path: Path, rows: np.ndarray) -> Truth:
    """The truth of some rows (from 0) of a file; a file without classes is of the first structure."""
    known = read_particles([path]).take(rows)
    rotation = matrix_from_euler(known.rot, known.tilt, known.psi) if known.has_pose else None
    return Truth(np.maximum(known.class_number, 1) - 1, rotation)


def closeness(found: Found, exhaustive: Found, pairs: np.ndarray, grid_rows: np.ndarray) -> Closeness:
    """Compare the pairs chosen, bool [K, M]; ``grid_rows`` [K] in all.

    Raises
    ------
    ValueError
        If there is no pair.
    """
    if not pairs.any():
        raise ValueError("no pair to compare")
    difference = np.abs(found.log - exhaustive.log)[pairs]
    return Closeness(
        len(difference),
        float((difference <= _CLOSE).mean()),
        float(np.median(difference)),
        float(np.quantile(difference, 0.99)),
        float(difference.max()),
        float(np.sqrt((found.error[pairs] ** 2).mean())),
        float(np.sqrt((difference**2).mean())),
        float((found.best >= exhaustive.best - _TIE)[pairs].mean()),
        float((found.rows / grid_rows[:, None])[pairs].mean()),
    )


def same_structure(found: Found, exhaustive: Found) -> float:
    """Share of particles with the same best structure; structures within 0.01 nat of the best are as good."""
    chosen = found.log.argmax(axis=0)
    return float((exhaustive.log[chosen, np.arange(len(chosen))] >= exhaustive.log.max(axis=0) - _TIE).mean())


def quality(found: Found, truth: Truth | None, groups: Sequence[str]) -> Quality:
    """Compare with the truth; ``groups`` are the symmetries of the structures. Poses are those under the own structure."""
    if truth is None:
        return Quality(None, None, None)
    offered = np.flatnonzero(truth.structure < len(found.log))
    own = truth.structure[offered]
    right = float((found.log.argmax(axis=0)[offered] == own).mean()) if len(found.log) > 1 else None
    if truth.rotation is None:
        return Quality(right, None, None)
    error = np.zeros(len(offered))
    for k, group in enumerate(groups):
        mine = offered[own == k]
        error[own == k] = distance_deg(found.rotation[k, mine], truth.rotation[mine], symmetry.rotations(group))
    return Quality(right, float(np.median(error)), float((error < _NEAR_DEG).mean()))


class Measured:
    """All that is measured of one case.

    Parameters
    ----------
    case : Case
    count : particles.
    threads : worker threads.
    step_deg : between views.
    shift_step : Å; None is the pixel.
    finer : also search with the program's own first grid and its finer levels.
    """

    def __init__(self, case: Case, count: int, threads: int, step_deg: float, shift_step: float | None, finer: bool) -> None:
        pixel = max(group.pixel_size for group in read_particles([case.particles]).optics)
        searches = Searches(case, count, threads, angular_step=step_deg, shift_step=shift_step or pixel, levels=0)
        setup = searches.setup
        self.case, self.rows, self.grid_rows = case, searches.rows, searches.grid_rows
        self.grid = f"{_numbers(len(t) for t in setup.tables)} × {len(setup.shifts)}"
        self.reference = searches.reference_seconds()
        self.exhaustive, self.hierarchical = searches.exhaustive(), searches.hierarchical()
        self.groups = [s.symmetry for s in setup.structures]
        self.truth = None if case.truth is None else read_truth(case.truth, setup.particles.row[self.rows] - 1)
        self.finer: Found | None = None
        self.finer_grid = ""
        if finer:
            own = Searches(case, count, threads, searches.priors)
            self.finer = own.hierarchical()
            self.finer_grid = f"{_numbers(len(t) for t in own.setup.tables)} × {len(own.setup.shifts)}"

    @property
    def right(self) -> np.ndarray:
        """Pairs of a particle and its own structure (without a truth: the exhaustive search's best), bool [K, M]."""
        own = self.exhaustive.log.argmax(axis=0) if self.truth is None else self.truth.structure
        return np.arange(len(self.groups))[:, None] == own


def closeness_table(measured: Sequence[Measured]) -> str:
    """Integrated log-likelihoods and best poses against the exhaustive search's, as a Markdown table."""
    header = (
        "set", "structures", "pairs", "within 0.02 nat", "median (nat)", "99 % (nat)", "largest (nat)",
        "standard error: reported (nat)", "real (nat)", "best pose equal or better", "rows at full band",
    )  # fmt: skip
    lines = []
    for m in measured:
        for name, pairs in (("right", m.right), ("wrong", ~m.right)):
            if not pairs.any():
                continue
            c = closeness(m.hierarchical, m.exhaustive, pairs, m.grid_rows)
            nats = (_nats(x) for x in (c.median, c.high, c.worst, c.reported, c.real))
            lines.append((m.case.name, name, c.pairs, _share(c.within), *nats, _share(c.best_pose), _share(c.rows)))
    return markdown(header, lines)


def speed_table(measured: Sequence[Measured]) -> str:
    """Times and agreement with the truth of all searches, as a Markdown table."""
    header = (
        "set", "search", "views × shifts", "ms per particle × structure", "exhaustive / this", "reference / this",
        "best structure as exhaustive", "structure accuracy", "pose error, median (°)", "within 15°",
    )  # fmt: skip
    lines: list[tuple[object, ...]] = []
    for m in measured:
        reference = 1e3 * m.reference * float(m.grid_rows.mean())
        us, slower = f"CryoLike's algorithm, {1e6 * m.reference:.2f} µs each", f"{m.exhaustive.ms / reference:.2g}"
        lines.append((m.case.name, us, m.grid, f"{reference:.3g}", slower, "1", "", "", "", ""))
        found = [("exhaustive", m.grid, m.exhaustive), ("hierarchical", m.grid, m.hierarchical)]
        if m.finer is not None:
            levels = get("likelihood", "levels").default
            found.append((f"hierarchical, own first grid, {levels} finer levels", m.finer_grid, m.finer))
        for name, grid, one in found:
            q = quality(one, m.truth, m.groups)
            ratios = f"{m.exhaustive.ms / one.ms:.3g}", f"{reference / one.ms:.3g}"
            same = _share(same_structure(one, m.exhaustive)) if one is m.hierarchical and len(m.groups) > 1 else ""
            poses = "" if q.pose_error is None else f"{q.pose_error:.2f}", _share(q.near)
            lines.append((m.case.name, name, grid, f"{one.ms:.3g}", *ratios, same, _share(q.structures), *poses))
    return markdown(header, lines)


def _nats(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-6 else "< 1e-6"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.4g} %"


def _numbers(values) -> str:
    """Different numbers, joined."""
    return " / ".join(f"{value:,}" for value in dict.fromkeys(values))


def given_case(options: argparse.Namespace) -> Case:
    """The set that ``--star`` names; its truth is looked for beside it."""
    star: Path = options.star
    beside = [star.with_name(f"{star.stem}_truth.star"), star.with_name("truth.star")]
    truth = options.truth or next((path for path in beside if path.exists()), None)
    return Case(star.stem, star, truth, tuple(options.structures), tuple(options.symmetry), options.max_shift)


def simulated_cases(options: argparse.Namespace, folder: Path, count: int, ratios: Sequence[float]) -> list[Case]:
    """Simulated sets, one per signal-to-noise ratio."""
    cases = []
    for snr in ratios:
        data = simulate(folder, count, options.box, snr=snr)
        reach = options.max_shift or _SHIFT_PIXELS * data.pixel
        name = f"{options.box} px, SNR {snr:g}"
        cases.append(Case(name, data.particles, data.truth, data.structures, max_shift=reach))
    return cases


def parser() -> argparse.ArgumentParser:
    """Options of this benchmark."""
    own = argparse.ArgumentParser(description=__doc__)
    own.add_argument("--full", action="store_true", help="the published settings: 500 particles at SNR 0.02, 0.05 and 0.2")
    own.add_argument("--snr", type=float, nargs="+", help="of the simulated sets")
    own.add_argument("--particles", type=int, help="of each set; of one given by --star, the first (default: all)")
    own.add_argument("--box", type=int, default=128, help="pixels of the simulated sets; the box is 190 Å wide")
    own.add_argument("--star", type=Path, metavar="FILE", help="search these particles instead of simulated ones")
    own.add_argument("--truth", type=Path, metavar="STAR", help="their truth (default: NAME_truth.star beside NAME.star)")
    own.add_argument("--structures", type=Path, nargs="+", metavar="FILE", help="against these")
    own.add_argument("--symmetry", nargs="+", default=["C1"], help="of the structures, one for all or one each")
    own.add_argument("--angular-step", type=float, default=3.8, metavar="DEG", help="degrees between views")
    own.add_argument("--shift-step", type=float, metavar="A", help="Å between shifts (default: the pixel)")
    own.add_argument("--max-shift", type=float, metavar="A", help="Å (default: 6 pixels of simulated sets; 10 %% of the box)")
    own.add_argument("--finer", action="store_true", help="add a search of the program's own first grid and finer levels")
    own.add_argument("--threads", type=int, default=available_threads(), help="default: all cores")
    own.add_argument("--data", type=Path, metavar="DIR", help="folder that keeps the simulated particles for the next time")
    return own


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    own = parser()
    options = own.parse_args(arguments)
    if bool(options.star) != bool(options.structures):
        own.error("--star and --structures go together")
    ratios, count = _FULL if options.full else _QUICK
    ratios, count = options.snr or ratios, options.particles or count
    with TemporaryDirectory() as scratch:
        if options.star:
            cases, count = [given_case(options)], options.particles or len(read_particles([options.star]))
        else:
            cases = simulated_cases(options, options.data or Path(scratch), count, ratios)
        fixed = (options.threads, options.angular_step, options.shift_step, options.finer)
        measured = [Measured(case, count, *fixed) for case in cases]
    print_machine()
    structures = ", ".join(f"{m.case.name}: {len(m.rows)} particles × {len(m.groups)} structures" for m in measured)
    print(
        f"{structures}; views every {options.angular_step:g}°, shifts every "
        f"{f'{options.shift_step:g} Å' if options.shift_step else 'pixel'}; {options.threads} processes; float32, templates "
        "made and images converted before. The reference was timed on a few images, views and shifts of the same set.\n"
    )
    print(closeness_table(measured) + "\n")
    print(speed_table(measured))


if __name__ == "__main__":
    main()
