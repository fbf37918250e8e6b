"""What ``inspect`` shows is what was scored: images, templates and score maps against the stored results."""

import shutil

import numpy as np
import pytest

from cryolike_scipion import cli, engine
from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

from .small_sets import BOX, PIXEL, rewrite_stack, score, simulate, write_maps

COUNT, BAD = 10, 4
RESOLUTION, MASK = 10.0, 72.0

# mrcfile warns when it writes them.
pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A masked run with one bad image, and the folder of its output."""
    folder = tmp_path_factory.mktemp("inspect")
    maps = write_maps(folder, radius=12.0, sigma=5.0)
    simulate(folder, maps, count=COUNT, snr=1.5)

    def spoil(data):
        data[BAD] = np.nan
        return data

    rewrite_stack(folder / "particles.mrcs", spoil)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        options = {"resolution": RESOLUTION, "mask_diameter": MASK, "bad_images": "flag", "labels": ["first", "zweite ü"]}
        results = score(folder / "out", folder / "particles.star", maps, **options)
    return folder / "out", results


def inspect(result, target, row, **options):
    """The arrays that ``inspect`` writes for a row."""
    engine.run("inspect", run=str(result[0]), row=row, out=str(target), device="cpu", **options)
    with np.load(target, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def band(image):
    """The transform of an image within the resolution limit, as real numbers whose dot products are inner products."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(BOX, PIXEL), np.fft.fftfreq(BOX, PIXEL), indexing="ij"))
    values = np.fft.fft2(image)[k < 1 / RESOLUTION]
    return np.concatenate([values.real, values.imag])


def test_arrays_of_a_row(result, tmp_path):
    _, results = result
    arrays = inspect(result, tmp_path / "row.npz", 3)
    assert arrays["image"].shape == (BOX, BOX)
    assert arrays["templates"].shape == arrays["residual"].shape == (2, BOX, BOX)
    assert np.array_equal(arrays["residual"], arrays["image"] - arrays["templates"])
    assert list(arrays["labels"]) == ["first", "zweite ü"] and arrays["pixel_size"] == PIXEL
    for name, stored in (("cc", "cc"), ("log_likelihood", "integrated"), ("structure_posterior", "structure_posterior")):
        assert np.array_equal(arrays[name], getattr(results, stored)[:, 2])
    assert arrays["best_structure"] == results.best_structure[2]
    assert not any(name.startswith(("view_", "shift_")) for name in arrays)


def test_templates_correlate_with_the_image_as_stored(result, tmp_path):
    """cc of masked image and masked template over the band, the offset projected out, on the pixels' own transform.

    The engine integrates over the disc; the sum over the box's frequencies is another quadrature of it, to 0.5 %.
    """
    y, x = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 2, indexing="ij")
    edge = max(0.05 * MASK, 3 * PIXEL)
    mask = 0.5 * (1 + np.cos(np.pi * np.clip((np.hypot(x, y) * PIXEL - MASK / 2) / edge, 0, 1)))
    offset = band(mask)
    for row in (1, 2, 8):
        arrays = inspect(result, tmp_path / "row.npz", row)
        image = band(arrays["image"])
        image -= offset * (offset @ image) / (offset @ offset)
        for template, stored in zip(arrays["templates"], arrays["cc"]):
            posed = band(template)
            posed -= offset * (offset @ posed) / (offset @ offset)
            cc = image @ posed / np.linalg.norm(image) / np.linalg.norm(posed)
            # A fit by least squares has the sign of the correlation in it.
            assert abs(cc) == pytest.approx(abs(stored), abs=0.005)


def test_the_best_template_explains_the_image(result, tmp_path):
    """Least squares: the residual is orthogonal to the template; the right structure leaves the smaller one."""
    _, results = result
    for row in (1, 7):
        arrays = inspect(result, tmp_path / "row.npz", row)
        template, residual = arrays["templates"], arrays["residual"]
        assert np.abs((template * residual).sum(axis=(1, 2))).max() < 1e-6 * (arrays["image"] ** 2).sum()
        power = (residual**2).sum(axis=(1, 2))
        assert power.argmin() + 1 == results.best_structure[row - 1]
        assert power.min() < 0.9 * (arrays["image"] ** 2).sum()
        assert np.abs(arrays["image"])[0, 0] < 1e-6  # outside the mask


