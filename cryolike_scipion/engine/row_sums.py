"""Sums over in-plane angles of many (image, shift, view) rows, most of which need not be looked at closely.

A row is the score of one image, shift and view over all in-plane angles. Its largest inner product tells how much it can
hold. Rows that can matter are summed; of the others every `SAMPLED`-th is summed and stands for its neighbours, so that the
total stays unbiased and costs little.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .likelihood import Evidence

__all__ = ["SAMPLED", "SURE", "RowSums", "pick_rows", "sum_rows"]

SAMPLED = 16
# Rows whose peak lies so far (nat) below sqrt(N) times the average row's share of the total, of N rows, are sampled. Were
# every row there, the sum would have a relative error of sqrt(SAMPLED) exp(-SURE), 2 %; it is far less, as most lie lower.
SURE = 5.0
_INVERTED = 1e-5  # P(alpha > 0) from which on float32 has too few digits of it


@dataclass(frozen=True)
class RowSums:
    """Sums of chosen rows, relative to a reference, float64 [r]: ``mass = Σ_g exp(log - reference)`` and ``Σ_g … log``."""

    mass: Tensor
    first_moment: Tensor


def pick_rows(peak: Tensor, threshold: Tensor | float, screen: bool) -> tuple[tuple[Tensor, ...], Tensor]:
    """Choose rows by their largest log-ratio.

    Parameters
    ----------
    peak : Tensor [...]
        Largest (prior-weighted) log-ratio of every row; the last two axes count shifts and views.
    threshold : Tensor or float
        Rows above it are all summed.
    screen : bool
        False: all rows are chosen.

    Returns
    -------
    index : tuple of int64 Tensor [r]
        Positions of the chosen rows.
    stands_for : float64 Tensor [r]
        How many rows each chosen one represents: 1 or `SAMPLED`.
    """
    if not screen:
        index = torch.nonzero(torch.ones_like(peak, dtype=torch.bool), as_tuple=True)
        return index, torch.ones(len(index[0]), dtype=torch.float64, device=peak.device)
    matters = peak > threshold
    shifts = torch.arange(peak.shape[-2], device=peak.device)[:, None]
    views = torch.arange(peak.shape[-1], device=peak.device)[None, :]
    sampled = ((5 * shifts + views) % SAMPLED == 0).expand_as(peak)
    index = torch.nonzero(matters | sampled, as_tuple=True)
    stands_for = torch.where(matters[index], 1.0, float(SAMPLED)).double()
    return index, stands_for


def sum_rows(b: Tensor, evidence: Evidence, reference: Tensor, allowed: Tensor | None = None) -> tuple[RowSums, Tensor]:
    """Sum rows over in-plane angles.

    Parameters
    ----------
    b : Tensor [r, g]
        Inner products, offset removed.
    evidence : Evidence
        Fields [r, 1] or [r, g].
    reference : Tensor [r]
        Log-ratio to which the sums are relative.
    allowed : bool Tensor [r, g], optional
        In-plane angles that count.

    Returns
    -------
    RowSums, and the weights [r, g] that were summed.
    """
    logs, positive = evidence.log_ratio_and_positive(b)
    # Where both signs of the scale weigh more than a float holds, the positive ones weigh nothing: not inf * 0.
    weights = torch.exp((logs - reference[:, None]).clamp_max_(88.0)) * positive
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
    return RowSums(weights.sum(dim=1).double(), (weights * full).sum(dim=1).double()), weights
