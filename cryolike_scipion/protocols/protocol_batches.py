"""Nodes that work on particles in batches: in parallel, as particles come, through a queue, and again after a stop."""

import contextlib
import os
import time

from pwem.objects import SetOfParticles
from pyworkflow.constants import QUEUE_FOR_JOBS
from pyworkflow.protocol.constants import LEVEL_ADVANCED, STATUS_NEW, STEPS_PARALLEL
from pyworkflow.protocol.params import IntParam

from .. import __version__
from ..constants import RESULT_FOLDER
from ..convert.locations import StackNames
from ..convert.set_columns import read_attributes
from .batches import (
    Batch,
    batch_folder,
    file_identity,
    forget_batches,
    read_json,
    stored_batches,
    write_json,
)
from .gpu_pool import pool_of
from .particle_input import input_notes, original_star
from .protocol_base import ProtCryolikeBase, hash_of
from .run_progress import progress_line

# Parameters that say how fast, not what: a run that is continued may change them.
_FREE = ("memory", "batch_images", "batch_templates")
_STATE, _PROGRESS = "run.json", "progress.json"
# While particles come, a step begins when there are so many, or when the first of them has waited for so long.
_LEAST_PARTICLES, _LONGEST_WAIT = 50, 30.0
_LONGEST_BLIND = 45.0  # seconds until the input is looked at in any case: a file's size and time do not show every change
_SMALLEST_PART = 100  # of a set that is divided between steps that run at the same time: starting an engine takes seconds
_PARTS_EACH = 4


