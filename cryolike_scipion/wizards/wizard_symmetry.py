"""The point group, from a list."""

from pyworkflow.gui.dialog import ListDialog
from pyworkflow.gui.tree import ListTreeProviderString
from pyworkflow.object import String
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..protocols import ProtCryolikeGenerateTemplates, ProtCryolikeLikelihood

_CYCLIC = 12
GROUPS = (
    ("C1", "no symmetry"),
    *((f"C{n}", f"{n}-fold axis along z") for n in range(2, _CYCLIC + 1)),
    *((f"D{n}", f"{n}-fold axis along z, 2-fold axes across it (one along x)") for n in range(2, _CYCLIC + 1)),
    ("T", "tetrahedral"),
    ("O", "octahedral"),
    *((f"I{n}", f"icosahedral, setting {n} of RELION and Xmipp") for n in range(1, 5)),
)


class CryolikeSymmetryWizard(Wizard):
    """Lists the groups and what they mean."""

    _targets = [(ProtCryolikeGenerateTemplates, ["symmetry"]), (ProtCryolikeLikelihood, ["symmetry"])]
    _environments = [DESKTOP_TKINTER]

    def show(self, form, *params):
        rows = [String(f"{name}: {text}") for name, text in GROUPS]
        dialog = ListDialog(
            form.root,
            "Point group",
            ListTreeProviderString(rows),
            "The point group of all structures. Write one each, in their order, where they differ.",
            selectmode="browse",
            selectOnDoubleClick=True,
        )
        if dialog.values:
            form.setVar("symmetry", dialog.values[0].get().partition(":")[0])
