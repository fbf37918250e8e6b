"""The closed form of one pose's likelihood against numerical integration, and the number of degrees of freedom."""

import numpy as np
import pytest
import torch
from scipy.special import j1, log_ndtr, logsumexp

from cryolike_scipion.engine.image_prep import BandPower, centred_spectrum, soft_disc
from cryolike_scipion.engine.likelihood import (
    Evidence,
    ScalePrior,
    degrees_of_freedom,
    log_evidence,
    null_log_density,
)

FLAT = ScalePrior(flat=True)


def _image(signal, seed=0, side=6, noise=1.3, offset=0.7):
    """A small image, its template and the offset pattern, as vectors of independent values."""
    rng = np.random.default_rng(seed)
    axis = np.arange(side) - side / 2 + 0.3
    template = np.exp(-(axis[:, None] ** 2 + (axis - 0.6) ** 2) / 3).ravel()
    pattern = np.ones(side * side)
    return signal * template + offset * pattern + noise * rng.normal(size=side * side), template, pattern


def _projected(image, template, pattern):
    """a, b, c, n and <s,s>."""
    ss = pattern @ pattern
    a = template @ template - (pattern @ template) ** 2 / ss
    b = image @ template - (pattern @ template) * (pattern @ image) / ss
    c = image @ image - (pattern @ image) ** 2 / ss
    return a, b, c, len(image), ss


def _log_integral(image, template, pattern, prior, alpha_nodes):
    """ln ∫ dlambda/lambda ∫ dbeta ∫_0^∞ dalpha p(alpha | lambda) N(image; alpha template + beta pattern, lambda²).

    Sums on a grid of ln lambda and beta (trapezoidal, which converges exponentially) and Gauss nodes in alpha;
    ``alpha_nodes`` None leaves the template out.
    """
    n = len(image)
    a, b, c, _, ss = _projected(image, template, pattern)
    spread = np.sqrt(c / n)
    log_lambda = np.log(spread) + np.linspace(-2.8, 2.6, 241)
    noise = np.exp(log_lambda)[:, None, None]
    if alpha_nodes is None:
        alpha, alpha_weight = np.zeros(1), np.ones(1)
    else:
        top = max(b / a, 0) + 14 * np.exp(0.7) * spread / np.sqrt(a)
        alpha, alpha_weight = np.polynomial.legendre.leggauss(alpha_nodes)
        alpha, alpha_weight = top * (alpha + 1) / 2, top * alpha_weight / 2
    shift = (pattern @ template) / ss
    # beta runs about its least-squares value, in steps of its width at each noise level
    beta_step = noise / np.sqrt(ss) * 0.4
    beta = (pattern @ image) / ss - shift * alpha[:, None] + beta_step * np.arange(-25, 26)
    residual = (
        image @ image
        + alpha[:, None] ** 2 * (template @ template)
        + beta**2 * ss
        - 2 * alpha[:, None] * (image @ template)
        - 2 * beta * (image @ pattern)
        + 2 * alpha[:, None] * beta * (pattern @ template)
    )
    logs = -n * np.log(noise) - n / 2 * np.log(2 * np.pi) - residual / (2 * noise**2)
    logs = logs + np.log(alpha_weight)[None, :, None] + np.log(beta_step)
    if alpha_nodes is not None and not prior.flat:
        width = prior.tau * noise
        logs = logs - (alpha[None, :, None] - prior.mu) ** 2 / (2 * width**2) - np.log(width) - 0.5 * np.log(2 * np.pi)
        logs = logs - log_ndtr(prior.mu / width)
    return logsumexp(logs) + np.log(log_lambda[1] - log_lambda[0])


