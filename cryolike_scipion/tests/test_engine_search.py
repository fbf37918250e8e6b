"""The search on small simulated images: poses, sums over poses, and every shortcut against the plain way."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from cryolike_scipion.engine import refine
from cryolike_scipion.engine.adaptive import integrate
from cryolike_scipion.engine.correlation import correlate, image_orders
from cryolike_scipion.engine.exhaustive import BlockSizes, search_grid
from cryolike_scipion.engine.likelihood import ScalePrior, log_evidence
from cryolike_scipion.engine.optima import KEEP, Optima
from cryolike_scipion.engine.polar_grid import fft_friendly, inplane_count
from cryolike_scipion.engine.pose_cells import Division, cells_of_grid
from cryolike_scipion.engine.pose_mass import PoseWindow, pose_mass
from cryolike_scipion.engine.pose_scores import posed_products, score_poses, shift_phase
from cryolike_scipion.engine.rotations import distance_deg, euler_from_matrix, matrix_from_euler, random_rotations
from cryolike_scipion.engine.scoring import grid_evidence
from cryolike_scipion.engine.shifts import ShiftGrid, grid_by_radius, subdivide
from cryolike_scipion.engine.symmetry import rotations as group_rotations
from cryolike_scipion.engine.views import children, healpix_views

from .blob_particles import PIXEL, Blobs, Comparison, DiscRule, optics

BOX, K_MAX, COUNT = 32, 0.06, 6
NEAR = PoseWindow(12.0, 4.0)


class Trial:
    """Images with known poses, and the grid on which they are searched."""

    def __init__(self, snr, symmetry="C1", step=15.0, double=False, seed=0):
        self.blobs = Blobs.random(11, count=9 if symmetry == "C1" else 4, radius=30.0, symmetry=symmetry)
        self.comparison = Comparison(self.blobs.structure(), optics(COUNT), K_MAX, BOX, reach=16.0, double=double)
        # wide enough for the contrast of these images
        self.prior = ScalePrior(0.0, 40.0 if snr else 4000.0)
        rng = np.random.default_rng(seed)
        self.rotations = random_rotations(COUNT, rng)
        self.origins = rng.uniform(-7, 7, (COUNT, 2))
        self.pixels = self.draw(self.rotations, self.origins, snr)
        self.images = self.comparison.images(self.pixels)
        self.table = healpix_views(step, symmetry)
        self.templates = self.comparison.bank.templates(self.table)
        self.shifts = grid_by_radius(8.0, 4.0)
        self.inplane = inplane_count(self.comparison.bank.n_orders - 1)

    def draw(self, rotations, origins, snr, seed=5):
        """Images of given poses; variance of the signal over the noise's is ``snr`` (None: no noise)."""
        euler = np.stack(euler_from_matrix(rotations), axis=1)
        clean = self.comparison.clean(self.blobs, euler, origins, DiscRule(K_MAX, 50, 48))
        clean /= clean.std()
        noise = 0.02 if snr is None else snr**-0.5
        pixels = clean + noise * np.random.default_rng(seed).normal(size=clean.shape)
        return pixels.astype(np.float64 if self.comparison.bank.dtype == torch.complex128 else np.float32)

    def search(self, images=None, shifts=None, **options):
        return search_grid(
            self.images if images is None else images, self.templates, self.table.weights, shifts or self.shifts,
            self.inplane, self.prior, self.comparison.grid, **options,
        )  # fmt: skip

    def poses(self, scores, shifts=None):
        """Best rotations [m, 3, 3] and origins [m, 2]."""
        view = scores.view.numpy()
        psi = 360.0 * scores.inplane.numpy() / self.inplane
        rotation = matrix_from_euler(self.table.rot_deg[view], self.table.tilt_deg[view], psi)
        return rotation, (shifts or self.shifts).origins[scores.shift.numpy()]

    def tensor(self, index=slice(None), table=None, templates=None, shifts=None, inplane=None):
        """Every ln(evidence/null) [m, v, o, g] by the plain formula in float64, and a, b, c."""
        images, shifts = self.images.take(index), shifts or self.shifts
        templates = self.templates if templates is None else templates
        inplane = inplane or self.inplane
        orders = image_orders(images.matched, self.comparison.grid, shifts.origins, templates.orders.shape[1])
        b = correlate(orders, templates.orders, inplane).double()
        b = b.view(len(images), len(shifts), len(templates), inplane)
        known = grid_evidence(images, templates, self.prior, inplane)
        b = (b.transpose(1, 2) - known.offset[:, :, None].double()).numpy()
        a = known.power[:, :, None].double().numpy()
        c, n = (v.numpy()[:, None, None, None] for v in (images.projected_power, images.dof))
        return log_evidence(a, b, c, n, self.prior), b / np.sqrt(a * c)


