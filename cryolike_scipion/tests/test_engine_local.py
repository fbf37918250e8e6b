"""Searches that start from input poses: local ones find the pose nearby and leave the rest alone, fixed ones score it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from cryolike_scipion import parameters
from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.division import Confinement
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.exhaustive import BlockSizes
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_chunk import Scoring, _Piece
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.pose_priors import PosePrior, ViewPrior
from cryolike_scipion.engine.pose_scores import score_poses
from cryolike_scipion.engine.pose_search import StructureSearch
from cryolike_scipion.engine.rotations import distance_deg, euler_from_matrix, matrix_from_euler, random_rotations
from cryolike_scipion.engine.symmetry import rotations as group_rotations
from cryolike_scipion.engine.views import healpix_views

from .blob_particles import PIXEL
from .small_sets import SEARCH, poses_of, score, simulate, with_poses, write_maps

COUNT, REACH = 10, 14.0  # origins go to ±14 Å along x and y
LOCAL = {"search": "local", "angular_step": 9.0, "levels": 1, "max_shift": 6.0, "local_range": 12.0}


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)


def turned(angles, degrees, seed):
    """Angles [m, 3] of the same poses turned by so many degrees about random axes."""
    axes = np.random.default_rng(seed).normal(size=(len(angles), 3))
    axes *= np.deg2rad(degrees) / np.linalg.norm(axes, axis=1, keepdims=True)
    cross = np.zeros((len(axes), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axes[:, 2], axes[:, 1], -axes[:, 0]
    turn = torch.linalg.matrix_exp(torch.from_numpy(cross - cross.transpose(0, 2, 1))).numpy()
    return np.stack(euler_from_matrix(turn @ matrix_from_euler(*angles.T)), axis=1)


def shifted(origins, distance, seed):
    """Origins moved by a distance (Å) in random directions."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(origins))
    return origins + distance * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _set(folder, symmetry):
    maps = write_maps(folder, 1, box=28, symmetry=symmetry, count=8 if symmetry == "C1" else 3, radius=16.0)
    simulate(folder, maps, count=COUNT, snr=2.0, max_shift=REACH, symmetry=[symmetry])
    angles, origins = poses_of(folder / "truth.star")
    # 7° and 5 Å away from the truth
    star = with_poses(folder / "truth.star", folder / "near.star", turned(angles, 7.0, 1), shifted(origins, 5.0, 2))
    return SimpleNamespace(
        folder=folder, maps=maps, symmetry=symmetry, star=star, angles=angles, origins=origins,
        rotations=matrix_from_euler(*angles.T), truth=folder / "truth.star",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return _set(tmp_path_factory.mktemp("local"), "C1")


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory):
    return _set(tmp_path_factory.mktemp("local_c4"), "C4")


def _setup(case, **options):
    given = {"particles": [str(case.star)], "structures": case.maps, "symmetry": [case.symmetry], "out": "unused"}
    return prepare_run(parameters.complete("likelihood", {**SEARCH, **LOCAL, **given, **options}), "cpu")


def _poses(results):
    rotation = matrix_from_euler(results.rot[0], results.tilt[0], results.psi[0])
    return rotation, np.stack([results.origin_x[0], results.origin_y[0]], axis=1)


# ---------------------------------------------------------------- what the confinement lets through


def test_views_and_inplane_angles_of_the_cone():
    """Against the definition: the turn about the view that is left after the best one."""
    rng = np.random.default_rng(3)
    rotations, table = random_rotations(4, rng), healpix_views(15.0)
    confinement = Confinement(rotations, 25.0)
    for i in range(4):
        apart = np.rad2deg(np.arccos(np.clip(table.directions() @ rotations[i, 2], -1, 1)))
        at_zero = table.rotations()[apart <= 25.0]
        assert len(at_zero) > 5
        allowed = confinement.inplane(i, at_zero, 90)
        psi = 4.0 * np.arange(90)
        posed = np.einsum("gij,vjk->vgik", matrix_from_euler(0.0, 0.0, psi), at_zero)
        similar = np.einsum("vgik,ik->vg", posed, rotations[i])  # a cosine in psi, 1 + cos(apart) high
        fine = np.einsum("gij,vjk,ik->vg", matrix_from_euler(0.0, 0.0, np.arange(0, 360, 0.01)), at_zero, rotations[i])
        best = 0.01 * fine.argmax(axis=1)
        off = np.abs((psi - best[:, None] + 180) % 360 - 180)
        clear = np.abs(off - 25.0) > 0.02
        assert np.array_equal(allowed[clear], (off <= 25.0)[clear])
        assert (similar[allowed].min() > similar[~allowed].max() - 2.0) and allowed.any(axis=1).all()


