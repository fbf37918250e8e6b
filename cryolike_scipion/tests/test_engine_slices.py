"""Central slices against brute force, RELION's conventions, and real particles."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from cryolike_scipion.engine.ctf import ctf
from cryolike_scipion.engine.density_map import read_map
from cryolike_scipion.engine.fourier_volume import FourierVolume
from cryolike_scipion.engine.polar_grid import PolarGrid, gauss_radial_rule
from cryolike_scipion.engine.rotations import matrix_from_euler, random_rotations
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import Structure

from .helpers import shared_data

PIXEL = 1.7
NYQUIST = 0.5 / PIXEL


def _structure(density, k_max=NYQUIST, pixel_size=PIXEL):
    density = np.ascontiguousarray(density, dtype=np.float32)
    return Structure(density, pixel_size, "x", "C1", Path("x.mrc"), 10.0, k_max, "map")


def _grid(k_max=NYQUIST, radii=9, angles=32):
    nodes, weights = gauss_radial_rule(radii, k_max)
    return PolarGrid(nodes, weights, angles, k_max)


def _brute_force(density, frequencies, pixel_size=PIXEL):
    """Σ ρ exp(−2πi k·x) pixel³, x from voxel N // 2, in double precision."""
    size = density.shape[0]
    x = (np.arange(size) - size // 2) * pixel_size
    wave = [np.exp(-2j * np.pi * np.outer(frequencies[:, axis], x)) for axis in (2, 1, 0)]
    return np.einsum("zyx,pz,py,px->p", density, *wave, optimize=True) * pixel_size**3


def _plane(grid, rotations):
    points = grid.points_half().reshape(-1, 2)
    flat = np.concatenate([points, np.zeros((len(points), 1))], axis=1)
    return np.einsum("vca,pc->vpa", rotations, flat)  # Aᵀ (kx, ky, 0)


@pytest.mark.parametrize("band", [1.0, 0.37])
@pytest.mark.parametrize("size", [16, 17, 30, 33])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex64, 2e-5), (torch.complex128, 1e-11)])
def test_slices_equal_the_brute_force_transform(size, band, dtype, tolerance):
    rng = np.random.default_rng(size)
    density = rng.normal(size=(size,) * 3).astype(np.float32)
    rotations = random_rotations(3, rng)
    grid = _grid(band * NYQUIST)
    found = SliceMaker(_structure(density), grid, dtype)(rotations)
    assert found.shape == (3, grid.n_radii, grid.n_half) and found.dtype == dtype
    exact = _brute_force(density.astype(np.float64), _plane(grid, rotations).reshape(-1, 3))
    assert np.abs(found.numpy().ravel() - exact).max() < tolerance * np.abs(exact).max()


def test_the_stored_half_circle_gives_the_other_half():
    density = np.random.default_rng(1).normal(size=(12,) * 3)
    grid = _grid()
    rotation = random_rotations(1, np.random.default_rng(2))
    turned = matrix_from_euler(0, 0, 180.0) @ rotation
    maker = SliceMaker(_structure(density), grid, torch.complex128)
    np.testing.assert_allclose(maker(turned).numpy(), maker(rotation).numpy().conj(), atol=1e-9)


def test_psi_samples_the_slice_at_a_larger_polar_angle():
    density = np.random.default_rng(3).normal(size=(14,) * 3)
    grid = _grid(angles=32)
    maker = SliceMaker(_structure(density), grid, torch.complex128)
    step = 360.0 / grid.n_angles
    plain = maker(matrix_from_euler(20.0, 50.0, 0.0)[None])[0]
    turned = maker(matrix_from_euler(20.0, 50.0, 3 * step)[None])[0]
    torch.testing.assert_close(turned[:, :-3], plain[:, 3:], atol=1e-9, rtol=0)
    torch.testing.assert_close(turned[:, -3:], plain[:, :3].conj(), atol=1e-9, rtol=0)