@pytest.fixture(scope="module")
def quiet():
    return Trial(None)


@pytest.fixture(scope="module")
def noisy():
    return Trial(0.3)


@pytest.fixture(scope="module")
def noisy_scores(noisy):
    return noisy.search(screen=False)


def _log_prior(trial):
    return np.log(trial.table.weights)[None, :, None, None] - np.log(len(trial.shifts) * trial.inplane)


def test_the_plain_search_is_the_sum_over_all_poses(noisy, noisy_scores):
    """Integral, masses by view and by shift, posterior mean and best pose, against the whole tensor."""
    logs, _ = noisy.tensor()
    weighted = logs + _log_prior(noisy)
    # The normal limit of Student's t and float32 make up the tolerance.
    assert np.abs(noisy_scores.integrated.numpy() - logsumexp(weighted, axis=(1, 2, 3))).max() < 2e-3
    # The best of the grid has <T,T> averaged over psi (3 % for these CTFs): 1.8 nat of 60. Refined poses have
    # their own.
    assert np.abs(noisy_scores.best.numpy() - logs.max(axis=(1, 2, 3))).max() < 2.5
    by_view = logsumexp(weighted, axis=(2, 3))
    top = by_view > by_view.max(axis=1, keepdims=True) - 15
    assert np.abs(noisy_scores.log_mass.numpy() - by_view)[top].max() < 5e-3
    by_shift = logsumexp(weighted, axis=(1, 3))
    top = by_shift > by_shift.max(axis=1, keepdims=True) - 15
    assert np.abs(noisy_scores.shift_log_mass.numpy() - by_shift)[top].max() < 5e-3
    posterior = np.exp(weighted - logsumexp(weighted, axis=(1, 2, 3), keepdims=True))
    mean = (posterior * logs).sum(axis=(1, 2, 3))
    found = np.exp(noisy_scores.log_mass.numpy() - noisy_scores.integrated.numpy()[:, None])
    assert np.abs((found * noisy_scores.mean_log.numpy()).sum(axis=1) - mean).max() < 0.02
    best = logs.transpose(0, 2, 1, 3).reshape(COUNT, -1).argmax(axis=1)
    o, v, g = np.unravel_index(best, (len(noisy.shifts), len(noisy.table), noisy.inplane))
    # Astigmatism moves <T,T> a little with psi, which the choice of the angle leaves out: a step at most.
    assert np.array_equal(v, noisy_scores.view.numpy()) and np.array_equal(o, noisy_scores.shift.numpy())
    assert np.abs((g - noisy_scores.inplane.numpy() + 2) % noisy.inplane - 2).max() <= 1


@pytest.mark.parametrize("name", ["quiet", "noisy"])
def test_poses_are_recovered_to_the_grid(name, request):
    trial = request.getfixturevalue(name)
    rotation, origin = trial.poses(trial.search())
    # Half the diagonal of a cell of views and half a step in psi; a cell of shifts.
    assert np.median(distance_deg(rotation, trial.rotations)) < 15.0
    assert distance_deg(rotation, trial.rotations).max() < 25.0
    assert np.abs(origin - trial.origins).max() < 4.5


def test_screening_leaves_out_nothing_that_matters(noisy, noisy_scores):
    plain_masses = noisy_scores.log_mass
    for trial, plain in ((noisy, noisy_scores), (Trial(0.01), None)):
        plain = plain or trial.search(screen=False)
        screened = trial.search(screen=True)
        assert np.abs(screened.integrated.numpy() - plain.integrated.numpy()).max() < 0.02
        for name in ("best", "view", "shift", "inplane"):
            assert torch.equal(getattr(screened, name), getattr(plain, name))
    # It does leave rows out: most views' masses are a sample's.
    few = noisy.search(screen=True)
    assert (few.log_mass - plain_masses).abs().gt(1e-3).double().mean() > 0.5


def test_screened_sums_are_unbiased_for_images_without_a_particle():
    """Where the mass is everywhere the sampled rows carry part of it."""
    trial = Trial(0.3)
    noise = np.random.default_rng(3).normal(size=trial.pixels.shape).astype(np.float32)
    images = trial.comparison.images(noise)
    plain, screened = (trial.search(images, screen=s).integrated.numpy() for s in (False, True))
    assert np.abs(screened - plain).max() < 0.1
    assert abs(np.mean(screened - plain)) < 0.04


def test_block_sizes_do_not_change_results(noisy, noisy_scores):
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


