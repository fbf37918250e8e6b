"""How much is worked on at a time, so that a run stays within its memory bound."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compute import thread_count
from .errors import InputError
from .likelihood_setup import Setup
from .processes import process_count

__all__ = ["Budget", "available_memory", "budget"]

_GIB = 2.0**30
_MOST_IMAGES, _FEWEST_IMAGES = 512, 32
# A chunk is what a killed run loses: about so long, on a machine of this speed.
_CHUNK_SECONDS, _FLOPS, _SECONDS_PER_ANGLE = 90.0, 3e10, 6e-9
_PIECE = 16
_LEAST = 2.0**26  # bytes besides the templates
_BYTES_PER_VOXEL = 100.0  # while a structure is made ready: its padded transform


@dataclass(frozen=True)
class Budget:
    """Sizes of a run; bytes where not said otherwise.

    ``total`` the bound; ``fine`` templates of finer views that a process keeps; ``chunk`` images written together, ``piece`` of
    them scored together by one thread.
    """

    total: float
    fine: float
    chunk: int
    piece: int


def available_memory() -> float:
    """Free memory of the machine in bytes, as the kernel estimates it (4 GiB where it does not say), but not more than the
    memory of the Slurm job that this is, and than the limits of its control groups.
    """
    return min(_free_memory(), _granted_by_slurm(), _group_limit(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))


def _granted_by_slurm() -> float:
    """Bytes on this node; infinite without a job, and where it has all of the node (0)."""

    def number(name: str) -> int:
        value = os.environ.get(name, "")
        return int(value) if value.isdecimal() else 0

    mebibytes = number("SLURM_MEM_PER_NODE") or number("SLURM_MEM_PER_CPU") * number("SLURM_CPUS_ON_NODE")
    return mebibytes * 2.0**20 or float("inf")


def _group_limit(table: Path, root: Path) -> float:
    """The least memory limit, in bytes, of the control groups that this process is in; infinite without one.

    Parameters
    ----------
    table : Path
        Lines ``number:controllers:path``; of version 2 without controllers.
    root : Path
        Where the groups are mounted. In a container the paths may be those of the machine, and its own group the root.
    """
    least = float("inf")
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder == top or top in folder.parents:
                with suppress(OSError, ValueError):  # none here, or "max"
                    least = min(least, float((folder / name).read_text(encoding="ascii")))
    return least


def _free_memory() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 4 * _GIB


def budget(parameters: dict[str, Any], setup: Setup) -> Budget:
    """Divide the memory bound (half of what is free where none is given, shared with the runs beside this one).

    Raises
    ------
    InputError
        If the templates of the grid alone take more.
    """
    own = 0.5 * available_memory() / parameters["shared_by"]
    total = parameters["memory"] * _GIB if parameters["memory"] is not None else own
    fixed = sum(_structure_bytes(setup, k) for k in range(len(setup.structures)))
    fixed += max(_BYTES_PER_VOXEL * s.box**3 for s in setup.structures)
    left = total - fixed
    if left < _LEAST:
        raise InputError(
            f"{total / _GIB:.2f} GiB of memory are too little: the structures and their templates take {fixed / _GIB:.2f} GiB",
            remedy="Raise --memory, or use a larger --angular-step or --resolution or fewer structures at a time.",
        )
    piece = int(max(1, min(_PIECE, 0.4 * left / thread_count() / _image_bytes(setup))))
    band = setup.bands[-1]
    per_row_seconds = 8 * band.basis.size / _FLOPS + _SECONDS_PER_ANGLE * setup.n_inplane
    rows = max(len(table) for table in setup.tables) * len(setup.shifts) * (1.0 if setup.search == "exhaustive" else 0.05)
    seconds = max(1e-3, rows * per_row_seconds)
    chunk = int(max(_FEWEST_IMAGES, min(_MOST_IMAGES, _CHUNK_SECONDS / seconds)))
    return Budget(total, 0.4 * left / process_count(setup.device), parameters["batch_images"] or chunk, piece)


def _structure_bytes(setup: Setup, k: int) -> float:
    """What a structure takes for the whole run: its transform in every band, and the templates of every level."""
    radius = setup.structures[k].radius
    tables = sum(32 * b.grid.n_radii * (2 * np.pi * b.grid.k_max * radius) ** 2 for b in setup.bands)
    levels = sum(len(level.table) * setup.bands[level.band].banks[k].bytes_per_view() for level in setup.levels[k])
    return float(tables + levels)


def _image_bytes(setup: Setup) -> float:
    """What the search of an image takes: moved images, coefficients of the views, and rows of the coarser levels."""
    grid, size = setup.settings.grid, setup.bands[-1].basis.size
    moved = 8 * size * len(setup.shifts)
    views = max(len(table) for table in setup.tables)
    evidence = len(setup.structures) * views * (8 * setup.rule.n_orders + 16)
    rows = max(len(level.table) * len(level.shifts) for levels in setup.levels for level in levels[:-1] or levels)
    return 1.5 * moved + evidence + 48 * len(setup.structures) * rows + 48 * grid.n_radii * grid.n_half
