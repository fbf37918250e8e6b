"""Priors over shifts and views: densities relative to the uniform ones, and what they do to a posterior."""

import numpy as np
import pytest

from cryolike_scipion.engine.division import Confinement
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.pose_priors import PosePrior, ShiftPrior, ViewPrior, count_views
from cryolike_scipion.engine.pose_rows import PoseRows
from cryolike_scipion.engine.rotations import euler_from_matrix, matrix_from_euler, random_rotations
from cryolike_scipion.engine.shared_views import write_views
from cryolike_scipion.engine.shifts import grid_by_radius, subdivide
from cryolike_scipion.engine.views import healpix_views
from cryolike_scipion.parameters import complete

from .likelihood_runs import COUNT, run_without_report
from .small_sets import SEARCH


def _rows(origins, log_mass, left=-np.inf):
    count = len(origins)
    return PoseRows(
        view=np.arange(count), origin=np.asarray(origins, float), log_mass=np.asarray(log_mass, float),
        mean_log=np.asarray(log_mass, float), log_prior=np.zeros(count), left_log_mass=left, left_mean_log=0.0, error=0.0,
        best=0.0, best_rotation=np.eye(3), best_origin=np.zeros(2), scale=1.0, power=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("width", [2.0, 5.0, 100.0])
def test_a_gaussian_of_shifts_is_normalised_over_the_searched_ones(width):
    shifts = grid_by_radius(12.0, 4.0)
    prior = ShiftPrior.over(width, shifts)
    origins, step = shifts.origins, shifts.step
    for _ in range(3):
        origins, step = subdivide(origins, step)
    assert np.exp(prior.log_ratio(origins)).mean() == pytest.approx(1.0)
    at = prior.log_ratio(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]))
    assert at[0] - at[1] == pytest.approx(9 / (2 * width**2)) and at[1] == at[2]


def test_views_of_the_input_are_more_probable_and_none_is_impossible():
    rng = np.random.default_rng(1)
    rot, tilt = rng.normal(40, 5, 500), rng.normal(60, 5, 500)
    prior = ViewPrior.of_counts(count_views(rot, tilt), "C1")
    assert prior.density @ prior.table.weights == pytest.approx(1.0)
    directions = prior.table.directions()
    near, far = directions[prior.density.argmax()], directions[prior.density.argmin()]
    expected = np.array([np.sin(np.pi / 3) * np.cos(np.deg2rad(40)), np.sin(np.pi / 3) * np.sin(np.deg2rad(40)), 0.5])
    assert near @ expected > np.cos(np.deg2rad(12))
    assert prior.log_ratio(near[None])[0] > 2 and np.log(0.099) < prior.log_ratio(far[None])[0] < -2


def test_uniform_views_give_a_uniform_prior_also_with_symmetry():
    rot, tilt, _ = euler_from_matrix(random_rotations(20000, np.random.default_rng(2)))
    assert ViewPrior.of_counts(count_views(rot, tilt), "C1").density == pytest.approx(1.0, abs=0.25)
    mated = ViewPrior.of_counts(count_views(np.full(50, 10.0), np.full(50, 50.0)), "C4")
    turned = np.deg2rad([10.0, 100.0, 190.0, 280.0])
    directions = np.stack([np.cos(turned), np.sin(turned), np.full(4, 1 / np.tan(np.deg2rad(50)))], axis=1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert mated.log_ratio(directions) == pytest.approx(mated.log_ratio(directions)[0], abs=0.5)
    assert mated.log_ratio(directions)[0] > 1


def test_rows_are_weighed_and_what_is_left_by_their_mean():
    prior = PosePrior(shift=ShiftPrior(2.0, 0.0))
    rows = _rows([[0, 0], [2, 0]], np.log([0.5, 0.5]), left=np.log(0.1))
    prior.apply(rows, np.zeros((2, 3)))
    assert np.exp(rows.log_mass) == pytest.approx([0.5, 0.5 * np.exp(-0.5)])
    assert np.exp(rows.left_log_mass) == pytest.approx(0.1 * (0.5 + 0.5 * np.exp(-0.5)))
    assert rows.log_prior == pytest.approx([0, -0.5])


def test_a_run_says_its_priors_and_obeys_them(small, quick, tmp_path):
    wide = run_without_report(small, tmp_path / "wide", shift_prior=1000.0)
    assert wide.integrated == pytest.approx(quick.integrated, abs=0.01)
    narrow = run_without_report(small, tmp_path / "narrow", shift_prior=3.0)
    far = np.hypot(quick.origin_x, quick.origin_y)
    change = narrow.integrated - quick.integrated
    assert change[far < 2].min(initial=1) > 0 > change[far > 7].max(initial=-1)
    assert narrow.parameters["shift_prior"] == 3.0
    as_input = run_without_report(small, tmp_path / "input", view_prior="input", rows="1:4")
    again = run_without_report(small, tmp_path / "again", view_prior="input", rows="1:4", scale_from=str(tmp_path / "input"))
    assert again.parameters["input_views"] == as_input.parameters["input_views"]
    assert np.array_equal(again.integrated, as_input.integrated)
    with pytest.raises(InputError, match="--view-prior"):
        run_without_report(small, tmp_path / "fixed", search="fixed", view_prior="input")


def test_the_prior_over_views_does_not_depend_on_how_the_file_is_cut(small, tmp_path):
    folder, maps = small
    given = {**SEARCH, "angular_step": 30.0, "resolution": 20.0, "view_prior": "input", "structures": maps, "out": "unused"}
    given["mask_diameter"] = 0.0  # or it would be that of the other run, too

    def views(star="truth.star", **options):
        options = {"particles": [str(folder / star)], **given, **options}
        return prepare_run(complete("likelihood", options), "cpu").input_views

    whole, part = views(), views(rows="2:4")
    assert whole.sum() == COUNT and np.array_equal(part, whole)
    write_views(tmp_path, whole[::-1])  # another run's: of other particles
    assert np.array_equal(views(rows="2:4", scale_from=str(tmp_path)), whole[::-1])
    assert views(view_prior="uniform") is None
    (tmp_path / "views.json").unlink()
    with pytest.raises(InputError, match=r"views\.json.*--view-prior"):
        views(scale_from=str(tmp_path))
    with pytest.raises(InputError, match="not known"):
        views("particles.star")


def test_a_prior_over_views_is_normalised_where_a_local_search_looks():
    """Rows of equal likelihood: what is searched holds one in sum, whatever the prior is there."""
    rng = np.random.default_rng(3)
    view = ViewPrior.of_counts(count_views(rng.normal(40, 5, 500), rng.normal(60, 5, 500)), "C1")
    table = healpix_views(6.0)
    for rot, tilt in ((40.0, 60.0), (70.0, 75.0), (200.0, 120.0)):
        inside = Confinement(matrix_from_euler([rot], [tilt], [0.0]), 20.0).views(0, table.directions())
        directions, weights = table.directions()[inside], table.weights[inside]
        assert len(inside) > 10 and (directions @ matrix_from_euler(rot, tilt, 0.0)[2]).min() >= np.cos(np.deg2rad(20.0))
        rows = _rows(np.zeros((len(inside), 2)), np.log(weights / weights.sum()))
        PosePrior(view=view).apply(rows, directions, view.log_mean(directions, weights))
        assert np.exp(rows.log_mass).sum() == pytest.approx(1.0)
        assert rows.log_mass[0] - rows.log_mass[1] == pytest.approx(
            np.log(weights[0] / weights[1]) + view.log_ratio(directions[:1])[0] - view.log_ratio(directions[1:2])[0]
        )
