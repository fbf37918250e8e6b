"""Simulated mixtures whose likelihoods are exact: particles are points with unit normal noise about their structure's own."""

import numpy as np


def centres(structures, spread, seed, dimensions=10):
    """Points [K, d] that stand for structures; a larger spread makes them easier to tell apart."""
    return np.random.default_rng(seed).normal(size=(structures, dimensions)) * spread


def mixture_of(points, populations, particles, rng):
    """Log-likelihoods [K, M], nat, of particles drawn from a mixture, and which structure each is [M]."""
    which = rng.choice(len(points), particles, p=populations)
    seen = points[which] + rng.normal(size=(particles, points.shape[1]))
    return points @ seen.T - 0.5 * (points**2).sum(axis=1)[:, None], which


def shares(structures, first):
    """Populations [K] of which the first is given and the others are equal."""
    return np.array([first] + [(1 - first) / (structures - 1)] * (structures - 1))
