"""Polar coefficients made by ``particles`` are a cache: used where they fit, replaced where they do not, never trusted."""

import os

import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine import conversion, likelihood_run
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles

from .small_sets import rewrite_stack, score, simulate, with_columns, write_maps

COUNT = 12
# Converted for structures as large as the mask, within the default range of shifts.
CONVERTED = {"mask_diameter": 80.0, "resolution": 10.0}
# Structures without detail finer than that: their band-limited projections end within the window.
SMOOTH = {"radius": 12.0, "sigma": 6.0}
QUICK = {"angular_step": 25.0, "max_shift": 6.0, "search": "exhaustive"}
# Coefficients are on another grid than images converted for the search alone, both to 1e-5.
NAT, CC = 0.02, 1e-3

pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN:RuntimeWarning")


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    monkeypatch.setattr(likelihood_run, "write_report", lambda *_: None)


def convert(star, out, **options):
    """Run ``particles``; returns its STAR file."""
    given = {**CONVERTED, "batch_images": 5, "device": "cpu", **options}
    engine.run("particles", particles=[str(star)], out=str(out), **given)
    return out / "particles.star"


@pytest.fixture
def case(tmp_path):
    """Particles, and the same converted: three files of five, five and two."""
    maps = write_maps(tmp_path, **SMOOTH)
    simulate(tmp_path, maps, count=COUNT)
    return tmp_path, maps, convert(tmp_path / "particles.star", tmp_path / "converted")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Results without any cache, with the preparation that the converted particles have."""
    folder = tmp_path_factory.mktemp("fresh")
    maps = write_maps(folder, **SMOOTH)
    simulate(folder, maps, count=COUNT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return score(folder / "out", folder / "particles.star", maps, **QUICK, **CONVERTED)


@pytest.fixture
def images_read(monkeypatch):
    """Indices of the particles whose images are read, one array per call."""
    plain, seen = conversion.read_images, []

    def read(particles, indices):
        seen.extend(np.asarray(particles.row)[indices].tolist())
        return plain(particles, indices)

    monkeypatch.setattr(conversion, "read_images", read)
    return seen


def assert_like(found, wanted, rows=slice(None)):
    assert np.abs(found.integrated - wanted.integrated[:, rows]).max() < NAT
    assert np.abs(found.cc - wanted.cc[:, rows]).max() < CC
    assert np.array_equal(found.best_structure, wanted.best_structure[rows])


def test_coefficients_are_used_instead_of_the_images(case, fresh, images_read):
    """The images are overwritten behind the cache's back, with their size and time kept."""
    folder, maps, star = case
    stack = folder / "particles.mrcs"
    times = os.stat(stack)
    rewrite_stack(stack, lambda data: np.random.default_rng(0).normal(size=data.shape).astype(np.float32))
    os.utime(stack, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = score(folder / "out", star, maps, **QUICK)
    assert images_read == []
    assert_like(found, fresh)


def test_converted_particles_keep_their_rows_and_point_to_every_coefficient(case):
    folder, _, star = case
    before, after = read_particles([folder / "particles.star"]), read_particles([star])
    assert after.image_names() == before.image_names() and np.array_equal(after.defocus_u, before.defocus_u)
    files = sorted((folder / "converted").glob("*.h5"))
    assert len(files) == 3 and len(set(after.coefficients)) == COUNT
    assert {pointer.split("@")[1] for pointer in after.coefficients} == set(map(str, files))
    assert len(set(after.coefficients_hash)) == COUNT


def test_a_structure_that_is_too_large_for_the_coefficients(case, images_read):
    """The grid would not hold it: images are converted afresh, with the mask that they were converted with."""
    folder, _, star = case
    large = write_maps(folder, radius=30.0, sigma=6.0)
    found = score(folder / "cached", star, large, **QUICK)
    assert sorted(set(images_read)) == list(range(1, COUNT + 1))
    assert_like(found, score(folder / "plain", folder / "particles.star", large, **QUICK, **CONVERTED))


def test_shifts_beyond_the_window_are_converted_afresh(case, images_read):
    folder, maps, star = case
    wide = {**QUICK, "max_shift": 24.0, "shift_step": 12.0}
    found = score(folder / "out", star, maps, **wide)
    assert set(images_read) == set(range(1, COUNT + 1))
    assert_like(found, score(folder / "plain", folder / "particles.star", maps, **wide, **CONVERTED))


@pytest.mark.parametrize("options", [{"resolution": 13.0}, {"mask_diameter": 70.0, "resolution": 10.0}, {"invert": True}])
def test_other_settings_of_the_run_win(case, images_read, options):
    folder, maps, star = case
    found = score(folder / "cached", star, maps, **QUICK, **options)
    assert set(images_read) == set(range(1, COUNT + 1))
    # The resolution of the conversion holds where none is asked for, and its mask where no preparation is.
    adopted = {"resolution": 10.0} if options == {"invert": True} else {}
    if options == {"resolution": 13.0}:
        adopted = {"mask_diameter": CONVERTED["mask_diameter"]}
    assert_like(found, score(folder / "plain", folder / "particles.star", maps, **QUICK, **options, **adopted))


def test_a_finer_resolution_than_converted_is_given(case, images_read):
    folder, maps, star = case
    found = score(folder / "out", star, maps, **QUICK, resolution=9.0, mask_diameter=80.0)
    assert found.parameters["polar"]["k_max"] == pytest.approx(1 / 9.0) and len(images_read) >= COUNT


@pytest.mark.parametrize("column, value", [("rlnDefocusU", 11000.0), ("rlnPhaseShift", 30.0)])
def test_a_changed_ctf_makes_coefficients_stale(case, images_read, column, value):
    folder, maps, star = case
    values = {"rlnDefocusU": read_particles([star]).defocus_u.copy(), "rlnPhaseShift": np.zeros(COUNT)}[column]
    values[3] = value
    changed = with_columns(star, folder / "converted" / "changed.star", **{column: values})
    plain = with_columns(folder / "particles.star", folder / "plain.star", **{column: values})
    found = score(folder / "cached", changed, maps, **QUICK)
    assert set(images_read) == {4}
    assert_like(found, score(folder / "plain", plain, maps, **QUICK, **CONVERTED))


def test_changed_images_make_coefficients_stale(case, images_read):
    folder, maps, star = case
    rewrite_stack(folder / "particles.mrcs", lambda data: data[::-1])
    found = score(folder / "cached", star, maps, **QUICK)
    assert set(images_read) == set(range(1, COUNT + 1))
    assert_like(found, score(folder / "plain", folder / "particles.star", maps, **QUICK, **CONVERTED))


def test_a_wrong_hash_is_not_believed(case, fresh, images_read):
    """A row that points to another particle's coefficients, and one whose text is no pointer."""
    folder, maps, star = case
    particles = read_particles([star])
    pointers = list(particles.coefficients)
    pointers[0], pointers[1] = pointers[7], "nonsense"
    pointers[2] = pointers[2].replace("000003@", "000099@")
    hashes = list(particles.coefficients_hash)
    hashes[4] = "0" * 32
    changed = with_columns(
        star, folder / "converted" / "changed.star", cryolikeCoefficients=pointers, cryolikeCoefficientsHash=hashes
    )
    found = score(folder / "out", changed, maps, **QUICK)
    assert set(images_read) == {1, 2, 3, 5}
    assert_like(found, fresh)


def test_subsets_find_their_coefficients(case, fresh, images_read):
    folder, maps, star = case
    rows = np.array([10, 2, 7, 3, 9, 11, 0, 5, 1])
    subset = folder / "subset.star"
    write_particles(subset, read_particles([star]).take(rows), {})
    found = score(folder / "out", subset, maps, **QUICK, scale="free")
    assert images_read == []
    # A flat prior has other best poses than a learned one, by little.
    assert np.abs(found.cc - fresh.cc[:, rows]).max() < 0.02


def test_joined_sets_find_their_coefficients(case, images_read):
    folder, maps, star = case
    other = simulate(folder / "other", maps, count=6, seed=9)
    second = convert(other / "particles.star", folder / "second")
    images_read.clear()
    options = {**QUICK, "scale": "free", "structures": maps, "device": "cpu", "levels": 0}
    engine.run("likelihood", particles=[str(star), str(second)], out=str(folder / "both"), **options)
    assert images_read == []
    first = score(folder / "first", star, maps, **QUICK, scale="free")
    after = score(folder / "after", second, maps, **QUICK, scale="free")
    both = np.load(folder / "both" / "matrix.npy")
    assert np.abs(both - np.concatenate([first.integrated, after.integrated], axis=1)).max() < NAT


def test_a_converted_set_may_be_moved(case, fresh, images_read):
    """Pointers that lead nowhere are looked for beside the table."""
    folder, maps, _ = case
    (folder / "converted").rename(folder / "elsewhere")
    found = score(folder / "out", folder / "elsewhere" / "particles.star", maps, **QUICK)
    assert images_read == []
    assert_like(found, fresh)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "no HDF5"])