def test_the_landscape_peaks_where_the_best_pose_is(result, tmp_path):
    _, results = result
    for row in (2, 6):
        arrays = inspect(result, tmp_path / "row.npz", row, landscape=True)
        k = int(results.best_structure[row - 1])
        by_view, by_shift = arrays[f"view_score_{k:03d}"], arrays[f"shift_inplane_score_{k:03d}"]
        rot, tilt, psi, shifts = (arrays[f"{name}_{k:03d}"] for name in ("view_rot", "view_tilt", "inplane", "shift"))
        assert by_view.shape == rot.shape == tilt.shape and by_shift.shape == (len(shifts), len(psi))
        assert np.array_equal(shifts, results.grids["shift"].values)
        assert np.allclose(np.stack([rot, tilt], axis=1), results.grids[f"views_{k:03d}"].values)
        assert by_view.max() == pytest.approx(by_shift.max(), abs=1e-3)
        # The refined best is at least the grid's, but for <T,T>, which the grid's search averages over psi.
        best = results.max[k - 1, row - 1]
        assert by_view.max() - 1.0 < best < by_view.max() + 40
        view, (shift, angle) = by_view.argmax(), np.unravel_index(by_shift.argmax(), by_shift.shape)
        grid = matrix_from_euler(rot[view], tilt[view], psi[angle])
        stored = matrix_from_euler(*(getattr(results, name)[k - 1, row - 1] for name in ("rot", "tilt", "psi")))
        assert distance_deg(grid[None], stored[None])[0] < 20.0
        found = np.array([results.origin_x[k - 1, row - 1], results.origin_y[k - 1, row - 1]])
        assert np.hypot(*(found - shifts[shift])) < 1.5 * PIXEL


def test_the_landscape_is_finite_under_every_structure(result, tmp_path):
    """Also where the structure is not the one that the image shows."""
    arrays = inspect(result, tmp_path / "row.npz", 9, landscape=True)
    for k in (1, 2):
        assert np.isfinite(arrays[f"view_score_{k:03d}"]).all() and np.ptp(arrays[f"view_score_{k:03d}"]) > 1
        assert np.isfinite(arrays[f"shift_inplane_score_{k:03d}"]).all()


def test_rows_of_a_part_are_counted_in_its_own_table(result, tmp_path, monkeypatch):
    """Row 2 of a run over rows 7 to 9 is row 8 of the file."""
    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)
    folder = result[0].parent
    maps = [str(folder / f"map_{i}.mrc") for i in (1, 2)]
    part = score(tmp_path / "part", folder / "particles.star", maps, rows="7:9", resolution=RESOLUTION, mask_diameter=MASK)
    found = inspect((tmp_path / "part", part), tmp_path / "row.npz", 2)
    assert np.allclose(found["image"], inspect(result, tmp_path / "whole.npz", 8)["image"])


@pytest.mark.parametrize("row, words", [(COUNT + 1, f"{COUNT} particles"), (BAD + 1, "could not be scored")])
def test_rows_without_scores_are_refused(result, tmp_path, capsys, row, words):
    out = tmp_path / "row.npz"
    status = cli.main(["inspect", str(result[0]), "--row", str(row), "--out", str(out), "--threads", "1"])
    error = capsys.readouterr().err
    assert status == 2 and words in error and error.count("\n") == 1 and "--row" in error
    assert not out.exists()


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="no result"):
        engine.run("inspect", run=str(tmp_path), row=1, out=str(tmp_path / "row.npz"))


def test_images_that_are_gone_are_told(result, tmp_path):
    stack = result[0].parent / "particles.mrcs"
    stack.rename(tmp_path / "away.mrcs")
    try:
        with pytest.raises(InputError, match=r"particles\.mrcs"):
            inspect(result, tmp_path / "row.npz", 1)
    finally:
        (tmp_path / "away.mrcs").rename(stack)


def test_a_run_whose_scale_came_from_one_that_is_gone(tmp_path):
    """Its mask and its prior over views did, too."""
    maps = write_maps(tmp_path, 1)
    truth = simulate(tmp_path, maps, count=40) / "truth.star"
    options = {"view_prior": "input", "no_report": True}
    score(tmp_path / "first", truth, maps, mask_diameter=80.0, rows="1:30", **options)
    results = score(tmp_path / "next", truth, maps, scale_from=str(tmp_path / "first"), rows="31:40", **options)
    shutil.rmtree(tmp_path / "first")
    arrays = inspect((tmp_path / "next", results), tmp_path / "row.npz", 3, landscape=True)
    assert arrays["cc"][0] == pytest.approx(results.cc[0, 2], abs=1e-3)
