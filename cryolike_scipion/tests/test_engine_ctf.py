"""The CTF against the reference, against first principles, and for broadcasting."""

import math

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.ctf import CtfPoints, ctf, ctf_of_wavelength, wavelength

from .helpers import shared_data


@pytest.fixture(scope="module")
def oracle():
    return np.load(shared_data("oracle") / "oracle.npz")


def _codata_wavelength(kv):
    """h / sqrt(2 m e V (1 + e V / (2 m c²))) in Å, with the constants that CryoLike has."""
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.60217663e-19, 299792458.0
    volt = kv * 1e3
    return 1e10 * h / math.sqrt(2 * m * e * volt * (1 + e * volt / (2 * m * c * c)))


def _of_oracle(oracle, u, v, lam):
    cs, _, contrast = (float(value) for value in oracle["ctf_consts"])
    k = torch.as_tensor(oracle["radius_shells"] * 2 / float(oracle["box_size"]))[:, None]
    theta = torch.as_tensor(oracle["theta_shell"])
    column = [torch.as_tensor(values)[:, None, None] for values in (u, v, oracle["ctf_angle_deg"])]
    phase = torch.as_tensor(oracle["ctf_phase_deg"])[:, None, None]
    return ctf_of_wavelength(k, theta, *column, lam, cs, contrast, phase).numpy()


def test_the_reference_is_reproduced_where_u_is_at_least_v(oracle):
    u, v = oracle["ctf_defocusU"], oracle["ctf_defocusV"]
    regular = u >= v
    assert regular.tolist() == [True, False, True, True]
    ours = _of_oracle(oracle, u, v, _codata_wavelength(float(oracle["ctf_consts"][1])))
    assert np.abs(ours - oracle["ctf_mnq"])[regular].max() < 1e-9


def test_relions_wavelength_differs_from_the_references_in_the_sixth_digit(oracle):
    kv = float(oracle["ctf_consts"][1])
    assert kv == 300.0
    assert float(wavelength(kv)) == pytest.approx(0.0196876153092, rel=1e-9)
    assert _codata_wavelength(kv) == pytest.approx(0.0196874890370, rel=1e-9)
    ours = _of_oracle(oracle, oracle["ctf_defocusU"], oracle["ctf_defocusV"], wavelength(kv))
    assert 1e-5 < np.abs(ours - oracle["ctf_mnq"])[[0, 2, 3]].max() < 2e-4


def test_where_u_is_less_than_v_the_reference_takes_the_wrong_axis(oracle):
    u, v = oracle["ctf_defocusU"], oracle["ctf_defocusV"]
    lam = _codata_wavelength(300.0)
    ours, theirs = _of_oracle(oracle, u, v, lam)[1], oracle["ctf_mnq"][1]
    # CryoLike's row is that of |U − V|, which is this module's with U and V exchanged.
    assert np.abs(theirs - _of_oracle(oracle, v, u, lam)[1]).max() < 1e-9
    worst = np.unravel_index(np.argmax(np.abs(ours - theirs)), ours.shape)
    assert (ours[worst], theirs[worst]) == (
        pytest.approx(-0.736228, abs=1e-6),
        pytest.approx(0.447145, abs=1e-6),
    )


def test_exchanging_u_and_v_is_a_turn_by_90_degrees():
    k, theta = (
        torch.linspace(0.01, 0.3, 30, dtype=torch.float64)[:, None],
        torch.linspace(0, 6, 50, dtype=torch.float64),
    )
    one = ctf(k, theta, 12000.0, 9000.0, 25.0, 300.0, 2.7, 0.1)
    other = ctf(k, theta, 9000.0, 12000.0, 115.0, 300.0, 2.7, 0.1)
    torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    assert (one - ctf(k, theta, 9000.0, 12000.0, 25.0, 300.0, 2.7, 0.1)).abs().max() > 0.5


@pytest.mark.parametrize("kv", [80, 100, 200, 300])
def test_wavelength_is_de_broglies(kv):
    assert float(wavelength(kv)) == pytest.approx(_codata_wavelength(kv), rel=1e-5)


def test_it_is_positive_at_low_frequency_for_underfocus_and_a_at_zero():
    k = torch.tensor([0.0, 0.005], dtype=torch.float64)
    value = ctf(k, torch.zeros(1), 15000.0, 15000.0, 0.0, 300.0, 2.7, 0.07)
    assert value[0].item() == pytest.approx(0.07)
    assert value[1].item() > 0.07


