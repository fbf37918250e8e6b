"""How much is worked on at a time, so that a run stays within its memory bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .compute import thread_count
from .likelihood_setup import Setup

__all__ = ["Budget", "available_memory", "budget"]

_GIB = 2.0**30
_MOST_IMAGES, _FEWEST_IMAGES = 512, 32
# A chunk is what a killed run loses: about so long, on a machine of this speed.
_CHUNK_SECONDS, _FLOPS, _SECONDS_PER_ANGLE = 90.0, 3e10, 6e-9
_PIECE = 16


@dataclass(frozen=True)
class Budget:
    """Sizes of a run; bytes where not said otherwise.

    ``total`` the bound; ``fine`` templates of finer views that are kept; ``chunk`` images written together, ``piece`` of them
    scored together by one thread.
    """

    total: float
    fine: float
    chunk: int
    piece: int


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
    grid, band = setup.settings.grid, setup.bands[-1]
    views = max(len(table) for table in setup.tables)
    moved = 8 * band.basis.size * len(setup.shifts)
    per_image = 2 * moved + 8 * grid.n_radii * grid.n_half * 6 + 8 * len(setup.rule.radii) * setup.rule.n_orders
    piece = int(max(1, min(_PIECE, 0.2 * total / thread_count() / per_image)))
    per_row_seconds = 8 * band.basis.size / _FLOPS + _SECONDS_PER_ANGLE * setup.n_inplane
    rows = views * len(setup.shifts) * (1.0 if setup.search == "exhaustive" else 0.05)
    seconds = max(1e-3, rows * per_row_seconds)
    chunk = int(max(_FEWEST_IMAGES, min(_MOST_IMAGES, _CHUNK_SECONDS / seconds)))
    return Budget(total, 0.3 * total, parameters["batch_images"] or chunk, piece)
