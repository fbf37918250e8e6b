"""One set of particles in the layouts of RELION 2 to 5: the same values whatever the layout, and as RELION converts them."""

import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles

from .helpers import program
from .particle_files import random_images, write_stack

BOX = 8
PLAIN = ("defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "ctf_bfactor", "ctf_scale", "rot", "tilt", "psi")


@st.composite
def particle_sets(draw):
    """Groups of (pixel, kV, Cs, contrast, tilt x, tilt y), a group for each particle, and its numbers."""
    number = st.floats(-90, 90).map(lambda v: round(v, 4))
    groups = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0.825, 1.06, 1.35, 2.5]), st.sampled_from([120.0, 200.0, 300.0]),
                st.sampled_from([0.01, 1.4, 2.7]), st.sampled_from([0.07, 0.1]), st.sampled_from([0.0, 0.25]), st.just(0.0),
            ), min_size=1, max_size=3, unique=True,
        )
    )  # fmt: skip
    count = draw(st.integers(1, 6))
    index = draw(st.lists(st.integers(0, len(groups) - 1), min_size=count, max_size=count))
    values = draw(st.lists(st.lists(number, min_size=11, max_size=11), min_size=count, max_size=count))
    return groups, index, values


def table(name, labels, rows, trailing=""):
    head = "".join(f"_{label} #{i}{trailing}\n" for i, label in enumerate(labels, 1))
    return f"data_{name}\n\nloop_{trailing}\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"


COLUMNS = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor",
           "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]  # fmt: skip
OPTICS = ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY"]


def one_table(path, particles, pixel_labels, name=""):
    """As RELION 3.0 and older: everything in the rows, origins in pixels."""
    groups, index, values = particles
    rows = []
    for i, (g, row) in enumerate(zip(index, values), 1):
        pixel, *shared = groups[g]
        sizes = [50000, f"{pixel * 5:.6f}"] if len(pixel_labels) == 2 else [f"{pixel:.6f}"]
        origins = [f"{v / 10 / pixel:.9f}" for v in row[9:]]
        rows.append([f"{i}@images.mrcs", *sizes, *shared, *row[:9], *origins])
    labels = ["rlnImageName", *pixel_labels, *OPTICS, *COLUMNS, "rlnOriginX", "rlnOriginY"]
    path.write_text(table(name, labels, rows))
    return path


def two_tables(path, particles, version, trailing="", more=()):
    """As RELION 3.1 and newer: an optics table, origins in Å."""
    groups, index, values = particles
    extra = [label for label, _ in more]
    optics = [
        [n, f"opticsGroup{n}", f"{pixel:.6f}", BOX, 2, *shared, *(value for _, value in more)]
        for n, (pixel, *shared) in enumerate(groups, 1)
    ]
    head = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"]
    rows = [
        [f"{i}@images.mrcs", g + 1, *row[:9], *(f"{v / 10:.6f}" for v in row[9:])]
        for i, (g, row) in enumerate(zip(index, values), 1)
    ]
    labels = ["rlnImageName", "rlnOpticsGroup", *COLUMNS, "rlnOriginXAngst", "rlnOriginYAngst"]
    comment = f"\n# version {version}\n\n"
    groups_text = table("optics", [*head, *OPTICS, *extra], optics, trailing)
    rows_text = table("particles", labels, rows, trailing)
    path.write_text(f"{comment}{groups_text}\n{comment}{rows_text}")
    return path


LAYOUTS = {
    "2": lambda path, particles: one_table(path, particles, ("rlnMagnification", "rlnDetectorPixelSize"), "images"),
    "3.0": lambda path, particles: one_table(path, particles, ("rlnMagnification", "rlnDetectorPixelSize")),
    "pixel": lambda path, particles: one_table(path, particles, ("rlnPixelSize",)),
    "3.1": lambda path, particles: two_tables(path, particles, 30001),
    "4": lambda path, particles: two_tables(path, particles, 40001, " ", [("rlnCtfDataAreCtfPremultiplied", 0)]),
    "5": lambda path, particles: two_tables(
        path, particles, 50001, " ", [("rlnMicrographOriginalPixelSize", 0.4), ("rlnTomoSubtomogramsAre2DStacks", 0)]
    ),
}


def shared_values(particles):
    """What the groups say, a row a particle."""
    groups = [particles.optics[g] for g in particles.optics_index]
    return np.array([(g.pixel_size, g.box, g.voltage_kv, g.cs_mm, g.amplitude_contrast) for g in groups])


def assert_same(one, other, exact=True):
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 1e-5}
    for name in PLAIN:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **tolerance)
    np.testing.assert_allclose(shared_values(one), shared_values(other), rtol=1e-6)
    for name in ("origin_x", "origin_y"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-6 if exact else 2e-5)
    for a, b in zip(one.optics_index, other.optics_index):
        first, second = (np.array(p.optics[g].aberrations.odd) for p, g in ((one, a), (other, b)))
        np.testing.assert_allclose(first, second, rtol=1e-6)
    np.testing.assert_array_equal(one.frame, other.frame)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(particle_sets())
