"""Sums over in-plane angles of many (image, shift, view) rows, most of which need not be looked at closely.

A row is the score of one image, shift and view over all in-plane angles. Its largest inner product tells how much it can
hold. Rows that can matter are summed; of the others a part is, and the rest is taken to hold as much in proportion to its
peaks, which are known for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .likelihood import LEAST_REST, Evidence

__all__ = ["SURE", "RowSums", "pick_rows", "sampling_interval", "sum_rows"]

# Rows whose peak lies so far (nat) below sqrt(N) times the average row's share of the total, of N rows, may be sampled.
SURE = 5.0
_SAMPLES, _SPARSEST = 16384, 16
_INVERTED = 1e-5  # P(alpha > 0) from which on float32 has too few digits of it
# Widths of the scale's posterior from which on P(alpha > 0) is one, and of a row's best pose from which on it outweighs those
# where it is not.
_CERTAIN, _PEAKED = 4.0, 5.5
_LOWEST = -80.0  # of a logarithm relative to the reference: what is less is nothing, and numbers too small for float32 are slow
_POSES_AT_ONCE = 1 << 18  # more would leave the cache
_SERIES_ERROR = 1e-3  # nat, of the logarithm's series


@dataclass(frozen=True)
class RowSums:
    """Sums of chosen rows, relative to a reference, float64 [r]: ``mass = Σ_g exp(log - reference)`` and ``Σ_g … log``."""

    mass: Tensor
    first_moment: Tensor


def sampling_interval(rows: int) -> int:
    """Every how many of ``rows`` are summed where they cannot matter alone.

    A row's mass over the exponential of its peak varies by about 0.4, so that `_SAMPLES` rows give the sum of all to 0.3 %.
    """
    return int(min(_SPARSEST, max(1, rows // _SAMPLES)))


def pick_rows(peak: Tensor, threshold: Tensor | float, interval: int) -> tuple[Tensor, Tensor]:
    """Choose rows by their largest log-ratio.

    Parameters
    ----------
    peak : Tensor [..., o, v]
        Largest (prior-weighted) log-ratio of every row.
    threshold : Tensor or float
        Rows above it are all chosen.
    interval : int
        One in so many of the others is; 0 and 1: all.

    Returns
    -------
    chosen : bool Tensor [..., o, v]
    matters : bool Tensor [..., o, v]
        Those above the threshold.
    """
    matters = peak > threshold
    if interval <= 1:
        return torch.ones_like(matters), matters
    shifts = torch.arange(peak.shape[-2], device=peak.device)[:, None]
    views = torch.arange(peak.shape[-1], device=peak.device)[None, :]
    return matters | ((5 * shifts + views) % interval == 0), matters


def sum_rows(
    b: Tensor, evidence: Evidence, reference: Tensor, turn: Tensor | None = None, allowed: Tensor | None = None
) -> RowSums:
    """Sum rows over in-plane angles.

    Parameters
    ----------
    b : Tensor [r, g]
        Inner products, offset removed; effective ones where <T,T> depends on the angle (`GridEvidence`).
    evidence : Evidence
        Fields [r, 1].
    reference : Tensor [r]
        Log-ratio to which the sums are relative.
    turn : Tensor [r, g], optional
        Factor of the evidence at every angle, see `GridEvidence`.
    allowed : bool Tensor [r, g], optional
        In-plane angles that count.
    """
    found = []
    batch = max(1, _POSES_AT_ONCE // b.shape[1])
    for start in range(0, len(b), batch):
        rows = slice(start, start + batch)
        parts = [None if t is None else t[rows] for t in (turn, allowed)]
        found.append(_sum_batch(b[rows], evidence.expand(rows), reference[rows], *parts))
    if not found:
        nothing = torch.zeros(0, dtype=torch.float64, device=b.device)
        return RowSums(nothing, nothing)
    return RowSums(torch.cat([f.mass for f in found]), torch.cat([f.first_moment for f in found]))


def _sum_batch(b: Tensor, evidence: Evidence, reference: Tensor, turn: Tensor | None, allowed: Tensor | None) -> RowSums:
    """Some of the rows of `sum_rows`."""
    if _surely_upright(b, evidence):
        logs = _logs_relative(b, evidence, reference[:, None]).clamp_(_LOWEST, -_LOWEST)
        weights = torch.exp(logs)
        if turn is not None:
            weights.mul_(turn)
        if allowed is not None:
            weights.mul_(allowed)
        mass = weights.sum(dim=1).double()
        moment = torch.linalg.vecdot(weights, logs).double()
        return RowSums(mass, moment + mass * reference)
    logs, positive = evidence.log_ratio_and_positive(b)
    if turn is not None:
        positive = positive * turn
    # Where both signs of the scale weigh more than a float holds, the positive ones weigh nothing: not inf * 0.
    weights = torch.exp((logs - reference[:, None]).clamp_(_LOWEST, 88.0)) * positive
    if allowed is not None:
        weights = torch.where(allowed, weights, weights.new_zeros(()))
    full = logs + torch.log(positive.clamp_min(1e-37))
    # Rows whose every pose has the contrast inverted; beside other rows they are nothing, but there may be no other.
    counts = positive if allowed is None else positive * allowed
    inverted = torch.nonzero(counts.amax(dim=1) < _INVERTED * evidence.prior_factor.amax(dim=-1), as_tuple=True)[0]
    if len(inverted):
        full[inverted] = evidence.expand(inverted).log_ratio(b[inverted])
        exact = torch.exp(full[inverted] - reference[inverted, None])
        weights[inverted] = exact if allowed is None else torch.where(allowed[inverted], exact, exact.new_zeros(()))
    return RowSums(weights.sum(dim=1).double(), (weights * full).sum(dim=1).double())


def _surely_upright(b: Tensor, evidence: Evidence) -> bool:
    """Whether the factor for alpha > 0 can be left out.

    With t the posterior mean of alpha over its width, the evidence goes as exp(t²/2), and the factor takes at most
    ``exp(-t²/2) / 2`` off where t > 0: next to a row's best pose at t = T that is less than ``g exp(-T²/2) / 2`` of its sum.
    """
    if float(evidence.prior_factor.amax()) > 1 + 1e-4:
        return False

    def widths(values: Tensor) -> Tensor:
        return (evidence.scale_gain * values + evidence.scale_shift) * evidence.inverse_width

    least = float(widths(b.amin(dim=1, keepdim=True)).amin())
    return least > _CERTAIN or (least > 0 and float(widths(b.amax(dim=1, keepdim=True)).amin()) > _PEAKED)


def _logs_relative(b: Tensor, evidence: Evidence, reference: Tensor) -> Tensor:
    """ln(evidence/null) less a reference, for fields [r, 1], without the factor for alpha > 0."""
    u = torch.addcmul(evidence.slope, b, evidence.curve).mul_(b).add_(evidence.base)
    level = evidence.constant - reference
    largest = torch.maximum(b.amax(dim=1, keepdim=True).abs(), b.amin(dim=1, keepdim=True).abs())
    bound = evidence.curve.abs() * largest**2 + evidence.slope.abs() * largest + evidence.base.abs()
    if float((evidence.half_dof * bound**4 / 4).amax()) < _SERIES_ERROR:
        # ln(1 + u) to the third order
        return (u / 3).sub_(0.5).mul_(u).add_(1.0).mul_(u).mul_(-evidence.half_dof).add_(level)
    return torch.log1p(u.clamp_min_(LEAST_REST - 1)).mul_(-evidence.half_dof).add_(level)
