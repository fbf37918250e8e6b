"""Scores of the reference program, recomputed from our inner products with its definitions; and where ours differ.

Index letters: m image, s template, d displacement, w in-plane rotation, n radius, q angle. The formulas of the
reference stand in this file only; the engine has no compatibility mode.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import gammaln, logsumexp

from cryolike_scipion.engine.correlation import correlate, shift_factors, shifted_rows
from cryolike_scipion.engine.ctf import ctf
from cryolike_scipion.engine.likelihood import ScalePrior, degrees_of_freedom, log_evidence
from cryolike_scipion.engine.polar_grid import PolarGrid, choose_grid, gauss_radial_rule
from cryolike_scipion.engine.polar_images import transform_to_polar
from cryolike_scipion.engine.radial_basis import plain_basis
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import Structure
from cryolike_scipion.engine.template_power import power_rule, power_weights, ring_power, template_power

from .helpers import shared_data

N_ANGLES = 64


@pytest.fixture(scope="module")
def oracle():
    return dict(np.load(shared_data("oracle") / "oracle.npz"))


@pytest.fixture(scope="module")
def grid(oracle):
    """The reference's disc in our units: k = 2 K / box, but its weights (in K²) as they are."""
    factor = 2.0 / float(oracle["box_size"])
    weights = oracle["integration_weights_nq"].sum(axis=1)
    return PolarGrid(oracle["radius_shells"] * factor, weights, N_ANGLES, float(oracle["radius_max"]) * factor)


@pytest.fixture(scope="module")
def images(oracle, grid):
    """Its converter (minus mean, over largest absolute value), our transform, unit norm: complex128 [m, n, q]."""
    raw = oracle["images_raw_mxy"]
    centred = raw - raw.mean(axis=(1, 2), keepdims=True)
    centred /= np.abs(centred).max(axis=(1, 2), keepdims=True)
    rows_are_y = torch.as_tensor(np.ascontiguousarray(centred.transpose(0, 2, 1)))  # its first index is x
    half = transform_to_polar(rows_are_y, grid, float(oracle["pixel_size"]), 1e-14).numpy()
    full = _full(half)
    return full / np.sqrt(_power(full, oracle))[:, None, None]


@pytest.fixture(scope="module")
def templates(oracle):
    """Its templates, which `test_engine_oracle_templates` obtains from our slices: complex128 [s, n, q]."""
    return oracle["templates_raw_snq"] / oracle["template_l2_norm_s"][:, None, None]


@pytest.fixture(scope="module")
def powers(oracle, templates):
    """<T,T> behind the CTF at every in-plane rotation, [m, s, w]: |T(theta + gamma)|² CTF² summed over the grid."""
    squared, transfer = np.abs(templates) ** 2, oracle["ctf_mnq"] ** 2 * oracle["integration_weights_nq"]
    turned = np.stack([np.roll(squared, -w, axis=2) for w in range(N_ANGLES)], axis=1)
    return np.einsum("swnq,mnq->msw", turned, transfer, optimize=True)


@pytest.fixture(scope="module")
def products(oracle, grid, images, templates):
    """<Y, T posed> of our kernel at the reference's poses, float64 [m, s, d, w]."""
    basis = plain_basis(grid, 32, torch.complex128)
    packed = basis.project(torch.as_tensor(templates[..., :32].copy()))
    factors = shift_factors(grid, _our_origins(oracle).reshape(-1, 2), torch.float64)  # of d and w
    found = np.empty((4, 96, 9, N_ANGLES))
    for m, image in enumerate(images):
        matched = torch.as_tensor(oracle["ctf_mnq"][m] * image)[None, :, :32]
        b = correlate(shifted_rows(matched, factors, basis), packed, basis, N_ANGLES).numpy().reshape(9, N_ANGLES, 96, N_ANGLES)
        found[m] = np.einsum("dwsw->sdw", b)  # its displacement stands for another origin at every rotation
    return found