def test_a_shift_of_the_density_is_a_phase():
    rng = np.random.default_rng(4)
    density = np.zeros((18,) * 3)
    density[5:11, 6:12, 4:10] = rng.normal(size=(6, 6, 6))
    moved = np.roll(density, (1, 2, 3), axis=(0, 1, 2))  # z, y, x
    grid, rotations = _grid(), random_rotations(2, rng)
    one, other = (SliceMaker(_structure(d), grid, torch.complex128)(rotations).numpy() for d in (density, moved))
    shift = np.array([3.0, 2.0, 1.0]) * PIXEL
    phase = np.exp(-2j * np.pi * _plane(grid, rotations) @ shift).reshape(one.shape)
    np.testing.assert_allclose(other, one * phase, atol=1e-9 * np.abs(one).max())


def test_turning_the_density_by_90_degrees_turns_its_slices():
    density = np.random.default_rng(5).normal(size=(15,) * 3)
    turn = matrix_from_euler(90.0, 0.0, 0.0)  # new (x', y') = (y, −x): the voxel at x' holds what was at turnᵀ x'
    turned = np.rot90(density, k=1, axes=(1, 2))
    rotations = random_rotations(4, np.random.default_rng(6))
    grid = _grid()
    one = SliceMaker(_structure(density), grid, torch.complex128)(rotations)
    other = SliceMaker(_structure(turned), grid, torch.complex128)(rotations @ turn.T)
    torch.testing.assert_close(other, one, atol=1e-9, rtol=0)


def test_a_projection_along_z_is_the_sum_over_z():
    density = np.random.default_rng(7).normal(size=(16,) * 3)
    axis = np.fft.fftfreq(16, PIXEL)
    points = np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1)  # [y, x, (kx, ky)]
    inside = np.hypot(*points.T) < NYQUIST
    slices = SliceMaker(_structure(density), points, torch.complex128)(np.eye(3)[None])[0].numpy()
    image = density.astype(np.float32).astype(np.float64).sum(axis=0) * PIXEL**3
    expected = np.fft.fft2(np.fft.ifftshift(image))
    np.testing.assert_allclose(slices[inside.T], expected[inside.T], atol=1e-8)


def test_beyond_the_band_limit_a_slice_is_zero():
    density = np.random.default_rng(8).normal(size=(16,) * 3)
    grid = _grid(2 * NYQUIST, radii=10)
    slices = SliceMaker(_structure(density, k_max=0.6 * NYQUIST), grid)(random_rotations(2, np.random.default_rng(9)))
    outside = grid.radii > 0.6 * NYQUIST
    assert outside.any() and not outside.all()
    assert torch.all(slices[:, outside] == 0)
    assert torch.all(slices[:, ~outside].abs().sum(dim=-1) > 0)


def test_many_views_in_batches_equal_single_views(monkeypatch):
    from cryolike_scipion.engine import slices as module

    density = np.random.default_rng(10).normal(size=(12,) * 3)
    rotations, grid = random_rotations(7, np.random.default_rng(11)), _grid(radii=4, angles=8)
    maker = SliceMaker(_structure(density), grid, torch.complex128)
    together = maker(rotations)
    monkeypatch.setattr(module, "_POINTS_AT_ONCE", 20)
    torch.testing.assert_close(maker(rotations), together, atol=1e-12, rtol=0)
    assert maker(rotations[:0]).shape == (0, 4, 4)


