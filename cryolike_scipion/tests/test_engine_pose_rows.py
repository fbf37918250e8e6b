"""The bookkeeping of one image's integral: what is moved to the rest stays in the sum."""

import numpy as np
import pytest
from scipy.special import logsumexp

from cryolike_scipion.engine.pose_rows import PoseRows


def _rows(left=-np.inf, left_mean=0.0):
    rng = np.random.default_rng(0)
    log_mass = rng.normal(900.0, 5.0, 30)  # their exponentials overflow
    return PoseRows(
        view=np.arange(30), origin=rng.normal(size=(30, 2)), log_mass=log_mass, mean_log=rng.normal(910.0, 1.0, 30),
        log_prior=np.full(30, -9.0), left_log_mass=left, left_mean_log=left_mean, error=0.0, best=920.0,
        best_rotation=np.eye(3), best_origin=np.zeros(2), scale=1.0, power=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("left", [-np.inf, 890.0, 905.0])
def test_total_and_mean_are_over_rows_and_the_rest(left):
    rows = _rows(left, 907.0)
    logs, values = np.append(rows.log_mass, left), np.append(rows.mean_log, 907.0)
    assert rows.total == pytest.approx(logsumexp(logs), rel=1e-12)
    assert rows.mean == pytest.approx(np.exp(logs - logsumexp(logs)) @ values, rel=1e-12)


@pytest.mark.parametrize("left", [-np.inf, 903.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_leaving_rows_changes_neither(left, share):
    rows = _rows(left, 907.0)
    total, mean = rows.total, rows.mean
    light = np.random.default_rng(1).uniform(size=30) < share
    kept = rows.view[~light]
    rows.leave(light)
    assert np.array_equal(rows.view, kept)
    for name in ("origin", "log_mass", "mean_log", "log_prior"):
        assert len(getattr(rows, name)) == len(kept)
    assert rows.total == pytest.approx(total, rel=1e-12) and rows.mean == pytest.approx(mean, rel=1e-12)


def test_rows_of_no_mass_leave_nothing():
    rows = _rows()
    rows.log_mass[:5] = -np.inf
    total = rows.total
    rows.leave(np.arange(30) < 5)
    assert rows.left_log_mass == -np.inf and rows.total == pytest.approx(total) and np.isfinite(rows.mean)
