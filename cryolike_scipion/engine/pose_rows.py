"""Rows of poses that have been scored: the current state of one image's integral under one structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["PoseRows"]


@dataclass
class PoseRows:
    """Rows (view, origin) with all their in-plane angles; logs are relative to the null model, priors included.

    Attributes
    ----------
    view : int64 [r]
        Index in the table of views of the current level.
    origin : float64 [r, 2]
        Å.
    log_mass, mean_log : float64 [r]
        ln of the summed prior x evidence ratio, and the mean log-ratio under it.
    log_prior : float64 [r]
        ln of the rows' prior.
    left_log_mass, left_mean_log : float
        Of everything else.
    error : float
        Standard error of the sum of both, nat.
    best : float
        Largest log-ratio found.
    best_rotation : float64 [3, 3]
        Its pose.
    best_origin : float64 [2]
        Å.
    scale : float
        Posterior mean of the scale there.
    power : float
        Mean <T,T> of the rows.
    scored : int
        Rows summed at full band.
    """

    view: np.ndarray
    origin: np.ndarray
    log_mass: np.ndarray
    mean_log: np.ndarray
    log_prior: np.ndarray
    left_log_mass: float
    left_mean_log: float
    error: float
    best: float
    best_rotation: np.ndarray
    best_origin: np.ndarray
    scale: float
    power: float
    scored: int = 0

    @property
    def total(self) -> float:
        """ln of the whole sum."""
        return float(np.logaddexp(np.logaddexp.reduce(self.log_mass), self.left_log_mass))

    @property
    def mean(self) -> float:
        """Posterior mean of the log-ratio."""
        logs = np.append(self.log_mass, self.left_log_mass)
        values = np.append(self.mean_log, self.left_mean_log)
        return float(np.sum(np.exp(logs - self.total) * np.where(np.isfinite(logs), values, 0.0)))

    def leave(self, rows: np.ndarray) -> None:
        """Move rows (bool [r]) to what is left."""
        if not rows.any():
            return
        logs = np.append(self.log_mass[rows], self.left_log_mass)
        means = np.append(self.mean_log[rows], self.left_mean_log)
        held = np.isfinite(logs)
        if held.any():
            total = float(np.logaddexp.reduce(logs[held]))
            self.left_mean_log = float(np.sum(np.exp(logs[held] - total) * means[held]))
            self.left_log_mass = total
        for name in ("view", "origin", "log_mass", "mean_log", "log_prior"):
            setattr(self, name, getattr(self, name)[~rows])
