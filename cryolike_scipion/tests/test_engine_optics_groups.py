"""Optics groups of different pixel sizes, boxes and microscopes in one run, on images that RELION made."""

import subprocess

import mrcfile
import numpy as np
import pytest

from cryolike_scipion.engine import rotations
from cryolike_scipion.engine.particles import read_particles

from .blob_particles import Blobs
from .helpers import program
from .small_sets import score, write_map

# name, pixel (Å), box, kV, Cs (mm), amplitude contrast, phase shift (degrees), defocus (Å)
GROUPS = (
    ("fine", 2.5, 40, 300.0, 2.7, 0.1, 0.0, 6000.0),
    ("coarse", 3.125, 32, 200.0, 1.4, 0.07, 0.0, 5000.0),
    ("phase plate", 2.5, 40, 300.0, 2.7, 0.1, 75.0, 4000.0),
)
EACH = 8
OPTICS = ("OpticsGroup", "OpticsGroupName", "ImagePixelSize", "ImageSize", "ImageDimensionality", "Voltage",
          "SphericalAberration", "AmplitudeContrast")  # fmt: skip
ROWS = ("ImageName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift", "AngleRot", "AngleTilt", "AnglePsi",
        "OriginXAngst", "OriginYAngst", "CtfBfactor", "CtfScalefactor")  # fmt: skip


def table(name, labels, rows):
    head = "".join(f"_rln{label} #{i}\n" for i, label in enumerate(labels, 1))
    return f"data_{name}\n\nloop_\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"


def write_star(path, groups, rows):
    lines = [
        (n, f"'{name}'", f"{pixel:.6f}", box, 2, voltage, cs, contrast)
        for n, (name, pixel, box, voltage, cs, contrast, *_) in enumerate(groups, 1)
    ]
    path.write_text("# version 30001\n\n" + table("optics", OPTICS, lines) + table("particles", ROWS, rows))
    return path


def relion(folder, name, *arguments):
    done = subprocess.run([program(name), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with map.mrc, and all.star, of three groups that relion_project made, rows of the groups in turn."""
    folder = tmp_path_factory.mktemp("groups")
    density = Blobs.random(5, count=30, radius=15.0, sigma=2.8).structure(40, 2.5).density
    write_map(folder / "map.mrc", density, 2.5)
    relion(folder, "relion_image_handler", "--i", "map.mrc", "--o", "map32.mrc", "--angpix", 2.5, "--rescale_angpix", 3.125)
    rng = np.random.default_rng(4)
    rows = []
    for n, group in enumerate(GROUPS, 1):
        _, pixel, box, *_, shift, defocus = group
        angles = np.stack(rotations.euler_from_matrix(rotations.random_rotations(EACH, rng)), axis=1)
        own = []
        for i in range(EACH):
            u = defocus + 300 * i
            values = (u, u - 400.0, 17.0 * i, shift, *angles[i], *rng.uniform(-5, 5, 2), 20.0 * (i % 3), 1 - 0.1 * (i % 2))
            own.append((f"{i + 1:06d}@{n}.mrcs", 1, *(f"{v:.6f}" for v in values)))
        write_star(folder / f"{n}.star", [group], own)
        volume = "map.mrc" if box == 40 else "map32.mrc"
        relion(folder, "relion_project", "--i", volume, "--ang", f"{n}.star", "--ctf", "--o", f"{n}", "--angpix", pixel)
        images = mrcfile.read(folder / f"{n}.mrcs")
        assert images.shape == (EACH, box, box)
        # Noise of one power per Å² in all groups, so that their scores can be compared.
        write_map(folder / f"{n}.mrcs", images + 0.4 * images.std() * rng.standard_normal(images.shape), pixel)
        rows += [(row[0], n, *row[2:]) for row in own]
    rows = [row for i in range(EACH) for row in rows[i::EACH]]
    write_star(folder / "all.star", GROUPS, rows)
    return folder, rows


def test_every_group_is_read_with_its_own_values(simulated):
    particles = read_particles([simulated[0] / "all.star"])
    found = [(g.name, g.pixel_size, g.box, g.voltage_kv, g.cs_mm, g.amplitude_contrast) for g in particles.optics]
    assert found == [group[:6] for group in GROUPS]
    assert particles.optics_index.tolist() == [0, 1, 2] * EACH
    assert particles.phase_shift_deg[:3].tolist() == [0, 0, 75]
    assert particles.ctf_bfactor[3] == 20 and particles.ctf_scale[3] == 0.9


def test_true_poses_fit_in_every_group_and_only_with_its_own_values(simulated, tmp_path):
    folder, rows = simulated
    reference = [str(folder / "map.mrc")]
    right = score(tmp_path / "right", folder / "all.star", reference, search="fixed", resolution=7.0)
    by_group = right.cc[0].reshape(EACH, 3).mean(axis=0)
    print(f"correlation at the true poses, by group: {by_group.round(3)}")
    assert by_group.min() > 0.9

    name, pixel, box, *_ = GROUPS[1]
    for n, changed in enumerate((
        (name, pixel, box, 300.0, 2.7, 0.1), (name, pixel * 0.95, box, 200.0, 1.4, 0.07),
    )):  # fmt: skip
        star = write_star(folder / f"wrong{n}.star", [GROUPS[0], changed, GROUPS[2]], rows)
        wrong = score(tmp_path / f"wrong{n}", star, reference, search="fixed", resolution=7.0)
        assert wrong.cc[0][1::3].mean() < right.cc[0][1::3].mean() - 0.005
        np.testing.assert_allclose(np.delete(wrong.cc[0], np.s_[1::3]), np.delete(right.cc[0], np.s_[1::3]), atol=0.004)


def test_a_group_scores_the_same_alone_and_among_others(simulated, tmp_path):
    folder, _ = simulated
    options = {"search": "fixed", "resolution": 7.0, "scale": "free"}
    together = score(tmp_path / "all", folder / "all.star", [str(folder / "map.mrc")], **options)
    for n in (1, 2):
        alone = score(tmp_path / f"{n}", folder / f"{n}.star", [str(folder / "map.mrc")], **options)
        np.testing.assert_allclose(together.cc[0][n - 1 :: 3], alone.cc[0], atol=2e-3)
        np.testing.assert_allclose(together.integrated[0][n - 1 :: 3], alone.integrated[0], atol=0.5)


def test_a_search_finds_the_poses_of_all_groups(simulated, tmp_path):
    folder, _ = simulated
    particles = read_particles([folder / "all.star"])
    found = score(
        tmp_path / "found", folder / "all.star", [str(folder / "map.mrc")],
        search="hierarchical", angular_step=8.0, max_shift=8.0, shift_step=3.0, levels=1,
    )  # fmt: skip
    truth = rotations.matrix_from_euler(particles.rot, particles.tilt, particles.psi)
    error = rotations.distance_deg(rotations.matrix_from_euler(found.rot[0], found.tilt[0], found.psi[0]), truth)
    shift = np.hypot(found.origin_x[0] - particles.origin_x, found.origin_y[0] - particles.origin_y)
    by_group = [(np.median(error[g::3]), np.median(shift[g::3])) for g in range(3)]
    print("pose error (degrees) and shift error (Å), median by group:", np.round(by_group, 2).tolist())
    assert np.max(by_group, axis=0)[0] < 3.0 and np.max(by_group, axis=0)[1] < 0.6
