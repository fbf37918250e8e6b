"""Euler angles and rotation matrices against RELION's convention, and against themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.rotations import (
    angles_of_directions,
    directions,
    distance_deg,
    euler_from_matrix,
    matrix_from_euler,
    random_rotations,
)

ANGLE = st.floats(-720, 720)


def test_matrix_is_the_product_of_three_coordinate_rotations():
    def about_z(angle):
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    def about_y(angle):
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])

    rot, tilt, psi = 31.0, 118.0, -77.0
    expected = about_z(np.deg2rad(psi)) @ about_y(np.deg2rad(tilt)) @ about_z(np.deg2rad(rot))
    np.testing.assert_allclose(matrix_from_euler(rot, tilt, psi), expected, atol=1e-15)


def test_matrix_is_relions():
    # relion_refine --print_symmetry_ops prints Euler angles with each matrix; this is one of I3.
    np.testing.assert_allclose(
        matrix_from_euler(180.0, 63.4349488229, 0.0),
        [[-0.44721, 0, -0.89443], [0, -1, 0], [-0.89443, 0, 0.44721]],
        atol=1e-5,
    )
    np.testing.assert_allclose(matrix_from_euler(0, 90, 90), [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-15)


@settings(deadline=None)
@given(ANGLE, ANGLE, ANGLE)
def test_angles_and_matrices_go_both_ways(rot, tilt, psi):
    matrix = matrix_from_euler(rot, tilt, psi)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    found = euler_from_matrix(matrix)
    np.testing.assert_allclose(matrix_from_euler(*found), matrix, atol=3e-8)
    assert -180 < found[0] <= 180 and 0 <= found[1] <= 180 and -180 < found[2] <= 180


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_poles_give_rot_zero_and_the_same_matrix(tilt):
    matrix = matrix_from_euler(40.0, tilt, 25.0)
    rot, found_tilt, psi = euler_from_matrix(matrix)
    assert rot == 0.0
    assert found_tilt == pytest.approx(tilt, abs=1e-6)
    np.testing.assert_allclose(matrix_from_euler(rot, tilt, psi), matrix, atol=1e-12)


def test_batches_keep_their_shape():
    rot = np.zeros((2, 1))
    matrix = matrix_from_euler(rot, 10.0, np.zeros((1, 3)))
    assert matrix.shape == (2, 3, 3, 3)
    assert euler_from_matrix(matrix)[1].shape == (2, 3)


def test_third_row_is_the_viewing_direction():
    matrix = matrix_from_euler(50.0, 70.0, 33.0)
    np.testing.assert_allclose(matrix[2], directions(50.0, 70.0), atol=1e-15)
    rot, tilt = angles_of_directions(7.0 * directions(50.0, 70.0))
    assert (rot, tilt) == (pytest.approx(50.0), pytest.approx(70.0))


@settings(deadline=None)
@given(st.floats(1e-6, 180.0), st.integers(0, 1000))
def test_distance_is_the_angle_of_the_turn(angle, seed):
    start, axis_frame = random_rotations(2, np.random.default_rng(seed))
    turn = axis_frame.T @ matrix_from_euler(angle, 0.0, 0.0) @ axis_frame
    assert distance_deg(turn @ start, start) == pytest.approx(angle, rel=1e-6)


def test_distance_under_symmetry_is_the_smallest_over_the_mates():
    group = symmetry.rotations("C4")
    pose = matrix_from_euler(10.0, 60.0, 20.0)
    mate = matrix_from_euler(10.0 + 90.0, 60.0, 20.0)
    assert distance_deg(pose, mate) > 50.0
    assert distance_deg(pose, mate, group) == pytest.approx(0.0, abs=1e-6)
    assert distance_deg(pose, matrix_from_euler(10.0 + 93.0, 60.0, 20.0), group) == pytest.approx(3.0)


def test_random_rotations_are_uniform():
    matrices = random_rotations(20000, np.random.default_rng(3))
    # For the Haar measure the mean is 0 and the trace has mean 0 and mean square 1.
    assert np.abs(matrices.mean(axis=0)).max() < 0.02
    trace = np.trace(matrices, axis1=1, axis2=2)
    assert trace.mean() == pytest.approx(0.0, abs=0.03)
    assert np.mean(trace**2) == pytest.approx(1.0, abs=0.03)
