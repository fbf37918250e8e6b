"""The node *ensemble weights*, from a likelihood node's files and from a matrix of another program."""

import os
import subprocess

import mrcfile
import numpy as np
import pytest
from pyworkflow.protocol.constants import STATUS_ABORTED, STATUS_FINISHED, STATUS_RUNNING

from cryolike_scipion import Plugin, workflow
from cryolike_scipion.constants import OUTPUT_SCORES
from cryolike_scipion.protocols import ProtCryolikeEnsemble, ProtCryolikeLikelihood
from cryolike_scipion.protocols.protocol_ensemble import FROM_MATRIX

from .mixtures import centres, mixture_of
from .scipion_project import columns

# The engine may be in another Python than these tests.
WRITE_SCORES = """
import sys
import numpy as np
from cryolike_scipion.engine.results import Results, StructureEntry
values = np.load(sys.argv[1])
results = Results.empty([StructureEntry(label) for label in ("one", "two", "three")], values.shape[1])
results.integrated[:] = values
results.parameters = {"scale": "learned"}
results.save(sys.argv[2])
"""


def test_a_likelihood_node_that_works_is_waited_for(project):
    run = project.new(ProtCryolikeLikelihood, label="working")
    project._project.saveProtocol(run)
    run.setStatus(STATUS_RUNNING)
    os.makedirs(run._getExtraPath("result"), exist_ok=True)
    with open(run._getExtraPath("result", OUTPUT_SCORES), "w"):
        pass  # of the particles so far
    node = project.new(ProtCryolikeEnsemble)
    node.inputRun.set(run)
    assert node.validate() == ["The likelihood node is still running. Wait for it, then start this one."]
    assert not workflow._is_ready(node)
    run.setStatus(STATUS_ABORTED)
    assert not node.validate(), "a person may use what a stopped run has made"
    assert not workflow._is_ready(node), "a workflow does not"
    run.setStatus(STATUS_FINISHED)
    assert workflow._is_ready(node)


@pytest.fixture(scope="module")
def values():
    return mixture_of(centres(3, 1.0, 1), np.array([0.6, 0.3, 0.1]), 400, np.random.default_rng(1))[0]


def test_a_matrix_in_the_other_orientation(project, values, tmp_path):
    path = tmp_path / "log likelihood 'of all' %s.npy"
    np.save(path, values.T)
    done = project.finish(
        ProtCryolikeEnsemble, scoresFrom=FROM_MATRIX, matrixFile=str(path), orientation=1, labels="a b c", bootstrap=20
    )
    lines = done._summary()
    assert lines[0].startswith("400 particles, 3 structures")
    assert lines[1].startswith("1. a: 6") or lines[1].startswith("1. a: 5")
    assert not hasattr(done, "outputVolumes")


def test_a_likelihood_node_gives_volumes_with_populations(project, values):
    run = project.new(ProtCryolikeLikelihood, label="scored")
    project._project.saveProtocol(run)
    folder = project.path + "/" + run._getExtraPath("result")
    os.makedirs(folder + "/structures")
    np.save(folder + "/values.npy", values)
    command = [Plugin.getEnginePython(), "-c", WRITE_SCORES, folder + "/values.npy", folder]
    subprocess.run(command, check=True, env=Plugin.getEnviron())
    for number in (1, 2, 3):
        with mrcfile.new(f"{folder}/structures/{number:03d}.mrc") as file:
            file.set_data(np.zeros((4, 4, 4), np.float32))
            file.voxel_size = 2.5
    unready = project.new(ProtCryolikeEnsemble)
    assert unready.validate() == ["Choose a likelihood node."]
    node = project.new(ProtCryolikeEnsemble, bootstrap=0)
    node.inputRun.set(run)
    done = project.run(node)
    assert done.isFinished(), project.log(done)
    assert done.outputVolumes.getSize() == 3
    assert done.outputVolumes.getSamplingRate() == 2.5
    table = columns(done.outputVolumes.getFileName())
    means = np.array(table["_cryolike_population"], dtype=float)
    assert means == pytest.approx([0.6, 0.3, 0.1], abs=0.08)
    assert np.all(np.array(table["_cryolike_populationLow"], dtype=float) < means)
    assert [item.getObjLabel() for item in done.outputVolumes] == ["one", "two", "three"]
