"""What ``likelihood`` writes, and what it refuses."""

import re

import h5py
import mrcfile
import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine import memory
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.progress import Progress
from cryolike_scipion.engine.results import PER_STRUCTURE
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler

from .likelihood_runs import COUNT, QUICK, rows_of, run
from .small_sets import BOX, PIXEL, SEARCH, score, simulate, write_map, write_maps
from .truth import agreement

ODD_LABELS = ['<b>"a"</b> $x$ % \\', "zwei\nü 'b' #1"]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run as a user starts it, with its report, log and labels of every kind."""
    folder, maps = small
    out = tmp_path_factory.mktemp("whole")
    return out, score(out, folder / "input.star", maps, labels=ODD_LABELS)


def test_the_matrix_is_structures_by_particles(whole):
    out, results = whole
    matrix = np.load(out / "matrix.npy")
    assert matrix.shape == (2, COUNT) and matrix.dtype == np.float64
    assert np.array_equal(matrix, results.integrated)
    labels, rows = rows_of(out / "particles.star")
    written = np.array([float(row[labels.index("cryolikeLogLikelihood")]) for row in rows])
    assert np.allclose(written, matrix.max(axis=0), atol=1e-6)
    assert agreement(out, out / "particles.star").accuracy == 1.0  # of the file's own table: joined by row


def test_rows_keep_their_order_and_text(small, whole):
    """Input words come back as they are; what is overwritten moves to cryolikeInput columns."""
    before, wanted = rows_of(small[0] / "input.star")
    after, found = rows_of(whole[0] / "particles.star")
    assert len(found) == COUNT == len(wanted)
    replaced = {
        f"rln{name}": f"cryolikeInput{name}"
        for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "ClassNumber")
    } | {"cryolikeScale": "cryolikeInputScale"}
    for label in before:
        column = after.index(replaced.get(label, label))
        assert [row[column] for row in found] == [row[before.index(label)] for row in wanted], label
    assert set(after) - set(before) >= {
        "rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "cryolikeCrossCorrelation", "cryolikeStatus",
        "cryolikeLogLikelihoodMax", "cryolikeLogLikelihoodNull", "cryolikeBestStructure", "cryolikeBestTemplate",
        "cryolikeStructurePosterior", "cryolikePosePosterior", "cryolikePoseEntropy",
    }  # fmt: skip
    assert {row[after.index("cryolikeStatus")] for row in found} == {"ok"}


def test_poses_and_classes_are_those_of_the_truth(small, whole):
    """By image name, since rows are not in the order of the stack."""
    truth, found = read_particles([small[0] / "input.star"]), read_particles([whole[0] / "particles.star"])
    assert found.image_names() == truth.image_names()
    assert np.array_equal(found.class_number, truth.class_number)
    error = distance_deg(
        matrix_from_euler(found.rot, found.tilt, found.psi), matrix_from_euler(truth.rot, truth.tilt, truth.psi)
    )
    # A few blobs look alike from opposite sides: one particle may be turned over.
    assert np.median(error) < 5.0 and np.sort(error)[-2] < 15.0
    off = np.hypot(found.origin_x - truth.origin_x, found.origin_y - truth.origin_y)
    assert np.median(off) < 0.25 * PIXEL and np.sort(off)[-2] < PIXEL


def test_scores_have_units_grids_and_what_made_them(small, whole):
    out, results = whole
    with h5py.File(out / "scores.h5") as file:
        for name in PER_STRUCTURE:
            assert file[name].shape == (2, COUNT) and file[name].attrs["unit"] and file[name].attrs["meaning"]
    assert results.labels == ODD_LABELS
    assert results.parameters["angular_step"] == SEARCH["angular_step"] and results.versions["torch"]
    shifts, psi, views = (results.grids[name].values for name in ("shift", "inplane", "views_001"))
    assert np.hypot(*shifts.T).max() <= SEARCH["max_shift"] and len(np.unique(shifts, axis=0)) == len(shifts)
    assert len(psi) * (psi[1] - psi[0]) == pytest.approx(360.0)
    assert results.grids["view_weights_001"].values.sum() == pytest.approx(1.0)
    # The nearest view of the table to the refined pose
    found = matrix_from_euler(results.rot[0], results.tilt[0], results.psi[0])[:, 2]
    table = matrix_from_euler(views[:, 0], views[:, 1], 0.0)[:, 2]
    assert np.array_equal(results.best_template[0] - 1, (found @ table.T).argmax(axis=1))


def test_posteriors_are_normalised_and_consistent(whole):
    out, results = whole
    odds = np.exp(results.integrated - results.integrated.max(axis=0))
    assert np.allclose(results.structure_posterior, odds / odds.sum(axis=0), atol=1e-12)
    assert (results.pose_posterior > 0).all() and (results.pose_posterior <= 1).all()
    assert (results.pose_entropy > 0).all() and (results.max > results.integrated).all()
    labels, rows = rows_of(out / "particles.star")
    values = np.array([float(row[labels.index("rlnMaxValueProbDistribution")]) for row in rows])
    assert np.allclose(values, results.of_best("pose_posterior") * results.of_best("structure_posterior"), atol=1e-6)


def test_densities_are_on_the_particles_grid(tmp_path, no_report):
    """A map of another box and pixel comes out in the particles' box, at their pixel size."""
    maps = write_maps(tmp_path, 1)
    simulate(tmp_path, maps, count=8, box=32, pixel=3.5)
    score(tmp_path / "out", tmp_path / "particles.star", maps, **QUICK)
    with mrcfile.open(tmp_path / "out" / "structures" / "001.mrc") as file:
        assert file.data.shape == (32, 32, 32) and file.voxel_size.x == pytest.approx(3.5)
        density = np.array(file.data, dtype=np.float64)
    with mrcfile.open(maps[0]) as file:
        original = np.array(file.data, dtype=np.float64)
    centre = [np.array(np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")) * pixel for n, pixel in ((32, 3.5), (24, 4.0))]
    moments = [(c * d).sum(axis=(1, 2, 3)) / d.sum() for c, d in zip(centre, (density, original))]
    assert np.allclose(moments[0], moments[1], atol=0.5)


def test_the_report_needs_no_other_file_and_labels_cannot_break_it(whole):
    text = (whole[0] / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in text or "<svg" in text
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", text) + re.findall(r"url\(([^)]*)\)", text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert '<b>"a"' not in text and "&lt;b&gt;" in text and "zwei" in text
    assert "<script src" not in text and "@import" not in text


def test_progress_is_told(small, tmp_path, no_report, caplog, monkeypatch):
    monkeypatch.setattr(memory, "_PIECE", 3)  # images that one thread works on
    folder, maps = small
    caplog.set_level("INFO", logger="cryolike_scipion")
    options = {**SEARCH, **QUICK, "particles": [str(folder / "input.star")], "structures": maps}
    engine.run("likelihood", Progress(bar=False, interval=0.0), out=str(tmp_path), **options)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("progress")]
    assert any(re.match(r"learning the scale: 100% ", line) for line in lines)
    shares = [int(re.match(r"likelihood: (\d+)% \(", line)[1]) for line in lines if line.startswith("likelihood")]
    assert shares[-1] == 100 and shares == sorted(shares) and len(shares) > 4
    assert all(re.search(r"\(\d+/56 steps, .*left\)", line) for line in lines if line.startswith("likelihood: 5"))


def test_priors_of_structures_shift_the_posteriors_only(small, quick, tmp_path, no_report):
    found = run(small, tmp_path, priors=[1.0, 3.0])
    assert np.array_equal(found.integrated, quick.integrated)
    odds = np.log(found.structure_posterior[1] / found.structure_posterior[0])
    plain = quick.integrated[1] - quick.integrated[0]
    finite = np.isfinite(odds)
    assert finite.any() and np.allclose(odds[finite], plain[finite] + np.log(3.0))


def test_a_structure_without_density_is_refused(small, tmp_path):
    empty = write_map(tmp_path / "empty.mrc", np.zeros((BOX, BOX, BOX)))
    with pytest.raises(InputError, match=r"empty\.mrc"):
        score(tmp_path / "out", small[0] / "input.star", [*small[1], empty], **QUICK)


@pytest.mark.parametrize("options, words", [
    ({"labels": ["a"]}, "1 labels for 2"),
    ({"symmetry": ["C1", "C2", "C3"]}, "3 symmetries for 2"),
    ({"symmetry": ["X9"]}, "X9"),
    ({"shift_step": 2.0, "shifts_x": 3}, "shift step"),
    ({"priors": [1.0]}, "prior"),
    ({"pixel": 3.0}, "pixel"),
])  # fmt: skip
def test_choices_that_do_not_fit_are_refused(small, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(small, tmp_path, **options)
    assert not (tmp_path / "particles.star").exists() and not (tmp_path / "chunks").exists()


def test_numbers_of_shifts_in_place_of_a_step(small, tmp_path, no_report):
    shifts = run(small, tmp_path, shifts_x=3, shifts_y=5, max_shift=6.0).grids["shift"].values
    assert sorted(set(shifts[:, 0])) == [-6.0, 0.0, 6.0] and sorted(set(shifts[:, 1])) == [-6.0, -3.0, 0.0, 3.0, 6.0]
    assert len(shifts) == 15
