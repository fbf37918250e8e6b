"""The workflow templates and the example for Slurm, as far as they can be checked without running them."""

import json
import os

import pytest
import pyworkflow
from pyworkflow.protocol.hosts import HostConfig

from cryolike_scipion import workflow
from cryolike_scipion.protocols import ProtCryolikeConvertParticles

from .scipion_project import ScipionProject

TEMPLATES = workflow.shipped_templates()
NOT_PARAMETERS = {"object.className", "object.id", "object.label", "runMode"}


def values_for(path, folder):
    """Return words for all parameters of a template: what it has, and something right where it has nothing."""
    words = {"pixel": "50.5", "mask": "120", "maps": str(folder), "structures": str(folder), "particles": str(folder)}
    return [f"{name}={words[name]}" for name in workflow._by_name(workflow._parsed(path)) if name in words]


def test_every_template_of_the_issue_is_there():
    names = [os.path.basename(path).split(".")[0] for path in TEMPLATES]
    assert names == ["cryolike-cryosparc-maps", "cryolike-ensemble", "cryolike-relion-maps", "cryolike-streaming"]


@pytest.mark.parametrize("path", TEMPLATES, ids=os.path.basename)
def test_nodes_and_parameters_of_a_template_exist(path, tmp_path):
    nodes = json.loads(workflow.fill_template(path, values_for(path, tmp_path)))
    domain = pyworkflow.Config.getDomain()
    domain.getPlugins()
    known = domain.getProtocols()
    outputs = {}
    for node in nodes:
        protocol = known[node["object.className"]]()
        names = {name for name, _ in protocol.iterDefinitionAttributes()} | {"numberOfThreads", "binThreads"}
        assert set(node) - NOT_PARAMETERS <= names, node["object.label"]
        outputs[node["object.id"]] = set(known[node["object.className"]]().getPossibleOutputs() or ())
        for name, value in node.items():
            for text in value if isinstance(value, list) else [value]:
                number, _, output = str(text).partition(".")
                if number in outputs and output.startswith("output"):
                    found = {getattr(each, "name", each) for each in outputs[number]}
                    assert output in found, f"{name} of {node['object.label']} points to {output}"


def test_values_are_quoted_and_checked(tmp_path):
    path = workflow.find_template("cryolike-streaming")
    words = [f"maps={tmp_path}", "pixel=1.5", "mask=120", "gpu=True"]
    odd = 'a "b" \\ c=d/*.star'
    nodes = json.loads(workflow.fill_template(path, [*words, f"particles={odd}"]))
    assert nodes[0]["files"] == odd
    assert nodes[3]["useGpu"] is True
    for word, message in (
        ("pixel=big", "can't be converted"),
        ("batch=1.5", "integer"),
        ("maps=/no/such", "not exists"),
        ("nonsense", "is not name=value"),
        ("mask=", "a value is needed"),
    ):
        with pytest.raises(workflow.WorkflowError, match=message):
            workflow.fill_template(path, [*words, word])
    with pytest.raises(workflow.WorkflowError, match="there is no template 'x'; there are cryolike-cryosparc-maps, "):
        workflow.find_template("x")


def test_options_may_stand_anywhere():
    given = workflow._parser().parse_intermixed_args(["t", "p", "a=1", "--queue", "main", "--queue-steps", "b=2"])
    assert given.values == ["a=1", "b=2"]
    given.queue_param = ["JOB_HOURS=4"]
    assert workflow._queue(given) == ["main", {"JOB_HOURS": "4", "QUEUE_FOR_JOBS": "Y"}]


def test_the_example_for_slurm_has_all_that_its_script_needs():
    hosts = os.path.join(workflow.TEMPLATE_FOLDER, "hosts.slurm.conf")
    host = HostConfig.load(hosts)["localhost"]
    assert host.getJobDoneRegex() is None
    project = ScipionProject("slurm_example")
    try:
        protocol = project.new(ProtCryolikeConvertParticles, binThreads=3)
        protocol.setHostConfig(host)
        for name in host.getQueueSystem().queues:
            queue, parameters = workflow._with_defaults(OneHost(host), name, {"JOB_HOURS": "4"})
            protocol.setQueueParams([queue, parameters])
            values = dict(host.getQueuesDefault(), **protocol.getSubmitDict())
            values["JOB_COMMAND"] = "true"
            script = host.getSubmitTemplate() % values
            assert f"\n#SBATCH --partition={name}\n" in script and "\n#SBATCH --time=4:00:00\n" in script
            assert "\n#SBATCH --cpus-per-task=3\n" in script
            assert script.endswith("\ntrue")
            assert (host.getSubmitCommand() % values).startswith("sbatch " + parameters.get("JOB_EXTRA", ""))
        with pytest.raises(workflow.WorkflowError, match="has no queue 'night'; it has main, gpu"):
            workflow._with_defaults(OneHost(host), "night", {})
    finally:
        project.close()


def test_a_command_that_was_wrong_leaves_no_project_and_one_without_nodes_has_not_finished(tmp_path):
    folder = os.path.join(os.environ["SCIPION_USER_DATA"], "projects", "wrong-queue")
    node = {"object.className": "ProtCryolikeConvertParticles", "object.id": "2", "object.label": "convert"}
    with pytest.raises(workflow.WorkflowError, match="has no queue 'nihgt'"):
        workflow.open_project("wrong queue", json.dumps([node]), ["nihgt", {}])
    with pytest.raises(workflow.WorkflowError, match="not installed: ProtNone"):
        workflow.open_project("wrong queue", json.dumps([dict(node, **{"object.className": "ProtNone"})]))
    assert not os.path.exists(folder)
    before, said = os.getcwd(), []
    try:
        assert not workflow.run_project(workflow.open_project("wrong queue", "[]"), said.append)
    finally:
        os.chdir(before)
    assert "has no nodes" in said[0]


class OneHost:
    """A project that knows one host."""

    def __init__(self, host):
        self._host = host

    def getHostConfig(self, name):
        return self._host
