"""finufft's interpolation kernel on its own: spread to, or interpolate from, a periodic grid without an FFT.

A non-uniform FFT is a spread (or an interpolation) with a compact kernel, an FFT, and a division by the
transform of the kernel. Where the same grid serves many calls, the FFT and the division are done once and the
kernel alone is applied to each set of points.
"""

from __future__ import annotations

import finufft
import numpy as np
import torch
from numpy.typing import NDArray

_SAMPLES = 32  # per cell, for the transform of the kernel
KERNEL_REACH = 10  # cells; more than half the width of the widest kernel
LEAST_CELLS = 4 * KERNEL_REACH  # of an axis; finufft wants two kernels side by side


def kernel_plan(kind: int, shape: tuple[int, ...], eps: float, dtype: type[np.complexfloating]) -> finufft.Plan:
    """A finufft plan that only spreads (kind 1) to, or interpolates (kind 2) from, a grid.

    The point x in [-π, π) stands at cell ``(x / 2π + 1/2) · n`` of an axis of n cells. The kernel is accurate
    to ``eps`` for frequencies up to half the grid's Nyquist frequency.
    """
    return finufft.Plan(
        kind,
        shape,
        eps=eps,
        dtype=np.dtype(dtype).name,
        nthreads=torch.get_num_threads(),
        spreadinterponly=1,
        upsampfac=2.0,
    )


def kernel_transform(cells: int, modes: NDArray[np.int64], eps: float, dtype: type[np.complexfloating]) -> NDArray[np.float64]:
    """∫ φ(t) exp(−2πi t mode / cells) dt, φ the kernel of :func:`kernel_plan`, t in cells: as ``modes``."""
    plan = kernel_plan(1, (cells,), eps, dtype)
    position = np.arange(cells) - cells // 2
    real = np.float32 if dtype == np.complex64 else np.float64
    total = np.zeros(len(modes))
    for sample in (np.arange(_SAMPLES) + 0.5) / _SAMPLES:
        plan.setpts(np.array([2.0 * np.pi * sample / cells], dtype=real))
        kernel = plan.execute(np.ones(1, dtype=dtype)).real.astype(np.float64)
        used = np.flatnonzero(kernel)
        phase = 2.0 * np.pi / cells * np.outer(modes, position[used] - sample)
        total += np.cos(phase) @ kernel[used]
    return total / _SAMPLES
