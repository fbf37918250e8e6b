"""The prior of the particles' scale, learned from a pilot by expectation-maximisation.

Per image and structure the heaviest poses of a search are kept with their inner products a, b and prior weights. The
complete-data likelihood of ``alpha ~ N(mu, (tau lambda)²)`` has the sufficient statistics ``1/lambda²``, ``alpha/lambda²``
and ``alpha²/lambda²``; given a pose, ``1/lambda²`` is Gamma((n-1)/2, Q/2) and alpha is normal, so their expectations are
closed (normal-inverse-gamma algebra; Gelman et al., Bayesian Data Analysis, 3rd ed., §3.3). Poses and structures are
weighted by their posterior, and an image by the probability that it shows a particle at all, so that junk does not pull
the scale to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .likelihood import LEAST_REST, ScalePrior, log_evidence
from .pose_search import PoseSamples

__all__ = ["PilotImage", "ScaleFit", "learn_scale"]

_MIN_IMAGES = 8


@dataclass(frozen=True)
class PilotImage:
    """One image of the pilot: c, n and, per structure, its heaviest poses."""

    image_power: float
    dof: float
    samples: list[PoseSamples]


@dataclass(frozen=True)
class ScaleFit:
    """The learned prior, the fraction of pilot images that look like particles, and how many there were."""

    prior: ScalePrior
    particle_fraction: float
    images: int


def learn_scale(images: list[PilotImage], start: ScalePrior, iterations: int = 100, tolerance: float = 1e-4) -> ScaleFit:
    """Fit mu and tau.

    Parameters
    ----------
    images : list of PilotImage
    start : ScalePrior
        The prior with which the poses were found.
    iterations : int
        At most so many.
    tolerance : float
        Stop when mu/(tau lambda), for the images' mean noise, and ln tau change by less.
    """
    if len(images) < _MIN_IMAGES:
        return ScaleFit(start, 1.0, len(images))
    packed = [_Packed(image) for image in images]
    prior, fraction = start, 0.9
    for _ in range(iterations):
        statistics = np.array([p.expectations(prior, fraction) for p in packed])
        particle = statistics[:, 0]
        s0, s1, s2 = (particle @ statistics[:, i] for i in (1, 2, 3))
        mu = max(s1 / s0, 0.0)
        tau = float(np.sqrt(max((s2 - 2 * mu * s1 + mu**2 * s0) / particle.sum(), 1e-12)))
        fraction = float(np.clip(particle.mean(), 0.01, 0.99))
        moved = abs(mu - prior.mu) * np.sqrt(s0 / particle.sum()) / tau + abs(np.log(tau / prior.tau))
        prior = ScalePrior(float(mu), tau)
        if moved < tolerance:
            break
    return ScaleFit(prior, fraction, len(images))


class _Packed:
    """Arrays of one image over all structures' samples."""

    def __init__(self, image: PilotImage) -> None:
        self.c, self.n = image.image_power, image.dof
        self.log_prior = np.concatenate([s.log_prior for s in image.samples]) - np.log(len(image.samples))
        self.a = np.concatenate([s.power for s in image.samples])
        self.b = np.concatenate([s.product for s in image.samples])

    def expectations(self, prior: ScalePrior, fraction: float) -> tuple[float, float, float, float]:
        """P(particle), and E[1/lambda²], E[alpha/lambda²], E[alpha²/lambda²] of this image."""
        logs = self.log_prior + log_evidence(self.a, self.b, self.c, self.n, prior)
        total = np.logaddexp.reduce(logs)
        particle = 1.0 / (1.0 + (1 - fraction) / fraction * np.exp(min(-total, 700.0)))
        weights = np.exp(logs - total)
        inverse = 1 / prior.tau**2
        precision = self.a + inverse
        mean = (self.b + prior.mu * inverse) / precision
        q = np.maximum(self.c + prior.mu**2 * inverse - precision * mean**2, LEAST_REST * self.c)
        noise = (self.n - 1) / q
        return (
            float(particle),
            float(weights @ noise),
            float(weights @ (mean * noise)),
            float(weights @ (mean**2 * noise + 1 / precision)),
        )
