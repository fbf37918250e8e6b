"""What users give to the likelihood node: poses, subsets, odd names, broken files, other parameters, and the same again."""

import os
import shutil
import sqlite3

import mrcfile
import numpy as np
import pytest

from cryolike_scipion.convert.poses import euler_matrices
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.protocols import ProtCryolikeConvertParticles, ProtCryolikeLikelihood
from cryolike_scipion.protocols.protocol_likelihood import FROM_STRUCTURES

from .node_project import COARSE, ROWS, assert_same_poses, engine_star, search_number, stored_poses
from .scipion_project import columns
from .scipion_sets import ODD_NAME, make_particles
from .two_states import PIXEL

ODD_LABEL = "50S \"D\" 'one' $(touch oops) 100%s ä"


@pytest.fixture(scope="module")
def posed(project):
    """The same particles with their true poses."""
    return project.particles("truth.star")


# ---------------------------------------------------------------- poses in


def test_fixed_search_keeps_the_input_poses(project, posed, volumes):
    assert posed.outputParticles.hasAlignmentProj()
    protocol = project.likelihood((posed, "outputParticles"), [(volumes, "outputVolumes")], search=search_number("fixed"))
    before = stored_poses(columns(posed.outputParticles.getFileName()))
    after = stored_poses(columns(protocol.outputParticles.getFileName()))
    assert_same_poses(before, after)
    assert np.mean(columns(protocol.outputParticles.getFileName())["_cryolike_crossCorrelation"]) > 0.2


def test_local_search_stays_near_the_input_poses(project, posed, volumes):
    protocol = project.likelihood(
        (posed, "outputParticles"),
        [(volumes, "outputVolumes")],
        search=search_number("local"),
        angularStep=8.0,
        localRange=8.0,
    )
    before = stored_poses(columns(posed.outputParticles.getFileName()))
    after = stored_poses(columns(protocol.outputParticles.getFileName()))
    trace = np.einsum("mij,mij->m", euler_matrices(*before[:, :3].T), euler_matrices(*after[:, :3].T))
    assert np.median(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))) < 10


# ---------------------------------------------------------------- what users do


def test_disabled_particles_are_left_out(project, volumes):
    few = project.particles(rows=[4, 5, 6, 7])
    ids = columns(few.outputParticles.getFileName())["id"]
    with sqlite3.connect(few.outputParticles.getFileName()) as database:
        database.execute("update Objects set enabled = 0 where id = ?", (ids[1],))
    protocol = project.likelihood((few, "outputParticles"), [(volumes, "outputVolumes")])
    table = columns(protocol.outputParticles.getFileName())
    assert table["id"] == [ids[0], ids[2], ids[3]]
    assert all(table["enabled"])
    assert protocol.outputParticles.getSize() == 3
    assert len(read_columns(engine_star(protocol), "particles", ["cryolikeItemId"])["cryolikeItemId"]) == 3


def test_odd_names_of_files_and_labels(project):
    os.makedirs("odd dir", exist_ok=True)
    stack, odd_map = (
        os.path.join("odd dir", ODD_NAME),
        os.path.join("odd dir", "map 'a' $(touch oops) 100%s ä.mrc"),
    )
    shutil.copy(str(project.data / "particles.mrcs"), stack)
    particles = make_particles("odd.sqlite", [(stack, 3)], pixel=PIXEL)
    particles.close()
    source = project.import_set(os.path.abspath("odd.sqlite"), PIXEL)
    volume = project.volumes("state_D.mrc")
    # Scipion's own import refuses such a name; other nodes may well write it.
    shutil.copy(str(project.data / "state_D.mrc"), odd_map)
    volume.outputVolume.setFileName(odd_map)
    volume.outputVolume.setObjLabel(ODD_LABEL)
    volume._store(volume.outputVolume)
    protocol = project.likelihood((source, "outputParticles"), [(volume, "outputVolume")] * 2)
    names = columns(protocol.outputParticles.getFileName())["_filename"]
    assert {os.path.realpath(name) for name in names} == {os.path.realpath(stack)}
    labels = [item.getObjLabel() for item in protocol.outputClasses.iterItems()]
    assert labels == [ODD_LABEL, ODD_LABEL + " (2)"]
    assert ODD_LABEL in " ".join(protocol.summary())
    assert not any("oops" in files for _, _, files in os.walk("."))


def test_one_structure_gives_no_classes(project, imported):
    volume = project.volumes("state_E.mrc")
    protocol = project.likelihood((imported, "outputParticles"), [(volume, "outputVolume")])
    assert not hasattr(protocol, "outputClasses")
    assert set(columns(protocol.outputParticles.getFileName())["_cryolike_structurePosterior"]) == {1.0}


