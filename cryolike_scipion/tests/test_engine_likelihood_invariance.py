"""What the scores of a run may depend on: not on units, offsets, contrast told, file type, precision, threads or batches."""

import mrcfile
import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine import compute
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.rotations import distance_deg, matrix_from_euler
from cryolike_scipion.engine.symmetry import rotations as group_rotations

from .blob_particles import Blobs
from .likelihood_runs import COUNT, QUICK, command, run, with_images
from .particle_files import cryosparc_array, write_cryosparc
from .small_sets import BOX, PIXEL, SEARCH, poses_of, score, simulate, with_columns, write_map, write_maps


def _assert_like(found, wanted, nat=0.02):
    assert np.abs(found.integrated - wanted.integrated).max() < nat
    assert np.abs(found.structure_posterior - wanted.structure_posterior).max() < nat
    assert np.abs(found.cc - wanted.cc).max() < 1e-3


@pytest.mark.parametrize("raw", [False, True])
def test_grey_units_of_images_change_nothing(small, quick, tmp_path, no_report, raw):
    """With and without normalisation: the scale is learned in the images' own units."""
    star = with_images(small, tmp_path, lambda data: 10 * data)
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
    star = with_images(small, tmp_path, lambda data: data + 25.0)
    _assert_like(score(tmp_path / "out", star, small[1], **QUICK), quick)
    _assert_like(score(tmp_path / "raw", star, small[1], **QUICK, no_normalise=True),
                 run(small, tmp_path / "one", no_normalise=True), nat=0.1)  # fmt: skip


def test_dark_particles_are_inverted_when_asked(small, quick, tmp_path, no_report):
    star = with_images(small, tmp_path, lambda data: -data)
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


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_a_cryosparc_file_is_respected(small, quick, tmp_path, no_report, sign):
    with_images(small, tmp_path, lambda data: sign * data)
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


def test_threads_and_batches_change_nothing(small, quick, tmp_path, no_report, monkeypatch):
    monkeypatch.setattr(compute, "_threads", None)  # what the command sets ends with this test
    assert command(small, tmp_path, "--threads", "2", "--batch-images", "5", "--batch-templates", "7") == 0
    found = load_results(tmp_path)
    assert np.abs(found.integrated - quick.integrated).max() < 0.05  # rows that are sampled depend on the block
    assert np.array_equal(found.best_structure, quick.best_structure)


def test_symmetry_leaves_the_answer(tmp_path, no_report):
    """A C4 structure searched as C4 and as C1: the same scores, the same poses up to the symmetry."""
    maps = write_maps(tmp_path, 1, symmetry="C4", count=5)
    simulate(tmp_path, maps, count=8, symmetry=["C4"], snr=3.0)
    options = {"angular_step": 8.0, "levels": 2, "resolution": 12.0}
    with_group = score(tmp_path / "c4", tmp_path / "truth.star", maps, symmetry=["C4"], **options)
    without = score(tmp_path / "c1", tmp_path / "truth.star", maps, **options)
    assert len(with_group.grids["views_001"].values) < 0.3 * len(without.grids["views_001"].values)
    # The two grids have other views, and a peak of 200 nat is narrower than they resolve: a division more would move it by
    # several nat.
    change = np.abs(with_group.integrated - without.integrated)
    assert np.median(change) < 0.1 and change.max() < 2.0
    assert np.median(np.abs(with_group.max - without.max)) < 0.05
    poses = [matrix_from_euler(r.rot[0], r.tilt[0], r.psi[0]) for r in (with_group, without)]
    assert np.median(distance_deg(*poses, group_rotations("C4"))) < 0.5


def test_input_poses_do_not_matter_to_a_global_search(small, quick, tmp_path, no_report):
    angles, _ = poses_of(small[0] / "input.star")
    star = small[0] / "other.star"
    with_columns(small[0] / "input.star", star, rlnAngleRot=angles[::-1, 0], rlnOriginXAngst=np.full(COUNT, 30.0))
    for search in ("hierarchical", "exhaustive"):
        found = score(tmp_path / search, star, small[1], **QUICK, search=search)
        assert np.allclose(found.integrated, quick.integrated, atol=1e-3), search
