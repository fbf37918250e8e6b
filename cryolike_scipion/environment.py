"""Make and check the engine's own environment: its dependencies, and a link to this package.

``scipion3 installb cryolike`` runs this file as a program.  It uses nothing but the standard library (Python
3.8) and imports nothing of this package, so that it works from any Python.  The package itself is linked, not
installed, into the environment: both halves are then always the same files.
"""

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_CONSTANTS = runpy.run_path(os.path.join(_FOLDER, "constants.py"))
_PACKAGE = _CONSTANTS["PACKAGE"]
_MINIMUM = _CONSTANTS["ENGINE_MINIMUM_PYTHON"]
_READY = _CONSTANTS["ENGINE_READY"]
_REQUIREMENTS = list(_CONSTANTS["ENGINE_REQUIREMENTS"])


class InstallationError(Exception):
    """The environment cannot be made; the text says what to do."""


def environment_python(home):
    """Return the interpreter of the environment in `home`, whether it is there or not."""
    return os.path.join(home, "env", "bin", "python")


def environment_problem(home, package_folder):
    """Return one sentence about what is wrong with the environment in `home`, None if nothing is."""
    marker = os.path.join(home, _READY)
    if not os.path.isfile(marker) or not os.path.exists(environment_python(home)):
        return f"The environment of the CryoLike engine is not installed in {home}."
    with open(marker) as stream:
        ready = json.load(stream)
    if ready["requirements"] != _REQUIREMENTS:
        return f"The environment of the CryoLike engine in {home} was made for other versions of its packages."
    if os.path.realpath(ready["link"]) != os.path.realpath(package_folder):
        return f"The environment of the CryoLike engine in {home} belongs to another copy of the plugin."
    return None


def make_environment(home, python=None, conda=""):
    """Make the engine's environment.

    Parameters
    ----------
    home : folder for it; what an earlier attempt left there is replaced.
    python : an interpreter of Python 3.10 or later; None looks for one in the PATH.
    conda : command that makes ``conda`` available, used when there is no such interpreter.

    Raises
    ------
    InstallationError
        If there is neither a Python nor a conda that can be used, or a command fails.
    """
    folder = os.path.join(os.path.abspath(home), "env")
    shutil.rmtree(folder, ignore_errors=True)
    base = _checked_python(python) if python else find_python()
    if base:
        _call([base, "-m", "venv", folder])
    elif conda or shutil.which("conda"):
        script = '%s conda create -y -p "$1" python=3.11 pip' % (_chain(conda) if conda else "")
        _call(["bash", "-c", script, "bash", folder])
    else:
        raise InstallationError(
            f"no Python {_MINIMUM[0]}.{_MINIMUM[1]} or later and no conda were found. Set "
            "CRYOLIKE_BASE_PYTHON to the path of such a Python in Scipion's configuration."
        )
    engine = os.path.join(folder, "bin", "python")
    # One after the other, torch first: its version is then fixed when the others are looked up.
    _call([engine, "-m", "pip", "install", _REQUIREMENTS[0]])
    _call([engine, "-m", "pip", "install"] + _REQUIREMENTS)
    packages = subprocess.run(
        [engine, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        stdout=subprocess.PIPE,
        env=_clean(os.environ),
    )
    link = os.path.join(packages.stdout.decode().strip(), _PACKAGE)
    os.symlink(_FOLDER, link)
    _call([engine, "-c", f"import {_PACKAGE}.engine, torch, finufft, gemmi"])
    _write_marker(os.path.join(os.path.abspath(home), _READY), link)


def find_python():
    """Return an interpreter of Python 3.10 or later, None if there is none.

    Every candidate is started, because version managers put names into the PATH that do not run.
    """
    names = ["python3.11", "python3.12", "python3.10", "python3.13", "python3"]
    candidates = [sys.executable] + [path for path in map(shutil.which, names) if path]
    roots = [os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv")]
    for root in filter(None, roots):
        versions = os.path.join(root, "versions")
        if os.path.isdir(versions):
            candidates += [os.path.join(versions, name, "bin", "python") for name in sorted(os.listdir(versions))]
    for candidate in candidates:
        if _python_version(candidate) >= _MINIMUM:
            return candidate
    return None


def _checked_python(python):
    version = _python_version(python)
    if version < _MINIMUM:
        raise InstallationError(
            f"{python} is not a Python {_MINIMUM[0]}.{_MINIMUM[1]} or later. Correct CRYOLIKE_BASE_PYTHON in "
            "Scipion's configuration."
        )
    return python


def _python_version(python):
    """Return (major, minor) of an interpreter with venv and pip, (0, 0) for what does not run."""
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [python, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=_clean(os.environ),
        )
        return tuple(int(word) for word in answer.stdout.split()) if answer.returncode == 0 else (0, 0)
    except (OSError, ValueError):
        return (0, 0)


def _chain(command):
    return command if command.rstrip()[-1] in ";&" else command + " &&"


def _clean(environ):
    """Return `environ` without what would mix another Python's packages into this one's."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    }
    kept["PYTHONNOUSERSITE"] = "1"
    return kept


def _call(command):
    print("+ " + " ".join(command), flush=True)
    if subprocess.call(command, env=_clean(os.environ), stdin=subprocess.DEVNULL) != 0:
        raise InstallationError("this command failed: {}".format(" ".join(command)))


def _write_marker(path, link):
    with open(path + ".tmp", "w") as stream:
        json.dump({"requirements": _REQUIREMENTS, "link": link}, stream, indent=1)
    os.replace(path + ".tmp", path)


def main(arguments=None):
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="where to make the environment")
    parser.add_argument("--python", help="a Python 3.10 or later")
    parser.add_argument("--conda", default="", help="command that makes conda available")
    given = parser.parse_args(arguments)
    try:
        make_environment(given.folder, given.python, given.conda)
    except InstallationError as error:
        print(f"The environment of the CryoLike engine was not made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