def _searched(case, **options):
    """Setup, images moved to their input origins and the search of the one structure."""
    setup = _setup(case, **options)
    images = convert(setup.particles, np.arange(COUNT), setup.settings, setup.rule, "stop").images
    search = StructureSearch(
        0, setup.bands, setup.levels[0], setup.division, setup.near, setup.n_inplane, setup.ring_ctf, 2.0**28
    )
    return setup, images, _Piece(setup, images, np.arange(COUNT)), search


def _rows_around(case, rotations, range_deg, **options):
    """Rows (origin, view) and ln prior of a local search of every image on its grid."""
    setup, _, piece, search = _searched(case, levels=0, **options)
    confinement = Confinement(rotations, range_deg)
    scorer = search._scorers(piece.bands, [piece._moved_to(0, setup.shifts.origins)], ScalePrior(100.0, 30.0), confinement)[0]
    return setup, confinement, [search._around(i, scorer, confinement) for i in range(len(rotations))]


def test_rows_of_the_cone_and_their_prior(plain):
    """Views within the range, every shift; the prior is uniform over views (by weight), allowed angles and shifts."""
    rotations = matrix_from_euler(*poses_of(plain.star)[0].T)
    setup, confinement, found = _rows_around(plain, rotations, 25.0)
    table, shifts = setup.tables[0], setup.shifts
    for i, (rows, (origin, view)) in enumerate(found):
        inside = np.flatnonzero(np.rad2deg(np.arccos(table.directions() @ rotations[i, 2])) <= 25.0)
        assert len(inside) > 5 and len(rows.view) == len(inside) * len(shifts)
        assert len(set(zip(origin, view))) == len(view) and np.array_equal(np.unique(view), inside)
        assert np.array_equal(rows.view, view) and np.array_equal(rows.origin, shifts.origins[origin])
        allowed = confinement.inplane(i, table.rotations()[view], setup.n_inplane).sum(axis=1)
        assert np.exp(rows.log_prior) @ allowed == pytest.approx(1.0, abs=1e-9)
        expected = np.log(table.weights[view] / table.weights[inside].sum() / allowed / len(shifts))
        assert rows.log_prior == pytest.approx(expected, abs=1e-9)
        assert rows.left_log_mass == -np.inf and rows.error == 0.0


@pytest.mark.parametrize("range_deg", [8.0, 20.0, 45.0])
def test_the_prior_stays_normalised_when_rows_are_divided(plain, range_deg):
    """A scale prior that is all but zero makes every log-ratio zero: the integral is the prior's sum, whatever is divided."""
    setup, _, piece, search = _searched(plain, levels=2, local_range=range_deg)
    search.division = replace(search.division, tolerance=-1.0)  # divide however little changes
    scoring = Scoring(setup, [search], {}, BlockSizes(), 16)
    found = next(piece.integrals(scoring, ScalePrior(0.0, 1e-4), lambda _: None, [None]))
    assert np.abs(found.log).max() < 1e-3 and np.abs(found.change).max() < 1e-3
    assert np.abs(found.mean_log).max() < 1e-3


def test_a_prior_over_views_is_normalised_over_the_confined_ones(plain):
    """As above, behind a prior that is far from uniform there."""
    setup, _, piece, search = _searched(plain, levels=0, view_prior="input")
    search.pose_prior = PosePrior(view=ViewPrior.of_counts(setup.input_views, "C1"))
    scoring = Scoring(setup, [search], {}, BlockSizes(), 16)
    found = next(piece.integrals(scoring, ScalePrior(0.0, 1e-4), lambda _: None, [None]))
    assert search.pose_prior.view.density.max() > 2 and np.abs(found.log).max() < 1e-3


def test_a_range_finer_than_the_grid_keeps_the_nearest_pose(plain):
    rotations = matrix_from_euler(*poses_of(plain.star)[0].T)
    setup, confinement, found = _rows_around(plain, rotations, 0.5, angular_step=30.0)
    for i, (rows, (_, view)) in enumerate(found):
        nearest = int((setup.tables[0].directions() @ rotations[i, 2]).argmax())
        assert set(view) == {nearest} and np.isfinite(rows.log_mass).all()
        assert confinement.inplane(i, setup.tables[0].rotations()[[nearest]], 8).sum() == 1


def _integrated(case, **options):
    setup, images, piece, search = _searched(case, **options)
    angles, origins = poses_of(case.star)
    prior = ScalePrior(100.0, 30.0)
    scoring = Scoring(setup, [search], {}, BlockSizes(), 16)
    result = next(piece.integrals(scoring, prior, lambda _: None, [None]))
    return setup, images, matrix_from_euler(*angles.T), origins, prior, result


