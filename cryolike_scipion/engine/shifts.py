"""The grid of shifts (particle origins) that a search asks, and its subdivision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ShiftGrid", "grid_by_count", "grid_by_radius", "subdivide"]


@dataclass(frozen=True)
class ShiftGrid:
    """Cells of equal size that tile the searched shifts; the prior over them is uniform.

    Attributes
    ----------
    origins : float64 [O, 2]
        Cell centres (x, y), Å, in RELION's sense (what must be added to the image to centre the particle).
    step : tuple of float
        Cell size along x and y, Å.
    """

    origins: np.ndarray
    step: tuple[float, float]

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def reach(self) -> float:
        """Length of the longest shift, Å."""
        return float(np.sqrt((self.origins**2).sum(axis=1)).max())


def grid_by_radius(max_shift: float, step: float) -> ShiftGrid:
    """Square grid of spacing ``step`` (Å) inside the disc of radius ``max_shift`` (Å); always holds the zero shift."""
    if step <= 0 or max_shift < 0:
        raise ValueError(f"shift step {step} Å must be positive and the largest shift {max_shift} Å not negative")
    count = int(np.floor(max_shift / step + 1e-9))
    axis = step * np.arange(-count, count + 1)
    x, y = np.meshgrid(axis, axis)
    inside = x**2 + y**2 <= max_shift**2 * (1 + 1e-9)
    return ShiftGrid(np.stack([x[inside], y[inside]], axis=1), (step, step))


def grid_by_count(count_x: int, count_y: int, max_shift: float) -> ShiftGrid:
    """``count_x`` x ``count_y`` shifts, equispaced from -max_shift to max_shift (Å) along each axis, zero where odd."""
    if count_x < 1 or count_y < 1:
        raise ValueError(f"the numbers of shifts {count_x} x {count_y} must be positive")
    axes, steps = [], []
    for count in (count_x, count_y):
        axes.append(np.linspace(-max_shift, max_shift, count) if count > 1 else np.zeros(1))
        steps.append(2 * max_shift / (count - 1) if count > 1 else 0.0)
    x, y = np.meshgrid(*axes)
    return ShiftGrid(np.stack([x.ravel(), y.ravel()], axis=1), (steps[0], steps[1]))


def subdivide(origins: np.ndarray, step: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float]]:
    """Each cell in four: centres [4 O, 2] (cell-major) and the halved step."""
    quarter = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * np.array(step) / 4
    return (origins[:, None, :] + quarter[None]).reshape(-1, 2), (step[0] / 2, step[1] / 2)
