"""The sum over poses has converged: a default run against every pose of a grid four times finer in views, turns and shifts."""

import numpy as np

from .finer_grid import compare_with_finer


def test_a_default_run_agrees_with_a_grid_four_times_finer(tmp_path, no_report):
    """C4, so that the fine grid has a quarter of the views; `benchmarks/convergence.py` measures more, without symmetry."""
    found = compare_with_finer(tmp_path, snr=0.1, count=5, symmetry="C4")
    off = np.abs([found.own, found.other, found.odds])
    print(np.median(off, axis=1), off.max(axis=1))
    assert np.median(off, axis=1).max() <= 0.05
    assert off.max() <= 0.3
    # What the run says of its own error is of the size of the real one.
    said = np.sqrt((found.change**2 + found.error**2).mean())
    assert said > 0.2 * np.sqrt((off[:2] ** 2).mean())
