"""Converted particles: before and after their preparation, and the CTF over a particle's spectrum."""

import os

from pyworkflow.protocol.params import IntParam
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from .. import Plugin
from ..constants import OUTPUT_GALLERY, OUTPUT_STAR, RESULT_FOLDER
from ..convert.inspection import is_fresh, row_of_item
from ..convert.particle_look import read_look
from ..objects import COEFFICIENTS_ATTRIBUTE
from ..plots.particles import before_after, ctf_over_spectrum
from ..protocols import ProtCryolikeConvertParticles
from .buttons import add_buttons
from .viewer_likelihood import BusyCursor
from .windows import FigureWindow


class CryolikeConvertedParticlesViewer(ProtocolViewer):
    """What the conversion did to some particles."""

    _label = "viewer of converted particles"
    _targets = [ProtCryolikeConvertParticles]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form):
        form.addSection(label="Particles")
        images = (
            "Images as they are in their files and as they are compared: contrast, background, mask and resolution limit; and "
            "the CTF over the power spectrum of the first."
        )
        add_buttons(form, ("overview", "Some particles, before and after", images))
        first = self._firstItem()
        form.addParam(
            "particleId",
            IntParam,
            default=first.getObjId() if first is not None else 1,
            label="The same from particle",
            help="Id of the particle whose spectrum and CTF are shown; others of its optics group stand beside it.",
        )

    def _getVisualizeDict(self):
        return {"overview": self._showOverview, "particleId": self._showParticle}

    def _validate(self):
        return [] if self._firstItem() is not None else ["There are no converted particles yet."]

    def _showOverview(self, paramName=None):
        run = self._folder(self._firstItem())
        path = os.path.join(run, OUTPUT_GALLERY)
        if os.path.exists(path):
            return [self._window(path, os.path.join(run, OUTPUT_STAR))]
        return self._showParticle()

    def _showParticle(self, paramName=None):
        item = self.particleId.get()
        try:
            return [self._window(*self._inspect(item))]
        except (KeyError, RuntimeError) as error:
            return [self.errorMessage(str(error.args[0]), f"Particle {item}")]

    def _window(self, path, star):
        look = read_look(path, star)
        captions = [f"particle {item}" for item in look.items]
        spectrum = look.frequency, look.power, look.ctf_frequency, look.ctf_squared

        def make(_):
            return [
                ("Before and after", lambda: before_after(look.raw, look.prepared, captions)),
                ("CTF", lambda: ctf_over_spectrum(*spectrum, look.title)),
            ]

        return FigureWindow("Converted particles", make, parent=self._tkRoot)

    def _inspect(self, item):
        """Return the file that the engine wrote about a particle, which is kept, and the STAR file of its run."""
        particles = self.protocol.outputParticles
        if item not in particles.getIdSet():
            raise KeyError(f"there is no particle {item} in the output")
        run = self._folder(particles[item])
        star = os.path.join(run, OUTPUT_STAR)
        folder = self.protocol._getExtraPath("inspect")
        path = os.path.join(folder, f"converted_{item}.npz")
        if not is_fresh(path, star):
            os.makedirs(folder, exist_ok=True)
            with BusyCursor(self._tkRoot):
                Plugin.callEngine(["inspect", run, "--row", row_of_item(star, item), "--device", "cpu", "--out", path])
        return path, star

    def _firstItem(self):
        particles = getattr(self.protocol, "outputParticles", None)
        return particles.getFirstItem() if particles is not None else None

    def _folder(self, particle):
        """Return the result folder with a particle's coefficients."""
        place = particle.getAttributeValue(COEFFICIENTS_ATTRIBUTE, "").partition("@")[2]
        return os.path.dirname(place) or self.protocol._getExtraPath(RESULT_FOLDER)
