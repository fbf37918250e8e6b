"""The three nodes in a real project, from the imports on, and what is read back from it."""

import itertools
import json
import os
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfClasses3D
from pwem.protocols import ProtSetFilter

from cryolike_scipion import Plugin
from cryolike_scipion.convert.inspection import read_inspection
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.objects import SCORE_ATTRIBUTES, SetOfCryolikeTemplates
from cryolike_scipion.protocols import (
    ProtCryolikeConvertParticles,
    ProtCryolikeGenerateTemplates,
    ProtCryolikeLikelihood,
)
from cryolike_scipion.viewers import CryolikeTemplatesViewer

from .node_project import FINE, ROWS, assert_same_poses, engine_star, stored_poses
from .scipion_project import columns
from .two_states import PIXEL, POSE

PDB_LINE = "ATOM  %5d  %-3s ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           %s\n"


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


@pytest.fixture(scope="module")
def direct(project, imported, volumes, atoms):
    """The same without nodes before it."""
    return project.likelihood((imported, "outputParticles"), [(volumes, "outputVolumes"), (atoms, "outputPdb")], FINE)


# ---------------------------------------------------------------- generate templates


def test_templates_are_one_set_with_an_item_a_structure(templates):
    output = templates.outputTemplates
    assert isinstance(output, SetOfCryolikeTemplates)
    items = [item.clone() for item in output.iterItems()]
    assert [item.getObjId() for item in items] == [1, 2, 3]
    assert [item.getLabel() for item in items[:2]] == ["state_D", "state_E"]
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


def test_templates_are_shown(project, templates):
    assert CryolikeTemplatesViewer in project.viewers_of(templates.outputTemplates)
    (view,) = project.viewer(CryolikeTemplatesViewer, templates)._visualize(templates.outputTemplates)
    assert len(view.choices) == 3
    drawn = {name: draw() for name, draw in view.tabs(view.choices[2])}
    assert len(drawn["Projections"].axes[0].images) == 30
    assert len(drawn["Density"].axes) == 6
    assert len(drawn["Power spectra"].axes[0].lines) == 3


def test_summaries_say_where_the_plots_are(scored, templates, converted):
    for protocol in (scored, templates, converted):
        (line,) = [line for line in protocol._summary() if line.startswith("Plots: ")]
        assert os.path.isfile(line[len("Plots: ") :])


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
    assert found[1][0] == "state_D"
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


def test_most_particles_find_their_structure(project, scored):
    truth = read_columns(str(project.data / "truth.star"), "particles", ["rlnClassNumber"])["rlnClassNumber"]
    table = columns(scored.outputParticles.getFileName())
    right = [int(truth[row - 1]) == best for row, best in zip(ROWS, table["_cryolike_bestStructure"])]
    assert np.mean(right) >= 0.7


def test_summary_methods_and_relations(project, scored, converted, templates):
    summary = " ".join(scored.summary())
    assert "20 particles were compared with 3 structures" in summary
    assert "1. state_D" in summary
    assert "Compared to 26.2 Å resolution" in summary
    assert "[CryoLike2025]" in scored._methods()[0] and "to 26.2 Å resolution" in scored._methods()[0]
    relations = project.relations()
    outputs = {scored.outputParticles.getObjId(), scored.outputClasses.getObjId()}
    children = {child for creator, _, child, _ in relations if creator == scored.getObjId()}
    assert outputs <= children


def test_summary_and_methods_are_there_when_the_project_is_opened_again(project, scored, templates, converted):
    code = (
        "import json, sys, pyworkflow; from pyworkflow.project import Manager\n"
        "pyworkflow.Config.getDomain().getProtocols()\n"
        "project = Manager().loadProject(sys.argv[1])\n"
        "runs = {run.getObjId(): run for run in project.getRuns()}\n"
        "print(json.dumps([[runs[int(n)].summary(), runs[int(n)].methods()] for n in sys.argv[2:]]))\n"
    )
    nodes = [scored, templates, converted]
    command = [sys.executable, "-c", code, os.path.basename(project.path), *(str(node.getObjId()) for node in nodes)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    for node, (summary, methods) in zip(nodes, json.loads(said.splitlines()[-1])):
        assert summary == node.summary() and methods == node.methods()
        assert len(methods[0]) > 150 and "[[https://" in methods[0], "a paragraph with its papers"
    method = " ".join(scored._methods())
    assert "20 particles were compared with 3 structures to 26.2 Å resolution" in method and "mask" in method


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


def test_straight_from_plain_particles_and_structures(direct, scored):
    """Without templates and coefficients the answer is the same."""
    table, other = (columns(each.outputParticles.getFileName()) for each in (direct, scored))
    sure = np.array(other["_cryolike_structurePosterior"]) > 0.9
    assert sure.sum() >= 10
    chosen = [np.array(each["_cryolike_bestStructure"])[sure] for each in (table, other)]
    assert np.array_equal(*chosen)
    assert np.allclose(table["_cryolike_crossCorrelation"], other["_cryolike_crossCorrelation"], atol=0.01)
    assert not os.path.exists(direct._getExtraPath("inputs", "stack00001.mrcs"))


# ---------------------------------------------------------------- what others make of it


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
    again = project.likelihood((good, "outputParticles"), [(volumes, "outputVolumes")])
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


def test_results_survive_a_move_of_the_project(project, direct, scored):
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