@pytest.fixture(scope="module")
def alternating(oracle, grid, images, templates):
    """The part of its 64-angle sums in the order q = 32, which aliases with q = -32: float64 [m, s, d, w]."""
    sign = (-1.0) ** np.arange(N_ANGLES)
    points = np.concatenate([grid.points_half(), -grid.points_half()], axis=1)
    phase = np.exp(-2j * np.pi * np.einsum("nqx,dwx->dwnq", points, _our_origins(oracle)))
    moved = np.einsum("mnq,dwnq,q->mdwn", oracle["ctf_mnq"] * images, phase, sign, optimize=True) / N_ANGLES
    order = (templates * sign).mean(axis=2)
    return np.einsum("mdwn,n,sn->msdw", moved.conj(), grid.weights, order, optimize=True).real * sign


def _full(half):
    return np.concatenate([half, half.conj()], axis=-1)


def _power(values, oracle):
    return (np.abs(values) ** 2 * oracle["integration_weights_nq"]).sum(axis=(-2, -1))


def _our_origins(oracle):
    """It shifts by d, then turns by gamma: our origin is -R(-gamma) d. float64 [d, w, 2]."""
    x, y = oracle["displacements_xy"].astype(np.float64)[:, :, None]
    gamma = oracle["theta_shell"]
    return -np.stack([np.cos(gamma) * x + np.sin(gamma) * y, np.cos(gamma) * y - np.sin(gamma) * x], axis=-1)


def _close(ours, theirs, tolerance=1e-9):
    return np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def _mask_products(oracle, images, templates):
    """Its <s,T> (unposed, behind the CTF) [m, s], <s,Y> [m], <s,s>."""
    mask = oracle["mask_points_nq"] * oracle["integration_weights_nq"]
    with_templates = np.einsum("snq,mnq,nq->ms", templates, oracle["ctf_mnq"], mask, optimize=True).real
    return with_templates, (images * mask).sum(axis=(1, 2)).real, (oracle["mask_points_nq"] * mask).sum()


def _their_likelihood(a, b, c, ss, count):
    """BioEM-like, from offset-projected products: -p ln D - ½ ln A + constant, p = count/2 - 2."""
    p = count / 2 - 2
    constant = (3 - count) / 2 * np.log(2 * np.pi) - np.log(2) - 0.5 * np.log(ss) + gammaln(p) + p * np.log(2 * ss)
    return -p * np.log(ss * (c - b**2 / a)) - 0.5 * np.log(a * ss) + constant


@pytest.fixture(scope="module")
def likelihoods(oracle, images, templates, powers, products, alternating):
    """Its log-likelihood of every pose, [m, s, d, w]."""
    in_mask, of_image, ss = _mask_products(oracle, images, templates)
    a = powers - in_mask[..., None] ** 2 / ss
    b = products + alternating - (in_mask * of_image[:, None] / ss)[..., None, None]
    c = _power(images, oracle) - of_image**2 / ss
    count = int(oracle["n_pixels"]) ** 2
    return _their_likelihood(a[:, :, None], b, c[:, None, None, None], ss, count)


def _best(oracle, cc):
    """Indices (m, s, d, w) of the best pose of each image."""
    s, d, w = np.unravel_index(cc.reshape(4, -1).argmax(axis=1), cc.shape[1:])
    return np.arange(4), s, d, w


def test_image_coefficients(oracle, images):
    assert _close(images, oracle["images_fourier_mnq"])
    # The float32 images that its converter writes are the same to their rounding only.
    stored = torch.as_tensor(oracle["images_centered_mxy"].transpose(0, 2, 1).astype(np.float64))
    assert stored.abs().amax() == 1.0


def test_template_power_at_every_inplane_rotation(oracle, powers):
    assert _close(powers, oracle["ixx_msw"])


