"""What the viewers read."""

import json
import os
import sqlite3

import h5py
import numpy as np
import pytest
from pwem.objects import Particle, SetOfParticles
from pyworkflow.object import Float, Integer

from cryolike_scipion.convert.inspection import Inspection, is_fresh, read_inspection, row_of_item
from cryolike_scipion.convert.particle_look import read_look
from cryolike_scipion.convert.run_scores import RunScores
from cryolike_scipion.convert.set_columns import read_attributes
from cryolike_scipion.convert.star import write_star

ODD_LABEL = 'a "b" $(x) $y$ 100% ä\nend'


def inspection(count):
    images = np.random.default_rng(1).normal(size=(2 * count + 1, 16, 16))
    labels = [ODD_LABEL] + ["other"] * (count - 1)
    return Inspection(images[0], images[1 : count + 1], images[count + 1 :], labels, *([np.ones(count)] * 3))


def test_attributes_of_enabled_items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "set #1 100%?.sqlite"
    particles = SetOfParticles(filename=name)
    for number in (3, 1, 2):
        particle = Particle(location=(number, "stack.mrcs"), objId=number)
        particle._cryolike_logLikelihood = Float(number / 3)
        particle._cryolike_bestStructure = Integer(number)
        particle.setEnabled(number != 2)
        particles._insertItem(particle)
    particles.write()
    particles.close()
    waits = []
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, connect=sqlite3.connect, **how: waits.append(how) or connect(*args, **how)
    )
    found = read_attributes(name, ["_cryolike_logLikelihood", "_cryolike_bestStructure", "_absent"])
    assert found == {"id": [1, 3], "_cryolike_logLikelihood": [1 / 3, 1.0], "_cryolike_bestStructure": [1, 3]}
    assert waits[0]["timeout"] >= 60, "a set may be written for longer than SQLite's five seconds"


def test_row_of_an_item(tmp_path):
    star = str(tmp_path / "particles.star")
    write_star(star, [("particles", ["cryolikeItemId", "x"], [["40", "1"], ["4", "2"], ["44", "3"]])])
    assert [row_of_item(star, item) for item in (40, 4, 44)] == [1, 2, 3]
    with pytest.raises(KeyError, match="no particle 41"):
        row_of_item(star, 41)


def test_pictures_of_particles_bear_the_ids_that_scipion_shows(tmp_path):
    """The engine counts rows; a set's ids are others once it is a subset."""
    star = str(tmp_path / "particles.star")
    write_star(star, [("particles", ["cryolikeItemId", "x"], [["40", "1"], ["4", "2"], ["44", "3"]])])
    with h5py.File(tmp_path / "scores.h5", "w") as file:
        file.attrs["structures"] = json.dumps([{"label": "one"}])
        file["best_structure"] = np.ones(3, np.int64)
    np.savez(tmp_path / "gallery.npz", member_row=[[3, 1, 0]])
    assert RunScores(str(tmp_path)).gallery()["member_row"].tolist() == [[44, 40, 0]]
    images, curve = np.zeros((2, 4, 4)), np.ones(3)
    names = ("frequency", "power", "ctf_frequency", "ctf_squared")
    curves = dict.fromkeys(names, curve)
    np.savez(tmp_path / "look.npz", rows=[2, 3], raw=images, prepared=images, defocus=15000.0, k_max=0.125, **curves)
    look = read_look(str(tmp_path / "look.npz"), star)
    assert look.items.tolist() == [4, 44] and look.title == "particle 4, defocus 1.50 µm, compared to 8.00 Å"


def test_an_inspection_is_read_back_and_ages(tmp_path):
    star, path = str(tmp_path / "particles.star"), str(tmp_path / "particle.npz")
    open(star, "w").close()
    os.utime(star, ns=(10**18, 10**18))
    shown = inspection(2)
    np.savez(
        path,
        image=shown.image,
        templates=shown.templates,
        residual=shown.residual,
        labels=np.array(shown.labels),
        cc=shown.cc,
        log_likelihood=shown.log_likelihood,
        structure_posterior=shown.posterior,
    )
    assert is_fresh(path, star)
    assert not is_fresh(path + "x", star)
    os.utime(path, ns=(10**17, 10**17))
    assert not is_fresh(path, star)
    again = read_inspection(path)
    assert again.labels == shown.labels
    assert np.array_equal(again.residual, shown.residual)
