"""Priors over shifts and views other than the uniform ones.

A search weighs all shifts alike, and views by their share of the sphere. Another prior multiplies every row of poses by its
density over the uniform one, after the rows were divided where the likelihood is. It has to be broad beside the likelihood, as
priors are: it does not lead the search to where it alone is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import symmetry
from .pose_rows import PoseRows
from .rotations import matrix_from_euler
from .shifts import ShiftGrid, subdivide
from .views import ViewTable, healpix_views, nearest_view

__all__ = ["PosePrior", "ShiftPrior", "ViewPrior", "count_views", "view_places"]

_SPHERE_STEP = 7.4  # degrees, of the table on which a distribution of views is kept
_WIDTH = 10.0  # degrees, over which input views are spread
_UNIFORM = 0.1  # of the prior stays uniform: no view is impossible


@dataclass(frozen=True)
class ShiftPrior:
    """A Gaussian of origins about the centre of the search, relative to the uniform prior within its reach.

    Attributes
    ----------
    width : float
        Standard deviation along x and along y, Å.
    log_mean : float
        ln of the mean of the Gaussian (1 at its centre) over the searched shifts.
    """

    width: float
    log_mean: float

    @classmethod
    def over(cls, width: float, shifts: ShiftGrid) -> ShiftPrior:
        """For shifts of a grid, whose cells are integrated."""
        origins, step = shifts.origins, shifts.step
        for _ in range(3 if len(shifts) > 1 else 0):
            origins, step = subdivide(origins, step)
        return cls(width, float(np.log(np.exp(-(origins**2).sum(axis=1) / (2 * width**2)).mean())))

    def log_ratio(self, origins: NDArray[np.float64]) -> NDArray[np.float64]:
        """ln of the prior over the uniform one, at origins [r, 2] (Å) from the centre of the search."""
        return -(origins**2).sum(axis=1) / (2 * self.width**2) - self.log_mean


@dataclass(frozen=True)
class ViewPrior:
    """A distribution of viewing directions, relative to the uniform one.

    Attributes
    ----------
    table : ViewTable
        Of the whole sphere.
    density : float64 [v]
        Mean 1 over the table.
    """

    table: ViewTable
    density: NDArray[np.float64]

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64], group: str) -> ViewPrior:
        """As poses are distributed, from `count_views`, spread over 10°, with a tenth left uniform, for a symmetry."""
        table = healpix_views(_SPHERE_STEP)
        own = table.directions()
        smooth = np.zeros(len(own))
        for mate in symmetry.rotations(group):
            kernel = np.exp((own @ (own @ mate).T - 1) / np.deg2rad(_WIDTH) ** 2)
            smooth += kernel @ counts / kernel.sum(axis=1)
        return cls(table, _UNIFORM + (1 - _UNIFORM) * smooth / (smooth @ table.weights))

    def log_ratio(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """ln of the prior over the uniform one, at directions [r, 3]."""
        return np.log(self.density[nearest_view(self.table, directions)])

    def log_mean(self, directions: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        """ln of its mean over some directions [r, 3] with weights [r], relative to the uniform one."""
        return float(np.log(np.exp(self.log_ratio(directions)) @ weights / weights.sum()))


def view_places() -> int:
    """Number of views v at which poses are counted."""
    return len(healpix_views(_SPHERE_STEP))


def count_views(rot: NDArray[np.float64], tilt: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many poses (degrees, [M]) are at each view of a table of the whole sphere, int64 [v]."""
    directions = matrix_from_euler(rot, tilt, np.zeros(len(rot)))[:, 2]
    return np.bincount(nearest_view(healpix_views(_SPHERE_STEP), directions), minlength=view_places())


@dataclass(frozen=True)
class PosePrior:
    """Priors over shifts and views; None: uniform."""

    shift: ShiftPrior | None = None
    view: ViewPrior | None = None

    def apply(self, rows: PoseRows, directions: NDArray[np.float64], log_mean: float = 0.0) -> None:
        """Weigh the rows of an image by the priors, in place.

        What was left out of the rows is weighed by their mean.

        Parameters
        ----------
        rows : PoseRows
        directions : float64 [r, 3]
            Viewing directions of the rows.
        log_mean : float
            ln of the mean of the prior over views that are searched, see `ViewPrior.log_mean`.
        """
        if self.shift is None and self.view is None:
            return
        change = np.zeros(len(rows.view))
        if self.shift is not None:
            change += self.shift.log_ratio(rows.origin)
        if self.view is not None:
            change += self.view.log_ratio(directions) - log_mean
        before = float(np.logaddexp.reduce(rows.log_mass))
        rows.log_mass = rows.log_mass + change
        rows.log_prior = rows.log_prior + change
        rows.left_log_mass += float(np.logaddexp.reduce(rows.log_mass)) - before