@pytest.mark.parametrize("signal", [-1.5, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("prior", [ScalePrior(0.0, 0.3), ScalePrior(0.0, 2.0), ScalePrior(0.0, 25.0)], ids=str)
def test_closed_form_is_the_integral_over_scale_offset_and_noise(signal, prior):
    image, template, pattern = _image(signal, seed=4)
    a, b, c, n, _ = _projected(image, template, pattern)
    numerical = _log_integral(image, template, pattern, prior, 160) - _log_integral(image, template, pattern, prior, None)
    assert float(log_evidence(a, b, c, n, prior)) == pytest.approx(numerical, abs=1e-6)


def test_closed_form_with_a_mean_scale():
    """Where P(alpha > 0) is one under prior and posterior its dependence on the noise does not matter."""
    image, template, pattern = _image(6.0, seed=2, noise=0.6)
    a, b, c, n, _ = _projected(image, template, pattern)
    for mu, tau in ((5.5, 0.25), (8.0, 0.35)):
        prior = ScalePrior(mu, tau)
        numerical = _log_integral(image, template, pattern, prior, 700) - _log_integral(image, template, pattern, prior, None)
        assert float(log_evidence(a, b, c, n, prior)) == pytest.approx(numerical, abs=1e-6)
    # Where the prior is cut, its normaliser at the estimated noise stands for the integral: a stated approximation.
    image, template, pattern = _image(0.5, seed=2, side=12)
    a, b, c, n, _ = _projected(image, template, pattern)
    prior = ScalePrior(0.5, 0.8)
    numerical = _log_integral(image, template, pattern, prior, 240) - _log_integral(image, template, pattern, prior, None)
    found = float(log_evidence(a, b, c, n, prior))
    assert found == pytest.approx(numerical, abs=5e-3)


def test_flat_scale_is_the_integral_up_to_one_constant():
    gaps = []
    for signal, seed, noise in ((-1.0, 0, 1.0), (0.0, 1, 0.5), (2.0, 2, 1.5), (5.0, 3, 1.0)):
        image, template, pattern = _image(signal, seed=seed, noise=noise)
        a, b, c, n, _ = _projected(image, template, pattern)
        numerical = _log_integral(image, template, pattern, FLAT, 200) - _log_integral(image, template, pattern, FLAT, None)
        # ∫ d alpha has the unit of alpha: ½ ln c of it is the image's, not the pose's.
        gaps.append(float(log_evidence(a, b, c, n, FLAT)) + 0.5 * np.log(c) - numerical)
    assert np.ptp(gaps) < 1e-6
    assert abs(gaps[0]) > 0.1  # the constant is there: a flat prior has no absolute zero


def test_null_density_is_the_integral_over_offset_and_noise():
    for signal, seed, side in ((0.0, 0, 4), (3.0, 1, 7)):
        image, template, pattern = _image(signal, seed=seed, side=side)
        _, _, c, n, ss = _projected(image, template, pattern)
        numerical = _log_integral(image, template, pattern, FLAT, None)
        assert float(null_log_density(c, n, ss)) == pytest.approx(numerical, abs=1e-6)


def test_formula_of_a_centred_prior():
    """-½ ln(1+g) - (n-1)/2 ln(1 - g r²/(1+g)) + ln 2 P(alpha > 0 | Y), with g = tau² a and r = cc."""
    a, c, n, tau = 2.3, 700.0, 812.0, 6.0
    b = 0.4 * np.sqrt(a * c)
    g = tau**2 * a
    expected = -0.5 * np.log1p(g) - (n - 1) / 2 * np.log1p(-g * 0.16 / (1 + g)) + np.log(2.0)
    assert float(log_evidence(a, b, c, n, ScalePrior(0.0, tau))) == pytest.approx(expected, abs=1e-9)
    # With inverted contrast only alpha near 0 is left: worse than no particle, where a scale of either sign
    # would be as good as with the right contrast.
    inverted = float(log_evidence(a, -b, c, n, ScalePrior(0.0, tau)))
    assert -10 < inverted < -3 and expected > 60


@pytest.mark.parametrize("prior", [ScalePrior(0.0, 3.0), ScalePrior(1.4, 0.7)], ids=str)
def test_grey_units_of_image_and_map_do_not_matter(prior):
    image, template, pattern = _image(2.0, seed=5, side=9)
    a, b, c, n, _ = _projected(image, template, pattern)
    value = float(log_evidence(a, b, c, n, prior))
    for factor in (1e-3, 10.0, 2e4):
        # Image in other units: the learned mean follows, the width is in units of the noise.
        scaled = ScalePrior(factor * prior.mu, prior.tau)
        assert float(log_evidence(a, factor * b, factor**2 * c, n, scaled)) == pytest.approx(value, abs=1e-9)
        # Map in other units: mean and width follow.
        scaled = ScalePrior(prior.mu / factor, prior.tau / factor)
        assert float(log_evidence(factor**2 * a, factor * b, c, n, scaled)) == pytest.approx(value, abs=1e-9)
    # A flat scale does change with the map's units, by ln 10 = 2.3 nat for a factor of ten.
    flat = float(log_evidence(a, b, c, n, FLAT))
    assert float(log_evidence(100 * a, 10 * b, c, n, FLAT)) == pytest.approx(flat - np.log(10), abs=1e-9)


@pytest.mark.parametrize("prior", [FLAT, ScalePrior(0.0, 5.0), ScalePrior(2.0, 0.5), ScalePrior(0.3, 0.2)], ids=str)
@pytest.mark.parametrize("n", [150.0, 3000.0, 40000.0])
def test_search_form_in_single_precision_is_the_closed_form(prior, n):
    """`Evidence` (float32, normal limit of Student's t) against `log_evidence` where a pose can matter."""
    lam, a = 1.7, np.array([0.4, 1.0, 2.2])[:, None]
    c = n * lam**2
    b = np.linspace(-3, min(14, 0.7 * np.sqrt(n)), 61) * lam * np.sqrt(a)  # up to 14 standard deviations
    exact = log_evidence(a, b, c, n, prior)
    as_float = [torch.as_tensor(np.asarray(x, np.float32)) for x in (a, c, n)]
    found = Evidence.of(*as_float, prior).log_ratio(torch.as_tensor(b.astype(np.float32))).numpy()
    close = exact > exact.max() - 30
    assert close.sum() > 5
    # The normal limit of t and float32: 2 nat·nat/n and 1e-4.
    assert np.abs(found - exact)[close & (b > 0)].max() < 1e-3 + 4.0 / n
    assert np.abs(found - exact)[close].max() < 1e-3 + 30.0 / n
    # Far worse poses stay far worse.
    assert (found[~close] < exact.max() - 25).all()


def test_scale_is_the_posterior_mean():
    image, template, pattern = _image(6.0, seed=8, noise=0.4)
    a, b, c, n, _ = _projected(image, template, pattern)
    values = [torch.tensor(x, dtype=torch.float64) for x in (a, c, float(n))]
    flat = Evidence.of(*values, FLAT).scale(torch.tensor(b))
    assert float(flat) == pytest.approx(b / a, rel=1e-12)
    drawn = Evidence.of(*values, ScalePrior(3.0, 0.5)).scale(torch.tensor(b))
    assert float(drawn) == pytest.approx((b + 3.0 / 0.25) / (a + 1 / 0.25), rel=1e-12)
    assert 3.0 < float(drawn) < b / a


def test_prior_without_width_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        ScalePrior(1.0, 0.0)
    assert ScalePrior(1.0, 0.0, flat=True).flat


def _disc_kernel(box, k_max):
    """P_ij of the projection on |k| <= k_max (cycles/pixel): float64 [N², N²]."""
    axis = np.arange(box)
    y, x = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
    r = np.hypot(y[:, None] - y[None], x[:, None] - x[None])
    kernel = np.full(r.shape, np.pi * k_max**2)
    far = r > 0
    kernel[far] = k_max * j1(2 * np.pi * k_max * r[far]) / r[far]
    return kernel


def _exact_dof(mask, k_max):
    """(tr P)²/tr P² of the masked, band-limited noise covariance."""
    weight = mask.numpy().ravel() ** 2
    kernel = _disc_kernel(len(mask), k_max)
    trace = weight.sum() * np.pi * k_max**2
    return trace**2 / (weight @ kernel**2 @ weight)


def _measured_dof(mask, k_max, draws, seed=0):
    """2 mean²/variance of the band power of masked white noise: its number of degrees of freedom."""
    box = len(mask)
    rng = np.random.default_rng(seed)
    masked = torch.as_tensor(rng.normal(size=(draws, box, box))) * mask
    power, _ = BandPower(mask, 2 * box, k_max, 1.0, torch.float64)(masked, centred_spectrum(masked, 2 * box))
    return float(2 * power.mean() ** 2 / power.var())


def test_degrees_of_freedom_of_the_band_and_mask():
    """Box 48, soft mask of radius 20: the numbers that make N² or the bare band count useless."""
    mask, k_max = soft_disc(48, 16.4, 3.6), 0.11853
    assert np.pi * k_max**2 * 48**2 == pytest.approx(101.7, abs=0.05)
    assert _exact_dof(mask, k_max) == pytest.approx(51.2, abs=0.5)
    assert degrees_of_freedom(k_max, 1.0, mask) == pytest.approx(45.5, abs=0.3)
    # Pixel size is a unit only.
    assert degrees_of_freedom(k_max / 3.2, 3.2, mask) == pytest.approx(degrees_of_freedom(k_max, 1.0, mask))


@pytest.mark.parametrize(
    ("radius", "edge", "k_max", "below"),
    [
        (16.4, 3.6, 0.11853, 0.13),
        (16.4, 3.6, 0.25, 0.07),
        (16.4, 3.6, 0.4, 0.04),
        (16.4, 3.6, 0.5, 0.03),
        (15.0, 7.0, 0.3, 0.05),
        (99.0, 0.0, 0.3, 0.06),
        (99.0, 0.0, 0.5, 0.03),
    ],
)
def test_degrees_of_freedom_against_the_exact_trace(radius, edge, k_max, below):
    """The formula leaves out the rim of band and mask: low by a part that falls as 1/√n, 2 % at n = 800."""
    mask = soft_disc(48, radius, edge)
    ratio = degrees_of_freedom(k_max, 1.0, mask) / _exact_dof(mask, k_max)
    assert 1 - below < ratio < 1.0


def test_measured_fluctuations_of_noise_have_these_degrees_of_freedom():
    """Band powers of masked white noise, 3,000 images: 2 mean²/variance, standard error about 3 %."""
    mask = soft_disc(48, 16.4, 3.6)
    for k_max in (0.11853, 0.4):
        assert _measured_dof(mask, k_max, 3000) == pytest.approx(_exact_dof(mask, k_max), rel=0.09)