def test_cross_correlations(oracle, powers, products, alternating):
    cc = (products + alternating) / np.sqrt(powers)[:, :, None]
    assert np.abs(cc - oracle["cc_msdw"]).max() < 1e-9
    # Our orders end at q = 31: its last one is aliased (q = 32 is also q = -32), and it is not small, since its
    # 64 angles do not resolve a box of 32 pixels. Our own rule takes more angles for this box.
    cut = np.abs(products / np.sqrt(powers)[:, :, None] - oracle["cc_msdw"]).max()
    assert cut == pytest.approx(1.16e-3, rel=0.01)
    ours = choose_grid(float(oracle["radius_max"]) * 2 / 96.0, 48.0, 48.0, 1e-6)
    assert ours.n_angles >= 128 and ours.n_radii > 33


def test_optimal_poses(oracle, powers, products, alternating):
    cc = (products + alternating) / np.sqrt(powers)[:, :, None]
    best = _best(oracle, cc)
    assert np.abs(cc[best] - oracle["opt_cross_correlation_M"]).max() < 1e-9
    assert np.array_equal(best[1], oracle["opt_optimal_template_M"])
    shifts = oracle["displacements_xy"][:, best[2]]
    assert np.array_equal(shifts[0], oracle["opt_optimal_displacement_x_M"])
    assert np.array_equal(shifts[1], oracle["opt_optimal_displacement_y_M"])
    assert np.allclose(oracle["theta_shell"][best[3]], oracle["opt_optimal_inplane_rotation_M"], atol=1e-12)
    # and of every template
    assert np.abs(cc.max(axis=(2, 3)) - oracle["odr_cross_correlation_MS"]).max() < 1e-9
    where = cc.reshape(4, 96, -1).argmax(axis=2) // N_ANGLES
    assert np.array_equal(oracle["displacements_xy"][0][where], oracle["odr_optimal_displacement_x_MS"])
    assert np.array_equal(oracle["displacements_xy"][1][where], oracle["odr_optimal_displacement_y_MS"])


def test_integrated_likelihood_of_every_template(oracle, likelihoods):
    assert _close(logsumexp(likelihoods, axis=(2, 3)), oracle["ill_ms"])


def test_likelihood_at_the_optimum(oracle, grid, images, templates, powers, products, alternating):
    """Here it does take <s,T> of the posed template."""
    sums = products + alternating
    m, s, d, w = _best(oracle, sums / np.sqrt(powers)[:, :, None])
    mask = oracle["mask_points_nq"] * oracle["integration_weights_nq"]
    _, of_image, ss = _mask_products(oracle, images, templates)
    points = np.concatenate([grid.points_half(), -grid.points_half()], axis=1)
    posed = []
    for i in range(4):
        origin = _our_origins(oracle)[d[i], w[i]]
        turned = np.roll(templates[s[i]], -w[i], axis=-1) * np.exp(2j * np.pi * points @ origin)
        posed.append((turned * oracle["ctf_mnq"][i] * mask).sum().real)
    posed = np.array(posed)
    a = powers[m, s, w] - posed**2 / ss
    b = sums[m, s, d, w] - posed * of_image / ss
    c = 1.0 - of_image**2 / ss
    found = _their_likelihood(a, b, c, ss, int(oracle["n_pixels"]) ** 2)
    assert _close(found, oracle["ll_opt_m"])


# Intended differences: theirs and ours, in numbers.


def test_difference_view_weights_are_added_as_logarithms(oracle, likelihoods):
    by_template = logsumexp(likelihoods, axis=(2, 3)) - np.log(9 * N_ANGLES)
    weights = oracle["view_weights"]
    theirs = logsumexp(by_template + weights, axis=1)
    assert _close(theirs, oracle["ill_m"])
    ours = logsumexp(by_template + np.log(weights / weights.sum()), axis=1)
    # An average cannot exceed the best template's value; a sum with unnormalised weights, 4.6 nat above, does not
    # care.
    assert theirs == pytest.approx([2390.674197, 2414.840592, 2465.039249, 2419.011917], abs=1e-6)
    assert ours == pytest.approx([2386.022520, 2410.052029, 2460.248497, 2414.360240], abs=1e-5)


