"""Beside RELION: its 3D classification's first E-step and our search on the same particles, and half maps from our poses.

``relion_project`` simulates particles of two structures; both programs get the same images, references, resolution limit and
range of shifts, and search all orientations. ``relion_reconstruct`` then makes half maps of each structure from the true
poses, from ours and from RELION's, and ``relion_refine`` goes on from our classes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import Usage, cryolike, markdown, measure, print_machine
from relion_data import DIAMETER, Simulation, fsc, half_maps, missing_programs, relion, resolution, simulate

from cryolike_scipion.engine.compute import available_threads
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import Particles, read_particles
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

TOLERANCE = 0.05  # of the resolution from the true poses
FINER = 0.8  # of the resolution to which what RELION refines agrees with the wrong structure
_NEAR_DEG = 15.0
_SHIFT_PIXELS = 5
_SURE = 0.5  # posterior above which a particle goes to the refinement of its structure


@dataclass(frozen=True)
class Answer:
    """What a program found, against the truth.

    Attributes
    ----------
    accuracy : fraction of particles given to their structure.
    pose_error : degrees, median.
    near : fraction of poses within 15°.
    shift_error : pixels, median.
    """

    accuracy: float
    pose_error: float
    near: float
    shift_error: float


@dataclass(frozen=True)
class Line:
    """A line of the table: how many particles a program searched, what it used, and what it found of those both searched."""

    particles: int
    usage: Usage
    answer: Answer


@dataclass(frozen=True)
class Proof:
    """Resolution (Å, half maps at 0.143) of each structure from the true poses, from ours and from RELION's E-step."""

    truth: tuple[float, float]
    ours: tuple[float, float]
    relions: tuple[float, float] | None

    @property
    def holds(self) -> bool:
        """Whether the resolution from our poses is within 5 % of that from the true ones."""
        return all(mine <= right * (1 + TOLERANCE) for mine, right in zip(self.ours, self.truth))


def compare(found: Particles, truth: Particles) -> Answer:
    """Compare poses and classes, particle by particle: rows are joined by their image names."""
    place = {name: i for i, name in enumerate(truth.image_names())}
    right = truth.take([place[name] for name in found.image_names()])
    one, other = (matrix_from_euler(p.rot, p.tilt, p.psi) for p in (found, right))
    error = distance_deg(one, other)
    shift = np.hypot(found.origin_x - right.origin_x, found.origin_y - right.origin_y) / right.pixel_size
    return Answer(
        float((found.class_number == right.class_number).mean()),
        float(np.median(error)),
        float((error < _NEAR_DEG).mean()),
        float(np.median(shift)),
    )


def our_command(data: Simulation, out: Path, limit: float, threads: int) -> list[str]:
    """The run of ``likelihood``."""
    return cryolike(
        "likelihood",
        particles=data.particles,
        structures=list(data.maps),
        resolution=limit,
        max_shift=f"{_SHIFT_PIXELS * data.pixel:g}",
        assigned_above=_SURE,
        threads=threads,
        out=out,
    )


def relion_arguments(data: Simulation, star: str, out: str, limit: float, threads: int) -> list[object]:
    """One iteration of 3D classification: all orientations, every 7.5° and then 3.75°, shifts of 2 pixels and then 1."""
    return [
        *("--i", star, "--ref", data.references.name, "--o", out),
        *("--ctf", "--ctf_corrected_ref", "--iter", 1, "--tau2_fudge", 4, "--ini_high", limit, "--particle_diameter", DIAMETER),
        *("--healpix_order", 2, "--oversampling", 1, "--offset_range", _SHIFT_PIXELS, "--offset_step", 2),
        *("--flatten_solvent", "--zero_mask", "--dont_check_norm", "--pool", 30, "--j", threads),
    ]


def proof(data: Simulation, ours: Path, relions: Path | None) -> Proof:
    """Half maps of both structures from three sets of poses, and their resolutions."""

    def resolutions(star: Path, stem: str) -> tuple[float, float]:
        first, second = (resolution(*fsc(*half_maps(data, star, k, stem))) for k in (1, 2))
        return first, second

    return Proof(
        resolutions(data.truth, "truth"),
        resolutions(ours, "ours"),
        resolutions(relions, "relion") if relions is not None else None,
    )


def go_on(data: Simulation, out: Path) -> list[float]:
    """Let ``relion_refine`` take an iteration from our poses of each structure's own particles, starting from the other map.

    Returns the correlation by shells of what comes out with the structure, and with the other, at 0.5: Å each.
    """
    found = []
    for k in (1, 2):
        (data.folder / "refine").mkdir(exist_ok=True)
        star, stem = out.resolve() / "assigned" / f"{k:03d}.star", f"refine/class{k}"
        common = (
            "--ctf",
            "--ctf_corrected_ref",
            "--skip_align",
            "--iter",
            1,
            "--tau2_fudge",
            4,
            "--particle_diameter",
            DIAMETER,
            "--j",
            1,
        )
        wrong = data.maps[2 - k].name
        relion("refine", "--i", star, "--ref", wrong, "--ini_high", 20, "--o", stem, *common, folder=data.folder)
        mine = data.folder / f"{stem}_it001_class001.mrc"
        found += [resolution(*fsc(mine, data.maps[j]), threshold=0.5) for j in (k - 1, 2 - k)]
    return found


def learned_its_own(found: list[float]) -> bool:
    """Whether both refinements agree with their own structure to much finer detail than with the map they started from."""
    right_1, wrong_1, right_2, wrong_2 = found
    return right_1 < FINER * wrong_1 and right_2 < FINER * wrong_2