class ProtCryolikeBatches(ProtCryolikeBase):
    """Divide the particles into batches, run the engine once for each, and add its result to the output.

    A set that is complete and small is one batch, in the folders that a run of one step has. Otherwise every batch has a
    folder of its own, and what is made of all of them is up to the subclass (`_keepCurrent`, `_conclude`).

    Steps are inserted when the run starts and, as long as the input set is open, whenever particles have come. They are
    finished or not by what is on the disk (:mod:`~cryolike_scipion.protocols.batches`), not by Scipion's list of steps.
    """

    stepsExecutionMode = STEPS_PARALLEL
    _particlesPerStep = 2000
    _outputName = "outputParticles"

    # -------------------------- form --------------------------

    def _defineComputing(self, form):
        self._defineGpu(form)
        form.addParam(
            "particlesPerStep",
            IntParam,
            default=0,
            expertLevel=LEVEL_ADVANCED,
            label="Particles per step",
            help="Particles that one step works on. More save the seconds that starting a step takes; fewer show more of the "
            "progress, and lose less when a queue ends a job. While particles come a step takes what is there, at most "
            f"so many. 0: {self._particlesPerStep}, fewer where several steps run at the same time.\n\nUnit: particles.",
        )
        form.addParallelSection(
            threads=1,
            mpi=0,
            binThreads=4,
            binThreadsHelp="*Threads*:\nCPU threads of the engine in each step. Steps at the same time (one less than the "
            "Scipion threads, at least one) times these threads are the cores that the run uses.",
        )

    # -------------------------- steps --------------------------

    def _insertAllSteps(self):
        self._gpus = pool_of(self)
        self._inserted = {}  # step number: Batch
        self._waitingSince = None
        self._seen, self._lookedAt = None, 0.0  # the input's files when it was last looked at, and when that was
        self._left = 0  # particles that no batch had then
        self._began, self._before = time.time(), 0
        self._finish = None
        with contextlib.closing(self._openInput()) as source:
            isOpen = source.isStreamOpen()
            self._prepare(source)
            self._look(source, isOpen)
        self._finish = self._insertFunctionStep(
            self.finishStep,
            self._key,
            prerequisites=list(self._inserted),
            wait=isOpen,
            needsGPU=False,
        )

    def _stepsCheck(self):
        """Look for new particles; Scipion calls this every few seconds while the run works."""
        finish = self._steps[self._finish - 1]
        path = self.inputParticles.get().getFileName()
        seen = [file_identity(path), file_identity(path + "-wal")]
        isLate = time.time() - self._lookedAt >= _LONGEST_BLIND
        if finish.isWaiting() and (seen != self._seen or self._left or isLate):
            with contextlib.closing(self._openInput()) as source:
                isOpen = source.isStreamOpen()  # before its items: what comes later than this is in the next look
                self._look(source, isOpen)
            self._seen, self._lookedAt = seen, time.time()
            if not isOpen:
                finish.addPrerequisites(*self._inserted)
                finish.setStatus(STATUS_NEW)
                self._newSteps = True
        if self._newSteps:
            self.updateSteps()

    def batchStep(self, number, signature):
        """Run the engine on a batch and add its particles to the output."""
        batch = self._batches[number]
        if not batch.is_done(self._resultFile):
            self._runBatch(batch, self._resultFile)
        self._append(batch)
        self._keepCurrent()

    def finishStep(self, key):
        """Complete and close the output."""
        for number in sorted(self._batches):
            self._append(self._batches[number])
        if not self._batches:
            raise RuntimeError("The input was closed without a particle that could be used.")
        self._conclude()
        for line in self._inputNotes():
            self.info(line)
        self._noteProgress(isOpen=False)
        self._closeOutputSet()

    # -------------------------- for subclasses --------------------------

    def _resultKey(self):
        """Return a hash of what decides the result, but for the particles, of which each batch has its own."""
        values = {name: value for name, value in self._formValues().items() if name not in _FREE}
        return hash_of([__version__, self._verb, values, self._inputIdentity()])

    def _writeCommonInput(self):
        """Write what all batches share; return the job's parameters that name it."""
        return {}

    def _batchParameters(self, batch):
        """Return the job's parameters of a batch beside its particles."""
        return {}

    def _beforeBatches(self, ids, isOpen):
        """Insert what has to be done before the first batch; return the numbers of these steps, None to wait."""
        return []

    def _results(self, batch):
        """Return a function that puts the engine's result of a batch on a particle."""
        raise NotImplementedError

    def _describeOutput(self, particles):
        """Set what the output set is beside the input's properties."""

    def _defineRelations(self, output):
        """Tell Scipion what an output was made from."""
        self._defineSourceRelation(self.inputParticles, output)

    def _keepCurrent(self):
        """Called whenever a batch is done."""

    def _conclude(self):
        """Called when all batches are done, before the output is closed."""

    def _inputNotes(self):
        """Return what a user should know of how the particles reached the engine, one line each."""
        return input_notes(self._names, self._original)

    # -------------------------- batches --------------------------

    def _prepare(self, source):
        """Find the batches of an earlier start, and forget them if other parameters made them."""
        self._key = self._resultKey()
        known = read_json(self._getExtraPath(_STATE)) or {}
        self._fresh = known.get("output") != self._key
        if known.get("key") != self._key:
            forget_batches(self._getExtraPath())
            self._noteKeys(known.get("output"))
        self._names = StackNames(self._inputFolder())
        self._original = original_star(self, self.inputParticles.get())
        self._common = self._writeCommonInput()
        self._batches = {}
        self._assigned = set()
        self._ready = None
        self._appended = self._outputIds()
        self._before = len(self._appended)
        self._single = False
        present = set(self._enabledIds(source))
        self._stored = stored_batches(self._getExtraPath())
        if not present.issuperset(self._appended.union(*(batch.ids for batch in self._stored))):  # another input
            forget_batches(self._getExtraPath())
            self._stored = []
            self._beginAnew()

    def _noteKeys(self, output):
        """Note what the batches are made with, and what the output, which is made anew later than the batches are forgotten."""
        write_json(self._getExtraPath(_STATE), {"key": self._key, "output": output})

    def _look(self, source, isOpen):
        """Insert steps for the batches of an earlier start, and for particles that no batch has."""
        if self._ready is None:
            ids = [number for batch in self._stored for number in batch.ids] or self._enabledIds(source)
            self._single = not self._stored and not isOpen and len(ids) <= self._stepSize(len(ids))
            self._ready = [] if self._single else self._beforeBatches(ids, isOpen) if ids else None
            if self._ready is None:
                self._left = len(ids)
                self._noteProgress(isOpen, here=len(ids))
                return
            for batch in self._stored:
                self._insertBatch(source, batch)
        new = [number for number in self._enabledIds(source) if number not in self._assigned]
        size = self._stepSize(len(new))
        while new and (not isOpen or self._wantsMore(len(new), size)):
            part, new = new[:size], new[size:]
            number = max(self._batches, default=0) + 1
            folder = self._getExtraPath() if self._single else batch_folder(self._getExtraPath(), number)
            self._insertBatch(source, Batch(number, folder, part))
            self._waitingSince = None
        self._left = len(new)
        self._noteProgress(isOpen)

    def _wantsMore(self, count, size):
        """Whether to begin a step for particles of an input that is open, of which there are `count` now."""
        waiting = sum(self._steps[number - 1].isNew() or self._steps[number - 1].isRunning() for number in self._inserted)
        if waiting >= 2 * self._concurrent():
            return False
        if count >= size:
            return True
        if waiting >= self._concurrent():
            return False
        self._waitingSince = self._waitingSince or time.time()
        return count >= _LEAST_PARTICLES or time.time() - self._waitingSince >= _LONGEST_WAIT

    def _insertBatch(self, source, batch):
        batch.write(source, self._names, self._key + self._keyOfBatches(), self._original)
        if not self._appended.isdisjoint(batch.ids) and not batch.is_done(self._resultFile):  # the images have changed
            self._beginAnew()
        self._batches[batch.number] = batch
        self._assigned.update(batch.ids)
        step = self._insertFunctionStep(
            self.batchStep, batch.number, batch.signature, prerequisites=list(self._ready), needsGPU=False
        )
        self._inserted[step] = batch

    def _keyOfBatches(self):
        """Return a text that decides the results of batches beside the parameters."""
        return ""

    def _beginAnew(self):
        """Make the output anew, from the batches as they are now."""
        self._fresh, self._appended, self._before = True, set(), 0
        self._noteKeys(None)

    def _runBatch(self, batch, result, **more):
        """Run the engine on a batch.

        Parameters
        ----------
        batch : Batch
        result : name of the file that proves that it has finished.
        more : further parameters of the job.
        """
        parameters = dict(self._formValues(), **self._common)
        parameters.update(self._batchParameters(batch), **more)
        parameters.update(particles=[batch.star], out=os.path.join(batch.folder, RESULT_FOLDER))
        self._writeJob(batch.job, self._verb, parameters)
        with self._gpus.one() as gpu:
            self._runEngine(batch.job, batch.result(result), gpu)
        batch.set_done()

    def _stepSize(self, count):
        """Return how many particles a step takes, of a set of `count`."""
        given = self.particlesPerStep.get() or 0
        if given > 0:
            return given
        parts = self._concurrent()
        if parts > 1:
            return min(self._particlesPerStep, max(_SMALLEST_PART, -(-count // (_PARTS_EACH * parts))))
        return self._particlesPerStep

    def _concurrent(self):
        """Return how many steps run at the same time."""
        return max(1, self.getScipionThreads() - 1)

    # -------------------------- output --------------------------

    def _append(self, batch):
        """Add the particles of a batch that the output does not have."""
        with self._lock:
            todo = [number for number in batch.ids if number not in self._appended]
            if not todo:
                return
            wanted, apply = set(todo), self._results(batch)
            isNew = self._fresh or not hasattr(self, self._outputName)
            with contextlib.closing(self._openInput()) as source:
                output = self._openOutput(source, isNew)
                for item in source.iterItems(where=f"id >= {min(todo)} and id <= {max(todo)}"):
                    if item.getObjId() in wanted:
                        apply(item)
                        output.append(item)
            self._updateOutputSet(self._outputName, output, SetOfParticles.STREAM_OPEN)
            if isNew:
                self._fresh = False
                self._defineRelations(getattr(self, self._outputName))
                self._noteKeys(self._key)
            self._appended |= wanted
            self._noteProgress()

    def _openInput(self):
        """Return the input set as it is on the disk now."""
        particles = SetOfParticles(filename=self.inputParticles.get().getFileName())
        particles.loadAllProperties()
        return particles

    def _openOutput(self, source, isNew):
        if isNew:
            output = self._createSetOfParticles()
            output.copyInfo(source)
            self._describeOutput(output)
            return output
        output = SetOfParticles(filename=getattr(self, self._outputName).getFileName())
        output.loadAllProperties()
        output.enableAppend()
        return output

    def _outputIds(self):
        output = getattr(self, self._outputName, None)
        if self._fresh or output is None or not os.path.exists(output.getFileName()):
            return set()
        return set(self._enabledIds(output))

    @staticmethod
    def _enabledIds(particles):
        return read_attributes(particles.getFileName(), [])["id"] if particles.getSize() else []

    # -------------------------- queue --------------------------

    def getSubmitDict(self):
        """Return what a queue's template needs, with the cores and GPUs that a job really uses."""
        values = super().getSubmitDict()
        _, given = self.getQueueParams()
        jobs = 1 if values.get(QUEUE_FOR_JOBS) == "Y" else self._concurrent()
        cores = self._engineThreads() * jobs
        gpus = len(self.getGpuList()) if self.usesGpu() else 0
        own = {"JOB_THREADS": cores, "JOB_CORES": cores, "GPU_COUNT": min(gpus, jobs)}
        values.update({name: value for name, value in own.items() if name not in given})
        return values

    # -------------------------- info --------------------------

    def _neededToBegin(self):
        """Return how many particles are waited for before the first batch."""
        return 1

    def _noteProgress(self, isOpen=None, here=None):
        """Write how far the run is, for its log and its summary; before the first batch `here` says how many have come."""
        with self._lock:  # steps call this, and what looks for particles
            self._writeProgress(isOpen, here)

    def _writeProgress(self, isOpen, here):
        path = self._getExtraPath(_PROGRESS)
        if isOpen is None:
            isOpen = (read_json(path) or {}).get("open", False)
        progress = {
            "done": len(self._appended),
            "known": len(self._assigned | self._appended),
            "open": isOpen,
            "before": self._before,
            "seconds": time.time() - self._began,
        }
        if here is not None:
            progress.update(here=here, needed=self._neededToBegin())
        old = read_json(path) or {}
        write_json(path, progress)
        if (progress["done"], progress.get("here")) != (old.get("done"), old.get("here")):
            self.info(progress_line(progress))

    def _progress(self):
        """Return how far the run is while it works, nothing before or after."""
        progress = read_json(self._getExtraPath(_PROGRESS)) if self.isActive() else None
        if not progress or (progress["done"] == progress["before"] and not progress["open"]):
            return super()._progress()
        return [progress_line(progress)]
