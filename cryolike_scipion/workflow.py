"""Run a workflow template without a window, from its file to the end: for facilities and scripts.

``scipion3 python -m cryolike_scipion.workflow TEMPLATE PROJECT name=value …`` fills in the template, makes the project, and
starts every node once, as soon as its inputs are there.  Given again it goes on with what was stopped or failed.
"""

import argparse
import glob
import json
import os
import sys
import time

from pyworkflow import Config, VarTypes
from pyworkflow.object import Set
from pyworkflow.project import Manager, Project
from pyworkflow.protocol import MODE_RESUME, Protocol
from pyworkflow.template import LocalTemplate

from .constants import OUTPUT_REPORT, OUTPUT_STAR, RESULT_FOLDER

TEMPLATE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
_ENDING = ".json.template"
_LOOK_EVERY = 1.0  # seconds
_TEXT, _YES_OR_NO = VarTypes.STRING.value, VarTypes.BOOLEAN.value


class WorkflowError(Exception):
    """The workflow cannot be made or has not finished; the text says why and what to do."""


def main(arguments=None):
    """Run from the command line; return the exit status: 0 all nodes finished, 1 some failed, 2 bad arguments."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        if not given.template:
            print("\n\n".join(describe_template(path) for path in shipped_templates()))
            return 0
        if not given.project:
            print(describe_template(find_template(given.template)))
            return 0
        text = fill_template(find_template(given.template), given.values)
        project = open_project(given.project, text, _queue(given))
    except WorkflowError as error:
        print(f"workflow: {error}", file=sys.stderr)
        return 2
    try:
        return 0 if run_project(project) else 1
    except KeyboardInterrupt:
        print("workflow: the runs that were started go on; the same command looks after them again", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m cryolike_scipion.workflow",
        description="Run a workflow template without a window. Without TEMPLATE all are listed, without PROJECT this one.",
    )
    parser.add_argument("template", nargs="?", metavar="TEMPLATE", help="name of a template of this plugin, or a file")
    parser.add_argument("project", nargs="?", metavar="PROJECT", help="name of the Scipion project; made when it is missing")
    parser.add_argument("values", nargs="*", metavar="name=value", help="parameters of the template")
    parser.add_argument("--queue", metavar="NAME", help="send the nodes that compute to this queue of hosts.conf")
    parser.add_argument("--queue-param", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the queue")
    parser.add_argument("--queue-steps", action="store_true", help="a job of the queue for each step, not for each node")
    return parser


def _queue(given):
    if not given.queue:
        return None
    parameters = _pairs(given.queue_param)
    parameters["QUEUE_FOR_JOBS"] = "Y" if given.queue_steps else "N"
    return [given.queue, parameters]


def _pairs(words):
    """Return a dict of ``name=value`` words."""
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise WorkflowError(f"{wrong[0]!r} is not name=value")
    return dict(word.split("=", 1) for word in words)


# ---------------------------------------------------------------- templates


def shipped_templates():
    """Return the template files of this plugin."""
    return sorted(glob.glob(os.path.join(glob.escape(TEMPLATE_FOLDER), "*" + _ENDING)))


def find_template(name):
    """Return the file of a template that is given by its name here or by its own file."""
    if os.path.isfile(name):
        return name
    path = os.path.join(TEMPLATE_FOLDER, name + _ENDING)
    if not os.path.isfile(path):
        names = ", ".join(os.path.basename(each)[: -len(_ENDING)] for each in shipped_templates())
        raise WorkflowError(f"there is no template {name!r}; there are {names}")
    return path


def _parsed(path):
    template = LocalTemplate("cryolike", path)
    template.replaceEnvVariables()
    template.parseContent()
    return template


def describe_template(path):
    """Return name, description and parameters of a template as text."""
    template = _parsed(path)
    lines = [f"{template.name}: {template.description}"]
    for name, (field, *_) in _by_name(template).items():
        default = f" [{field.getValue()}]" if field.getValue() else ""
        lines.append(f"    {name}=  {field.getTitle()}{default}")
    return "\n".join(lines)


def _by_name(template):
    """Return name to the places in the template that get its value."""
    fields = {}
    for field in template.params.values():
        fields.setdefault(field.getAlias(), []).append(field)
    return fields


def fill_template(path, words):
    """Return the workflow of a template as JSON text.

    Parameters
    ----------
    path : the template.
    words : list of str
        ``name=value``; names are the last part of ``~title|default|type|name~``.

    Raises
    ------
    WorkflowError
        If a name is unknown, or a value is missing or of another type.
    """
    given, template = _pairs(words), _parsed(path)
    fields = _by_name(template)
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise WorkflowError(f"{template.name} has no parameter {unknown[0]!r}; it has {', '.join(fields)}")
    content = list(template.content)
    for name, places in fields.items():
        for field in places:
            value = given.get(name, field.getValue())
            field.setValue(value)
            problem = field.validate() if value or field.getType() == _TEXT else "a value is needed."
            if problem:
                raise WorkflowError(f"{name}={value}: {problem} It is: {field.getTitle()}.")
            content[field.getIndex()] = value.lower() if field.getType() == _YES_OR_NO else json.dumps(value)[1:-1]
    return "".join(content)


# ---------------------------------------------------------------- projects


def open_project(name, workflow, queue=None):
    """Return the project of this name, made with the nodes of a workflow where it is missing.

    Parameters
    ----------
    name : str
    workflow : JSON text.
    queue : list of the queue's name and a dict of its parameters, for the nodes of this plugin that compute; None without.
    """
    domain = Config.getDomain()
    domain.getPlugins()
    domain.getProtocols()
    manager, name = Manager(), Project.cleanProjectName(name)
    if manager.hasProject(name):
        return manager.loadProject(name)
    missing = {item["object.className"] for item in json.loads(workflow)} - set(domain.getProtocols())
    if missing:
        raise WorkflowError(f"the template needs nodes that are not installed: {', '.join(sorted(missing))}")
    try:
        project = manager.createProject(name)
        _fill_project(project, workflow, queue)
    except Exception:  # a project without its nodes must not stand in the way of the next command
        manager.deleteProject(name)
        raise
    return project


def _fill_project(project, workflow, queue):
    """Add the nodes of a workflow to a new project."""
    from .protocols import ProtCryolikeImportParticles  # after the domain has its plugins

    if queue:
        queue = _with_defaults(project, *queue)
    project.loadProtocols(jsonStr=workflow)
    for protocol in project.getRuns():
        if queue and _is_ours(protocol) and not isinstance(protocol, ProtCryolikeImportParticles):
            protocol._useQueue.set(True)
            protocol.setQueueParams(queue)
            project.saveProtocol(protocol)


def _with_defaults(project, name, parameters):
    """Return a queue and its parameters, with those of hosts.conf where none are given."""
    queues = project.getHostConfig("localhost").getQueueSystem().queues or {}
    if name not in queues:
        raise WorkflowError(f"hosts.conf has no queue {name!r}; it has {', '.join(queues) or 'none'}")
    defaults = {parameter[0]: parameter[1] for parameter in queues[name]}
    return [name, dict(defaults, **parameters)]


def run_project(project, say=print):
    """Start every node when its inputs are ready, and wait until all have ended.

    Parameters
    ----------
    project : Project
    say : callable that gets the lines to show.

    Returns
    -------
    bool
        Whether there are nodes and all have finished.
    """
    os.chdir(project.path)
    started, shown = set(), {}
    while True:
        protocols = project.getRuns(refresh=True)
        for protocol in protocols:
            number = protocol.getObjId()
            if protocol.isActive():
                started.add(number)
            elif number not in started and not protocol.isFinished() and _is_ready(protocol):
                protocol.runMode.set(MODE_RESUME)
                project.launchProtocol(protocol, wait=False, force=True)
                started.add(number)
            line = _state(protocol)
            if shown.get(number) != line:
                shown[number] = line
                say(line)
        if not any(protocol.isActive() for protocol in protocols):
            break
        time.sleep(_LOOK_EVERY)
    if not protocols:
        say(f"The project {project.path} has no nodes. Delete it, or give another name.")
    for protocol in protocols:
        for line in _outcome(project, protocol, protocol.getObjId() in started):
            say(line)
    return bool(protocols) and all(protocol.isFinished() for protocol in protocols)


def _is_ready(protocol):
    """Whether all inputs are there, and closed where the node cannot work on open sets."""
    for _, pointer in protocol.iterInputPointers():
        value = pointer.get()
        if pointer.hasValue() and value is None:
            return False
        if isinstance(value, Protocol) and not value.isFinished():  # its files are read, not an output
            return False
        if isinstance(value, Set) and value.isStreamOpen() and not protocol.worksInStreaming():
            return False
    return not protocol.validate()


def _is_ours(protocol):
    return type(protocol).__module__.split(".")[0] == __package__


def _state(protocol):
    line = f"{protocol.getRunName()}: {protocol.getStatusMessage()}"
    if protocol.isActive() and _is_ours(protocol):
        line += "".join(f"; {text}" for text in protocol._progress())
    return line


def _outcome(project, protocol, was_started):
    """Yield what there is to say about a node in the end."""
    name = protocol.getRunName()
    if protocol.isFinished():
        for file in (OUTPUT_STAR, OUTPUT_REPORT):
            path = os.path.join(project.path, protocol._getExtraPath(RESULT_FOLDER, file))
            if os.path.exists(path):
                yield f"{name}: {path}"
    elif was_started:
        yield f"{name}: {protocol.getErrorMessage() or protocol.getStatus()}"
        yield f"{name}: see {os.path.join(project.path, protocol.getStderrLog())}"
    else:
        yield f"{name}: not started. " + (" ".join(protocol.validate()) or "Its input is not there.")


if __name__ == "__main__":
    sys.exit(main())
