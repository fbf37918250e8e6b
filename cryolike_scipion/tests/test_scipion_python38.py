"""The Scipion half under Python 3.8, which Scipion's installer makes, with the engine in its own environment.

Everything that the other ``test_scipion_*`` files check is checked again there.  Both environments are made
as a user makes them (pip, and the plugin's binaries) and kept in ``.tox38`` beside the package.
"""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = Path(os.environ.get("CRYOLIKE_TOX38", REPOSITORY / ".tox38"))
NEEDED = ("scipion-app", "scipion-em-relion", "emtools", "pytest>")
LOAD = "import pyworkflow; pyworkflow.Config.getDomain().getPlugins(); import cryolike_scipion as c\n"


def python38():
    """Return a Python 3.8 that runs; skip without one."""
    names = [shutil.which("python3.8")]
    for root in filter(None, (os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv"))):
        names += sorted(glob.glob(os.path.join(root, "versions", "3.8.*", "bin", "python3.8")))
    for name in filter(None, names):
        asked = subprocess.run([name, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True)
        if asked.returncode == 0 and asked.stdout.split() == [b"3", b"8"]:
            return name
    return pytest.skip("there is no Python 3.8 here")


@pytest.fixture(scope="module")
def scipion():
    """The interpreter of a Python 3.8 environment with Scipion and this plugin."""
    wanted = [
        line.strip() for line in (REPOSITORY / "requirements-test.txt").read_text().splitlines() if line.startswith(NEEDED)
    ]
    assert len(wanted) == len(NEEDED)
    base = python38()
    state = hashlib.sha256(repr([base, wanted, (REPOSITORY / "setup.py").read_text()]).encode()).hexdigest()
    folder, stamp = CACHE / "scipion", CACHE / "scipion.stamp"
    if not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(folder, ignore_errors=True)
        call([base, "-m", "venv", str(folder)])
        python = str(folder / "bin" / "python")
        call([python, "-m", "pip", "install", "-q", "--upgrade", "pip"])
        call([python, "-m", "pip", "install", "-q", "-e", str(REPOSITORY)] + wanted)
        stamp.write_text(state)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def engine(scipion):
    """Environment variables with which Scipion finds an engine that its own installer made."""
    software = CACHE / "software" / "em"
    home = CACHE / "home"
    for folder in (software, home):
        folder.mkdir(parents=True, exist_ok=True)
    (home / "hosts.conf").write_text("[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n")
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CRYOLIKE_PYTHON")}
    environ.update(
        SCIPION_DOMAIN="pwem",
        SCIPION_HOSTS=str(home / "hosts.conf"),
        SCIPION_HOME=str(home),
        SCIPION_USER_DATA=str(home / "data"),
        SCIPION_PYTHON=scipion,
        EM_ROOT=str(software),
        CRYOLIKE_BASE_PYTHON=getattr(sys, "_base_executable", sys.executable),
    )
    check = [scipion, "-c", LOAD + "raise SystemExit('; '.join(c.Plugin.validateInstallation()) or 0)"]
    if subprocess.run(check, env=environ, cwd=str(home), stderr=subprocess.DEVNULL).returncode != 0:
        shutil.rmtree(software, ignore_errors=True)
        software.mkdir()
        call([scipion, "-m", "scipion", "installb", "cryolike"], env=environ, cwd=str(home))
        call(check, env=environ, cwd=str(home))
    return environ


def call(command, **options):
    """Run a command; fail with what it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, "{}\n{}".format(command, done.stdout.decode(errors="replace")[-4000:])
    return done.stdout.decode(errors="replace")


def test_engine_has_its_own_python_and_these_very_files(scipion, engine):
    code = LOAD + (
        "import subprocess, sys\n"
        "assert not c.Plugin.hasOwnEngine() and sys.version_info[:2] == (3, 8)\n"
        "code = 'import cryolike_scipion as c, sys; print(sys.version_info[1], c.__file__)'\n"
        "subprocess.run([c.Plugin.getEnginePython(), '-c', code], env=c.Plugin.getEnviron(), check=True)\n"
    )
    said = call([scipion, "-c", code], env=engine, cwd="/")
    minor, file = said.split()[-2:]
    assert int(minor) >= 10
    assert os.path.samefile(file, str(HERE.parent / "__init__.py"))


# This file itself, and the windows, which take minutes and whose parts the other files look at.
NOT_AGAIN = (Path(__file__).name, "test_scipion_gui.py")


@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in HERE.glob("test_scipion_*.py") if path.name not in NOT_AGAIN)
    + ["test_architecture.py", "test_plots.py"],
)
def test_under_python_3_8(scipion, engine, name):
    said = call(
        [scipion, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)],
        env=engine,
        cwd=str(REPOSITORY),
    )
    assert " passed" in said or "the development data" in said  # without which there may be nothing to run
