"""The node *select by score*: the particles that reach a threshold, and those that do not."""

from pwem.objects import SetOfParticles
from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.protocol.params import EnumParam, FloatParam, NumericRangeParam, PointerParam
from pyworkflow.utils import getListFromRangeString

from ..convert.set_columns import read_attributes
from ..plots.scores import SCORES
from .batches import file_identity
from .protocol_base import hash_of

_BEST = "_cryolike_bestStructure"


class ProtCryolikeSelect(EMProtocol):
    """Divide particles by one of their likelihood scores.

    The particles whose score is at or above the threshold go into one set, all others into a second, so that
    nothing is lost.  The viewer of the likelihood node starts this node from a threshold that is set with the
    mouse.
    """

    _label = "select by score"
    _devStatus = BETA
    _possibleOutputs = {"outputParticles": SetOfParticles, "outputRejected": SetOfParticles}

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam(
            "inputParticles",
            PointerParam,
            pointerClass="SetOfParticles",
            important=True,
            label="Input particles",
            help="Particles with scores: the output of 'likelihood', or a subset of it.",
        )
        form.addParam(
            "score",
            EnumParam,
            choices=[score.axis for score in SCORES],
            default=0,
            label="Score",
            help="Score that is compared with the threshold.\n\n"
            + "\n".join(f"*{score.axis}*: {score.meaning}" for score in SCORES),
        )
        form.addParam(
            "threshold",
            FloatParam,
            label="Threshold (in the score's unit)",
            help="Particles at or above it are kept. Raised, fewer particles stay, and they fit better.\n\n"
            "The wizard shows the distribution of the score, with a line to drag.",
        )
        form.addParam(
            "structures",
            NumericRangeParam,
            default="",
            allowsNull=True,
            label="Only of structures (numbers)",
            help="Keep only particles whose best structure is one of these, such as 1,3-4. Empty: of any structure.",
        )

    # -------------------------- steps --------------------------

    def _insertAllSteps(self):
        # What decides the result is the step's argument, so that continuing a run repeats what its changes concern.
        source = file_identity(self.inputParticles.get().getFileName())
        key = hash_of([self._score().attribute, self.threshold.get(), sorted(self._structures()), source])
        self._insertFunctionStep(self.divideStep, key, needsGPU=False)

    def divideStep(self, key):
        """Make the two sets; one without particles is not made."""
        source = self.inputParticles.get()
        attribute, threshold, structures = self._score().attribute, self.threshold.get(), self._structures()
        found = read_attributes(source.getFileName(), [attribute, _BEST])
        kept = {
            item
            for item, value, best in zip(found["id"], found[attribute], found[_BEST])
            if best > 0 and value is not None and value >= threshold and (not structures or best in structures)
        }
        halves = {
            "outputParticles": (kept, "kept"),
            "outputRejected": (set(found["id"]) - kept, "rejected"),
        }
        for name, (items, suffix) in halves.items():
            earlier = hasattr(self, name)  # of an earlier start: the project keeps it, so it is made even without particles
            if earlier:
                self.deleteOutput(getattr(self, name))
            if items or earlier:
                self._defineHalf(source, name, items, suffix)

    def _defineHalf(self, source, name, items, suffix):
        half = self._createSetOfParticles(suffix=suffix)
        half.copyInfo(source)
        half.copyItems(source, itemSelectedCallback=lambda item: item.getObjId() in items)
        self._defineOutputs(**{name: half})
        self._defineSourceRelation(self.inputParticles, half)

    # -------------------------- info --------------------------

    def _validate(self):
        particles = self.inputParticles.get()
        if particles is None:
            return ["Choose the input particles."]
        first = particles.getFirstItem()
        if first is None or not first.hasAttribute(self._score().attribute):
            return ["These particles have no likelihood scores. Choose the output of 'likelihood', or a subset of it."]
        if self.threshold.get() is None:
            return ["Give a threshold."]
        try:
            self._structures()
        except ValueError:
            return [f"'{self.structures.get()}' is no list of structure numbers. Write 1,3-4, for instance."]
        return []

    def _summary(self):
        if not self.isFinished():
            return ["Not run yet."]
        kept, rejected = (self._countOf(name) for name in ("outputParticles", "outputRejected"))
        return [f"{kept} of {kept + rejected} particles stay: {self._condition()}."]

    def _methods(self):
        if not self.isFinished():
            return []
        kept, rejected = (self._countOf(name) for name in ("outputParticles", "outputRejected"))
        return [f"Of {kept + rejected} particles, the {kept} with {self._condition()} [CryoLike2025] were kept."]

    def _citations(self):
        return ["CryoLike2025"]

    # -------------------------- helpers --------------------------

    def _score(self):
        return SCORES[self.score.get()]

    def _structures(self):
        text = (self.structures.get() or "").strip()
        return set(getListFromRangeString(text)) if text else set()

    def _countOf(self, name):
        return getattr(self, name).getSize() if hasattr(self, name) else 0

    def _condition(self):
        unit = f" {self._score().unit}" if self._score().unit else ""
        only = f", best structure {self.structures.get()}" if self._structures() else ""
        return f"{self._score().title} of at least {self.threshold.get():g}{unit}{only}"
