"""Refinement of poses: what it finds, and its derivatives against numerical ones."""

import numpy as np
import pytest

from cryolike_scipion.engine import refine
from cryolike_scipion.engine.likelihood import log_evidence
from cryolike_scipion.engine.pose_scores import posed_products, score_poses, shift_phase
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

from .blob_particles import PIXEL
from .search_trial import COUNT, Trial


@pytest.fixture(scope="module")
def quiet():
    return Trial(None)


@pytest.fixture(scope="module")
def noisy():
    return Trial(0.3)


def _refined(trial, images):
    rotation, origin = trial.poses(trial.search(images))
    return refine.refine_poses(images, rotation, origin, trial.bank, trial.prior, 4.0, iterations=10)


def test_turning_an_image_turns_its_pose(quiet):
    """Pixels turned by 90 degrees about the centre: A' = Z A, origin' = Z origin; the CTF turns along."""
    turned = np.rot90(np.pad(quiet.pixels, ((0, 0), (0, 1), (0, 1)), mode="wrap"), 1, (1, 2))[:, :-1, :-1]
    # rot90 takes columns to rows: what was at +x (to the right) is at -y (up) afterwards.
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    arguments = dict(quiet.comparison.arguments)
    arguments["defocus_angle_deg"] = arguments["defocus_angle_deg"] + 90.0
    images = quiet.comparison.images(turned.copy(), arguments)
    before, after = _refined(quiet, quiet.images), _refined(quiet, images)
    assert distance_deg(after.rotation, turn @ before.rotation).max() < 0.5
    assert np.abs(after.origin - before.origin @ turn[:2, :2].T).max() < 0.1
    assert distance_deg(after.rotation, before.rotation).min() > 89.0


def test_moving_an_image_moves_its_origin(quiet):
    """The particle sits at minus its origin: pixels moved by (1, -1) take (1, -1) off the origin."""
    moved = np.roll(quiet.pixels, (-1, 1), axis=(1, 2))
    before, after = _refined(quiet, quiet.images), _refined(quiet, quiet.comparison.images(moved))
    assert distance_deg(after.rotation, before.rotation).max() < 0.5
    assert np.abs(after.origin - (before.origin - [PIXEL, -PIXEL])).max() < 0.1


def test_refinement_finds_poses_better_than_the_grid(quiet, noisy):
    for trial, angle, shift in ((quiet, 0.7, 0.1), (noisy, 9.0, 1.5)):
        rotation, origin = trial.poses(trial.search())
        start = score_poses(trial.images, rotation, origin, trial.bank, trial.prior)
        found = refine.refine_poses(trial.images, rotation, origin, trial.bank, trial.prior, 4.0, iterations=10)
        assert (found.scores.log_ratio >= start.log_ratio).all()
        truth = score_poses(trial.images, trial.rotations, trial.origins, trial.bank, trial.prior)
        # Without noise the scores are those of a cc of 0.9995, and 2 % of them are the single precision of templates.
        allowed = 0.02 * truth.log_ratio if trial is quiet else 0.05
        assert (found.scores.log_ratio > truth.log_ratio - allowed).all()
        assert np.median(distance_deg(found.rotation, trial.rotations)) < angle
        assert np.median(np.linalg.norm(found.origin - trial.origins, axis=1)) < shift
        assert distance_deg(rotation, trial.rotations).max() > 2.0  # the grid alone is not as good


def test_gradient_of_the_score_agrees_with_numerical_differentiation():
    trial = Trial(0.3, double=True)
    bank, images = trial.bank, trial.images
    rng = np.random.default_rng(9)
    nudge = matrix_from_euler(*rng.uniform(-4, 4, (3, COUNT)))
    rotation, origin = nudge @ trial.rotations, trial.origins + rng.uniform(-1, 1, (COUNT, 2))
    slices = bank.slices(rotation)
    scores = score_poses(images, rotation, origin, bank, trial.prior)
    gradient, fisher = refine._derivatives(images, rotation, origin, slices, scores, bank, trial.prior)
    numerical = np.empty((COUNT, 5))
    for axis in range(5):
        ends = []
        for sign in (1, -1):
            step = np.zeros(5)
            step[axis] = sign * (1e-3 if axis < 3 else 0.02)
            turn = refine.Rotation.from_rotvec(step[:3]).as_matrix()
            ends.append(score_poses(images, turn @ rotation, origin + step[3:], bank, trial.prior).log_ratio)
        numerical[:, axis] = (ends[0] - ends[1]) / (2 * np.abs(step[axis]))
    size = np.sqrt(np.einsum("rii->ri", fisher))  # the natural size of a gradient: one standard deviation
    error = np.abs(gradient - numerical) / size
    assert error[:, [0, 1, 3, 4]].max() < 5e-3
    # The change of <T,T> with psi behind an astigmatic CTF is left out of the gradient (not of the score).
    assert error[:, 2].max() < 0.3
    assert (np.abs(numerical) / size).max() > 1.0
    assert np.linalg.eigvalsh(fisher).min() > 0


def test_fisher_matrix_is_the_curvature_of_a_noise_free_image(quiet):
    """At the truth, without noise, minus the second derivative along each parameter."""
    bank, images = quiet.bank, quiet.images
    found = _refined(quiet, images)
    slices = bank.slices(found.rotation)
    _, fisher = refine._derivatives(images, found.rotation, found.origin, slices, found.scores, bank, quiet.prior)
    for axis in range(5):
        scale = 0.3 / np.sqrt(fisher[:, axis, axis])
        values = []
        for sign in (-1, 0, 1):
            step = np.zeros((COUNT, 5))
            step[:, axis] = sign * scale
            turn = refine.Rotation.from_rotvec(step[:, :3]).as_matrix()
            a, b = posed_products(
                images, bank.slices(turn @ found.rotation), shift_phase(bank, found.origin + step[:, 3:]), bank
            )
            c, n = images.projected_power.numpy(), images.dof.numpy()
            values.append(log_evidence(a.numpy(), b.numpy(), c, n, quiet.prior))
        curvature = (2 * values[1] - values[0] - values[2]) / scale**2
        assert curvature == pytest.approx(fisher[:, axis, axis], rel=0.25)
