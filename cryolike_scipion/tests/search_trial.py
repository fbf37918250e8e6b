"""Images of blobs with known poses, the grid on which they are searched, and every score of it by the plain formula."""

from dataclasses import replace

import numpy as np
import torch

from cryolike_scipion.engine.division import Division
from cryolike_scipion.engine.exhaustive import search_grid
from cryolike_scipion.engine.levels import single_level
from cryolike_scipion.engine.likelihood import ScalePrior, log_evidence
from cryolike_scipion.engine.polar_grid import inplane_count
from cryolike_scipion.engine.pose_mass import PoseWindow
from cryolike_scipion.engine.pose_search import StructureSearch
from cryolike_scipion.engine.rotations import euler_from_matrix, matrix_from_euler, random_rotations
from cryolike_scipion.engine.row_scores import MovedImages
from cryolike_scipion.engine.scoring import grid_evidence
from cryolike_scipion.engine.shifts import grid_by_radius
from cryolike_scipion.engine.template_power import ring_ctf
from cryolike_scipion.engine.views import healpix_views

from .blob_particles import Blobs, Comparison, DiscRule, optics

BOX, K_MAX, COUNT = 32, 0.06, 6
NEAR = PoseWindow(12.0, 4.0)
THOROUGH = Division(share=3e-4, most=800)


class Trial:
    """Images with known poses, and the grid on which they are searched.

    ``snr`` is the variance of the signal over the noise's (None: hardly any noise); ``compression`` the accuracy of the
    radial basis (None: every radial node of every order).
    """

    def __init__(self, snr, symmetry="C1", step=15.0, double=False, seed=0, compression=None, astigmatism=900.0):
        self.blobs = Blobs.random(11, count=9 if symmetry == "C1" else 4, radius=30.0, symmetry=symmetry)
        self.comparison = Comparison(
            self.blobs.structure(), optics(COUNT, astigmatism=astigmatism), K_MAX, BOX, reach=16.0, double=double,
            compression=compression,
        )  # fmt: skip
        self.bank = self.comparison.bank
        # wide enough for the contrast of these images
        self.prior = ScalePrior(0.0, 40.0 if snr else 4000.0)
        rng = np.random.default_rng(seed)
        self.rotations = random_rotations(COUNT, rng)
        self.origins = rng.uniform(-7, 7, (COUNT, 2))
        self.pixels = self.draw(self.rotations, self.origins, snr)
        self.images = self.comparison.images(self.pixels)
        self.table = healpix_views(step, symmetry)
        self.templates = self.bank.templates(self.table)
        self.shifts = grid_by_radius(8.0, 4.0)
        self.inplane = inplane_count(self.bank.basis.n_orders - 1)

    def draw(self, rotations, origins, snr, seed=5):
        """Images [m, y, x] of given poses."""
        euler = np.stack(euler_from_matrix(rotations), axis=1)
        clean = self.comparison.clean(self.blobs, euler, origins, DiscRule(K_MAX, 50, 48))
        clean /= clean.std()
        noise = 0.02 if snr is None else snr**-0.5
        pixels = clean + noise * np.random.default_rng(seed).normal(size=clean.shape)
        return pixels.astype(np.float64 if self.bank.dtype == torch.complex128 else np.float32)

    def search(self, images=None, shifts=None, **options):
        return search_grid(
            self.images if images is None else images, self.templates, self.table.weights, shifts or self.shifts,
            self.inplane, self.prior, self.comparison.grid, self.bank.basis, **options,
        )  # fmt: skip

    def row_masses(self, scores):
        """ln of the prior-weighted mass of every row that is named, [m, o, v]; -inf of the others."""
        masses = np.full((len(scores.heavy), len(self.shifts) * len(self.table)), -np.inf)
        for own, heavy in zip(masses, scores.heavy):
            own[heavy["row"]] = heavy["log_mass"]
        return masses.reshape(-1, len(self.shifts), len(self.table))

    def poses(self, scores, shifts=None):
        """Best rotations [m, 3, 3] and origins [m, 2]."""
        view = scores.view.numpy()
        psi = 360.0 * scores.inplane.numpy() / self.inplane
        rotation = matrix_from_euler(self.table.rot_deg[view], self.table.tilt_deg[view], psi)
        return rotation, (shifts or self.shifts).origins[scores.shift.numpy()]

    def tensor(self, images=None):
        """Every ln(evidence/null) [m, v, o, g] by the plain formula in float64, and the cross-correlations."""
        images = self.images if images is None else images
        b = self.comparison.products(images, self.templates, self.shifts.origins, self.inplane).double()
        known = grid_evidence(images, self.templates, self.prior, self.inplane)
        b = (b.transpose(1, 2) - known.offset[:, :, None].double()).numpy()
        a = known.power[:, :, None].double().numpy()
        c, n = (v.double().numpy()[:, None, None, None] for v in (images.projected_power, images.dof))
        return log_evidence(a, b, c, n, self.prior), b / np.sqrt(a * c)

    def log_prior(self):
        """ln of the prior of every pose, [1, v, 1, 1]."""
        return np.log(self.table.weights)[None, :, None, None] - np.log(len(self.shifts) * self.inplane)

    def structure_search(self, division, near=NEAR, max_bytes=2.0**30):
        """The search of the grid with divisions after it."""
        transfer = ring_ctf(self.comparison.arguments, self.comparison.grid.radii)
        levels = single_level(self.table, self.shifts)
        return StructureSearch(0, [self.comparison.band], levels, division, near, self.inplane, transfer, max_bytes)

    def integrate(self, count, levels, near=NEAR, max_bytes=2.0**30, division=THOROUGH, **options):
        """Every pose of the grid of the first images, and ``levels`` divisions however little they change."""
        images = self.images.take(slice(0, count))
        search = self.structure_search(replace(division, levels=levels, tolerance=0.0), near, max_bytes)
        moved = MovedImages(images, self.comparison.band, self.shifts.origins)
        return search.everywhere(images, moved, self.prior, **options)
