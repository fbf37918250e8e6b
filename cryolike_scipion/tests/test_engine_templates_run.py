"""The verb templates: its files, their names, and what the projections show."""

import json

import mrcfile
import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.structures import load, read_structure, structure_files
from cryolike_scipion.engine.templates_run import safe_name


@pytest.fixture
def blob(tmp_path):
    """A map with a bump away from the centre: (x, y, z) = (4, −2, 3) voxels."""
    axis = np.arange(24) - 12
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    path = tmp_path / "blob.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.exp(-((x - 4) ** 2 + (y + 2) ** 2 + (z - 3) ** 2) / 8.0).astype(np.float32))
        mrc.voxel_size = 3.0
    return path


def _index(out):
    return json.loads((out / "templates.json").read_text(encoding="utf-8"))


def test_a_map_gives_a_structure_file_a_preview_and_an_entry(blob, tmp_path):
    out = tmp_path / "out folder"
    engine.run(
        "templates",
        structure=[blob],
        box=24,
        pixel=3.0,
        symmetry=["C2"],
        angular_step=20.0,
        out=out,
        preview=7,
    )
    (entry,) = _index(out)
    assert (entry["label"], entry["file"], entry["preview"]) == ("blob", "blob.h5", "blob.mrcs")
    assert entry["symmetry"] == "C2" and len(entry["preview_views"]) == 7
    structure, views = load(out / entry["file"])
    assert entry["views"] == len(views) and views.symmetry == "C2" and views.step_deg <= 20.0
    assert structure.k_max == pytest.approx(1 / 6)
    assert sorted(p.name for p in out.iterdir()) == ["blob.h5", "blob.mrcs", "templates.json"]
    assert structure_files([out]) == [out / "blob.h5"]
    np.testing.assert_array_equal(read_structure(out / "blob.h5").density, read_structure(blob).density)


def test_the_projections_are_those_of_the_views(blob, tmp_path):
    engine.run("templates", structure=[blob], box=30, pixel=3.0, angular_step=30.0, out=tmp_path / "o", preview=10)
    (entry,) = _index(tmp_path / "o")
    _, views = load(tmp_path / "o" / "blob.h5")
    with mrcfile.open(tmp_path / "o" / "blob.mrcs") as mrc:
        assert mrc.is_image_stack() and mrc.voxel_size.x == pytest.approx(3.0)
        images = mrc.data.astype(np.float64)
    assert images.shape == (10, 30, 30)
    total = np.exp(-(np.arange(-30, 31) ** 2) / 8.0).sum() ** 3 * 3.0  # ∫ρ dz in Å, summed over pixels
    np.testing.assert_allclose(images.sum(axis=(1, 2)), total, rtol=1e-3)
    offset = np.arange(30) - 15
    for image, view in zip(images, entry["preview_views"]):
        expected = (views.rotations()[view - 1] @ [4.0, -2.0, 3.0])[:2]  # the bump in the frame of the image
        found = [
            (image.sum(axis=0) * offset).sum() / image.sum(),
            (image.sum(axis=1) * offset).sum() / image.sum(),
        ]
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_views_of_a_file_labels_and_file_names(blob, tmp_path):
    views = tmp_path / "views.txt"
    views.write_text("0 0\n10 20\n30 40\n")
    labels = ["state A/é $(rm) %s\n", "State_A_e_rm_s", "…"]
    engine.run("templates", structure=[blob] * 3, labels=labels, views=views, box=24, pixel=3.0, out=tmp_path / "o")
    entries = _index(tmp_path / "o")
    assert [entry["label"] for entry in entries] == labels
    assert [entry["file"] for entry in entries] == [
        "state_A_e_rm_s.h5",
        "State_A_e_rm_s-2.h5",
        "structure.h5",
    ]
    assert [entry["views"] for entry in entries] == [3, 3, 3]
    np.testing.assert_allclose(load(tmp_path / "o" / "structure.h5")[1].tilt_deg, [0, 20, 40])


def test_a_resolution_limits_the_band_and_no_preview_is_made_when_none_is_wanted(blob, tmp_path):
    engine.run("templates", structure=[blob], box=24, pixel=3.0, resolution=15.0, preview=0, out=tmp_path / "o")
    (entry,) = _index(tmp_path / "o")
    assert entry["preview"] is None and entry["preview_views"] == []
    assert load(tmp_path / "o" / "blob.h5")[0].k_max == pytest.approx(1 / 15)


def test_an_atomic_structure(tmp_path):
    path = tmp_path / "m.pdb"
    path.write_text(
        "ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00 20.00           C\n"
        "ATOM      2  CA  ALA A   2      20.000   0.000   0.000  1.00 20.00           C\nEND\n"
    )
    engine.run("templates", structure=[path], box=32, pixel=2.0, out=tmp_path / "o", atom_model="gaussian",
               atom_radius=3.0, angular_step=40.0)  # fmt: skip
    structure, _ = load(tmp_path / "o" / "m.h5")
    assert structure.kind == "atoms" and structure.k_max == pytest.approx(0.25)
    assert structure.metadata["atom_model"] == "gaussian" and structure.metadata["offset_x"] == pytest.approx(10.0)
    with mrcfile.open(tmp_path / "o" / "m.mrcs") as mrc:
        np.testing.assert_allclose(mrc.data.sum(axis=(1, 2)) * 2.0**2, 2.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symmetry": ["C1", "C2", "C3"]}, "3 symmetries for 2 structures"),
        ({"labels": ["one"]}, "1 labels for 2 structures"),
        ({"symmetry": ["Q4"]}, "symmetry 'Q4' is not known"),
        ({"structure": ["no such map.mrc"]}, "no such map.mrc: map does not exist"),
    ],
)
def test_bad_input_leaves_no_index(blob, tmp_path, change, message):
    given = {"structure": [blob, blob], "box": 24, "pixel": 3.0, "out": tmp_path / "o", **change}
    with pytest.raises(InputError, match=message):
        engine.run("templates", **given)
    assert not (tmp_path / "o" / "templates.json").exists()


def test_names_are_safe_and_distinct():
    taken = set()
    names = [safe_name(label, taken) for label in ["a", "A", "../../etc/passwd", "-rf", ".hidden", "x" * 500, "a"]]
    assert names[:5] == ["a", "A-2", "etc_passwd", "rf", "hidden"]
    assert len(names[5]) == 80 and names[6] == "a-3"
