"""Templates of one structure on one grid, made when they are asked for and kept while memory allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .correlation import Templates, make_templates
from .polar_grid import PolarGrid, largest_ring_number
from .slices import SliceMaker
from .structures import Structure
from .template_power import PowerRule
from .views import ViewTable

__all__ = ["TemplateBank", "mean_band_power"]


def mean_band_power(slices: Tensor, weights: np.ndarray, grid: PolarGrid) -> float:
    """Mean over views of ``<T,T>`` without a CTF: slices [v, n, W/2], view weights [v], float64."""
    power = (slices.real.double() ** 2 + slices.imag.double() ** 2).mean(dim=-1)
    per_view = power @ torch.as_tensor(grid.weights, device=power.device)
    view_weights = torch.as_tensor(weights, device=power.device)
    return float((per_view * view_weights).sum() / view_weights.sum())


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
    """

    def __init__(
        self,
        structure: Structure,
        grid: PolarGrid,
        rule: PowerRule,
        scale: float = 1.0,
        device: torch.device | str = "cpu",
        double: bool = False,
    ) -> None:
        self.structure, self.grid, self.rule, self.scale, self.device = structure, grid, rule, scale, device
        self.n_orders = min(largest_ring_number(structure.radius, grid.k_max) + 1, grid.n_half)
        self.dtype = torch.complex128 if double else torch.complex64
        self._maker = SliceMaker(structure, grid, dtype=self.dtype, device=device)

    def slices(self, rotations: np.ndarray) -> Tensor:
        """Half-circle slices at full rotations [v, 3, 3]: complex [v, n, W/2]."""
        return self._maker(rotations) * self.scale

    def bytes_per_view(self) -> int:
        """Memory of one packed template."""
        per = 8 if self.dtype == torch.complex64 else 16
        return per * (self.n_orders * self.grid.n_radii + len(self.rule.radii) * self.rule.n_orders)

    def templates(self, table: ViewTable, index: np.ndarray | None = None) -> Templates:
        """Packed templates of the views of a table (all, or those of ``index``), in that order."""
        rotations = table.rotations()
        if index is not None:
            rotations = rotations[index]
        batch = max(1, int(2**27 // (16 * self.grid.n_radii * self.grid.n_angles)))
        parts = [
            make_templates(self.slices(rotations[start : start + batch]), self.rule, self.n_orders)
            for start in range(0, len(rotations), batch)
        ]
        return Templates(*(torch.cat([getattr(p, f) for p in parts]) for f in ("orders", "zeroth", "power")))
