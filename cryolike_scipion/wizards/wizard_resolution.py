"""The resolution limit, seen on the radial power spectrum of the particles, or of the structures."""

import numpy as np
from pyworkflow.gui.dialog import showError
from pyworkflow.viewer import DESKTOP_TKINTER
from pyworkflow.wizard import Wizard

from ..convert.previews import particle_image, some_particles
from ..plots.style import COLOURS, legend, one_axis
from ..plots.templates import draw_power, radial_power
from ..protocols import ProtCryolikeConvertParticles, ProtCryolikeGenerateTemplates, ProtCryolikeLikelihood
from .form_inputs import fresh, particles_of, projections_of
from .value_window import ValueWindow

_AVERAGED = 100
_COARSEST = 0.125  # of the box: the coarsest limit offered


class CryolikeResolutionWizard(Wizard):
    """Draws the limit as a line over the spectra."""

    _targets = [
        (ProtCryolikeGenerateTemplates, ["resolution"]),
        (ProtCryolikeConvertParticles, ["resolution"]),
        (ProtCryolikeLikelihood, ["resolution"]),
    ]
    _environments = [DESKTOP_TKINTER]

    def show(self, form, *params):
        protocol = fresh(form)
        curves, pixel, width = self._curves(protocol)
        if not curves:
            showError("Resolution limit", "Choose the input particles or structures first.", form.root)
            return
        figure, axis = one_axis(4.0, 7.5)
        longest = max(curves, key=lambda curve: curve[1][-1])
        for (_, frequency, power), colour in zip(curves, COLOURS):
            draw_power(axis, frequency, power[None] / power[1:].max(), [colour])
        last = float(longest[1][-1])
        ticks = np.linspace(last / 6, last, 6)
        axis.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
        axis.set_xlim(0, last)
        axis.set_ylabel("power, the highest as 1", fontsize=9)
        legend(figure, [name for name, _, _ in curves])
        line = axis.axvline(last, color="#222222", lw=1.8, ls="--")
        band = axis.axvspan(last, last, color="#222222", alpha=0.08, lw=0)

        def follow(value):
            k = 1.0 / value
            line.set_xdata([k, k])
            band.set_xy([[k, 0], [k, 1], [last, 1], [last, 0], [k, 0]])

        finest = 2 * pixel
        note = f"Detail to the right of the line is not compared. The particles' Nyquist limit is {finest:.3g} Å."
        if particles_of(protocol) is None:
            note = f"Detail to the right of the line is not compared. The structures' Nyquist limit is {finest:.3g} Å."
        coarsest = max(_COARSEST * width, 3 * finest)
        self.window = ValueWindow(
            form.root, "Resolution limit", "Resolution limit", "Å", (finest, coarsest), protocol.resolution.get() or finest,
            figure, follow, lambda value: form.setVar("resolution", value), note,
        )  # fmt: skip

    @staticmethod
    def _curves(protocol):
        """Return (name, frequency, power) of particles and first structure, the pixel size and the width in Å."""
        curves, pixel, width = [], 0.0, 0.0
        particles = particles_of(protocol)
        if particles is not None:
            pixel = particles.getSamplingRate()
            images = np.array([particle_image(item) for item in some_particles(particles, _AVERAGED)])
            width = images.shape[-1] * pixel
            curves.append((f"{len(images)} particles", *radial_power(images, pixel)))
        for label, make in projections_of(protocol)[:1]:
            picture, extent, _ = make()
            spacing = extent / picture.shape[-1]
            curves.append((f"{label}, projected", *radial_power(picture[None], spacing)))
            pixel, width = pixel or spacing, width or extent
        return curves, pixel, width
