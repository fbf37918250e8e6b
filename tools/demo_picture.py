"""A picture of the demo's result: particles, what the program found in them, and how sure it is."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from cryolike_scipion.engine.image_stacks import read_images
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.engine.simulate import HalfPlane, Optics, Truth, clean_images
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import read_structure
from cryolike_scipion.plots.structures import population_shares
from cryolike_scipion.plots.style import COLOURS, plain

_SHOWN = 6


def draw(result, data, path):
    """Draw some particles with the projections that were found, the shares of the structures and the
    posteriors.

    Parameters
    ----------
    result : folder of a likelihood run.
    data : the demo's data.
    path : PNG to write.
    """
    scores = load_results(result)
    shown = _choose(scores)
    images, projections = _images(data, scores, shown)
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    axes = upper.subplots(2, len(shown), squeeze=False)
    for column, m in enumerate(shown):
        best = int(scores.best_structure[m]) - 1
        for row, picture in enumerate((images[column], projections[column])):
            axis = axes[row, column]
            axis.imshow(picture, cmap="gray", vmin=np.quantile(picture, 0.01), vmax=np.quantile(picture, 0.995))
            axis.set_xticks([])
            axis.set_yticks([])
        label = plain(scores.structures[best].label, 14)
        axes[0, column].set_title(f"particle {m + 1}", fontsize=9)
        axes[1, column].set_xlabel(
            f"{label}\nposterior {scores.structure_posterior[best, m]:.2f}",
            fontsize=8,
            color=COLOURS[best % len(COLOURS)],
        )
    axes[0, 0].set_ylabel("particle", fontsize=9)
    axes[1, 0].set_ylabel("projection\nfound in it", fontsize=9)
    _charts(lower, scores)
    figure.savefig(path, dpi=130)


def _choose(scores):
    """Particles to show: from the middle of each structure's, neither the best nor the worst."""
    best = scores.of_best("integrated")
    order = [np.flatnonzero(scores.best_structure == k + 1) for k in range(len(scores.structures))]
    order = [members[np.argsort(np.abs(best[members] - np.median(best[members])))] for members in order if len(members)]
    each = -(-_SHOWN // max(1, len(order)))
    return [int(m) for members in order for m in members[:each]][:_SHOWN]


def _images(data, scores, shown):
    particles = read_particles([data.star]).take(np.array(shown))
    optics = particles.optics[int(particles.optics_index[0])]
    images, _, _ = read_images(particles, np.arange(len(shown)))
    images = images * np.asarray(particles.sign)[:, None, None]
    plane = HalfPlane(images.shape[-1], optics.pixel_size, 0.5 / optics.pixel_size)
    poses = {name: scores.of_best(name)[shown] for name in ("rot", "tilt", "psi", "origin_x", "origin_y")}
    truth = Truth(
        scores.best_structure[shown] - 1,
        **poses,
        defocus_u=particles.defocus_u,
        defocus_v=particles.defocus_v,
        defocus_angle_deg=particles.defocus_angle_deg,
        scale=np.ones(len(shown)),
        offset=np.zeros(len(shown)),
    )
    microscope = Optics(optics.voltage_kv, optics.cs_mm, optics.amplitude_contrast)
    projections = np.zeros(images.shape)
    for k in np.unique(truth.structure):
        structure = read_structure(data.structures[k], k_max=plane.k_max)
        which = np.flatnonzero(truth.structure == k)
        maker = SliceMaker(structure, plane.points())
        projections[which] = clean_images(truth, which, maker, plane, microscope).numpy()
    return _smooth(np.asarray(images)), _smooth(projections)


def _smooth(images):
    """Low-pass to a quarter of the Nyquist frequency, so that the eye sees a particle."""
    spectrum = torch.fft.rfft2(torch.as_tensor(images, dtype=torch.float64))
    size = images.shape[-1]
    ky, kx = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    return torch.fft.irfft2(spectrum * torch.exp(-(ky**2 + kx**2) / (2 * 0.1**2)), s=(size, size)).numpy()


def _charts(figure, scores):
    left, right = figure.subplots(1, 2)
    labels = [plain(entry.label, 20) for entry in scores.structures]
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(labels))]
    scored = scores.best_structure > 0
    share, deviation = population_shares(scores.structure_posterior[:, scored])
    left.barh(labels, 100 * share, xerr=100 * deviation, color=colours, capsize=3)
    left.invert_yaxis()
    left.set_xlim(0, 100)
    left.set_xlabel("particles (%)")
    best, values = scores.best_structure[scored] - 1, scores.of_best("integrated")[scored]
    right.hist([values[best == k] for k in range(len(labels))], bins=30, stacked=True, color=colours)
    right.set_xlabel("logLikelihood against no particle (nat)")
    right.set_ylabel("particles")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
