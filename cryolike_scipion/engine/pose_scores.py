"""The score of single poses, off any grid: exact in all five parameters, astigmatism included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .likelihood import ScalePrior, log_evidence
from .polar_images import PolarImages
from .template_bank import TemplateBank
from .template_power import ring_power

__all__ = ["PoseScores", "posed_products", "score_poses", "shift_phase"]


@dataclass(frozen=True)
class PoseScores:
    """Scores of one pose per row, float64 [r].

    ``power`` a, ``product`` b, ``image_power`` c (offset projected out), ``dof`` n, ``log_ratio`` ln(evidence/null),
    ``cc`` b/√(a c) and ``scale`` the posterior mean of alpha.
    """

    power: np.ndarray
    product: np.ndarray
    image_power: np.ndarray
    dof: np.ndarray
    log_ratio: np.ndarray
    cc: np.ndarray
    scale: np.ndarray


def shift_phase(bank: TemplateBank, origins: np.ndarray) -> Tensor:
    """``exp(2 pi i k . origin)`` on the stored half circle: complex64 [r, n, W/2] for origins [r, 2] in Å."""
    points = torch.as_tensor(bank.grid.points_half(), device=bank.device)
    shifts = torch.as_tensor(np.asarray(origins, np.float64), device=bank.device)
    phase = 2 * torch.pi * torch.einsum("nwx,rx->rnw", points, shifts)
    return torch.polar(torch.ones_like(phase), phase).to(bank.dtype)


def posed_products(images: PolarImages, slices: Tensor, phase: Tensor, bank: TemplateBank) -> tuple[Tensor, Tensor]:
    """Offset-projected a and b of one pose per image: float64 [r] each, from slices [r, n, W/2] that include psi."""
    weights = torch.as_tensor(bank.grid.weights, device=bank.device)
    ring = (images.matched.conj() * slices * phase).real.double().mean(dim=-1)
    raw = ring @ weights
    orders = ring_power(bank.rule, slices)
    terms = (images.power.conj() * orders).real.double().sum(dim=1)
    power = terms[:, 0] + 2 * terms[:, 1:].sum(dim=1)
    in_mask = (images.offset.double() * slices.real.double().mean(dim=-1)).sum(dim=1)
    product = raw - in_mask * images.cross_power / images.mask_power
    return (power - in_mask**2 / images.mask_power).clamp_min(1e-300), product


def score_poses(
    images: PolarImages, rotations: np.ndarray, origins: np.ndarray, bank: TemplateBank, prior: ScalePrior
) -> PoseScores:
    """Score image r at rotation r [r, 3, 3] and origin r [r, 2] (Å)."""
    powers, products = [], []
    batch = pose_batch(bank)
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        some = images.take(part)
        a, b = posed_products(some, bank.slices(rotations[part]), shift_phase(bank, origins[part]), bank)
        powers.append(a)
        products.append(b)
    return collect(images, torch.cat(powers), torch.cat(products), prior)


def pose_batch(bank: TemplateBank) -> int:
    """Number of poses whose slices are worked on together."""
    return max(1, 2**22 // (bank.grid.n_radii * bank.grid.n_half))


def collect(images: PolarImages, power: Tensor, product: Tensor, prior: ScalePrior) -> PoseScores:
    """All scores from a and b."""
    a, b = power.cpu().numpy(), product.cpu().numpy()
    c, n = images.projected_power.cpu().numpy(), images.dof.cpu().numpy()
    if prior.flat:
        scale = b / a
    else:
        scale = (b + prior.mu / prior.tau**2) / (a + 1 / prior.tau**2)
    return PoseScores(a, b, c, n, log_evidence(a, b, c, n, prior), b / np.sqrt(a * c), scale)
