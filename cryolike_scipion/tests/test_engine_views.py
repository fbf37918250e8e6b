"""Views: that they cover the sphere, that their weights integrate over it, and that cells split exactly."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cryolike_scipion.engine import healpix, symmetry
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.views import (
    _exact_at_low_degree,
    children,
    cryolike_views,
    healpix_views,
    nearest_view,
    view_table,
    view_table_from_file,
)

from .helpers import shared_data

GROUPS = ["C1", "C2", "C4", "C7", "C17", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"]


def _sphere(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _integration_error(table, kappa):
    """Largest relative error of the mean of symmetrised bumps exp(kappa (v·c − 1)), which is known."""
    group = symmetry.rotations(table.symmetry)
    mates = np.einsum("gij,vj->gvi", group, table.directions())
    exact = (1 - np.exp(-2 * kappa)) / (2 * kappa)
    values = [table.weights @ np.exp(kappa * (mates @ c) - kappa).mean(axis=0) for c in _sphere(30, seed=5)]
    return np.abs(np.array(values) / exact - 1).max()


@pytest.mark.parametrize("nside", [1, 2, 3, 4, 7, 16])
def test_healpix_cells_are_equal_area_rings(nside):
    # Górski et al. 2005, eqs. 4-9: heights of the rings and how many cells each holds.
    z = np.round(healpix.centres(np.arange(12 * nside**2), nside)[:, 2], 12)
    found, count = np.unique(z, return_counts=True)
    cap = [(1 - i * i / (3 * nside**2), 4 * i) for i in range(1, nside)]
    belt = [(4 / 3 - 2 * i / (3 * nside), 4 * nside) for i in range(nside, 3 * nside + 1)]
    expected = sorted(cap + belt + [(-height, number) for height, number in cap])
    np.testing.assert_allclose(found, [height for height, _ in expected], atol=1e-11)
    assert count.tolist() == [number for _, number in expected]


def test_healpix_centres_are_distinct_and_unit():
    centres = healpix.centres(np.arange(healpix.cell_count(6)), 6)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0, atol=1e-14)
    distance, _ = cKDTree(centres).query(centres, k=2)
    assert np.rad2deg(distance[:, 1].min()) > 0.6 * healpix.spacing_deg(6)


@pytest.mark.parametrize("nside", [1, 3, 8])
def test_children_tile_their_parent(nside):
    parents = np.arange(healpix.cell_count(nside))
    kids = healpix.children(parents, nside)
    assert sorted(kids.ravel()) == list(range(healpix.cell_count(2 * nside)))
    # Three levels down the mean of a cell's 64 descendants is its own centre but for the curvature of the
    # sphere.
    deep, level = kids, 2 * nside
    for _ in range(2):
        deep, level = healpix.children(deep.ravel(), level).reshape(len(parents), -1), 2 * level
    mean = healpix.centres(deep.ravel(), level).reshape(len(parents), -1, 3).mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    away = np.rad2deg(np.arccos(np.clip(np.sum(mean * healpix.centres(parents, nside), axis=1), -1, 1)))
    assert away.max() < 0.12 * healpix.spacing_deg(nside)


@pytest.mark.parametrize(("step", "nside"), [(60, 1), (29.4, 2), (29.3, 3), (7.5, 8), (5, 12), (1.0, 59)])
def test_the_step_is_an_upper_bound_of_the_spacing(step, nside):
    assert healpix.nside_for(step) == nside
    assert healpix.spacing_deg(nside) <= step
    assert nside == 1 or healpix.spacing_deg(nside - 1) > step


@pytest.mark.parametrize("step", [15.0, 4.0])
@pytest.mark.parametrize("name", GROUPS)
def test_one_asymmetric_unit_is_covered(name, step):
    table = healpix_views(step, name)
    group = symmetry.rotations(name)
    assert table.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert table.weights.min() > 0
    whole = healpix.cell_count(table.nside)
    assert len(table) <= 1.5 * whole / len(group) + 8
    mates = np.einsum("gij,vj->gvi", group, table.directions()).reshape(-1, 3)
    chord, _ = cKDTree(mates).query(_sphere(20000))
    assert np.rad2deg(2 * np.arcsin(chord.max() / 2)) < 1.1 * table.step_deg


@pytest.mark.parametrize("name", GROUPS)
def test_weights_integrate_smooth_symmetric_functions(name):
    # Bumps of 20 and 9 degrees on views 3 degrees apart. Measured: 6e-11 and 1e-4 (C17); with the bare areas
    # as weights 5e-3 and more.
    table = healpix_views(3.0, name)
    assert _integration_error(table, kappa=8.0) < 1e-9
    assert _integration_error(table, kappa=40.0) < 3e-4


@pytest.mark.parametrize("name", GROUPS)
def test_a_coarse_grid_has_weights_near_the_areas(name):
    table = healpix_views(20.0, name)
    assert table.weights.min() * len(table) > 0.1
    assert table.weights.max() * len(table) < 2.5


def test_nearly_equal_weights_without_symmetry():
    table = healpix_views(10.0)
    np.testing.assert_allclose(table.weights * len(table), 1.0, atol=0.1)
    assert len(np.unique(table.cells)) == len(table) == healpix.cell_count(table.nside)


@pytest.mark.parametrize("nside", [1, 3, 8])
def test_weights_from_one_cell_of_each_kind_are_those_of_all_cells_together(nside):
    centres = healpix.centres(np.arange(healpix.cell_count(nside)), nside)
    plain = _exact_at_low_degree(np.full(len(centres), 1 / len(centres)), centres[None])
    table = healpix_views(healpix.spacing_deg(nside))
    assert table.nside == nside
    np.testing.assert_allclose(table.weights, plain, rtol=1e-10)


@pytest.mark.parametrize("name", ["C1", "C7", "O"])
def test_children_of_a_table_keep_its_weight_and_place(name):
    table = healpix_views(12.0, name)
    finer = children(table, np.arange(len(table)))
    assert len(finer) == 4 * len(table)
    assert finer.nside == 2 * table.nside and finer.symmetry == name
    np.testing.assert_allclose(finer.weights.reshape(-1, 4).sum(axis=1), table.weights, rtol=1e-13)
    again = children(finer, [0, 5])
    assert again.nside == 4 * table.nside
    np.testing.assert_allclose(again.weights, np.repeat(finer.weights[[0, 5]] / 4, 4))
    # A child lies within its parent's cell.
    cosine = np.sum(np.repeat(table.directions(), 4, axis=0) * finer.directions(), axis=1)
    assert np.rad2deg(np.arccos(cosine)).max() < 0.6 * table.step_deg
    # Quartered weights are no longer exact. Measured: 2e-2 (C1), 5e-2 (C7), 3e-2 (O).
    assert _integration_error(finer, 20.0) < 0.06


def test_children_of_given_views_are_a_square_of_half_the_side():
    table = view_table([10.0, 50.0], [40.0, 100.0], [1.0, 3.0])
    finer = children(table, [1])
    np.testing.assert_allclose(finer.weights, 0.75 / 4)
    side = np.sqrt(4 * np.pi * 0.75)
    offset = finer.directions() / (finer.directions() @ table.directions()[1])[:, None] - table.directions()[1]
    np.testing.assert_allclose(offset.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=1), side / 4 * np.sqrt(2), rtol=1e-12)


def test_cryolikes_rule_is_reproduced():
    oracle = np.load(shared_data("oracle") / "oracle.npz")
    table = cryolike_views(float(np.rad2deg(oracle["viewing_distance"])))
    # Its angles went through float32.
    np.testing.assert_allclose(np.deg2rad(table.rot_deg), oracle["view_azimu"], atol=3e-7)
    np.testing.assert_allclose(np.deg2rad(table.tilt_deg), oracle["view_polar"], atol=3e-7)
    # Its weights sum to 4 pi, ours to 1.
    assert oracle["view_weights"].sum() == pytest.approx(4 * np.pi)
    np.testing.assert_allclose(table.weights, oracle["view_weights"] / (4 * np.pi), rtol=1e-12)
    assert _integration_error(cryolike_views(5.0), 8.0) < 1e-10


def test_nearest_view_respects_symmetry():
    table = healpix_views(6.0, "D7")
    mates = np.einsum("gij,vj->gvi", symmetry.rotations("D7"), table.directions())
    for element in mates:
        np.testing.assert_array_equal(nearest_view(table, element), np.arange(len(table)))


def test_views_from_a_text_file(tmp_path):
    path = tmp_path / "views of Å.txt"
    path.write_text("# rot tilt weight\n10 20 1\n\n-30, 90, 3  # the last\n", encoding="utf-8")
    table = view_table_from_file(path, "C2")
    np.testing.assert_allclose(table.rot_deg, [10, -30])
    np.testing.assert_allclose(table.tilt_deg, [20, 90])
    np.testing.assert_allclose(table.weights, [0.25, 0.75])
    assert table.symmetry == "C2" and table.nside is None


@pytest.mark.parametrize("weighted", [False, True])
def test_views_from_a_star_file(tmp_path, weighted):
    path = tmp_path / "views.star"
    extra = ("_cryolikeViewWeight\n", " 1") if weighted else ("", "")
    second = " 4" if weighted else ""
    path.write_text(f"data_\nloop_\n_rlnAngleTilt\n_rlnAngleRot\n{extra[0]}20 10{extra[1]}\n90 -30{second}\n")
    table = view_table_from_file(path)
    np.testing.assert_allclose(table.rot_deg, [10, -30])
    np.testing.assert_allclose(table.tilt_deg, [20, 90])
    np.testing.assert_allclose(table.weights, [0.2, 0.8] if weighted else [0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "10 20\n30\n", "a.txt, row 2: 1 columns"),
        ("a.txt", "10 20\n30 40 5\n", "a.txt, row 2: 3 columns"),
        ("a.txt", "10 x\n", "a.txt, row 1: 'x' is not a number"),
        ("a.txt", "10 nan\n", "not a finite number"),
        ("a.txt", "\n", "0 rot"),
        ("a.txt", "1 2 -1\n", "weights must not be negative"),
        ("a.star", "data_\nloop_\n_rlnAngleRot\n1\n", "no rlnAngleRot and rlnAngleTilt"),
        ("a.star", "loop_ x", "cannot be parsed"),
    ],
)
def test_a_bad_view_file_is_named_with_row_and_value(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        view_table_from_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_view_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="views cannot be read"):
        view_table_from_file(tmp_path / "none.txt")


@pytest.mark.parametrize("make", [healpix_views, cryolike_views])
@pytest.mark.parametrize("step", [0.0, -3.0, float("nan")])
def test_a_step_must_be_positive(make, step):
    with pytest.raises(InputError, match="angular step"):
        make(step)
