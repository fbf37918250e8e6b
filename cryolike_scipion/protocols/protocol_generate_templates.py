"""The node *generate templates*: structures, prepared for comparison with particles."""

import os

from pyworkflow.protocol.params import BooleanParam, PointerParam

from ..constants import OUTPUT_REPORT, OUTPUT_TEMPLATES
from ..convert.results import read_templates
from ..convert.structures import write_structures
from ..objects import SetOfCryolikeTemplates
from .form import add_parameters, form_errors, form_values
from .protocol_base import ProtCryolikeBase
from .structure_input import (
    ATOM_PARAMETERS,
    add_atoms,
    add_structures,
    pointed_structures,
    structure_errors,
    structures_identity,
)

_SIZE = ("box", "pixel")
_VIEWS = ("angular_step", "views")
_MODELS = ("models",)
_RESOURCES = ("preview", "precision")


class ProtCryolikeGenerateTemplates(ProtCryolikeBase):
    """Prepare structures for comparison with particles.

    Every volume or atomic structure is brought to the particles' box and pixel size, limited to the
    resolution wanted, and gets a table of viewing directions with weights.  The likelihood node makes the
    projections themselves when it needs them, at any view; a stack with some of them is written to look at.
    """

    _label = "generate templates"
    _possibleOutputs = {"outputTemplates": SetOfCryolikeTemplates}
    _verb = "templates"
    _resultFile = OUTPUT_TEMPLATES

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        add_structures(form)
        form.addParam(
            "sizeFromParticles",
            BooleanParam,
            default=True,
            label="Box and pixel size from particles?",
            help="Templates have the box and the pixel size of the particles that they are compared with. "
            "Answer No to give the two numbers.",
        )
        form.addParam(
            "inputParticles",
            PointerParam,
            pointerClass="SetOfParticles",
            allowsNull=True,
            condition="sizeFromParticles",
            label="Particles",
            help="Only their box and pixel size are taken.",
        )
        add_parameters(form, "templates", _SIZE, condition="not sizeFromParticles", allowsNull=True, default=None)
        form.addSection(label="Templates")
        add_parameters(form, "templates", ("symmetry",) + _VIEWS + ("resolution",))
        add_atoms(form, "templates")
        add_parameters(form, "templates", _MODELS)
        add_parameters(form, "templates", _RESOURCES)
        form.addParallelSection(threads=4, mpi=0)

    def _parameterNames(self):
        atoms = ATOM_PARAMETERS + _MODELS if any(not structure.is_map for structure in self._structures()) else ()
        return ("symmetry",) + _VIEWS + ("resolution",) + atoms + _RESOURCES

    # -------------------------- steps --------------------------

    def _inputIdentity(self):
        return [structures_identity(self._structures()), list(self._boxAndPixel())]

    def _writeInput(self):
        structures = self._structures()
        box, pixel = self._boxAndPixel()
        return {
            "structure": write_structures(structures, self._inputFolder()),
            "labels": [structure.label for structure in structures],
            "box": box,
            "pixel": pixel,
        }

    def _createOutput(self):
        structures = self._structures()
        box, pixel = self._boxAndPixel()
        templates = SetOfCryolikeTemplates.create(self._getPath())
        templates.setBox(box)
        templates.setSamplingRate(pixel)
        for item in read_templates(self._resultPath(OUTPUT_TEMPLATES), [each.source for each in structures]):
            templates.append(item)
        self._defineOutputs(outputTemplates=templates)
        for pointer in self.inputStructures:
            self._defineSourceRelation(pointer, templates)
        if self.sizeFromParticles:
            self._defineSourceRelation(self.inputParticles, templates)

    # -------------------------- info --------------------------

    def _validate(self):
        structures = self._structures()
        errors = self._formErrors()
        errors += structure_errors(structures, self.symmetry.get("").replace(",", " ").split())
        if not self.sizeFromParticles:
            wrong = form_errors(self, self._verb, _SIZE)
            if not wrong and not all(self._boxAndPixel()):
                wrong = ["Give box and pixel size of the templates, or particles to take them from."]
            errors += wrong
        elif self.inputParticles.get() is None:
            errors.append("Choose the particles to take box and pixel size from, or give the two numbers.")
        elif not all(self._boxAndPixel()):
            errors.append("The particles have no box or no pixel size. Give the two numbers instead.")
        return errors

    def _summary(self):
        if not hasattr(self, "outputTemplates"):
            return self._progress() or ["Not run yet."]
        lines = [
            f"{self.outputTemplates.getSize()} structures at {self.outputTemplates.getBox()} px, "
            f"{self.outputTemplates.getSamplingRate():.3f} Å/px."
        ]
        lines += [
            f"{item.getObjId()}. {item.getLabel()}: {item.getSymmetry()}, {item.getViews()} views"
            for item in self.outputTemplates.iterItems()
        ]
        report = self._resultPath(OUTPUT_REPORT)
        return lines + [f"Plots: {report}"] if os.path.exists(report) else lines

    def _methods(self):
        if not hasattr(self, "outputTemplates"):
            return []
        templates = self.outputTemplates
        step = f", every {self.angularStep.get():g}° of viewing direction" if self.angularStep.get() else ""
        limit = f", to {self.resolution.get():g} Å resolution" if self.resolution.get() else ""
        return [
            f"Projections of {templates.getSize()} structures were prepared at "
            f"{templates.getSamplingRate():.3f} Å per pixel in a box of {templates.getBox()} "
            f"pixels{step}{limit} as in CryoLike [CryoLike2025], sampled on a polar Fourier grid by "
            "non-uniform FFTs [Barnett2019]."
        ]

    def _citations(self):
        return ["CryoLike2025", "Barnett2019"]

    # -------------------------- helpers --------------------------

    def _structures(self):
        return pointed_structures(self.inputStructures)

    def _boxAndPixel(self):
        """Return box in pixels and pixel size in Å, None for what is not known."""
        if self.sizeFromParticles:
            particles = self.inputParticles.get()
            if particles is None:
                return None, None
            return particles.getXDim() or None, particles.getSamplingRate()
        values = form_values(self, self._verb, _SIZE)
        return values.get("box"), values.get("pixel")
