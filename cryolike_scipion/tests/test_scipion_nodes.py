"""The three nodes in a real project, from the imports on, and what is read back from it."""

import itertools
import json
import os
import shutil
import sqlite3

import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfClasses3D
from pwem.protocols import ProtSetFilter

from cryolike_scipion import Plugin
from cryolike_scipion.convert.inspection import read_inspection
from cryolike_scipion.convert.poses import euler_matrices, poses_from_transforms
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.objects import SCORE_ATTRIBUTES, SetOfCryolikeTemplates
from cryolike_scipion.parameters import get
from cryolike_scipion.plots.scores import SCORES
from cryolike_scipion.protocols import (
    ProtCryolikeConvertParticles,
    ProtCryolikeGenerateTemplates,
    ProtCryolikeLikelihood,
    ProtCryolikeSelect,
)
from cryolike_scipion.protocols.protocol_likelihood import FROM_STRUCTURES
from cryolike_scipion.viewers import CryolikeLikelihoodViewer, CryolikeTemplatesViewer
from cryolike_scipion.viewers.viewer_table import CryolikeParticlesTable

from .helpers import shared_data
from .scipion_project import ScipionProject, columns
from .scipion_sets import ODD_NAME, make_particles, star_subset

PIXEL = 13.1
ROWS = [3, 1, 2] + list(range(5, 22))
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
COARSE = {"angularStep": 20.0, "maxShift": 26.2, "levels": 0, "resolution": 40.0, "binThreads": 1}
FINE = {"angularStep": 15.0, "maxShift": 26.2, "levels": 1, "binThreads": 1}
ODD_LABEL = "50S \"D\" 'one' $(touch oops) 100%s ä"
PDB_LINE = "ATOM  %5d  %-3s ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           %s\n"


def search_number(name):
    return get("likelihood", "search").choices.index(name)


@pytest.fixture(scope="module")
def data():
    return shared_data("two_state")


@pytest.fixture(scope="module")
def project(data):
    project = ScipionProject("nodes")
    yield project
    project.close()


@pytest.fixture(scope="module")
def imported(project, data):
    """Twenty particles of a RELION STAR file without poses."""
    star = star_subset(data / "two_state.star", "input/two_state.star", ROWS, data / "two_state.mrcs")
    return project.import_star(star, PIXEL)


@pytest.fixture(scope="module")
def posed(project, data):
    """The same particles with RELION's poses."""
    star = star_subset(data / "two_state_truth.star", "truth/two_state.star", ROWS, data / "two_state.mrcs")
    return project.import_star(star, PIXEL)


@pytest.fixture(scope="module")
def volumes(project, data):
    """Two maps in a set."""
    return project.import_volumes(str(data / "50S_state_*.mrc"), PIXEL)


@pytest.fixture(scope="module")
def atoms(project):
    """A helix of a few hundred atoms, about the size of the particle."""
    with open("helix.pdb", "w") as stream:
        for number in range(300):
            angle, height = 0.6 * number, 0.8 * (number - 150)
            radius = 60 + 20 * np.sin(0.05 * number)
            stream.write(PDB_LINE % (number + 1, "CA", number + 1, radius * np.cos(angle), radius * np.sin(angle), height, "C"))
        stream.write("END\n")
    return project.import_atoms(os.path.abspath("helix.pdb"))


@pytest.fixture(scope="module")
def templates(project, imported, volumes, atoms):
    return project.finish(
        ProtCryolikeGenerateTemplates,
        angularStep=15.0,
        preview=30,
        numberOfThreads=1,
        inputParticles=(imported, "outputParticles"),
        inputStructures=[(volumes, "outputVolumes"), (atoms, "outputPdb")],
    )


@pytest.fixture(scope="module")
def converted(project, imported):
    return project.finish(ProtCryolikeConvertParticles, inputParticles=(imported, "outputParticles"), binThreads=1)


@pytest.fixture(scope="module")
def scored(project, converted, templates):
    return project.finish(
        ProtCryolikeLikelihood,
        inputParticles=(converted, "outputParticles"),
        inputTemplates=(templates, "outputTemplates"),
        **FINE,
    )


def run_likelihood(project, particles, structures, sampling=COARSE, **values):
    return project.finish(
        ProtCryolikeLikelihood,
        structuresFrom=FROM_STRUCTURES,
        inputParticles=particles,
        inputStructures=structures,
        **dict(sampling, **values),
    )


def engine_star(protocol):
    return protocol._getExtraPath("result", "particles.star")


