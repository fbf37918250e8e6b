"""Are the probabilities what they claim to be? Simulated sets with known truth, reliability diagrams, and a table in Markdown.

    python benchmarks/calibration.py --out calibration            # the long run: 6 sets of 10,000 particles
    python benchmarks/calibration.py --count 1000 --snr 0.1 --structures 2 --out quick

Scale, offset and noise of every image are unknown to the program; the box is small. The exit status is 1 where a set of 10,000
or more particles misses a bound: |mean posterior - accuracy| <= 0.015, expected calibration error <= 0.025, and the 90 % region
of poses holds the true pose as often as it claims, within 0.02. Smaller sets are not judged, and the table says so.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion import engine  # noqa: E402
from cryolike_scipion.engine import report_page as page  # noqa: E402
from cryolike_scipion.engine.calibration import Reliability, pose_regions, reliability  # noqa: E402
from cryolike_scipion.engine.particles import read_particles  # noqa: E402
from cryolike_scipion.engine.results import load_results  # noqa: E402
from cryolike_scipion.engine.rotations import matrix_from_euler  # noqa: E402
from cryolike_scipion.engine.star_file import split_row  # noqa: E402
from cryolike_scipion.plots.reliability import diagram  # noqa: E402
from cryolike_scipion.tests.small_sets import write_maps  # noqa: E402

BOUNDS = {"gap": 0.015, "error": 0.025, "pose": 0.02}
DECISIVE = 10_000  # particles from which a bound counts
SCORING = {"levels": 2, "best_poses": 24}
WINDOW_DEG = 5.0


@dataclass(frozen=True)
class Case:
    """What one set showed: structures' posteriors, the mass near the best pose, and regions of poses."""

    snr: float
    structures: int
    count: int
    structure: Reliability
    near_best: Reliability
    region: Reliability

    @property
    def verdict(self):
        """Whether every bound holds: "holds", "fails", or "not judged" where the set is too small to tell."""
        if self.count < DECISIVE:
            return "not judged"
        within = (
            abs(self.structure.gap) <= BOUNDS["gap"]
            and self.structure.error <= BOUNDS["error"]
            and abs(self.region.gap) <= BOUNDS["pose"]
        )
        return "holds" if within else "fails"


def measure(folder, snr, structures, count, box=20, resolution=15.0, shift=3.0, seed=1, **scoring):
    """Simulate a set, score it, and compare claims with the truth."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    maps = write_maps(folder, structures, box=box)
    engine.run(
        "simulate", structures=maps, out=str(folder), count=count, snr=snr, resolution=resolution, max_shift=shift, seed=seed,
        scale_spread=0.1, offset_spread=0.1, defocus_max=12000.0,
    )  # fmt: skip
    engine.run(
        "likelihood", particles=[str(folder / "particles.star")], structures=maps, out=str(folder / "scores"),
        resolution=resolution, max_shift=float(np.sqrt(2) * shift), **{**SCORING, **scoring},
    )  # fmt: skip
    return judge(load_results(folder / "scores"), folder / "truth.star", snr)


def judge(results, truth, snr):
    """Compare a result with the truth's file."""
    particles, known = read_particles([truth]), true_structures(truth)
    count = len(known)
    own = known - 1, np.arange(count)
    rotation = matrix_from_euler(particles.rot, particles.tilt, particles.psi)
    origin = np.stack([particles.origin_x, particles.origin_y], axis=1)
    poses = results.extras["best_poses"].values[own]
    window = rotation, origin, "C1", WINDOW_DEG, results.parameters["posterior_shift"] * particles.optics[0].pixel_size
    _, near = pose_regions(poses, *window, level=1e-9)
    claimed, held = pose_regions(poses, *window)
    return Case(
        snr,
        len(results.structures),
        count,
        reliability(results.of_best("structure_posterior"), results.best_structure == known),
        reliability(results.pose_posterior[own], near),
        reliability(claimed, held),
    )


def true_structures(truth):
    """Structure of each particle, from 1."""
    lines = Path(truth).read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines[lines.index("data_particles") :] if line.startswith("_")]
    return np.array([int(split_row(line)[names.index("_rlnClassNumber")]) for line in lines if "@" in line])


def table(cases):
    """The figures in Markdown."""
    head = (
        "| SNR | structures | particles | mean posterior | accuracy | calibration error | 90 % pose region: claimed | held | "
        "posePosterior: claimed | held | bounds |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {c.snr:g} | {c.structures} | {c.count:,} | {c.structure.mean_claimed:.3f} | {c.structure.mean_observed:.3f} | "
        f"{c.structure.error:.3f} | {c.region.mean_claimed:.3f} | {c.region.mean_observed:.3f} | "
        f"{c.near_best.mean_claimed:.3f} | {c.near_best.mean_observed:.3f} | {c.verdict} |"
        for c in cases
    ]
    return "\n".join([head, *rows])


def write_report(path, cases):
    """A page with the reliability diagrams."""
    body = []
    for case in cases:
        title = f"SNR {case.snr:g}, {case.structures} structures, {case.count:,} particles"
        figures = [
            (diagram(case.structure, "posterior of the best structure"), "How often the best structure was the true one."),
            (diagram(case.near_best, "posePosterior"), "How often the best pose of the true structure was near the true one."),
            (diagram(case.region, "probability of the region"), "How often the 90 % region of poses held the true one."),
        ]
        body.append(page.section(title, page.plots(figures)))
    lead = "Probabilities against how often they came true; calibrated ones lie on the diagonal."
    Path(path).write_text(page.page("Calibration", lead, body), encoding="utf-8")


def main():
    """Measure all sets; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=DECISIVE)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--structures", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--resolution", type=float, default=15.0, help="Å")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cases = []
    for structures in given.structures:
        for snr in given.snr:
            folder = given.out / f"snr_{snr:g}_structures_{structures}"
            cases.append(measure(folder, snr, structures, given.count, resolution=given.resolution))
            write_report(given.out / "calibration.html", cases)
    print(table(cases))
    if any(case.verdict == "not judged" for case in cases):
        print(f"\nSets of fewer than {DECISIVE:,} particles are not judged.")
    return 1 if any(case.verdict == "fails" for case in cases) else 0


if __name__ == "__main__":
    sys.exit(main())