def _refined(trial, images):
    rotation, origin = trial.poses(trial.search(images))
    return refine.refine_poses(images, rotation, origin, trial.comparison.bank, trial.prior, 4.0, iterations=10)


def test_turning_an_image_turns_its_pose(quiet):
    """Pixels turned by 90 degrees about the centre: A' = Z A, origin' = Z origin; the CTF turns along."""
    turned = np.rot90(np.pad(quiet.pixels, ((0, 0), (0, 1), (0, 1)), mode="wrap"), 1, (1, 2))[:, :-1, :-1]
    # rot90 takes columns to rows: what was at +x (to the right) is at -y (up) afterwards.
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    arguments = dict(quiet.comparison.arguments)
    arguments["defocus_angle_deg"] = arguments["defocus_angle_deg"] + 90.0
    images = quiet.comparison.images(turned.copy(), arguments)
    before, after = _refined(quiet, quiet.images), _refined(quiet, images)
    assert distance_deg(after.rotation, turn @ before.rotation).max() < 0.5
    assert np.abs(after.origin - before.origin @ turn[:2, :2].T).max() < 0.1
    assert distance_deg(after.rotation, before.rotation).min() > 89.0


def test_moving_an_image_moves_its_origin(quiet):
    """The particle sits at minus its origin: pixels moved by (1, -1) take (1, -1) off the origin."""
    moved = np.roll(quiet.pixels, (-1, 1), axis=(1, 2))
    before, after = _refined(quiet, quiet.images), _refined(quiet, quiet.comparison.images(moved))
    assert distance_deg(after.rotation, before.rotation).max() < 0.5
    assert np.abs(after.origin - (before.origin - [PIXEL, -PIXEL])).max() < 0.1


def test_refinement_finds_poses_better_than_the_grid(quiet, noisy):
    for trial, angle, shift in ((quiet, 0.7, 0.1), (noisy, 9.0, 1.5)):
        rotation, origin = trial.poses(trial.search())
        start = score_poses(trial.images, rotation, origin, trial.comparison.bank, trial.prior)
        found = refine.refine_poses(trial.images, rotation, origin, trial.comparison.bank, trial.prior, 4.0, iterations=10)
        assert (found.scores.log_ratio >= start.log_ratio).all()
        truth = score_poses(trial.images, trial.rotations, trial.origins, trial.comparison.bank, trial.prior)
        # Without noise the scores are those of a cc of 0.9995, and 2 % of them are the single precision of templates.
        allowed = 0.02 * truth.log_ratio if trial is quiet else 0.05
        assert (found.scores.log_ratio > truth.log_ratio - allowed).all()
        assert np.median(distance_deg(found.rotation, trial.rotations)) < angle
        assert np.median(np.linalg.norm(found.origin - trial.origins, axis=1)) < shift
        assert distance_deg(rotation, trial.rotations).max() > 2.0  # the grid alone is not as good


def test_gradient_of_the_score_agrees_with_numerical_differentiation():
    trial = Trial(0.3, double=True)
    bank, images = trial.comparison.bank, trial.images
    rng = np.random.default_rng(9)
    nudge = matrix_from_euler(*rng.uniform(-4, 4, (3, COUNT)))
    rotation, origin = nudge @ trial.rotations, trial.origins + rng.uniform(-1, 1, (COUNT, 2))
    slices = bank.slices(rotation)
    scores = score_poses(images, rotation, origin, bank, trial.prior)
    gradient, fisher = refine._derivatives(images, rotation, origin, slices, scores, bank, trial.prior)
    numerical = np.empty((COUNT, 5))
    for axis in range(5):
        ends = []
        for sign in (1, -1):
            step = np.zeros(5)
            step[axis] = sign * (1e-3 if axis < 3 else 0.02)
            turn = refine.Rotation.from_rotvec(step[:3]).as_matrix()
            ends.append(score_poses(images, turn @ rotation, origin + step[3:], bank, trial.prior).log_ratio)
        numerical[:, axis] = (ends[0] - ends[1]) / (2 * np.abs(step[axis]))
    size = np.sqrt(np.einsum("rii->ri", fisher))  # the natural size of a gradient: one standard deviation
    error = np.abs(gradient - numerical) / size
    assert error[:, [0, 1, 3, 4]].max() < 5e-3
    # The change of <T,T> with psi behind an astigmatic CTF is left out of the gradient (not of the score).
    assert error[:, 2].max() < 0.3
    assert (np.abs(numerical) / size).max() > 1.0
    assert np.linalg.eigvalsh(fisher).min() > 0


