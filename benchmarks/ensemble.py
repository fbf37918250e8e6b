"""Populations: how often 95 % intervals hold the truth, and how long the largest problem takes. Prints tables in Markdown.

    python benchmarks/ensemble.py --repeats 1000

Particles are points with normal noise about their structure's own, so that their likelihoods are exact; every repeat draws new
ones.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryolike_scipion.engine.ensemble import estimate  # noqa: E402
from cryolike_scipion.engine.mixture import Mixture, maximise  # noqa: E402
from cryolike_scipion.engine.mixture_posterior import sample_posterior  # noqa: E402
from cryolike_scipion.tests.mixtures import centres, mixture_of, shares  # noqa: E402


def coverage(structures, first, repeats, particles=1000, spread=1.0, seed=1):
    """Share of intervals that hold the truth, over repeats and structures, and its standard error from the repeats."""
    truth, points, rng = shares(structures, first), centres(structures, spread, seed), np.random.default_rng(seed)
    held = np.empty((repeats, structures))
    for i in range(repeats):
        mixture = Mixture.of(mixture_of(points, truth, particles, rng)[0])
        low, high = sample_posterior(mixture, maximise(mixture), 0.5, rng).interval()
        held[i] = (low <= truth) & (truth <= high)
    each = held.mean(axis=1)
    return held.mean(), each.std() / np.sqrt(repeats)


def largest(structures=1000, particles=100_000):
    """Seconds of wall clock and of the processors for populations, posterior and bootstrap of the largest problem."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(structures, 0.5))
    values, _ = mixture_of(centres(structures, 1.2, 0), truth, particles, rng)
    began, worked = time.perf_counter(), time.process_time()
    found = estimate(values)
    held = (found.interval[0] <= truth) & (truth <= found.interval[1])
    return time.perf_counter() - began, time.process_time() - worked, held.mean()


def main():
    """Print the tables; return 1 where a coverage lies outside 93 to 97 % by more than two standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--structures", type=int, nargs="+", default=[2, 5, 20])
    parser.add_argument("--largest", action="store_true", help="also time 1,000 structures x 100,000 particles")
    given = parser.parse_args()
    print("| structures | first population | intervals that hold the truth |\n|---|---|---|")
    fails = False
    for structures in given.structures:
        for first in (0.5, 0.8, 0.95):
            share, error = coverage(structures, first, given.repeats)
            fails |= not 0.93 - 2 * error <= share <= 0.97 + 2 * error
            print(f"| {structures} | {100 * first:g} % | {100 * share:.1f} ± {100 * error:.1f} % |", flush=True)
    if given.largest:
        wall, worked, share = largest()
        print(
            f"\n1,000 structures x 100,000 particles: {wall:.0f} s, {worked:.0f} s of the processors; {100 * share:.1f} % held"
        )
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
