"""Coarse to fine over resolution and pose: the grid's rows that hold the mass, and an estimate of what the others hold.

Every row of the coarsest level is scored by its best pose. At each level rows are opened, heaviest expectation first, and
their children scored at the next, until the rest is expected to hold next to nothing; at the last level rows are summed at
full band. Rows above the best ones of other structures are opened too: a structure like the one that made the image fits
best where that does. Then closed rows are drawn at random, in proportion to what they are expected to hold, and summed at
full band as well. Their sum over the probability of being drawn estimates what all closed rows hold, without bias
(importance sampling); it is added, and more rows are opened while its standard error is too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .levels import Level
from .pose_rows import PoseRows
from .pruning import Outlook, keep
from .rotations import matrix_from_euler
from .row_scores import RowScorer, Sums

__all__ = ["LevelSearch", "Tolerance"]

# The pose that fits best at full band has been seen to lie below the best of a lower band by so much of that one's
# information, where views differ in how much they gain; at the level before the last, by less.
_EARLY_SHARE, _LAST_SHARE, _NATS = 0.25, 0.12, 10.0
_MOST = 4000  # rows opened for that reason


@dataclass(frozen=True)
class Tolerance:
    """When a search is good enough.

    Attributes
    ----------
    share : float
        Expected mass left closed at each level at first.
    error : float
        Largest standard error of the log of the integral, nat.
    samples : int
        Closed rows summed at random.
    rounds : int
        How many times more rows may be opened.
    """

    share: float = 5e-3
    error: float = 5e-3
    samples: int = 48
    rounds: int = 4


class _Pool:
    """Scored rows of one level that have not been opened."""

    def __init__(self) -> None:
        self.origin = self.view = np.zeros(0, dtype=np.int64)
        self.score = self.expected = np.zeros(0)
        self.cut, self.best = np.inf, (-np.inf, 0.0)

    def add(self, origin: np.ndarray, view: np.ndarray, score: np.ndarray, outlook: Outlook) -> None:
        self.origin = np.concatenate([self.origin, origin])
        self.view = np.concatenate([self.view, view])
        self.score = np.concatenate([self.score, score])
        self.expected = np.concatenate([self.expected, outlook.log_mass])
        self.best = max(self.best, outlook.near_best)

    def worth_opening(self, share: float) -> np.ndarray:
        """Rows above the cut, and those not far below the best, ``share`` of its information: bool [r]."""
        floor = self.best[0] - share * self.best[1] - _NATS
        if (self.score >= floor).sum() > _MOST:
            floor = np.partition(self.score, -_MOST)[-_MOST]
        return (self.expected >= self.cut) | (self.score >= floor)

    def take(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take out rows (bool [r])."""
        taken = self.origin[chosen], self.view[chosen]
        for name in ("origin", "view", "score", "expected"):
            setattr(self, name, getattr(self, name)[~chosen])
        return taken


