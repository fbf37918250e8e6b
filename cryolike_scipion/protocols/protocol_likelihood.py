"""The node *likelihood*: which structure does each particle show, at which pose, and how sure is it."""

import os

import mrcfile
from pwem.objects import SetOfClasses3D, SetOfParticles
from pyworkflow.protocol.params import PointerParam

from .. import __version__
from ..constants import DENSITY_FILE, OUTPUT_REPORT, OUTPUT_STAR
from ..convert.classes import add_empty_classes
from ..convert.results import ParticleScores
from ..convert.run_scores import RunScores
from ..convert.structures import write_structures
from ..parameters import get
from .batches import file_identity
from .form import add_alternatives, add_parameter, add_parameters
from .likelihood_batches import ProtCryolikeLikelihoodBatches
from .particle_input import (
    IMAGE_PARAMETERS,
    add_image_preparation,
    add_particles,
    particle_errors,
)
from .structure_input import (
    ATOM_PARAMETERS,
    add_atoms,
    add_structures,
    pointed_structures,
    structure_errors,
    structures_identity,
)

FROM_TEMPLATES, FROM_STRUCTURES = 0, 1
_SEARCHES = get("likelihood", "search").choices
_HIERARCHICAL, _EXHAUSTIVE, _LOCAL, _FIXED = (
    _SEARCHES.index(name) for name in ("hierarchical", "exhaustive", "local", "fixed")
)
_LEARNED = get("likelihood", "scale").choices.index("learned")
_RADIAL = get("likelihood", "noise").choices.index("radial")

_GRID = ("max_shift", "shift_step", "shifts_x", "shifts_y", "angular_step", "levels")
_MODEL = (
    "match_amplitudes", "priors", "shift_prior", "view_prior", "posterior_angle", "posterior_shift", "best_poses",
)  # fmt: skip
_OUTPUT = ("assigned_above", "csv", "cs")
_RESOURCES = ("bad_images", "memory", "precision", "batch_images", "batch_templates")