@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("case", ["plain", "symmetric"])
def test_poses_of_the_grid_stay_within_the_range(case, levels, request):
    case = request.getfixturevalue(case)
    setup, _, rotations, origins, _, result = _integrated(case, levels=levels, local_range=10.0)
    apart = np.rad2deg(np.arccos(np.clip(np.einsum("mi,mi->m", result.rotation[:, 2], rotations[:, 2]), -1, 1)))
    # A cell whose centre is inside may reach out by half its diagonal.
    cell = setup.tables[0].step_deg / np.sqrt(2) if levels else 0.0
    assert apart.max() <= 10.0 + cell and apart.min() > 0
    free = Confinement(rotations, 10.0)
    for i in range(COUNT):
        rot, tilt, psi = euler_from_matrix(result.rotation[i])
        at_zero = matrix_from_euler(rot, tilt, 0.0)[None]
        steps = 360_0
        allowed = np.flatnonzero(free.inplane(i, at_zero, steps)[0]) / 10
        assert np.abs((allowed - psi + 180) % 360 - 180).min() < 0.11
    moved = np.abs(result.origin - origins)
    assert (np.hypot(*moved.T) <= setup.shifts.reach + max(setup.shifts.step)).all()


def test_the_integral_is_the_sum_over_the_confined_poses(plain):
    """Every pose of the cone scored by itself, off the grid's machinery."""
    setup, images, rotations, origins, prior, result = _integrated(plain, levels=0, angular_step=12.0, local_range=20.0)
    table, psi = setup.tables[0], 360.0 * np.arange(setup.n_inplane) / setup.n_inplane
    for i in range(0, COUNT, 3):
        views = np.flatnonzero(table.directions() @ rotations[i, 2] >= np.cos(np.deg2rad(20.0)))
        logs = []
        for view in views:
            all_psi = matrix_from_euler(table.rot_deg[view], table.tilt_deg[view], psi)
            # The in-plane turn between two poses, by the one that brings them closest.
            similar = np.einsum("gik,ik->g", all_psi[:, :2], rotations[i, :2])
            sine = np.einsum("gk,k->g", all_psi[:, 0], rotations[i, 1]) - np.einsum("gk,k->g", all_psi[:, 1], rotations[i, 0])
            inside = np.abs(np.rad2deg(np.arctan2(sine, similar))) <= 20.0
            pose = np.repeat(all_psi[inside], len(setup.shifts), axis=0)
            origin = np.tile(origins[i] + setup.shifts.origins, (int(inside.sum()), 1))
            scores = score_poses(images.take(torch.full((len(pose),), i)), pose, origin, setup.banks[0], prior)
            share = np.log(table.weights[view] / table.weights[views].sum())
            logs.append(scores.log_ratio + share - np.log(len(pose)))
        assert len(views) > 5
        # The search has the normal limit of Student's t and float32.
        assert result.log[i] == pytest.approx(logsumexp(np.concatenate(logs)), abs=0.02)


# ---------------------------------------------------------------- through likelihood


def test_the_pose_is_found_from_one_nearby_and_far_from_the_centre(plain, tmp_path):
    """Most true origins are farther out than the shifts searched, which are about the input origin."""
    found = score(tmp_path, plain.star, plain.maps, **LOCAL)
    rotation, origin = _poses(found)
    far = np.hypot(*plain.origins.T) > LOCAL["max_shift"]
    assert far.sum() > COUNT / 2
    error, off = distance_deg(rotation, plain.rotations), np.hypot(*(origin - plain.origins).T)
    assert np.median(error) < 3.0 and error.max() < 7.0
    assert np.median(off) < 0.2 * PIXEL and off.max() < PIXEL
    assert (found.max[0] > found.integrated[0]).all()
    kept = found.extras["best_poses"].values[0]
    # On so coarse a grid a pose may be refined to beyond what counts as the same.
    assert np.isclose(kept[:, 0, 3:5], origin, atol=1e-4).all(axis=1).mean() > 0.6 and np.isfinite(kept[:, 1, 0]).any()
    away = np.hypot(*np.moveaxis(kept[..., 3:5] - poses_of(plain.star)[1][:, None], -1, 0))
    assert np.nanmax(away) < LOCAL["max_shift"] + PIXEL  # all of them are in the frame of the input


