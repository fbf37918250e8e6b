"""The likelihood of one pose, with scale, offset and noise integrated out.

Model of an image Y of which n independent values are observed: ``Y = alpha T + beta s + noise``, noise Gaussian with
unknown variance lambda². With the offset projected out, three inner products are sufficient:

    a = <T,T> - <s,T>²/<s,s>,   b = <Y,T> - <s,T><s,Y>/<s,s>,   c = <Y,Y> - <s,Y>²/<s,s>

Priors: beta flat, lambda ~ 1/lambda, and alpha > 0 either ``N(mu, (tau lambda)²)`` ("learned") or flat ("free").
Integrating lambda and beta by hand (Cossio & Hummer, J. Struct. Biol. 184, 427, 2013, appendix, treats the flat case;
the normal-inverse-gamma integral gives the other) leaves, relative to the null model alpha = 0,

    ln(evidence/null) = -(n-1)/2 ln(Q/c) - ½ ln(1 + tau² a) + ln P(alpha > 0 | Y) - ln P(alpha > 0),
    Q = c - 2 mu b + mu² a - (b - mu a)² / (a + 1/tau²).

Every quantity below keeps ``u = Q/c - 1`` instead of Q, so that float32 loses nothing where n is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln, log_ndtr, stdtr
from torch import Tensor

__all__ = [
    "LEAST_REST",
    "Evidence",
    "ScalePrior",
    "degrees_of_freedom",
    "log_evidence",
    "null_log_density",
]

# Least Q/c: noise can be no less, but by rounding.
LEAST_REST = 1e-6
FREE = "free"
LEARNED = "learned"


@dataclass(frozen=True)
class ScalePrior:
    """Prior of the scale alpha.

    Attributes
    ----------
    mu : float
        Mean, in units of image grey per unit of structure.
    tau : float
        Width in units of the noise standard deviation: alpha ~ N(mu, (tau lambda)²).
    flat : bool
        If true mu and tau are ignored and alpha is flat on alpha > 0; log-ratios then have no absolute zero and may be
        compared between poses and structures of one image only.
    """

    mu: float = 0.0
    tau: float = 10.0
    flat: bool = False

    def __post_init__(self) -> None:
        if not self.flat and not self.tau > 0:
            raise ValueError(f"the width tau of the scale prior must be positive, not {self.tau}")


@dataclass(frozen=True)
class Evidence:
    """ln(evidence/null) as a function of b: ``constant - half_dof * log1p((curve*x + slope)*x + base)``, x = b.

    Fields broadcast against b; they hold everything that does not depend on the pose through b.
    """

    constant: Tensor
    half_dof: Tensor
    base: Tensor
    slope: Tensor
    curve: Tensor
    scale_gain: Tensor
    scale_shift: Tensor
    inverse_width: Tensor
    prior_factor: Tensor

    @classmethod
    def of(cls, a: Tensor, c: Tensor, n: Tensor, prior: ScalePrior) -> Evidence:
        """Coefficients for template powers a, image powers c and degrees of freedom n (broadcast together)."""
        if prior.flat:
            zero = torch.zeros_like(a * c)
            return cls(
                constant=-0.5 * torch.log(a) + zero,
                half_dof=(n - 2) / 2 + zero,
                base=zero,
                slope=zero,
                curve=-1 / (a * c),
                scale_gain=1 / a + zero,
                scale_shift=zero,
                inverse_width=torch.sqrt((n - 2) * a / c),
                prior_factor=1 + zero,
            )
        inverse_variance = 1.0 / prior.tau**2
        total = a + inverse_variance
        lam = torch.sqrt(c / n)
        positive = torch.special.log_ndtr(prior.mu / (prior.tau * lam))
        return cls(
            constant=-0.5 * torch.log1p(prior.tau**2 * a) + torch.zeros_like(c),
            half_dof=(n - 1) / 2 + torch.zeros_like(a * c),
            base=prior.mu**2 * (a * inverse_variance) / (total * c),
            slope=-2 * prior.mu * inverse_variance / (total * c),
            curve=-1 / (total * c),
            scale_gain=1 / total + torch.zeros_like(c),
            scale_shift=prior.mu * inverse_variance / total + torch.zeros_like(c),
            inverse_width=torch.sqrt((n - 1) * total / c),
            prior_factor=torch.exp(-positive) + torch.zeros_like(a),
        )

    def expand(self, index) -> Evidence:
        """The same function with ``index`` applied to every (already broadcast) field."""
        return Evidence(*(getattr(self, f)[index] for f in self.__dataclass_fields__))

    def log_ratio(self, b: Tensor) -> Tensor:
        """ln(evidence/null) at b, alpha > 0 included.

        The posterior of alpha is a Student t; here its normal limit is used (n is hundreds at least). `log_evidence`
        has the exact one.
        """
        logs, t = self._either_sign(b)
        return logs + torch.special.log_ndtr(t) + torch.log(self.prior_factor)

    def log_ratio_and_positive(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """ln(evidence/null) for alpha of either sign, and P(alpha > 0 | Y) / P(alpha > 0).

        Several times faster than `log_ratio`; in float32 the second is 0 where alpha lies more than five widths below zero.
        """
        logs, t = self._either_sign(b)
        return logs, torch.special.ndtr(t) * self.prior_factor

    def _either_sign(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """ln(evidence/null) for alpha of either sign, and the posterior mean of alpha over its width."""
        u = ((self.curve * b + self.slope) * b + self.base).clamp_min_(LEAST_REST - 1)
        t = (self.scale_gain * b + self.scale_shift) * self.inverse_width * torch.rsqrt(1 + u)
        return self.constant - self.half_dof * torch.log1p(u), t

    def scale(self, b: Tensor) -> Tensor:
        """Posterior mean of alpha at b (before the cut at zero)."""
        return self.scale_gain * b + self.scale_shift


def log_evidence(a, b, c, n, prior: ScalePrior) -> np.ndarray:
    """ln(evidence/null) of single poses in float64, with the exact Student-t factor for alpha > 0.

    Parameters
    ----------
    a, b, c : array_like
        Offset-projected inner products <T,T>, <Y,T>, <Y,Y> (broadcast together); a, c > 0.
    n : array_like
        Degrees of freedom.
    prior : ScalePrior
        Prior of the scale; a flat one gives a value with an arbitrary zero.
    """
    a, b, c, n = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (a, b, c, n)))
    if prior.flat:
        u = np.maximum(-(b**2) / (a * c), LEAST_REST - 1)
        value = -0.5 * np.log(a) - (n - 2) / 2 * np.log1p(u)
        t = b / a / np.sqrt((1 + u) * c / ((n - 2) * a))
        return value + np.log(np.maximum(stdtr(n - 2, t), 1e-300))
    inverse_variance = 1.0 / prior.tau**2
    total = a + inverse_variance
    u = (-2 * prior.mu * b * inverse_variance + prior.mu**2 * a * inverse_variance - b**2) / (total * c)
    u = np.maximum(u, LEAST_REST - 1)
    value = -(n - 1) / 2 * np.log1p(u) - 0.5 * np.log1p(prior.tau**2 * a)
    mean = (b + prior.mu * inverse_variance) / total
    t = mean / np.sqrt((1 + u) * c / ((n - 1) * total))
    posterior = np.log(np.maximum(stdtr(n - 1, t), 1e-300))
    return value + posterior - log_ndtr(prior.mu / (prior.tau * np.sqrt(c / n)))


def null_log_density(c, n, s_power) -> np.ndarray:
    """ln density of the image under the null model (no particle), offset and noise integrated out, float64.

    ``∫ dlambda/lambda ∫ dbeta (2 pi lambda²)^(-n/2) exp(-|Y - beta s|²/(2 lambda²))`` over n values; c is the
    offset-projected image power and s_power = <s,s>, both in units in which one independent value has unit weight.
    """
    c, n, s_power = (np.asarray(x, np.float64) for x in (c, n, s_power))
    half = (n - 1) / 2
    return -half * np.log(2 * np.pi) - 0.5 * np.log(s_power) + gammaln(half) - np.log(2) - half * np.log(c / 2)


def degrees_of_freedom(k_max: float, pixel_size: float, mask: Tensor) -> float:
    """Number of independent values inside the band and the (soft) mask.

    ``n = pi k_max² · pixel² · (Σ M²)²/Σ M⁴`` with M the mask on the pixel grid (ones where there is none).
    """
    m2 = mask.double() ** 2
    return float(np.pi * k_max**2 * pixel_size**2 * m2.sum() ** 2 / (m2**2).sum())
