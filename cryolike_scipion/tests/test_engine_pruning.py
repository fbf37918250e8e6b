"""Which rows are kept for a closer look: the fewest that hold a share, by what their scores let expect."""

import numpy as np
import pytest
from scipy.special import logsumexp

from cryolike_scipion.engine.levels import Link
from cryolike_scipion.engine.pruning import Outlook, keep


@pytest.mark.parametrize("share", [0.5, 0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_the_fewest_rows_that_hold_all_but_a_share(share, spread):
    rng = np.random.default_rng(0)
    log_mass = 700.0 + spread * rng.normal(size=500)  # relative sums only: the exponential alone would overflow
    kept = keep(log_mass, share)
    assert len(set(kept)) == len(kept) and (np.diff(log_mass[kept]) <= 0).all()
    left = np.setdiff1d(np.arange(500), kept)
    total = logsumexp(log_mass)
    assert np.exp(logsumexp(log_mass[left]) - total) <= share * (1 + 1e-9) if len(left) else True
    one_less = np.exp(logsumexp(np.append(log_mass[left], log_mass[kept[-1]])) - total)
    assert one_less > share * (1 - 1e-6)
    assert len(left) == 0 or log_mass[left].max() <= log_mass[kept].min()


def test_a_single_row_is_kept():
    assert list(keep(np.array([-300.0]), 0.5)) == [0]
    assert list(keep(np.array([-np.inf, 3.0, -np.inf]), 1e-3)) == [1]
    assert len(keep(np.zeros(10), 0.0)) == 10


def _outlook(score, link, information=40.0, children=16, log_prior=-8.0):
    full = np.full(len(score), 1.0)
    return Outlook(score, information * full, link.gain * information * full, log_prior * full, children * full, link)


def test_where_children_are_like_their_parents_the_scores_decide():
    """A perfect link: what is expected of a row is its own score."""
    score = np.random.default_rng(1).normal(10.0, 4.0, 400)
    outlook = _outlook(score, Link(carried=1.0, correlation=1.0, gain=1.0, spread=0.0))
    assert np.abs(outlook.log_mass - (score - 8.0)).max() < 0.1


def test_expectations_are_those_of_drawn_children():
    """Children drawn from the stated normal distribution: their mass, on average, is what is expected of all rows."""
    rng, link = np.random.default_rng(2), Link(carried=0.95, correlation=0.97, gain=1.02, spread=0.0)
    score, information = rng.normal(5.0, 2.0, 300), 30.0
    outlook = _outlook(score, link, information, children=500, log_prior=-np.log(300))
    mean = link.carried * (score + information / 2) - information * link.gain / 2
    width = np.sqrt(information * link.gain * (1 - link.correlation))
    children = mean[:, None] + width * rng.normal(size=(300, 500))
    drawn = logsumexp(children) - np.log(300 * 500)
    assert logsumexp(outlook.log_mass) == pytest.approx(drawn, abs=0.05)


def test_the_less_is_known_the_more_rows_are_kept():
    """As the children's templates differ more from their parents', differences between parents count for less."""
    score = np.random.default_rng(3).normal(0.0, 5.0, 3000)
    counts = []
    for correlation in (0.999, 0.9, 0.6, 0.3):
        link = Link(carried=0.95, correlation=correlation, gain=1.0, spread=0.0)
        outlook = _outlook(score, link, information=60.0)
        order = np.argsort(score)
        assert (np.diff(outlook.log_mass[order]) > -1e-9).all()  # higher scores are never expected to hold less
        counts.append(len(keep(outlook.log_mass, 1e-3)))
    assert counts == sorted(counts) and counts[-1] > 2 * counts[0]
