"""One structure as map, sharpened map, map in another box, and atomic model, each against a different structure, on the same
particles: how often particles go to their own structure. Prints a table in Markdown.

    python benchmarks/fairness.py --out fairness

With --match-amplitudes every form should win at the same rate; the exit status is 1 where one lies more than 2 % off.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion import engine  # noqa: E402
from cryolike_scipion.engine.results import load_results  # noqa: E402
from cryolike_scipion.tests.structure_origins import FORMS, particles_of_both, rates, write_forms  # noqa: E402

WITHIN = 0.02


def measure(folder, count, snr, resolution, matched):
    """Rates [forms], and median change of the log-odds (nat) from those of the map [forms]."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_forms(folder)
    star, truth = particles_of_both(folder, paths, count, snr=snr, max_shift=4.0, resolution=resolution)
    out = folder / ("matched" if matched else "plain")
    engine.run(
        "likelihood", particles=[str(star)], structures=paths, out=str(out), resolution=resolution, max_shift=6.0,
        match_amplitudes=matched,
    )  # fmt: skip
    logs = load_results(out).integrated
    odds = logs[:-1] - logs[-1]
    return rates(logs, truth), np.median(np.abs(odds - odds[0]), axis=1)


def main():
    """Measure with and without matching; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="particles, half of them of each structure")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--resolution", type=float, default=10.0, help="Å")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(f"| amplitudes | {' | '.join(FORMS)} | log-odds off those of the map, median |\n|---|---|---|---|---|---|")
    for matched in (False, True):
        found, off = measure(given.out, given.count, given.snr, given.resolution, matched)
        shares = " | ".join(f"{100 * one:.1f} %" for one in found)
        name = "matched" if matched else "as they are"
        print(f"| {name} | {shares} | {', '.join(f'{one:.2f}' for one in off[1:])} nat |", flush=True)
    return 0 if np.abs(found - found[0]).max() <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(main())
