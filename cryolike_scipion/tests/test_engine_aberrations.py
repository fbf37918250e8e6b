"""Beam tilt, Zernike aberrations and anisotropic magnification: against RELION's programs, and through a run."""

import math
import subprocess

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolike_scipion import engine
from cryolike_scipion.engine import rotations
from cryolike_scipion.engine.aberrations import Aberrations, beam_tilt_coefficients, even_polynomials, odd_polynomials
from cryolike_scipion.engine.ctf import CtfPoints, ctf, wavelength
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.image_correction import corrected
from cryolike_scipion.engine.inspect_run import posed_templates
from cryolike_scipion.engine.particles import OpticsGroup, read_particles
from cryolike_scipion.engine.polar_grid import choose_grid
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.simulate import HalfPlane
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.template_power import (
    ctf_arguments,
    delocalisation,
    power_rule,
    power_weights,
    ring_power,
    template_power,
)

from .blob_particles import Blobs
from .helpers import program
from .particle_files import OPTICS, PARTICLES, write_set
from .small_sets import score, write_map

BOX, PIXEL, VOLTAGE, CS = 32, 2.5, 300.0, 2.7
NYQUIST = 0.5 / PIXEL
# About 2 radian at the Nyquist frequency each, and 11 % between the axes.
TILT = (9.0, -6.0)
ODD = (0.0, 0.0, 150.0, 0.0, 0.0, -90.0)  # RELION 3.1.3 forgets the fourth and fifth where there is a beam tilt, later ones add
EVEN = (0.3, 4.0, -6.0, 5.0, 500.0, -6.0, 8.0, 4.0, -400.0)
MATRIX = (1.05, 0.04, -0.02, 0.94)
COLUMNS = {
    "rlnBeamTiltX": f"{TILT[0]}",
    "rlnBeamTiltY": f"{TILT[1]}",
    "rlnOddZernike": "[" + ",".join(map(str, ODD)) + "]",
    "rlnEvenZernike": "[" + ",".join(map(str, EVEN)) + "]",
    **{f"rlnMagMat{place}": f"{value}" for place, value in zip(("00", "01", "10", "11"), MATRIX)},
}
HEAD = (
    "".join(PARTICLES)
    + "_rlnAngleRot #6\n_rlnAngleTilt #7\n_rlnAnglePsi #8\n_rlnOriginXAngst #9\n_rlnOriginYAngst #10\n_rlnRandomSubset #11\n"
)


def structure(box=BOX):
    return Blobs.random(5, count=30, radius=15.0, sigma=2.5).structure(box, PIXEL)


def optics(**columns):
    """An optics table with more columns than the plain one."""
    table = OPTICS.replace("2.500000 8 2", f"{PIXEL:.6f} {BOX} 2")
    head, row = table.rstrip("\n").rsplit("\n", 1)
    labels = "".join(f"_{label} #{i}\n" for i, label in enumerate(columns, 9))
    return f"{head}\n{labels}{row} {' '.join(columns.values())}\n"


def truth(count, seed=3, reach=5.0):
    rng = np.random.default_rng(seed)
    angles = np.stack(rotations.euler_from_matrix(rotations.random_rotations(count, rng)), axis=1)
    return angles, rng.uniform(-reach, reach, (count, 2)), rng.uniform(3000, 8000, count)


def write_particles(folder, count, **columns):
    """A STAR file of ``count`` poses, and those poses; its stack is noise until it is written."""
    angles, origins, defocus = truth(count)
    rows = [
        f"{i + 1:06d}@images.mrcs 1 {defocus[i]:.2f} {defocus[i] - 700:.2f} 35.0 "
        + " ".join(f"{v:.6f}" for v in (*angles[i], *origins[i]))
        + f" {i % 2 + 1}"
        for i in range(count)
    ]
    star = write_set(folder, count, optics(**columns), HEAD, rows)
    write_map(folder / "images.mrcs", np.random.default_rng(0).normal(size=(count, BOX, BOX)), PIXEL)
    return star, angles, origins


def observed(density, star):
    """Images as `aberrations` defines them, made frequency by frequency: float32 [m, N, N]."""
    particles = read_particles([star])
    shared = particles.optics[0].aberrations
    plane = HalfPlane(BOX, PIXEL, NYQUIST)
    k = plane.points()
    q = k @ shared.matrix.T
    slices = SliceMaker(density, q, torch.complex128)(rotations.matrix_from_euler(particles.rot, particles.tilt, particles.psi))
    arguments = {name: value[:, None] for name, value in ctf_arguments(particles, np.arange(len(particles))).items()}
    transfer = ctf(torch.as_tensor(np.hypot(*q.T)), torch.as_tensor(np.arctan2(q[:, 1], q[:, 0])), **arguments)
    origin = np.stack([particles.origin_x, particles.origin_y])
    phase = torch.as_tensor(2 * np.pi * origin.T @ k.T + shared.odd_phase(q[:, 0], q[:, 1]))
    return plane.image(slices * transfer * torch.polar(torch.ones_like(phase), phase)).float().numpy()


