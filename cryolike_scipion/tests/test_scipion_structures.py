"""Volumes and atomic structures of Scipion, as files for the engine."""

import json
import os

import mrcfile
import numpy as np
import pytest
from pwem.objects import AtomStruct, Class3D, Particle, SetOfAtomStructs, SetOfClasses3D, SetOfVolumes, Volume

from cryolike_scipion.convert.locations import user_files
from cryolike_scipion.convert.results import ResultError, read_templates
from cryolike_scipion.convert.structures import list_structures, write_structures
from cryolike_scipion.protocols.structure_input import structure_errors

from .scipion_sets import make_particles, write_map, write_stack


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def volume(path, pixel, label=""):
    made = Volume(location=path)
    made.setSamplingRate(pixel)
    made.setObjLabel(label)
    return made


def test_order_labels_and_sizes_of_a_mixture():
    write_map("a.mrc")
    write_map("b.mrc", box=20)
    volumes = SetOfVolumes(filename="v.sqlite")
    volumes.setSamplingRate(2.0)
    for name in ("a.mrc", "b.mrc"):
        volumes.append(volume(name, 2.0))
    hidden = volume("a.mrc", 2.0)
    hidden.setEnabled(False)
    volumes.append(hidden)
    atoms = SetOfAtomStructs(filename="s.sqlite")
    atoms.append(AtomStruct(filename="model.cif"))
    found = list_structures([AtomStruct(filename="x.pdb"), volumes, volume("a.mrc", 2.5, "odd $(x) %s"), atoms])
    assert [each.label for each in found] == ["x", "a", "b", "odd $(x) %s", "model"]
    assert [each.pixel for each in found] == [None, 2.0, 2.0, 2.5, None]
    assert [each.shape for each in found] == [(), (16, 16, 16), (20, 20, 20), (16, 16, 16), ()]
    assert [each.source for each in found][1] == os.path.abspath("a.mrc")


def test_equal_labels_are_told_apart():
    write_map("a.mrc")
    labels = [each.label for each in list_structures([volume("a.mrc", 2.0)] * 3)]
    assert labels == ["a", "a (2)", "a (3)"]


def test_averages_of_classes_are_structures():
    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 4), 4)], pixel=2.5)
    classes = SetOfClasses3D(filename="c.sqlite")
    classes.setImages(particles)
    write_map("one.mrc")
    for number, (place, label) in enumerate([("one.mrc", ""), ("one.mrc", "mine"), ("one.mrc", ""), (None, "")], 1):
        item = Class3D(objId=number)
        average = Volume(location=place) if place else Volume()
        average.setSamplingRate(2.0 if number == 1 else 0.0)
        item.setRepresentative(average)
        item.setObjLabel(label)
        item.setEnabled(number != 3)
        classes.append(item)
    classes.write()
    found = list_structures([classes])
    assert [each.label for each in found] == ["class 1", "mine", "class 4"]
    assert [each.pixel for each in found[:2]] == [2.0, 2.5], "the particles' pixel size where an average has none"
    assert [os.path.basename(each.source) for each in found] == ["one.mrc", "one.mrc", ""]
    assert "The file of structure 'class 4' is missing" in " ".join(structure_errors(found, []))
    with mrcfile.open(write_structures(found[1:2], "out")[0]) as file:
        assert file.voxel_size.x == pytest.approx(2.5) and np.array_equal(file.data, mrcfile.read("one.mrc"))


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="Particle"):
        list_structures([Particle()])


def test_a_map_is_linked_or_gets_scipions_pixel_size():
    odd = write_map("a 'b' $(x) %s\n.mrc", pixel=2.0)
    same, other = write_structures(list_structures([volume(odd, 2.0), volume(odd, 3.25)]), "in")
    assert os.path.islink(same)
    assert os.path.realpath(same) == os.path.realpath(odd)
    assert not os.path.islink(other)
    assert user_files("in") == {same: os.path.realpath(odd), other: os.path.realpath(odd)}
    with mrcfile.open(other) as file:
        assert np.allclose(file.voxel_size.tolist(), 3.25)
        assert np.array_equal(file.data, mrcfile.read(odd))
    with mrcfile.open(odd) as file:
        assert np.allclose(file.voxel_size.tolist(), 2.0)


def test_other_formats_and_members_of_stacks_become_maps():
    from pwem.emlib.image import ImageHandler

    density = mrcfile.read(write_map("a.mrc"))
    ImageHandler().convert("a.mrc", "b.vol")
    (name,) = write_structures(list_structures([volume("b.vol", 4.0)]), "in")
    with mrcfile.open(name) as file:
        assert np.allclose(file.data, density)
        assert np.allclose(file.voxel_size.tolist(), 4.0)


def test_atomic_structures_keep_their_extension():
    for name in ("m 1.CIF", "m.pdb"):
        with open(name, "w") as stream:
            stream.write("x")
    names = write_structures(list_structures([AtomStruct(filename="m 1.CIF"), AtomStruct(filename="m.pdb")]), "in")
    assert names == [os.path.join("in", "structure001.cif"), os.path.join("in", "structure002.pdb")]
    assert all(os.path.exists(name) for name in names)


def test_writing_twice_follows_a_changed_pixel_size():
    write_map("a.mrc", pixel=2.0)
    for pixel in (2.0, 3.0, 2.0):
        (name,) = write_structures(list_structures([volume("a.mrc", pixel)]), "in")
        with mrcfile.open(name) as file:
            assert np.allclose(file.voxel_size.tolist(), pixel)
    with mrcfile.open("a.mrc") as file:
        assert np.allclose(file.voxel_size.tolist(), 2.0)


def test_each_model_of_an_ensemble_is_an_item_of_the_template_set(tmp_path):
    entry = {"symmetry": "C1", "views": 5, "preview": None, "preview_views": []}
    entries = [
        {"label": "a model 1", "file": "a1.h5", "input": 0, **entry},
        {"label": "a model 2", "file": "a2.h5", "input": 0, **entry},
        {"label": "b", "file": "b.h5", "input": 1, **entry},
    ]
    path = tmp_path / "templates.json"
    path.write_text(json.dumps(entries))
    items = list(read_templates(str(path), ["a.pdb", "b.mrc"]))
    assert [item.getLabel() for item in items] == ["a model 1", "a model 2", "b"]
    assert [item.getStructure() for item in items] == ["a.pdb", "a.pdb", "b.mrc"]
    with pytest.raises(ResultError, match="structures of 2 files in place of 3"):
        list(read_templates(str(path), ["a.pdb", "b.mrc", "c.mrc"]))


@pytest.mark.parametrize("name", ["model.CIF.gz", "model.pdb", "model.pdb.GZ"])
def test_a_packed_atomic_structure_keeps_both_endings(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    structures = list_structures([AtomStruct(filename=name)])
    assert write_structures(structures, "in") == ["in/structure001" + name[len("model") :].lower()]
    assert structure_errors(structures, []) == []
