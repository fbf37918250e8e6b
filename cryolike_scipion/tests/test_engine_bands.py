"""Low-pass versions of a comparison: their images and templates against those made on the small grid from the start."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.correlation import correlate, shift_factors
from cryolike_scipion.engine.image_stacks import read_images
from cryolike_scipion.engine.polar_grid import choose_grid
from cryolike_scipion.engine.polar_images import padded_size, polar_images
from cryolike_scipion.engine.rotations import random_rotations
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.template_power import ctf_arguments, delocalisation, power_rule

from .level_trial import level_set, prepared


@pytest.fixture(scope="module", params=[None, 150.0], ids=["no mask", "mask"])
def case(request, tmp_path_factory):
    return level_set(tmp_path_factory.mktemp("bands"), 0.1, mask_diameter=request.param)


def _direct(case, grid, rule):
    """The images, converted on another grid in float64."""
    setup, rows = case.setup, case.rows
    settings, particles = setup.settings, setup.particles
    group, arguments = particles.optics[0], ctf_arguments(particles, rows)
    raw = torch.as_tensor(read_images(particles, rows)[0], dtype=torch.float64)
    return polar_images(
        raw - raw.mean(dim=(1, 2), keepdim=True), torch.as_tensor(particles.sign[rows]), arguments, settings.images,
        grid, rule, settings.window, group.pixel_size,
        padded_size(group.box, group.pixel_size, settings.window, delocalisation(arguments, settings.k_max)),
    )  # fmt: skip


def test_bands_are_halves_on_ever_smaller_grids(case):
    bands = case.setup.bands
    limits = [band.grid.k_max for band in bands]
    assert len(bands) >= 2 and limits[-1] == case.setup.settings.grid.k_max
    for low, high in zip(bands, bands[1:]):
        assert low.grid.k_max == pytest.approx(high.grid.k_max / 2)
        assert low.grid.n_radii < high.grid.n_radii and low.n_inplane < high.n_inplane
        assert low.basis.size < 0.6 * high.basis.size
        assert [bank.scale for bank in low.banks] == [bank.scale for bank in high.banks]
        assert all(bank.basis is low.basis for bank in low.banks)
        assert low.n_inplane >= 2 * low.basis.n_orders


def test_powers_of_a_band_are_those_of_its_grid_and_of_the_whole_image(case):
    for band, images in zip(case.setup.bands[:-1], case.piece.bands):
        direct = _direct(case, band.grid, band.rule)
        assert float((images.power - direct.power).abs().max()) <= 1e-5 * float(direct.power.abs().max())
        assert float((images.offset - direct.offset).abs().max()) <= 1e-6 * float(direct.offset.abs().max())
        # The likelihood stays that of the whole image.
        for name in ("image_power", "cross_power", "mask_power", "dof"):
            assert torch.equal(getattr(images, name), getattr(case.images, name))


def test_slices_of_a_band_are_those_of_the_structure(case):
    rotations = random_rotations(6, np.random.default_rng(0))
    for band in case.setup.bands[:-1]:
        for bank, full in zip(band.banks, case.setup.banks):
            exact = SliceMaker(full.structure, band.grid, torch.complex128)(rotations) * full.scale
            error = (bank.slices(rotations) - exact).abs().square().mean().sqrt()
            assert float(error) < 1e-4 * float(exact.abs().square().mean().sqrt())


def test_products_of_a_band_are_those_up_to_its_limit(case):
    """Against the integral up to the band limit on a grid of its own, made for 1e-6.

    The full grid's radii are enough for products of the image with templates, but not for the image's outer parts by
    themselves; what their interpolation leaves is noise of a few per cent of the image's own, 0.3 nat where a band tells
    50 nat.
    """
    setup, rotations = case.setup, random_rotations(8, np.random.default_rng(1))
    origins, window = np.array([[0.0, 0.0], [5.0, -3.0]]), setup.settings.window
    radius = max(structure.radius for structure in setup.structures)
    for band, images in zip(setup.bands[:-1], case.piece.bands):
        grid = choose_grid(band.grid.k_max, window.radius + window.edge, radius, 1e-6)
        assert grid.n_radii > band.grid.n_radii
        direct = _direct(case, grid, power_rule(grid, radius, ctf_arguments(setup.particles, case.rows)))
        exact_rows = direct.matched[:, None] * shift_factors(grid, origins, torch.float64)
        weights = torch.as_tensor(grid.weights, dtype=torch.complex128)
        moved = images.matched[:, None] * shift_factors(band.grid, origins, torch.float32)
        rows = band.basis.project(moved.flatten(0, 1)).conj_physical()
        for bank, full in zip(band.banks, setup.banks):
            slices = SliceMaker(full.structure, grid, torch.complex128)(rotations) * full.scale
            exact = torch.einsum("rnw,vnw,n->rv", exact_rows.flatten(0, 1).conj(), slices, weights).real / grid.n_half
            b = correlate(rows, band.basis.project(bank.slices(rotations)), band.basis, band.n_inplane)[..., 0]
            assert float((b - exact).std() / exact.std()) < 0.06


def test_other_searches_have_the_full_band_only(tmp_path):
    case = level_set(tmp_path, 0.1, count=3)
    star, maps = tmp_path / "truth.star", [str(tmp_path / f"map_{i}.mrc") for i in (1, 2)]
    for search in ("exhaustive", "local", "fixed"):
        other = prepared(star, maps, search=search).setup
        assert len(other.bands) == 1 == len(other.levels[0]) and len(case.setup.bands) > 1
        assert other.bands[0].basis.size == case.setup.bands[-1].basis.size
        assert other.n_inplane == case.setup.n_inplane
