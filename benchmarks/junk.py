"""How well scores tell junk from particles: areas under the curve, and real particles beside phase-randomised decoys.

    python benchmarks/junk.py --out junk --data ../shared/data

Simulated particles of two structures in a small box against noise, an edge of carbon, another molecule, and two particles in
one frame. With --data also real particles (`ribosome_real`, `trpv1_real`), which are searched under their own map and under a
decoy of the same amplitudes with random phases. The exit status is 1 where noise has an area below 0.97.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion import engine  # noqa: E402
from cryolike_scipion.engine.results import load_results  # noqa: E402
from cryolike_scipion.tests.junk_images import KINDS, area_under_curve, junk_set  # noqa: E402
from cryolike_scipion.tests.small_sets import write_maps  # noqa: E402
from cryolike_scipion.tests.truth import phase_randomised  # noqa: E402

NAMES = {"noise": "pure noise, an empty frame", "edge": "edge of carbon", "other": "another molecule", "two": "two particles"}
BOUND = 0.97  # of noise


def simulated(folder, particles, each, snr, resolution):
    """Areas of every kind of junk: of logRatioZ and of logLikelihood."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = write_maps(folder)
    star, kinds = junk_set(folder / "set", maps, particles, each, snr)
    engine.run(
        "likelihood", particles=[str(star)], structures=maps, out=str(folder / "scores"), resolution=resolution, max_shift=8.0,
        no_report=True,
    )  # fmt: skip
    results = load_results(folder / "scores")
    scores = results.log_ratio_z, results.of_best("integrated")
    good = kinds == "particle"
    return {kind: [area_under_curve(one[good], one[kinds == kind]) for one in scores] for kind in KINDS}


def real(folder, name, particles, maps, **options):
    """Print log-likelihoods of every particle under its maps and under their decoys; return how much the best map is ahead."""
    folder.mkdir(parents=True, exist_ok=True)
    decoys = [folder / f"decoy_{seed}.mrc" for seed in range(len(maps))]
    for seed, (source, target) in enumerate(zip(maps, decoys)):
        phase_randomised(source, target, seed)
    structures = [str(path) for path in [*maps, *decoys]]
    engine.run(
        "likelihood", particles=[str(particles)], structures=structures, out=str(folder / "scores"), no_report=True, **options,
    )  # fmt: skip
    logs = load_results(folder / "scores").integrated
    own, other = logs[: len(maps)].max(axis=0), logs[len(maps) :].max(axis=0)
    print(
        f"| {name} | {len(own)} | {np.median(own):.1f} | {np.median(other):.1f} | {np.median(own - other):+.1f} | "
        f"{(own > other).sum()} | {area_under_curve(own, other):.2f} |",
        flush=True,
    )
    return own - other


def main():
    """Print the tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--each", type=int, default=100, help="images of each kind of junk")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--resolution", type=float, default=14.0, help="Å")
    parser.add_argument("--data", type=Path, help="folder of the development data")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    areas = simulated(given.out / "simulated", given.particles, given.each, given.snr, given.resolution)
    print("| junk | area by logRatioZ | by logLikelihood |\n|---|---|---|")
    for kind, (z, ratio) in areas.items():
        print(f"| {NAMES[kind]} | {z:.3f} | {ratio:.3f} |", flush=True)
    if given.data:
        print("\n| real particles | number | nat, map | nat, decoy | map ahead, median | map ahead of decoy | area |")
        print("|---|---|---|---|---|---|---|")
        trpv1, ribosome, maps = given.data / "trpv1_real", given.data / "ribosome_real", given.data / "two_state"
        real(given.out / "trpv1", "TRPV1", trpv1 / "particles.star", [trpv1 / "map.mrc"], symmetry=["C4"], max_shift=20.0)
        real(
            given.out / "ribosome", "ribosomes", ribosome / "empiar_10076_7.star",
            [maps / f"50S_state_{state}.mrc" for state in "DE"], invert=True, max_shift=40.0,
        )  # fmt: skip
    return 0 if areas["noise"][0] >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
