"""The threshold of a selection, dragged over the distribution of the score."""

import numpy as np
from pyworkflow.gui.dialog import showError
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..convert.set_columns import read_attributes
from ..plots.scores import SCORES
from ..protocols import ProtCryolikeSelect
from ..viewers.threshold_window import ThresholdWindow
from .form_inputs import fresh, particles_of

_BEST = "_cryolike_bestStructure"


class CryolikeThresholdWizard(Wizard):
    """Shows the score that the form names."""

    _targets = [(ProtCryolikeSelect, ["threshold"])]
    _environments = [DESKTOP_TKINTER]

    def show(self, form, *params):
        protocol = fresh(form)
        particles = particles_of(protocol)
        score = SCORES[protocol.score.get()]
        found = read_attributes(particles.getFileName(), [score.attribute, _BEST]) if particles is not None else {}
        if score.attribute not in found:
            showError("Threshold", "Choose particles that have likelihood scores first.", form.root)
            return
        best = np.array(found[_BEST], dtype=np.int64) - 1
        values = np.array(found[score.attribute], dtype=np.float64)[best >= 0]
        labels = [f"structure {number}" for number in range(1, best.max(initial=0) + 2)]
        self.window = ThresholdWindow(
            score, values, best[best >= 0], labels, lambda value: self._accept(form, value), form.root, "Use this threshold"
        )
        self.window.show()
        if protocol.threshold.get() is not None:
            self.window.setThreshold(protocol.threshold.get())

    def _accept(self, form, value):
        form.setVar("threshold", float(f"{value:.6g}"))
        self.window.window.destroy()
