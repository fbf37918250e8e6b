"""Templates of finer views: the same as made directly, kept within a bound, and safe to ask for in threads."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.fine_views import FineViews
from cryolike_scipion.engine.views import children, healpix_views
from cryolike_scipion.engine.workers import parallel

from .blob_particles import Blobs, Comparison, optics


@pytest.fixture(scope="module")
def bank():
    return Comparison(Blobs.random(1).structure(), optics(1), 0.06, 32, compression=1e-4).bank


@pytest.fixture(scope="module", params=["C1", "C4"])
def table(request):
    return healpix_views(30.0, request.param)


def _kept(fine):
    """Number of templates for which memory is taken."""
    return 0 if fine._kept is None else len(fine._kept)


def _same(found, wanted):
    """Equal but for the rounding of a transform of other points together with them."""
    assert len(found) == len(wanted)
    for name in ("rows", "zeroth", "power"):
        a, b = getattr(found, name), getattr(wanted, name)
        assert torch.allclose(a, b, rtol=0, atol=2e-6 * float(b.abs().max()))


def test_tables_are_children_of_children(bank, table):
    fine = FineViews(bank, table, 2.0**20)
    assert fine.table(0) is table
    one = children(table, np.arange(len(table)))
    two = children(one, np.arange(len(one)))
    for division, wanted in ((2, two), (1, one)):
        found = fine.table(division)
        assert np.array_equal(found.rot_deg, wanted.rot_deg) and np.array_equal(found.tilt_deg, wanted.tilt_deg)
        assert found.weights.sum() == pytest.approx(1.0)
    assert fine.table(2) is fine.table(2)


@pytest.mark.parametrize("room", [0, 7, 1000])
def test_templates_are_those_of_the_bank_whatever_is_kept(bank, table, room):
    fine = FineViews(bank, table, room * bank.bytes_per_view())
    rng = np.random.default_rng(0)
    for division in (1, 2, 1, 2):
        views = rng.choice(len(fine.table(division)), 11, replace=False)
        _same(fine.templates(division, views), bank.templates(fine.table(division), views))
        assert _kept(fine) <= room
    assert room == 0 or _kept(fine) >= min(room, 11)


def test_kept_templates_are_not_made_again(bank, table, monkeypatch):
    fine, made, templates = FineViews(bank, table, 2.0**30), [], bank.templates
    monkeypatch.setattr(bank, "templates", lambda t, views: made.extend(views) or templates(t, views))
    first = fine.templates(1, np.array([4, 9, 2]))
    second = fine.templates(1, np.array([9, 5, 4, 4]))
    assert sorted(made) == [2, 4, 5, 9]
    for i, j in ((0, 2), (0, 3), (1, 0)):
        assert torch.equal(second.rows[j], first.rows[i])
    fine.templates(2, np.array([4]))
    assert sorted(made) == [2, 4, 4, 5, 9]  # another view of another division


def test_threads_get_the_same(bank, table):
    fine = FineViews(bank, table, 20 * bank.bytes_per_view())
    rng = np.random.default_rng(2)
    asked = [rng.choice(len(fine.table(1)), 12, replace=False) for _ in range(8)]
    for views, found in zip(asked, parallel(lambda views: fine.templates(1, views), asked, 2)):
        _same(found, bank.templates(fine.table(1), views))
    assert _kept(fine) <= 20
