"""The pictures of a run and its agreement with the input's poses: from one run, merged, and of converted particles."""

import json

import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.agreement import ANGLE, SHIFT, add_agreement
from cryolike_scipion.engine.gallery import _most_frequent
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import Results, StructureEntry, load_results
from cryolike_scipion.engine.rotations import directions, euler_from_matrix, matrix_from_euler
from cryolike_scipion.plots.scores import SCORES

from .likelihood_runs import run


def arrays_of(folder):
    with np.load(folder / "gallery.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run with its report."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(small, out)
    return out


@pytest.fixture(scope="module")
def merged(small, tmp_path_factory):
    """The same rows in two runs, merged."""
    folder = tmp_path_factory.mktemp("parts")
    for name, rows in (("a", ":7"), ("b", "8:")):
        run(small, folder / name, rows=rows)
    engine.run("merge", runs=[str(folder / name) for name in "ab"], out=str(folder / "all"))
    return folder


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_members_are_the_best_and_look_like_their_projections(whole):
    results, found = load_results(whole), arrays_of(whole)
    for k, number in enumerate(found["shown"]):
        own = np.flatnonzero(results.best_structure == number)
        rows = found["member_row"][k][found["member_row"][k] > 0]
        assert list(rows - 1) == list(own[np.argsort(-results.integrated[number - 1, own])][:6])
        for j in range(len(rows)):
            assert correlation(found["member_image"][k, j], found["member_template"][k, j]) > 0.5


def test_averages_are_upright(whole):
    """Turned or shifted the other way, images would not look like the projection of psi 0 and origin 0."""
    found = arrays_of(whole)
    assert found["average_count"].min() >= 1
    for average, template in zip(found["average"], found["average_template"]):
        here = correlation(average, template)
        assert here > 0.5
        assert here > max(correlation(average, np.rot90(template, turns)) for turns in (1, 2, 3)) + 0.1


@pytest.mark.parametrize("groups", [[0] * 150 + [1], [0, 1] * 75 + [1], [1] * 120 + [0] * 31])
def test_the_most_frequent_view_is_that_of_one_optics_group(groups):
    """Views on a circle 10° about the last one, which is close to all of them."""
    groups = np.array(groups)
    rot, tilt = np.linspace(0, 360, 151), np.append(np.full(150, 10.0), 0.0)
    centre, near = _most_frequent(directions(rot, tilt), groups)
    assert 0 < len(near) <= 100 and (groups[near] == groups[centre]).all()
    assert len(near) >= 31, "more than the last one by itself"
    assert (directions(rot, tilt)[near] @ directions(rot, tilt)[centre]).min() > np.cos(np.deg2rad(12.0))


def test_examples_are_what_inspect_says(whole, tmp_path):
    found = arrays_of(whole)
    assert list(found["example_kind"]) == ["clear", "middling", "undecided"]
    row = int(found["example_row"][0])
    engine.run("inspect", run=str(whole), row=row, landscape=True, out=str(tmp_path / "x.npz"))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as inspected:
        for name in ("image", "templates", "residual", "cc"):
            assert np.allclose(found[f"example_1_{name}"], inspected[name])
        best = int(inspected["best_structure"])
        name = f"shift_inplane_score_{best:03d}"
        assert np.allclose(found[f"example_1_{name}"], inspected[name], atol=1e-3)


def test_the_agreement_is_that_with_the_input(small, whole):
    truth, results = read_particles([small[0] / "input.star"]), load_results(whole)
    best = results.best_structure - 1
    for m in range(len(truth)):
        before = matrix_from_euler(truth.rot[m], truth.tilt[m], truth.psi[m])
        after = matrix_from_euler(*(getattr(results, name)[best[m], m] for name in ("rot", "tilt", "psi")))
        angle = np.rad2deg(np.arccos(np.clip((np.trace(before @ after.T) - 1) / 2, -1, 1)))
        assert results.extras[ANGLE].values[m] == pytest.approx(angle, abs=1e-4)
        x, y = (getattr(results, name)[best[m], m] for name in ("origin_x", "origin_y"))
        assert results.extras[SHIFT].values[m] == pytest.approx(np.hypot(x - truth.origin_x[m], y - truth.origin_y[m]))


def test_a_symmetry_mate_agrees():
    class Posed:
        has_pose = True
        rot, tilt, psi = np.array([[20.0], [50.0], [70.0]])
        origin_x, origin_y = np.array([[1.0], [2.0]])

        def __len__(self):
            return 1

    for group, expected in (("C4", 0.0), ("C1", 90.0)):
        results = Results.empty([StructureEntry("a", symmetry=group)], 1)
        mate = matrix_from_euler(20.0, 50.0, 70.0) @ symmetry.rotations("C4")[1]
        for name, value in zip(("rot", "tilt", "psi"), euler_from_matrix(mate)):
            getattr(results, name)[:] = value
        results.origin_x[:] = 4.0
        results.origin_y[:] = 6.0
        results.update_posteriors()
        add_agreement(results, Posed())
        assert results.extras[ANGLE].values[0] == pytest.approx(expected, abs=1e-4)
        assert results.extras[SHIFT].values[0] == pytest.approx(5.0)


def test_merged_runs_have_the_pictures_and_the_agreement_of_their_parts(merged):
    results, found = load_results(merged / "all"), arrays_of(merged / "all")
    parts = [load_results(merged / name) for name in "ab"]
    for name in (ANGLE, SHIFT):
        assert np.allclose(results.extras[name].values, np.concatenate([part.extras[name].values for part in parts]))
    own = {name: arrays_of(merged / name) for name in "ab"}
    for k, number in enumerate(found["shown"]):
        rows = found["member_row"][k][found["member_row"][k] > 0]
        scores = results.integrated[number - 1, rows - 1]
        assert np.all(np.diff(scores) <= 0) and np.all(results.best_structure[rows - 1] == number)
        for j, row in enumerate(rows):
            part, local = ("a", row) if row <= 7 else ("b", row - 7)
            place = int(np.flatnonzero(own[part]["shown"] == number)[0])
            slot = int(np.flatnonzero(own[part]["member_row"][place] == local)[0])
            assert np.array_equal(found["member_image"][k, j], own[part]["member_image"][place, slot])
    assert "report.html" in {path.name for path in (merged / "all").iterdir()}


def test_converted_particles_before_and_after(small, tmp_path):
    star = small[0] / "input.star"
    engine.run("particles", particles=[str(star)], mask_diameter=40.0, resolution=14.0, out=str(tmp_path / "c"))
    found, given = arrays_of(tmp_path / "c"), read_particles([star])
    assert found["raw"].shape == found["prepared"].shape and found["rows"][0] == 1
    assert len(found["ctf_frequency"]) == len(found["ctf_squared"]) and found["ctf_squared"].max() <= 1.0 + 1e-9
    assert float(found["defocus"]) == pytest.approx((given.defocus_u[0] + given.defocus_v[0]) / 2)
    size, pixel = found["raw"].shape[-1], float(found["pixel_size"])
    corner = found["prepared"][:, :3, :3]
    assert np.abs(corner).max() < 0.2 * np.abs(found["prepared"]).max()  # behind the mask
    power = np.abs(np.fft.rfft2(found["prepared"][0])) ** 2
    k = np.hypot(np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None])
    assert power[k > 1 / 14.0 + 1e-6].max() < 1e-18 * power.max()  # beyond the resolution limit
    engine.run("inspect", run=str(tmp_path / "c"), row=3, out=str(tmp_path / "three.npz"))
    with np.load(tmp_path / "three.npz", allow_pickle=False) as three:
        assert three["rows"][0] == 3 and not np.array_equal(three["raw"][0], found["raw"][0])
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2 and "14.00 Å" in page


