"""What ``likelihood`` writes, and how it depends on units, contrast, optics, precision and bad images."""

import re

import h5py
import mrcfile
import numpy as np
import pytest
import torch

from cryolike_scipion import cli, engine
from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.likelihood import Evidence, ScalePrior
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.progress import Progress
from cryolike_scipion.engine.results import PER_STRUCTURE, load_results
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.row_sums import sum_rows
from cryolike_scipion.engine.symmetry import rotations as group_rotations

from .blob_particles import Blobs
from .particle_files import cryosparc_array, write_cryosparc
from .small_sets import BOX, PIXEL, SEARCH, poses_of, rewrite_stack, score, simulate, with_columns, write_map, write_maps
from .truth import agreement

COUNT = 14
QUICK = {"angular_step": 25.0, "resolution": 14.0}
ODD_LABELS = ['<b>"a"</b> $x$ % \\', "zwei\nü 'b' #1"]

# mrcfile warns when it writes them.
pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")


@pytest.fixture
def no_report(monkeypatch):
    """Plots take longer than these runs."""
    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Particles of two structures, with rows in another order than their images and a text column of the user's."""
    folder = tmp_path_factory.mktemp("small")
    maps = write_maps(folder)
    simulate(folder, maps, count=COUNT)
    particles = read_particles([folder / "truth.star"]).take(np.random.default_rng(0).permutation(COUNT))
    names = [f"micro graph '{i}' #%.mrc" for i in range(COUNT)]
    write_particles(folder / "input.star", particles, {"rlnMicrographName": names, "userNumber": ["1e-03"] * COUNT})
    return folder, maps


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run as a user starts it, with its report, log and labels of every kind."""
    folder, maps = small
    out = tmp_path_factory.mktemp("whole")
    return out, score(out, folder / "input.star", maps, labels=ODD_LABELS)


def run(small, out, **options):
    folder, maps = small
    return score(out, folder / "input.star", maps, **{**QUICK, **options})


@pytest.fixture(scope="module")
def quick(small, tmp_path_factory):
    """The result with which changed runs are compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return run(small, tmp_path_factory.mktemp("quick"))


def rows_of(star):
    """Labels and rows (lists of words) of the particle table, by the rules of STAR that these files need."""
    text = star.read_text(encoding="utf-8").split("data_particles")[1].split("\ndata_")[0]
    labels = re.findall(r"^_(\S+)", text, flags=re.MULTILINE)
    words = re.compile(r"""'[^\n]*?'(?=\s)|"[^\n]*?"(?=\s)|\S+""")
    return labels, [words.findall(line + " ") for line in text.splitlines() if "@" in line]


# ---------------------------------------------------------------- what is written


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


def test_progress_is_told(small, tmp_path, no_report, caplog):
    folder, maps = small
    caplog.set_level("INFO", logger="cryolike_scipion")
    options = {**SEARCH, **QUICK, "particles": [str(folder / "input.star")], "structures": maps}
    engine.run("likelihood", Progress(bar=False, interval=0.0), out=str(tmp_path), **options)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("progress")]
    assert any(re.match(r"learning the scale: 100% ", line) for line in lines)
    shares = [int(re.match(r"likelihood: (\d+)% \(", line)[1]) for line in lines if line.startswith("likelihood")]
    assert shares[-1] == 100 and shares == sorted(shares) and len(shares) > 4
    assert all(re.search(r"\(\d+/56 steps, .*left\)", line) for line in lines if line.startswith("likelihood: 5"))


# ---------------------------------------------------------------- what is kept of the grid


def _kept(small, out, keep):
    results = run(small, out, keep=keep)
    return results, *(results.extras[f"keep_{what}_002"].values if f"keep_{what}_002" in results.extras else None
                      for what in ("value", "position"))  # fmt: skip


