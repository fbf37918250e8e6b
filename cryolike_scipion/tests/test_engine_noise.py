"""Radial noise: its spectrum from images, and scores that are those of a sum over Fourier modes with weights 1/P."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.ctf import CtfPoints, ctf
from cryolike_scipion.engine.image_prep import ImageSettings, soft_disc
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.noise_background import RingPower
from cryolike_scipion.engine.noise_spectrum import NoiseModel, fitted_spectrum, term_count, unit_mean, whitened
from cryolike_scipion.engine.pose_scores import score_poses
from cryolike_scipion.engine.rotations import random_rotations

from .blob_particles import PIXEL, Blobs, Comparison, optics

TOP = 0.5 / PIXEL
STEEP = NoiseModel(TOP, (unit_mean(np.array([0.0, 0.9, 0.35, 0.1, 0.05, 0.0]), TOP),))
GROUPS = np.zeros(1, dtype=np.int64)


def _frequency(box):
    return np.hypot(np.fft.fftfreq(box, PIXEL)[:, None], np.fft.fftfreq(box, PIXEL))


def coloured(count, box, seed=0, noise=STEEP):
    white = np.random.default_rng(seed).standard_normal((count, box, box))
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(noise.power(0, _frequency(box)))).real


def _with_noise(arguments, noise=STEEP):
    count = len(arguments["voltage_kv"])
    return arguments | noise.arguments(np.zeros(count, dtype=np.int64))


# ---------------------------------------------------------------- the spectrum


def test_spectra_have_mean_one_and_a_range_worth_the_name():
    k = np.linspace(0, TOP, 2001)
    power = STEEP.power(0, k)
    assert np.average(power, weights=k) == pytest.approx(1.0, rel=1e-3)
    assert power.max() / power.min() > 50
    assert NoiseModel.from_plain(STEEP.plain()) == STEEP
    for broken in (
        {},
        {"top": 0.1, "spectra": [], "background": []},
        {"top": 0.1, "spectra": [[1.0], [1.0, 2.0]]},
        {"top": 0, "spectra": [[0.0]]},
    ):
        with pytest.raises((KeyError, ValueError)):
            NoiseModel.from_plain(broken)


@pytest.mark.parametrize("where", ["whole", "around", "within"])
@pytest.mark.parametrize("box", [32, 47])
def test_the_spectrum_is_found_from_images_of_any_grey_scale(box, where):
    disc = soft_disc(box, 0.35 * box, 3.0)
    weight = {"whole": torch.ones_like(disc), "around": 1 - disc, "within": disc}[where]
    rings = RingPower(weight, PIXEL)
    images = torch.as_tensor(coloured(200, box)) * torch.linspace(1, 50, 200)[:, None, None] + 3.0
    for some in images.split(64):
        rings.add(some)
    assert rings.images == 200
    found = NoiseModel(TOP, (rings.spectrum(TOP, term_count(box)),))
    k = np.linspace(1.5 / (box * PIXEL), TOP, 50)
    error = np.log(found.power(0, k) / STEEP.power(0, k))
    print(f"{where}, box {box}: error of ln P, root mean square {error.std():.3f}, largest {np.abs(error).max():.3f}")
    # A hole with a width of a few pixels blurs the spectrum.
    assert np.abs(error).max() < (0.12 if where == "whole" else 0.3)


def test_white_noise_and_none_at_all_have_a_flat_spectrum():
    rings = RingPower(torch.ones(32, 32, dtype=torch.float64), PIXEL)
    k = np.linspace(0, TOP, 30)
    assert rings.spectrum(TOP, 8) == (0.0,) * 8
    rings.add(torch.zeros(5, 32, 32))  # nothing to learn from
    assert rings.images == 0 and rings.spectrum(TOP, 8) == (0.0,) * 8
    rings.add(torch.as_tensor(np.random.default_rng(1).standard_normal((200, 32, 32))))
    assert np.abs(np.log(NoiseModel(TOP, (rings.spectrum(TOP, 8),)).power(0, k[1:]))).max() < 0.05


def test_empty_rings_do_not_count_without_bound():
    """Images without anything beyond half of their Nyquist frequency, as after a low-pass filter."""
    k = np.arange(17) / (32 * PIXEL)
    power, count = np.where(np.arange(17) < 9, 1.0, 0.0), np.full(17, 1000.0)
    model = NoiseModel(TOP, (fitted_spectrum(k, power, count, TOP, 8),))
    found = model.power(0, k)
    assert found.min() > 0.005 and found.max() < 8 and found[12:].max() < 0.1 * found[:7].min()
    assert 0.4 * TOP < model.fades_at(0, TOP) < 0.7 * TOP and model.fades_at(0, 0.3 * TOP) is None
    assert STEEP.fades_at(0, TOP) is None
    unknown = np.where(np.arange(17) < 9, 1000.0, 0.0)
    flat = NoiseModel(TOP, (fitted_spectrum(k, power, unknown, TOP, 8),)).power(0, k)
    assert np.abs(np.log(flat)).max() < 0.05  # what is not known is as what is


# ---------------------------------------------------------------- whitening


def test_whitened_noise_is_white_and_a_flat_spectrum_changes_nothing():
    box = 40
    images = torch.as_tensor(coloured(400, box))
    k, power = _frequency(box), np.abs(np.fft.fft2(whitened(images, PIXEL, STEEP, 0).numpy())) ** 2
    ring = np.rint(k * box * PIXEL).astype(int)
    means = [power[:, ring == r].mean() / box**2 for r in range(20)]
    assert np.abs(np.array(means) - 1).max() < 0.08
    flat = NoiseModel(TOP, ((0.0,) * 6,))
    assert (whitened(images, PIXEL, flat, 0) - images).abs().max() < 1e-12


def test_transfer_functions_are_divided_by_the_root_of_the_power_row_by_row():
    arguments = optics(3)
    other = NoiseModel(TOP, (*STEEP.spectra, (0.1, -0.4, 0.2, 0.0, 0.1, 0.0)))
    k = np.linspace(0.001, 1.3 * TOP, 40)
    points = CtfPoints(k, np.zeros(40))
    plain = points(arguments, torch.float64).numpy()
    for groups in ([0, 0, 0], [1, 0, 1]):
        found = points(arguments | other.arguments(np.array(groups)), torch.float64).numpy()
        expected = plain / np.sqrt([other.power(g, k) for g in groups])
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.fixture(scope="module")
def poses():
    rng = np.random.default_rng(2)
    return random_rotations(4, rng), rng.uniform(-6, 6, (4, 2))


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_scores_are_those_of_sums_over_modes_with_weights_one_over_the_power(poses, double):
    """Against plain sums over the modes of a box that holds all that the CTF and the whitening spread."""
    box, k_max = 128, 0.115
    rotations, origins = poses
    blobs, arguments = Blobs.random(1, sigma=7.0, signed=True), optics(4)
    noisy = _with_noise(arguments)
    comparison = Comparison(blobs.structure(), noisy, k_max, box, double=double)
    k, axis = _frequency(box), (np.arange(box) - box // 2) * PIXEL
    kx = np.fft.fftfreq(box, PIXEL)
    frequencies = np.stack(np.meshgrid(kx, kx, indexing="xy"), axis=-1)  # [ky, kx, (x, y)]
    band = (k <= k_max).astype(float)
    columns = {name: value[:, None, None] for name, value in arguments.items()}
    angle = np.arctan2(frequencies[..., 1], frequencies[..., 0])
    transfer = ctf(torch.as_tensor(k), torch.as_tensor(angle), **columns).numpy()
    templates = np.stack([
        comparison.bank.scale * blobs.transform(frequencies @ a[:2]) * np.exp(2j * np.pi * frequencies @ o) * c * band
        for a, o, c in zip(rotations, origins, transfer)
    ])  # fmt: skip
    # Images within box and band: the particle, and noise that falls off towards the edges of both.
    rng = np.random.default_rng(3)
    low = np.fft.ifft2(np.fft.fft2(rng.standard_normal((4, box, box))) * np.exp(-((k / 0.04) ** 2))).real
    round_ = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 55.0**2))
    clean = np.fft.fftshift(np.fft.ifft2(templates).real, axes=(1, 2)) / PIXEL**2
    pixels = 40.0 * clean + low * round_

    images = comparison.images(
        whitened(torch.as_tensor(pixels), PIXEL, STEEP, 0).to(torch.float64 if double else torch.float32)
    )
    found = score_poses(images, rotations, origins, comparison.bank, ScalePrior(0.0, 3.0))

    spectra = PIXEL**2 * np.fft.fft2(np.fft.ifftshift(pixels, axes=(1, 2)))
    weights = band / STEEP.power(0, k) / (box * PIXEL) ** 2
    weights[0, 0] = 0.0  # the offset is free
    a, b, c = (
        np.einsum("yx,myx,myx->m", weights, one.conj(), other).real
        for one, other in ((templates, templates), (spectra, templates), (spectra, spectra))
    )
    tolerance = 2e-5 if double else 5e-5
    np.testing.assert_allclose(found.power, a, rtol=tolerance)
    assert np.abs(found.product - b).max() < tolerance * np.sqrt(a * c).max()
    np.testing.assert_allclose(found.image_power, c, rtol=tolerance)
    white = np.einsum("yx,myx->m", weights * STEEP.power(0, k), np.abs(templates) ** 2)
    assert np.abs(white / a - 1).min() > 0.1  # the weights matter


# ---------------------------------------------------------------- noise alone


@pytest.mark.parametrize("mask", [None, 100.0])
def test_correlations_with_coloured_noise_are_those_with_white_noise_once_it_is_whitened(mask):
    """cc² n of an image without particle has mean 1 and a chi-squared distribution; not for a model that takes it as white."""
    box, count = 40, 400
    blobs, arguments = Blobs.random(4, radius=20.0, sigma=5.0), optics(count)
    rng = np.random.default_rng(8)
    rotations, origins = random_rotations(count, rng), rng.uniform(-4, 4, (count, 2))
    settings = ImageSettings(normalise=False, mask_diameter=mask, mask_edge=0.0 if mask is None else 16.0)

    def squared(pixels, own):
        comparison = Comparison(blobs.structure(), own, 0.115, box, settings=settings)
        found = score_poses(comparison.images(pixels), rotations, origins, comparison.bank, ScalePrior(0.0, 3.0))
        return found.cc**2 * found.dof

    white = torch.as_tensor(np.random.default_rng(9).standard_normal((count, box, box)), dtype=torch.float32)
    noisy = torch.as_tensor(coloured(count, box, 9), dtype=torch.float32)
    of_white = squared(white, arguments)
    right = squared(whitened(noisy, PIXEL, STEEP, 0), _with_noise(arguments))
    wrong = squared(noisy, arguments)
    error = np.sqrt(2.0 / count)  # of the mean of a chi-squared variable
    means = [values.mean() for values in (of_white, right, wrong)]
    beyond = [(values > 3.84).mean() for values in (of_white, right, wrong)]
    print(f"mask {mask}: mean of cc² n {np.round(means, 3)} ± {error:.3f}; beyond its 95 % point {np.round(beyond, 3)}")
    assert abs(means[0] - 1) < 4 * error and abs(means[1] - 1) < 4 * error
    assert beyond[1] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / count)
    assert means[2] > 1 + 8 * error