def stored_poses(table):
    """Return RELION's poses of the transforms in a set's table: [M, 5]."""
    matrices = [json.loads(text) for text in table["_transform._matrix"]]
    return np.stack(poses_from_transforms(matrices, PIXEL), axis=1)


def assert_same_poses(one, other):
    """Angles as rotations, and origins, to 1e-3 degree or radian and 1e-3 Å."""
    assert np.allclose(euler_matrices(*one[:, :3].T), euler_matrices(*other[:, :3].T), atol=2e-5)
    assert np.allclose(one[:, 3:], other[:, 3:], atol=1e-3)


# ---------------------------------------------------------------- generate templates


def test_templates_are_one_set_with_an_item_a_structure(templates):
    output = templates.outputTemplates
    assert isinstance(output, SetOfCryolikeTemplates)
    items = [item.clone() for item in output.iterItems()]
    assert [item.getObjId() for item in items] == [1, 2, 3]
    assert [item.getLabel() for item in items[:2]] == ["50S_state_D", "50S_state_E"]
    assert [item.getSymmetry() for item in items] == ["C1"] * 3
    assert output.getBox() == 32
    assert output.getSamplingRate() == pytest.approx(PIXEL)
    for item in items:
        assert os.path.exists(item.getFileName())
        assert os.path.exists(item.getStructure())
        assert item.getViews() > 30
        with mrcfile.open(item.getPreview()) as preview:
            assert preview.data.shape == (30, 32, 32)
            assert preview.voxel_size.x == pytest.approx(PIXEL, rel=1e-5)
            assert preview.data.std() > 0
    assert "3 structures at 32 px" in templates.summary()[0]
    assert "CryoLike" in templates._methods()[0]


def test_template_set_reads_back_from_its_sqlite(templates):
    table = columns(templates.outputTemplates.getFileName())
    assert table["_symmetry"] == ["C1"] * 3
    again = SetOfCryolikeTemplates(filename=templates.outputTemplates.getFileName())
    again.loadAllProperties()
    assert again.getBox() == 32


def test_no_particle_pointer_takes_templates(project, templates):
    from pwem.objects import SetOfParticles, SetOfVolumes

    assert not isinstance(templates.outputTemplates, (SetOfParticles, SetOfVolumes))


# ---------------------------------------------------------------- convert particles


def test_converted_particles_are_the_input_with_a_place_for_coefficients(imported, converted):
    before = columns(imported.outputParticles.getFileName())
    after = columns(converted.outputParticles.getFileName())
    for label in ("id", "_filename", "_index", "_ctfModel._defocusU"):
        assert after[label] == before[label]
    assert all(len(made) == 32 for made in after["_cryolike_coefficientsHash"])
    for place in after["_cryolike_coefficients"]:
        number, path = place.split("@", 1)
        assert int(number) >= 1
        assert os.path.isfile(path)
    assert not converted.outputParticles.hasAlignmentProj()


# ---------------------------------------------------------------- likelihood


def test_every_attribute_is_stored_and_is_the_engines(scored):
    table = columns(scored.outputParticles.getFileName())
    rows = read_columns(engine_star(scored), "particles", tuple(SCORE_ATTRIBUTES) + ("cryolikeItemId",))
    assert [int(text) for text in rows["cryolikeItemId"]] == table["id"]
    for column, (attribute, kind) in SCORE_ATTRIBUTES.items():
        convert = {"Float": float, "Integer": int, "String": str}[kind.__name__]
        assert table[attribute] == [convert(text) for text in rows[column]], attribute
    assert set(table["_cryolike_status"]) == {"ok"}
    assert all(-1 <= value <= 1 for value in table["_cryolike_crossCorrelation"])
    assert all(0 < value <= 1 for value in table["_cryolike_structurePosterior"])
    assert table["_rlnClassNumber"] == table["_cryolike_bestStructure"]


def test_transforms_are_the_stars_poses(scored):
    table = columns(scored.outputParticles.getFileName())
    rows = read_columns(engine_star(scored), "particles", POSE)
    assert_same_poses(stored_poses(table), np.array([[float(text) for text in rows[name]] for name in POSE]).T)
    assert scored.outputParticles.hasAlignmentProj()


def test_ids_order_and_locations_are_the_inputs(imported, scored):
    before = columns(imported.outputParticles.getFileName())
    after = columns(scored.outputParticles.getFileName())
    for label in ("id", "_filename", "_index"):
        assert after[label] == before[label]
    assert before["_index"] == ROWS


