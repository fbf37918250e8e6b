"""Priors over shifts and views: densities relative to the uniform ones, and what they do to a posterior."""

import numpy as np
import pytest

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.pose_priors import PosePrior, ShiftPrior, ViewPrior
from cryolike_scipion.engine.pose_rows import PoseRows
from cryolike_scipion.engine.rotations import euler_from_matrix, random_rotations
from cryolike_scipion.engine.shifts import grid_by_radius, subdivide

from .likelihood_runs import run_without_report


def _rows(origins, log_mass, left=-np.inf):
    count = len(origins)
    return PoseRows(
        view=np.arange(count), origin=np.asarray(origins, float), log_mass=np.asarray(log_mass, float),
        mean_log=np.asarray(log_mass, float), log_prior=np.zeros(count), left_log_mass=left, left_mean_log=0.0, error=0.0,
        best=0.0, best_rotation=np.eye(3), best_origin=np.zeros(2), scale=1.0, power=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("width", [2.0, 5.0, 100.0])
def test_a_gaussian_of_shifts_is_normalised_over_the_searched_ones(width):
    shifts = grid_by_radius(12.0, 4.0)
    prior = ShiftPrior.over(width, shifts)
    origins, step = shifts.origins, shifts.step
    for _ in range(3):
        origins, step = subdivide(origins, step)
    assert np.exp(prior.log_ratio(origins)).mean() == pytest.approx(1.0)
    at = prior.log_ratio(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]))
    assert at[0] - at[1] == pytest.approx(9 / (2 * width**2)) and at[1] == at[2]


def test_views_of_the_input_are_more_probable_and_none_is_impossible():
    rng = np.random.default_rng(1)
    rot, tilt = rng.normal(40, 5, 500), rng.normal(60, 5, 500)
    prior = ViewPrior.of_poses(rot, tilt, "C1")
    assert prior.density @ prior.table.weights == pytest.approx(1.0)
    directions = prior.table.directions()
    near, far = directions[prior.density.argmax()], directions[prior.density.argmin()]
    expected = np.array([np.sin(np.pi / 3) * np.cos(np.deg2rad(40)), np.sin(np.pi / 3) * np.sin(np.deg2rad(40)), 0.5])
    assert near @ expected > np.cos(np.deg2rad(12))
    assert prior.log_ratio(near[None])[0] > 2 and np.log(0.099) < prior.log_ratio(far[None])[0] < -2


def test_uniform_views_give_a_uniform_prior_also_with_symmetry():
    rot, tilt, _ = euler_from_matrix(random_rotations(20000, np.random.default_rng(2)))
    assert ViewPrior.of_poses(rot, tilt, "C1").density == pytest.approx(1.0, abs=0.25)
    mated = ViewPrior.of_poses(np.full(50, 10.0), np.full(50, 50.0), "C4")
    turned = np.deg2rad([10.0, 100.0, 190.0, 280.0])
    directions = np.stack([np.cos(turned), np.sin(turned), np.full(4, 1 / np.tan(np.deg2rad(50)))], axis=1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert mated.log_ratio(directions) == pytest.approx(mated.log_ratio(directions)[0], abs=0.5)
    assert mated.log_ratio(directions)[0] > 1


def test_rows_are_weighed_and_what_is_left_by_their_mean():
    prior = PosePrior(shift=ShiftPrior(2.0, 0.0))
    rows = _rows([[0, 0], [2, 0]], np.log([0.5, 0.5]), left=np.log(0.1))
    prior.apply(rows, np.zeros((2, 3)))
    assert np.exp(rows.log_mass) == pytest.approx([0.5, 0.5 * np.exp(-0.5)])
    assert np.exp(rows.left_log_mass) == pytest.approx(0.1 * (0.5 + 0.5 * np.exp(-0.5)))
    assert rows.log_prior == pytest.approx([0, -0.5])


def test_a_run_says_its_priors_and_obeys_them(small, quick, tmp_path):
    wide = run_without_report(small, tmp_path / "wide", shift_prior=1000.0)
    assert wide.integrated == pytest.approx(quick.integrated, abs=0.01)
    narrow = run_without_report(small, tmp_path / "narrow", shift_prior=3.0)
    far = np.hypot(quick.origin_x, quick.origin_y)
    change = narrow.integrated - quick.integrated
    assert change[far < 2].min(initial=1) > 0 > change[far > 7].max(initial=-1)
    assert narrow.parameters["shift_prior"] == 3.0
    with pytest.raises(InputError, match="--view-prior"):
        run_without_report(small, tmp_path / "fixed", search="fixed", view_prior="input")
