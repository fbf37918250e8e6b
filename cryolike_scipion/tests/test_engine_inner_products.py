"""Inner products on the polar grid against sums over pixels and over a dense disc, none of which the engine made."""

import numpy as np
import pytest
import torch
from scipy.special import j1

from cryolike_scipion.engine.correlation import shift_factors, shifted_rows
from cryolike_scipion.engine.image_prep import ImageSettings, soft_disc
from cryolike_scipion.engine.likelihood import ScalePrior, log_evidence
from cryolike_scipion.engine.pose_scores import posed_products, score_poses, shift_phase
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.engine.scoring import astigmatic, grid_evidence
from cryolike_scipion.engine.template_power import power_weights, ring_power, template_power
from cryolike_scipion.engine.views import view_table

from .blob_particles import PIXEL, Blobs, Comparison, DiscRule, optics

BOX, K_MAX = 40, 0.11
EULER = np.array([[25.0, 70.0, -40.0], [-130.0, 115.0, 88.0], [10.0, 20.0, 171.0]])
ORIGINS = np.array([[5.0, -3.5], [-6.0, 4.0], [0.0, 7.5]])
MASK = ImageSettings(normalise=False, mask_diameter=126.0, mask_edge=16.0)
PRIOR = ScalePrior(0.0, 3.0)


@pytest.fixture(scope="module")
def blobs():
    return Blobs.random(1, sigma=6.6, signed=True)


@pytest.fixture(scope="module")
def arguments():
    return optics(3)


@pytest.fixture(scope="module")
def dense():
    return DiscRule(K_MAX)


def _pictures(comparison, blobs):
    noise = np.random.default_rng(7).normal(size=(3, BOX, BOX))
    return 120.0 * comparison.clean(blobs, EULER, ORIGINS) + noise + 0.4


@pytest.fixture(scope="module", params=["no mask", "soft mask"])
def case(request, blobs, arguments):
    settings = MASK if request.param == "soft mask" else None
    comparison = Comparison(blobs.structure(), arguments, K_MAX, BOX, settings=settings, double=True)
    pixels = _pictures(comparison, blobs)
    mask = np.ones((BOX, BOX))
    if settings is MASK:
        mask = soft_disc(BOX, 63.0 / PIXEL, 16.0 / PIXEL).numpy()
    return comparison, pixels, comparison.images(pixels), mask


def _template(comparison, blobs, dense, m, rotation, origin):
    """Posed template behind the CTF of image m on the dense rule, and its pixels in a wide box."""
    values = comparison.bank.scale * dense.posed(blobs, rotation, origin) * dense.transfer(comparison.arguments, m)
    return values, dense.pixels(values, 3 * BOX)


def _middle(wide):
    return wide[BOX : 2 * BOX, BOX : 2 * BOX]


def test_image_powers_are_double_sums_over_pixels(case):
    """<Y,Y>, <s,Y> and <s,s> over the disc: Σ Y(x) Y(x') K(x - x'), K the transform of the disc."""
    _, pixels, images, mask = case
    axis = np.arange(BOX) * PIXEL
    y, x = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
    r = np.hypot(y[:, None] - y, x[:, None] - x)
    kernel = np.full(r.shape, np.pi * K_MAX**2)
    kernel[r > 0] = K_MAX * j1(2 * np.pi * K_MAX * r[r > 0]) / r[r > 0]
    kernel *= PIXEL**4
    masked, s = (pixels * mask).reshape(3, -1), mask.ravel()
    assert images.image_power.numpy() == pytest.approx(np.einsum("mi,ij,mj->m", masked, kernel, masked), rel=1e-9)
    assert images.mask_power.numpy() == pytest.approx(np.full(3, s @ kernel @ s), rel=1e-9)
    bound = np.sqrt((images.image_power * images.mask_power).numpy())
    assert np.abs(images.cross_power.numpy() - masked @ kernel @ s).max() < 1e-9 * bound.max()
    projected = images.image_power - images.cross_power**2 / images.mask_power
    assert torch.equal(images.projected_power, projected)