def test_what_is_kept_agrees_with_the_full_tensor(small, quick, tmp_path, no_report):
    results, full, position = _kept(small, tmp_path / "full", "full")
    views, shifts, psi = (len(results.grids[name].values) for name in ("views_002", "shift", "inplane"))
    assert position is None and full.shape == (COUNT, views, shifts, psi)
    assert np.abs(full).max() <= 1.0 and np.array_equal(results.integrated, quick.integrated)
    for keep, over in (("template", (2, 3)), ("shift", (1, 3)), ("rotation", (1, 2)), ("shift-rotation", (1,))):
        _, value, position = _kept(small, tmp_path / keep, keep)
        assert np.allclose(value, full.max(axis=over), atol=1e-6), keep
        left = [axis for axis in (1, 2, 3) if axis not in over]
        flat = np.transpose(full, (0, *left, *over)).reshape(*value.shape, -1)
        at_best = np.take_along_axis(flat, position[..., None].astype(int), axis=-1)[..., 0]
        assert np.allclose(at_best, value, atol=1e-6), keep


def test_the_best_pose_is_near_the_best_of_the_full_tensor(small, tmp_path, no_report):
    results, full, _ = _kept(small, tmp_path, "full")
    grids = {name: results.grids[name].values for name in ("views_002", "shift", "inplane")}
    shown = np.flatnonzero(results.best_structure == 2)
    assert len(shown) > 3
    for m in shown:
        view, shift, psi = np.unravel_index(full[m].argmax(), full[m].shape)
        rotation = matrix_from_euler(*grids["views_002"][view], grids["inplane"][psi])
        refined = matrix_from_euler(results.rot[1, m], results.tilt[1, m], results.psi[1, m])
        assert distance_deg(refined[None], rotation[None])[0] < 25.0
        assert abs(results.origin_x[1, m] - grids["shift"][shift, 0]) < PIXEL
        assert abs(results.origin_y[1, m] - grids["shift"][shift, 1]) < PIXEL
        assert results.cc[1, m] > full[m].max() - 0.02


def _command(small, out, *more):
    """The command line in this process: exit status. Threads stay as they were."""
    folder, maps = small
    options = {**SEARCH, **QUICK}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "memory"]
    before = torch.get_num_threads()
    try:
        return cli.main([
            "likelihood", "--particles", str(folder / "input.star"), "--structures", *maps, *arguments, "--threads", "1",
            "--out", str(out), *more,
        ])  # fmt: skip
    finally:
        torch.set_num_threads(before)


def test_a_tensor_beyond_the_memory_bound_is_refused(small, tmp_path, no_report, capsys):
    assert _command(small, tmp_path, "--keep", "full", "--memory", "0.001") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--memory" in error and "full" in error
    assert not (tmp_path / "scores.h5").exists() and not (tmp_path / "particles.star").exists()
    assert _command(small, tmp_path, "--keep", "rotation", "--memory", "0.001") == 0


def test_a_tensor_is_of_an_exhaustive_search(small, tmp_path):
    with pytest.raises(InputError, match="exhaustive"):
        run(small, tmp_path, keep="template", search="local")


# ---------------------------------------------------------------- bad images


def _copy(small, folder, change):
    """The particles with changed images, in another folder; returns the STAR file."""
    (folder / "particles.mrcs").write_bytes((small[0] / "particles.mrcs").read_bytes())
    rewrite_stack(folder / "particles.mrcs", change)
    star = folder / "input.star"
    text = (small[0] / "input.star").read_text(encoding="utf-8")
    star.write_text(text.replace(str(small[0]), str(folder)), encoding="utf-8")
    return star


def _bad_set(small, folder, value):
    """The particles with one bad image; returns the STAR file and the row that shows it."""

    def spoil(data):
        data[5] = value
        return data

    star = _copy(small, folder, spoil)
    return star, list(read_particles([star]).frame).index(5)


def test_a_bad_image_stops_the_run(small, tmp_path, no_report, capsys):
    star, row = _bad_set(small, tmp_path, np.nan)
    out = tmp_path / "out"
    status = _command((star.parent, small[1]), out, "--batch-images", "3")
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(error) == 1
    assert "particles.mrcs" in error[0] and f"row {row + 1}" in error[0] and error[0].endswith(".")
    assert not any((out / name).exists() for name in ("particles.star", "scores.h5", "matrix.npy", "report.html"))


