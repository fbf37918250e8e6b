"""Structure accuracy with contrast and noise known, with the learned contrast prior and with a flat one, on the same poses.

    python benchmarks/known_scale.py --data ../shared/data/two_state --out known_scale

The data are particles simulated from two maps, ``50S_state_D.mrc`` and ``50S_state_E.mrc``, with white noise of unit variance:
``two_state.star`` without poses and ``two_state_truth.star`` with them. By default 3,072 views (3.7°) and shifts of one pixel,
neither divided nor refined, as a coarse sampling decides the answer; some minutes. The exit status is 1 where the learned prior
lies more than 0.01 below the exact model.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion.engine.particles import read_particles  # noqa: E402
from cryolike_scipion.tests.exact_model import compare_scales  # noqa: E402

NAMES = {"exact": "contrast and noise known", "learned": "learned", "free": "flat"}
WITHIN = 0.01


def table(found, truth):
    """The figures in Markdown; decisions paired with those of the exact model."""
    lines = [
        "| contrast | structure accuracy | less than the exact model | mean posterior | decided otherwise, right : wrong |",
        "|---|---|---|---|---|",
    ]
    exact = found["exact"].integrated.argmax(axis=0)
    for kind, one in found.items():
        chosen = one.integrated.argmax(axis=0)
        other = chosen != exact
        gained, lost = int((other & (chosen == truth)).sum()), int((other & (exact == truth)).sum())
        error = np.sqrt(gained + lost) / len(truth)
        lines.append(
            f"| {NAMES[kind]} | {one.accuracy:.4f} | {found['exact'].accuracy - one.accuracy:+.4f} ± {error:.4f} | "
            f"{one.claimed:.4f} | {gained} : {lost} |"
        )
    return "\n".join(lines)


def main():
    """Score, print the table, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--angular-step", type=float, default=3.7, help="degrees")
    parser.add_argument("--shift-step", type=float, default=13.1, help="Å")
    parser.add_argument("--max-shift", type=float, default=47.0, help="Å")
    parser.add_argument("--count", type=int, default=600, help="particles")
    given = parser.parse_args()
    truth = read_particles([given.data / "two_state_truth.star"]).class_number[: given.count] - 1
    found = compare_scales(
        given.out, given.data / "two_state.star", given.data / "two_state_truth.star",
        [given.data / f"50S_state_{state}.mrc" for state in "DE"], truth, noise_variance=1.0, rows=f"1:{given.count}",
        angular_step=given.angular_step, shift_step=given.shift_step, max_shift=given.max_shift,
    )  # fmt: skip
    print(table(found, truth))
    return 1 if found["learned"].accuracy < found["exact"].accuracy - WITHIN else 0


if __name__ == "__main__":
    sys.exit(main())