def test_classes_are_numbered_like_the_structures_and_empty_ones_stay(scored):
    table = columns(scored.outputParticles.getFileName())
    classes = SetOfClasses3D(filename=scored.outputClasses.getFileName())
    found = {}
    for item in classes.iterItems():
        representative = item.getRepresentative()
        with mrcfile.open(representative.getFileName()) as density:
            assert density.data.ndim == 3
            assert density.data.std() > 0
            assert representative.getSamplingRate() == pytest.approx(density.voxel_size.x)
        found[item.getObjId()] = (item.getObjLabel(), item.getSize(), [member.getObjId() for member in item])
    assert list(found) == [1, 2, 3]
    assert found[1][0] == "50S_state_D"
    for number, (_, size, members) in found.items():
        expected = [each for each, best in zip(table["id"], table["_cryolike_bestStructure"]) if best == number]
        assert members == expected
        assert size == len(expected)
    assert found[3][1] == 0, "nothing is the helix"
    stored = columns(scored.outputClasses.getFileName(), "Class001_")
    assert {attribute for attribute, _ in SCORE_ATTRIBUTES.values()} <= set(stored)
    assert [member.getObjId() for member in classes.iterClassItems()] == list(
        itertools.chain(*(each[2] for each in found.values()))
    )


def test_most_particles_find_their_structure(data, scored):
    truth = read_columns(str(data / "two_state_truth.star"), "particles", ["rlnClassNumber"])["rlnClassNumber"]
    table = columns(scored.outputParticles.getFileName())
    right = [int(truth[row - 1]) == best for row, best in zip(ROWS, table["_cryolike_bestStructure"])]
    assert np.mean(right) >= 0.7


def test_summary_methods_and_relations(project, scored, converted, templates):
    summary = " ".join(scored.summary())
    assert "20 particles were compared with 3 structures" in summary
    assert "1. 50S_state_D" in summary
    assert "Compared to 26.2 Å resolution" in summary
    assert "[CryoLike2025]" in scored._methods()[0] and "to 26.2 Å resolution" in scored._methods()[0]
    relations = project.relations()
    outputs = {scored.outputParticles.getObjId(), scored.outputClasses.getObjId()}
    children = {child for creator, _, child, _ in relations if creator == scored.getObjId()}
    assert outputs <= children


def test_the_engine_was_given_no_user_text_on_its_command_line(scored):
    with open(scored.getStdoutLog()) as stream:
        commands = [line for line in stream if "cryolike_scipion run" in line]
    assert len(commands) == 1
    assert "--job {} ".format(scored._getExtraPath("job.json")) in commands[0]


def test_the_converted_particles_were_not_converted_again(scored):
    with open(scored._getExtraPath("result", "log.txt"), encoding="utf-8") as stream:
        assert "converted afresh" not in stream.read()
    rows = read_columns(scored._getExtraPath("input_particles.star"), "particles", ["cryolikeCoefficientsHash"])
    table = columns(scored.outputParticles.getFileName())
    assert rows["cryolikeCoefficientsHash"] == table["_cryolike_coefficientsHash"]


def test_straight_from_plain_particles_and_structures(project, imported, volumes, atoms, scored):
    """Without templates and coefficients the answer is the same."""
    protocol = run_likelihood(project, (imported, "outputParticles"), [(volumes, "outputVolumes"), (atoms, "outputPdb")], FINE)
    table, other = (columns(each.outputParticles.getFileName()) for each in (protocol, scored))
    sure = np.array(other["_cryolike_structurePosterior"]) > 0.9
    assert sure.sum() >= 10
    chosen = [np.array(each["_cryolike_bestStructure"])[sure] for each in (table, other)]
    assert np.array_equal(*chosen)
    assert np.allclose(table["_cryolike_crossCorrelation"], other["_cryolike_crossCorrelation"], atol=0.01)
    assert not os.path.exists(protocol._getExtraPath("inputs", "stack00001.mrcs"))


# ---------------------------------------------------------------- poses in


def test_fixed_search_keeps_the_input_poses(project, posed, volumes):
    assert posed.outputParticles.hasAlignmentProj()
    protocol = run_likelihood(project, (posed, "outputParticles"), [(volumes, "outputVolumes")], search=search_number("fixed"))
    before = stored_poses(columns(posed.outputParticles.getFileName()))
    after = stored_poses(columns(protocol.outputParticles.getFileName()))
    assert_same_poses(before, after)
    assert np.mean(columns(protocol.outputParticles.getFileName())["_cryolike_crossCorrelation"]) > 0.2


