"""cryoSPARC's files: those of one job put together by uid, alignments of all kinds, and what an independent converter makes.

Numbers called pyem's are the output of csparc2star.py of pyem 0.67 for the same files.
"""

import gzip
import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.cryosparc_files import job_file
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.image_stacks import read_images
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.parameters import complete

from .helpers import shared_data
from .particle_files import cryosparc_array, random_images, write_cryosparc, write_stack

# Rot, tilt, psi, origins (Å) and defocus angle of the first rows of P12_J24_particles.cs.
PYEM = """
-157.808487 118.790970 34.683304 33.436409 -5.392969 -78.131088
51.952480 110.211052 92.757179 3.733594 -13.689844 -78.131088
26.698648 42.391060 -142.746536 -21.986719 32.606720 -78.131088
-137.330444 83.620682 -83.107132 -13.026094 16.012968 -78.131088
-175.394348 90.773178 -10.363159 19.331718 -3.235781 -78.131088
-113.196449 88.545532 -58.287914 9.541407 21.157032 -78.131088
"""
# Psi and origins (Å) of the first rows of J2_particles_exported.cs.
PYEM_2D = """
337.959167 0.000000 16.140001
95.510201 8.070001 8.070001
227.755096 -8.070001 16.140001
191.020401 16.140001 0.000000
"""


def numbers(text):
    return np.array([line.split() for line in text.split("\n") if line.strip()], dtype=np.float64)


def part(array, names, rows=slice(None)):
    """Some fields and rows of a structured array."""
    chosen = [name for name in array.dtype.names if name == "uid" or name.startswith(names)]
    out = np.zeros(len(array[rows]), dtype=[(name, array.dtype[name]) for name in chosen])
    for name in chosen:
        out[name] = array[name][rows]
    return out


def alignments(count, seed=0, space="alignments3D"):
    rng = np.random.default_rng(seed)
    return {
        f"{space}__pose": rng.normal(size=(count, 3)).astype(np.float32),
        f"{space}__shift": rng.normal(size=(count, 2)).astype(np.float32),
        f"{space}__psize_A": np.full(count, 3.0, np.float32),
        f"{space}__class": np.zeros(count, np.uint32),
        f"{space}__class_posterior": np.ones(count, np.float32),
    }


def write_job(folder, count=6, seed=0, name="J7_004_particles.cs"):
    """A job that aligned particles whose images and CTF came from another one; its own rows are a subset, in its order."""
    folder.mkdir(parents=True, exist_ok=True)
    array = cryosparc_array(count, **alignments(count, seed))
    array["ctf/df1_A"] += np.arange(count)
    rng = np.random.default_rng(seed)
    own = write_cryosparc(folder / name, part(array, ("alignments3D/",), rng.permutation(count)[: count - 1]))
    rest = write_cryosparc(folder / "J7_passthrough_particles.cs", part(array, ("blob/", "ctf/"), rng.permutation(count)))
    return array, own, rest


def check_job(particles, array, own):
    """Every particle has its own image, CTF and pose."""
    rows = np.load(own)
    place = {uid: i for i, uid in enumerate(array["uid"])}
    at = np.array([place[uid] for uid in rows["uid"]])
    assert particles.frame.tolist() == at.tolist()
    np.testing.assert_array_equal(particles.defocus_u.astype(np.float32), array["ctf/df1_A"][at])
    expected = Rotation.from_rotvec(array["alignments3D/pose"][at].astype(float)).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(matrix_from_euler(particles.rot, particles.tilt, particles.psi), expected, atol=1e-6)
    np.testing.assert_allclose(particles.origin_x, array["alignments3D/shift"][at, 0] * 3.0, atol=1e-5)


# ---------------------------------------------------------------- an independent converter


def test_poses_and_shifts_are_those_of_pyem():
    refined = read_particles([shared_data("cryosparc") / "P12_J24_particles.cs"])
    theirs = numbers(PYEM)
    count = len(theirs)
    matrices = matrix_from_euler(refined.rot, refined.tilt, refined.psi)[:count]
    np.testing.assert_allclose(matrices, matrix_from_euler(*theirs[:, :3].T), atol=1e-6)
    ours = np.stack([refined.origin_x, refined.origin_y, refined.defocus_angle_deg], axis=1)[:count]
    np.testing.assert_allclose(ours, theirs[:, 3:], atol=2e-5)