class LevelSearch:
    """The search of one image under one structure.

    Parameters
    ----------
    image : int
        Index in the scorers' images.
    levels : list of Level
    scorers : list of RowScorer
        One per level.
    noise : float
        lambda² of the image, c / n.
    expected_scale : float
        Mean of the scale's prior; 0 where it is not known.
    tolerance : Tolerance
    """

    def __init__(
        self,
        image: int,
        levels: list[Level],
        scorers: list[RowScorer],
        noise: float,
        expected_scale: float,
        tolerance: Tolerance,
    ) -> None:
        self.image, self.levels, self.scorers = image, levels, scorers
        self.noise, self.expected_scale, self.tolerance = noise, expected_scale, tolerance
        self.pools = [_Pool() for _ in levels[:-1]]
        self.sums: list[Sums] = []
        self.best: tuple[float, int, int, int, float] = (-np.inf, 0, 0, 0, 0.0)

    def explore(self) -> None:
        """Score the coarsest level and open what is expected to hold the mass."""
        first = self.levels[0]
        origin, view = (a.ravel() for a in np.indices((len(first.shifts), len(first.table))))
        if len(self.levels) == 1:
            self.sum_rows(origin, view)
            return
        self.look(0, origin, view)
        for level, pool in enumerate(self.pools):
            pool.cut = float(pool.expected[keep(pool.expected, self.tolerance.share)[-1]])
            self.open_below(level, pool.worth_opening(self._share(level)))

    def _share(self, level: int) -> float:
        return _LAST_SHARE if level == len(self.pools) - 1 else _EARLY_SHARE

    def heaviest(self, count: int) -> np.ndarray:
        """Views of the final rows that hold most."""
        view, log_mass = (np.concatenate([getattr(s, n) for s in self.sums]) for n in ("view", "log_mass"))
        return np.unique(view[np.argsort(-log_mass)[:count]])

    def look_below(self, view: np.ndarray) -> None:
        """Bring all shifts of given final views down to the last level but one, and open what is worth it there."""
        origin, view = (a.ravel() for a in np.meshgrid(np.arange(len(self.levels[-1].shifts)), view, indexing="ij"))
        above = [(origin, view)]
        for here in self.levels[:0:-1]:
            above.insert(0, (here.shift_parent[above[0][0]], here.view_parent[above[0][1]]))
        for level, (o, v) in enumerate(above[:-2]):
            pool, width = self.pools[level], len(self.levels[level].table)
            self.open_below(level, np.isin(pool.origin * width + pool.view, o * width + v))
        self.open_below(len(self.pools) - 1, self.pools[-1].worth_opening(_LAST_SHARE))

    def finish(self, rng: np.random.Generator) -> tuple[PoseRows, tuple[np.ndarray, np.ndarray]]:
        """Estimate what is closed, open more while that is too uncertain; rows, and their indices of shift and view."""
        if len(self.levels) == 1:
            return self.result(-np.inf, 0.0, 0.0)
        for number in range(self.tolerance.rounds + 1):
            left, left_mean, error = self.closed_mass(rng)
            if error <= self.tolerance.error or number == self.tolerance.rounds:
                break
            for level, pool in enumerate(self.pools):
                if len(pool.expected):  # an eighth of what is expected may stay closed
                    pool.cut = min(pool.cut - np.log(8), float(pool.expected[keep(pool.expected, 0.125)[-1]]))
                    self.open_below(level, pool.worth_opening(self._share(level)))
        return self.result(left, left_mean, error)

    def look(self, level: int, origin: np.ndarray, view: np.ndarray) -> None:
        """Score rows of a level by their best pose and put them into its pool."""
        here = self.levels[level]
        peaks = self.scorers[level].peaks(self.image, origin, view)
        assert here.link is not None
        o, v = peaks.origin, peaks.view
        per_power = (self.expected_scale or peaks.scale) ** 2 / self.noise
        outlook = Outlook(
            peaks.peak,
            per_power * peaks.power,
            per_power * peaks.power * here.link.gain,
            np.log(here.shift_weight[o] * here.view_weight[v]),
            here.shift_count[o] * here.view_count[v],
            here.link,
        )
        self.pools[level].add(o, v, peaks.peak, outlook)

    def open_below(self, level: int, chosen: np.ndarray) -> None:
        """Score the children of rows (bool [r]) of a level's pool."""
        origin, view = self.pools[level].take(chosen)
        if not len(origin):
            return
        origin, view = self.levels[level].children(origin, view)
        if level + 2 < len(self.levels):
            self.look(level + 1, origin, view)
        else:
            self.sum_rows(origin, view)

    def sum_rows(self, origin: np.ndarray, view: np.ndarray) -> Sums:
        """Sum rows of the last level."""
        found = self.scorers[-1].sums(self.image, origin, view)
        self.sums.append(found)
        self._compare(found)
        return found

    def _compare(self, found: Sums) -> None:
        top = int(found.peak.argmax())
        if found.peak[top] > self.best[0]:
            self.best = float(found.peak[top]), int(found.view[top]), int(found.origin[top]), found.angle, found.scale

    def log_prior(self, origin: np.ndarray, view: np.ndarray) -> np.ndarray:
        """ln of the prior of every pose of final rows."""
        last = self.levels[-1]
        return np.log(last.shift_weight[origin] * last.view_weight[view] / self.scorers[-1].n_inplane)

    def total(self) -> float:
        """ln of the mass of the summed rows."""
        return float(np.logaddexp.reduce([
            np.logaddexp.reduce(s.log_mass + self.log_prior(s.origin, s.view)) for s in self.sums
        ]))  # fmt: skip

    def closed_mass(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """ln of the mass of all closed rows, its mean log-ratio, and its standard error over the whole, from a sample."""
        samples = self.tolerance.samples
        sizes = [len(pool.expected) for pool in self.pools]
        if not sum(sizes):
            return -np.inf, 0.0, 0.0
        level = np.repeat(np.arange(len(sizes)), sizes)
        origin, view, expected = (np.concatenate([getattr(p, n) for p in self.pools]) for n in ("origin", "view", "expected"))
        prior, count = np.zeros(len(level)), np.zeros(len(level))
        for index, here in enumerate(self.levels[:-1]):
            own = level == index
            prior[own] = here.shift_weight[origin[own]] * here.view_weight[view[own]]
            count[own] = here.shift_count[origin[own]] * here.view_count[view[own]]
        # Tempered, since a row with less than expected costs little, and one with more a large error.
        tempered = 0.5 * (expected + np.log(prior))
        chance = sum(np.exp(e - e.max()) / np.exp(e - e.max()).sum() for e in (expected, tempered, np.log(prior))) / 3
        drawn = np.sort(rng.choice(len(chance), size=samples, p=chance))
        final_origin, final_view = np.zeros(samples, np.int64), np.zeros(samples, np.int64)
        for index, here in enumerate(self.levels[:-1]):
            own = np.flatnonzero(level[drawn] == index)
            final_origin[own], final_view[own] = here.random_final(origin[drawn[own]], view[drawn[own]], rng)
        width = len(self.levels[-1].table)
        rows, place = np.unique(final_origin * width + final_view, return_inverse=True)
        found = self.scorers[-1].sums(self.image, rows // width, rows % width)
        self._compare(found)
        order = np.argsort(found.origin * width + found.view)
        log_mass = (found.log_mass + self.log_prior(found.origin, found.view))[order][place]
        over = log_mass - np.log(chance[drawn] / count[drawn])
        known, top = self.total(), float(over.max())
        weight = np.exp(over - top)
        left = top + np.log(weight.mean())
        whole = np.logaddexp(known, left)
        error = float(np.exp(top - whole) * weight.std(ddof=1) / np.sqrt(samples))
        return float(left), float(np.average(found.mean_log[order][place], weights=weight)), error

    def result(self, left: float, left_mean: float, error: float) -> tuple[PoseRows, tuple[np.ndarray, np.ndarray]]:
        """The rows as they stand, and their indices."""
        origin, view, log_mass, mean_log = (
            np.concatenate([getattr(s, name) for s in self.sums]) for name in ("origin", "view", "log_mass", "mean_log")
        )
        log_prior = self.log_prior(origin, view)
        last = self.levels[-1]
        best, top, best_origin, angle, scale = self.best
        table, n_inplane = last.table, self.scorers[-1].n_inplane
        rows = PoseRows(
            view=view,
            origin=last.shifts.origins[origin],
            log_mass=log_mass + log_prior,
            mean_log=mean_log,
            log_prior=log_prior,
            left_log_mass=left,
            left_mean_log=left_mean,
            error=error,
            best=best,
            best_rotation=matrix_from_euler(table.rot_deg[top], table.tilt_deg[top], 360.0 * angle / n_inplane),
            best_origin=last.shifts.origins[best_origin],
            scale=scale,
            power=float(np.mean([s.power.mean() for s in self.sums])),
            scored=len(view),
        )
        return rows, (origin, view)
