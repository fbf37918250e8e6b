"""The mask diameter, seen on a particle and on the structure's projection."""

import numpy as np
from matplotlib.patches import Circle
from pyworkflow.gui.dialog import showError
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..convert.previews import low_passed, particle_image, some_particles
from ..mask_room import roomy_mask
from ..plots.particles import mask_preview
from ..protocols import ProtCryolikeConvertParticles, ProtCryolikeLikelihood
from .form_inputs import fresh, particles_of, projections_of
from .value_window import ValueWindow

_SHOWN = 20
_BLUR = 20.0  # Å: what makes a particle visible
_SHIFTS = 0.1  # of the box, where the form does not say
_COLOUR = "#edae49"


class CryolikeMaskWizard(Wizard):
    """Draws the mask's circle over both pictures."""

    _targets = [(ProtCryolikeConvertParticles, ["maskDiameter"]), (ProtCryolikeLikelihood, ["maskDiameter"])]
    _environments = [DESKTOP_TKINTER]

    def show(self, form, *params):
        protocol = fresh(form)
        particles = particles_of(protocol)
        if particles is None:
            showError("Mask diameter", "Choose the input particles first.", form.root)
            return
        pixel = particles.getSamplingRate()
        items = some_particles(particles, _SHOWN)
        images = [low_passed(particle_image(item), pixel, max(_BLUR, 4 * pixel)) for item in items[:1]]
        width = images[0].shape[0] * pixel
        projections = [make() for _, make in projections_of(protocol)[:1]]
        projection, projected = (projections[0][0], projections[0][1]) if projections else (None, width)
        diameter = projections[0][2] if projections else None
        figure, axes = mask_preview(images[0], projection, (width, projected))
        circles = [axis.add_patch(Circle((0, 0), 1.0, fill=False, color=_COLOUR, lw=2)) for axis in axes]
        for axis in axes:  # both in one scale, with the larger of the two pictures in full
            reach = max(width, projected if projection is not None else 0.0) / 2
            axis.set_xlim(-reach, reach)
            axis.set_ylim(-reach, reach)

        def follow(value):
            for circle in circles:
                circle.set_radius(value / 2)

        shown = [0]

        def another():
            shown[0] = (shown[0] + 1) % len(items)
            image = low_passed(particle_image(items[shown[0]]), pixel, max(_BLUR, 4 * pixel))
            picture = axes[0].images[0]
            picture.set_data(image)
            picture.set_clim(*np.percentile(image, (0.5, 99.5)))
            self.window.canvas.draw_idle()

        suggested = min(_roomy(protocol, particles, diameter, width), width) if diameter else 0.8 * width
        note = "The circle is the mask's diameter, over a particle (smoothed to be seen)"
        if diameter:
            note += (
                f" and the structure, which is {diameter:.0f} Å wide. A tight one cuts off fine detail that the CTF spreads."
            )
        else:
            note += ". Choose structures to see them, too."
        first = protocol.maskDiameter.get() or suggested
        self.window = ValueWindow(
            form.root, "Mask diameter", "Mask diameter", "Å", (2 * pixel, width), first, figure, follow,
            lambda value: form.setVar("maskDiameter", value), note, ("Another particle", another),
        )  # fmt: skip


def _roomy(protocol, particles, diameter, width):
    """Return the diameter (Å) that loses nothing of a structure, moved as far as the form says."""
    asked = getattr(protocol, "maxShift", None)
    reach = _SHIFTS * width if asked is None or asked.get() is None else asked.get()
    limit = protocol.resolution.get() or 2 * particles.getSamplingRate()
    return roomy_mask(diameter, reach, limit, particles.getAcquisition().getVoltage())