def test_difference_the_exponent_and_the_count_of_values(oracle, images, templates, powers, products):
    """Log-odds of two poses of image 0: p = n/2 - 2 against the exponent (n - 2)/2 of flat priors and 1/lambda."""
    in_mask, of_image, ss = _mask_products(oracle, images, templates)
    s, count = np.array([14, 60]), int(oracle["n_pixels"]) ** 2
    where = products[0, s].reshape(2, -1).argmax(axis=1)
    a = powers[0, s, where % N_ANGLES] - in_mask[0, s] ** 2 / ss
    b = products[0, s].reshape(2, -1)[[0, 1], where] - in_mask[0, s] * of_image[0] / ss
    c = 1.0 - of_image[0] ** 2 / ss
    theirs = np.subtract(*_their_likelihood(a, b, c, ss, count))
    flat = ScalePrior(flat=True)
    ours_same_count = np.subtract(*log_evidence(a, b, c, count, flat))
    assert ours_same_count - theirs == pytest.approx(np.diff(np.log(c - b**2 / a))[0], abs=1e-9)
    # The band holds only pi/4 of the 1,024 pixels' values.
    dof = degrees_of_freedom(1 / 6, float(oracle["pixel_size"]), torch.ones(32, 32))
    assert dof == pytest.approx(np.pi / 4 * count, rel=1e-12)
    ours = np.subtract(*log_evidence(a, b, c, dof, flat))
    assert [theirs, ours_same_count, ours] == pytest.approx([135.5284, 135.7940, 106.6061], abs=1e-3)


def test_difference_the_offset_is_projected_out_of_image_and_template(oracle, grid, images, templates, powers, products):
    """Theirs: no projection, but templates less the box transform times F(0). Ours: their mean kept, offset fitted."""
    pixel = float(oracle["pixel_size"])
    _, s, d, w = _best(oracle, products / np.sqrt(powers)[:, :, None])
    density = np.ascontiguousarray(oracle["volume_xyz"].transpose(2, 1, 0))
    structure = Structure(density, pixel, "oracle", "C1", Path("oracle"), 48.0, 0.5 / pixel, "map")
    views = matrix_from_euler(
        np.rad2deg(oracle["view_azimu"][s]), np.rad2deg(oracle["view_polar"][s]), np.rad2deg(oracle["theta_shell"][w])
    )
    slices = _full(SliceMaker(structure, grid, torch.complex128)(views).numpy())
    points = np.concatenate([grid.points_half(), -grid.points_half()], axis=1)
    phase = np.exp(2j * np.pi * np.einsum("nqx,mx->mnq", points, _our_origins(oracle)[d, w]))
    posed = slices * phase * oracle["ctf_mnq"]
    weight, mask = oracle["integration_weights_nq"], oracle["mask_points_nq"]
    ss, sy = (mask**2 * weight).sum(), (images * mask * weight).sum(axis=(1, 2)).real
    st = (posed * mask * weight).sum(axis=(1, 2)).real
    a = _power(posed, oracle) - st**2 / ss
    b = (images.conj() * posed * weight).sum(axis=(1, 2)).real - st * sy / ss
    ours = b / np.sqrt(a * (1.0 - sy**2 / ss))
    theirs = oracle["opt_cross_correlation_M"]
    assert np.round(theirs, 4).tolist() == [0.6789, 0.6971, 0.7313, 0.6999]
    assert np.round(ours, 4).tolist() == [0.6838, 0.7018, 0.7343, 0.7031]
    # The density of this map is positive, so that its mean belongs to it and fits the image a little better.
    assert np.all(ours > theirs)


