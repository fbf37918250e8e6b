"""The way from Scipion to its engine: which Python, which command, which environment variables."""

import json
import os
import shlex
import stat
import subprocess
import sys

import pwem
import pytest
import pyworkflow
from scipion.install.funcs import Environment

import cryolike_scipion
from cryolike_scipion import environment
from cryolike_scipion.constants import (
    CRYOLIKE_BASE_PYTHON,
    CRYOLIKE_ENV_ACTIVATION,
    CRYOLIKE_PYTHON,
    ENGINE_MODULES,
    ENGINE_READY,
    ENGINE_REQUIREMENTS,
)

pyworkflow.Config.getDomain().getPlugins()
Plugin = cryolike_scipion.Plugin


@pytest.fixture()
def variables(monkeypatch):
    """Set variables of the plugin for one test."""
    kept = dict(Plugin._vars)

    def change(**values):
        Plugin._vars.update(values)

    change(**{CRYOLIKE_PYTHON: "", CRYOLIKE_ENV_ACTIVATION: "", CRYOLIKE_BASE_PYTHON: ""})
    yield change
    Plugin._vars.clear()
    Plugin._vars.update(kept)


@pytest.fixture()
def without_own_engine(monkeypatch, tmp_path):
    """A Scipion whose Python cannot run the engine, with its software in an empty folder."""
    monkeypatch.setattr(Plugin, "hasOwnEngine", staticmethod(lambda: False))
    monkeypatch.setattr(pwem.Config, "EM_ROOT", str(tmp_path / "em"))
    return tmp_path / "em"


def make_program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_scipion_finds_the_plugin_and_all_it_has():
    domain = pyworkflow.Config.getDomain()
    assert "cryolike_scipion" in domain.getPlugins()
    assert {"ProtCryolikeGenerateTemplates", "ProtCryolikeConvertParticles", "ProtCryolikeLikelihood"} <= set(
        domain.getProtocols()
    )
    assert "SetOfCryolikeTemplates" in domain.getObjects()
    plugin = domain.getPluginModule("cryolike_scipion")._pluginInstance
    assert plugin.getName() == "cryolike_scipion"
    assert os.path.isfile(os.path.join(plugin.getPath(), cryolike_scipion._logo))


def test_every_required_package_is_looked_for():
    assert [name.split(">")[0].split("=")[0] for name in ENGINE_REQUIREMENTS] == list(ENGINE_MODULES)
    assert ENGINE_REQUIREMENTS[0].startswith("torch==")


