"""Inner products over all in-plane angles against direct sums over angles and radii, in float64."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine import correlation
from cryolike_scipion.engine.correlation import Templates, correlate, correlate_pairs, correlate_parts, make_templates
from cryolike_scipion.engine.polar_grid import choose_grid, fft_friendly, inplane_count
from cryolike_scipion.engine.radial_basis import OrderBlock, RadialBasis, full_circle_orders, plain_basis
from cryolike_scipion.engine.rotations import random_rotations

from .blob_particles import Blobs, Comparison, optics

GRID = choose_grid(0.06, 40.0, 30.0, 1e-6)
ORDERS = 12


def _random_half(rng, count):
    shape = (count, GRID.n_radii, GRID.n_half)
    return torch.as_tensor(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def _blocks(rng):
    """A basis of blocks of different ranks with arbitrary real functions."""
    blocks, first, start = [], 0, 0
    for count, rank in ((1, 9), (6, 7), (5, 2)):
        vectors = torch.as_tensor(rng.normal(size=(count, GRID.n_radii, rank)))
        blocks.append(OrderBlock(first, count, rank, start, vectors))
        first, start = first + count, start + count * rank
    return RadialBasis(tuple(blocks))


def _direct(basis, images, templates, angles):
    """Re Σ_n mean_theta conj(G) T(theta + psi), both reduced to their functions of every order first: [m, v, g].

    Sums over all angles theta of the full circle with series of orders -q … q, no FFT.
    """
    theta = 2 * np.pi * np.arange(64) / 64
    left, right = basis.project(images).numpy(), basis.project(templates).numpy()

    def series(rows, psi):
        """Values [r, K', theta] of the functions of all orders, one block of coefficients after the other."""
        return np.concatenate([
            np.einsum("rqk,qt->rkqt", rows[:, b.place].reshape(len(rows), b.count, b.rank),
                      np.exp(1j * np.outer(b.first + np.arange(b.count), theta + psi))).reshape(len(rows), -1, 64)
            for b in basis.blocks
        ], axis=1)  # fmt: skip

    # Orders -q are the conjugates; the mean over theta keeps equal orders only.
    twice = np.concatenate([np.full(b.count * b.rank, 2.0) for b in basis.blocks])
    first = basis.blocks[0]
    twice[: first.count * first.rank].reshape(first.rank, first.count)[:, 0] = 1.0
    still = series(left, 0.0)
    return np.stack([
        np.einsum("k,mkt,vkt->mv", twice, still.conj(), series(right, psi)).real / 64 for psi in angles
    ], axis=2)  # fmt: skip


@pytest.mark.parametrize("n_inplane", [2 * ORDERS, 26, 50])
@pytest.mark.parametrize("kind", ["plain", "blocks"])
def test_products_at_every_angle_are_direct_sums(kind, n_inplane):
    rng = np.random.default_rng(1)
    basis = plain_basis(GRID, ORDERS, torch.complex128) if kind == "plain" else _blocks(rng)
    images, templates = _random_half(rng, 4), _random_half(rng, 5)
    b = correlate(basis.project(images).conj_physical(), basis.project(templates), basis, n_inplane)
    exact = _direct(basis, images, templates, 2 * np.pi * np.arange(n_inplane) / n_inplane)
    assert b.shape == exact.shape and np.abs(b.numpy() - exact).max() < 1e-12 * np.abs(exact).max()


def test_a_turned_image_is_found_at_its_angle():
    """b(psi) is the product of the image with the template whose argument is theta + psi; the plain basis is the quadrature."""
    rng = np.random.default_rng(2)
    bank = Comparison(Blobs.random(2, radius=20.0).structure(), optics(1), 0.06, 32, double=True).bank
    grid, basis = bank.grid, bank.basis
    template = bank.slices(random_rotations(1, rng))
    count = inplane_count(basis.n_orders - 1)
    for step in (0, 3, count - 5):
        q = torch.fft.fftfreq(grid.n_angles, 1 / grid.n_angles).to(torch.float64)
        full = torch.cat([template, template.conj()], dim=2)
        turned = torch.fft.ifft(torch.fft.fft(full) * torch.exp(2j * np.pi * q * step / count))[..., : grid.n_half]
        b = correlate(basis.project(turned).conj_physical(), basis.project(template), basis, count)[0, 0]
        assert int(b.argmax()) == step
        weights = torch.as_tensor(grid.weights)
        power = float(((template.abs() ** 2).mean(dim=2) @ weights)[0])
        assert float(b.max()) == pytest.approx(power, rel=1e-9)


@pytest.mark.parametrize("dtype, tolerance", [(torch.complex128, 1e-13), (torch.complex64, 1e-5)])
@pytest.mark.parametrize("kind", ["plain", "blocks"])
def test_pairs_are_the_diagonal_of_all_with_all(kind, dtype, tolerance):
    rng = np.random.default_rng(3)
    basis = plain_basis(GRID, ORDERS, torch.complex128) if kind == "plain" else _blocks(rng)
    images, templates = (basis.project(_random_half(rng, 6)).to(dtype) for _ in range(2))
    count = fft_friendly(2 * ORDERS + 3)
    every, pairs = correlate(images, templates, basis, count), correlate_pairs(images, templates, basis, count)
    assert pairs.shape == (6, count) and pairs.dtype == every.dtype
    i = torch.arange(6)
    assert float((pairs - every[i, i]).abs().max()) < tolerance * float(every.abs().max())


def test_single_precision_is_double_rounded():
    rng = np.random.default_rng(4)
    basis = plain_basis(GRID, ORDERS, torch.complex128)
    images, templates = (basis.project(_random_half(rng, 30)) for _ in range(2))
    exact = correlate(images, templates, basis, 32)
    single = correlate(images.to(torch.complex64), templates.to(torch.complex64), basis, 32)
    assert float((single - exact).std() / exact.std()) < 3e-7


def test_views_and_rows_may_be_parts_of_larger_ones():
    """Slices and picks of packed rows, as a search makes them."""
    rng = np.random.default_rng(5)
    basis = _blocks(rng)
    images, templates = (basis.project(_random_half(rng, 9)) for _ in range(2))
    whole = correlate(images, templates, basis, 30)
    part = correlate(images[2:7], templates[4:], basis, 30)
    assert torch.allclose(part, whole[2:7, 4:], rtol=0, atol=1e-12 * float(whole.abs().max()))
    index = torch.tensor([8, 0, 3])
    part = correlate(images[index], templates[index], basis, 30)
    assert torch.allclose(part, whole[index][:, index], rtol=0, atol=1e-12 * float(whole.abs().max()))


@pytest.mark.parametrize("at_once", [1, 9 * ORDERS * 4, 9 * ORDERS * 5, 1 << 18])
def test_products_come_in_parts_of_the_views(at_once, monkeypatch):
    rng = np.random.default_rng(7)
    basis = _blocks(rng)
    images, templates = (basis.project(_random_half(rng, 9)) for _ in range(2))
    whole = correlate(images, templates, basis, 30)
    monkeypatch.setattr(correlation, "_PRODUCTS_AT_ONCE", at_once)
    places, parts = zip(*correlate_parts(images, templates, basis, 30))
    assert len(parts) == {1: 9, 9 * ORDERS * 4: 3, 9 * ORDERS * 5: 2, 1 << 18: 1}[at_once]
    assert [view for place in places for view in range(place.start, place.stop)] == list(range(9))
    joined = torch.cat(parts, dim=1)
    assert torch.allclose(joined, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


def test_templates_are_taken_and_joined():
    bank = Comparison(Blobs.random(2, radius=20.0).structure(), optics(1), 0.06, 32, double=True).bank
    slices = bank.slices(random_rotations(5, np.random.default_rng(6)))
    made = make_templates(slices, bank.rule, bank.basis)
    assert len(made) == 5
    assert torch.equal(made.zeroth, slices.real.mean(dim=2))
    assert torch.allclose(made.zeroth, full_circle_orders(slices, 1)[..., 0].real)
    again = Templates.join([made.take(slice(0, 2)), made.take(torch.tensor([2])), made.take(slice(3, 5))])
    for name in ("rows", "zeroth", "power"):
        assert torch.equal(getattr(again, name), getattr(made, name))
    assert Templates.join([made]) is made
