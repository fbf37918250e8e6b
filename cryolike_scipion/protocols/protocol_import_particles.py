"""The node *import particles*: RELION STAR and cryoSPARC files, all at once or as they are written."""

import glob
import os
import shutil
import time

from pwem.objects import SetOfParticles
from pyworkflow.protocol.constants import LEVEL_ADVANCED
from pyworkflow.protocol.params import BooleanParam, FloatParam, IntParam, PathParam, StringParam

from .. import __version__
from ..convert.imported import ImportedParticles, ParticleFileError
from .batches import file_identity, read_json, write_json
from .form import add_parameters
from .protocol_base import ProtCryolikeBase, hash_of

_STATE = "imported.json"
_PARAMETERS = ("root", "pixel", "amplitude_contrast")
_LOOK_EVERY = 1.0  # seconds
_RELION, _CRYOSPARC = "RELION [Scheres2012]", "cryoSPARC [Punjani2017]"


class ProtCryolikeImportParticles(ProtCryolikeBase):
    """Import particles from RELION or cryoSPARC files.

    Reads STAR files of RELION 3.0 and later and cryoSPARC's .cs files without any other program. Images stay where they are.
    All optics groups are kept, poses too, and the sign of cryoSPARC's images. With streaming, files that appear later are
    imported as they come.
    """

    _label = "import particles"
    _possibleOutputs = {"outputParticles": SetOfParticles}
    _verb = "star"

    # -------------------------- form --------------------------

    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam(
            "files",
            PathParam,
            important=True,
            label="Particle files",
            help="A RELION STAR file, a cryoSPARC .cs file, the folder of a RELION job, or a pattern with * for several files.",
        )
        add_parameters(form, "star", _PARAMETERS)
        form.addSection(label="Streaming")
        form.addParam(
            "dataStreaming",
            BooleanParam,
            default=False,
            label="Import files as they come?",
            help="Keep looking for new files of this pattern. Each is imported once, when it is complete.",
        )
        form.addParam(
            "stopFile",
            StringParam,
            default="",
            allowsNull=True,
            condition="dataStreaming",
            label="Stop file",
            help="The import ends when a file of this name exists and all particle files are imported. Without one the import "
            "ends after the time below.",
        )
        form.addParam(
            "timeout",
            IntParam,
            default=43200,
            condition="dataStreaming",
            label="Longest wait (s)",
            help="The import also ends when no new file came for so long. A longer time outlasts longer pauses.\n\n"
            "Unit: seconds.",
        )
        form.addParam(
            "fileTimeout",
            FloatParam,
            default=10.0,
            condition="dataStreaming",
            expertLevel=LEVEL_ADVANCED,
            label="Complete after (s)",
            help="A file counts as complete when it has not changed for so long. A longer time is safer on slow disks.\n\n"
            "Unit: seconds.",
        )

    # -------------------------- steps --------------------------

    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, hash_of([self._given(), self._inputIdentity()]), needsGPU=False)

    def importStep(self, key):
        """Import the files, and in streaming those that come until it ends."""
        state = read_json(self._getExtraPath(_STATE)) or {}
        wanted = hash_of(self._given()) if self.dataStreaming else key  # without streaming with the files as they are
        if state.get("key") != wanted or not hasattr(self, "outputParticles"):
            state = {"key": wanted, "files": []}
            shutil.rmtree(self._getExtraPath("files"), ignore_errors=True)
        last = time.time()
        while True:
            stopped = self._isStopped()  # before looking: what is there when the stop file comes is imported
            known = {each[0]: each[:3] for each in state["files"]}
            present = self._present()
            self._refuseChanged(path for path in present if path in known and file_identity(path) != known[path])
            new = [path for path in present if path not in known]
            ready = [path for path in new if self._isComplete(path)]
            for path in ready:
                if self._import(path, state):
                    last = time.time()
            waits = len(ready) < len(new)
            if not waits and (stopped or time.time() - last > self.timeout.get()):
                break
            if not ready:
                time.sleep(_LOOK_EVERY)
        if not state["files"]:
            raise RuntimeError(f"No file {self.files.get()} came.")
        self._closeOutputSet()

    def _import(self, path, state):
        """Add the particles of a file to the output and note it; return whether it was there."""
        identity = file_identity(path)
        number = len(state["files"]) + 1
        star = self._getExtraPath("files", f"{number:06d}.star")
        os.makedirs(os.path.dirname(star), exist_ok=True)
        job = self._getExtraPath("files", f"{number:06d}.json")
        self._writeJob(job, self._verb, dict(self._formValues(), particles=[path], out=star))
        try:
            self._runEngine(job, star)
        except RuntimeError:
            if self.dataStreaming and not os.path.exists(path):  # it was moved away meanwhile
                return False
            raise
        particles = ImportedParticles(star, path)
        first = state["files"][-1][3] if state["files"] else 0  # particles so far
        output = self._output(particles, isNew=first == 0)
        present = output.getSize()
        for place, particle in enumerate(particles, first + 1):
            if place > present:  # else a start that was stopped has written it and not noted it
                particle.setObjId(place)
                output.append(particle)
        self._updateOutputSet("outputParticles", output, SetOfParticles.STREAM_OPEN)
        state["files"].append(identity + [first + len(particles)])
        write_json(self._getExtraPath(_STATE), state)
        self.info(f"{path}: {len(particles)} particles, {first + len(particles)} in all")
        return True

    def _refuseChanged(self, paths):
        """Stop if there is a file that changed after it was imported."""
        for path in paths:
            raise ParticleFileError(
                f"{path} has changed since it was imported, and other nodes may have used its particles. Write new particles "
                "into new files, or restart the import instead of continuing it."
            )

    def _output(self, particles, isNew):
        if isNew:
            output = self._createSetOfParticles()
            output.setSamplingRate(particles.pixel)
            output.setAcquisition(particles.acquisition)
            output.setHasCTF(True)
            if particles.posed:
                output.setAlignmentProj()
            return output
        output = SetOfParticles(filename=self.outputParticles.getFileName())
        output.loadAllProperties()
        particles.follow(output)
        output.enableAppend()
        return output

    # -------------------------- info --------------------------

    def _validate(self):
        errors = self._formErrors()
        if not (self.files.get() or "").strip():
            errors.append("Give a particle file.")
        elif not self.dataStreaming and not self._present():
            errors.append(f"There is no file {self.files.get()}. Correct its name, or import files as they come.")
        if self.dataStreaming and (self.stopFile.get() or "").strip() in self._present():
            errors.append("The stop file is one of the particle files. Choose another name for it.")
        return errors

    def _summary(self):
        if not hasattr(self, "outputParticles"):
            return self._progress() or ["Not run yet."]
        files = (read_json(self._getExtraPath(_STATE)) or {"files": []})["files"]
        more = ["Looking for more files."] if self.isActive() else []
        return [f"{self.outputParticles.getSize()} particles from {len(files)} files."] + more

    def _methods(self):
        if not hasattr(self, "outputParticles"):
            return []
        read = [each[0] for each in (read_json(self._getExtraPath(_STATE)) or {"files": []})["files"]]
        programs = sorted({_CRYOSPARC if path.endswith((".cs", ".csg")) else _RELION for path in read})
        return [
            f"{self.outputParticles.getSize()} particles with their CTFs and optics groups were read from {len(read)} "
            f"{'file' if len(read) == 1 else 'files'} of {' and '.join(programs)} by scipion-em-cryolike {__version__} "
            "[CryoLike2025]."
        ]

    def _citations(self):
        return ["CryoLike2025", "Scheres2012", "Punjani2017"]

    # -------------------------- helpers --------------------------

    def _parameterNames(self):
        return _PARAMETERS

    def _given(self):
        return [self.files.get(), self._formValues()]

    def _inputIdentity(self):
        """Return something new at every start where files may have come since the last."""
        return [time.time()] if self.dataStreaming else [file_identity(path) for path in self._present()]

    def _present(self):
        given = os.path.expanduser((self.files.get() or "").strip())
        found = [given] if os.path.exists(given) else sorted(glob.glob(given))
        # While files come, a link whose file is not there is one that has not come yet.
        return [path for path in found if os.path.exists(path)] if self.dataStreaming else found

    def _isStopped(self):
        name = (self.stopFile.get() or "").strip()
        return not self.dataStreaming or bool(name and os.path.exists(os.path.expanduser(name)))

    def _isComplete(self, path):
        try:
            return not self.dataStreaming or time.time() - os.path.getmtime(path) >= self.fileTimeout.get()
        except OSError:  # it has just gone
            return False

    def _progress(self):
        return ["No file yet."] if self.isActive() else []