def _offsets(comparison, images, rotations):
    """Our <s,T> [m] of each image's posed template."""
    zeroth = comparison.bank.slices(rotations).real.mean(dim=-1)
    return (images.offset.double() * zeroth).sum(dim=1).numpy()


def test_products_of_posed_templates_are_sums_over_pixels(case, blobs, dense):
    """<Y,T> and <T,T> of image m at its own pose, before and after the offset is projected out."""
    comparison, pixels, images, mask = case
    rotations = matrix_from_euler(*EULER.T)
    bank = comparison.bank
    power, product = posed_products(images, bank.slices(rotations), shift_phase(bank, ORIGINS), bank)
    taken = _offsets(comparison, images, rotations)
    for m in range(3):
        values, wide = _template(comparison, blobs, dense, m, rotations[m], ORIGINS[m])
        inside = _middle(wide) * mask**2
        ss, sy, c = (float(v[m]) for v in (images.mask_power, images.cross_power, images.projected_power))
        a, b = PIXEL**2 * (wide**2).sum(), PIXEL**2 * (pixels[m] * inside).sum()
        assert a == pytest.approx(dense.dot(values, values), rel=1e-6)  # Parseval, but for what leaves 3 boxes
        assert float(power[m]) + taken[m] ** 2 / ss == pytest.approx(a, rel=1e-5)
        assert abs(float(product[m]) + taken[m] * sy / ss - b) < 1e-5 * np.sqrt(a * c)
        in_mask = PIXEL**2 * inside.sum()
        assert float(power[m]) == pytest.approx(a - in_mask**2 / ss, rel=1e-4)
        assert abs(float(product[m]) - (b - in_mask * sy / ss)) < 1e-4 * np.sqrt(a * c)


def test_single_precision_is_as_good_as_a_score_needs(blobs, arguments, case):
    comparison, pixels, images, _ = case
    single = Comparison(blobs.structure(), arguments, K_MAX, BOX, settings=comparison.settings)
    few = single.images(pixels.astype(np.float32))
    assert few.matched.dtype == torch.complex64 and images.matched.dtype == torch.complex128
    rotations = matrix_from_euler(*EULER.T)
    found = score_poses(few, rotations, ORIGINS, single.bank, PRIOR)
    exact = score_poses(images, rotations, ORIGINS, comparison.bank, PRIOR)
    assert np.abs(found.cc - exact.cc).max() < 2e-5
    assert np.abs(found.log_ratio - exact.log_ratio).max() < 0.02
    assert exact.cc.min() > 0.3  # there is something to see


def test_offset_of_a_template_in_box_and_mask(case, blobs, dense):
    """<s,T> of poses: ours from ring means, without order 2 of template and astigmatic CTF, against Σ M² T."""
    comparison, _, images, mask = case
    rotations = matrix_from_euler(*EULER.T)
    ours = _offsets(comparison, images, rotations)
    for m in range(3):
        values, wide = _template(comparison, blobs, dense, m, rotations[m], ORIGINS[m])
        exact = PIXEL**2 * (_middle(wide) * mask**2).sum()
        assert ours[m] == pytest.approx(exact, rel=1e-5)
        # What matters is its square: what the projection takes from a.
        assert abs(ours[m] ** 2 - exact**2) < 1e-4 * float(images.mask_power[m]) * dense.dot(values, values)


def test_offset_of_a_template_without_astigmatism(blobs, dense):
    arguments = optics(3, seed=3, astigmatism=0.0)
    comparison = Comparison(blobs.structure(), arguments, K_MAX, BOX, double=True)
    images = comparison.images(np.random.default_rng(0).normal(size=(3, BOX, BOX)))
    rotations = matrix_from_euler(*EULER.T)
    ours = _offsets(comparison, images, rotations)
    for m in range(3):
        _, wide = _template(comparison, blobs, dense, m, rotations[m], ORIGINS[m])
        assert ours[m] == pytest.approx(PIXEL**2 * _middle(wide).sum(), rel=1e-5)


