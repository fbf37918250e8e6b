"""Templates of one structure on one grid, made when they are asked for and kept while memory allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, make_templates
from .polar_grid import PolarGrid, largest_ring_number
from .radial_basis import RadialBasis, compressed_basis, plain_basis
from .slices import SliceMaker
from .structures import Structure
from .template_power import PowerRule
from .views import ViewTable
from .workers import parallel

__all__ = ["BASIS_ACCURACY", "TemplateBank", "common_basis", "order_count", "ring_profile"]

# Share (root of the power) of a template that its compression leaves out: at an information of 1,000 nat it moves a score by
# 0.001 nat (standard deviation).
BASIS_ACCURACY = 3e-5
_VIEWS_AT_ONCE = 32


class TemplateBank:
    """Slices and packed templates of a structure.

    Parameters
    ----------
    structure : Structure
    grid : PolarGrid
    rule : PowerRule
    scale : float
        Factor by which every slice is multiplied: one grey scale for all structures.
    device : torch device
    double : bool
        In double precision.
    basis : RadialBasis, optional
        Default: every radial node of every order that the structure can have.
    """

    def __init__(
        self,
        structure: Structure,
        grid: PolarGrid,
        rule: PowerRule,
        scale: float = 1.0,
        device: torch.device | str = "cpu",
        double: bool = False,
        basis: RadialBasis | None = None,
    ) -> None:
        self.structure, self.grid, self.rule, self.scale, self.device = structure, grid, rule, scale, device
        self.dtype = torch.complex128 if double else torch.complex64
        self._maker = SliceMaker(structure, grid, dtype=self.dtype, device=device)
        self.basis = plain_basis(grid, order_count(structure, grid), self.dtype, device) if basis is None else basis

    def slices(self, rotations: np.ndarray) -> Tensor:
        """Half-circle slices at full rotations [v, 3, 3]: complex [v, n, W/2]."""
        return self._maker(rotations) * self.scale

    def bytes_per_view(self) -> int:
        """Memory of one packed template."""
        per = 8 if self.dtype == torch.complex64 else 16
        return per * (self.basis.size + self.grid.n_radii // 2) + 8 * len(self.rule.radii) * self.rule.n_orders

    def templates(self, table: ViewTable, index: np.ndarray | None = None) -> Templates:
        """Packed templates of the views of a table (all, or those of ``index``), in that order."""
        rotations = table.rotations()
        if index is not None:
            rotations = rotations[index]
        starts = range(0, len(rotations), _VIEWS_AT_ONCE)
        return Templates.join(list(parallel(lambda start: self._packed(rotations[start : start + _VIEWS_AT_ONCE]), starts)))

    def _packed(self, rotations: np.ndarray) -> Templates:
        return make_templates(self.slices(rotations), self.rule, self.basis)


def order_count(structure: Structure, grid: PolarGrid) -> int:
    """Number of angular orders that slices of a structure can have on a grid."""
    return min(largest_ring_number(structure.radius, grid.k_max) + 1, grid.n_half)


def common_basis(banks: list[TemplateBank], rotations: np.ndarray, accuracy: float) -> RadialBasis:
    """The basis that holds the templates of all banks (of one grid); see `compressed_basis`."""
    parts = [rotations[start : start + _VIEWS_AT_ONCE] for start in range(0, len(rotations), _VIEWS_AT_ONCE)]
    slices = [(bank.slices(some) for some in parts) for bank in banks]
    orders = max(order_count(bank.structure, bank.grid) for bank in banks)
    return compressed_basis(slices, banks[0].grid, orders, accuracy, banks[0].dtype)


def ring_profile(bank: TemplateBank, rotations: np.ndarray) -> np.ndarray:
    """Power of every ring, mean over views [v, 3, 3], without a CTF: float64 [n], whose sum is the mean of ``<T,T>``."""
    total = np.zeros(bank.grid.n_radii)
    for start in range(0, len(rotations), _VIEWS_AT_ONCE):
        slices = bank.slices(rotations[start : start + _VIEWS_AT_ONCE])
        total += (slices.real.double() ** 2 + slices.imag.double() ** 2).mean(dim=-1).sum(dim=0).cpu().numpy()
    return total / len(rotations) * bank.grid.weights