def write_observed(folder, density, count, noise=0.0, **columns):
    star, angles, origins = write_particles(folder, count, **columns)
    images = observed(density, star)
    images += noise * images.std() * np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    write_map(folder / "images.mrcs", images, PIXEL)
    return star, angles, origins


def correlation(one, other):
    a, b = (np.array(x, dtype=np.float64) for x in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


# ---------------------------------------------------------------- polynomials and columns


def test_the_first_polynomials_in_relions_order():
    x, y = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 50))
    r2 = x**2 + y**2
    odd = [y, x, 3 * x**2 * y - y**3, (3 * r2 - 2) * y, (3 * r2 - 2) * x, x**3 - 3 * x * y**2]
    np.testing.assert_allclose(odd_polynomials(6, x, y), odd, atol=1e-14)
    even = [
        np.ones(50), 2 * x * y, 2 * r2 - 1, x**2 - y**2, 4 * x * y * (x**2 - y**2), (4 * r2 - 3) * 2 * x * y,
        6 * r2**2 - 6 * r2 + 1, (4 * r2 - 3) * (x**2 - y**2), x**4 - 6 * x**2 * y**2 + y**4,
    ]  # fmt: skip
    np.testing.assert_allclose(even_polynomials(9, x, y), even, atol=1e-14)


def test_polynomials_are_symmetric_or_not():
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 20))
    np.testing.assert_allclose(odd_polynomials(20, -x, -y), -odd_polynomials(20, x, y), atol=1e-12)
    np.testing.assert_allclose(even_polynomials(25, -x, -y), even_polynomials(25, x, y), atol=1e-12)


def test_beam_tilt_is_coma():
    lam = float(wavelength(VOLTAGE))
    shared = Aberrations(odd=beam_tilt_coefficients((), TILT, CS, lam))
    x, y = np.random.default_rng(2).uniform(-0.2, 0.2, (2, 30))
    coma = -2 * np.pi * CS * 1e7 * lam**2 * (x**2 + y**2) * (x * TILT[0] + y * TILT[1]) * 1e-3
    np.testing.assert_allclose(shared.odd_phase(x, y), coma, atol=1e-9)


def test_columns_of_the_optics_table_are_read(tmp_path):
    star, *_ = write_particles(tmp_path, 2, **COLUMNS)
    (group,) = read_particles([star]).optics
    assert group.aberrations.magnification == MATRIX and group.aberrations.even == EVEN
    assert group.aberrations.odd == beam_tilt_coefficients(ODD, TILT, CS, float(wavelength(300.0)))
    assert group.nyquist == pytest.approx(NYQUIST * np.linalg.svd(np.reshape(MATRIX, (2, 2)))[1][1])
    plain = read_particles([write_particles(tmp_path / "plain", 2, rlnOddZernike="[0,0]", rlnBeamTiltX="0")[0]])
    assert plain.optics[0].aberrations == Aberrations()


def test_beam_tilt_of_the_particles_splits_their_group(tmp_path):
    rows = [f"{i + 1}@images.mrcs 1 10000 9000 0 {0.1 * (i % 2)} 0" for i in range(4)]
    star = write_set(tmp_path, head=PARTICLES + "_rlnBeamTiltX #6\n_rlnBeamTiltY #7\n", rows=rows)
    particles = read_particles([star])
    assert [bool(group.aberrations.odd) for group in particles.optics] == [False, True]
    assert particles.optics_index.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnOddZernike": "[0.1,x]"}, "rlnOddZernike is not a list of numbers"),
        ({"rlnEvenZernike": "[nan]"}, "rlnEvenZernike is not a list of numbers"),
        ({"rlnMagMat00": "0", "rlnMagMat11": "0"}, "the magnification matrix is"),
        ({"rlnCtfDataAreCtfCorrected": "1"}, "the images are corrected for their CTF"),
        ({"rlnCtfDataAreCtfPremultiplied": "1"}, "the images are multiplied by their CTF"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, columns, message):
    star, *_ = write_particles(tmp_path, 2, **columns)
    with pytest.raises(InputError, match=message) as caught:
        read_particles([star])
    assert caught.value.remedy and str(star) in str(caught.value)


