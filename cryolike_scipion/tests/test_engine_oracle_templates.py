"""Templates of the reference program, of a map and of atoms, with and without the box transform."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryolike_scipion.engine import atoms
from cryolike_scipion.engine.atom_density import transform
from cryolike_scipion.engine.fourier_volume import FourierVolume
from cryolike_scipion.engine.polar_grid import PolarGrid
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import Structure

from .helpers import shared_data


@pytest.fixture(scope="module")
def oracle():
    return np.load(shared_data("oracle") / "oracle.npz")


@pytest.fixture(scope="module")
def grid(oracle):
    """CryoLike's K is in half boxes: k = 2 K / box."""
    factor = 2.0 / float(oracle["box_size"])
    weights = oracle["weight_shells"] * (2 * np.pi) ** 2 * factor**2
    return PolarGrid(oracle["radius_shells"] * factor, weights, 64, float(oracle["radius_max"]) * factor)


def _full_circle(half):
    return np.concatenate([half, half.conj()], axis=-1)


def _close(ours, theirs):
    return np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


def _box_transform(oracle):
    """sinc(2 Kx) sinc(2 Ky), the transform of the box, 1 at zero frequency."""
    return oracle["mask_points_nq"] / 4.0


def test_map_templates_before_and_after_removal_of_the_box_transform(oracle, grid):
    pixel = float(oracle["pixel_size"])
    density = np.ascontiguousarray(oracle["volume_xyz"].transpose(2, 1, 0))  # CryoLike's first index is x
    structure = Structure(density, pixel, "oracle", "C1", Path("oracle"), 48.0, 0.5 / pixel, "map")
    # Its azimuth is RELION's rot and its polar angle is tilt.
    views = matrix_from_euler(np.rad2deg(oracle["view_azimu"]), np.rad2deg(oracle["view_polar"]), 0.0)
    maker = SliceMaker(structure, grid, torch.complex128)
    # CryoLike's unit: a plain sum over voxels times pi / 32 for this box.
    unit = np.pi / 32 / pixel**3
    before = _full_circle(maker(views).numpy()) * unit
    total = FourierVolume(structure, torch.complex128).at(np.zeros((1, 3)))[0].real * unit
    after = before - _box_transform(oracle) * total
    theirs = oracle["templates_raw_snq"]
    assert _close(after, theirs)
    assert _close(before, theirs + _box_transform(oracle) * total)
    # The intended difference: near zero frequency our template keeps the mean of the map, theirs does not.
    assert np.abs(before[:, 0]).mean() == pytest.approx(abs(total), rel=0.05)
    assert np.abs(theirs[:, 0]).mean() < 0.05 * abs(total)


def _atom_templates(oracle, grid, weights, make):
    azimuth, polar, gamma = np.rad2deg(oracle["atoms_view_abg"])  # gamma is psi
    views = matrix_from_euler(azimuth, polar, gamma)
    frequencies = (grid.points_half().reshape(-1, 2) @ views[:, :2]).reshape(-1, 3)
    forms = tuple(make(float(radius)) for radius in oracle["atoms_radius"])
    model = atoms.AtomModel(oracle["atoms_xyz"], weights, np.arange(len(forms)), forms, "oracle", np.zeros(3))
    values = transform(model, frequencies).reshape(len(views), grid.n_radii, grid.n_half)
    return _full_circle(values), transform(model, np.zeros((1, 3)))[0].real


def test_gaussian_atoms_before_and_after_removal_of_the_box_transform(oracle, grid):
    # CryoLike divides a Gaussian of unit integral by (2π)^{3/2} r³ once more (r in half boxes), and by the
    # number of atoms.
    radius = oracle["atoms_radius"] * 2.0 / float(oracle["box_size"])
    weights = (2 * np.pi) ** -1.5 * radius**-3 / len(radius)
    before, total = _atom_templates(oracle, grid, weights, atoms.gaussian)
    theirs = oracle["atoms_gauss_snq"]
    assert _close(before - _box_transform(oracle) * total, theirs)
    assert _close(before, theirs + _box_transform(oracle) * total)


def test_our_gaussians_have_unit_integral_where_the_references_shrink_with_radius(oracle, grid):
    radius = oracle["atoms_radius"]
    assert (radius[0], radius[-1]) == (2.0, 4.0)
    ours = [atoms.gaussian(r).at(np.zeros(1))[0] for r in (radius[0], radius[-1])]
    assert ours == [1.0, 1.0]
    half_box = float(oracle["box_size"]) / 2
    theirs = [(2 * np.pi) ** -1.5 * (r / half_box) ** -3 for r in (radius[0], radius[-1])]
    assert theirs == [pytest.approx(877.74, abs=0.01), pytest.approx(109.72, abs=0.01)]


def test_hard_sphere_atoms(oracle, grid):
    # CryoLike's unit: three quarters of the ball's transform in half boxes cubed, over the number of atoms;
    # nothing removed.
    half_box = float(oracle["box_size"]) / 2
    weights = np.full(10, 0.75 / half_box**3 / 10)
    values, _ = _atom_templates(oracle, grid, weights, atoms.Ball)
    assert _close(values, oracle["atoms_sphere_snq"])
