"""Maps and structure files: what is read, what is refused, and with which words."""

import gzip
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest

from cryolike_scipion.engine.density_map import read_map, support_radius
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.structures import Structure, cut_softly, load, read_structure, save, structure_files
from cryolike_scipion.engine.views import healpix_views, view_table

from .helpers import shared_data

RNG = np.random.default_rng(0)


def _write(path, data, voxel=2.0, **header):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.asarray(data))
        mrc.voxel_size = voxel
        for name, value in header.items():
            mrc.header[name] = value
    return path


def _ball(size, radius):
    axis = np.arange(size) - size // 2
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float32)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("dtype", "mode"), [(np.int8, 0), (np.int16, 1), (np.float32, 2), (np.uint16, 6), (np.float16, 12)])
def test_every_real_mode_and_box_is_read(tmp_path, dtype, mode, size):
    data = RNG.integers(0, 100, (size,) * 3).astype(dtype)
    path = _write(tmp_path / "map.mrc", data, 1.25)
    with mrcfile.open(path) as mrc:
        assert int(mrc.header.mode) == mode
    found = read_map(path)
    assert found.density.dtype == np.float32 and found.pixel_size == pytest.approx(1.25)
    np.testing.assert_array_equal(found.density, data.astype(np.float32))


def test_origin_and_start_of_the_header_are_ignored(tmp_path):
    data = RNG.normal(size=(8, 8, 8)).astype(np.float32)
    plain = read_map(_write(tmp_path / "a.mrc", data))
    moved = _write(tmp_path / "b.mrc", data, nxstart=-4, nystart=3, nzstart=7)
    with mrcfile.open(moved, mode="r+") as mrc:
        mrc.header.origin = (10.0, -20.0, 30.0)
    np.testing.assert_array_equal(read_map(moved).density, plain.density)


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (3, 1, 2), (2, 3, 1), (0, 0, 0)])
def test_the_axis_order_of_the_header_is_honoured(tmp_path, axes):
    wanted = RNG.normal(size=(6, 6, 6)).astype(np.float32)  # [z, y, x]
    number = {"x": 1, "y": 2, "z": 3}
    columns_rows_sections = axes if axes != (0, 0, 0) else (1, 2, 3)
    letters = "".join("xyz"[axis - 1] for axis in reversed(columns_rows_sections))
    stored = np.einsum(f"zyx->{letters}", wanted)
    assert [number[letter] for letter in reversed(letters)] == list(columns_rows_sections)
    path = _write(tmp_path / "map.mrc", stored, mapc=axes[0], mapr=axes[1], maps=axes[2])
    np.testing.assert_array_equal(read_map(path).density, wanted)


def test_a_compressed_map_is_read(tmp_path):
    data = RNG.normal(size=(8, 8, 8)).astype(np.float32)
    plain = _write(tmp_path / "map.mrc", data)
    packed = tmp_path / "name with spaces.mrc.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    structure = read_structure(packed)
    np.testing.assert_array_equal(structure.density, data)
    assert structure.label == "name with spaces"


def _truncated(path):
    whole = _write(path, np.ones((8, 8, 8), np.float32) * np.arange(8, dtype=np.float32))
    whole.write_bytes(whole.read_bytes()[:-100])


def _with_nan(path):
    data = np.zeros((8, 8, 8), np.float32)
    data[1, 2, 3:5] = np.nan
    with pytest.warns(RuntimeWarning, match="NaN"):
        _write(path, data)


BAD_MAPS = {
    "does not exist": lambda path: None,
    r"cannot be read \(": lambda path: path.write_text("this is not a map " * 100),
    r"cannot be read.*data": _truncated,
    r"not a cube \(8 × 6 × 6 voxels\)": lambda path: _write(path, RNG.normal(size=(6, 6, 8)).astype(np.float32)),
    r"not a cube \(8 × 8 voxels\)": lambda path: _write(path, RNG.normal(size=(8, 8)).astype(np.float32)),
    "pixel size is 0 Å": lambda path: _write(path, RNG.normal(size=(8, 8, 8)).astype(np.float32), 0.0),
    r"pixel size differs between axes \(1 × 1 × 2 Å\)": lambda path: _write(
        path, RNG.normal(size=(8, 8, 8)).astype(np.float32), (1.0, 1.0, 2.0)
    ),
    "holds 2 NaN or infinite values": _with_nan,
    r"is constant \(3\)": lambda path: _write(path, np.full((8, 8, 8), 3, np.float32)),
    "has mode 4": lambda path: _write(path, np.ones((8, 8, 8), np.complex64)),
    r"axis order \(1, 1, 3\)": lambda path: _write(path, RNG.normal(size=(8, 8, 8)).astype(np.float32), mapc=1, mapr=1, maps=3),
}


@pytest.mark.parametrize("message", BAD_MAPS)
def test_a_bad_map_is_named_with_its_value_and_a_remedy(tmp_path, message):
    path = tmp_path / "bad $map.mrc"
    BAD_MAPS[message](path)
    with pytest.raises(InputError, match=message) as caught:
        read_structure(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["model.txt", "noending"])
