"""From inner products to log-likelihood ratios.

Where the CTF is astigmatic <T,T> depends on the in-plane angle, ``a(psi) = a + d(psi)``. The evidence depends on b and a
through ``(b + s)² / (a + v)`` with v = 1/tau² and s = mu v (`likelihood`), and through ``-½ ln(a + v)``. So with
``rho = sqrt((a + v) / (a + v + d))`` it is that of the mean a at ``(b + s) rho - s``, plus ln rho: exactly, and without
coefficients for every angle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .correlation import Templates
from .likelihood import Evidence, ScalePrior
from .polar_images import PolarImages
from .template_power import power_by_angle, template_power

__all__ = ["GridEvidence", "TemplateTerms", "astigmatic", "evidence_of", "grid_evidence"]

# Largest relative change of <T,T> with the in-plane angle that is left out of the search (astigmatism); at an information
# of 100 nat it moves a score by 0.005 nat. Refined poses always have the exact value.
ASTIGMATISM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GridEvidence:
    """The likelihood of images at views as a function of the raw inner product b.

    Attributes
    ----------
    evidence : Evidence
        With <T,T> averaged over in-plane angles, fields [..., 1]; the leading axes are images and views, or pairs of them.
    offset : real Tensor [..., 1]
        ``<s,T><s,Y>/<s,s>``, to be subtracted from b.
    power : real Tensor [..., 1 or g]
        Offset-projected <T,T>.
    turn : real Tensor [..., g] or None
        rho, where <T,T> depends on the angle.
    """

    evidence: Evidence
    offset: Tensor
    power: Tensor
    turn: Tensor | None

    def take(self, index) -> GridEvidence:
        """The same with ``index`` applied to the leading axes."""
        evidence = self.evidence.expand(index)
        return GridEvidence(evidence, self.offset[index], self.power[index], None if self.turn is None else self.turn[index])

    def effective(self, b: Tensor) -> Tensor:
        """Inner products [..., g], without offset, that stand for b [..., g] where <T,T> is the mean."""
        if self.turn is None:
            return b - self.offset
        s = self.evidence.scale_shift / self.evidence.scale_gain
        return (b + (s - self.offset)).mul_(self.turn).sub_(s)

    def log_ratio(self, b: Tensor) -> Tensor:
        """ln(evidence/null) at b [..., g]."""
        logs = self.evidence.log_ratio(self.effective(b))
        return logs if self.turn is None else logs + torch.log(self.turn)


@dataclass(frozen=True)
class TemplateTerms:
    """What the evidence takes from images m and views v besides b.

    Attributes
    ----------
    mean : real Tensor [m, v]
        <T,T>, mean over in-plane angles.
    orders : complex Tensor [m, v, j] or None
        Its even angular orders, where they matter.
    in_mask : real Tensor [m, v]
        <s,T>.
    """

    mean: Tensor
    orders: Tensor | None
    in_mask: Tensor

    @classmethod
    def of(cls, images: PolarImages, templates: Templates, exact: bool = True) -> TemplateTerms:
        """For all images and views; not ``exact``: without orders."""
        in_mask = images.offset.to(templates.zeroth) @ templates.zeroth.T
        terms = cls(template_power(images.power, templates.power), None, in_mask)
        return terms.with_orders(images, templates.power) if exact and astigmatic(images, templates) else terms

    def with_orders(self, images: PolarImages, power: Tensor) -> TemplateTerms:
        """The same with the angular orders; ``power`` [v, p, j] of the same views."""
        return replace(self, orders=torch.einsum("mpj,vpj->mvj", images.power.conj(), power))

    def take(self, rows) -> TemplateTerms:
        """Of images ``rows``."""
        return TemplateTerms(self.mean[rows], None if self.orders is None else self.orders[rows], self.in_mask[rows])

    def views(self, index) -> TemplateTerms:
        """Of views ``index``."""
        orders = None if self.orders is None else self.orders[:, index]
        return TemplateTerms(self.mean[:, index], orders, self.in_mask[:, index])


def grid_evidence(
    images: PolarImages, templates: Templates, prior: ScalePrior, n_inplane: int, exact: bool = True
) -> GridEvidence:
    """Coefficients for every image and view, leading axes [m, v]; not ``exact``: <T,T> as its mean over angles."""
    return evidence_of(images, TemplateTerms.of(images, templates, exact), prior, n_inplane)


def evidence_of(images: PolarImages, terms: TemplateTerms, prior: ScalePrior, n_inplane: int) -> GridEvidence:
    """Coefficients from the terms of the same images."""
    mean, in_mask = terms.mean[..., None], terms.in_mask[..., None]
    columns = (images.mask_power, images.cross_power, images.projected_power, images.dof)
    mask_power, cross_power, c, n = (values.to(in_mask)[:, None, None] for values in columns)
    removed = in_mask**2 / mask_power
    floor = 1e-6 * mean.clamp_min(1e-30)
    power = torch.maximum(mean - removed, floor)
    evidence = Evidence.of(power, c, n, prior)
    turn = None
    if terms.orders is not None:
        angular = torch.maximum(power_by_angle(terms.orders, n_inplane) - removed, floor)
        extra = 0.0 if prior.flat else 1 / prior.tau**2
        turn, power = torch.sqrt((power + extra) / (angular + extra)), angular
    return GridEvidence(evidence, in_mask * (cross_power / mask_power), power, turn)


def astigmatic(images: PolarImages, templates: Templates) -> bool:
    """Whether <T,T> changes with psi by more than `ASTIGMATISM_TOLERANCE`: a bound over a few views."""
    if images.power.shape[-1] == 1:
        return False
    few = templates.power[:: max(1, len(templates) // 64)]
    means = template_power(images.power, few)
    orders = torch.einsum("mpj,vpj->mvj", images.power[..., 1:].conj(), few[..., 1:])
    return float((2 * orders.abs().sum(dim=-1) / means.clamp_min(1e-30)).max()) > ASTIGMATISM_TOLERANCE