@pytest.mark.parametrize("value, name", [(np.nan, "nan"), (3.0, "constant"), (np.inf, "nan")])
def test_a_flagged_image_keeps_its_row_and_pose(small, quick, tmp_path, no_report, value, name):
    star, bad = _bad_set(small, tmp_path, value)
    results = score(tmp_path / "out", star, small[1], **QUICK, bad_images="flag")
    labels, rows = rows_of(tmp_path / "out" / "particles.star")
    before, wanted = rows_of(star)
    assert len(rows) == COUNT
    words = dict(zip(labels, rows[bad]))
    assert words["cryolikeStatus"] == name and words["rlnClassNumber"] == "0" and words["cryolikeBestStructure"] == "0"
    for label in ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"):
        assert float(words[f"rln{label}"]) == pytest.approx(float(wanted[bad][before.index(f"rln{label}")]), abs=1e-6)
    for label in ("rlnMaxValueProbDistribution", "cryolikeStructurePosterior", "cryolikeLogLikelihood"):
        assert float(words[label]) == 0.0
    good = np.arange(COUNT) != bad
    assert (results.structure_posterior[:, bad] == 0).all() and (results.status[good] == 0).all()
    assert np.array_equal(results.best_structure[good], quick.best_structure[good])
    assert np.allclose(results.cc[:, good], quick.cc[:, good], atol=0.02)


# ---------------------------------------------------------------- what the scores may depend on


def _assert_like(found, wanted, nat=0.02):
    assert np.abs(found.integrated - wanted.integrated).max() < nat
    assert np.abs(found.structure_posterior - wanted.structure_posterior).max() < nat
    assert np.abs(found.cc - wanted.cc).max() < 1e-3


@pytest.mark.parametrize("raw", [False, True])
def test_grey_units_of_images_change_nothing(small, quick, tmp_path, no_report, raw):
    """With and without normalisation: the scale is learned in the images' own units."""
    star = _copy(small, tmp_path, lambda data: 10 * data)
    found = score(tmp_path / "ten", star, small[1], **QUICK, no_normalise=raw)
    one = run(small, tmp_path / "one", no_normalise=True) if raw else quick
    _assert_like(found, one)
    mean = [r.parameters["scale_prior"]["groups"]["0"]["mu"] for r in (found, one)]
    assert mean[0] == pytest.approx((10 if raw else 1) * mean[1], rel=1e-3)
    assert np.allclose(found.scale, (10 if raw else 1) * one.scale, rtol=1e-2)


def test_grey_units_of_maps_change_nothing(small, quick, tmp_path, no_report):
    maps = []
    for path in small[1]:
        with mrcfile.open(path) as file:
            maps.append(write_map(tmp_path / path.rsplit("/", 1)[1], 10 * file.data))
    _assert_like(score(tmp_path / "out", small[0] / "input.star", maps, **QUICK), quick)


def test_an_offset_of_the_images_changes_nothing(small, quick, tmp_path, no_report):
    star = _copy(small, tmp_path, lambda data: data + 25.0)
    _assert_like(score(tmp_path / "out", star, small[1], **QUICK), quick)
    _assert_like(score(tmp_path / "raw", star, small[1], **QUICK, no_normalise=True),
                 run(small, tmp_path / "one", no_normalise=True), nat=0.1)  # fmt: skip


def test_dark_particles_are_inverted_when_asked(small, quick, tmp_path, no_report):
    star = _copy(small, tmp_path, lambda data: -data)
    _assert_like(score(tmp_path / "right", star, small[1], **QUICK, invert=True), quick, nat=1e-6)
    wrong = score(tmp_path / "wrong", star, small[1], **QUICK)
    assert (wrong.integrated.max(axis=0) < quick.integrated.max(axis=0) - 5).all()
    assert np.median(wrong.of_best("cc")) < 0.7 * np.median(quick.of_best("cc"))