def test_an_unknown_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"file ending .* is not known"):
        read_structure(tmp_path / name)


def test_radius_of_a_ball_and_of_a_ball_in_noise():
    ball = _ball(48, 11)
    assert support_radius(ball, 2.0) == pytest.approx(24.0, abs=2.1)
    noisy = ball * 5 + RNG.normal(size=ball.shape) * 0.1 + 0.7
    assert support_radius(noisy, 2.0) == pytest.approx(24.0, abs=4.1)


def test_radius_is_half_the_box_where_the_map_is_noise_only():
    noise = np.random.default_rng(1).normal(size=(20, 20, 20))
    assert 0 < support_radius(noise, 1.5) <= 15.0
    assert support_radius(1.0 - _ball(20, 9), 1.5) <= 15.0


def test_the_real_maps_fit_their_boxes():
    state = read_structure(shared_data("two_state") / "50S_state_D.mrc")
    assert 80 < state.radius <= 0.5 * state.box * state.pixel_size
    assert state.k_max == pytest.approx(0.5 / state.pixel_size)


def test_band_limit_symmetry_and_label(tmp_path):
    path = _write(tmp_path / "map.mrc", _ball(16, 5), 2.0)
    plain = read_structure(path)
    assert (plain.k_max, plain.symmetry, plain.label, plain.kind) == (0.25, "C1", "map", "map")
    limited = read_structure(path, k_max=0.1, symmetry="i", label="a label")
    assert (limited.k_max, limited.symmetry, limited.label) == (0.1, "I2", "a label")
    assert read_structure(path, k_max=0.9).k_max == 0.25
    with pytest.raises(InputError, match="symmetry"):
        read_structure(path, symmetry="X9")


@pytest.mark.parametrize("views", [healpix_views(20.0, "C4"), view_table([1.0, 2.0], [3.0, 4.0], [1.0, 2.0], "C4")])
def test_a_structure_and_its_views_come_back_from_the_file(tmp_path, views):
    structure = read_structure(_write(tmp_path / "map.mrc", _ball(16, 5)), symmetry="C4", label="Å $ name")
    path = tmp_path / "s.h5"
    save(path, structure, views, {"resolution": 12.5, "select": None})
    found, table = load(path)
    np.testing.assert_array_equal(found.density, structure.density)
    for name in ("pixel_size", "label", "symmetry", "source", "radius", "k_max", "kind", "metadata"):
        assert getattr(found, name) == getattr(structure, name)
    for name in ("rot_deg", "tilt_deg", "weights"):
        np.testing.assert_array_equal(getattr(table, name), getattr(views, name))
    assert (table.symmetry, table.step_deg, table.nside) == (views.symmetry, views.step_deg, views.nside)
    assert (table.cells is None) == (views.cells is None)
    with h5py.File(path) as handle:
        assert handle.attrs["parameter.resolution"] == 12.5
        assert handle.attrs["radius.unit"] == "Å" and handle["views/rot"].attrs["unit"] == "degree"
    again = read_structure(path, k_max=0.05, label="other", symmetry="C2")
    assert (again.k_max, again.label, again.symmetry) == (0.05, "other", "C2")
    assert read_structure(path, k_max=9.0).k_max == structure.k_max
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_is_no_structure_is_refused(tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as handle:
        handle["x"] = 1
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no hdf5 here")
    for path, message in (
        (other, "holds no structure"),
        (broken, "cannot be read"),
        (tmp_path / "no.h5", "exist"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_structure(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_templates_folder_stands_for_its_structures(tmp_path):
    (tmp_path / "templates.json").write_text('[{"file": "b.h5"}, {"file": "a.h5"}]')
    single = tmp_path / "x.mrc"
    assert structure_files([single, tmp_path]) == [single, tmp_path / "b.h5", tmp_path / "a.h5"]


@pytest.mark.parametrize("text", [None, "{}}", '[{"name": 1}]', "[3]"])
def test_another_folder_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "templates.json").write_text(text)
    with pytest.raises(InputError, match=r"no readable templates\.json"):
        structure_files([tmp_path])


@pytest.mark.parametrize(("size", "radius"), [(24, 15.0), (25, 9.1), (24, 22.0), (25, 40.0)])
def test_a_cut_leaves_the_inside_and_a_soft_edge(size, radius):
    edge = 4.0
    density = np.random.default_rng(0).normal(size=(size,) * 3).astype(np.float32)
    structure = Structure(density, 2.0, "x", "C1", Path("x"), 20.0, 0.2, "map")
    cut = cut_softly(structure, radius, edge)
    axis = 2.0 * (np.arange(size) - size // 2)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    expected = density * 0.5 * (1 + np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1)))
    whole = np.zeros_like(density)
    start = size // 2 - cut.box // 2
    whole[(slice(start, start + cut.box),) * 3] = cut.density
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    assert cut.radius == radius + edge and cut.density.dtype == np.float32
    assert cut.box == min(size, 2 * int(np.ceil((radius + edge) / 2.0)) + 1)
