"""The polar grid: the reference's quadrature, and the accuracy that is asked for, measured on point sources."""

import numpy as np
import pytest
from scipy.special import j1

from cryolike_scipion.engine.polar_grid import (
    PolarGrid,
    choose_grid,
    fft_friendly,
    gauss_radial_rule,
    inplane_count,
    largest_ring_number,
    radial_interpolation,
)

from .helpers import shared_data


def _sources(rng, count, radius):
    """Points [count, 2] in a disc, half of them on its edge, and amplitudes with sum of squares 1."""
    distance = radius * np.sqrt(rng.uniform(0, 1, count))
    distance[: count // 2] = radius
    angle = rng.uniform(0, 2 * np.pi, count)
    amplitude = rng.normal(size=count)
    points = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points, amplitude / np.linalg.norm(amplitude)


def _transform(grid, points, amplitude):
    return np.exp(-2j * np.pi * grid.points_half() @ points.T) @ amplitude


def _inner_product_error(grid, first, second):
    """|polar sum - exact integral over the disc| as a fraction of area × Σ|amplitudes|."""
    polar = np.einsum("n,nw->", grid.weights, (_transform(grid, *first).conj() * _transform(grid, *second)).real)
    r = np.linalg.norm(first[0][:, None] - second[0][None], axis=-1)
    kernel = np.where(r > 0, grid.k_max * j1(2 * np.pi * grid.k_max * r) / np.where(r > 0, r, 1.0), 0.0)
    kernel[r == 0] = np.pi * grid.k_max**2
    exact = first[1] @ kernel @ second[1]
    size = np.abs(first[1]).sum() * np.abs(second[1]).sum() * np.pi * grid.k_max**2
    return abs(polar / grid.n_half - exact) / size


def test_radial_rule_is_the_references():
    oracle = np.load(shared_data("oracle") / "oracle.npz")
    half_box = 2.0 / float(oracle["box_size"])  # k = 2 K / box, K in cycles per half box
    k_max = float(oracle["radius_max"]) * half_box
    radii, weights = gauss_radial_rule(len(oracle["radius_shells"]), k_max)
    theirs = oracle["radius_shells"] * half_box
    assert np.abs(radii - theirs).max() <= 1e-9 * theirs.max()
    # Its weights carry (2 pi)^-2 and sum to pi R²/(2 pi)²; with the angular sum they are integration_weights_nq.
    their_weights = oracle["weight_shells"] * (2 * np.pi) ** 2 * half_box**2
    assert np.abs(weights - their_weights).max() <= 1e-9 * their_weights.max()
    per_angle = oracle["integration_weights_nq"] * half_box**2
    assert np.abs(weights[:, None] / 64 - per_angle).max() <= 1e-9 * per_angle.max()
    assert weights.sum() == pytest.approx(np.pi * k_max**2, rel=1e-12)


def test_radial_rule_is_exact_to_its_degree_and_no_further():
    n, k_max = 7, 0.3
    radii, weights = gauss_radial_rule(n, k_max)
    assert np.all((radii > 0) & (radii < k_max)) and np.all(np.diff(radii) > 0)
    for degree in range(2 * n):
        exact = 2 * np.pi * k_max ** (degree + 2) / (degree + 2)
        assert weights @ radii**degree == pytest.approx(exact, rel=1e-12)
    beyond = 2 * np.pi * k_max ** (2 * n + 2) / (2 * n + 2)
    assert abs(weights @ radii ** (2 * n) / beyond - 1) > 1e-9


@pytest.mark.parametrize(
    ("k_max", "image_radius", "template_radius", "accuracy"),
    [(0.125, 60.0, 40.0, 1e-3), (0.125, 60.0, 40.0, 1e-6), (0.05, 70.0, 70.0, 1e-9), (0.02, 20.0, 10.0, 1e-6)],
)
def test_inner_products_are_as_accurate_as_asked(k_max, image_radius, template_radius, accuracy):
    rng = np.random.default_rng(3)
    grid = choose_grid(k_max, image_radius, template_radius, accuracy)
    errors = [
        _inner_product_error(grid, _sources(rng, 24, image_radius), _sources(rng, 24, template_radius)) for _ in range(12)
    ]
    # Radius and angle may each err by the accuracy.
    assert max(errors) <= 2 * accuracy
    assert grid.k_max == k_max and grid.n_angles % 4 == 0
    # The extreme pair alone, opposite ends of both supports, which random sources hardly hold.
    far = (np.array([[image_radius, 0.0]]), np.ones(1)), (np.array([[-template_radius, 0.0]]), np.ones(1))
    assert _inner_product_error(grid, *far) <= 2 * accuracy


def test_the_grid_is_not_larger_than_its_accuracy_needs():
    k_max, image_radius, template_radius, accuracy = 0.125, 60.0, 40.0, 1e-6
    grid = choose_grid(k_max, image_radius, template_radius, accuracy)
    wave = 2 * k_max * (image_radius + template_radius)  # turns across both supports
    # A smaller disc of sources needs fewer nodes, a finer accuracy more; a half as fine grid fails outright.
    assert choose_grid(k_max, 30.0, 20.0, accuracy).n_radii < 0.7 * grid.n_radii
    assert choose_grid(k_max, image_radius, template_radius, 1e-10).n_radii > grid.n_radii
    assert grid.n_radii < 2.0 * wave and grid.n_angles < 2 * np.pi * wave
    far = (np.array([[image_radius, 0.0]]), np.ones(1)), (np.array([[-template_radius, 0.0]]), np.ones(1))
    radii, weights = gauss_radial_rule(grid.n_radii // 2, k_max)
    assert _inner_product_error(PolarGrid(radii, weights, grid.n_angles, k_max), *far) > 1e-4
    few = PolarGrid(grid.radii, grid.weights, 4 * (grid.n_angles // 8), k_max)
    assert _inner_product_error(few, *far) > 1e-4


def test_wrong_arguments_are_refused():
    for wrong in ((0.0, 1.0, 1.0, 1e-6), (0.1, -1.0, 1.0, 1e-6), (0.1, 1.0, 1.0, 0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            choose_grid(*wrong)
    radii, weights = gauss_radial_rule(5, 0.1)
    with pytest.raises(ValueError, match="multiple of 4"):
        PolarGrid(radii, weights, 18, 0.1)
    with pytest.raises(ValueError, match="4 weights"):
        PolarGrid(radii, weights[:4], 16, 0.1)


def test_stored_points_are_the_half_circle():
    radii, weights = gauss_radial_rule(3, 0.1)
    grid = PolarGrid(radii, weights, 8, 0.1)
    points = grid.points_half()
    assert points.shape == (3, 4, 2)
    assert np.allclose(np.linalg.norm(points, axis=-1), radii[:, None], rtol=1e-14)
    assert np.allclose(np.rad2deg(np.arctan2(points[1, :, 1], points[1, :, 0])), [0, 45, 90, 135])


def test_radial_interpolation_is_exact_for_polynomials_and_at_the_nodes():
    source, _ = gauss_radial_rule(9, 0.2)
    target = np.concatenate([np.linspace(0, 0.2, 23), source])
    matrix = radial_interpolation(source, target)
    for degree in range(9):
        found = matrix @ (source / 0.2) ** degree
        assert np.abs(found - (target / 0.2) ** degree).max() < 1e-12
    assert np.array_equal(matrix[23:], np.eye(9))
    assert np.abs(matrix @ (source / 0.2) ** 9 - (target / 0.2) ** 9).max() > 1e-7


def test_interpolation_of_a_template_between_the_nodes_of_a_chosen_grid():
    """Root mean square error at most the accuracy; the largest, at the ends of the band, within a few times."""
    k_max, radius = 0.1, 50.0
    for accuracy in (1e-3, 1e-6):
        grid = choose_grid(k_max, radius, radius, accuracy)
        target = np.linspace(0, k_max, 501)
        matrix = radial_interpolation(grid.radii, target)
        worst, mean = 0.0, 0.0
        for distance in np.linspace(-radius, radius, 11):
            exact = np.exp(2j * np.pi * distance * target)
            error = np.abs(matrix @ np.exp(2j * np.pi * distance * grid.radii) - exact)
            worst, mean = max(worst, error.max()), max(mean, np.sqrt(np.mean(error**2)))
        assert mean <= 1.05 * accuracy
        assert worst <= 20 * accuracy


def test_ring_number_bounds_the_orders_of_a_function():
    """Angular orders of sources within a radius, beyond the stated number, are below the accuracy."""
    k_max, radius, accuracy = 0.1, 45.0, 1e-6
    order = largest_ring_number(radius, k_max, accuracy)
    points, amplitude = _sources(np.random.default_rng(0), 16, radius)
    theta = 2 * np.pi * np.arange(256) / 256
    ring = k_max * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    orders = np.abs(np.fft.fft(np.exp(-2j * np.pi * ring @ points.T) @ amplitude)) / 256
    scale = np.abs(amplitude).sum()
    assert orders[order + 1 : 128].max() <= accuracy * scale
    assert orders[order - 12 : order - 6].max() > 10 * accuracy * scale
    assert inplane_count(order) >= 2 * order + 2
    assert inplane_count(order, 2.0) >= 180


def test_fft_friendly_numbers():
    assert [fft_friendly(n) for n in (1, 4, 13, 28, 65, 100)] == [4, 4, 16, 32, 72, 100]
    assert fft_friendly(65, 2) == 72