def test_round_particles_of_the_wrong_contrast_have_low_scores_not_none(tmp_path, no_report):
    """Every pose of a ball is inverted by many widths of alpha; in float32 their probability is 0."""
    ball = Blobs(np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 2.0]]), np.array([1.0, 0.3]), 8.0)
    maps = [write_map(tmp_path / "ball.mrc", ball.structure(BOX).density)]
    simulate(tmp_path, maps, count=10, snr=4.0, max_shift=1.0)
    for scale in ("learned", "free"):
        found = score(tmp_path / scale, tmp_path / "particles.star", maps, **QUICK, invert=True, scale=scale)
        assert (found.cc < 0).all() and (found.integrated < 0).all() and (found.integrated > -30).all()
    near = with_columns(tmp_path / "truth.star", tmp_path / "near.star")
    local = score(tmp_path / "local", near, maps, **QUICK, invert=True, search="local")
    assert np.isfinite(local.integrated).all() and (local.integrated < 0).all()


@pytest.mark.parametrize("prior", [ScalePrior(8.0, 3.0), ScalePrior(flat=True)])
def test_sums_over_inverted_rows_are_those_of_single_poses(prior):
    """Rows from 25 widths of alpha below zero to above it: float32 against the sum of single poses in float64.

    A row that begins within five widths loses what lies beyond; it is less than the row's largest value each.
    """
    b = np.linspace(-24.0, -14.0, 40) + np.arange(0, 30, 5)[:, None]
    terms = [torch.tensor([[value]], dtype=torch.float64) for value in (1.0, 1000.0, 900.0)]
    single = Evidence.of(*terms, prior).log_ratio(torch.tensor(b))
    rows = Evidence.of(*(t.float() for t in terms), prior).expand(torch.zeros(len(b), dtype=torch.long))
    sums, _ = sum_rows(torch.tensor(b, dtype=torch.float32), rows, single.amax(dim=1).float())
    error = torch.log(sums.mass) + single.amax(dim=1) - torch.logsumexp(single, dim=1)
    assert error.abs().max() < 0.7 and torch.isfinite(sums.first_moment).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_a_cryosparc_file_is_respected(small, quick, tmp_path, no_report, sign):
    _copy(small, tmp_path, lambda data: sign * data)
    particles = read_particles([small[0] / "input.star"])
    array = cryosparc_array(
        COUNT, blob__path=np.full(COUNT, b"particles.mrcs"), blob__idx=particles.frame.astype(np.uint32),
        blob__shape=np.full((COUNT, 2), BOX, dtype=np.uint32), blob__psize_A=np.full(COUNT, PIXEL, np.float32),
        blob__sign=np.full(COUNT, sign, np.float32), ctf__df1_A=particles.defocus_u.astype(np.float32),
        ctf__df2_A=particles.defocus_v.astype(np.float32), ctf__phase_shift_rad=np.zeros(COUNT, np.float32),
        ctf__df_angle_rad=np.deg2rad(particles.defocus_angle_deg).astype(np.float32),
    )  # fmt: skip
    path = write_cryosparc(tmp_path / "particles.cs", array)
    found = score(tmp_path / "out", path, small[1], **QUICK, root=str(tmp_path))
    _assert_like(found, quick)
    assert read_particles([tmp_path / "out" / "particles.star"]).image_names()[0].startswith(f"{particles.frame[0] + 1:06d}@")


