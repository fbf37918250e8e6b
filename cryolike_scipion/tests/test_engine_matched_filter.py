"""Images on the polar grid against the same done plainly, in double precision and with one full transform after another."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.ctf import ctf
from cryolike_scipion.engine.image_prep import ImageSettings, mask_of, soft_disc
from cryolike_scipion.engine.polar_grid import choose_grid
from cryolike_scipion.engine.polar_images import Window, padded_size, polar_images, transform_to_polar
from cryolike_scipion.engine.template_power import delocalisation, power_rule, power_weights

from .blob_particles import optics

PIXEL = 4.0
RADIUS = 45.0
WIDE = 5  # boxes: beyond what the CTF carries away
MASK = ImageSettings(mask_diameter=120.0, mask_edge=16.0)


class Plain:
    """The image model of `polar_images` with one wide DFT for everything, in float64."""

    def __init__(self, pixels, arguments, settings, grid, window):
        box = pixels.shape[-1]
        size = WIDE * box
        diameter = settings.mask_diameter or box * PIXEL
        background = soft_disc(box, diameter / 2 / PIXEL, 0.0) == 0
        images = torch.as_tensor(pixels, dtype=torch.float64)
        around = images[:, background]
        images = (images - around.mean(dim=1)[:, None, None]) / around.std(dim=1)[:, None, None]
        mask = mask_of(settings, box, PIXEL)
        self.masked, self.mask = images * mask, mask
        wide = torch.fft.rfft2(images * mask**2, s=(size, size))
        ky = torch.fft.fftfreq(size, PIXEL, dtype=torch.float64)[:, None]
        kx = torch.fft.rfftfreq(size, PIXEL, dtype=torch.float64)
        columns = {name: value[:, None, None] for name, value in arguments.items()}
        wide = wide * ctf(torch.hypot(kx, ky), torch.atan2(ky, kx), **columns)
        filtered = torch.fft.irfft2(wide, s=(size, size))
        reach = int(np.ceil((window.radius + window.edge) / PIXEL))
        index = (box // 2 + torch.arange(-reach, reach + 1)) % size
        cut = filtered[:, index][:, :, index] * soft_disc(2 * reach + 1, window.radius / PIXEL, window.edge / PIXEL)
        self.matched = transform_to_polar(cut, grid, PIXEL, 1e-12)

    def powers(self, k_max):
        """<Y,Y>, <s,Y>, <s,s> as sums over a dense rule of the disc."""
        grid = choose_grid(k_max, 200.0, 200.0, 1e-11)
        values = transform_to_polar(torch.cat([self.masked, self.mask[None]]), grid, PIXEL, 1e-13)
        products = (values.conj() * values[-1]).real.mean(dim=2), values.abs().square().mean(dim=2)
        cross, own = (p @ torch.as_tensor(grid.weights) for p in products)
        return own[:-1], cross[:-1], own[-1]


def _case(box, dtype, settings=None, k_max=0.125, count=18, reach=12.0):
    settings = settings or ImageSettings()
    rng = np.random.default_rng(box)
    pixels = torch.as_tensor(rng.normal(5.0, 3.0, (count, box, box)), dtype=dtype)
    arguments = optics(count)
    arguments["bfactor"] = torch.linspace(0.0, 90.0, count, dtype=torch.float64)
    arguments["scale"] = torch.linspace(1.0, 0.4, count, dtype=torch.float64)
    arguments["phase_shift_deg"] = torch.linspace(0.0, 100.0, count, dtype=torch.float64)
    window = Window(RADIUS + reach, 2 * PIXEL)
    grid = choose_grid(k_max, window.radius + window.edge, RADIUS)
    rule = power_rule(grid, RADIUS, arguments)
    padded = padded_size(box, PIXEL, window, delocalisation(arguments, k_max))

    def convert(part=slice(None)):
        some = {name: value[part] for name, value in arguments.items()}
        signs = torch.ones(len(pixels[part]), dtype=torch.float64)
        return polar_images(pixels[part], signs, some, settings, grid, rule, window, PIXEL, padded)

    return convert, pixels, arguments, settings, grid, rule, window, padded


def _relative(found, exact, grid):
    """Largest error of an image, in units of its norm over the band."""
    weights = torch.as_tensor(grid.weights)
    error, norm = ((v.abs().double().square().mean(dim=2) @ weights).sqrt() for v in (found - exact, exact))
    return float((error / norm).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-8)])
@pytest.mark.parametrize("settings", [None, MASK], ids=["no mask", "mask"])
@pytest.mark.parametrize("box", [48, 45])
def test_coefficients_equal_those_of_full_transforms(box, settings, dtype, tolerance):
    _, pixels, arguments, settings, grid, _, window, _ = _case(box, dtype, settings, count=3)
    wide = polar_images(
        pixels, torch.ones(3), arguments, settings, grid, power_rule(grid, RADIUS, arguments), window, PIXEL, WIDE * box
    )  # fmt: skip
    plain = Plain(pixels, arguments, settings, grid, window)
    assert _relative(wide.matched, plain.matched, grid) < tolerance
    image, cross, mask = plain.powers(grid.k_max)
    assert wide.image_power.numpy() == pytest.approx(image.numpy(), rel=tolerance)
    assert np.abs(wide.cross_power - cross).max() < tolerance * (image * mask).sqrt().max()
    assert wide.mask_power.numpy() == pytest.approx(float(mask), rel=1e-9)


@pytest.mark.parametrize("k_max", [0.05, 0.08, 0.11])
def test_below_nyquist_only_the_band_is_worked_on_and_inner_products_stay(k_max):
    """What lies outside the band may go before the window, or after: templates within the window do not see it."""
    convert, pixels, arguments, settings, grid, _, window, _ = _case(48, torch.float64, k_max=k_max, count=4, reach=55.0)
    found, exact = convert().matched, Plain(pixels, arguments, settings, grid, window).matched
    rng = np.random.default_rng(1)
    points = torch.as_tensor(grid.points_half())
    width = 0.7 / k_max  # of the template, a blob: nothing of it is left at the edge of the band
    weights = torch.as_tensor(grid.weights)
    for _ in range(20):
        centre = torch.as_tensor(rng.uniform(-1, 1, 2))
        template = torch.exp(-2 * np.pi**2 * width**2 * points.square().sum(-1) - 2j * np.pi * (points @ centre))
        norm = (template.abs().square().mean(1) @ weights).sqrt() * (exact.abs().square().mean(2) @ weights).sqrt()
        product = ((found - exact).conj() * template).real.mean(2) @ weights
        assert torch.all(product.abs() < 1e-5 * norm)


def test_images_of_any_number_by_several_threads_are_those_of_one():
    convert, *_ = _case(48, torch.float32, MASK)
    parts = [slice(i, i + n) for i, n in [(0, 18), (0, 1), (3, 9), (17, 18), (2, 18)]] * 4
    alone = [convert(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(convert, parts))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.matched, other.matched) and torch.equal(one.image_power, other.image_power)


def test_weights_of_the_template_power_are_those_of_the_squared_ctf():
    _, _, arguments, _, _, rule, _, _ = _case(48, torch.float64)
    k = torch.as_tensor(rule.fine_radii)[:, None]
    theta = torch.as_tensor(np.pi * np.arange(rule.n_angles) / rule.n_angles)
    columns = {name: value[:, None, None] for name, value in arguments.items()}
    orders = torch.fft.fft(ctf(k, theta, **columns) ** 2, dim=-1)[..., : rule.n_orders] / rule.n_angles
    nodes = torch.as_tensor(rule.to_nodes * rule.fine_weights[:, None])
    exact = torch.einsum("mfj,fp->mpj", orders, nodes.to(orders.dtype))
    found = power_weights(rule, arguments).to(exact.dtype)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("radius", "pixel", "spread", "expected"), [(20.0, 1.0, 0.0, 128), (80.0, 1.0, 30.0, 144), (80.0, 1.0, 900.0, 256)]
)
def test_padding_follows_the_reach_of_the_ctf(radius, pixel, spread, expected):
    assert padded_size(64, pixel, Window(radius, 2.0), spread) == expected