def test_every_layout_says_the_same(tmp_path, particles):
    write_stack(tmp_path / "images.mrcs", random_images(6, BOX))
    read = {name: read_particles([write(tmp_path / "p.star", particles)]) for name, write in LAYOUTS.items()}
    groups, index, values = particles
    newest = read["5"]
    np.testing.assert_allclose(newest.pixel_size, [groups[g][0] for g in index], rtol=1e-6)
    np.testing.assert_array_equal(np.stack([getattr(newest, name) for name in PLAIN], axis=1), np.array(values)[:, :9])
    np.testing.assert_allclose(np.stack([newest.origin_x, newest.origin_y], axis=1), np.array(values)[:, 9:] / 10, atol=1e-6)
    for found in read.values():
        assert_same(found, newest)


def test_relions_own_conversion_of_an_old_file_says_the_same(tmp_path):
    groups = [(1.06, 300.0, 2.7, 0.1, 0.25, -0.1), (1.35, 300.0, 2.7, 0.1, 0.0, 0.0), (1.06, 200.0, 1.4, 0.07, 0.0, 0.0)]
    rng = np.random.default_rng(0)
    particles = groups, [0, 1, 2, 1, 0, 2], rng.uniform(-90, 90, (6, 11)).round(4).tolist()
    write_stack(tmp_path / "images.mrcs", random_images(6, BOX))
    old = one_table(tmp_path / "old.star", particles, ("rlnMagnification", "rlnDetectorPixelSize"))
    command = [program("relion_convert_star"), "--i", "old.star", "--o", "new.star"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    converted = read_particles([tmp_path / "new.star"])
    assert converted.document.optics is not None
    assert_same(read_particles([old]), converted, exact=False)


@pytest.mark.parametrize("columns", [("rlnDefocusU",), ("rlnDefocusU", "rlnDefocusV")])
def test_columns_that_may_lack(tmp_path, columns):
    write_stack(tmp_path / "images.mrcs", random_images(2, BOX))
    star = tmp_path / "few.star"
    labels = ["rlnImageName", *columns, "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnPixelSize"]
    star.write_text(table("", labels, [[f"{i}@images.mrcs", *(9000 - 500 * j for j in range(len(columns))), 300, 2.7, 0.1, 1.5]
                                       for i in (1, 2)]))  # fmt: skip
    particles = read_particles([star])
    assert particles.defocus_v.tolist() == [9000 - 500 * (len(columns) - 1)] * 2 and not particles.defocus_angle_deg.any()
    assert not particles.has_pose and not particles.origin_x.any() and not particles.phase_shift_deg.any()
    assert particles.ctf_scale.tolist() == [1, 1] and not particles.ctf_bfactor.any() and not particles.class_number.any()


@pytest.mark.parametrize("label", ["rlnTomoSubtomogramsAre2DStacks", "rlnTomoParticleName"])
def test_subtomograms_are_refused(tmp_path, label):
    write_stack(tmp_path / "images.mrcs", random_images(2, BOX))
    particles = [(1.06, 300.0, 2.7, 0.1, 0.0, 0.0)], [0], [[1.0] * 11]
    star = two_tables(tmp_path / "p.star", particles, 50001, more=[(label, "1")])
    with pytest.raises(InputError, match=f"subtomograms \\(the file has {label}\\)"):
        read_particles([star])


def test_beam_tilt_of_an_old_file_goes_to_the_optics_table_that_newer_relions_read(tmp_path):
    groups = [(1.06, 300.0, 2.7, 0.1, 0.25, -0.1), (1.06, 300.0, 2.7, 0.1, 0.0, 0.0), (1.06, 200.0, 1.4, 0.07, 0.0, 0.5)]
    particles = groups, [1, 0, 2, 0], [[1.0] * 11] * 4
    write_stack(tmp_path / "images.mrcs", random_images(4, BOX))
    old = read_particles([one_table(tmp_path / "old.star", particles, ("rlnPixelSize",))])
    for name, some in (("all", old), ("few", old.take([0, 3]))):
        path = tmp_path / f"{name}.star"
        write_particles(path, some, {})
        for label in ("rlnBeamTiltX", "rlnBeamTiltY"):  # what RELION 3.1 looks at is the optics table alone
            text = path.read_text()
            place = text.index("data_particles")
            assert f"_{label} " in text[:place]
            path.write_text(text[:place] + text[place:].replace(f"_{label} ", f"_was{label} "))
        assert_same(read_particles([path]), some)
    newer = two_tables(tmp_path / "new.star", ([groups[1]], [0], [[1.0] * 11]), 30001)
    both = read_particles([tmp_path / "old.star", newer])
    write_particles(tmp_path / "both.star", both, {})
    assert_same(read_particles([tmp_path / "both.star"]), both)


def test_files_with_and_without_zernike_columns_become_one(tmp_path):
    write_stack(tmp_path / "images.mrcs", random_images(2, BOX))
    particles = [(1.06, 300.0, 2.7, 0.1, 0.0, 0.0)], [0], [[1.0] * 11]
    zernike = [("rlnOddZernike", "[0,0,0.5]"), ("rlnEvenZernike", "[0.1]"), ("rlnMagMat00", 1.01)]
    files = [two_tables(tmp_path / "a.star", particles, 30001), two_tables(tmp_path / "b.star", particles, 30001, more=zernike)]
    write_particles(tmp_path / "c.star", read_particles(files), {})
    optics = read_particles([tmp_path / "c.star"]).optics
    assert [group.aberrations.odd for group in optics] == [(), (0.0, 0.0, 0.5)]
    assert [group.aberrations.magnification[0] for group in optics] == [1.0, 1.01]
