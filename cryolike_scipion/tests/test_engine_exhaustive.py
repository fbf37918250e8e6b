"""The search of a whole grid on small simulated images: poses, sums over poses, and every shortcut against the plain way."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from cryolike_scipion.engine import correlation, exhaustive, refine, row_sums
from cryolike_scipion.engine.exhaustive import BlockSizes, search_grid
from cryolike_scipion.engine.optima import KEEP, Optima
from cryolike_scipion.engine.rotations import distance_deg
from cryolike_scipion.engine.symmetry import rotations as group_rotations
from cryolike_scipion.engine.template_bank import BASIS_ACCURACY
from cryolike_scipion.engine.views import healpix_views

from .search_trial import COUNT, Trial


@pytest.fixture(scope="module")
def quiet():
    return Trial(None)


@pytest.fixture(scope="module")
def noisy():
    return Trial(0.3)


@pytest.fixture(scope="module")
def noisy_scores(noisy):
    return noisy.search(screen=False)


def test_the_plain_search_is_the_sum_over_all_poses(noisy, monkeypatch):
    """Integral, mass of every row, posterior mean and best pose, against the whole tensor."""
    monkeypatch.setattr(exhaustive, "_NOTICED", 0.0)
    scores = noisy.search(screen=False, most_heavy=10**9)
    logs, _ = noisy.tensor()
    weighted = logs + noisy.log_prior()
    # The normal limit of Student's t and float32 make up the tolerance.
    assert np.abs(scores.integrated.numpy() - logsumexp(weighted, axis=(1, 2, 3))).max() < 2e-3
    # Half the logarithm of <T,T>'s change with psi, 3 % for these CTFs, is left out of the choice of the pose.
    assert np.abs(scores.best.numpy() - logs.max(axis=(1, 2, 3))).max() < 0.03
    rows, by_row = noisy.row_masses(scores), logsumexp(weighted, axis=3).transpose(0, 2, 1)
    for axes in ((), (1,), (2,)):  # of every row, view and shift
        found, exact = (logsumexp(v, axis=axes) if axes else v for v in (rows, by_row))
        top = exact > exact.reshape(COUNT, -1).max(axis=1).reshape(COUNT, *[1] * (exact.ndim - 1)) - 15
        assert np.abs(found - exact)[top].max() < 5e-3
    posterior = np.exp(weighted - logsumexp(weighted, axis=(1, 2, 3), keepdims=True))
    mean = (posterior * logs).sum(axis=(1, 2, 3))
    assert np.abs(scores.mean_log.numpy() - mean).max() < 0.02
    for heavy, exact in zip(scores.heavy, (posterior * logs).sum(axis=3).transpose(0, 2, 1).reshape(COUNT, -1)):
        assert (np.diff(heavy["log_mass"]) <= 0).all()
        moment = np.exp(heavy["log_mass"] - logsumexp(heavy["log_mass"])) * heavy["mean_log"]
        assert np.abs(moment - exact[heavy["row"]]).max() < 0.02
    chosen = logs[np.arange(COUNT), scores.view.numpy(), scores.shift.numpy(), scores.inplane.numpy()]
    assert (logs.max(axis=(1, 2, 3)) - chosen).max() < 0.03


def test_the_rows_that_are_named_are_the_heaviest():
    trial = Trial(0.01)
    few, all_named = (trial.search(screen=False, most_heavy=most).heavy for most in (7, 4096))
    for short, long in zip(few, all_named):
        assert len(short["row"]) == 7 < len(long["row"])
        assert np.array_equal(short["row"], long["row"][:7]) and np.array_equal(short["mean_log"], long["mean_log"][:7])


@pytest.mark.parametrize("name", ["quiet", "noisy"])
def test_poses_are_recovered_to_the_grid(name, request):
    trial = request.getfixturevalue(name)
    rotation, origin = trial.poses(trial.search())
    # Half the diagonal of a cell of views and half a step in psi; a cell of shifts.
    assert np.median(distance_deg(rotation, trial.rotations)) < 15.0
    assert distance_deg(rotation, trial.rotations).max() < 25.0
    assert np.abs(origin - trial.origins).max() < 4.5


@pytest.fixture
def sparse(monkeypatch):
    """One in sixteen of the rows that cannot matter is summed; a list that counts the rows that are."""
    monkeypatch.setattr(row_sums, "_SAMPLES", 1)
    summed, sum_rows = [], exhaustive.sum_rows

    def counted(b, *others):
        summed.append(len(b))
        return sum_rows(b, *others)

    monkeypatch.setattr(exhaustive, "sum_rows", counted)
    assert row_sums.sampling_interval(10**3) == 16
    return summed


def test_screening_leaves_out_nothing_that_matters(noisy, noisy_scores, sparse):
    size = COUNT * len(noisy.shifts) * len(noisy.table)
    for trial, plain in ((noisy, noisy_scores), (Trial(0.01), None)):
        plain = plain or trial.search(screen=False)
        sparse.clear()
        screened = trial.search(screen=True)
        assert np.abs(screened.integrated.numpy() - plain.integrated.numpy()).max() < 0.01
        assert np.abs(screened.mean_log.numpy() - plain.mean_log.numpy()).max() < 0.05
        for name in ("best", "view", "shift", "inplane"):
            assert torch.equal(getattr(screened, name), getattr(plain, name))
        # Where a particle is seen most rows are left out; where it is not most can matter.
        assert (sum(sparse) < 0.3 * size) == (trial is noisy)


def test_screened_sums_are_unbiased_for_images_without_a_particle(noisy, sparse, monkeypatch):
    """Where the mass is everywhere the sampled rows carry it: here three in four are taken for rows that cannot matter."""
    monkeypatch.setattr(exhaustive, "SURE", 0.0)
    noise = np.random.default_rng(3).normal(size=noisy.pixels.shape).astype(np.float32)
    images = noisy.comparison.images(noise)
    plain = noisy.search(images, screen=False).integrated.numpy()
    sparse.clear()
    screened = noisy.search(images, screen=True, blocks=exhaustive.BlockSizes(2, 24)).integrated.numpy()
    assert sum(sparse) < 0.3 * COUNT * len(noisy.shifts) * len(noisy.table)
    assert np.abs(screened - plain).max() < 0.1
    assert abs(np.mean(screened - plain)) < 0.04


def test_small_grids_are_summed_as_a_whole():
    assert row_sums.sampling_interval(16384) == 1 and row_sums.sampling_interval(10 * 16384) == 10
    assert row_sums.sampling_interval(10**9) == 16
    peak = torch.zeros(3, 40, 50)
    chosen, matters = row_sums.pick_rows(peak, 1.0, 16)
    assert not matters.any() and abs(float(chosen.double().mean()) - 1 / 16) < 0.005
    assert chosen.any(dim=1).all() and chosen.any(dim=2).all()  # of every shift and of every view
    assert row_sums.pick_rows(peak, 1.0, 1)[0].all() and row_sums.pick_rows(peak, -1.0, 16)[0].all()


@pytest.mark.parametrize("snr", [0.01, 0.1, 0.5, None])
def test_the_compressed_sampled_search_is_that_of_the_plain_path(snr, sparse):
    """float32, compressed, one row in 16, against float64 with every radial node and row; None: no particle at all."""
    plain, fast = Trial(snr or 0.1, double=True), Trial(snr or 0.1, compression=BASIS_ACCURACY)
    assert fast.bank.basis.size < 0.7 * plain.bank.basis.size
    images = [plain.images, fast.images]
    if snr is None:
        noise = np.random.default_rng(8).normal(size=plain.pixels.shape)
        images = [plain.comparison.images(noise), fast.comparison.images(noise.astype(np.float32))]
    inplane = fast.inplane = max(plain.inplane, fast.inplane)
    plain.inplane = inplane
    exact, found = plain.search(images[0], screen=False), fast.search(images[1])
    assert np.abs(found.integrated.numpy() - exact.integrated.numpy()).max() < 0.01
    # The pose that was chosen is, in float64, as good as the one that the plain path chooses.
    logs, _ = plain.tensor(images[0])
    i = np.arange(COUNT)
    ours, theirs = (logs[i, s.view.numpy(), s.shift.numpy(), s.inplane.numpy()] for s in (found, exact))
    assert (theirs - ours).max() < 0.01 and (logs.max(axis=(1, 2, 3)) - ours).max() < 0.04
    assert np.abs(found.best.numpy() - exact.best.numpy()).max() < 0.01


def test_block_sizes_do_not_change_results(noisy, noisy_scores, monkeypatch):
    monkeypatch.setattr(correlation, "_PRODUCTS_AT_ONCE", 1 << 14)  # several parts to a block
    for blocks in (BlockSizes(1, 17), BlockSizes(4, 512), BlockSizes(5, 64)):
        other = noisy.search(screen=False, blocks=blocks)
        assert np.abs(other.integrated.numpy() - noisy_scores.integrated.numpy()).max() < 1e-4
        assert torch.equal(other.view, noisy_scores.view) and torch.equal(other.shift, noisy_scores.shift)
        assert torch.equal(other.inplane, noisy_scores.inplane)
        assert np.abs(other.best.numpy() - noisy_scores.best.numpy()).max() < 1e-3
        screened = noisy.search(screen=True, blocks=blocks)
        assert np.abs(screened.integrated.numpy() - noisy_scores.integrated.numpy()).max() < 0.02
    ticks = []
    noisy.search(blocks=BlockSizes(4, 64), tick=ticks.append)
    assert ticks == [4, 2]


def test_double_precision_gives_the_same_search(noisy, noisy_scores):
    double = Trial(0.3, double=True)
    scores = double.search(screen=False)
    assert np.abs(scores.integrated.numpy() - noisy_scores.integrated.numpy()).max() < 0.01
    assert torch.equal(scores.view, noisy_scores.view) and torch.equal(scores.shift, noisy_scores.shift)


@pytest.mark.parametrize("keep", sorted(KEEP))
def test_kept_optima_are_those_of_the_whole_tensor(noisy, keep):
    _, cc = noisy.tensor()
    optima = Optima(keep, COUNT, len(noisy.table), len(noisy.shifts), noisy.inplane)
    noisy.search(optima=optima, blocks=BlockSizes(4, 50))
    axes = {"v": 1, "o": 2, "g": 3}
    over = tuple(axes[name] for name in KEEP[keep])
    assert np.abs(optima.value.numpy() - cc.max(axis=over)).max() < 1e-5
    if not over:
        assert optima.position is None and optima.value.shape == cc.shape
        return
    kept = [axis for axis in (1, 2, 3) if axis not in over]
    flat = cc.transpose(0, *kept, *over).reshape(*optima.value.shape, -1)
    there = np.take_along_axis(flat, optima.position.numpy()[..., None].astype(np.int64), axis=-1)[..., 0]
    assert np.abs(there - flat.max(axis=-1)).max() < 1e-5


def test_one_asymmetric_unit_stands_for_the_whole_sphere():
    """A C4 structure searched over its asymmetric unit and, as if it had no symmetry, over all views."""
    unit = Trial(0.3, "C4", step=7.5)
    sphere = healpix_views(7.5)
    templates = unit.bank.templates(sphere)
    assert 0.2 < len(unit.table) / len(sphere) < 0.32
    ours = unit.search(screen=False)
    shifts = unit.shifts
    full = search_grid(
        unit.images, templates, sphere.weights, shifts, unit.inplane, unit.prior, unit.comparison.grid, unit.bank.basis,
        screen=False,
    )  # fmt: skip
    difference = np.abs(ours.integrated.numpy() - full.integrated.numpy())
    assert difference.max() < 0.05
    rotation, origin = unit.poses(ours)
    refined = refine.refine_poses(unit.images, rotation, origin, unit.bank, unit.prior, 4.0)
    away = distance_deg(refined.rotation, unit.rotations, group_rotations("C4"))
    assert np.median(away) < 9.0
