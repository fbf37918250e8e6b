"""Sums of rows over in-plane angles, in float32, against the sum of single poses in float64."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.likelihood import Evidence, ScalePrior
from cryolike_scipion.engine.row_sums import sum_rows


@pytest.mark.parametrize("prior", [ScalePrior(8.0, 3.0), ScalePrior(flat=True)])
def test_sums_over_inverted_rows_are_those_of_single_poses(prior):
    """Rows from 25 widths of alpha below zero to above it: float32 against the sum of single poses in float64.

    A row that begins within five widths loses what lies beyond; it is less than the row's largest value each.
    """
    b = np.linspace(-24.0, -14.0, 40) + np.arange(0, 30, 5)[:, None]
    terms = [torch.tensor([[value]], dtype=torch.float64) for value in (1.0, 1000.0, 900.0)]
    single = Evidence.of(*terms, prior).log_ratio(torch.tensor(b))
    rows = Evidence.of(*(t.float() for t in terms), prior).expand(torch.zeros(len(b), dtype=torch.long))
    sums = sum_rows(torch.tensor(b, dtype=torch.float32), rows, single.amax(dim=1).float())
    error = torch.log(sums.mass) + single.amax(dim=1) - torch.logsumexp(single, dim=1)
    assert error.abs().max() < 0.7 and torch.isfinite(sums.first_moment).all()


def _rows(prior, a, c=900.0, n=800.0, dtype=torch.float64):
    return Evidence.of(*(torch.tensor([[value]], dtype=dtype) for value in (a, c, n)), prior).expand([0] * 5)


@pytest.mark.parametrize("prior", [ScalePrior(8.0, 3.0), ScalePrior(0.0, 20.0), ScalePrior(flat=True)])
@pytest.mark.parametrize("centre", [-3.0, 2.0, 60.0, 700.0])
def test_sums_are_those_of_single_poses(prior, centre):
    """The series, the logarithm and the factor for alpha > 0 each serve some of these rows; all give the direct sum."""
    rng = np.random.default_rng(4)
    b = centre + 6.0 * rng.normal(size=(5, 64))
    single = _rows(prior, 1200.0).log_ratio(torch.tensor(b))
    reference = single.amax(dim=1)
    sums = sum_rows(torch.tensor(b).float(), _rows(prior, 1200.0, dtype=torch.float32), reference.float())
    direct = torch.exp(single - reference[:, None])
    assert torch.log(sums.mass / direct.sum(dim=1)).abs().max() < 0.01
    # P(alpha > 0) is that of a normal distribution to five widths in float32.
    assert ((sums.first_moment / sums.mass) - (direct * single).sum(dim=1) / direct.sum(dim=1)).abs().max() < 0.05


def test_angles_that_are_not_allowed_are_left_out():
    prior, rng = ScalePrior(0.0, 20.0), np.random.default_rng(5)
    b = torch.tensor(40.0 + 10.0 * rng.normal(size=(5, 48)))
    allowed = torch.tensor(rng.uniform(size=b.shape) < 0.3)
    logs = _rows(prior, 1200.0).log_ratio(b)
    reference = logs.amax(dim=1)
    sums = sum_rows(b, _rows(prior, 1200.0), reference, allowed=allowed)
    direct = torch.where(allowed, torch.exp(logs - reference[:, None]), 0.0)
    assert torch.log(sums.mass / direct.sum(dim=1)).abs().max() < 1e-4
    assert ((sums.first_moment - (direct * logs).sum(dim=1)) / sums.mass).abs().max() < 1e-3
    whole = sum_rows(b, _rows(prior, 1200.0), reference)
    assert (whole.mass > 1.5 * sums.mass).all()


@pytest.mark.parametrize("centre", [2.0, 60.0])
def test_a_factor_of_every_angle_multiplies_the_evidence(centre):
    prior, rng = ScalePrior(0.0, 20.0), np.random.default_rng(6)
    b = torch.tensor(centre + 6.0 * rng.normal(size=(5, 48)))
    turn = torch.tensor(rng.uniform(0.97, 1.03, b.shape))
    logs = _rows(prior, 1200.0).log_ratio(b) + torch.log(turn)
    reference = logs.amax(dim=1)
    direct = torch.exp(logs - reference[:, None])
    sums = sum_rows(b, _rows(prior, 1200.0), reference, turn)
    assert torch.log(sums.mass / direct.sum(dim=1)).abs().max() < 1e-3
    assert ((sums.first_moment - (direct * logs).sum(dim=1)) / sums.mass).abs().max() < 0.02  # up to the factor's logarithm
