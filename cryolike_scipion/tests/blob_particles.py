"""Small simulated particles for tests of the search: a structure of Gaussian blobs, known everywhere in closed form.

Frames and signs are the engine's: ``F2D(k) = F3D(Aᵀ (kx, ky, 0)) exp(2 pi i k . origin)``, lengths in Å.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryolike_scipion.engine.bands import Band
from cryolike_scipion.engine.correlation import correlate, shift_factors, shifted_rows
from cryolike_scipion.engine.ctf import ctf
from cryolike_scipion.engine.image_prep import ImageSettings
from cryolike_scipion.engine.polar_grid import choose_grid, inplane_count
from cryolike_scipion.engine.polar_images import Window, padded_size, polar_images
from cryolike_scipion.engine.rotations import matrix_from_euler
from cryolike_scipion.engine.structures import Structure
from cryolike_scipion.engine.symmetry import rotations as group_rotations
from cryolike_scipion.engine.template_bank import TemplateBank, common_basis, ring_profile
from cryolike_scipion.engine.template_power import delocalisation, power_rule
from cryolike_scipion.engine.views import healpix_views

PIXEL = 4.0


@dataclass(frozen=True)
class Blobs:
    """Gaussians of one width: centres float64 [j, 3] (x, y, z), weights [j], sigma; Å."""

    centres: np.ndarray
    weights: np.ndarray
    sigma: float
    symmetry: str = "C1"

    @classmethod
    def random(cls, seed, count=9, radius=26.0, sigma=6.0, symmetry="C1", signed=False):
        rng = np.random.default_rng(seed)
        group = group_rotations(symmetry)
        direction = rng.normal(size=(count, 3))
        distance = radius * rng.uniform(0.1, 1, count) ** (1 / 3)
        centres = direction / np.linalg.norm(direction, axis=1, keepdims=True) * distance[:, None]
        weights = rng.uniform(0.5, 1.5, count) * (rng.choice([-1.0, 1.0], count) if signed else 1.0)
        mates = np.einsum("gij,nj->gni", group, centres).reshape(-1, 3)
        return cls(mates, np.tile(weights, len(group)), sigma, symmetry)

    def transform(self, frequencies):
        """∫ density exp(-2 pi i k.x) d³x at frequencies [..., 3]: complex128 [...]."""
        decay = np.exp(-2 * np.pi**2 * self.sigma**2 * np.sum(frequencies**2, axis=-1))
        return decay * (np.exp(-2j * np.pi * frequencies @ self.centres.T) @ self.weights)

    def structure(self, box=28, pixel=PIXEL):
        axis = (np.arange(box) - box // 2) * pixel
        spread = [np.exp(-((axis[None] - self.centres[:, i, None]) ** 2) / (2 * self.sigma**2)) for i in range(3)]
        density = np.einsum("j,jz,jy,jx->zyx", self.weights, spread[2], spread[1], spread[0], optimize=True)
        density /= (2 * np.pi * self.sigma**2) ** 1.5
        radius = float(np.linalg.norm(self.centres, axis=1).max() + 4.5 * self.sigma)
        reach = min(radius, box / 2 * pixel)
        return Structure(density.astype(np.float32), pixel, "blobs", self.symmetry, Path("blobs"), reach, 0.5 / pixel, "map")


def optics(count, seed=0, defocus=(6000.0, 9000.0), astigmatism=900.0):
    """Arguments of `ctf` for ``count`` particles, each float64 [m]."""
    rng = np.random.default_rng(seed)
    u = rng.uniform(*defocus, count)
    values = {
        "defocus_u": u,
        "defocus_v": u - astigmatism * rng.uniform(0.5, 1, count),
        "defocus_angle_deg": rng.uniform(0, 180, count),
        "voltage_kv": np.full(count, 300.0),
        "cs_mm": np.full(count, 2.7),
        "amplitude_contrast": np.full(count, 0.1),
        "phase_shift_deg": np.zeros(count),
        "bfactor": np.zeros(count),
        "scale": np.ones(count),
    }
    return {name: torch.as_tensor(value) for name, value in values.items()}


class DiscRule:
    """A dense polar rule of the disc that owes nothing to the engine: Gauss-Legendre in k, half circle."""

    def __init__(self, k_max, n_radii=130, n_half=130):
        x, w = np.polynomial.legendre.leggauss(n_radii)
        k = k_max * (x + 1) / 2
        theta = np.pi * (np.arange(n_half) + 0.5) / n_half
        self.k, self.theta = (v.ravel() for v in np.meshgrid(k, theta, indexing="ij"))
        self.weights = np.repeat(0.5 * np.pi * k_max * w * k / n_half, n_half)  # of the half disc, ∫ d²k
        self.points = self.k[:, None] * np.stack([np.cos(self.theta), np.sin(self.theta)], axis=1)

    def transfer(self, arguments, m):
        one = {name: float(value[m]) for name, value in arguments.items()}
        return ctf(torch.as_tensor(self.k), torch.as_tensor(self.theta), **one).numpy()

    def posed(self, blobs, rotation, origin):
        """Transform of the projection, without CTF: complex128 [p]."""
        values = blobs.transform(self.points @ rotation[:2])
        return values * np.exp(2j * np.pi * self.points @ np.asarray(origin, float))

    def pixels(self, values, box):
        """Real image [y, x] of band-limited transform values, at the pixels of a box: ∫ F exp(2 pi i k.x) d²k."""
        axis = (np.arange(box) - box // 2) * PIXEL
        along_x = np.exp(2j * np.pi * np.outer(axis, self.points[:, 0]))
        along_y = np.exp(2j * np.pi * np.outer(axis, self.points[:, 1]))
        return 2 * ((along_y * (self.weights * values)) @ along_x.T).real

    def transform(self, image):
        """pixel² Σ image exp(-2 pi i k.x): complex128 [p]."""
        axis = (np.arange(image.shape[0]) - image.shape[0] // 2) * PIXEL
        along_x = np.exp(-2j * np.pi * np.outer(self.points[:, 0], axis))
        along_y = np.exp(-2j * np.pi * np.outer(self.points[:, 1], axis))
        return PIXEL**2 * np.einsum("py,yx,px->p", along_y, image, along_x, optimize=True)

    def dot(self, first, second):
        """∫ conj(first) second over the whole disc; real."""
        return 2 * float((self.weights * (first.conj() * second).real).sum())


class Comparison:
    """Everything between images and scores, built as a run builds it."""

    def __init__(
        self, structure, arguments, k_max=0.11, box=40, reach=10.0, settings=None, accuracy=1e-6, double=False,
        rescale=True, compression=None,
    ):  # fmt: skip
        self.structure, self.arguments, self.box = structure, arguments, box
        self.settings = settings or ImageSettings(normalise=False)
        self.window = Window(structure.radius + reach, 2 * PIXEL)
        self.grid = choose_grid(k_max, self.window.radius + self.window.edge, structure.radius, accuracy)
        self.rule = power_rule(self.grid, structure.radius, arguments)
        self.bank = TemplateBank(structure, self.grid, self.rule, double=double)
        if rescale:
            views = healpix_views(20.0, structure.symmetry)
            power = ring_profile(self.bank, views.rotations()).sum()
            self.bank.scale = power**-0.5
        if compression is not None:
            views = healpix_views(14.0).rotations() @ matrix_from_euler(11.3, 27.7, 41.9)
            self.bank.basis = common_basis([self.bank], views, compression)
        self.padded = padded_size(box, PIXEL, self.window, delocalisation(arguments, k_max))

    @property
    def band(self):
        """The one band of this comparison."""
        basis = self.bank.basis
        return Band(self.grid, self.rule, basis, [self.bank], inplane_count(basis.n_orders - 1))

    def products(self, images, templates, origins, n_inplane):
        """Raw inner products b [m, o, v, g] of images moved to origins [o, 2]."""
        factors = shift_factors(self.grid, origins, images.matched.real.dtype)
        rows = shifted_rows(images.matched[:, None], factors, self.bank.basis)
        return correlate(rows, templates.rows, self.bank.basis, n_inplane).unflatten(0, (len(images), len(origins)))

    def images(self, pixels, arguments=None):
        """Real images [m, y, x] on the polar grid."""
        pixels = torch.as_tensor(np.ascontiguousarray(pixels))
        return polar_images(
            pixels, torch.ones(len(pixels), dtype=torch.float64), arguments or self.arguments, self.settings,
            self.grid, self.rule, self.window, PIXEL, self.padded,
        )  # fmt: skip

    def clean(self, blobs, euler, origins, rule=None):
        """Particle images [m, y, x] without noise, by the closed form; in the grey units of the scaled bank."""
        rule = rule or DiscRule(self.grid.k_max, 90, 96)
        rotations = matrix_from_euler(*np.atleast_2d(euler).T)
        return self.bank.scale * np.stack([
            rule.pixels(rule.posed(blobs, a, o) * rule.transfer(self.arguments, m), self.box)
            for m, (a, o) in enumerate(zip(rotations, np.atleast_2d(origins)))
        ])  # fmt: skip