def test_local_search_stays_near_the_input_poses(project, posed, volumes):
    protocol = run_likelihood(
        project,
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


def test_disabled_particles_and_a_subset_of_templates(project, data, volumes, templates):
    star = star_subset(data / "two_state.star", "few/two_state.star", [4, 5, 6, 7], data / "two_state.mrcs")
    few = project.import_star(star, PIXEL)
    ids = columns(few.outputParticles.getFileName())["id"]
    with sqlite3.connect(few.outputParticles.getFileName()) as database:
        database.execute("update Objects set enabled = 0 where id = ?", (ids[1],))
    protocol = run_likelihood(project, (few, "outputParticles"), [(volumes, "outputVolumes")])
    table = columns(protocol.outputParticles.getFileName())
    assert table["id"] == [ids[0], ids[2], ids[3]]
    assert all(table["enabled"])
    assert protocol.outputParticles.getSize() == 3
    assert len(read_columns(engine_star(protocol), "particles", ["cryolikeItemId"])["cryolikeItemId"]) == 3


def test_scipions_filter_understands_our_columns_and_a_subset_keeps_its_coefficients(project, converted, scored, volumes):
    table = columns(scored.outputParticles.getFileName())
    middle = float(np.median(table["_cryolike_logLikelihood"]))
    good = project.finish(
        ProtSetFilter,
        inputSet=(scored, "outputParticles"),
        formula=f"item._cryolike_logLikelihood.get() > {middle!r} and item._cryolike_status.get() == 'ok'",
    )
    kept = columns(good.outputParticles.getFileName())
    assert kept["id"] == [item for item, value in zip(table["id"], table["_cryolike_logLikelihood"]) if value > middle]
    places = dict(zip(table["id"], table["_cryolike_coefficients"]))
    assert kept["_cryolike_coefficients"] == [places[item] for item in kept["id"]]
    again = run_likelihood(project, (good, "outputParticles"), [(volumes, "outputVolumes")])
    assert columns(again.outputParticles.getFileName())["id"] == kept["id"]


def test_relion_export_keeps_scores_and_poses(scored):
    from relion.convert import writeSetOfParticles

    writeSetOfParticles(
        scored.outputParticles,
        "export.star",
        extraLabels=["rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnClassNumber"],
    )
    names = ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnClassNumber") + POSE
    theirs, ours = (
        read_columns("export.star", "particles", names),
        read_columns(engine_star(scored), "particles", names),
    )
    for name in names[:3]:
        assert np.allclose([float(text) for text in theirs[name]], [float(text) for text in ours[name]], atol=1e-3)
    assert_same_poses(*(np.array([[float(text) for text in each[name]] for name in POSE]).T for each in (theirs, ours)))


def test_odd_names_of_files_and_labels(project, data):
    os.makedirs("odd dir", exist_ok=True)
    stack, odd_map = (
        os.path.join("odd dir", ODD_NAME),
        os.path.join("odd dir", "map 'a' $(touch oops) 100%s ä.mrc"),
    )
    shutil.copy(str(data / "two_state.mrcs"), stack)
    particles = make_particles("odd.sqlite", [(stack, 3)], pixel=PIXEL)
    particles.close()
    source = project.import_set(os.path.abspath("odd.sqlite"), PIXEL)
    volume = project.import_volumes(str(data / "50S_state_D.mrc"), PIXEL)
    # Scipion's own import refuses such a name; other nodes may well write it.
    shutil.copy(str(data / "50S_state_D.mrc"), odd_map)
    volume.outputVolume.setFileName(odd_map)
    volume.outputVolume.setObjLabel(ODD_LABEL)
    volume._store(volume.outputVolume)
    protocol = run_likelihood(project, (source, "outputParticles"), [(volume, "outputVolume")] * 2)
    names = columns(protocol.outputParticles.getFileName())["_filename"]
    assert {os.path.realpath(name) for name in names} == {os.path.realpath(stack)}
    labels = [item.getObjLabel() for item in protocol.outputClasses.iterItems()]
    assert labels == [ODD_LABEL, ODD_LABEL + " (2)"]
    assert ODD_LABEL in " ".join(protocol.summary())
    assert not any("oops" in files for _, _, files in os.walk("."))


def test_one_structure_gives_no_classes(project, imported, data):
    volume = project.import_volumes(str(data / "50S_state_E.mrc"), PIXEL)
    protocol = run_likelihood(project, (imported, "outputParticles"), [(volume, "outputVolume")])
    assert not hasattr(protocol, "outputClasses")
    assert set(columns(protocol.outputParticles.getFileName())["_cryolike_structurePosterior"]) == {1.0}


def test_scipions_pixel_size_overrules_a_maps_header(project, imported, data):
    with mrcfile.open(str(data / "50S_state_D.mrc")) as source, mrcfile.new("wrong.mrc", source.data) as wrong:
        wrong.voxel_size = 1.0
    right = project.import_volumes(str(data / "50S_state_D.mrc"), PIXEL)
    wrong = project.import_volumes(os.path.abspath("wrong.mrc"), PIXEL)
    protocol = run_likelihood(project, (imported, "outputParticles"), [(right, "outputVolume"), (wrong, "outputVolume")])
    posteriors = columns(protocol.outputParticles.getFileName())["_cryolike_structurePosterior"]
    assert np.allclose(posteriors, 0.5, atol=1e-3)


def test_bare_images_are_refused_before_they_run(project, data):
    os.makedirs("bare", exist_ok=True)
    shutil.copy(str(data / "two_state.mrcs"), "bare/particles.mrcs")
    bare = project.import_stack(os.path.abspath("bare/particles.mrcs"), PIXEL)
    protocol = project.new(ProtCryolikeConvertParticles, inputParticles=(bare, "outputParticles"))
    assert "The particles have no CTF." in " ".join(protocol.validate())


def test_bad_images_keep_their_row_and_get_a_status(project, data, volumes):
    with mrcfile.open(str(data / "two_state.mrcs")) as file:
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
    protocol = run_likelihood(project, (source, "outputParticles"), [(volumes, "outputVolumes")])
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


def test_an_engine_that_cannot_read_a_map_names_the_users_file(project, imported, data):
    shutil.copy(str(data / "50S_state_D.mrc"), "cut.mrc")
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


# ---------------------------------------------------------------- viewers


@pytest.fixture()
def viewer(project, scored):
    viewer = project.viewer(CryolikeLikelihoodViewer, scored)
    viewer.setProtocol(scored)
    return viewer


def test_scipion_offers_the_viewers(project, scored, templates):
    assert CryolikeLikelihoodViewer in project.viewers_of(scored)
    assert CryolikeTemplatesViewer in project.viewers_of(templates.outputTemplates)


def figures(view, choice=None):
    return {name: draw() for name, draw in view.tabs(choice)}


def test_every_score_has_its_threshold(viewer, scored):
    for number, score in enumerate(SCORES):
        viewer.score.set(number)
        (view,) = viewer._showScore()
        assert view.score is score and len(view.values) == len(ROWS)
        stored = columns(scored.outputParticles.getFileName())[score.attribute]
        assert np.allclose(view.values, stored, rtol=1e-5, atol=1e-5)
    assert len(view.labels) == 3 and view.best.max() < 3


def test_structures_poses_classes_and_densities_are_drawn(viewer):
    (view,) = viewer._showPopulations()
    assert list(figures(view)) == ["Shares", "Posteriors", "Differences", "Matrix"]
    (view,) = viewer._showPoses()
    assert len(figures(view)["Views"].axes) == 1
    (view,) = viewer._showClasses()
    assert len(figures(view)["Averages and best members"].axes) >= 3 * 4
    (view,) = viewer._showDensities()
    assert len(view.choices) == 3
    pictures = [axis.images[0].get_array() for axis in figures(view, view.choices[1])["Slices and projections"].axes]
    assert [picture.shape for picture in pictures] == [(32, 32)] * 6
    (view,) = viewer._showAgreement()  # these came without poses
    assert figures(view)["Agreement with the input poses"].texts


def test_a_particle_is_shown_beside_its_templates(viewer, scored):
    item = columns(scored.outputParticles.getFileName())["id"][3]
    viewer.particleId.set(item)
    (view,) = viewer._showParticle()
    assert len(figures(view)[f"Particle {item}"].axes) == 3 * 3
    cache = scored._getExtraPath("inspect", f"particle_{item}.npz")
    found = read_inspection(cache)
    assert np.allclose(found.residual, found.image - found.templates, atol=1e-4 * np.abs(found.image).max())
    made = os.stat(cache).st_mtime_ns
    viewer._showParticle()
    assert os.stat(cache).st_mtime_ns == made, "the second time needs no engine"


def test_a_particle_that_is_not_there_is_told(viewer):
    viewer.particleId.set(123456)
    (message,) = viewer._showParticle()
    assert "no particle 123456" in message._msg


def test_templates_are_shown(project, templates):
    (view,) = project.viewer(CryolikeTemplatesViewer, templates)._visualize(templates.outputTemplates)
    assert len(view.choices) == 3
    drawn = figures(view, view.choices[2])
    assert len(drawn["Projections"].axes[0].images) == 30
    assert len(drawn["Density"].axes) == 6
    assert len(drawn["Power spectra"].axes[0].lines) == 3


def test_summaries_say_where_the_plots_are(scored, templates, converted):
    for protocol in (scored, templates, converted):
        (line,) = [line for line in protocol._summary() if line.startswith("Plots: ")]
        assert os.path.isfile(line[len("Plots: ") :])


def test_the_table_names_our_columns_and_is_the_first_viewer(project, scored, imported):
    particles = scored.outputParticles
    assert project.viewers_of(particles)[0] is CryolikeParticlesTable
    assert CryolikeParticlesTable not in project.viewers_of(imported.outputParticles)
    (view,) = project.viewer(CryolikeParticlesTable, scored)._visualize(particles)
    visible, order, rendered = (text.split() for text in view.getVisibleAndOrderLabels())
    assert {attribute for attribute, _ in SCORE_ATTRIBUTES.values()} <= set(visible) == set(order)
    assert rendered == ["_filename"] and set(visible) - {"id", "enabled"} <= set(columns(particles.getFileName()))


def test_both_halves_of_a_selection(project, scored):
    table = columns(scored.outputParticles.getFileName())
    values, best = np.array(table["_cryolike_logLikelihood"]), np.array(table["_cryolike_bestStructure"])
    threshold = float(np.median(values))
    select = project.finish(
        ProtCryolikeSelect, inputParticles=(scored, "outputParticles"), score=0, threshold=threshold, structures="1-2"
    )
    wanted = (values >= threshold) & (best <= 2)
    kept, rejected = (columns(getattr(select, name).getFileName()) for name in ("outputParticles", "outputRejected"))
    assert kept["id"] == list(np.array(table["id"])[wanted]) and rejected["id"] == list(np.array(table["id"])[~wanted])
    assert kept["_cryolike_logLikelihood"] == list(values[wanted])
    assert select.outputParticles.hasAlignmentProj() and f"{wanted.sum()} of {len(ROWS)}" in select._summary()[0]
    select.threshold.set(float(values.min()) - 1.0)
    select.structures.set("")
    again = project.run(select, resume=True)
    assert columns(again.outputParticles.getFileName())["id"] == table["id"], "a changed threshold divides anew"
    assert again.outputRejected.getSize() == 0 and not list(again.outputRejected), "of the earlier start nothing stays"
    assert f"{len(ROWS)} of {len(ROWS)}" in again._summary()[0]


def test_a_selection_needs_scores_and_numbers(project, scored, imported):
    plain = project.new(ProtCryolikeSelect, inputParticles=(imported, "outputParticles"), threshold=1.0)
    assert "no likelihood scores" in plain._validate()[0]
    wrong = project.new(ProtCryolikeSelect, inputParticles=(scored, "outputParticles"), threshold=1.0, structures="one")
    assert "'one' is no list" in wrong._validate()[0]
    assert "Give a threshold" in project.new(ProtCryolikeSelect, inputParticles=(scored, "outputParticles"))._validate()[0]


def test_results_survive_a_move_of_the_project(project, imported, scored, data):
    volume = project.import_volumes(str(data / "50S_state_D.mrc"), PIXEL)
    direct = run_likelihood(project, (imported, "outputParticles"), [(volume, "outputVolume")])
    moved = project.path + " moved"
    os.rename(project.path, moved)
    os.chdir(moved)
    try:
        for protocol in (scored, direct):
            run = protocol._getExtraPath("result")
            Plugin.callEngine(["inspect", run, "--row", 2, "--device", "cpu", "--out", "moved.npz"])
            assert read_inspection("moved.npz").image.shape == (32, 32)
            os.remove("moved.npz")
    finally:
        os.rename(moved, project.path)
        os.chdir(project.path)


# ---------------------------------------------------------------- continuing


def test_continuing_repeats_only_what_changed(project, imported, volumes):
    protocol = run_likelihood(project, (imported, "outputParticles"), [(volumes, "outputVolumes")], resolution=40.0)
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
