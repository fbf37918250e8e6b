"""What the nodes have in common: their form's last page, the job file, the engine's runs and messages."""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import time

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol.constants import GPU_LIST, LEVEL_ADVANCED, USE_GPU
from pyworkflow.protocol.params import BooleanParam, StringParam

from .. import Plugin, __version__
from ..constants import INPUT_FOLDER, JOB_FILE, OUTPUT_LOG, RESULT_FOLDER
from ..convert.locations import user_files
from .batches import write_json
from .form import form_errors, form_values

_TAIL = 65536
_KILLED = (-9, 137)  # as Python and as a shell tell it
# The one line that the command line prints on bad input, and the same in its log.
_MESSAGE = re.compile(r"^(?:cryolike-scipion \w+: |.* stopped: )(.*)$", re.MULTILINE)


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

    def _defineGpu(self, form):
        form.addHidden(
            USE_GPU,
            BooleanParam,
            default=False,
            label="Use GPU?",
            help="Compute on a GPU if there is one; without one the CPU is used in any case. The GPU runs the same code "
            "and is not tested as thoroughly yet.",
        )
        form.addHidden(
            GPU_LIST,
            StringParam,
            default="0",
            expertLevel=LEVEL_ADVANCED,
            label="GPU IDs",
            help="Numbers of the GPUs to use, such as 0 1 2. Each works on a step of its own, for which there must be a "
            "Scipion thread: three GPUs need four Scipion threads.",
        )

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
        shutil.rmtree(self._inputFolder(), ignore_errors=True)
        parameters = dict(self._formValues(), **self._writeInput())
        self._writeJob(self._getExtraPath(JOB_FILE), self._verb, dict(parameters, out=self._getExtraPath(RESULT_FOLDER)))

    def engineStep(self, key):
        """Run the engine."""
        self._runEngine(self._getExtraPath(JOB_FILE), self._resultPath(self._resultFile))

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

    def _writeJob(self, path, verb, parameters):
        write_json(path, {"version": __version__, "verb": verb, "parameters": parameters})

    def _runEngine(self, job, result, gpu=None):
        """Run the engine and make sure that it finished: a queue does not tell how its job ended.

        Parameters
        ----------
        job : its job file.
        result : the file that it writes last; an old one is removed before.
        gpu : the GPU that this step has borrowed; None where it has none, or the queue decides.
        """
        if os.path.exists(result):
            os.remove(result)
        log = os.path.join(os.path.dirname(result), OUTPUT_LOG)
        said = {path: _size(path) for path in (log, self.getStderrLog())}
        began = time.time()
        try:
            Plugin.runEngine(self, job, self._engineThreads(), "auto" if self.usesGpu() else "cpu", gpu)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(self._engineMessage(said) or _how_it_ended(error.returncode)) from None
        if not os.path.exists(result):
            message = self._engineMessage(said) or self._queueMessage(began)
            raise RuntimeError(message or f"The engine ended without writing {result}.")

    def _engineThreads(self):
        """Return the number of CPU threads of one engine."""
        return max(1, self.getBinThreads())

    def _queueMessage(self, began):
        """Return what the queue wrote last about a job of this run, nothing where there is no queue.

        Parameters
        ----------
        began : when the job was submitted, in seconds since the epoch.
        """
        if not self.useQueueForSteps():
            return ""
        logs = glob.glob(glob.escape(self._getLogsPath()) + "/*.err")
        recent = sorted((path for path in logs if os.path.getmtime(path) >= began - 2), key=os.path.getmtime)
        lines = [line.strip() for path in recent for line in _tail(path).splitlines() if line.strip()]
        said = f" It said: {lines[-1]}" if lines else ""
        return (
            "The queue's job ended without a result: it was cancelled, or ran out of time or memory. Continue the run to do "
            f"what is left.{said}"
        )

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
        return hash_of([__version__, self._verb, self._formValues(), self._inputIdentity()])

    def _engineMessage(self, said):
        """Return why the engine stopped, with the user's file names for our links; nothing if it did not say.

        Parameters
        ----------
        said : dict
            The standard error and the engine's log (a queue keeps the former elsewhere), each with its size
            before this start.
        """
        found = [_MESSAGE.findall(_tail(path, start)) for path, start in said.items()]
        message = next((lines[-1] for lines in found if lines), "")
        for name, source in user_files(self._inputFolder()).items():
            message = message.replace(os.path.abspath(name), source).replace(name, source)
        return message

    # -------------------------- info --------------------------

    def _progress(self):
        """Return the engine's last progress line while it works, nothing before or after."""
        if not self.isActive():
            return []
        lines = [line for line in _tail(self._resultPath(OUTPUT_LOG)).splitlines() if "% (" in line]
        return [lines[-1].split(" INFO ")[-1]] if lines else ["The engine has not reported yet."]


def hash_of(decisive):
    """Return the hash of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, ensure_ascii=True).encode("ascii")).hexdigest()


def _how_it_ended(status):
    if status in _KILLED:
        return (
            "The engine was killed, most often for want of memory. Set a lower bound for the memory, then "
            "continue: finished work is kept."
        )
    return f"The engine ended with status {status}; its last words are in the log."


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _tail(path, start=0):
    """Return the end of a text file, at most what was written after its first `start` bytes."""
    if not os.path.exists(path):
        return ""
    with open(path, "rb") as stream:
        stream.seek(max(start, _size(path) - _TAIL))
        return stream.read().decode("utf-8", "replace")
