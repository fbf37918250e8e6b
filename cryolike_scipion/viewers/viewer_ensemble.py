"""Populations of structures with their intervals."""

import os
import webbrowser

import numpy as np
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from ..constants import RESULT_FOLDER
from ..convert.populations import read_ensemble
from ..plots.ensemble import populations_with_errors
from ..protocols import ProtCryolikeEnsemble
from .buttons import add_buttons
from .windows import one_figure

_NUMBERS, _PAGE = "ensemble.json", "ensemble.html"
_CURVES = ("mean", "low", "high", "most_likely")


class CryolikeEnsembleViewer(ProtocolViewer):
    """Populations, and the report with everything else."""

    _label = "viewer of ensemble weights"
    _targets = [ProtCryolikeEnsemble]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Results")
        intervals = (
            "Posterior mean of each structure's population with its 95 % credible interval, the most likely value (cross) "
            "and the interval from drawing the particles anew (dotted)."
        )
        add_buttons(
            form,
            ("populations", "Populations", intervals),
            ("report", "Report in the browser", "Also what cannot be told apart, and how it was computed."),
        )

    def _getVisualizeDict(self):
        return {"populations": self._showPopulations, "report": self._showReport}

    def _validate(self):
        return [] if os.path.exists(self._path(_NUMBERS)) else ["The node has not finished yet."]

    def _showPopulations(self, paramName=None):
        numbers = read_ensemble(self._path(_NUMBERS))
        found = numbers["structures"]
        curves = [[each[name] for each in found] for name in _CURVES]
        bootstrap = None
        if numbers["replicates"]:
            bootstrap = np.array([[each[f"bootstrap_{end}"] for each in found] for end in ("low", "high")])
        labels = [each["label"] for each in found]
        return [one_figure("Populations", lambda: populations_with_errors(labels, *curves, bootstrap), self._tkRoot)]

    def _showReport(self, paramName=None):
        webbrowser.open_new_tab("file://" + os.path.abspath(self._path(_PAGE)))
        return []

    def _path(self, name):
        return self.protocol._getExtraPath(RESULT_FOLDER, name)