def test_flags_that_say_no_are_no_obstacle(tmp_path):
    assert len(read_particles([write_particles(tmp_path, 2, rlnCtfDataAreCtfPremultiplied="0")[0]])) == 2


# ---------------------------------------------------------------- the CTF


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-300, 300), min_size=1, max_size=16), st.floats(-3e4, 3e4), st.floats(0, 180))
def test_many_ctfs_at_once_are_the_same(even, defocus, angle):
    rng = np.random.default_rng(0)
    kx, ky = rng.uniform(-0.2, 0.2, (2, 40))
    arguments = {
        "defocus_u": [defocus, 1e4], "defocus_v": [defocus - 500, 9e3], "defocus_angle_deg": [angle, 3.0],
        "voltage_kv": [VOLTAGE, 200.0], "cs_mm": [CS, 0.0], "amplitude_contrast": [0.1, 0.0],
        "even": [even, even[::-1]],
    }  # fmt: skip
    arguments = {name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    fast = CtfPoints(kx, ky)(arguments, torch.float64)
    broadcast = {name: value[:, None] for name, value in arguments.items()}
    plain = ctf(torch.as_tensor(np.hypot(kx, ky)), torch.as_tensor(np.arctan2(ky, kx)), **broadcast)
    np.testing.assert_allclose(fast, plain, atol=1e-9)


def test_second_order_polynomials_are_defocus_and_astigmatism():
    k, theta = torch.rand(50, dtype=torch.float64) * 0.2, torch.rand(50, dtype=torch.float64) * 6
    lam = float(wavelength(VOLTAGE))
    # −e (2 k² − 1) is a change of π λ k² Δf; the constant is a phase shift.
    e = 7.0
    less = 2 * e / (math.pi * lam)
    other = ctf(k, theta, 12000.0 - less, 11000.0 - less, 20.0, VOLTAGE, CS, 0.1, np.rad2deg(e))
    found = ctf(k, theta, 12000.0, 11000.0, 20.0, VOLTAGE, CS, 0.1, even=torch.tensor([0.0, 0.0, e]))
    np.testing.assert_allclose(found, other, atol=1e-9)


def test_template_power_knows_the_aberrations(tmp_path):
    star, *_ = write_particles(tmp_path, 3, rlnEvenZernike=COLUMNS["rlnEvenZernike"])
    arguments = ctf_arguments(read_particles([star]), np.arange(3))
    plain = {name: value for name, value in arguments.items() if name != "even"}
    assert delocalisation(arguments, NYQUIST) > delocalisation(plain, NYQUIST)
    density = structure()
    grid = choose_grid(NYQUIST, 40.0, density.radius)
    rule = power_rule(grid, density.radius, arguments)
    turned = rotations.random_rotations(4, np.random.default_rng(2))
    power = template_power(power_weights(rule, arguments), ring_power(rule, SliceMaker(density, grid)(turned)), 16)
    fine = choose_grid(NYQUIST, 400.0, density.radius)
    points = fine.points_half()
    exact = SliceMaker(density, fine, torch.complex128)(turned)
    for place in (0, 3, 11):  # the template turned by psi is sampled at theta + psi
        psi = 2 * np.pi * place / 16
        turned_back = np.stack([np.cos(psi) * points[..., 0] + np.sin(psi) * points[..., 1],
                                np.cos(psi) * points[..., 1] - np.sin(psi) * points[..., 0]])  # fmt: skip
        squared = CtfPoints(*turned_back)(arguments, torch.float64) ** 2
        weights = torch.as_tensor(fine.weights / fine.n_half)[:, None]
        want = torch.einsum("mnw,vnw->mv", squared * weights, exact.abs() ** 2)
        np.testing.assert_allclose(power[..., place], want, rtol=2e-4)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("columns", [{"rlnOddZernike": COLUMNS["rlnOddZernike"]}, dict(list(COLUMNS.items())[4:]), COLUMNS])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_corrected_images_are_those_without(tmp_path, columns, precision):
    density = structure()
    star, _, origins = write_observed(tmp_path, density, 4, **columns)
    particles = read_particles([star])
    shared = particles.optics[0].aberrations
    images = torch.as_tensor(observed(density, star).astype(precision))
    found = corrected(images, particles.optics[0], ctf_arguments(particles, np.arange(4)))
    assert found.dtype == images.dtype
    moved = shared.origin_undistorted(origins)
    np.testing.assert_allclose(shared.origin_in_image(moved), origins, atol=1e-12)
    matrices = rotations.matrix_from_euler(particles.rot, particles.tilt, particles.psi)
    want = [posed_templates(density, particles, i, matrices[i], moved[i], NYQUIST) for i in range(4)]
    inside = slice(4, -4)
    left, before = ([1 - correlation(a[inside, inside], b[inside, inside]) for a, b in zip(x, want)] for x in (found, images))
    print(f"1 - correlation {max(left):.1e} or less, of uncorrected images {min(before):.1e} or more")
    assert max(left) < 2e-4 and min(before) > 10 * max(left)


def group_of(aberrations, box):
    return OpticsGroup("x", 1.7, box, VOLTAGE, CS, 0.1, aberrations)


def test_nothing_is_done_where_there_is_nothing_to_do():
    images = torch.randn(2, 8, 8)
    assert corrected(images, group_of(Aberrations(even=(0.0, 1.0)), 8), {}) is images


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 21), st.lists(st.floats(-0.03, 0.03), min_size=4, max_size=4))
def test_a_smooth_image_is_taken_where_the_matrix_says(box, small):
    matrix = np.eye(2) + np.reshape(small, (2, 2))
    offset = np.arange(box) - box // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")

    def wave(u, v):
        return np.cos(2 * np.pi * (u + 2 * v) / box) + 0.5 * np.sin(2 * np.pi * (2 * u - v) / box) + 3.0

    shared = Aberrations(magnification=tuple(matrix.ravel()))
    found = corrected(torch.as_tensor(wave(x, y))[None], group_of(shared, box), {})[0]
    u, v = np.tensordot(matrix.T, np.stack([x, y]), axes=1)
    np.testing.assert_allclose(found, wave(u, v), atol=1e-9)


