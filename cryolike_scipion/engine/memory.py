"""How much is worked on at a time, so that a run stays within its memory bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .likelihood_setup import Setup

__all__ = ["Budget", "available_memory", "budget"]

_GIB = 2.0**30
_MOST_IMAGES, _FEWEST_IMAGES = 256, 8
# A chunk is what a killed run loses: about so long, on a machine of this speed.
_CHUNK_SECONDS, _FLOPS, _SECONDS_PER_ANGLE = 90.0, 3e10, 6e-9
_BLOCK_BYTES = 48e6  # of inner products: larger blocks leave the cache and gain nothing


@dataclass(frozen=True)
class Budget:
    """Sizes of a run; bytes where not said otherwise.

    ``total`` the bound; ``templates`` kept for the first grid; ``fine`` templates of finer views; ``chunk`` images scored
    together; ``block_images`` and ``block_views`` compared at a time.
    """

    total: float
    templates: float
    fine: float
    chunk: int
    block_images: int
    block_views: int


def available_memory() -> float:
    """Free memory of the machine in bytes, as the kernel estimates it; 4 GiB where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 4 * _GIB


def budget(parameters: dict[str, Any], setup: Setup) -> Budget:
    """Divide the memory bound (half of what is free where none is given)."""
    total = parameters["memory"] * _GIB if parameters["memory"] is not None else 0.5 * available_memory()
    grid, bank = setup.settings.grid, setup.banks[0]
    views = max(len(table) for table in setup.tables)
    per_image = 8 * grid.n_radii * grid.n_half * 6 + 16 * views + 8 * len(setup.rule.radii) * setup.rule.n_orders
    per_pose_seconds = 8 * bank.n_orders * grid.n_radii / _FLOPS + _SECONDS_PER_ANGLE * setup.n_inplane
    seconds = max(1e-3, views * len(setup.shifts) * per_pose_seconds)
    chunk = int(max(_FEWEST_IMAGES, min(_MOST_IMAGES, 0.2 * total / per_image, _CHUNK_SECONDS / seconds)))
    chunk = parameters["batch_images"] or chunk
    per_pose = 4 * setup.n_inplane + 16 * bank.n_orders
    block_views = parameters["batch_templates"] or 128
    block_images = max(1, int(_BLOCK_BYTES / (per_pose * block_views * len(setup.shifts))))
    if parameters["batch_templates"] is None:
        block_views = max(16, min(512, int(_BLOCK_BYTES / (per_pose * block_images * len(setup.shifts)))))
    return Budget(total, 0.4 * total, 0.15 * total, chunk, min(block_images, 16, chunk), block_views)
