"""What the likelihood node found: distributions of scores, and particles beside their templates."""

import os

from pwem.viewers import EmPlotter
from pyworkflow.protocol.params import EnumParam, IntParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from .. import Plugin
from ..constants import OUTPUT_STAR, RESULT_FOLDER
from ..convert.inspection import is_fresh, read_inspection, row_of_item
from ..convert.set_columns import read_attributes
from ..protocols import ProtCryolikeLikelihood
from .plots import draw_histogram, draw_particle

SCORES = (
    ("_cryolike_logLikelihood", "log-likelihood over the null", "nat"),
    ("_cryolike_logLikelihoodMax", "log-likelihood at the best pose over the null", "nat"),
    ("_cryolike_crossCorrelation", "cross-correlation", ""),
    ("_cryolike_structurePosterior", "probability of the structure", ""),
    ("_cryolike_posePosterior", "probability of the pose", ""),
    ("_cryolike_poseEntropy", "information on the pose", "nat"),
    ("_cryolike_scale", "scale of the structure in the image", ""),
)


class CryolikeLikelihoodViewer(ProtocolViewer):
    """Plots of a likelihood run."""

    _label = "viewer of likelihoods"
    _targets = [ProtCryolikeLikelihood]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Results")
        form.addParam(
            "score",
            EnumParam,
            choices=[title for _, title, _ in SCORES],
            default=0,
            label="Distribution of",
            help="One outline for the particles of each structure. What a score means is in the guide.",
        )
        particles = getattr(self.protocol, "outputParticles", None)
        form.addParam(
            "particleId",
            IntParam,
            default=particles.getFirstItem().getObjId() if particles else 1,
            label="Particle",
            help="Id of a particle of the output. It is shown beside the best template of each structure, "
            "with its CTF and at its best pose, and the difference of the two.",
        )

    def _getVisualizeDict(self):
        return {"score": self._showHistogram, "particleId": self._showParticle}

    def _validate(self):
        return [] if hasattr(self.protocol, "outputParticles") else ["The node has not finished yet."]

    def _showHistogram(self, paramName=None):
        attribute, title, unit = SCORES[self.score.get()]
        plotter = EmPlotter(windowTitle=title)
        draw_histogram(plotter.getFigure(), self._byStructure(attribute), title, unit)
        return [plotter]

    def _byStructure(self, attribute):
        """Return label of a structure to the values of the particles that chose it."""
        found = read_attributes(self.protocol.outputParticles.getFileName(), [attribute, "_cryolike_bestStructure"])
        values = {label: [] for label in self.protocol._labels()}
        labels = list(values)
        for value, best in zip(found[attribute], found["_cryolike_bestStructure"]):
            if best > 0:
                values[labels[best - 1]].append(value)
        return values

    def _showParticle(self, paramName=None):
        item = self.particleId.get()
        try:
            inspection = self._inspect(item)
        except (KeyError, RuntimeError) as error:
            return [self.errorMessage(str(error.args[0]), f"Particle {item}")]
        plotter = EmPlotter(windowTitle=f"Particle {item}", figsize=(8, 2.9 * len(inspection.templates)))
        draw_particle(plotter.getFigure(), inspection, f"Particle {item}")
        return [plotter]

    def _inspect(self, item):
        """Return what the engine says about a particle; its file is kept for the next time."""
        run = self.protocol._getExtraPath(RESULT_FOLDER)
        star = os.path.join(run, OUTPUT_STAR)
        folder = self.protocol._getExtraPath("inspect")
        path = os.path.join(folder, f"particle_{item}.npz")
        if not is_fresh(path, star):
            os.makedirs(folder, exist_ok=True)
            Plugin.callEngine(["inspect", run, "--row", row_of_item(star, item), "--device", "cpu", "--out", path])
        return read_inspection(path)