def test_a_wrong_start_is_not_left(plain, tmp_path):
    """Poses 90° off, behind a narrow range, stay near: a local search finds no far optimum."""
    angles = turned(plain.angles, 90.0, 5)
    star = with_poses(plain.truth, plain.folder / "far.star", angles, plain.origins)
    rotation, _ = _poses(score(tmp_path, star, plain.maps, **{**LOCAL, "local_range": 10.0}))
    moved = distance_deg(rotation, matrix_from_euler(*angles.T))
    # 10° of view, 10° in the plane, half a cell, and six steps of refinement of 2° at most
    assert moved.max() < 10.0 + 10.0 + 9.0 + 12.0
    assert np.median(distance_deg(rotation, plain.rotations)) > 45.0


def test_poses_outside_the_asymmetric_unit(symmetric, tmp_path):
    """The answer is the symmetry mate that the input was near, with the posterior over all of them."""
    group = group_rotations("C4")
    table = healpix_views(9.0, "C4")
    start = matrix_from_euler(*poses_of(symmetric.star)[0].T)
    outside = (start[:, 2] @ table.directions().T).max(axis=1) < np.cos(np.deg2rad(LOCAL["local_range"]))
    assert outside.sum() >= 4, "the set has to have input poses far from all views of the unit"
    found = score(tmp_path / "c4", symmetric.star, symmetric.maps, symmetry=["C4"], **LOCAL)
    rotation, _ = _poses(found)
    error = distance_deg(rotation, symmetric.rotations, group)
    assert np.median(error) < 3.0 and error.max() < 9.0
    assert np.allclose(distance_deg(rotation, symmetric.rotations), error, atol=1e-6)
    # Any mate as input gives the same scores.
    mates = group[np.arange(COUNT) % 4]
    angles = np.stack(euler_from_matrix(start @ mates), axis=1)
    origins = poses_of(symmetric.star)[1]
    star = with_poses(symmetric.truth, symmetric.folder / "mates.star", angles, origins)
    other = score(tmp_path / "mates", star, symmetric.maps, symmetry=["C4"], **LOCAL)
    assert np.abs(other.integrated - found.integrated).max() < 0.5
    assert np.abs(other.max - found.max).max() < 0.3
    assert np.median(distance_deg(_poses(other)[0], rotation, group)) < 0.5


# ---------------------------------------------------------------- fixed


def test_a_fixed_search_scores_the_input_poses(symmetric, tmp_path):
    """C4, origins beyond the default shifts: angles and origins come back, and the scores are those of these poses."""
    found = score(tmp_path, symmetric.star, symmetric.maps, symmetry=["C4"], search="fixed", max_shift=None)
    angles, origins = poses_of(symmetric.star)
    rotation, origin = _poses(found)
    assert distance_deg(rotation, matrix_from_euler(*angles.T)).max() < 1e-5
    assert np.array_equal(origin, origins)
    assert np.array_equal(found.integrated, found.max)
    assert (found.pose_posterior == 1).all() and (found.pose_entropy == 0).all()
    written, written_origins = poses_of(tmp_path / "particles.star")
    assert distance_deg(matrix_from_euler(*written.T), matrix_from_euler(*angles.T)).max() < 1e-4
    assert np.abs(written_origins - origins).max() < 2e-6
    setup = _setup(symmetric, search="fixed")
    images = convert(setup.particles, np.arange(COUNT), setup.settings, setup.rule, "stop").images
    prior = ScalePrior(**found.parameters["scale_prior"]["groups"]["0"])
    exact = score_poses(images, matrix_from_euler(*angles.T), origins, setup.banks[0], prior)
    assert np.allclose(found.max[0], exact.log_ratio, atol=1e-4)
    assert np.allclose(found.cc[0], exact.cc, atol=1e-6) and np.allclose(found.scale[0], exact.scale, rtol=1e-5)


def test_the_truth_scores_better_than_poses_off_it(plain, tmp_path):
    right = score(tmp_path / "right", plain.truth, plain.maps, search="fixed", scale="free")
    wrong = score(tmp_path / "wrong", plain.star, plain.maps, search="fixed", scale="free")
    assert (right.cc > wrong.cc).all() and (right.integrated > wrong.integrated).all()
    local = score(tmp_path / "local", plain.star, plain.maps, scale="free", **LOCAL)
    assert (local.cc >= wrong.cc).all() and (local.max > right.max - 0.5).all()


@pytest.mark.parametrize("search", ["local", "fixed"])
def test_particles_without_poses_are_refused(plain, tmp_path, search):
    with pytest.raises(InputError, match=r"poses.*hierarchical"):
        score(tmp_path, plain.folder / "particles.star", plain.maps, search=search)
    assert not (tmp_path / "particles.star").exists()