def test_two_dimensional_alignments_are_those_of_pyem():
    classified = read_particles([shared_data("cryosparc") / "J2_particles_exported.cs"])
    theirs = numbers(PYEM_2D)
    ours = np.stack([classified.psi, classified.origin_x, classified.origin_y], axis=1)[: len(theirs)]
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert not classified.has_pose


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.floats(-7, 7, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_any_rotation_vector_becomes_its_matrix(tmp_path, vectors):
    pose = np.array(vectors, np.float32)
    array = cryosparc_array(len(pose), alignments3D__pose=pose)
    particles = read_particles([write_cryosparc(tmp_path / "p.cs", array)])
    expected = Rotation.from_rotvec(pose.astype(float)).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(matrix_from_euler(particles.rot, particles.tilt, particles.psi), expected, atol=1e-6)


# ---------------------------------------------------------------- several files of a job


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_particles_and_passthrough_are_joined_by_uid(tmp_path, order):
    array, *files = write_job(tmp_path)
    particles = read_particles([files[i] for i in order])
    assert len(particles) == 5 and particles.sources == (files[0],)
    check_job(particles, array, files[0])


def test_the_passthrough_file_is_found_beside_it_and_from_the_folder(tmp_path):
    array, own, _ = write_job(tmp_path / "J7")
    write_cryosparc(tmp_path / "J7" / "J7_003_particles.cs", cryosparc_array(2))
    write_cryosparc(tmp_path / "J7" / "J7_passthrough_micrographs.cs", cryosparc_array(9, uid=np.arange(9, dtype=np.uint64)))
    (tmp_path / "J7" / "J7_passthrough_volume.cs").write_bytes(b"\x93NUMPY and no more")
    for path in (own, tmp_path / "J7"):
        check_job(read_particles([path]), array, own)


def test_a_result_group_names_its_files(tmp_path):
    array, own, rest = write_job(tmp_path)
    rest = rest.rename(tmp_path / "elsewhere.cs")
    group = tmp_path / "J7_particles.csg"
    group.write_text(
        "created: 2024-01-01\nresults:\n"
        f"  alignments3D:\n    metafile: '>{own.name}'\n    num_items: 5\n"
        f"  blob:\n    metafile: '>{rest.name}'\n  ctf:\n    metafile: \">{rest.name}\"\n"
    )
    check_job(read_particles([group]), array, own)
    group.write_text("results: none\n")
    with pytest.raises(InputError, match=r"names no \.cs file"):
        read_particles([group])


def test_an_image_job_given_beside_an_alignment_job_completes_it(tmp_path):
    array, own, rest = write_job(tmp_path)
    images = rest.rename(tmp_path / "J3_particles.cs")
    for paths in ([own, images], [images, own]):
        check_job(read_particles(paths), array, own)


def test_the_jobs_own_group_goes_before_one_that_was_passed_on(tmp_path):
    array, own, rest = write_job(tmp_path)
    stale = cryosparc_array(6, **alignments(6, seed=9))
    write_cryosparc(rest, stale)
    particles = read_particles([own, rest])
    at = np.searchsorted(array["uid"], np.load(own)["uid"])
    np.testing.assert_allclose(particles.origin_x, array["alignments3D/shift"][at, 0] * 3.0, atol=1e-5)


def test_classes_share_a_passthrough_file(tmp_path):
    array = cryosparc_array(6, **alignments(6))
    classes = [
        write_cryosparc(tmp_path / f"J7_class_{k}_particles.cs", part(array, ("alignments3D/",), slice(k, None, 2)))
        for k in (0, 1)
    ]
    rest = write_cryosparc(tmp_path / "J7_passthrough_particles.cs", part(array, ("blob/", "ctf/")))
    particles = read_particles([*classes, rest])
    assert particles.frame.tolist() == [0, 2, 4, 1, 3, 5] and particles.sources == tuple(classes)
    with pytest.raises(InputError, match="holds particles of single classes only"):
        read_particles([tmp_path])


def test_files_of_different_particles_stay_apart(tmp_path):
    first = write_cryosparc(tmp_path / "a.cs", cryosparc_array(2))
    second = write_cryosparc(tmp_path / "b.cs", cryosparc_array(3, uid=np.arange(3, dtype=np.uint64)))
    particles = read_particles([first, second])
    assert len(particles) == 5 and particles.sources == (first, second)


def test_what_does_not_fit_together_is_refused(tmp_path):
    _, own, rest = write_job(tmp_path)
    whole = np.load(rest)
    rest.unlink()
    with pytest.raises(InputError, match=r"does not say where the images are .* together with its passthrough file"):
        read_particles([own])
    few = write_cryosparc(tmp_path / "few_passthrough.cs", whole[:3])
    with pytest.raises(InputError, match=r"of 5 particles are not in .*few_passthrough\.cs \(the first has uid \d+\)"):
        read_particles([own, few])
    twice = write_cryosparc(tmp_path / "twice_passthrough.cs", np.concatenate([whole, whole[:1]]))
    with pytest.raises(InputError, match="a uid occurs twice"):
        read_particles([own, twice])
    few.unlink(), twice.unlink()
    other = whole.copy()
    other["uid"] = np.arange(6)
    stranger = write_cryosparc(tmp_path / "other_passthrough.cs", other)
    with pytest.raises(InputError, match="shares no particles with the other given files"):
        read_particles([write_cryosparc(tmp_path / "whole.cs", whole), stranger])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 30), st.integers(0, 10**6))
def test_any_order_of_rows_is_joined_right(tmp_path, count, seed):
    array, own, rest = write_job(tmp_path, count, seed)
    check_job(read_particles([own, rest]), array, own)


