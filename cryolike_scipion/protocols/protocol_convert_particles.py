"""The node *convert particles*: images brought onto the polar Fourier grid once, for several runs."""

import glob

from pwem.objects import SetOfParticles

from ..constants import OUTPUT_REPORT, OUTPUT_STAR
from ..convert.results import CoefficientPlaces
from .form import add_parameters
from .particle_input import (
    IMAGE_PARAMETERS,
    add_image_preparation,
    add_particles,
    particle_errors,
)
from .protocol_batches import ProtCryolikeBatches

_RESOURCES = ("downsample", "bad_images", "precision", "batch_images")


class ProtCryolikeConvertParticles(ProtCryolikeBatches):
    """Bring particle images onto the polar Fourier grid.

    The output has the same images as the input; each particle also knows where its polar coefficients are,
    and the hash of what made them.  The likelihood node uses them as long as both are right, and converts
    afresh what is missing or was made otherwise, so this node only saves time.  The coefficients take about
    twice the room of the images.
    """

    _label = "convert particles"
    _possibleOutputs = {"outputParticles": SetOfParticles}
    _verb = "particles"
    _resultFile = OUTPUT_STAR
    _particlesPerStep = 5000

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        add_particles(form)
        add_image_preparation(form, "particles")
        add_parameters(form, "particles", ("downsample",))
        # A single broken image must not stop a set: it keeps its place, and later gets a status.
        add_parameters(form, "particles", ("bad_images",), default="flag")
        add_parameters(form, "particles", ("precision", "batch_images"))
        self._defineComputing(form)

    def _parameterNames(self):
        return ("mask_diameter", "resolution") + IMAGE_PARAMETERS + _RESOURCES

    # -------------------------- steps --------------------------

    def _inputIdentity(self):
        return [self.inputParticles.get().getFileName()]

    def _results(self, batch):
        return CoefficientPlaces(batch.result(OUTPUT_STAR)).apply

    # -------------------------- info --------------------------

    def _validate(self):
        return self._formErrors() or particle_errors(self.inputParticles.get(), self.maskDiameter.get(), self.resolution.get())

    def _summary(self):
        if self.isActive() or not hasattr(self, "outputParticles"):
            return self._progress() or ["Not run yet."]
        reports = sorted(glob.glob(glob.escape(self._getExtraPath()) + f"/**/{OUTPUT_REPORT}", recursive=True))
        return [
            f"{self.outputParticles.getSize()} particles were brought onto the polar grid.",
            f"The images are the input's; the coefficients are in {self._getExtraPath('')}.",
            *(f"Plots: {report}" for report in reports[:1]),  # of the first batch, which stands for the others
        ]

    def _methods(self):
        if not hasattr(self, "outputParticles"):
            return []
        mask = f" masked at {self.maskDiameter.get():g} Å diameter," if self.maskDiameter.get() else ""
        limit = f" limited to {self.resolution.get():g} Å resolution and" if self.resolution.get() else ""
        return [
            f"{self.outputParticles.getSize()} particle images were{mask}{limit} brought onto a polar "
            "Fourier grid, as in CryoLike [CryoLike2025], by non-uniform FFTs [Barnett2019]."
        ]

    def _citations(self):
        return ["CryoLike2025", "Barnett2019"]
