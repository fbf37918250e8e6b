"""Templates of ever finer views of one structure, made when first asked for and kept while memory allows."""

from __future__ import annotations

from threading import Lock

import numpy as np
import torch

from .correlation import Templates
from .template_bank import TemplateBank
from .views import ViewTable, children

__all__ = ["FineViews"]

_FIRST = 256  # templates that there is room for at first


class FineViews:
    """Tables of views, each with four for one of the table before, and their templates.

    Parameters
    ----------
    bank : TemplateBank
    table : ViewTable
        Of the grid; division 0.
    max_bytes : float
        For templates that are kept.
    """

    def __init__(self, bank: TemplateBank, table: ViewTable, max_bytes: float) -> None:
        self._bank, self._tables = bank, [table]
        self._most = int(max_bytes // bank.bytes_per_view())
        self._slots: dict[int, np.ndarray] = {}
        self._kept: Templates | None = None
        self._used = 0
        self._lock = Lock()

    def table(self, division: int) -> ViewTable:
        """Views after so many divisions; view v of the table before becomes 4 v … 4 v + 3."""
        with self._lock:
            while len(self._tables) <= division:
                last = self._tables[-1]
                self._tables.append(children(last, np.arange(len(last))))
            return self._tables[division]

    def templates(self, division: int, views: np.ndarray) -> Templates:
        """Templates of views [v] of a division, in that order."""
        table = self.table(division)
        with self._lock:
            slots = self._slots.setdefault(division, np.full(len(table), -1, dtype=np.int64))
            slot, store = slots[views], self._kept
        missing = np.unique(views[slot < 0])
        if not len(missing) and store is not None:
            return store.take(torch.from_numpy(slot).to(store.rows.device))
        made = self._bank.templates(table, missing)
        self._keep(slots, missing, made)
        place = np.where(slot < 0, np.searchsorted(missing, views), 0)
        found = made.take(torch.from_numpy(place).to(made.rows.device))
        old = np.flatnonzero(slot >= 0)
        if len(old) and store is not None:
            here = torch.from_numpy(old).to(made.rows.device)
            there = torch.from_numpy(slot[old]).to(made.rows.device)
            for name in ("rows", "zeroth", "power"):
                getattr(found, name)[here] = getattr(store, name)[there]
        return found

    def _keep(self, slots: np.ndarray, views: np.ndarray, made: Templates) -> None:
        """Store as many new templates as there is room for."""
        with self._lock:
            new = np.flatnonzero(slots[views] < 0)[: max(0, self._most - self._used)]
            if not len(new):
                return
            size = 0 if self._kept is None else len(self._kept)
            if self._used + len(new) > size:
                grown = min(self._most, max(2 * size, self._used + len(new), _FIRST))
                self._kept = _enlarged(made, grown, self._kept, self._used)
            assert self._kept is not None
            place = torch.arange(self._used, self._used + len(new), device=made.rows.device)
            chosen = torch.from_numpy(new).to(made.rows.device)
            for name in ("rows", "zeroth", "power"):
                getattr(self._kept, name)[place] = getattr(made, name)[chosen]
            slots[views[new]] = np.arange(self._used, self._used + len(new))
            self._used += len(new)


def _enlarged(like: Templates, size: int, old: Templates | None, used: int) -> Templates:
    """Room for ``size`` templates, the first ``used`` of them those of ``old``."""
    room = Templates(*(t.new_empty(size, *t.shape[1:]) for t in (like.rows, like.zeroth, like.power)))
    if old is not None:
        for name in ("rows", "zeroth", "power"):
            getattr(room, name)[:used] = getattr(old, name)[:used]
    return room
