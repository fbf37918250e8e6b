"""The gallery of merged runs, put together from those of runs over different rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..constants import OUTPUT_GALLERY
from .agreement import row_keys
from .atomic import atomic_path
from .results import Results

__all__ = ["merge_galleries"]

_STRUCTURES = 8
_MEMBER, _AVERAGE = ("member_image", "member_template"), ("average", "average_template")


@dataclass(frozen=True)
class _Part:
    """A run's gallery, and the merged row (from 0) of each of its particles."""

    arrays: dict[str, np.ndarray]
    rows: np.ndarray

    def place(self, number: int) -> int | None:
        """Where structure `number` (from 1) is in the gallery."""
        found = np.flatnonzero(self.arrays["shown"] == number)
        return int(found[0]) if len(found) else None


def merge_galleries(out: Path, merged: Results, runs: Sequence[tuple[Path, Results]]) -> None:
    """Write ``gallery.npz`` of a merged run; nothing where the runs are over different structures or have none.

    Averages are those of the run that has most particles in its most frequent view; members the best of all runs.

    Parameters
    ----------
    out : Path
        Folder of the merged run.
    merged : Results
    runs : sequence of (Path, Results)
    """
    place = {key: i for i, key in enumerate(row_keys(merged))}
    parts: list[_Part] = []
    for folder, results in runs:
        if results.structures != merged.structures or not (folder / OUTPUT_GALLERY).exists():
            continue
        with np.load(folder / OUTPUT_GALLERY, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if not parts or arrays["average"].shape[1:] == parts[0].arrays["average"].shape[1:]:
            parts.append(_Part(arrays, np.array([place[key] for key in row_keys(results)], dtype=np.int64)))
    if not parts:
        return
    first = parts[0]
    chosen = np.bincount(merged.best_structure, minlength=len(merged.structures) + 1)[1:]
    shown = np.sort(np.argsort(-chosen, kind="stable")[:_STRUCTURES]) + 1
    arrays = {"labels": first.arrays["labels"], "shown": shown}
    each = [_structure(parts, merged, int(number)) for number in shown]
    arrays |= {name: np.stack([one[name] for one in each]) for name in each[0]}
    arrays |= {name: values for name, values in first.arrays.items() if name.startswith("example_")}
    arrays["example_row"] = first.rows[first.arrays["example_row"] - 1] + 1
    with atomic_path(out / OUTPUT_GALLERY) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _structure(parts: Sequence[_Part], merged: Results, number: int) -> dict[str, Any]:
    """One structure's arrays."""
    like = parts[0].arrays
    one: dict[str, Any] = {name: np.zeros_like(like[name][0]) for name in (*_AVERAGE, *_MEMBER, "member_row")}
    one["average_count"] = np.array(0)
    candidates = []
    for part in parts:
        k = part.place(number)
        if k is None:
            continue
        if part.arrays["average_count"][k] > one["average_count"]:
            one |= {name: part.arrays[name][k] for name in (*_AVERAGE, "average_count")}
        for j, row in enumerate(part.arrays["member_row"][k]):
            if row:
                m = int(part.rows[row - 1])
                candidates.append((-merged.integrated[number - 1, m], m, part, k, j))
    best = sorted(candidates, key=lambda each: each[:2])[: len(one["member_row"])]
    for slot, (_, m, part, k, j) in enumerate(best):
        one["member_row"][slot] = m + 1
        for name in _MEMBER:
            one[name][slot] = part.arrays[name][k, j]
    return one
