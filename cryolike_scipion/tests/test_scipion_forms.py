"""Forms of every node: labels, units, help, wizards, papers; and what the wizards and the viewer's data are made of."""

import json
import re
import subprocess
import time

import h5py
import mrcfile
import numpy as np
import pytest
import pyworkflow.protocol.params as params
from pwem.objects import AtomStruct, SetOfParticles, Volume
from pyworkflow.object import String
from pyworkflow.protocol.constants import LEVEL_ADVANCED, LEVEL_NORMAL
from pyworkflow.viewer import DESKTOP_TKINTER

from cryolike_scipion import Plugin, parameters, protocols
from cryolike_scipion.convert import previews
from cryolike_scipion.convert.previews import (
    low_passed,
    particle_image,
    projection_of_structure,
    projection_of_template,
    some_particles,
)
from cryolike_scipion.convert.results import ResultError
from cryolike_scipion.convert.run_scores import RunScores
from cryolike_scipion.convert.structures import list_structures
from cryolike_scipion.objects import CryolikeTemplates
from cryolike_scipion.protocols.form import form_name
from cryolike_scipion.wizards.wizard_symmetry import GROUPS

from .scipion_sets import make_particles, write_stack

RAISED = re.compile(r"\b(more|larger|higher|smaller|fewer|lower|less|longer|raised)\b", re.IGNORECASE)
NUMBERS = (params.FloatParam, params.IntParam)
NODES = [getattr(protocols, name) for name in protocols.__all__]
SCIPIONS_OWN = ("useGpu", "gpuList", "numberOfThreads", "numberOfMpi", "binThreads")  # it draws and explains these
ASKED_FOR = ("box", "pixel", "threshold")  # without one of their own: the node does not start without them
MANY = 100_000


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_field_says_what_it_is(project, node):
    protocol = project.new(node)
    engine = {form_name(each.name): each for each in parameters.VERBS.get(getattr(protocol, "_verb", None), [])}
    checked = 0
    for name, _ in protocol.iterDefinitionAttributes():
        parameter = protocol.getParam(name)
        label, text = parameter.label.get("") or "", parameter.help.get("") or ""
        if name in SCIPIONS_OWN:
            continue
        assert label and len(text) > 20, name
        assert parameter.expertLevel.get() in (LEVEL_NORMAL, LEVEL_ADVANCED), name
        if isinstance(parameter, NUMBERS) and not isinstance(parameter, params.EnumParam):
            assert RAISED.search(text), f"{name}: what changes when it is raised?"
            assert "Unit: " in text or "unit" in label or name == "seed", name
            assert parameter.default.hasValue() or "empty: " in label or name in ASKED_FOR, f"{name}: what is an empty field?"
        if name in engine:
            unit = engine[name].unit
            assert not unit or (unit.lower() in label.lower() and f"Unit: {unit}." in text), name
            checked += 1
    assert checked or getattr(protocol, "_verb", None) is None


@pytest.mark.parametrize(
    "node, values, shown, hidden",
    [
        ("Likelihood", {}, {"inputTemplates", "maxShift", "pilot"}, {"inputStructures", "symmetry", "localRange", "keep"}),
        ("Likelihood", {"structuresFrom": 1}, {"inputStructures", "symmetry", "atomModel"}, {"inputTemplates"}),
        ("Likelihood", {"search": 1}, {"maxShift", "angularStep", "keep"}, {"localRange"}),
        ("Likelihood", {"search": 2}, {"maxShift", "localRange"}, {"keep"}),
        ("Likelihood", {"search": 3}, set(), {"maxShift", "shiftStep", "angularStep", "levels", "localRange", "keep"}),
        ("Likelihood", {"scale": 1}, set(), {"pilot"}),
        ("GenerateTemplates", {}, {"inputParticles"}, {"box", "pixel"}),
        ("GenerateTemplates", {"sizeFromParticles": False}, {"box", "pixel"}, {"inputParticles"}),
        ("Ensemble", {}, {"inputRun"}, {"matrixFile", "orientation", "labels"}),
        ("Ensemble", {"scoresFrom": 1}, {"matrixFile", "orientation", "labels"}, {"inputRun"}),
        ("ImportParticles", {}, {"files"}, {"stopFile", "timeout", "fileTimeout"}),
        ("ImportParticles", {"dataStreaming": True}, {"stopFile", "timeout", "fileTimeout"}, set()),
    ],
)
def test_what_does_not_apply_is_hidden(project, node, values, shown, hidden):
    protocol = project.new(getattr(protocols, f"ProtCryolike{node}"), **values)
    assert {name for name in shown | hidden if protocol.evalParamCondition(name)} == shown


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_papers_are_known(project, node):
    protocol = project.new(node)
    papers = protocol._citations()
    found = protocol.getCitations(bibTexOutput=True)
    assert papers and list(found) == papers
    assert all(isinstance(entry, dict) and entry["title"] and entry["year"] for entry in found.values())
    shown = protocol.citations()  # what the button *Cite* and the page *Methods* show; its links are opened as they are
    assert shown[0].startswith("*Protocol references")
    assert all(line.startswith("[[https://") for line in shown[1 : len(papers) + 1])


def test_wands_are_where_they_help(project):
    def wands(node):
        return set(project.domain.findWizards(project.new(node), DESKTOP_TKINTER))

    project.domain.getWizards()
    assert {"maskDiameter", "resolution", "symmetry", "maxShift"} <= wands(protocols.ProtCryolikeLikelihood)
    assert {"maskDiameter", "resolution"} <= wands(protocols.ProtCryolikeConvertParticles)
    assert {"resolution", "symmetry"} <= wands(protocols.ProtCryolikeGenerateTemplates)
    assert "threshold" in wands(protocols.ProtCryolikeSelect)