def test_environ_hides_scipions_packages(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("KEPT", "yes")
    environ = Plugin.getEnviron()
    assert not {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"} & set(environ)
    assert environ["PYTHONNOUSERSITE"] == "1"
    assert environ["KEPT"] == "yes"


def test_a_given_python_comes_first_and_is_quoted(variables, tmp_path):
    odd = tmp_path / "a b $(touch oops) 100%"
    odd.mkdir()
    python = make_program(odd / "python", 'echo "$CUDA_VISIBLE_DEVICES $@"\n')
    variables(CRYOLIKE_PYTHON=python, CRYOLIKE_ENV_ACTIVATION="activate")
    assert Plugin.validateInstallation() == []
    assert Plugin.getEnginePython() == python
    done = subprocess.run(  # noqa: S602 (as runJob does)
        Plugin.getEngineCommand() + " x",
        shell=True,
        stdout=subprocess.PIPE,
        cwd=str(tmp_path),
        env={"PATH": os.environ["PATH"]},
        check=True,
    )
    assert done.stdout.decode().rstrip("\n") == " x"
    assert not (tmp_path / "oops").exists()


def test_a_wrong_python_is_named(variables):
    variables(CRYOLIKE_PYTHON="/no/such/python")
    assert "CRYOLIKE_PYTHON is set to /no/such/python, which is not a program" in Plugin.validateInstallation()[0]


def test_activation_command(variables, without_own_engine, monkeypatch, tmp_path):
    monkeypatch.setattr(pwem.Config, "CONDA_ACTIVATION_CMD", ". /hook")
    variables(CRYOLIKE_ENV_ACTIVATION="conda activate cryolike")
    assert Plugin.validateInstallation() == []
    assert Plugin.getEnginePython() is None
    assert Plugin.getEngineCommand() == ". /hook &&  conda activate cryolike && python"


def test_engine_is_called_through_an_activation_command(variables, without_own_engine, monkeypatch, tmp_path):
    make_program(tmp_path / "python", 'printf "%s\\n" "$@" > "$OUT"\n')
    monkeypatch.setattr(pwem.Config, "CONDA_ACTIVATION_CMD", "")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    variables(CRYOLIKE_ENV_ACTIVATION=f"PATH={shlex.quote(str(tmp_path))}:$PATH")
    Plugin.callEngine(["inspect", "a b $(x)", "--row", 3])
    assert (tmp_path / "out").read_text().splitlines() == [
        "-m",
        "cryolike_scipion",
        "inspect",
        "a b $(x)",
        "--row",
        "3",
    ]


def test_a_failing_engine_is_quoted(variables, tmp_path):
    variables(CRYOLIKE_PYTHON=make_program(tmp_path / "python", "echo first >&2\necho 'it broke.' >&2\nexit 2\n"))
    with pytest.raises(RuntimeError, match=r"^it broke\.$"):
        Plugin.callEngine(["inspect"])


def test_without_an_engine_the_user_is_told_how_to_get_one(variables, without_own_engine):
    (problem,) = Plugin.validateInstallation()
    assert f"is not installed in {Plugin.getEngineHome()}" in problem
    assert "scipion3 installb cryolike" in problem


def test_an_environment_for_other_packages_or_another_plugin_is_refused(without_own_engine, variables):
    python = without_own_engine / "cryolike-1.0" / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    marker = without_own_engine / "cryolike-1.0" / ENGINE_READY
    marker.write_text(json.dumps({"requirements": ["torch==0"], "link": environment._FOLDER}))
    assert "made for other versions" in Plugin.validateInstallation()[0]
    marker.write_text(json.dumps({"requirements": list(ENGINE_REQUIREMENTS), "link": "/elsewhere"}))
    assert "belongs to another copy" in Plugin.validateInstallation()[0]
    marker.write_text(json.dumps({"requirements": list(ENGINE_REQUIREMENTS), "link": environment._FOLDER}))
    assert Plugin.validateInstallation() == []
    assert Plugin.getEngineCommand() == str(python)


@pytest.mark.parametrize("own", [True, False])
def test_binaries_are_the_default_where_the_engine_is_missing(variables, monkeypatch, own):
    monkeypatch.setattr(Plugin, "hasOwnEngine", staticmethod(lambda: own))
    variables(CRYOLIKE_BASE_PYTHON="/a b/python3")
    env = Environment(args=[])
    Plugin.defineBinaries(env)
    target = env.getTarget("cryolike")
    assert target.isDefault() is not own
    make, *_ = target._finalCommands
    assert "environment.py --folder . --python '/a b/python3'" in make._cmd
    assert make._targets[0].endswith(ENGINE_READY)


# ---------------------------------------------------------------- making the environment


def test_the_python_found_runs_and_is_new_enough(monkeypatch):
    assert environment._python_version(environment.find_python()) >= (3, 10)


def test_names_in_the_path_that_do_not_run_are_passed_over(monkeypatch, tmp_path):
    make_program(tmp_path / "python3.11", "echo 'command not found' >&2\nexit 127\n")
    make_program(tmp_path / "python3.12", "echo 3 7\n")
    good = make_program(tmp_path / "python3.10", "echo 3 10\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert environment.find_python() == good


def test_too_old_a_python_is_refused_with_its_variable(tmp_path, capsys):
    old = make_program(tmp_path / "python3", "echo 3 9\n")
    assert environment.main(["--folder", str(tmp_path / "env"), "--python", old]) == 1
    assert "is not a Python 3.10 or later. Correct CRYOLIKE_BASE_PYTHON" in capsys.readouterr().err


def test_no_python_and_no_conda(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment, "find_python", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.main(["--folder", str(tmp_path / "env")]) == 1
    assert "Set CRYOLIKE_BASE_PYTHON" in capsys.readouterr().err


def test_steps_of_the_installation(monkeypatch, tmp_path):
    """With a Python that only notes what it is asked: torch first, then all, the link, and the check."""
    notes = tmp_path / "notes"
    site = tmp_path / "site"
    site.mkdir()
    where, note = shlex.quote(str(site)), shlex.quote(str(notes))
    engine = f'case "$*" in *purelib*) echo {where};; *) echo "$@" >> {note};; esac\n'
    conda = (
        'mkdir -p "$4/bin" && printf "%s" "$ENGINE" > "$4/bin/python" && chmod +x "$4/bin/python"\n'
        f'echo conda "$1" "$2" "$3" "$5" "$6" >> {note}\n'
    )
    make_program(tmp_path / "conda", conda)
    monkeypatch.setenv("ENGINE", "#!/bin/sh\n" + engine)
    monkeypatch.setattr(environment, "find_python", lambda: None)
    home = tmp_path / "home dir"
    home.mkdir()
    environment.make_environment(str(home), conda=f"PATH={tmp_path}:$PATH")
    lines = notes.read_text().splitlines()
    assert lines[0] == "conda create -y -p python=3.11 pip"
    assert lines[1] == "-m pip install " + ENGINE_REQUIREMENTS[0]
    assert lines[2] == "-m pip install " + " ".join(ENGINE_REQUIREMENTS)
    assert lines[3].startswith("-c import cryolike_scipion.engine")
    link = site / "cryolike_scipion"
    assert os.path.samefile(str(link), os.path.dirname(cryolike_scipion.__file__))
    assert environment.environment_problem(str(home), os.path.dirname(cryolike_scipion.__file__)) is None


def test_a_failed_command_leaves_no_marker(monkeypatch, tmp_path, capsys):
    broken = make_program(tmp_path / "python3", 'test "$2" = venv && exit 1\necho 3 11\n')
    assert environment.main(["--folder", str(tmp_path), "--python", broken]) == 1
    assert f"this command failed: {broken} -m venv" in capsys.readouterr().err
    assert not (tmp_path / ENGINE_READY).exists()
