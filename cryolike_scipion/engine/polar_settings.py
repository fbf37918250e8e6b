"""Everything that decides the polar coefficients of an image, in one value that can be stored and compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .fingerprint import fingerprint, stack_identity
from .image_prep import ImageSettings
from .noise_spectrum import NoiseModel
from .particles import Particles
from .polar_grid import PolarGrid, choose_grid, gauss_radial_rule
from .polar_images import Window

__all__ = ["PolarSettings", "band_tail", "image_hashes"]

FORMAT = 1
# Error of the quadrature on any plane wave that an inner product can hold, relative to the area of the band.
GRID_ACCURACY = 1e-5


@dataclass(frozen=True)
class PolarSettings:
    """Grid, window and image preparation.

    Attributes
    ----------
    k_max : float
        1/Å.
    template_radius : float
        Largest radius (Å) of structures that the grid resolves.
    window : Window
        Å.
    images : ImageSettings
    precision : str
        "single" or "double".
    noise : NoiseModel or None
        Spectra by which images are whitened; None: the noise is white.
    """

    k_max: float
    template_radius: float
    window: Window
    images: ImageSettings
    precision: str = "single"
    noise: NoiseModel | None = None
    _grid: list[PolarGrid] = field(default_factory=list, repr=False, compare=False)

    @property
    def grid(self) -> PolarGrid:
        """The smallest grid of the stated accuracy for window and templates."""
        if not self._grid:
            self._grid.append(
                choose_grid(self.k_max, self.window.radius + self.window.edge, self.template_radius, GRID_ACCURACY)
            )
        return self._grid[0]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        noise = {} if self.noise is None else {"noise": self.noise.plain()}
        return noise | {
            "format": FORMAT,
            "k_max": self.k_max,
            "template_radius": self.template_radius,
            "window": asdict(self.window),
            "images": asdict(self.images),
            "precision": self.precision,
            "n_radii": self.grid.n_radii,
            "n_angles": self.grid.n_angles,
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> PolarSettings:
        """The inverse of `plain`.

        Raises
        ------
        ValueError
            If the values are of another format.
        """
        if values.get("format") != FORMAT:
            raise ValueError(f"polar coefficients have format {values.get('format')}, not {FORMAT}")
        settings = cls(
            values["k_max"],
            values["template_radius"],
            Window(**values["window"]),
            ImageSettings(**values["images"]),
            values["precision"],
            NoiseModel.from_plain(values["noise"]) if "noise" in values else None,
        )
        radii, weights = gauss_radial_rule(values["n_radii"], values["k_max"])
        settings._grid.append(PolarGrid(radii, weights, values["n_angles"], values["k_max"]))
        return settings

    def serves(self, k_max: float, template_radius: float, reach: float, images: ImageSettings, precision: str) -> bool:
        """Whether coefficients made so can be used for templates and shifts (``reach``, Å) of a run.

        The grid has to hold the template (up to rounding) and the window the shifted template.
        """
        slack = 1 + 1e-6
        return (
            abs(self.k_max / k_max - 1) < 1e-6
            and template_radius <= self.template_radius * slack
            and template_radius + reach + band_tail(k_max) <= self.window.radius * slack
            and images == self.images
            and precision == self.precision
        )


def band_tail(k_max: float) -> float:
    """How far (Å) a template cut off at k_max reaches beyond its structure.

    The sharp limit of the band makes ripples that fall as the distance to the power 3/2; where they leave the window they are
    lost. Two periods of the finest detail keep the loss below 1e-4 of an inner product also where the structure has power at
    the limit.
    """
    return 2.0 / k_max


def image_hashes(particles: Particles, indices: np.ndarray, settings: PolarSettings) -> list[str]:
    """Hash, for each particle, of the settings, its image file (name, size, time), frame, optics and CTF values."""
    common = fingerprint(settings.plain())
    stacks = {int(s): stack_identity(particles.stacks[s]) for s in np.unique(particles.stack_index[indices])}
    values = ("defocus_u", "defocus_v", "defocus_angle_deg", "phase_shift_deg", "ctf_bfactor", "ctf_scale", "sign")
    hashes = []
    for i in indices:
        group = particles.optics[particles.optics_index[i]]
        decides = {
            "settings": common,
            "stack": stacks[int(particles.stack_index[i])],
            "frame": int(particles.frame[i]),
            "optics": [group.pixel_size, group.box, group.voltage_kv, group.cs_mm, group.amplitude_contrast],
            "aberrations": asdict(group.aberrations),
            "phase_flipped": group.phase_flipped,
            "ctf": [float(getattr(particles, name)[i]) for name in values],
        }
        hashes.append(fingerprint(decides)[:32])
    return hashes
