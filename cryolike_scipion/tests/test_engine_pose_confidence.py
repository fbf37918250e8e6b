"""Confidence in a pose: distinct poses, their probabilities, gap and spread, on posteriors made by hand."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.best_poses import no_best_poses, poses_to_keep, put_best_poses
from cryolike_scipion.engine.chunk_arrays import store_confidence
from cryolike_scipion.engine.division import LastRows
from cryolike_scipion.engine.pose_confidence import GAP_LIMIT, only_pose, pose_confidence
from cryolike_scipion.engine.pose_mass import PoseWindow
from cryolike_scipion.engine.pose_rows import PoseRows
from cryolike_scipion.engine.pose_scores import PoseScores
from cryolike_scipion.engine.refine import RefinedPoses
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

TURNS = 72  # every 5°
NEAR = PoseWindow(angle_deg=4.0, shift=1.0)


def confidence(tilts, origins, log_ratios, group="C1", keep=3):
    """Of rows at rot 0 with these tilts and origins, and log-ratios [r, TURNS]; the prior is one for all poses."""
    log_ratios = np.asarray(log_ratios, dtype=np.float64)
    at_zero = matrix_from_euler(np.zeros(len(tilts)), np.asarray(tilts, float), np.zeros(len(tilts)))
    log_mass = np.logaddexp.reduce(log_ratios, axis=1)
    row, angle = np.unravel_index(log_ratios.argmax(), log_ratios.shape)
    rows = PoseRows(
        view=np.arange(len(tilts)), origin=np.asarray(origins, float), log_mass=log_mass, mean_log=log_mass,
        log_prior=np.zeros(len(tilts)), left_log_mass=-np.inf, left_mean_log=0.0, error=0.0, best=log_ratios.max(),
        best_rotation=matrix_from_euler(0.0, 0.0, 360.0 * angle / TURNS) @ at_zero[row], best_origin=np.asarray(origins[row]),
        scale=1.0, power=1.0,
    )  # fmt: skip
    scorer = SimpleNamespace(poses=lambda image, origin, view: (log_ratios[view], None, None))
    index = np.arange(len(tilts))
    return pose_confidence(rows, LastRows(scorer, 0, index, index, at_zero), group, NEAR, keep)


def flat(rows):
    return np.full((rows, TURNS), -60.0)


def test_one_sharp_pose():
    logs = flat(2)
    logs[0, 10] = 20.0
    found = confidence([40.0, 80.0], [[0, 0], [0, 0]], logs)
    assert found.effective == pytest.approx(1.0, abs=1e-3)
    assert found.gap == GAP_LIMIT and found.spread_deg < 0.1
    assert found.poses[0] == pytest.approx([0, 40, 50, 0, 0, 20, 1], abs=1e-3)
    assert np.isnan(found.poses[1:]).all()


def test_two_poses_share_the_probability_as_their_likelihoods_do():
    logs = flat(2)
    logs[0, 10], logs[1, 30] = 20.0, 19.0
    found = confidence([40.0, 80.0], [[0, 0], [3, 0]], logs)
    p = 1 / (1 + np.exp(-1))
    assert found.gap == pytest.approx(1.0)
    assert found.poses[:2, 6] == pytest.approx([p, 1 - p], rel=1e-3)
    assert found.effective == pytest.approx(1 / (p**2 + (1 - p) ** 2), rel=1e-3)
    assert found.poses[1, :5] == pytest.approx([0, 80, 150, 3, 0], abs=1e-3)
    turned = matrix_from_euler(0.0, 80.0, 150.0) @ matrix_from_euler(0.0, 40.0, 50.0).T
    angle = np.rad2deg(np.arccos((np.trace(turned) - 1) / 2))
    assert found.spread_deg == pytest.approx(angle * np.sqrt(1 - p), rel=1e-3)


def test_neighbours_within_the_window_count_as_one_pose():
    logs = flat(2)
    logs[0, 10], logs[1, 10] = 20.0, 19.5
    found = confidence([40.0, 43.0], [[0, 0], [0.5, 0]], logs)
    assert found.effective == pytest.approx(1.0, abs=1e-3)
    assert found.poses[0, 6] == pytest.approx(1.0, abs=1e-3) and np.isnan(found.poses[1]).all()
    apart = confidence([40.0, 43.0], [[0, 0], [1.5, 0]], logs)
    assert apart.gap == pytest.approx(0.5) and apart.effective > 1.8


def test_mates_of_a_symmetric_structure_are_one_pose():
    found = {}
    for turn in (0, TURNS // 2):  # a two-fold axis in the plane takes tilt 40 to tilt 140, turned in the plane or not
        logs = flat(2)
        logs[0, 0], logs[1, turn] = 20.0, 20.0
        found[turn] = [confidence([40.0, 140.0], np.zeros((2, 2)), logs, group) for group in ("C1", "D2")]
    for plain, _ in found.values():
        assert plain.gap == pytest.approx(0.0) and plain.effective == pytest.approx(2.0, rel=1e-3)
    mated = min((symmetric for _, symmetric in found.values()), key=lambda each: each.effective)
    assert mated.effective == pytest.approx(1.0, abs=1e-3) and mated.spread_deg < 0.1


def test_many_rows_count_by_their_views_where_they_are_too_many_to_look_at():
    count = 200  # more than are looked at pose by pose
    logs = flat(count)
    logs[:, 5] = 10.0
    origins = np.zeros((count, 2))
    found = confidence(np.linspace(20, 22, count), origins, logs)
    assert found.poses[0, 6] == pytest.approx(1.0, abs=1e-3)
    wide = confidence(np.linspace(20, 60, count), origins, logs)
    assert wide.poses[0, 6] < 0.4 and wide.spread_deg > 5


def test_a_fixed_pose_is_sure_of_itself():
    found = only_pose(matrix_from_euler(10.0, 20.0, 30.0), np.array([1.0, 2.0]), 7.0, 2)
    assert found.poses[0] == pytest.approx([10, 20, 30, 1, 2, 7, 1])
    assert (found.effective, found.spread_deg) == (1.0, 0.0)


@pytest.mark.parametrize(
    "angles, origin, place", [((1, 40, 50), (0.3, 0), 0), ((61, 80, 150), (3, 0.2), 1), ((0, 10, 0), (0, 0), None)]
)
def test_a_refined_pose_takes_the_place_of_the_kept_one_it_counts_as(angles, origin, place):
    """Also where another pose is more probable; all origins are those of the files, where an image is magnified."""
    logs = flat(2)
    logs[0, 10], logs[1, 30] = 20.0, 19.0
    found = confidence([40.0, 80.0], [[0, 0], [3, 0]], logs).moved(np.array([50.0, -20.0]))
    origin = np.array([origin]) + [50.0, -20.0]
    scores = PoseScores(*(np.full(1, 25.0) for _ in fields(PoseScores)))
    poses = RefinedPoses(matrix_from_euler(*np.array([angles], float).T), origin, scores)
    zeros = {name: np.zeros((1, 1)) for name in ("pose_effective", "pose_gap", "pose_spread")}
    arrays = zeros | {"best_poses": np.zeros((3, 7, 1, 1), np.float32)}
    setup = SimpleNamespace(near=NEAR, structures=[SimpleNamespace(symmetry="C6")])
    integral = SimpleNamespace(confidence=[found])
    store_confidence(arrays, setup, 0, np.array([0]), integral, poses, lambda o: o @ np.diag([1.1, 0.9]))
    kept = arrays["best_poses"][:, :, 0, 0]
    expected = found.poses.copy()
    if place is not None:
        expected[place, :6] = [*angles, *origin[0], 25.0]
    expected[:, 3:5] *= [1.1, 0.9]
    assert kept == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_kept_poses_fit_into_the_memory_of_the_run_and_go_to_their_particles():
    assert poses_to_keep(5, 2, 1000, 4 * 5 * 2 * 1000 * 7 * 4) == 5
    assert poses_to_keep(5, 2, 1000, 4 * 3.5 * 2 * 1000 * 7 * 4) == 3
    chunk = np.random.default_rng(1).normal(size=(3, 7, 2, 4)).astype(np.float32)
    for room in (2, 3, 5):  # a chunk of an earlier start, with other memory
        kept = no_best_poses(room, 2, 9)
        put_best_poses(kept, range(3, 7), chunk)
        for i in range(min(room, 3)):
            assert np.array_equal(kept.values[1, 3:7, i].T, chunk[i, :, 1])
        assert np.isnan(kept.values[:, :, 3:]).all() and np.isnan(kept.values[:, [0, 1, 2, 7, 8]]).all()


def test_masses_and_spread_are_those_of_every_pose_by_itself():
    """A broad posterior under a structure of many mates, with its window's mass and angles by the definition."""
    rng = np.random.default_rng(4)
    tilts, logs = rng.uniform(0, 180, 12), rng.normal(size=(12, TURNS)) * 2
    found = confidence(tilts, np.zeros((12, 2)), logs, "I", keep=1)
    at_zero = matrix_from_euler(np.zeros(12), tilts, np.zeros(12))
    every = matrix_from_euler(0.0, 0.0, 360.0 * np.arange(TURNS) / TURNS)[None] @ at_zero[:, None]
    angle = distance_deg(every, matrix_from_euler(*found.poses[0, :3].astype(float)), symmetry.rotations("I"))
    weight = np.exp(logs) / np.exp(logs).sum()
    assert found.poses[0, 6] == pytest.approx(weight[angle <= NEAR.angle_deg].sum(), rel=1e-4)
    assert found.spread_deg == pytest.approx(np.sqrt((weight * angle**2).sum()), rel=1e-4)
