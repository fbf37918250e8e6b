"""The limit of what any scoring can reach: the model that made simulated images, its contrast and noise known.

For white noise of variance lambda² (in the unit of the inner products) and a contrast alpha, both known,

    ln(evidence/null) = (alpha b - alpha² a / 2) / lambda²,

summed over the same poses as any other run. <T,T> is taken as its mean over in-plane angles.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch

from cryolike_scipion import engine
from cryolike_scipion.engine import likelihood_chunk, row_scores, scoring
from cryolike_scipion.engine.likelihood import Evidence
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.pose_scores import score_poses
from cryolike_scipion.engine.refine import RefinedPoses
from cryolike_scipion.engine.results import load_results

_LINEAR = 1e7  # ln(1 + x) is x where the exponent is so large: to 1e-3 nat at 150 nat


@dataclass(frozen=True)
class Sampled:
    """Accuracy, mean claim and every integrated log-likelihood [K, m] (nat) of one way to treat the contrast."""

    accuracy: float
    claimed: float
    integrated: np.ndarray


def compare_scales(
    out, particles, truth_star, structures, truth, noise_variance, kinds=("exact", "learned", "free"), **sampling
):
    """Score particles on one grid of poses with the exact model and with contrast priors of the program: dict of `Sampled`.

    Parameters
    ----------
    out : Path
        Folder for the runs.
    particles, truth_star : path
        The same particles without poses, and with the true ones.
    structures : list of path
    truth : int64 [m]
        The structure of each particle, from 0.
    noise_variance : float
        Of the pixels of the images as they are.
    """
    common = {
        "structures": [str(path) for path in structures], "mask_diameter": 0.0, "no_report": True, "no_normalise": True,
        "search": "exhaustive", "levels": 0, "best_poses": 0, "memory": 1.0, **sampling,
    }  # fmt: skip
    found = {}
    for kind in kinds:
        given = {
            **common,
            "particles": [str(particles)],
            "out": str(out / kind),
            "scale": "learned" if kind == "learned" else "free",
        }
        with grid_poses_only():
            if kind == "exact":
                alpha = _known_contrast(out / "contrast", truth_star, common, truth)
                with exact_model(alpha, noise_variance * read_particles([str(particles)]).optics[0].pixel_size ** 2):
                    engine.run("likelihood", **given)
            else:
                engine.run("likelihood", **given)
        logs = load_results(out / kind).integrated
        right = logs.argmax(axis=0) == truth[: logs.shape[1]]
        claimed = np.exp(logs.max(axis=0) - np.logaddexp.reduce(logs, axis=0))
        found[kind] = Sampled(float(right.mean()), float(claimed.mean()), logs)
    return found


def _known_contrast(out, truth_star, common, truth):
    """The contrast of the particles, from their true poses: one number for all of them."""
    given = {**common, "search": "fixed", "scale": "free", "particles": [str(truth_star)], "out": str(out)}
    engine.run("likelihood", **given)
    scale = load_results(out).scale
    return float(scale[truth[: scale.shape[1]], np.arange(scale.shape[1])].mean())


@contextmanager
def exact_model(alpha, noise):
    """Within, a search uses the exact model of contrast ``alpha`` and noise lambda²."""

    def known(a, c, n, prior):
        one = torch.ones_like(a * c)
        return Evidence(
            constant=0 * one, half_dof=_LINEAR * one, base=alpha**2 * a / (2 * noise * _LINEAR) * one,
            slope=-alpha / (noise * _LINEAR) * one, curve=0 * one, scale_gain=0 * one, scale_shift=alpha * one,
            inverse_width=100 * one, prior_factor=one,
        )  # fmt: skip

    def no(*_):
        return False

    with patch.object(Evidence, "of", known), patch.object(scoring, "astigmatic", no), patch.object(
        row_scores, "astigmatic", no
    ):
        yield


@contextmanager
def grid_poses_only():
    """Within, best poses are not refined: their time is of no use where only sums over the grid are asked for."""

    def as_they_are(images, rotation, origin, bank, prior, **_):
        return RefinedPoses(rotation, origin, score_poses(images, rotation, origin, bank, prior))

    with patch.object(likelihood_chunk, "refine_poses", as_they_are):
        yield
