"""The prior of the scale, learned from inner products whose mean, spread and noise are known."""

import numpy as np
import pytest

from cryolike_scipion.engine.likelihood import ScalePrior, log_evidence
from cryolike_scipion.engine.pose_search import PoseSamples
from cryolike_scipion.engine.scale_prior import PilotImage, learn_scale

START = ScalePrior(0.0, 14.0)
DOF = 150
POSES = 12


def _image(rng, mu, tau, particle=True, structures=1, grey=1.0, noise=None):
    """An image of the model: ``alpha T + noise`` seen through one right pose and others that show noise only.

    The offset takes one of ``DOF`` dimensions, the right template another one.
    """
    noise = rng.lognormal(0.0, 0.3) if noise is None else noise
    alpha = rng.normal(mu, tau * noise) if particle else 0.0
    power = rng.uniform(0.6, 1.4, (structures, POSES))
    product = noise * np.sqrt(power) * rng.normal(size=power.shape)
    right = rng.integers(structures), rng.integers(POSES)
    product[right] += alpha * power[right]
    image_power = product[right] ** 2 / power[right] + noise**2 * rng.chisquare(DOF - 2)
    prior = np.full(POSES, -np.log(POSES))
    samples = [PoseSamples(prior, a, grey * b) for a, b in zip(power, product)]
    return PilotImage(grey**2 * image_power, DOF, samples)


def _pilot(seed, count, mu, tau, junk=0, **options):
    rng = np.random.default_rng(seed)
    images = [_image(rng, mu, tau, **options) for _ in range(count)]
    return images + [_image(rng, mu, tau, particle=False, **options) for _ in range(junk)]


@pytest.mark.parametrize("mu, tau, structures", [(10.0, 2.0, 1), (8.0, 0.8, 2), (20.0, 5.0, 3)])
def test_mean_and_width_are_recovered(mu, tau, structures):
    """Five standard errors of 200 images; the mean is known to tau/√200, the width to 1/√400 and the noise's share."""
    fit = learn_scale(_pilot(1, 200, mu, tau, structures=structures), START)
    spread = np.hypot(tau, 1.0)  # of a single image's alpha, in units of its noise
    assert abs(fit.prior.mu - mu) < 5 * spread * 1.1 / np.sqrt(200)
    assert abs(fit.prior.tau**2 - tau**2) < 5 * spread**2 * np.sqrt(2 / 200)
    assert fit.images == 200 and fit.particle_fraction > 0.98


def _pilot_log_likelihood(images, prior, fraction):
    """Σ ln(fraction · evidence + (1 - fraction) · null), over the null, from the evidence alone."""
    total = 0.0
    for image in images:
        logs = [s.log_prior + log_evidence(s.power, s.product, image.image_power, image.dof, prior) for s in image.samples]
        evidence = np.logaddexp.reduce(np.concatenate(logs)) - np.log(len(logs))
        total += np.logaddexp(np.log(fraction) + evidence, np.log1p(-fraction))
    return total


def test_the_fit_is_the_maximum_of_the_likelihood_of_the_pilot():
    images = _pilot(2, 60, 9.0, 1.5, junk=20, structures=2)
    fit = learn_scale(images, START, iterations=300, tolerance=1e-6)
    mu, tau, fraction = fit.prior.mu, fit.prior.tau, fit.particle_fraction
    best = _pilot_log_likelihood(images, fit.prior, fraction)
    for factor in (0.97, 1.03):
        assert _pilot_log_likelihood(images, ScalePrior(factor * mu, tau), fraction) < best
        assert _pilot_log_likelihood(images, ScalePrior(mu, factor**4 * tau), fraction) < best
        assert _pilot_log_likelihood(images, fit.prior, factor**2 * fraction) < best


def test_junk_neither_pulls_the_mean_down_nor_counts_as_particles():
    clean = learn_scale(_pilot(3, 200, 10.0, 1.5), START)
    mixed = learn_scale(_pilot(3, 200, 10.0, 1.5, junk=100), START)
    assert mixed.particle_fraction == pytest.approx(200 / 300, abs=0.02)
    assert mixed.prior.mu == pytest.approx(clean.prior.mu, rel=0.01)
    assert mixed.prior.tau == pytest.approx(clean.prior.tau, rel=0.1)


def test_grey_units_multiply_the_mean_and_leave_the_width():
    first = learn_scale(_pilot(4, 60, 10.0, 2.0, junk=10), START)
    for grey in (1e-3, 10.0, 3e4):
        scaled = learn_scale(_pilot(4, 60, 10.0, 2.0, junk=10, grey=grey), START)
        assert scaled.prior.mu == pytest.approx(grey * first.prior.mu, rel=1e-6)
        assert scaled.prior.tau == pytest.approx(first.prior.tau, rel=1e-6)
        assert scaled.particle_fraction == pytest.approx(first.particle_fraction, rel=1e-6)


def test_noise_of_images_cancels_from_the_width():
    """tau is in units of each image's own noise: the same spread of alpha under less noise is a larger tau."""
    quiet = learn_scale(_pilot(5, 150, 10.0, 4.0, noise=0.5), START)
    assert quiet.prior.tau == pytest.approx(4.0, rel=0.2)
    assert learn_scale(_pilot(5, 150, 10.0, 2.0, noise=1.0), START).prior.tau == pytest.approx(2.0, rel=0.25)


def test_images_all_but_free_of_noise_have_a_scale():
    """Products may exceed Cauchy and Schwarz's bound by what the quadrature leaves over: 0.1 % here."""
    rng = np.random.default_rng(7)
    images = []
    for alpha in rng.normal(10.0, 0.5, 20):
        power = rng.uniform(0.6, 1.4, POSES)
        sample = PoseSamples(np.full(POSES, -np.log(POSES)), power, alpha * power * 1.001)
        images.append(PilotImage(alpha**2 * power.mean(), 30, [sample]))
    assert (images[0].samples[0].product ** 2 > images[0].samples[0].power * images[0].image_power).any()
    fit = learn_scale(images, START)
    assert abs(fit.prior.mu - 10.0) < 0.6 and np.isfinite(fit.prior.tau) and fit.prior.tau > 0


def test_few_images_keep_the_prior_of_the_start():
    few = _pilot(6, 7, 10.0, 2.0)
    assert learn_scale(few, START).prior == START and learn_scale(few, START).images == 7
    assert learn_scale([], START).prior == START
    assert learn_scale(_pilot(6, 8, 10.0, 2.0), START).prior.mu > 5.0


def test_nothing_but_junk_is_said_to_be_junk():
    fit = learn_scale(_pilot(7, 0, 0.0, 1.0, junk=80), START)
    assert fit.prior.mu >= 0 and np.isfinite([fit.prior.mu, fit.prior.tau]).all()
    assert min(fit.particle_fraction, fit.prior.mu / 10.0) < 0.1
