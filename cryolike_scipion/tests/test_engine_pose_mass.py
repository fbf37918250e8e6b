"""The posterior mass near a pose, against the sum over all poses."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.pose_mass import PoseWindow, pose_mass
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler, random_rotations
from cryolike_scipion.engine.symmetry import rotations as group_rotations
from cryolike_scipion.engine.views import healpix_views


@pytest.mark.parametrize("group", ["C1", "C4", "D2"])
def test_pose_mass_is_the_sum_over_nearby_poses(group):
    rng = np.random.default_rng(2)
    table = healpix_views(20.0, group)
    at_zero, inplane = table.rotations(), 30
    row_view = rng.integers(len(table), size=400)
    row_origin = rng.uniform(-3, 3, (400, 2))
    weights = torch.as_tensor(rng.uniform(0, 1, (400, inplane)))
    near = PoseWindow(28.0, 2.0)
    for _ in range(4):
        rotation, origin = random_rotations(1, rng)[0], rng.uniform(-2, 2, 2)
        psi = 360.0 * np.arange(inplane) / inplane
        poses = matrix_from_euler(table.rot_deg[row_view][:, None], table.tilt_deg[row_view][:, None], psi)
        inside = distance_deg(poses, rotation, group_rotations(group)) <= near.angle_deg
        inside &= (np.linalg.norm(row_origin - origin, axis=1) <= near.shift)[:, None]
        expected = weights.numpy()[inside].sum()
        found = pose_mass(weights, at_zero, row_view, row_origin, group, rotation, origin, near)
        assert expected > 1.0
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("group", ["C1", "C4"])
def test_views_that_may_hold_a_pose_near_another(group):
    """A view is left out only where no in-plane angle brings it near the rotation or any of its mates."""
    table, near = healpix_views(12.0, group), PoseWindow(20.0, 1.0)
    at_zero, psi = table.rotations(), np.arange(0.0, 360.0, 2.0)
    turned = matrix_from_euler(table.rot_deg[:, None], table.tilt_deg[:, None], psi)
    left_out = 0
    for rotation in random_rotations(4, np.random.default_rng(6)):
        closest = distance_deg(turned, rotation, group_rotations(group)).min(axis=1)
        may = near.may_hold(at_zero, group, rotation)
        assert may[closest <= near.angle_deg].all() and not may[closest > near.angle_deg + 1.0].any()
        left_out += int((~may).sum())
    assert left_out > len(table)