@pytest.fixture(scope="module")
def spikes():
    """Points on voxels: a spectrum that does not fall off, so that the edge of the band counts."""
    rng = np.random.default_rng(4)
    voxels = np.unique(rng.integers(-5, 6, (30, 3)), axis=0)
    return Blobs(voxels * PIXEL, rng.normal(size=len(voxels)), 1e-9)


def _spike_structure(spikes):
    density = np.zeros((16, 16, 16), np.float32)
    for (x, y, z), weight in zip(np.round(spikes.centres / PIXEL).astype(int) + 8, spikes.weights):
        density[z, y, x] = weight / PIXEL**3
    radius = float(np.linalg.norm(spikes.centres, axis=1).max())
    blank = Blobs(spikes.centres, spikes.weights, 1.0).structure(16)
    return type(blank)(density, PIXEL, "spikes", "C1", blank.source, radius, 0.5 / PIXEL, "map")


def _errors_of_the_kernel(structure, source, dense):
    """b of the kernel at random poses of a grid, less the same on a dense disc: in units of √(<Y,Y><T,T>)."""
    arguments = optics(2, seed=5)
    comparison = Comparison(structure, arguments, K_MAX, BOX, reach=9.0, double=True)
    pixels = np.random.default_rng(1).normal(size=(2, BOX, BOX))
    images = comparison.images(pixels)
    rng = np.random.default_rng(2)
    table = view_table(rng.uniform(-180, 180, 7), rng.uniform(0, 180, 7))
    shifts = np.array([[0.0, 0.0], [8.0, 0.0], [-3.0, 5.5], [0.0, -9.0]])
    templates = comparison.bank.templates(table)
    n_inplane = 2 * comparison.bank.basis.n_orders + 6
    b = comparison.products(images, templates, shifts, n_inplane).numpy()
    transforms = [dense.transform(image) for image in pixels]
    errors = []
    for _ in range(40):
        m, o, v, g = (int(rng.integers(n)) for n in b.shape)
        rotation = matrix_from_euler(table.rot_deg[v], table.tilt_deg[v], 360.0 * g / n_inplane)
        values = comparison.bank.scale * dense.posed(source, rotation, shifts[o])
        values = values * dense.transfer(arguments, m)
        scale = np.sqrt(dense.dot(transforms[m], transforms[m]) * dense.dot(values, values))
        errors.append((b[m, o, v, g] - dense.dot(transforms[m], values)) / scale)
    return np.array(errors), float(images.dof[0])


def test_correlations_at_every_view_shift_and_angle(blobs, dense):
    errors, _ = _errors_of_the_kernel(blobs.structure(), blobs, dense)
    assert np.abs(errors).max() < 1e-5


def test_what_the_window_cuts_off_a_template_with_a_sharp_band_edge(spikes, dense):
    """Where the spectrum does not fall off, band-limited templates have tails outside the window.

    The error of b, in units of the standard deviation that the image's noise gives it (√(<Y,Y><T,T>/n)).
    """
    errors, dof = _errors_of_the_kernel(_spike_structure(spikes), spikes, dense)
    spread = np.sqrt(np.mean(errors**2) * dof)
    assert 0.01 < spread < 0.15


def test_origins_may_be_particular_to_each_image(spikes):
    comparison = Comparison(_spike_structure(spikes), optics(2, seed=5), K_MAX, BOX, double=True)
    images = comparison.images(np.random.default_rng(1).normal(size=(2, BOX, BOX)))
    own = np.array([[[1.0, 2.0], [3.0, -4.0]], [[-5.0, 0.5], [3.0, -4.0]]])
    grid, basis = comparison.grid, comparison.bank.basis
    together = shifted_rows(images.matched[:, None], shift_factors(grid, own, torch.float64), basis)
    for m in range(2):
        alone = shifted_rows(images.matched[m], shift_factors(grid, own[m], torch.float64), basis)
        assert torch.allclose(together[2 * m : 2 * m + 2], alone, rtol=0, atol=1e-14 * float(alone.abs().max()))
    assert not torch.allclose(together[0], together[2])


