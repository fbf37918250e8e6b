"""Random particle sets of random optics groups, through STAR and cryoSPARC files and back: nothing changes on the way."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.result_files import write_particle_files
from cryolike_scipion.engine.results import PER_STRUCTURE, Results, StructureEntry
from cryolike_scipion.engine.rotations import matrix_from_euler, random_rotations, vector_from_matrix
from cryolike_scipion.engine.star_file import read_star, split_row

from .particle_files import cryosparc_array, write_cryosparc
from .random_star import random_star

ROTATION, SHIFT = 1e-5, 1e-3  # matrix elements, pixels
SETTINGS = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_INPUT = "cryolikeInput"

SEEDS = st.integers(0, 2**32 - 1)
# Numbers as programs and people write them; each has to come back as it was.
TEXTS = st.sampled_from(["{:.6f}", "{:.2f}0", "{:e}", "{:+.3f}", "{:012.4f}", "{:.1f}"])


def random_results(particles, seed):
    """Results of two structures with random poses and scores."""
    rng = np.random.default_rng(seed)
    count = len(particles)
    chunk = {name: rng.normal(size=(2, count)) for name in PER_STRUCTURE}
    chunk |= {"rot": rng.uniform(-180, 180, (2, count)), "tilt": np.rad2deg(np.arccos(rng.uniform(-1, 1, (2, count))))}
    chunk |= {"psi": rng.uniform(-180, 180, (2, count)), "integrated": rng.normal(scale=4, size=(2, count))}
    chunk |= {"best_template": rng.integers(1, 99, (2, count)), "status": np.zeros(count, np.uint8)}
    chunk |= {"origin_x": rng.normal(scale=9, size=(2, count)), "origin_y": rng.normal(scale=9, size=(2, count))}
    results = Results.from_chunks([StructureEntry("a"), StructureEntry("b")], [chunk])
    results.identify(particles)
    return results


def assert_same_poses(found, results):
    matrices = (
        matrix_from_euler(found.rot, found.tilt, found.psi),
        matrix_from_euler(*(results.of_best(name) for name in ("rot", "tilt", "psi"))),
    )
    assert np.abs(matrices[0] - matrices[1]).max() < ROTATION
    for name in ("origin_x", "origin_y"):
        assert (np.abs(getattr(found, name) - results.of_best(name)) / found.pixel_size).max() < SHIFT


def assert_same_text(before, after, order=None):
    """Every value of the particle and optics tables of one file is in the other, as text."""
    one, two = before.find("particles"), after.find("particles")
    rows = [[split_row(row) for row in table.rows] for table in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for place, label in enumerate(one.labels):
        stem = _INPUT + label.removeprefix("rln").removeprefix("cryolike")
        kept = two.labels.index(stem if stem in two.labels else label)
        assert [row[place] for row in rows[0]] == [row[kept] for row in rows[1]], label
    assert before.find("optics").rows == after.find("optics").rows
    assert before.find("optics").labels == after.find("optics").labels
    assert "_rlnNote  'kept  as it is' # even this" in after.lines


@SETTINGS
@given(seed=SEEDS, texts=st.lists(TEXTS, min_size=1, max_size=4), groups=st.integers(1, 4), rows=st.integers(1, 12))
def test_through_star_and_back(tmp_path_factory, seed, texts, groups, rows):
    folder = tmp_path_factory.mktemp("star")
    particles = read_particles([random_star(folder / "in.star", seed, texts, groups, rows)])
    results = random_results(particles, seed)
    write_particle_files(folder / "out", results, particles, {})
    found = read_particles([folder / "out" / "particles.star"])
    assert_same_poses(found, results)
    assert_same_text(read_star(folder / "in.star"), read_star(folder / "out" / "particles.star"))
    assert found.image_names() == particles.image_names()
    assert found.optics == particles.optics and np.array_equal(found.optics_index, particles.optics_index)


@SETTINGS
@given(seed=SEEDS, groups=st.integers(1, 4), rows=st.integers(1, 12))
def test_from_star_to_cryosparc_and_back(tmp_path_factory, seed, groups, rows):
    folder = tmp_path_factory.mktemp("both")
    particles = read_particles([random_star(folder / "in.star", seed, ["{:.6f}"], groups, rows)])
    results = random_results(particles, seed)
    write_particle_files(folder / "out", results, particles, {"cs": True})
    found = read_particles([folder / "out" / "particles.cs"])
    assert_same_poses(found, results)
    for name in ("defocus_u", "defocus_v", "phase_shift_deg", "pixel_size"):  # single precision there
        assert np.allclose(getattr(found, name), getattr(particles, name), rtol=1e-6, atol=1e-6), name
    turned = np.deg2rad(found.defocus_angle_deg - particles.defocus_angle_deg)
    assert np.abs(np.sin(turned)).max() < 1e-6
    assert np.array_equal(found.frame, particles.frame) and np.array_equal(found.box, particles.box)
    names = [[table.stacks[s].name for s in table.stack_index] for table in (found, particles)]
    assert names[0] == names[1]
    for one, two in zip(found.optics_index, particles.optics_index):
        a, b = found.optics[one], particles.optics[two]
        assert np.allclose(
            (a.voltage_kv, a.cs_mm, a.amplitude_contrast), (b.voltage_kv, b.cs_mm, b.amplitude_contrast), rtol=1e-6
        )


@SETTINGS
@given(seed=SEEDS, groups=st.integers(1, 4), rows=st.integers(1, 12))
def test_from_cryosparc_to_star_and_both_back(tmp_path_factory, seed, groups, rows):
    folder, rng = tmp_path_factory.mktemp("cs"), np.random.default_rng(seed)
    group = rng.integers(groups, size=rows).astype(np.uint32)
    matrices = random_rotations(rows, rng)
    array = cryosparc_array(
        rows,
        uid=rng.integers(1, 2**63, rows).astype(np.uint64) * np.uint64(2) + np.uint64(1),
        blob__idx=rng.integers(50, size=rows).astype(np.uint32),
        ctf__exp_group_id=group,
        ctf__accel_kv=np.array([200, 300, 120, 100], np.float32)[group],
        ctf__df1_A=rng.uniform(5e3, 3e4, rows).astype(np.float32),
        ctf__df_angle_rad=rng.uniform(-3, 3, rows).astype(np.float32),
        alignments3D__pose=vector_from_matrix(np.swapaxes(matrices, 1, 2)).astype(np.float32),
        alignments3D__shift=rng.normal(scale=5, size=(rows, 2)).astype(np.float32),
    )
    particles = read_particles([write_cryosparc(folder / "p.cs", array)])
    given_pose = matrix_from_euler(particles.rot, particles.tilt, particles.psi)
    assert np.abs(given_pose - matrices).max() < ROTATION
    results = random_results(particles, seed)
    write_particle_files(folder / "out", results, particles, {})
    again = np.load(folder / "out" / "particles.cs", allow_pickle=False)
    for name in array.dtype.names:
        kept = f"input_{name}" if name.startswith("alignments3D") else name
        assert again[kept].tobytes() == array[name].tobytes(), name
    for file in ("particles.cs", "particles.star"):
        found = read_particles([folder / "out" / file])
        assert_same_poses(found, results)
        for name in ("defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "frame", "sign", "optics_index"):
            assert np.array_equal(getattr(found, name), getattr(particles, name)), name
        assert found.optics == particles.optics
    star = read_star(folder / "out" / "particles.star").find("particles")
    assert star.columns(["cryolikeCryosparcUid"])["cryolikeCryosparcUid"] == [str(uid) for uid in array["uid"]]


@SETTINGS
@given(seed=SEEDS, rows=st.integers(1, 12))
def test_poses_survive_a_second_round(tmp_path_factory, seed, rows):
    folder = tmp_path_factory.mktemp("again")
    particles = read_particles([random_star(folder / "in.star", seed, ["{:.6f}"], 2, rows)])
    write_particles(folder / "a.star", particles, {})
    once = read_particles([folder / "a.star"])
    write_particles(folder / "b.star", once, {})
    assert (folder / "a.star").read_bytes() == (folder / "b.star").read_bytes()
    assert np.array_equal(once.rot, particles.rot) and np.array_equal(once.origin_y, particles.origin_y)
