"""Radial functions of every order: what they leave out, what they cost, and projections against direct sums."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.polar_grid import choose_grid
from cryolike_scipion.engine.radial_basis import compressed_basis, full_circle_orders, plain_basis
from cryolike_scipion.engine.rotations import random_rotations
from cryolike_scipion.engine.template_bank import TemplateBank, common_basis, order_count

from .blob_particles import Blobs, Comparison, optics

K_MAX, BOX = 0.08, 32


@pytest.fixture(scope="module")
def comparison():
    return Comparison(Blobs.random(3, radius=30.0, sigma=5.0, signed=True).structure(), optics(1), K_MAX, BOX, double=True)


@pytest.fixture(scope="module")
def slices(comparison):
    return comparison.bank.slices(random_rotations(80, np.random.default_rng(0)))


def _white(grid, count, seed):
    """Images whose every value under the quadrature is independent, of one variance: complex128 [m, n, W/2]."""
    rng = np.random.default_rng(seed)
    shape = (count, grid.n_radii, grid.n_half)
    values = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return torch.as_tensor(values / np.sqrt(grid.weights)[:, None])


def _products(basis, images, templates):
    """<Y,T> [m, v] from coefficients: order 0 once, the others twice."""
    left, right = basis.project(images).conj(), basis.project(templates)
    total = 0.0
    for block in basis.blocks:
        by_order = torch.bmm(block.of(left), block.of(right).mT).real
        total = total + 2 * by_order.sum(dim=0) - (by_order[0] if block.first == 0 else 0.0)
    return total


def _direct(grid, images, templates):
    weights = torch.as_tensor(grid.weights)
    return torch.einsum("mnw,vnw,n->mv", images.conj(), templates, weights.to(images)).real / grid.n_half


@pytest.mark.parametrize("accuracy", [3e-2, 1e-3, 3e-5, 1e-7])
def test_noise_hardly_sees_what_is_left_out(comparison, slices, accuracy):
    """The error of products with white noise over their standard deviation, for views that were not learned from."""
    grid = comparison.grid
    orders = order_count(comparison.structure, grid)
    basis = compressed_basis([[slices[:40], slices[40:60]]], grid, orders, accuracy, torch.complex128)
    plain = plain_basis(grid, orders, torch.complex128)
    images = _white(grid, 200, 1)
    exact = _products(plain, images, slices[60:])
    error = _products(basis, images, slices[60:]) - exact
    assert float(error.std() / exact.std()) < 1.5 * accuracy
    assert basis.size < plain.size / 2


def test_functions_are_no_more_than_needed(comparison, slices):
    """About (2 pi k R - q) / pi functions of order q; more with the accuracy; none of orders without power."""
    grid, radius = comparison.grid, comparison.structure.radius
    orders = order_count(comparison.structure, grid)
    found = [compressed_basis([[slices]], grid, orders, a, torch.complex128) for a in (3e-2, 1e-3, 3e-5, 1e-9)]
    sizes = [basis.size for basis in found]
    assert sizes == sorted(sizes) and sizes[0] < 0.6 * sizes[-1]
    assert [basis.n_orders for basis in found] == sorted(basis.n_orders for basis in found)
    q = np.arange(int(2 * np.pi * K_MAX * radius))
    assert found[2].size < 1.3 * ((2 * np.pi * K_MAX * radius - q) / np.pi + 6).sum()


def test_a_structure_of_little_power_is_held_as_well_as_the_others(comparison, slices):
    grid, orders = comparison.grid, order_count(comparison.structure, comparison.grid)
    other = Blobs.random(8, radius=30.0, sigma=5.0, signed=True).structure()
    bank = TemplateBank(other, grid, comparison.rule, double=True)
    faint = 1e-4 * bank.slices(random_rotations(60, np.random.default_rng(2)))
    basis = compressed_basis([[slices], [faint]], grid, orders, 1e-3, torch.complex128)
    images = _white(grid, 100, 3)
    for some in (slices, faint):
        exact = _direct(grid, images, some)
        assert float((_products(basis, images, some) - exact).std() / exact.std()) < 1.5 * 1e-3 * np.sqrt(2)


def _few_orders(grid, highest, seed):
    """Transforms of real images with orders up to ``highest`` only: complex128 [v, n, W/2]."""
    rng = np.random.default_rng(seed)
    theta = torch.as_tensor(grid.angles_half)
    total = torch.zeros(20, grid.n_radii, grid.n_half, dtype=torch.complex128)
    for q in range(highest + 1):
        size = torch.as_tensor(rng.normal(size=(20, grid.n_radii, 1)))
        phase = torch.as_tensor(rng.uniform(0, 2 * np.pi, (20, 1, 1)))
        total += size * torch.cos(q * theta + phase) * (1j if q % 2 else 1.0)
    return total


def test_orders_without_power_are_dropped():
    grid = choose_grid(K_MAX, 40.0, 30.0, 1e-6)
    for highest in (0, 3, 7):
        half = _few_orders(grid, highest, highest)
        basis = compressed_basis([[half]], grid, grid.n_half, 1e-8, torch.complex128)
        assert basis.n_orders == highest + 1
        images = _white(grid, 20, 4)
        exact = _direct(grid, images, half)
        assert float((_products(basis, images, half) - exact).abs().max() / exact.std()) < 1e-6


@pytest.mark.parametrize("compressed", [False, True])
def test_projections_are_direct_sums(comparison, slices, compressed):
    grid = comparison.grid
    basis = plain_basis(grid, 9, torch.complex128)
    if compressed:
        basis = compressed_basis([[slices]], grid, 30, 1e-4, torch.complex128)
    rows = basis.project(slices[:7])
    assert rows.shape == (7, basis.size)
    full = torch.cat([slices[:7], slices[:7].conj()], dim=2)
    theta = torch.as_tensor(2 * np.pi * np.arange(grid.n_angles) / grid.n_angles)
    at = 0
    for block in basis.blocks:
        assert block.start == at and block.vectors.shape == (block.count, grid.n_radii, block.rank)
        for i in range(block.count):
            order = (full * torch.exp(-1j * (block.first + i) * theta)).mean(dim=2)
            expected = order @ block.vectors[i].to(order)
            assert torch.allclose(rows[:, at : at + block.rank], expected, rtol=0, atol=1e-12 * float(rows.abs().max()))
            assert torch.equal(block.of(rows)[i], rows[:, at : at + block.rank])
            at += block.rank
    assert at == basis.size and basis.n_orders == sum(block.count for block in basis.blocks)


def test_functions_are_orthonormal(comparison, slices):
    weights = torch.as_tensor(comparison.grid.weights)
    for block in compressed_basis([[slices]], comparison.grid, 30, 1e-4, torch.complex128).blocks:
        functions = block.vectors / weights.sqrt()[:, None]
        assert float((functions.mT @ functions - torch.eye(block.rank)).abs().max()) < 1e-10


def test_all_structures_share_one_basis(comparison):
    basis = common_basis([comparison.bank], random_rotations(70, np.random.default_rng(5)), 1e-4)
    assert basis.blocks[0].vectors.dtype == torch.float64
    assert basis.n_orders <= order_count(comparison.structure, comparison.grid)


def test_what_cannot_be_is_refused(comparison, slices):
    with pytest.raises(ValueError, match="angles"):
        full_circle_orders(slices, comparison.grid.n_half + 1)
    with pytest.raises(ValueError, match="slices"):
        compressed_basis([], comparison.grid, 5, 1e-3)