def test_fisher_matrix_is_the_curvature_of_a_noise_free_image(quiet):
    """At the truth, without noise, minus the second derivative along each parameter."""
    bank, images = quiet.comparison.bank, quiet.images
    found = _refined(quiet, images)
    slices = bank.slices(found.rotation)
    _, fisher = refine._derivatives(images, found.rotation, found.origin, slices, found.scores, bank, quiet.prior)
    for axis in range(5):
        scale = 0.3 / np.sqrt(fisher[:, axis, axis])
        values = []
        for sign in (-1, 0, 1):
            step = np.zeros((COUNT, 5))
            step[:, axis] = sign * scale
            turn = refine.Rotation.from_rotvec(step[:, :3]).as_matrix()
            a, b = posed_products(
                images, bank.slices(turn @ found.rotation), shift_phase(bank, found.origin + step[:, 3:]), bank
            )
            c, n = images.projected_power.numpy(), images.dof.numpy()
            values.append(log_evidence(a.numpy(), b.numpy(), c, n, quiet.prior))
        curvature = (2 * values[1] - values[0] - values[2]) / scale**2
        assert curvature == pytest.approx(fisher[:, axis, axis], rel=0.25)


def _fine_grid(trial, levels):
    """The cells of the trial's grid, all divided: views, shifts and in-plane angles of an exhaustive search."""
    table, origins, step = trial.table, trial.shifts.origins, trial.shifts.step
    for _ in range(levels):
        table = children(table, np.arange(len(table)))
        origins, step = subdivide(origins, step)
    return table, ShiftGrid(origins, step)


def _exhaustive(trial, levels, i):
    """ln of the sum over all cells, divided ``levels`` times, whose view is within 35 degrees of image i's truth."""
    table, shifts = _fine_grid(trial, levels)
    inplane = fft_friendly(max(trial.inplane, int(360 / table.step_deg)))
    near = np.flatnonzero(table.directions() @ trial.rotations[i, 2] > np.cos(np.deg2rad(35)))
    templates = trial.comparison.bank.templates(table, near)
    image = trial.images.take(slice(i, i + 1))
    scores = search_grid(
        image, templates, table.weights[near], shifts, inplane, trial.prior, trial.comparison.grid, BlockSizes(1, 16)
    )
    return float(scores.integrated)