def test_scipions_pixel_size_overrules_a_maps_header(project, imported):
    with mrcfile.open(str(project.data / "state_D.mrc")) as source, mrcfile.new("wrong.mrc", source.data) as wrong:
        wrong.voxel_size = 1.0
    right = project.volumes("state_D.mrc")
    wrong = project.import_volumes(os.path.abspath("wrong.mrc"), PIXEL)
    protocol = project.likelihood((imported, "outputParticles"), [(right, "outputVolume"), (wrong, "outputVolume")])
    posteriors = columns(protocol.outputParticles.getFileName())["_cryolike_structurePosterior"]
    assert np.allclose(posteriors, 0.5, atol=1e-3)


def test_bare_images_are_refused_before_they_run(project):
    os.makedirs("bare", exist_ok=True)
    shutil.copy(str(project.data / "particles.mrcs"), "bare/particles.mrcs")
    bare = project.import_stack(os.path.abspath("bare/particles.mrcs"), PIXEL)
    protocol = project.new(ProtCryolikeConvertParticles, inputParticles=(bare, "outputParticles"))
    assert "The particles have no CTF." in " ".join(protocol.validate())


def test_bad_images_keep_their_row_and_get_a_status(project, volumes):
    with mrcfile.open(str(project.data / "particles.mrcs")) as file:
        images = file.data[:4].copy()
    images[1] = 3.0
    with mrcfile.new("bad.mrcs", images, overwrite=True) as file:
        file.set_image_stack()
        file.voxel_size = PIXEL
    with mrcfile.mmap("bad.mrcs", mode="r+") as file:
        file.data[2, 5, 5] = np.nan
    make_particles("bad.sqlite", [("bad.mrcs", 4), ("bad.mrcs", 1)], pixel=PIXEL).close()
    with sqlite3.connect("bad.sqlite") as database:
        index = next(row[2] for row in database.execute("select * from Classes") if row[1] == "_index")
        database.execute(f"update Objects set {index} = 9 where id = 50")
    source = project.import_set(os.path.abspath("bad.sqlite"), PIXEL)
    protocol = project.likelihood((source, "outputParticles"), [(volumes, "outputVolumes")])
    table = columns(protocol.outputParticles.getFileName())
    assert table["_cryolike_status"] == ["ok", "constant", "nan", "ok", "missing"]
    assert [best > 0 for best in table["_cryolike_bestStructure"]] == [True, False, False, True, False]
    assert "3 images could not be scored" in " ".join(protocol.summary())
    assert sum(item.getSize() for item in protocol.outputClasses.iterItems()) == 2
    stopped = project.run(
        project.new(
            ProtCryolikeLikelihood,
            structuresFrom=FROM_STRUCTURES,
            inputParticles=(source, "outputParticles"),
            inputStructures=[(volumes, "outputVolumes")],
            badImages=0,
            **COARSE,
        )
    )
    assert stopped.isFailed()
    assert "bad.mrcs" in stopped.getErrorMessage()
    assert not hasattr(stopped, "outputParticles")


def test_an_engine_that_cannot_read_a_map_names_the_users_file(project, imported):
    shutil.copy(str(project.data / "state_D.mrc"), "cut.mrc")
    volume = project.import_volumes(os.path.abspath("cut.mrc"), PIXEL)
    path = os.path.realpath(volume.outputVolume.getFileName())
    with open(path, "r+b") as stream:
        stream.truncate(5000)
    protocol = project.run(
        project.new(
            ProtCryolikeLikelihood,
            structuresFrom=FROM_STRUCTURES,
            inputParticles=(imported, "outputParticles"),
            inputStructures=[(volume, "outputVolume")],
            **COARSE,
        )
    )
    assert protocol.isFailed()
    message = protocol.getErrorMessage()
    assert "cut.mrc" in message
    assert "structure001" not in message
    assert "Traceback" not in message


# ---------------------------------------------------------------- continuing


def test_continuing_repeats_only_what_changed(project, imported, volumes):
    protocol = project.likelihood((imported, "outputParticles"), [(volumes, "outputVolumes")], resolution=40.0)
    star = engine_star(protocol)
    first = os.stat(star).st_mtime_ns
    again = project.run(protocol, resume=True)
    assert again.isFinished()
    assert os.stat(star).st_mtime_ns == first
    assert again.outputParticles.getSize() == len(ROWS)
    before = columns(again.outputParticles.getFileName())["_cryolike_crossCorrelation"]
    again.resolution.set(60.0)
    changed = project.run(again, resume=True)
    assert changed.isFinished(), project.log(changed)
    assert os.stat(star).st_mtime_ns > first
    after = columns(changed.outputParticles.getFileName())["_cryolike_crossCorrelation"]
    assert not np.allclose(before, after, atol=1e-4)