def test_the_defocus_axis_is_the_astigmatism_angle():
    # At the angle of U only U counts, perpendicular to it only V.
    k = torch.tensor(0.1, dtype=torch.float64)
    angle = torch.tensor(math.radians(33.0), dtype=torch.float64)
    along = ctf(k, angle, 14000.0, 8000.0, 33.0, 300.0, 2.7, 0.1)
    across = ctf(k, angle + math.pi / 2, 14000.0, 8000.0, 33.0, 300.0, 2.7, 0.1)
    assert along.item() == pytest.approx(ctf(k, angle, 14000.0, 14000.0, 0.0, 300.0, 2.7, 0.1).item(), abs=1e-12)
    assert across.item() == pytest.approx(ctf(k, angle, 8000.0, 8000.0, 0.0, 300.0, 2.7, 0.1).item(), abs=1e-12)


def test_phase_shift_bfactor_and_scale():
    k, theta = torch.linspace(0, 0.2, 20, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    optics = (10000.0, 9000.0, 10.0, 200.0, 2.0, 0.1)
    plain = ctf(k, theta, *optics)
    torch.testing.assert_close(ctf(k, theta, *optics, 180.0), -plain)
    changed = ctf(k, theta, *optics, 0.0, 80.0, 0.7)
    torch.testing.assert_close(changed, 0.7 * torch.exp(-20.0 * k**2) * plain)


def test_single_precision_rounds_only_the_result():
    k = torch.linspace(0.2, 0.5, 100)  # chi reaches thousands of radians here
    theta = torch.zeros(1)
    single = ctf(k, theta, 30000.0, 30000.0, 0.0, 300.0, 2.7, 0.1)
    double = ctf(k.double(), theta.double(), 30000.0, 30000.0, 0.0, 300.0, 2.7, 0.1)
    assert single.dtype == torch.float32 and single.shape == (100,)
    assert (single - double).abs().max() < 1e-7


def test_images_broadcast_over_a_polar_grid():
    k, theta = torch.linspace(0, 0.2, 5)[:, None], torch.linspace(0, 3, 7)
    defocus = torch.tensor([1e4, 2e4, 3e4])[:, None, None]
    voltage = torch.tensor([100.0, 200.0, 300.0])[:, None, None]
    many = ctf(k, theta, defocus, defocus, 0.0, voltage, 2.0, 0.1)
    assert many.shape == (3, 5, 7)
    torch.testing.assert_close(many[1], ctf(k, theta, 2e4, 2e4, 0.0, 200.0, 2.0, 0.1))


def test_many_ctfs_at_the_same_points_equal_the_formula():
    rng = np.random.default_rng(0)
    kx, ky = rng.uniform(-0.4, 0.4, (2, 7, 50))
    arguments = {
        "defocus_u": rng.uniform(-5000, 40000, 5), "defocus_v": rng.uniform(-5000, 40000, 5),
        "defocus_angle_deg": rng.uniform(-200, 200, 5), "voltage_kv": np.array([80.0, 200, 300, 300, 120]),
        "cs_mm": rng.uniform(0, 3, 5), "amplitude_contrast": np.array([0.0, 0.07, 0.1, 1.0, 0.5]),
        "phase_shift_deg": rng.uniform(-90, 180, 5), "bfactor": np.array([0.0, 60, -10, 0, 5]),
        "scale": np.array([1.0, 0.3, -1, 1, 1]),
    }  # fmt: skip
    arguments = {name: torch.as_tensor(value) for name, value in arguments.items()}
    x, y = torch.as_tensor(kx), torch.as_tensor(ky)
    columns = {name: value[:, None, None] for name, value in arguments.items()}
    exact = ctf(torch.hypot(x, y), torch.atan2(y, x), **columns)
    points = CtfPoints(kx, ky)
    torch.testing.assert_close(points(arguments, torch.float64), exact, atol=1e-10, rtol=0)
    single = points(arguments, torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=2e-6, rtol=0)
    only = {name: value[:1] for name, value in arguments.items()}
    torch.testing.assert_close(points(only, torch.float64), exact[:1], atol=1e-10, rtol=0)
