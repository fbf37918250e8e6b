"""The node *ensemble weights*: how many of the particles show which structure, and how sure is it."""

import os

from pwem.objects import SetOfVolumes
from pyworkflow.protocol.params import FileParam, PointerParam

from ..constants import DENSITY_FILE, OUTPUT_SCORES, RESULT_FOLDER
from ..convert.populations import populated_volumes, read_ensemble
from .batches import file_identity
from .form import add_alternatives, add_parameters
from .protocol_base import ProtCryolikeBase

FROM_RUN, FROM_MATRIX = 0, 1
_OPTIONS = ("with_none", "concentration", "bootstrap", "seed")
_OF_MATRIX = ("orientation", "labels")
_PAGE, _NUMBERS = "ensemble.html", "ensemble.json"
_SHOWN = 20


class ProtCryolikeEnsemble(ProtCryolikeBase):
    """Learn the populations of structures from the likelihoods of particles.

    Counting each particle for its best structure gives wrong populations where particles are undecided.  This node
    asks which populations explain all likelihoods best, gives each a credible interval and one from drawing the
    particles anew, and says which structures the particles cannot tell apart.
    """

    _label = "ensemble weights"
    _possibleOutputs = {"outputVolumes": SetOfVolumes}
    _verb = "ensemble"
    _resultFile = _PAGE

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        matrix = "A finished 'likelihood' node, or a matrix of log-likelihoods from a file, such as Xmipp's or CryoLike's."
        add_alternatives(form, "scoresFrom", ["likelihood node", "matrix"], "Likelihoods from", matrix)
        form.addParam(
            "inputRun",
            PointerParam,
            pointerClass="ProtCryolikeLikelihood",
            allowsNull=True,
            important=True,
            condition=f"scoresFrom == {FROM_RUN}",
            label="Likelihood node",
            help="Particles that could not be scored are left out.",
        )
        from_matrix = f"scoresFrom == {FROM_MATRIX}"
        form.addParam(
            "matrixFile",
            FileParam,
            allowsNull=True,
            condition=from_matrix,
            label="Matrix of log-likelihoods",
            help="A .npy file, or text with a row a line (.csv, .txt). Natural logarithms.",
        )
        add_parameters(form, "ensemble", _OF_MATRIX, condition=from_matrix)
        form.addSection(label="Estimate")
        add_parameters(form, "ensemble", _OPTIONS)
        form.addParallelSection(threads=2, mpi=0)

    def _parameterNames(self):
        return _OPTIONS + (() if self._fromRun() else _OF_MATRIX)

    # -------------------------- steps --------------------------

    def _inputIdentity(self):
        return [file_identity(self._source())]

    def _writeInput(self):
        return {"scores": self._source()}

    def _createOutput(self):
        numbers = read_ensemble(self._resultPath(_NUMBERS))
        self.summaryVar.set("\n".join(_description(numbers)))
        if not self._fromRun():
            return
        volumes = self._createSetOfVolumes()
        for volume in populated_volumes(numbers, os.path.join(self._runFolder(), DENSITY_FILE)):
            volumes.setSamplingRate(volume.getSamplingRate())
            volumes.append(volume)
        self._defineOutputs(outputVolumes=volumes)
        if hasattr(self.inputRun.get(), "outputParticles"):
            self._defineSourceRelation(self.inputRun.get().outputParticles, volumes)

    # -------------------------- info --------------------------

    def _validate(self):
        errors = self._formErrors()
        if self._fromRun():
            if self.inputRun.get() is None:
                return errors + ["Choose a likelihood node."]
            if self.inputRun.get().isActive():  # its joint result is of the particles so far, or of an earlier start
                return errors + ["The likelihood node is still running. Wait for it, then start this one."]
            if not os.path.exists(self._source()):
                return errors + ["The likelihood node has not finished. Wait for it, then start this one."]
        elif not self.matrixFile.get("").strip():
            errors.append("Choose the file that holds the matrix.")
        elif not os.path.isfile(self._source()):
            errors.append(f"There is no file {self._source()}.")
        return errors

    def _summary(self):
        if not self.summaryVar.get(""):
            return self._progress() or ["Not run yet."]
        return self.summaryVar.get().splitlines() + [f"Plots: {self._resultPath(_PAGE)}"]

    def _methods(self):
        if not self.summaryVar.get(""):
            return []
        return [
            "Populations of the structures were estimated from the integrated likelihoods of all particles "
            "[CryoLike2025] by maximum likelihood and from their posterior under a Dirichlet prior of concentration "
            f"{self.concentration.get():g}, with 95 % credible intervals and intervals from drawing the particles anew."
        ]

    def _citations(self):
        return ["CryoLike2025"]

    # -------------------------- helpers --------------------------

    def _fromRun(self):
        return self.scoresFrom.get() == FROM_RUN

    def _runFolder(self):
        return self.inputRun.get()._getExtraPath(RESULT_FOLDER)

    def _source(self):
        """Return the file that holds the likelihoods."""
        if self._fromRun():
            run = self.inputRun.get()
            return None if run is None else os.path.join(self._runFolder(), OUTPUT_SCORES)
        return self.matrixFile.get("").strip()


def _description(numbers):
    """Return what the engine found, a line each."""
    structures = numbers["structures"]
    lines = [
        f"{numbers['particles']} particles, {len(structures)} structures; the particles are worth "
        f"{numbers['effective_particles']:.0f} of known structure."
    ]
    ranked = sorted(structures, key=lambda each: -each["mean"])
    lines += [
        f"{each['number']}. {each['label']}: {100 * each['mean']:.1f} % ({100 * each['low']:.1f} to {100 * each['high']:.1f} %)"
        for each in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        lines.append(f"and {len(ranked) - _SHOWN} more, in the report")
    for group in numbers["alike"]:
        names = ", ".join(structures[number - 1]["label"] for number in group["structures"])
        lines.append(f"Cannot be told apart: {names}; together {100 * group['mean']:.1f} %.")
    return lines