def _integrate(trial, scores, levels, near=NEAR, **options):
    count = len(scores.best)
    return integrate(
        trial.images.take(slice(0, count)), cells_of_grid(scores, trial.shifts), trial.table, trial.shifts,
        trial.inplane, trial.comparison.bank, trial.prior, trial.comparison.grid, near,
        Division(levels=levels, tolerance=0.0), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def faint():
    """As finely searched as a run would: 7.3 degrees for 57 Å at 0.06 1/Å."""
    return Trial(0.1, step=7.5)


@pytest.fixture(scope="module")
def faint_scores(faint):
    return faint.search(faint.images.take(slice(0, 3)))


def test_division_of_cells_converges_to_a_fine_exhaustive_search(faint, faint_scores):
    """Two divisions, of the heavy cells only, against all cells divided twice: 1.8 degrees, 1 Å, 1.8 degrees in psi."""
    exact = np.array([_exhaustive(faint, 2, i) for i in range(3)])
    found = [_integrate(faint, faint_scores, levels) for levels in (0, 1, 2, 3)]
    errors = [np.abs(one.log - exact).max() for one in found]
    assert errors[0] > 1.0 and errors[1] < 0.3
    assert errors[2] < 0.03
    assert errors[3] < 0.1  # finer than the exhaustive search, whose own error this is
    assert np.abs(found[3].change).max() < 0.1 < np.abs(found[1].change).max()
    assert (found[3].mean_log > found[3].log + 1.0).all()  # information is gained
    for i, one in enumerate(found[1:]):
        exact_best = score_poses(faint.images.take(slice(0, 3)), one.rotation, one.origin, faint.comparison.bank, faint.prior)
        assert np.abs(exact_best.log_ratio - one.best).max() < 1.0, i  # <T,T> averaged over psi
    assert (distance_deg(found[3].rotation, faint.rotations[:3]) < 15).all()


def test_division_keeps_the_mass_of_sharp_posteriors():
    """At three times the signal (60 nat) the coarse grid is up to 12 nat off; the divided one is not."""
    trial = Trial(0.3, step=7.5)
    scores = trial.search(trial.images.take(slice(0, 2)))
    exact = np.array([_exhaustive(trial, 2, i) for i in range(2)])
    assert np.abs(scores.integrated.numpy() - exact).max() > 5
    assert np.abs(_integrate(trial, scores, 2).log - exact).max() < 0.05


def test_memory_limit_does_not_change_the_integral(faint, faint_scores):
    free = _integrate(faint, faint_scores, 2)
    tight = _integrate(faint, faint_scores, 2, max_bytes=300 * faint.comparison.bank.bytes_per_view())
    assert np.abs(free.log - tight.log).max() < 1e-5
    assert np.array_equal(free.rotation, tight.rotation) and np.array_equal(free.origin, tight.origin)


def test_mass_near_the_best_pose_converges_too(faint, faint_scores):
    near = PoseWindow(5.0, 4.0)
    masses = [_integrate(faint, faint_scores, levels, near).pose_mass for levels in (0, 2, 3)]
    assert np.abs(masses[2] - masses[1]).max() < 0.06
    assert np.abs(masses[0] - masses[1]).max() > 0.1
    assert masses[2].min() > 0.1 and masses[2].max() < 0.8
    # A wide window holds nearly everything, a narrow one little.
    wide = _integrate(faint, faint_scores, 2, PoseWindow(30.0, 8.0)).pose_mass
    narrow = _integrate(faint, faint_scores, 2, PoseWindow(2.5, 1.5)).pose_mass
    assert wide.min() > 0.95 and wide.max() <= 1.0 + 1e-6
    assert np.all(narrow < 0.5 * masses[1]) and narrow.min() > 0


def test_no_division_scores_the_cells_as_they_are(faint, faint_scores):
    found = _integrate(faint, faint_scores, 0, keep_samples=40)
    assert np.abs(found.log - faint_scores.integrated.numpy()).max() < 0.02
    # The kept samples are the heaviest poses of the tensor, and the best pose is its largest score, astigmatism included.
    logs, _ = faint.tensor(slice(0, 3))
    assert np.abs(found.best - logs.reshape(3, -1).max(axis=1)).max() < 5e-3
    weighted = (logs + _log_prior(faint)).reshape(3, -1)
    for i, sample in enumerate(found.samples):
        c, n = float(faint.images.projected_power[i]), float(faint.images.dof[i])
        ours = np.sort(log_evidence(sample.power, sample.product, c, n, faint.prior) + sample.log_prior)[::-1]
        exact = np.sort(weighted[i])[::-1][:40]
        heavy = exact > exact[0] - 4  # of rows with less than that only a sample is looked at
        assert heavy.sum() > 3 and np.abs(ours - exact)[heavy].max() < 0.01


@pytest.mark.parametrize("group", ["C1", "C4", "D2"])
def test_pose_mass_is_the_sum_over_nearby_poses(group):
    rng = np.random.default_rng(2)
    table = healpix_views(20.0, group)
    at_zero, inplane = table.rotations(), 30
    row_view = rng.integers(len(table), size=400)
    row_origin = rng.uniform(-3, 3, (400, 2))
    weights = torch.as_tensor(rng.uniform(0, 1, (400, inplane)))
    near = PoseWindow(28.0, 2.0)
    for _ in range(4):
        rotation, origin = random_rotations(1, rng)[0], rng.uniform(-2, 2, 2)
        psi = 360.0 * np.arange(inplane) / inplane
        poses = matrix_from_euler(table.rot_deg[row_view][:, None], table.tilt_deg[row_view][:, None], psi)
        inside = distance_deg(poses, rotation, group_rotations(group)) <= near.angle_deg
        inside &= (np.linalg.norm(row_origin - origin, axis=1) <= near.shift)[:, None]
        expected = weights.numpy()[inside].sum()
        found = pose_mass(weights, at_zero, row_view, row_origin, group, rotation, origin, near)
        assert expected > 1.0
        assert found == pytest.approx(expected, rel=1e-9)


def test_one_asymmetric_unit_stands_for_the_whole_sphere():
    """A C4 structure searched over its asymmetric unit and, as if it had no symmetry, over all views."""
    unit = Trial(0.3, "C4", step=7.5)
    sphere = healpix_views(7.5)
    templates = unit.comparison.bank.templates(sphere)
    assert 0.2 < len(unit.table) / len(sphere) < 0.32
    ours = unit.search(screen=False)
    shifts = unit.shifts
    full = search_grid(
        unit.images, templates, sphere.weights, shifts, unit.inplane, unit.prior, unit.comparison.grid, screen=False
    )
    difference = np.abs(ours.integrated.numpy() - full.integrated.numpy())
    assert difference.max() < 0.05
    rotation, origin = unit.poses(ours)
    refined = refine.refine_poses(unit.images, rotation, origin, unit.comparison.bank, unit.prior, 4.0)
    away = distance_deg(refined.rotation, unit.rotations, group_rotations("C4"))
    assert np.median(away) < 9.0
