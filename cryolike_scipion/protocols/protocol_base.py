"""What the three nodes have in common: their steps, the job file, and the engine's messages."""

import hashlib
import json
import os
import subprocess

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol.constants import GPU_LIST, LEVEL_ADVANCED, USE_GPU
from pyworkflow.protocol.params import BooleanParam, StringParam

from .. import Plugin, __version__
from ..constants import INPUT_FOLDER, JOB_FILE, OUTPUT_LOG, RESULT_FOLDER
from .form import form_errors, form_values

_TAIL = 65536


class ProtCryolikeBase(EMProtocol):
    """Write the input and ``job.json``, run the engine once, read its files.

    A subclass says which `_verb` it runs, which engine parameters its form has (`_parameterNames`), what its
    input is (`_inputIdentity`, `_writeInput`), which file proves that the engine has finished
    (`_resultFile`), and how that becomes Scipion's output (`_createOutput`).
    """

    _devStatus = BETA
    _verb = None
    _resultFile = None

    # -------------------------- form --------------------------

    def _defineComputing(self, form):
        form.addHidden(
            USE_GPU,
            BooleanParam,
            default=True,
            label="Use GPU?",
            help="Compute on a GPU if there is one; without one the CPU is used in any case.",
        )
        form.addHidden(
            GPU_LIST,
            StringParam,
            default="0",
            expertLevel=LEVEL_ADVANCED,
            label="GPU ID",
            help="Number of the GPU to use.",
        )
        form.addParallelSection(threads=4, mpi=0)

    def _parameterNames(self):
        """Return the names of the engine parameters that the form decides, as its conditions are now."""
        raise NotImplementedError

    # -------------------------- steps --------------------------

    def _insertAllSteps(self):
        # The key is an argument of every step, so that continuing a run repeats what its changes concern.
        key = self._resultKey()
        self._insertFunctionStep(self.convertInputStep, key, needsGPU=False)
        self._insertFunctionStep(self.engineStep, key, needsGPU=True)
        self._insertFunctionStep(self.createOutputStep, key, needsGPU=False)

    def convertInputStep(self, key):
        """Write the engine's input and its job file."""
        job = {
            "version": __version__,
            "verb": self._verb,
            "parameters": dict(self._formValues(), **self._writeInput()),
        }
        job["parameters"]["out"] = self._getExtraPath(RESULT_FOLDER)
        name = self._getExtraPath(JOB_FILE)
        with open(name + ".tmp", "w", encoding="utf-8") as stream:
            json.dump(job, stream, indent=1, ensure_ascii=False, sort_keys=True)
        os.replace(name + ".tmp", name)

    def engineStep(self, key):
        """Run the engine and make sure that it finished: a queue does not tell how its job ended."""
        result = self._resultPath(self._resultFile)
        if os.path.exists(result):
            os.remove(result)
        try:
            Plugin.runEngine(
                self, self._getExtraPath(JOB_FILE), self._usesGpu(), max(1, self.numberOfThreads.get())
            )
        except subprocess.CalledProcessError as error:
            raise RuntimeError(self._engineMessage() or str(error)) from None
        if not os.path.exists(result):
            raise RuntimeError(self._engineMessage() or f"The engine ended without writing {result}.")

    def createOutputStep(self, key):
        """Turn the engine's files into Scipion's output."""
        self._createOutput()

    def _writeInput(self):
        """Write the input files; return the job's parameters that name them."""
        raise NotImplementedError

    def _inputIdentity(self):
        """Return what tells this input from another one, in types that JSON knows."""
        raise NotImplementedError

    def _createOutput(self):
        raise NotImplementedError

    # -------------------------- helpers --------------------------

    def _usesGpu(self):
        return bool(self.getAttributeValue(USE_GPU, True))

    def _formValues(self):
        return form_values(self, self._verb, self._parameterNames())

    def _formErrors(self):
        return form_errors(self, self._verb, self._parameterNames())

    def _resultPath(self, name):
        return self._getExtraPath(RESULT_FOLDER, name)

    def _inputFolder(self):
        return self._getExtraPath(INPUT_FOLDER)

    def _resultKey(self):
        """Return a hash of everything that decides the result."""
        decisive = [__version__, self._verb, self._formValues(), self._inputIdentity()]
        text = json.dumps(decisive, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def _engineMessage(self):
        """Return the engine's last line on standard error, with the user's file names for our links."""
        marker = f"cryolike-scipion {self._verb}: "
        lines = [line for line in _tail(self.getStderrLog()).splitlines() if line.startswith(marker)]
        message = lines[-1][len(marker) :] if lines else ""
        for link, source in sorted(self._linkedFiles().items(), reverse=True):
            message = message.replace(os.path.abspath(link), source).replace(link, source)
        return message

    def _linkedFiles(self):
        folder = self._inputFolder()
        names = os.listdir(folder) if os.path.isdir(folder) else []
        links = [os.path.join(folder, name) for name in names]
        return {link: os.readlink(link) for link in links if os.path.islink(link)}

    # -------------------------- info --------------------------

    def _progress(self):
        """Return the engine's last progress line while it works, nothing before or after."""
        if not self.isActive():
            return []
        lines = [line for line in _tail(self._resultPath(OUTPUT_LOG)).splitlines() if "% (" in line]
        return [lines[-1].split(" INFO ")[-1]] if lines else ["The engine has not reported yet."]


def file_identity(path):
    """Return what tells a file from another one without reading it: name, size, time of its last change."""
    if not os.path.exists(path):
        return [path, None, None]
    status = os.stat(path)
    return [path, status.st_size, status.st_mtime_ns]


def set_identity(items):
    """Return what tells a Scipion set from another one, or from itself before it changed."""
    return [items.getSize()] + file_identity(items.getFileName())


def _tail(path):
    if not os.path.exists(path):
        return ""
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - _TAIL))
        return stream.read().decode("utf-8", "replace")