# ---------------------------------------------------------------- RELION


def relion(name, *arguments, folder):
    done = subprocess.run([program(name), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_relion_project_has_the_same_symmetric_aberrations(tmp_path):
    density = structure()
    write_map(tmp_path / "map.mrc", density.density, PIXEL)
    star, *_ = write_particles(tmp_path, 6, rlnEvenZernike=COLUMNS["rlnEvenZernike"])
    relion("relion_project", "--i", "map.mrc", "--ang", star.name, "--ctf", "--o", "out", "--angpix", PIXEL, folder=tmp_path)
    theirs = mrcfile.read(tmp_path / "out.mrcs")
    ours, without = observed(density, star), observed(density, write_particles(tmp_path / "without", 6)[0])
    inside = slice(4, -4)
    with_them = [correlation(a[inside, inside], b[inside, inside]) for a, b in zip(theirs, ours)]
    plain = [correlation(a[inside, inside], b[inside, inside]) for a, b in zip(theirs, without)]
    print(f"correlation with relion_project {min(with_them):.4f} or more; without the aberrations {max(plain):.4f} or less")
    assert min(with_them) > 0.98 and max(plain) < 0.9


def test_phases_that_relion_flipped_are_turned_back(tmp_path):
    density = structure()
    reference = write_map(tmp_path / "map.mrc", density.density, PIXEL)
    star, *_ = write_particles(tmp_path, 6, rlnCtfDataArePhaseFlipped="1")
    command = ("--i", "map.mrc", "--ang", star.name, "--ctf", "--ctf_phase_flip", "--o", "images", "--angpix", PIXEL)
    relion("relion_project", *command, folder=tmp_path)
    particles = read_particles([star])
    flipped = torch.as_tensor(mrcfile.read(tmp_path / "images.mrcs"))
    found = corrected(flipped, particles.optics[0], ctf_arguments(particles, np.arange(6)))
    for image, before, want in zip(found, flipped, observed(density, star)):
        assert correlation(image, want) > 0.999 and correlation(before, want) < 0.98
    run = score(tmp_path / "run", star, [reference], search="fixed")
    star.write_text(star.read_text().replace("rlnCtfDataArePhaseFlipped", "rlnSomething"))
    assert run.cc[0].min() > 0.99 and score(tmp_path / "not", star, [reference], search="fixed").cc[0].max() < 0.98


def test_relion_reconstruct_undoes_what_we_apply(tmp_path):
    density = structure()
    mrc = write_map(tmp_path / "map.mrc", density.density, PIXEL)
    star, *_ = write_observed(tmp_path, density, 400, **COLUMNS)
    kinds = {
        "right": COLUMNS,
        "no odd": {k: v for k, v in COLUMNS.items() if "Odd" not in k and "Tilt" not in k},
        "odd inverted": COLUMNS | {"rlnBeamTiltX": "-9", "rlnBeamTiltY": "6",
                                   "rlnOddZernike": "[" + ",".join(str(-c) for c in ODD) + "]"},
        "no magnification": {k: v for k, v in COLUMNS.items() if "MagMat" not in k},
        "transposed": COLUMNS | {"rlnMagMat01": COLUMNS["rlnMagMat10"], "rlnMagMat10": COLUMNS["rlnMagMat01"]},
    }  # fmt: skip
    agreement = {}
    for name, columns in kinds.items():
        text = star.read_text().replace(optics(**COLUMNS), optics(**columns))
        (tmp_path / f"{name}.star").write_text(text)
        relion("relion_reconstruct", "--i", f"{name}.star", "--o", f"{name}.mrc", "--ctf", folder=tmp_path)
        agreement[name] = correlation(mrcfile.read(tmp_path / f"{name}.mrc"), mrcfile.read(mrc))
    print({name: round(value, 4) for name, value in agreement.items()})
    assert agreement["right"] > 0.99
    lost = {name: 1 - value for name, value in agreement.items()}
    assert min(value for name, value in lost.items() if name != "right") > 2 * lost["right"]


# ---------------------------------------------------------------- a run


def test_a_run_finds_the_poses_behind_aberrations(tmp_path):
    density = structure()
    reference = write_map(tmp_path / "map.mrc", density.density, PIXEL)
    star, angles, origins = write_observed(tmp_path, density, 12, noise=0.3, **COLUMNS)
    local = score(tmp_path / "local", star, [reference], search="local", local_range=6.0, max_shift=4.0, angular_step=6.0)
    found = rotations.matrix_from_euler(local.rot[0], local.tilt[0], local.psi[0])
    error = rotations.distance_deg(found, rotations.matrix_from_euler(*angles.T))
    shift = np.hypot(local.origin_x[0] - origins[:, 0], local.origin_y[0] - origins[:, 1])
    print(f"pose error {np.median(error):.2f}°, shift error {np.median(shift):.3f} Å, cc {local.cc[0].mean():.3f}")
    assert np.median(error) < 2.0 and np.median(shift) < 0.3 and shift.max() < 0.8

    fixed = score(tmp_path / "fixed", star, [reference], search="fixed")
    np.testing.assert_allclose(np.stack([fixed.origin_x[0], fixed.origin_y[0]], axis=1), origins, atol=1e-4)
    plain_star = tmp_path / "plain.star"
    plain_star.write_text(star.read_text().replace(optics(**COLUMNS), optics()))
    plain = score(tmp_path / "plain", plain_star, [reference], search="fixed")
    gain = fixed.integrated[0] - plain.integrated[0]
    print(f"log-likelihood gained by the correction: {np.median(gain):.1f} nat")
    assert (gain > 5).all()
    assert load_results(tmp_path / "fixed").cc[0].mean() > plain.cc[0].mean() + 0.1


@pytest.mark.parametrize("columns", [{"rlnCtfDataArePhaseFlipped": "1"}, COLUMNS])
def test_pictures_are_of_the_images_that_are_compared(tmp_path, columns):
    density = structure()
    reference = write_map(tmp_path / "map.mrc", density.density, PIXEL)
    star, angles, origins = write_observed(tmp_path, density, 6, **columns)
    particles = read_particles([star])
    (group,) = particles.optics
    if group.phase_flipped:  # turning them back is flipping them
        images = corrected(torch.as_tensor(observed(density, star)), group, ctf_arguments(particles, np.arange(6)))
        write_map(tmp_path / "images.mrcs", images, PIXEL)
    score(tmp_path / "run", star, [reference], search="fixed", no_report=True)
    with np.load(tmp_path / "run" / "gallery.npz", allow_pickle=False) as found:
        members = [correlation(*pair) for pair in zip(found["member_image"][0], found["member_template"][0])]
        average = correlation(found["average"][0], found["average_template"][0])
    engine.run("particles", particles=[str(star)], out=str(tmp_path / "converted"))
    engine.run("inspect", run=str(tmp_path / "converted"), row=2, out=str(tmp_path / "two.npz"))
    pose = rotations.matrix_from_euler(*angles[1]), group.aberrations.origin_undistorted(origins[1])
    with np.load(tmp_path / "two.npz", allow_pickle=False) as found:
        converted = correlation(found["prepared"][0], posed_templates(density, particles, 1, *pose, NYQUIST))
    print(f"correlation of members {min(members):.4f} or more, of the average {average:.3f}, converted {converted:.4f}")
    assert min(members) > 0.99 and average > 0.5 and converted > 0.99
