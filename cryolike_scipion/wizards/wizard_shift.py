"""The range of shifts that the box leaves to a particle."""

from pyworkflow.gui.dialog import showError
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..protocols import ProtCryolikeLikelihood
from .form_inputs import fresh, particles_of, projections_of

_OF_BOX = 0.1  # what the engine takes when nothing is given


class CryolikeShiftWizard(Wizard):
    """Puts in a tenth of the box, or what the widest structure leaves of it."""

    _targets = [(ProtCryolikeLikelihood, ["maxShift"])]
    _environments = [DESKTOP_TKINTER]

    def show(self, form, *params):
        protocol = fresh(form)
        particles = particles_of(protocol)
        if particles is None or not particles.getXDim():
            showError("Largest shift", "Choose the input particles first.", form.root)
            return
        width = particles.getXDim() * particles.getSamplingRate()
        room = [(width - make()[2]) / 2 for _, make in projections_of(protocol)]
        reach = min([_OF_BOX * width] + [each for each in room if each > 0])
        form.setVar("maxShift", float(f"{max(reach, particles.getSamplingRate()):.3g}"))