def test_optics_groups_of_different_pixel_and_box_share_one_grid(small, tmp_path, no_report):
    """The same particles with the same truth at 4 Å and at 3 Å, in one table: the same answers."""
    maps = small[1]
    coarse = simulate(tmp_path / "coarse", maps, count=COUNT, resolution=8.0)
    fine = simulate(tmp_path / "fine", maps, count=COUNT, resolution=8.0, box=32, pixel=3.0)
    stars = [str(coarse / "truth.star"), str(fine / "truth.star")]
    out = tmp_path / "out"
    engine.run("likelihood", particles=stars, structures=maps, out=str(out), **SEARCH)
    results, written = load_results(out), read_particles([out / "particles.star"])
    assert sorted((g.pixel_size, g.box) for g in written.optics) == [(3.0, 32), (4.0, 24)]
    truth = [read_particles([star]) for star in stars]
    assert np.array_equal(truth[0].rot, truth[1].rot) and len(written) == 2 * COUNT
    assert np.array_equal(results.best_structure, np.concatenate([t.class_number for t in truth]))
    rotation = matrix_from_euler(written.rot, written.tilt, written.psi)
    error = distance_deg(rotation[:COUNT], rotation[COUNT:])
    assert np.median(error) < 5.0
    for half, t in zip((slice(0, COUNT), slice(COUNT, None)), truth):
        error = distance_deg(rotation[half], matrix_from_euler(t.rot, t.tilt, t.psi))
        off = np.hypot(written.origin_x[half] - t.origin_x, written.origin_y[half] - t.origin_y)
        assert np.median(error) < 4.0 and np.median(off) < 1.0
    # Alone the group at 4 Å has the same scores: one band, one grid, a prior of its own size.
    alone = score(tmp_path / "alone", stars[0], maps, scale="free")
    engine.run("likelihood", particles=stars, structures=maps, out=str(tmp_path / "free"), scale="free", **SEARCH)
    assert np.allclose(load_results(tmp_path / "free").integrated[:, :COUNT], alone.integrated, atol=0.05)


def test_double_precision_agrees_with_single(small, quick, tmp_path, no_report):
    found = run(small, tmp_path, precision="double")
    assert np.abs(found.integrated - quick.integrated).max() < 0.01
    assert np.abs(found.cc - quick.cc).max() < 1e-4 and np.abs(found.max - quick.max).max() < 0.01
    assert (found.integrated != quick.integrated).any()


def test_threads_and_batches_change_nothing(small, quick, tmp_path, no_report):
    assert _command(small, tmp_path, "--threads", "2", "--batch-images", "5", "--batch-templates", "7") == 0
    found = load_results(tmp_path)
    assert np.abs(found.integrated - quick.integrated).max() < 0.05  # rows that are sampled depend on the block
    assert np.array_equal(found.best_structure, quick.best_structure)


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


def test_symmetry_leaves_the_answer(tmp_path, no_report):
    """A C4 structure searched as C4 and as C1: the same scores, the same poses up to the symmetry."""
    maps = write_maps(tmp_path, 1, symmetry="C4", count=5)
    simulate(tmp_path, maps, count=8, symmetry=["C4"], snr=3.0)
    options = {"angular_step": 8.0, "levels": 1, "resolution": 12.0}
    with_group = score(tmp_path / "c4", tmp_path / "truth.star", maps, symmetry=["C4"], **options)
    without = score(tmp_path / "c1", tmp_path / "truth.star", maps, **options)
    assert len(with_group.grids["views_001"].values) < 0.3 * len(without.grids["views_001"].values)
    # The two grids have other views, and a peak can be narrower than they resolve.
    change = np.abs(with_group.integrated - without.integrated)
    assert np.median(change) < 0.1 and change.max() < 5.0
    assert np.median(np.abs(with_group.max - without.max)) < 0.05
    poses = [matrix_from_euler(r.rot[0], r.tilt[0], r.psi[0]) for r in (with_group, without)]
    assert np.median(distance_deg(*poses, group_rotations("C4"))) < 0.5


def test_input_poses_do_not_matter_to_an_exhaustive_search(small, quick, tmp_path, no_report):
    angles, _ = poses_of(small[0] / "input.star")
    star = small[0] / "other.star"
    with_columns(small[0] / "input.star", star, rlnAngleRot=angles[::-1, 0], rlnOriginXAngst=np.full(COUNT, 30.0))
    found = score(tmp_path, star, small[1], **QUICK)
    assert np.allclose(found.integrated, quick.integrated, atol=1e-4)