@pytest.mark.parametrize("number", [0, 1])
def test_damaged_files_are_made_good(case, fresh, images_read, damage, number):
    """Whichever file it is, the answer is the same: the settings of the conversion do not depend on it."""
    folder, maps, star = case
    path = sorted((folder / "converted").glob("*.h5"))[number]
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "no HDF5": b"x" * 5000}[damage])
    found = score(folder / "out", star, maps, **QUICK)
    assert set(images_read) == set(range(5 * number + 1, 5 * number + 6))
    assert_like(found, fresh)


def test_bad_images_have_no_coefficients(case, tmp_path):
    folder, maps, _ = case

    def spoil(data):
        data[6] = np.nan
        return data

    rewrite_stack(folder / "particles.mrcs", spoil)
    with pytest.raises(InputError, match=r"row 7.*particles\.mrcs"):
        convert(folder / "particles.star", folder / "stopped")
    assert not (folder / "stopped" / "particles.star").exists()
    star = convert(folder / "particles.star", folder / "flagged", bad_images="flag")
    assert read_particles([star]).coefficients[6] == ""
    with pytest.raises(InputError, match="row 7"):
        score(folder / "out", star, maps, **QUICK)
    found = score(folder / "out", star, maps, **QUICK, bad_images="flag")
    assert list(np.flatnonzero(found.status)) == [6] and found.best_structure[6] == 0