@pytest.mark.parametrize("defocus", [(7000.0, 9000.0), (24000.0, 28000.0)])
def test_template_power_behind_an_astigmatic_ctf(spikes, defocus):
    """<T,T> at every in-plane angle, also where the CTF oscillates faster than the search grid resolves."""
    arguments = optics(3, seed=3, defocus=defocus, astigmatism=1500.0)
    comparison = Comparison(_spike_structure(spikes), arguments, K_MAX, BOX, double=True)
    table = view_table([0.0, 40.0, -100.0], [10.0, 80.0, 130.0])
    power = ring_power(comparison.rule, comparison.bank.slices(table.rotations()))
    weights = power_weights(comparison.rule, arguments)
    n_inplane = 48
    found = template_power(weights, power, n_inplane).numpy()
    mean = template_power(weights, power).numpy()
    dense = DiscRule(K_MAX, 200, 128)
    swing = 0.0
    for m in range(3):
        squared = dense.transfer(arguments, m) ** 2
        for v in range(3):
            exact = []
            for g in range(0, n_inplane, 11):
                rotation = matrix_from_euler(table.rot_deg[v], table.tilt_deg[v], 360.0 * g / n_inplane)
                values = comparison.bank.scale * dense.posed(spikes, rotation, (0, 0))
                exact.append(dense.dot(values, values * squared))
            assert found[m, v, ::11] == pytest.approx(exact, rel=1e-5)
            swing = max(swing, np.ptp(exact) / np.mean(exact))
    assert swing > 1e-3  # the angle does matter
    assert np.abs(mean - found.mean(axis=2)).max() < 1e-6 * mean.max()


@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
def test_single_poses_and_the_grid_give_one_score(blobs, arguments, double):
    """`score_poses` at poses of a grid against `correlate` and `grid_evidence`."""
    comparison = Comparison(blobs.structure(), arguments, K_MAX, BOX, double=double)
    images = comparison.images(_pictures(comparison, blobs).astype(np.float64 if double else np.float32))
    bank, n_inplane = comparison.bank, 144
    table = view_table(EULER[:, 0], EULER[:, 1])
    templates = bank.templates(table)
    b = comparison.products(images, templates, ORIGINS, n_inplane)
    scores = grid_evidence(images, templates, PRIOR, n_inplane)
    assert astigmatic(images, templates) and scores.power.shape[2] == n_inplane
    rng = np.random.default_rng(0)
    o, v, g = (rng.integers(n, size=3) for n in (3, 3, n_inplane))
    g[0] = round(n_inplane * EULER[0, 2] / 360) % n_inplane
    o[0] = v[0] = 0
    rotations = matrix_from_euler(table.rot_deg[v], table.tilt_deg[v], 360.0 * g / n_inplane)
    single = score_poses(images, rotations, ORIGINS[o], bank, PRIOR)
    for m in range(3):
        product = float(b[m, o[m], v[m], g[m]] - scores.offset[m, v[m], 0])
        power = float(scores.power[m, v[m], g[m]])
        assert power == pytest.approx(single.power[m], rel=1e-5)
        assert abs(product - single.product[m]) < 1e-5 * np.sqrt(single.power[m] * single.image_power[m])
        c, n = float(images.projected_power[m]), float(images.dof[m])
        assert single.log_ratio[m] == pytest.approx(float(log_evidence(power, product, c, n, PRIOR)), abs=0.01)
        assert single.cc[m] == pytest.approx(product / np.sqrt(power * c), abs=1e-5)
    assert single.cc[0] > 0.3 > abs(single.cc[1])