def test_difference_astigmatism_has_a_sign(oracle, grid, images, templates, products, powers, alternating):
    """Image 1 has U < V. Scores with the right CTF and with the reference's, which turns the axis by 90 degrees."""
    radii, theta = torch.as_tensor(grid.radii)[:, None], torch.as_tensor(oracle["theta_shell"])
    cs, kv, contrast = (float(value) for value in oracle["ctf_consts"])
    u, v = float(oracle["ctf_defocusU"][1]), float(oracle["ctf_defocusV"][1])
    right = ctf(radii, theta, u, v, float(oracle["ctf_angle_deg"][1]), kv, cs, contrast).numpy()
    s, d, w = (index[1] for index in _best(oracle, (products + alternating) / np.sqrt(powers)[:, :, None])[1:])
    points = np.concatenate([grid.points_half(), -grid.points_half()], axis=1)
    posed = np.roll(templates[s], -w, axis=-1) * np.exp(2j * np.pi * points @ _our_origins(oracle)[d, w])
    scores = []
    for transfer in (oracle["ctf_mnq"][1], right):
        behind = posed * transfer
        product = (images[1].conj() * behind * oracle["integration_weights_nq"]).sum().real
        scores.append(product / np.sqrt(_power(behind, oracle)))
    assert scores[0] == pytest.approx(float(oracle["opt_cross_correlation_M"][1]), abs=1e-9)
    assert scores == pytest.approx([0.697101, 0.697523], abs=1e-5)


def test_difference_we_rotate_before_we_shift(oracle, products, powers, alternating):
    """A displacement of the reference as our origin: right only after -R(-gamma); the truth says the same."""
    cc = (products + alternating) / np.sqrt(powers)[:, :, None]
    _, _, d, w = _best(oracle, cc)
    displacement = oracle["displacements_xy"][:, d].T.astype(np.float64)
    ours = _our_origins(oracle)[d, w]
    # The particle sits at minus our origin, whatever its in-plane angle: about half a 6 Å step from the truth.
    truth = oracle["true_shift_xy"].T
    assert np.abs(-ours - truth).max() < 3.2
    assert np.abs(displacement - truth).max() > 8.0


def test_template_power_by_product_integration_is_the_same_integral(oracle):
    """CTF² |T|² at psi = 0 from our power nodes, as from the reference's 33 radii (which resolve this small map)."""
    pixel, k_max = float(oracle["pixel_size"]), float(oracle["radius_max"]) * 2 / float(oracle["box_size"])
    density = np.ascontiguousarray(oracle["volume_xyz"].transpose(2, 1, 0))
    structure = Structure(density, pixel, "oracle", "C1", Path("oracle"), 48.0, 0.5 / pixel, "map")
    views = matrix_from_euler(np.rad2deg(oracle["view_azimu"][:6]), np.rad2deg(oracle["view_polar"][:6]), 0.0)
    cs, kv, contrast = (float(value) for value in oracle["ctf_consts"])
    arguments = {
        "defocus_u": oracle["ctf_defocusU"],
        "defocus_v": oracle["ctf_defocusV"],
        "defocus_angle_deg": oracle["ctf_angle_deg"],
        "phase_shift_deg": oracle["ctf_phase_deg"],
        "voltage_kv": np.full(4, kv),
        "cs_mm": np.full(4, cs),
        "amplitude_contrast": np.full(4, contrast),
    }
    arguments = {name: torch.as_tensor(values) for name, values in arguments.items()}

    def direct(radii, weights, n_angles):
        at = PolarGrid(radii, weights, n_angles, k_max)
        slices = _full(SliceMaker(structure, at, torch.complex128)(views).numpy())
        theta = torch.as_tensor(2 * np.pi * np.arange(n_angles) / n_angles)
        columns = {name: value[:, None, None] for name, value in arguments.items()}
        transfer = ctf(torch.as_tensor(radii)[:, None], theta, **columns).numpy()
        return np.einsum("n,snq,mnq->ms", weights, np.abs(slices) ** 2, transfer**2, optimize=True) / n_angles

    theirs = direct(*gauss_radial_rule(33, k_max), N_ANGLES)
    ours_grid = choose_grid(k_max, 48.0, 48.0, 1e-6)
    rule = power_rule(ours_grid, 48.0, arguments)
    slices = SliceMaker(structure, ours_grid, torch.complex128)(views)
    ours = template_power(power_weights(rule, arguments), ring_power(rule, slices), 72)[..., 0].numpy()
    assert np.abs(ours / theirs - 1).max() < 1e-6