def test_hundreds_of_fields_are_read(tmp_path):
    fields = {f"more/field_{i:03d}_with_a_long_name": np.zeros(2, np.float32) for i in range(500)}
    assert len(read_particles([write_cryosparc(tmp_path / "p.cs", cryosparc_array(2, **fields))])) == 2


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["J7_000_particles.cs", "J7_012_particles.cs", "J7_004_particles.cs"], "J7_012_particles.cs"),
        (["J7_000_particles.cs", "J7_particles.cs", "J7_passthrough_particles.cs"], "J7_particles.cs"),
        (["cryosparc_P1_J7_009_particles.cs", "cryosparc_P1_J7_010_particles.cs"], "cryosparc_P1_J7_010_particles.cs"),
        (["J7_particles_exported.cs", "J7_particles_exported.csg"], "J7_particles_exported.cs"),
        (["J7_class_0_particles.cs", "J7_final_particles.cs"], "J7_final_particles.cs"),
        (["J7_micrographs.cs"], None),
    ],
)
def test_which_file_of_a_job_folder(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).touch()
    assert job_file(tmp_path) == (None if chosen is None else tmp_path / chosen)


# ---------------------------------------------------------------- several classes, other fields


def test_of_several_3d_classes_the_most_probable_ones_pose_is_taken(tmp_path):
    count, classes = 5, 3
    rng = np.random.default_rng(0)
    posterior = rng.uniform(size=(count, classes)).astype(np.float32)
    pose = rng.normal(size=(count, classes, 3)).astype(np.float32)
    shift = rng.normal(size=(count, classes, 2)).astype(np.float32)
    best, rows = posterior.argmax(axis=1), np.arange(count)
    new = {
        "alignments3D_multi__pose": pose, "alignments3D_multi__shift": shift, "alignments3D_multi__class_posterior": posterior,
        "alignments3D_multi__class": np.tile(np.arange(classes, dtype=np.uint32), (count, 1)),
        "alignments3D_multi__psize_A": np.full((count, classes), 2.5, np.float32),
        "alignments3D_multi__split": np.zeros(count, np.uint32),
    }  # fmt: skip
    old = {
        f"alignments_class_{k}__{name}": values
        for k in range(classes)
        for name, values in (("pose", pose[:, k]), ("shift", shift[:, k]), ("class_posterior", posterior[:, k]),
                             ("class", np.full(count, k, np.uint32)))
    }  # fmt: skip
    for n, fields in enumerate((new, old)):
        particles = read_particles([write_cryosparc(tmp_path / f"{n}.cs", cryosparc_array(count, **fields))])
        assert particles.has_pose and particles.class_number.tolist() == (best + 1).tolist()
        expected = Rotation.from_rotvec(pose[rows, best].astype(float)).as_matrix().transpose(0, 2, 1)
        np.testing.assert_allclose(matrix_from_euler(particles.rot, particles.tilt, particles.psi), expected, atol=1e-6)
        np.testing.assert_allclose(particles.origin_x, 2.5 * shift[rows, best, 0], atol=1e-5)


def test_what_is_not_applied_is_said_with_row_counts(tmp_path, caplog):
    tilt = np.zeros((4, 2), np.float32)
    tilt[1:3, 0] = 0.3
    fields = {"ctf__tilt_A": tilt, "ctf__anisomag": np.zeros((4, 4), np.float32), "ctf__scale": np.full(4, 1.1, np.float32)}
    path = write_cryosparc(tmp_path / "p.cs", cryosparc_array(4, **fields))
    with caplog.at_level(logging.WARNING):
        read_particles([path])
    (record,) = caplog.records
    line = record.getMessage()
    assert f"{path}: not applied" in line and "anisomag" not in line
    assert "ctf/tilt_A (in 2 of 4 rows), ctf/scale (in 4 of 4 rows)" in line
    caplog.clear()
    read_particles([write_cryosparc(tmp_path / "q.cs", cryosparc_array(4))])
    assert not caplog.records


def test_exported_stacks_may_be_packed(tmp_path):
    stack = write_stack(tmp_path / "J1" / "images.mrcs", random_images(3))
    stack.write_bytes(gzip.compress(stack.read_bytes()))
    particles = read_particles([write_cryosparc(tmp_path / "p.cs", cryosparc_array(3))])
    found, status, _ = read_images(particles, [2, 0])
    assert not status.any() and np.array_equal(found, random_images(3)[[2, 0]])


def test_real_dark_particles_become_the_same_coefficients_from_both_files():
    folder, maps = shared_data("ribosome_real"), shared_data("two_state")
    found = []
    for name, invert in (("empiar_10076_7.cs", False), ("empiar_10076_7.star", True)):
        given = {"particles": [str(folder / name)], "structures": [str(maps / "50S_state_D.mrc")], "invert": invert, "out": "x"}
        setup = prepare_run(complete("likelihood", given | {"search": "exhaustive", "angular_step": 30.0, "levels": 0}), "cpu")
        images = convert(setup.particles, np.arange(7), setup.settings, setup.rule, "stop").images
        found.append(images.matched.numpy())
    np.testing.assert_allclose(found[0], found[1], atol=2e-4 * np.abs(found[1]).max())
