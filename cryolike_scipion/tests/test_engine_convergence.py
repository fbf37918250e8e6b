"""The sum over poses has converged: a default run against every pose of a grid four times finer in views, turns and shifts."""

import numpy as np

from .finer_grid import compare_with_finer
from .small_sets import score, simulate, write_maps


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


def test_scores_of_a_symmetric_structure_do_not_depend_on_the_search_of_its_asymmetric_unit(tmp_path, no_report):
    """Searched as C4 and as C1, whose grids have other views: apart by what the sums over poses are uncertain by."""
    maps = write_maps(tmp_path, 1, symmetry="C4", count=5)
    simulate(tmp_path, maps, count=8, symmetry=["C4"], snr=0.1, max_shift=3.0, resolution=16.0)
    options = {"levels": 2, "resolution": 16.0, "max_shift": 4.5, "angular_step": None}
    unit = score(tmp_path / "c4", tmp_path / "truth.star", maps, symmetry=["C4"], **options)
    whole = score(tmp_path / "c1", tmp_path / "truth.star", maps, **options)
    off = np.abs(unit.integrated - whole.integrated)
    assert np.median(off) < 0.04 and off.max() < 0.1
