"""The kernel by which values on a periodic grid are interpolated between its cells.

    phi(t) = exp(beta (√(1 − (2 t / w)²) − 1)),  |t| <= w / 2 cells

(Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput. 41, 2019). Cells hold the values of a trigonometric polynomial whose
coefficients were divided by the kernel's transform; the sum of the cells within reach, weighted by the kernel, is then the
polynomial, to about 10^(1 − w) where the grid is twice as fine as the polynomial needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["OVERSAMPLING", "Kernel"]

OVERSAMPLING = 2.0
_WIDTHS = (4, 12)


@dataclass(frozen=True)
class Kernel:
    """A kernel of ``width`` cells."""

    width: int

    @classmethod
    def of_accuracy(cls, eps: float) -> Kernel:
        """The narrowest with relative errors of about ``eps``."""
        return cls(int(np.clip(np.ceil(1.0 - np.log10(eps)), *_WIDTHS)))

    @property
    def beta(self) -> float:
        """Exponent."""
        return 0.976 * np.pi * (1.0 - 0.5 / OVERSAMPLING) * self.width

    def transform(self, modes: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
        """∫ phi(t) exp(−2πi t mode / cells) dt, t in cells: float64, as ``modes`` [s]."""
        z, weight = _gauss_rule(4 * self.width + 20)
        kernel = np.exp(self.beta * (np.sqrt(1.0 - z**2) - 1.0)) * weight * self.width / 2
        return np.cos(np.pi * self.width / cells * np.outer(modes, z)) @ kernel

    def taps(self, position: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Cells within reach of positions [p] (float64, in cells), and their weights: int64 and ``dtype`` [p, w]."""
        first = torch.ceil(position - self.width / 2)
        steps = torch.arange(self.width, device=position.device)
        z = (((first - position)[:, None] + steps) * (2.0 / self.width)).to(dtype)
        weight = torch.exp(self.beta * (torch.sqrt((1.0 - z**2).clamp_min(0.0)) - 1.0))
        return first.to(torch.int64)[:, None] + steps, weight


@lru_cache(maxsize=8)
def _gauss_rule(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(count)