def test_converting_again_leaves_no_old_files(case):
    folder, _, star = case
    before = read_particles([star])
    again = convert(folder / "particles.star", folder / "converted", batch_images=None)
    assert len(list((folder / "converted").glob("*.h5"))) == 1
    after = read_particles([again])
    assert after.coefficients != before.coefficients and after.coefficients_hash == before.coefficients_hash


def test_downsampling_is_a_resolution(case):
    """A box of 12 in place of 24 pixels of 4 Å: Nyquist at 16 Å."""
    folder, maps, _ = case
    star = convert(folder / "particles.star", folder / "small", downsample=12, resolution=None)
    found = score(folder / "out", star, maps, **QUICK)
    assert found.parameters["polar"]["k_max"] == pytest.approx(1 / 16.0)
    with pytest.raises(InputError, match="larger than the box"):
        convert(folder / "particles.star", folder / "large", downsample=48)


def test_double_precision_is_converted_and_used(case, fresh, images_read):
    folder, maps, _ = case
    star = convert(folder / "particles.star", folder / "double", precision="double")
    images_read.clear()
    assert_like(score(folder / "out", star, maps, **QUICK, precision="double"), fresh)
    assert images_read == []
    score(folder / "single", star, maps, **QUICK)
    assert set(images_read) == set(range(1, COUNT + 1))