def test_reports_of_runs_and_templates_hold_every_plot(small, whole, tmp_path):
    page = (whole / "report.html").read_text(encoding="utf-8")
    # of structures, scores, poses; members, particles, landscapes, densities
    assert page.count("data:image/png") == 4 + len(SCORES) + 4 + 1 + 3 + 2 + 2
    engine.run("templates", structure=list(small[1]), box=24, pixel=3.0, angular_step=20.0, out=str(tmp_path / "t"))
    page = (tmp_path / "t" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 1 + 2 * 3
    before = page
    engine.run("report", run=str(tmp_path / "t"))
    assert (tmp_path / "t" / "report.html").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("broken, no_report", [("gallery.compare", False), ("gallery.compare", True), ("report.render", False)])
def test_a_run_survives_pictures_that_cannot_be_made(small, tmp_path, monkeypatch, caplog, broken, no_report):
    def fail(*_):
        assert (tmp_path / "run" / "particles.star").exists()
        raise RuntimeError("no ink")

    monkeypatch.setattr(f"cryolike_scipion.engine.{broken}", fail)
    run(small, tmp_path / "run", rows=":3", no_report=no_report)
    assert "RuntimeError: no ink" in caplog.text
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert ("report.html" in written) == (broken == "gallery.compare" and not no_report)
    assert ("gallery.npz" in written) == (broken == "report.render")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["finished"]