def test_relions_projections_of_a_real_map_show_the_real_particles():
    folder = shared_data("trpv1_real")
    density = read_map(folder / "map.mrc")
    size, pixel = density.density.shape[0], density.pixel_size
    images = mrcfile.read(folder / "particles.mrcs").astype(np.float64)
    table = gemmi.cif.read(str(folder / "particles.star")).find_block("particles")
    column = {
        name: np.array([float(v) for v in table.find_loop(f"_rln{name}")])
        for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "DefocusU",
                     "DefocusV", "DefocusAngle", "PhaseShift")
    }  # fmt: skip
    axis = np.fft.fftfreq(size, pixel)
    kx, ky = np.meshgrid(axis, axis, indexing="xy")
    maker = SliceMaker(_structure(density.density, 0.5 / pixel, pixel), np.stack([kx, ky], axis=-1), torch.complex128)
    transfer = ctf(
        torch.as_tensor(np.hypot(kx, ky)), torch.as_tensor(np.arctan2(ky, kx)),
        *(torch.as_tensor(column[name])[:, None, None] for name in ("DefocusU", "DefocusV", "DefocusAngle")),
        300.0, 2.0, 0.1, torch.as_tensor(column["PhaseShift"])[:, None, None],
    ).numpy()  # fmt: skip
    origin = [column[name][:, None, None] for name in ("OriginXAngst", "OriginYAngst")]
    transfer = transfer * np.exp(2j * np.pi * (kx * origin[0] + ky * origin[1]))
    offset = np.arange(size) - size // 2
    mask = np.hypot(offset[:, None], offset[None]) < 20

    def mean_correlation(rotations):
        shown = np.fft.fftshift(np.fft.ifft2(maker(rotations).numpy() * transfer).real, axes=(1, 2))
        pairs = [np.corrcoef(image[mask], model[mask])[0, 1] for image, model in zip(images, shown)]
        return np.mean(pairs)

    at_poses = mean_correlation(matrix_from_euler(column["AngleRot"], column["AngleTilt"], column["AnglePsi"]))
    rng = np.random.default_rng(0)
    at_random = np.mean([mean_correlation(random_rotations(len(images), rng)) for _ in range(20)])
    assert at_poses == pytest.approx(0.245, abs=0.01)
    assert at_random < 0.11


def test_single_frequencies_and_the_total():
    density = np.random.default_rng(12).normal(size=(10,) * 3).astype(np.float32)
    volume = FourierVolume(_structure(density), torch.complex128)
    total = volume.at(np.zeros((1, 3)))[0]
    assert total == pytest.approx(density.astype(np.float64).sum() * PIXEL**3, rel=1e-10)


def _soft_ball(size, radius, seed=0):
    """Noise within a radius (voxels), as a structure that was cut."""
    axis = np.arange(size) - size // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return np.random.default_rng(seed).normal(size=(size,) * 3) * np.clip(radius - distance, 0, 1)


@pytest.mark.parametrize("eps", [1e-3, 1e-4, 1e-5])
def test_tabulated_spheres_equal_the_interpolated_volume_on_every_ring(eps):
    structure, grid = _structure(_soft_ball(40, 14)), _grid(radii=24, angles=96)
    # The poles and the meridian that the table begins with are where an index may be wrong.
    special = matrix_from_euler(np.array([0, 0, 90, 30, 180.0]), np.array([0, 90, 90, 180, 1e-7]), np.array([0, 0, 90, 5, 0.0]))
    rotations = np.concatenate([random_rotations(50, np.random.default_rng(1)), special])
    found = SliceMaker(structure, grid, eps=eps)(rotations)
    exact = SliceMaker(structure, grid, torch.complex128)(rotations)
    error = (found - exact).abs().square().mean(dim=(0, 2)).sqrt()
    assert torch.all(error < eps * exact.abs().square().mean(dim=(0, 2)).sqrt())
    assert torch.all((found - exact).abs() < 10 * eps * exact.abs().amax(dim=(0, 2))[:, None])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("on", ["polar grid", "points"])
def test_views_sliced_by_several_threads_equal_those_by_one(dtype, on):
    grid = _grid(radii=20, angles=64)
    points = grid if on == "polar grid" else grid.points_half()
    maker = SliceMaker(_structure(_soft_ball(24, 10)), points, dtype)
    views = [random_rotations(9, np.random.default_rng(i)) for i in range(24)]
    alone = [maker(rotations) for rotations in views]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(maker, views))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other, one, atol=0, rtol=0)
