"""Has the sum over poses converged? A run's integrated log-likelihoods against an exhaustive grid four times finer in every
dimension (views, in-plane angle, shifts), and the run's own error estimates against the real error. Prints a table in Markdown.

    python benchmarks/convergence.py --out convergence
    python benchmarks/convergence.py --snr 0.1 --particles 10 --out quick

Particles of two structures are simulated in a small box, where every pose of the fine grid can be summed. The exit status is 1
where the median of |Δ| is above 0.05 nat or its 95th percentile above 0.3 nat, for the structures or for their difference.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion.tests.finer_grid import compare_with_finer  # noqa: E402

MEDIAN, HIGH = 0.05, 0.3  # nat


def table(found):
    """The figures in Markdown: of the particle's own structure, of the other one, and of the log-odds between them."""
    lines = [
        "| SNR | particles | of | mean Δ | median of abs Δ | 95 % | said: change, median | error, rms | real, rms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for snr, one in found.items():
        reported = f"{np.median(np.abs(one.change)):.3f} | {np.sqrt((one.error**2).mean()):.3f}"
        for name in ("own", "other", "odds"):
            off = getattr(one, name)
            lines.append(
                f"| {snr:g} | {len(off)} | {name} | {off.mean():+.3f} | {np.median(np.abs(off)):.3f} | "
                f"{np.quantile(np.abs(off), 0.95):.3f} | {reported} | {np.sqrt((off**2).mean()):.3f} |"
            )
    return "\n".join(lines)


def holds(one):
    """Whether medians and 95th percentiles are within the bounds."""
    off = np.abs([one.own, one.other, one.odds])
    return bool((np.median(off, axis=1) <= MEDIAN).all() and (np.quantile(off, 0.95, axis=1) <= HIGH).all())


def main():
    """Score, compare, print the table, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--particles", type=int, default=40)
    parser.add_argument("--box", type=int, default=20, help="pixels")
    parser.add_argument("--resolution", type=float, default=18.0, help="Å")
    parser.add_argument("--shift", type=float, default=3.0, help="Å, largest along x and y")
    parser.add_argument("--symmetry", default="C1", help="of both structures")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = {}
    for snr in given.snr:
        folder = given.out / f"snr_{snr:g}"
        found[snr] = compare_with_finer(
            folder, snr, given.particles, given.box, given.resolution, given.shift, symmetry=given.symmetry
        )
        print(table({snr: found[snr]}), file=sys.stderr, flush=True)
    print(table(found))
    return 0 if all(holds(one) for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
