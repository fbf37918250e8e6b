"""How the likelihood node divides its work: one contrast prior for all batches, and one result from theirs.

In the extra folder: ``scale/`` is the engine run that learns the prior, ``batches/`` has one run each, and ``result/`` what
they are together, renewed as batches are done. A set that is one batch has only ``result/``, which learns the prior itself.
"""

import contextlib
import os
import shutil
import threading
import time

from ..constants import ITEM_ID, OUTPUT_MATRIX, OUTPUT_REPORT, OUTPUT_SCORES, OUTPUT_STAR, RESULT_FOLDER, SCALE_FILE
from ..convert.results import ParticleScores
from ..convert.set_update import write_attribute
from ..convert.star import read_columns
from ..objects import SCORE_ATTRIBUTES
from ..parameters import VERBS
from .batches import MERGED_FILE, Batch, read_json, write_json
from .protocol_batches import ProtCryolikeBatches

_OF_THE_SET = "cryolikeLogRatioZ"  # the column that depends on the other particles of a run
_EXPORTS = tuple(sorted({p.name for p in VERBS["merge"]} & {p.name for p in VERBS["likelihood"]} - {"out", "priors"}))
_PILOT_SPARES = 30  # the pilot is chosen from so many times its number, evenly spaced: every optics group has its own
_BEFORE_LEARNING = 3  # times the pilot: so many particles are waited for, of which the engine takes a third
# The joint result is renewed when this time has passed since the last, and this many times what making it took.
_LEAST_PAUSE, _PAUSE_FACTOR = 60.0, 10.0


class ProtCryolikeLikelihoodBatches(ProtCryolikeBatches):
    """Steps of the likelihood node."""

    _verb = "likelihood"
    _resultFile = OUTPUT_STAR

    # -------------------------- the contrast prior --------------------------

    def _beforeBatches(self, ids, isOpen):
        self._merging = threading.Lock()
        self._nextMerge = 0.0 if isOpen else time.time() + _LEAST_PAUSE  # who waits for particles looks sooner
        pilot = self._formValues().get("pilot", 1)
        if isOpen and len(ids) < self._neededToBegin():
            return None
        folder = self._getExtraPath("scale")
        spacing = max(1, len(ids) // (_PILOT_SPARES * pilot))
        known = read_json(os.path.join(folder, "ids.json"))
        with contextlib.closing(self._openInput()) as source:
            present = set(self._enabledIds(source))
        if not known or not present.issuperset(known["ids"]) or not self._stored:
            known = {"ids": ids[::spacing]}
        os.makedirs(folder, exist_ok=True)
        write_json(os.path.join(folder, "ids.json"), known)
        self._pilot = Batch(0, folder, known["ids"])
        with contextlib.closing(self._openInput()) as source:
            self._pilot.write(source, self._names, self._key, self._original)
        return [self._insertFunctionStep(self.learnStep, self._pilot.signature, prerequisites=[], needsGPU=False)]

    def _neededToBegin(self):
        return _BEFORE_LEARNING * self._formValues().get("pilot", 1)

    def learnStep(self, signature):
        """Learn the contrast prior that all batches share."""
        if not self._pilot.is_done(SCALE_FILE):
            self._runBatch(self._pilot, SCALE_FILE, learn_only=True)

    def _keyOfBatches(self):
        return "" if self._single else self._pilot.signature

    def _batchParameters(self, batch):
        parameters = {}
        if not self.useQueueForSteps():  # a queue's jobs have a machine, or their part of it, to themselves
            parameters["shared_by"] = self._concurrent()
            memory = self._formValues().get("memory")
            if memory is not None:
                parameters["memory"] = memory / self._concurrent()
        if not self._single:
            parameters.update(dict.fromkeys(_EXPORTS), no_report=True)
            if batch.number > 0:
                parameters["scale_from"] = self._pilot.result()
        return parameters

    def _results(self, batch):
        return ParticleScores(batch.result(OUTPUT_STAR), self.inputParticles.get().getSamplingRate()).apply

    # -------------------------- the joint result --------------------------

    def _keepCurrent(self):
        """Renew the joint result if it is time for it and no other step is doing so."""
        if self._single or time.time() < self._nextMerge or not self._merging.acquire(blocking=False):
            return
        try:
            self._merge()
        finally:
            self._merging.release()

    def _conclude(self):
        if not self._single:
            with self._merging:
                self._merge()
            self._compareWithAll()

    def _compareWithAll(self):
        """Give the output's particles the score that compares them with the whole set, not with the rest of their batch."""
        columns = read_columns(self._resultPath(OUTPUT_STAR), "particles", [ITEM_ID, _OF_THE_SET])
        attribute, kind = SCORE_ATTRIBUTES[_OF_THE_SET]
        values = {int(item): kind(text).get() for item, text in zip(columns[ITEM_ID], columns[_OF_THE_SET])}
        with self._lock:
            write_attribute(getattr(self, self._outputName).getFileName(), attribute, values)

    def _merge(self):
        """Put what is done of the batches together in the result folder."""
        began = time.time()
        done = [batch for _, batch in sorted(self._batches.items()) if batch.is_done(self._resultFile)]
        signatures = {str(batch.number): batch.signature for batch in done}
        merged = (read_json(self._getExtraPath(MERGED_FILE)) or {}).get("signatures", {})
        if merged == signatures:
            return
        target, work = self._getExtraPath(RESULT_FOLDER), self._getExtraPath("merging", RESULT_FOLDER)
        shutil.rmtree(os.path.dirname(work), ignore_errors=True)
        os.makedirs(os.path.dirname(work))
        # Two or more that are together already need not be read one by one again.
        usable = len(merged) > 1 and all(signatures.get(number) == made for number, made in merged.items())
        runs = [target] if usable else []
        runs += [batch.result() for batch in done if not (usable and str(batch.number) in merged)]
        if len(runs) == 1:
            shutil.copytree(done[0].result(), work, ignore=shutil.ignore_patterns("chunks", "manifest.json", "log.txt"))
            self._writeJob(self._getExtraPath("merge.json"), "report", {"run": work})
            self._runEngine(self._getExtraPath("merge.json"), os.path.join(work, OUTPUT_REPORT))
        else:
            values = self._formValues()
            parameters = {name: values[name] for name in _EXPORTS + ("priors",) if name in values}
            self._writeJob(self._getExtraPath("merge.json"), "merge", dict(parameters, runs=runs, out=work))
            self._runEngine(self._getExtraPath("merge.json"), os.path.join(work, OUTPUT_STAR))
            shutil.copytree(done[0].result("structures"), os.path.join(work, "structures"))
        self._replaceResult(work, target)
        write_json(self._getExtraPath(MERGED_FILE), {"signatures": signatures})
        self._nextMerge = time.time() + max(_LEAST_PAUSE, _PAUSE_FACTOR * (time.time() - began))

    def _replaceResult(self, work, target):
        """Put a new joint result in the place of the old one; it does not count as one until all of it is there."""
        if os.path.exists(self._getExtraPath(MERGED_FILE)):
            os.remove(self._getExtraPath(MERGED_FILE))
        if not os.path.isdir(target):
            os.replace(work, target)
            os.rmdir(os.path.dirname(work))
            return
        first = [OUTPUT_SCORES, OUTPUT_MATRIX, OUTPUT_STAR, OUTPUT_REPORT]
        for name in sorted(os.listdir(work), key=lambda name: (name not in first, name)):
            place = os.path.join(target, name)
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.rmtree(place)
            os.replace(os.path.join(work, name), place)
        shutil.rmtree(os.path.dirname(work))
