"""Random particle sets through Scipion: read by RELION's importer, written for the engine, and exported again."""

import os

import mrcfile
import numpy as np
import pytest
from pwem.constants import ALIGN_PROJ
from pwem.objects import Acquisition, SetOfParticles
from relion.convert import readSetOfParticles, writeSetOfParticles

from cryolike_scipion.convert.locations import StackNames
from cryolike_scipion.convert.original_star import OriginalStar
from cryolike_scipion.convert.particles import PROVIDED, write_particles
from cryolike_scipion.convert.poses import euler_matrices
from cryolike_scipion.convert.star_tables import read_tables

from .random_star import random_star

PIXEL = 1.3
ODD = ("x-1", "é", "[1,2]")  # the reader behind RELION's import knows no quotes, and ends at a row that begins with data_
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def imported(star, folder):
    """A set as RELION's import makes it: one acquisition for all, ids by rows."""
    particles = SetOfParticles(filename=os.path.join(folder, "particles.sqlite"))
    first = next(table for table in read_tables(star) if table.name == "optics")
    values = dict(zip(first.labels, first.rows[0]))
    names = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    kv, cs, contrast = (float(values[name]) for name in names)
    particles.setAcquisition(Acquisition(voltage=kv, sphericalAberration=cs, amplitudeContrast=contrast, magnification=50000))
    readSetOfParticles(star, particles, readAcquisition=False, alignType=ALIGN_PROJ, pixelSize=PIXEL)
    particles.write()
    return particles


def table(path, name="particles"):
    found = next(each for each in read_tables(path) if each.name == name)
    return {label: [row[i] for row in found.rows] for i, label in enumerate(found.labels)}


def numbers(columns, names):
    return np.array([[float(text) for text in columns[name]] for name in names])


@pytest.mark.parametrize("seed", range(6))
def test_through_scipion_and_back(tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    folder, groups, rows = str(tmp_path), 1 + seed % 4, 2 * seed + 1
    for k in range(3):
        with mrcfile.new(f"stack{k}.mrcs") as file:
            file.set_data(np.zeros((99, 16, 16), np.float32))
    star = random_star("in.star", seed, ["{:.6f}", "{:.2f}0", "{:e}", "{:+.3f}"], groups, rows, 16, PIXEL, ODD)
    particles = imported(star, folder)
    original = OriginalStar(star, PROVIDED)
    write_particles(particles, "out.star", StackNames("inputs"), original=original)
    assert not original.missed
    check_engine_input(table(star), table("out.star"), table(star, "optics"), table("out.star", "optics"))
    assert "_rlnNote  'kept  as it is' # even this" in open_text("out.star")
    writeSetOfParticles(particles, "export.star", alignType=ALIGN_PROJ)
    check_poses(table(star), table("export.star"))


def check_engine_input(before, after, optics, groups):
    """Ids and order are Scipion's, and every value is the original text."""
    rows = len(before["rlnImageName"])
    assert [int(text) for text in after["cryolikeItemId"]] == list(range(1, rows + 1))
    assert [name.rpartition("/")[2] for name in after["rlnImageName"]] == before["rlnImageName"]
    for label in before:
        if label not in ("rlnImageName", "rlnOpticsGroup", *POSE):
            assert after[label] == before[label], label
    check_poses(before, after)
    for row in range(rows):
        one = optics["rlnOpticsGroup"].index(before["rlnOpticsGroup"][row])
        two = groups["rlnOpticsGroup"].index(after["rlnOpticsGroup"][row])
        assert all(optics[label][one] == groups[label][two] for label in optics if label != "rlnOpticsGroup")


def check_poses(before, after):
    one, two = (numbers(each, POSE) for each in (before, after))
    assert np.abs(euler_matrices(*one[:3]) - euler_matrices(*two[:3])).max() < 1e-5
    assert np.abs(one[3:] - two[3:]).max() < 1e-3 * PIXEL


def open_text(path):
    with open(path, encoding="utf-8") as stream:
        return stream.read()
