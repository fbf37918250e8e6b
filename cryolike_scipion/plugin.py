"""The plugin as Scipion sees it: its variables, its binaries and the way to its engine."""

import importlib.util
import os
import shlex
import subprocess
import sys

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import VarTypes

from . import _logo, _references  # noqa: F401
from .constants import (
    CRYOLIKE_BASE_PYTHON,
    CRYOLIKE_ENV_ACTIVATION,
    CRYOLIKE_PYTHON,
    ENGINE_BINARY,
    ENGINE_ENVIRONMENT_VERSION,
    ENGINE_MINIMUM_PYTHON,
    ENGINE_MODULES,
    ENGINE_READY,
    PACKAGE,
)
from .environment import environment_problem, environment_python

PACKAGE_FOLDER = os.path.dirname(os.path.abspath(__file__))
_HIDDEN = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")


class Plugin(pwem.Plugin):
    """Scipion's handle on this package.

    The engine runs in the first of these that is there: the interpreter in ``CRYOLIKE_PYTHON``, the
    environment activated by ``CRYOLIKE_ENV_ACTIVATION``, Scipion's own Python if the engine's packages are
    installed in it, the environment that ``scipion3 installb cryolike`` makes.
    """

    # pyworkflow finds a plugin's folder and name by the module of its class.
    __module__ = PACKAGE
    _supportedVersions = [ENGINE_ENVIRONMENT_VERSION]
    _processingField = ["SPA"]

    @classmethod
    def _defineVariables(cls):
        cls._defineVar(
            CRYOLIKE_PYTHON,
            "",
            var_type=VarTypes.PATH,
            description="Python interpreter that runs the CryoLike engine. Empty: found by the plugin.",
        )
        cls._defineVar(
            CRYOLIKE_ENV_ACTIVATION,
            "",
            var_type=VarTypes.STRING,
            description="Command that activates the environment of the CryoLike engine, for instance "
            "'conda activate cryolike'. Used when CRYOLIKE_PYTHON is empty.",
        )
        cls._defineVar(
            CRYOLIKE_BASE_PYTHON,
            "",
            var_type=VarTypes.PATH,
            description="Python 3.10 or later from which 'installb cryolike' makes the engine's "
            "environment. Empty: looked for in the PATH, then conda is asked for one.",
        )

    # ------------------------------------------------------------ installation

    @classmethod
    def getEngineHome(cls):
        """Folder of the engine's own environment, whether it is there or not."""
        return os.path.join(pwem.Config.EM_ROOT, f"{ENGINE_BINARY}-{ENGINE_ENVIRONMENT_VERSION}")

    @classmethod
    def defineBinaries(cls, env):
        """Offer the engine's environment to ``scipion3 installb``; default if Scipion's Python lacks it."""
        script = os.path.join(PACKAGE_FOLDER, "environment.py")
        command = [sys.executable, script, "--folder", "."]
        if cls.getVar(CRYOLIKE_BASE_PYTHON):
            command += ["--python", cls.getVar(CRYOLIKE_BASE_PYTHON)]
        command += ["--conda", pwem.Config.CONDA_ACTIVATION_CMD or ""]
        env.addPackage(
            ENGINE_BINARY,
            version=ENGINE_ENVIRONMENT_VERSION,
            tar="void.tgz",
            commands=[(" ".join(shlex.quote(word) for word in command), ENGINE_READY)],
            default=not cls.hasOwnEngine(),
        )

    @staticmethod
    def hasOwnEngine():
        """Whether Scipion's own Python can run the engine."""
        return sys.version_info >= ENGINE_MINIMUM_PYTHON and all(importlib.util.find_spec(name) for name in ENGINE_MODULES)

    @classmethod
    def validateInstallation(cls):
        """Return what is wrong with the engine's installation, nothing if it can be started."""
        python = cls.getVar(CRYOLIKE_PYTHON)
        if python:
            if os.path.isfile(python) and os.access(python, os.X_OK):
                return []
            return [
                f"{CRYOLIKE_PYTHON} is set to {python}, which is not a program. Correct it in Scipion's "
                "configuration, or empty it."
            ]
        if cls.getVar(CRYOLIKE_ENV_ACTIVATION) or cls.hasOwnEngine():
            return []
        problem = environment_problem(cls.getEngineHome(), PACKAGE_FOLDER)
        remedy = (
            f"Run 'scipion3 installb {ENGINE_BINARY}', or set {CRYOLIKE_PYTHON} or {CRYOLIKE_ENV_ACTIVATION} "
            "in Scipion's configuration."
        )
        return [f"{problem} {remedy}"] if problem else []

    @classmethod
    def getActiveVersion(cls, home=None, versions=None):
        """Return the version of the engine's environment (the engine's own is that of this package)."""
        return ENGINE_ENVIRONMENT_VERSION

    # ------------------------------------------------------------ running the engine

    @classmethod
    def getEnviron(cls):
        """Return the environment for the engine, without what would mix Scipion's packages into it."""
        environ = pwutils.Environ(os.environ)
        for name in _HIDDEN:
            environ.pop(name, None)
        environ["PYTHONNOUSERSITE"] = "1"
        return environ

    @classmethod
    def getEnginePython(cls):
        """Return the interpreter that runs the engine, or None if an activation command decides it."""
        if cls.getVar(CRYOLIKE_PYTHON):
            return cls.getVar(CRYOLIKE_PYTHON)
        if cls.getVar(CRYOLIKE_ENV_ACTIVATION):
            return None
        return sys.executable if cls.hasOwnEngine() else environment_python(cls.getEngineHome())

    @classmethod
    def getEngineCommand(cls):
        """Return the start of the shell command for the engine; what follows are its arguments."""
        python = cls.getEnginePython()
        return shlex.quote(python) if python else cls._activation() + "python"

    @classmethod
    def _activation(cls):
        conda = pwem.Config.CONDA_ACTIVATION_CMD or ""
        if conda and conda.rstrip()[-1] not in ";&":
            conda += " && "
        return f"{conda} {cls.getVar(CRYOLIKE_ENV_ACTIVATION)} && "

    @classmethod
    def runEngine(cls, protocol, jobFile, threads, device="cpu", gpu=None):
        """Run one ``job.json`` as a step of `protocol`, through its queue if it has one.

        ``runJob`` goes through a shell, and a queue's job script through ``%`` formatting, therefore `jobFile` is
        the only name in the command, and it is made by Scipion from the protocol's class and number.

        Parameters
        ----------
        protocol : the protocol.
        jobFile : relative to the project's folder.
        threads : CPU threads of the engine.
        device : "cpu", or "auto" for a GPU where there is one.
        gpu : show the engine only this GPU; None leaves it to the queue.
        """
        environ = cls.getEnviron()
        if gpu is not None:
            environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        protocol.runJob(
            cls.getEngineCommand(),
            f"-m {PACKAGE} run --job {jobFile} --device {device} --threads {threads}",
            env=environ,
            numberOfMpi=1,
        )

    @classmethod
    def callEngine(cls, arguments):
        """Run the engine at once and wait, for viewers and wizards.

        Parameters
        ----------
        arguments : list of str
            The verb and its options.

        Raises
        ------
        RuntimeError
            With the engine's own message, if it does not end well.
        """
        python = cls.getEnginePython()
        words = ["-m", PACKAGE] + [str(word) for word in arguments]
        if python:
            command = [python] + words
        else:
            command = ["bash", "-c", cls._activation() + 'exec python "$@"', "bash"] + words
        done = subprocess.run(command, env=cls.getEnviron(), capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            message = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise RuntimeError(message[-1] if message else f"the engine ended with status {done.returncode}")