def side_by_side(ours: Line, relions: Line) -> str:
    """Both programs as a Markdown table; times per particle also as a ratio, because the machine may do other work."""
    header = ("", "particles", "wall (s)", "CPU (s)", "CPU per particle, ratio", "structure accuracy", "pose error, median (°)",
              "within 15°", "shift error, median (px)")  # fmt: skip
    each = relions.usage.cpu / relions.particles
    rows = [
        (
            name,
            line.particles,
            f"{line.usage.wall:.0f}",
            f"{line.usage.cpu:.0f}",
            f"{line.usage.cpu / line.particles / each:.2f}",
            f"{line.answer.accuracy:.4f}",
            f"{line.answer.pose_error:.2f}",
            f"{line.answer.near:.4f}",
            f"{line.answer.shift_error:.2f}",
        )
        for name, line in (("cryolike-scipion, hierarchical", ours), ("RELION, one iteration", relions))
    ]
    return markdown(header, rows)


def proof_table(found: Proof) -> str:
    """The resolutions as a Markdown table."""
    rows = [
        (
            k,
            f"{found.truth[k - 1]:.2f}",
            f"{found.ours[k - 1]:.2f}",
            f"{100 * (found.ours[k - 1] / found.truth[k - 1] - 1):+.1f} %",
            f"{found.relions[k - 1]:.2f}" if found.relions is not None else "",
        )
        for k in (1, 2)
    ]
    return markdown(("structure", "true poses (Å)", "our poses (Å)", "difference", "RELION's E-step (Å)"), rows)


def _printed(command: list[object]) -> str:
    words = ["cryolike-scipion" if i == 0 else str(word) for i, word in enumerate(command) if i not in (1, 2)]
    return shlex.join(words)


def parser() -> argparse.ArgumentParser:
    """The options."""
    own = argparse.ArgumentParser(description=__doc__)
    own.add_argument("--count", type=int, default=100, help="particles")
    own.add_argument("--box", type=int, default=64, help="pixels; the box is 190 Å wide")
    own.add_argument("--snr", type=float, default=0.1, help="variance of the signal over that of the noise")
    own.add_argument("--resolution", type=float, default=None, help="Å; default: Nyquist")
    own.add_argument("--threads", type=int, default=available_threads(), help="of each program")
    own.add_argument("--folder", type=Path, help="keep everything there; what is finished is taken as it is")
    own.add_argument("--relion-count", type=int, help="RELION searches only the first so many particles; 0: none")
    own.add_argument("--skip-missing", action="store_true", help="exit status 0 where RELION is not installed")
    return own


def run(folder: Path, given: argparse.Namespace) -> bool:
    """Print the tables; whether the resolution from our poses is within 5 %, and RELION goes on to the right structures."""
    data = simulate(folder, given.count, given.box, given.snr)
    truth = read_particles([data.truth], root=folder)
    limit = given.resolution or round(2 * data.pixel, 2)
    out = folder / "ours"
    command = our_command(data, out, limit, given.threads)
    ours = measure(command)
    star, relions = out / "particles.star", None
    print(f"\n`{_printed(list(command))}`\n", flush=True)
    count = given.count if given.relion_count is None else given.relion_count
    if count:
        (folder / "run").mkdir(exist_ok=True)
        given_particles = read_particles([data.particles], root=folder)
        write_particles(folder / "searched.star", given_particles.take(np.arange(count)), {})
        arguments = relion_arguments(data, "searched.star", "run/class3d", limit, given.threads)
        usage = relion("refine", *arguments, folder=folder)
        relions = folder / "run" / "class3d_it001_data.star"
        both = read_particles([star]).take(np.arange(count))
        lines = (
            Line(given.count, ours, compare(both, truth)),
            Line(count, usage, compare(read_particles([relions], root=folder), truth)),
        )
        print(f"`relion_refine {shlex.join(map(str, arguments))}`\n")
        print(side_by_side(*lines) + "\n", flush=True)
    answer = compare(read_particles([star]), truth)
    print(f"All {given.count} particles in {ours.wall:.0f} s ({ours.cpu:.0f} s CPU): structure accuracy {answer.accuracy:.4f}, "
          f"pose error {answer.pose_error:.2f}° median, {answer.near:.4f} within 15°.\n")  # fmt: skip
    relions = relions if count == given.count else None  # half maps of fewer particles would not compare
    found = proof(data, star, relions)
    print(proof_table(found) + "\n", flush=True)
    refined = go_on(data, out)
    right_1, wrong_1, right_2, wrong_2 = refined
    print(
        "`relion_refine --skip_align` from our classes, each started from the other structure's map at 20 Å: agrees with its "
        f"own structure to {right_1:.1f} and {right_2:.1f} Å (0.5), with the other to {wrong_1:.1f} and {wrong_2:.1f} Å."
    )
    holds, goes_on = found.holds, learned_its_own(refined)
    words = {True: "yes", False: "NO"}
    print(f"\nHalf maps within {TOLERANCE:.0%}: {words[holds]}; RELION goes on to the right structures: {words[goes_on]}.")
    return holds and goes_on


def main() -> int:
    """Run the benchmark; 1 where the proof does not hold, 2 where RELION is missing."""
    given = parser().parse_args()
    missing = missing_programs()
    if missing:
        print(f"not installed: {', '.join(missing)}; nothing was measured")
        return 0 if given.skip_missing else 2
    print_machine()
    print(f"{given.count} particles of two structures, {given.box} px, SNR {given.snr:g}, {given.threads} threads.", flush=True)
    if given.folder is not None:
        return 0 if run(given.folder, given) else 1
    with TemporaryDirectory() as folder:
        return 0 if run(Path(folder), given) else 1


if __name__ == "__main__":
    sys.exit(main())