class ProtCryolikeLikelihood(ProtCryolikeLikelihoodBatches):
    """Compare every particle with every structure.

    Each particle gets the structure that explains it best, its pose, its likelihood, and the probabilities of
    structure and pose.  Scale, offset and noise of the image are unknown and integrated out.  The scores are
    attributes of the output particles, so they can be filtered, plotted and exported; with several structures
    the particles are classes, too, numbered like the structures.
    """

    _label = "likelihood"
    _possibleOutputs = {"outputParticles": SetOfParticles, "outputClasses": SetOfClasses3D}

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        add_particles(form)
        templates = "Templates made by 'generate templates', or volumes and atomic structures as they are."
        add_alternatives(form, "structuresFrom", ["templates", "structures"], "Compare with", templates)
        form.addParam(
            "inputTemplates",
            PointerParam,
            pointerClass="SetOfCryolikeTemplates",
            allowsNull=True,
            condition=f"structuresFrom == {FROM_TEMPLATES}",
            label="Input templates",
            help="Their order numbers the structures: the first is structure 1.",
        )
        from_structures = f"structuresFrom == {FROM_STRUCTURES}"
        add_structures(form, condition=from_structures, allowsNull=True)
        add_parameter(form, "likelihood", "symmetry", condition=from_structures)
        add_atoms(form, "likelihood", condition=from_structures)
        form.addSection(label="Search")
        add_parameters(form, "likelihood", ("search",))
        add_parameters(form, "likelihood", _GRID, condition=f"search != {_FIXED}")
        add_parameters(form, "likelihood", ("local_range",), condition=f"search == {_LOCAL}")
        form.addSection(label="Images")
        add_image_preparation(form, "likelihood")
        # A single broken image must not stop a set: it keeps its place and gets a status.
        add_parameters(form, "likelihood", ("bad_images",), default="flag")
        form.addSection(label="Model and output")
        add_parameters(form, "likelihood", _OUTPUT)
        add_parameters(form, "likelihood", ("noise",))
        add_parameters(form, "likelihood", ("noise_per",), condition=f"noise == {_RADIAL}")
        add_parameters(form, "likelihood", ("scale",))
        add_parameters(form, "likelihood", ("pilot",), condition=f"scale == {_LEARNED}")
        add_parameters(form, "likelihood", _MODEL)
        add_parameters(form, "likelihood", ("keep",), condition=f"search == {_EXHAUSTIVE}")
        add_parameters(form, "likelihood", tuple(name for name in _RESOURCES if name != "bad_images"))
        self._defineComputing(form)

    def _parameterNames(self):
        search = self.search.get()
        names = ("search",) + (_GRID if search != _FIXED else ()) + (("local_range",) if search == _LOCAL else ())
        names += ("noise", "scale") + (("noise_per",) if self.noise.get() == _RADIAL else ())
        names += ("pilot",) if self.scale.get() == _LEARNED else ()
        names += ("keep",) if search == _EXHAUSTIVE else ()
        if self._fromStructures():
            names += ("symmetry",)
            names += ATOM_PARAMETERS if any(not each.is_map for each in self._structures()) else ()
        return names + ("mask_diameter", "resolution") + IMAGE_PARAMETERS + _OUTPUT + _MODEL + _RESOURCES

    # -------------------------- steps --------------------------

    def _inputIdentity(self):
        if self._fromStructures():
            structures = structures_identity(self._structures())
        else:
            structures = [
                [item.getLabel(), item.getSymmetry()] + file_identity(item.getFileName()) for item in self._templates()
            ]
        return [self.inputParticles.get().getFileName(), structures]

    def _writeCommonInput(self):
        job = {}
        if self._fromStructures():
            structures = self._structures()
            job["structures"] = write_structures(structures, self._inputFolder())
            job["labels"] = [structure.label for structure in structures]
            job["models"] = "first"  # one structure an object; 'generate templates' makes one of each model
        else:
            templates = self._templates()
            job["structures"] = [item.getFileName() for item in templates]
            job["labels"] = [item.getLabel() for item in templates]
            job["symmetry"] = [item.getSymmetry() for item in templates]
        return job

    def _describeOutput(self, particles):
        particles.setAlignmentProj()

    def _defineRelations(self, output):
        self._defineSourceRelation(self.inputParticles, output)
        for pointer in self.inputStructures if self._fromStructures() else [self.inputTemplates]:
            self._defineSourceRelation(pointer, output)

    def _conclude(self):
        super()._conclude()
        scores = ParticleScores(self._resultPath(OUTPUT_STAR), self.inputParticles.get().getSamplingRate())
        limit, mask = RunScores(self._resultPath("")).compared()
        around = "without a mask" if mask is None else f"inside a soft circular mask of {mask:.0f} Å diameter"
        compared = f"to {limit:.3g} Å resolution, {around}"
        self.summaryVar.set("\n".join([self._describeScores(scores), f"Compared {compared}.", *self._inputNotes()]))
        self.methodsVar.set(self._describeMethod(len(scores), compared))
        count = self._countStructures()
        if count > 1:
            classes = self._createClasses(scores, count)
            self._defineOutputs(outputClasses=classes)
            self._defineRelations(classes)

    def _createClasses(self, scores, count):
        """Return the particles as classes, one a structure in their order, empty ones included."""
        classes = self._createSetOfClasses3D(self.inputParticles)
        classes.classifyItems(updateItemCallback=lambda item, _: scores.apply(item), updateClassCallback=self._describeClass)
        add_empty_classes(classes, range(1, count + 1), self._describeClass)
        return classes

    def _describeClass(self, item):
        density = self._resultPath(DENSITY_FILE % item.getObjId())
        item.setAlignmentProj()
        item.setObjLabel(self._labels()[item.getObjId() - 1])
        representative = item.getRepresentative()
        representative.setLocation(density)
        with mrcfile.open(density, header_only=True, permissive=True) as file:
            representative.setSamplingRate(float(file.voxel_size.x))

    # -------------------------- info --------------------------

    def _validate(self):
        particles = self.inputParticles.get()
        errors = self._formErrors()
        errors += particle_errors(particles, self.maskDiameter.get(), self.resolution.get())
        if self._fromStructures():
            errors += structure_errors(self._structures(), self.symmetry.get("").replace(",", " ").split())
        else:
            errors += self._templateErrors()
        if particles is not None and self.search.get() in (_LOCAL, _FIXED) and not particles.hasAlignmentProj():
            errors.append(
                f"A {_SEARCHES[self.search.get()]} search starts from the particles' poses, and these have "
                "none of a 3D refinement. Choose particles with a projection alignment, or the hierarchical "
                "search."
            )
        priors = self.priors.get("").replace(",", " ").split()
        if not errors and len(priors) not in (0, self._countStructures()):
            errors.append(f"There are {len(priors)} priors for {self._countStructures()} structures. Give one each, or none.")
        return errors

    def _templateErrors(self):
        templates = self.inputTemplates.get()
        if templates is None:
            return ["Choose the input templates, or compare with structures."]
        if not self._templates():
            return ["The template set has no enabled structure. Enable one, or choose another set."]
        errors = [
            (f"The file of template '{item.getLabel()}' is missing: {item.getFileName()}. Run 'generate templates' again.")
            for item in self._templates()
            if not os.path.exists(item.getFileName())
        ]
        nyquist = 2 * (templates.getSamplingRate() or 0.0)
        if self.resolution.get() and self.resolution.get() < nyquist * (1 - 1e-6):
            errors.append(
                f"A resolution of {self.resolution.get():g} Å is beyond the templates' Nyquist limit of "
                f"{nyquist:g} Å. Give a larger number, or make templates with a smaller pixel."
            )
        return errors

    def _warnings(self):
        templates, particles = self.inputTemplates.get(), self.inputParticles.get()
        if self._fromStructures() or templates is None or particles is None:
            return []
        if templates.getSamplingRate() > 1.01 * (particles.getSamplingRate() or 0.0):
            return [
                f"The templates have larger pixels ({templates.getSamplingRate():0.3f} Å) than the "
                f"particles ({particles.getSamplingRate():0.3f} Å): detail beyond "
                f"{2 * templates.getSamplingRate():0.2f} Å is not compared."
            ]
        return []

    def _summary(self):
        if self.isActive() or not hasattr(self, "outputParticles"):
            return self._progress() or ["Not run yet."]
        report = self._resultPath(OUTPUT_REPORT)
        lines = self.summaryVar.get("").splitlines()
        return lines + [f"Plots: {report}"] if os.path.exists(report) else lines

    def _methods(self):
        return [self.methodsVar.get()] if self.methodsVar.get() else []

    def _citations(self):
        return ["CryoLike2025", "Rangan2020", "Cossio2013", "Cossio2017"]

    # -------------------------- helpers --------------------------

    def _fromStructures(self):
        return self.structuresFrom.get() == FROM_STRUCTURES

    def _structures(self):
        return pointed_structures(self.inputStructures)

    def _templates(self):
        templates = self.inputTemplates.get()
        if templates is None:
            return []
        return [item.clone() for item in templates.iterItems() if item.isEnabled()]

    def _labels(self):
        if self._fromStructures():
            return [structure.label for structure in self._structures()]
        return [item.getLabel() for item in self._templates()]

    def _countStructures(self):
        return len(self._labels())

    def _describeMethod(self, count, compared):
        where = {
            _HIERARCHICAL: "over all orientations and shifts, from coarse to fine,",
            _EXHAUSTIVE: "over all orientations and shifts",
            _LOCAL: "around their refined poses",
            _FIXED: "at their refined poses",
        }[self.search.get()]
        return (
            f"{count} particles were compared with {self._countStructures()} structures "
            f"{compared}, by the method of CryoLike [CryoLike2025] as implemented in scipion-em-cryolike {__version__}. "
            f"For every structure the likelihood of each particle was computed {where} on a polar Fourier grid "
            "[Rangan2020], with the particle's unknown scale, offset and noise integrated out as in BioEM [Cossio2013], "
            f"{self._describeNoise()} and summed over poses. "
            "Each particle was given the structure and the pose of highest probability."
        )

    def _describeNoise(self):
        if self.noise.get() != _RADIAL:
            return "the noise taken as white,"
        each = ("optics group", "micrograph")[self.noisePer.get()]
        return f"the noise weighted by a radial spectrum for each {each}, from the particles themselves,"

    def _describeScores(self, scores):
        assigned = scores.assigned(self._countStructures())
        lines = [f"{len(scores)} particles were compared with {len(assigned)} structures."]
        lines += [
            f"{i + 1}. {label}: {n} particles ({100.0 * n / max(1, len(scores)):.1f} %)"
            for i, (label, n) in enumerate(zip(self._labels(), assigned))
        ]
        bad = scores.count_bad()
        if bad:
            lines.append(f"{bad} images could not be scored; their attribute _cryolike_status says why.")
        return "\n".join(lines)
