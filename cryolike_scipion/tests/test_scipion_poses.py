"""Scipion's matrices and RELION's angles: against Scipion's own transformations and RELION's importer."""

import numpy as np
import pytest
from pwem.convert.transformations import euler_matrix

from cryolike_scipion.convert.poses import (
    euler_angles,
    euler_matrices,
    poses_from_transforms,
    transforms_from_poses,
)

PIXEL = 1.31


@pytest.fixture()
def poses():
    random = np.random.default_rng(3)
    return (
        random.uniform(-180, 180, 500),
        np.degrees(np.arccos(random.uniform(-1, 1, 500))),
        random.uniform(-180, 180, 500),
        random.uniform(-9, 9, 500),
        random.uniform(-9, 9, 500),
    )


def test_matrix_is_the_one_scipion_makes_of_relions_angles(poses):
    rot, tilt, psi = poses[:3]
    ours = euler_matrices(rot, tilt, psi)
    for row in range(500):
        theirs = euler_matrix(*(-np.deg2rad([rot[row], tilt[row], psi[row]])), axes="szyz")
        assert np.allclose(ours[row], theirs[:3, :3], atol=1e-12)


def test_stored_transform_is_the_inverse_of_rotation_and_negative_origin(poses):
    rot, tilt, psi, x, y = poses
    ours = transforms_from_poses(rot, tilt, psi, x, y, PIXEL)
    for row in range(500):
        forward = euler_matrix(*(-np.deg2rad([rot[row], tilt[row], psi[row]])), axes="szyz")
        forward[:3, 3] = -x[row] / PIXEL, -y[row] / PIXEL, 0
        assert np.allclose(ours[row], np.linalg.inv(forward), atol=1e-12)


def test_poses_come_back(poses):
    back = poses_from_transforms(transforms_from_poses(*poses, PIXEL), PIXEL)
    for sent, received in zip(poses, back):
        assert np.allclose(sent, received, atol=1e-9)


def test_origins_follow_the_pixel_size_of_each_particle(poses):
    pixels = np.where(np.arange(500) % 2, 1.31, 2.62)
    matrices = transforms_from_poses(*poses, pixels)
    assert np.allclose(poses_from_transforms(matrices, pixels)[3], poses[3])
    assert np.allclose(np.linalg.inv(matrices)[1::2, 0, 3], -poses[3][1::2] / 1.31)


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_at_the_poles_the_matrix_comes_back_though_the_angles_are_not_unique(tilt):
    matrices = euler_matrices([30.0, -100.0], [tilt, tilt], [50.0, 170.0])
    rot, back, psi = euler_angles(matrices)
    assert np.all(rot == 0)
    assert np.allclose(back, tilt)
    assert np.allclose(euler_matrices(rot, back, psi), matrices, atol=1e-12)
