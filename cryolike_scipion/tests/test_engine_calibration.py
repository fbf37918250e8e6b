"""How calibration is measured; `make calibration` measures the engine's."""

import numpy as np
import pytest

from cryolike_scipion.engine.calibration import pose_regions, reliability
from cryolike_scipion.engine.rotations import matrix_from_euler


def test_calibrated_claims_have_no_gap_and_over_confident_ones_do():
    rng = np.random.default_rng(1)
    claimed = rng.uniform(0.5, 1.0, 20000)
    fair = reliability(claimed, rng.uniform(size=20000) < claimed)
    assert abs(fair.gap) < 3 * fair.gap_error < 0.011
    assert fair.error < 0.02 and len(fair.count) == 10 and fair.count.sum() == 20000
    bold = reliability(claimed, rng.uniform(size=20000) < claimed - 0.1)
    assert bold.gap == pytest.approx(0.1, abs=0.01) and bold.error == pytest.approx(0.1, abs=0.01)


def test_errors_that_cancel_on_average_are_seen():
    claimed = np.repeat([0.6, 0.9], 1000)
    found = reliability(claimed, np.concatenate([np.ones(800), np.zeros(200), np.ones(700), np.zeros(300)]))
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert found.error == pytest.approx(0.2)


def test_regions_of_poses_take_as_many_as_they_need():
    nan = np.nan
    poses = np.array([
        [[10, 50, 0, 0, 0, 9, 0.95], [10, 90, 0, 0, 0, 5, 0.04]],
        [[10, 50, 0, 0, 0, 9, 0.6], [10, 90, 0, 0, 0, 8, 0.35]],
        [[10, 50, 0, 0, 0, 9, 0.3], [nan] * 7],
    ])  # fmt: skip
    truth = matrix_from_euler(np.full(3, 10.0), np.full(3, 92.0), np.zeros(3))
    claimed, held = pose_regions(poses, truth, np.zeros((3, 2)), "C1", 5.0, 1.0)
    assert claimed == pytest.approx([0.95, 0.95, 0.3])
    assert held.tolist() == [False, True, False]
    _, far = pose_regions(poses, truth, np.full((3, 2), 1.0), "C1", 5.0, 1.0)
    assert not far.any()
    _, mated = pose_regions(poses, truth @ matrix_from_euler(90.0, 0.0, 0.0).T, np.zeros((3, 2)), "C4", 5.0, 1.0)
    assert mated.tolist() == [False, True, False]