def test_every_listed_group_is_one_that_the_engine_knows():
    code = "import json, sys; from cryolike_scipion.engine.symmetry import rotations\n"
    code += "print(json.dumps({name: len(rotations(name)) for name in sys.argv[1:]}))"  # the engine may be in another Python
    command = [Plugin.getEnginePython(), "-c", code, *(name for name, _ in GROUPS)]
    orders = json.loads(subprocess.run(command, env=Plugin.getEnviron(), check=True, stdout=subprocess.PIPE).stdout.decode())
    assert orders["C1"] == 1 and orders["C7"] == 7 and orders["D5"] == 10
    assert [orders[name] for name in ("T", "O", "I1", "I2", "I3", "I4")] == [12, 24, 60, 60, 60, 60]


def test_a_particle_for_the_eye(project):
    stack = write_stack("seen.mrcs", 5)
    particles = make_particles("seen.sqlite", [(stack, 5)])
    chosen = some_particles(particles, 3)
    assert [item.getObjId() for item in chosen] == [10, 30, 50]
    with mrcfile.open(stack) as file:
        assert np.array_equal(particle_image(chosen[1]), file.data[2])
    image = particle_image(chosen[0])
    assert low_passed(image, 1.5, 12.0).std() < 0.5 * image.std()
    assert low_passed(image, 1.5, 12.0).mean() == pytest.approx(image.mean())


def test_how_wide_a_structure_is(project):
    size, pixel, radius = 32, 2.0, 20.0
    axis = (np.arange(size) - size // 2) * pixel
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float32)
    with mrcfile.new("ball.mrc", overwrite=True) as file:
        file.set_data(ball)
        file.voxel_size = pixel
    volume = Volume(location="ball.mrc")
    volume.setSamplingRate(pixel)
    (structure,) = list_structures([volume])
    picture, width, diameter = projection_of_structure(structure)
    assert np.array_equal(picture, ball.sum(axis=0)) and width == size * pixel
    assert diameter == pytest.approx(2 * radius, abs=2 * pixel)
    with h5py.File("ball.h5", "w") as file:
        file["density"] = ball
        file.attrs.update({"pixel_size": pixel, "radius": radius})
    template = CryolikeTemplates()
    template.setFileName("ball.h5")
    assert projection_of_template(template)[1:] == (size * pixel, 2 * radius)


@pytest.mark.parametrize("along", [0, 1, 2])
def test_a_long_structure_is_projected_from_its_side(along):
    rod = np.zeros((24, 24, 24), np.float32)
    rod[tuple(slice(2, 22) if axis == along else slice(10, 13) for axis in range(3))] = 1
    picture = previews._projected(rod)
    assert picture.max() == 3 and (picture > 0).sum() == 60


@pytest.mark.parametrize("size", [64, 65])
def test_how_wide_a_large_map_is_comes_from_a_coarse_one(size, monkeypatch):
    """Within a block, also where the blocks do not fill the map."""
    monkeypatch.setattr(previews, "_COARSE", 16)
    axis = np.arange(size) - size // 2
    ball = (np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < 20).astype(np.float32)
    assert previews._widest(ball) == pytest.approx(40, abs=5)
    assert previews._widest(np.zeros((size,) * 3, np.float32)) == pytest.approx(size, abs=1)


def test_how_wide_an_atomic_structure_is(project):
    line = "ATOM  %5d  CA  ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           C\n"
    with open("rod.pdb", "w") as stream:
        stream.writelines(line % (i + 1, i + 1, 0.0, 5.0 * i, 7.0) for i in range(21))
    (structure,) = list_structures([AtomStruct(filename="rod.pdb")])
    picture, width, diameter = projection_of_structure(structure)
    assert diameter == pytest.approx(100.0) and width > diameter
    assert np.ptp(np.nonzero(picture.sum(axis=1) > 0.5 * picture.sum(axis=1).max())[0]) > 60  # along y: rows
    assert np.ptp(np.nonzero(picture.sum(axis=0) > 0.5 * picture.sum(axis=0).max())[0]) < 10


def test_scores_of_a_hundred_thousand_particles_are_read_at_once(tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(3, MANY))
    best = rng.integers(0, 4, MANY)
    with h5py.File(tmp_path / "scores.h5", "w") as file:
        file.attrs["structures"] = json.dumps([{"label": text} for text in "abc"])
        file["integrated"], file["best_structure"] = matrix, best
        file.create_group("extra")["x"] = np.arange(MANY)
    began = time.process_time()
    run = RunScores(str(tmp_path))
    values = run.of_best("integrated")
    assert time.process_time() - began < 1.0
    good = best > 0
    assert run.labels == list("abc") and np.array_equal(run.scored, good)
    assert np.array_equal(values, matrix[best[good] - 1, np.flatnonzero(good)])
    assert np.array_equal(run.extra("x"), np.flatnonzero(good)) and run.extra("y") is None
    assert run.gallery() is None


def test_a_run_without_scores_is_told(tmp_path):
    with pytest.raises(ResultError, match="cannot be read"):
        RunScores(str(tmp_path))


def test_particles_with_other_columns_keep_their_viewer(project, tmp_path):
    from cryolike_scipion.viewers.viewer_table import has_scores

    def converted(item, _):
        item._cryolike_coefficients = String("1@x.h5")

    stack = write_stack("plain.mrcs", 2)
    assert not has_scores(make_particles("plain.sqlite", [(stack, 2)], change=converted))
    assert not has_scores(SetOfParticles(filename=str(tmp_path / "empty.sqlite")))
