"""Searches of one set of particles in this process, on the grid and from coarse to fine, timed after all preparation."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from common import best_of
from reference_kernel import full_circle, reference_grid, search

from cryolike_scipion.engine.compute import use_threads
from cryolike_scipion.engine.conversion import Converted, convert
from cryolike_scipion.engine.exhaustive import BlockSizes
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_chunk import Scoring, _Piece, pilot_images
from cryolike_scipion.engine.likelihood_setup import Setup, prepare_run
from cryolike_scipion.engine.memory import budget
from cryolike_scipion.engine.optima import Optima
from cryolike_scipion.engine.polar_settings import PolarSettings
from cryolike_scipion.engine.pose_search import Integral, StructureSearch
from cryolike_scipion.engine.processes import ForkedWorkers
from cryolike_scipion.engine.scale_prior import learn_scale
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.template_power import ctf_arguments, power_rule
from cryolike_scipion.engine.workers import parallel
from cryolike_scipion.parameters import complete, get

_PILOT_PRIOR = ScalePrior(0.0, float(np.sqrt(200.0)))  # wide, with which the pilot is searched
_TOLD_EVERY = 10.0  # seconds
_REFERENCE_IMAGES, _REFERENCE_VIEWS, _REFERENCE_SHIFTS, _REFERENCE_BATCH = 4, 128, 49, (2, 32)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Case:
    """Particles and structures to search.

    Attributes
    ----------
    name : what the tables call it.
    particles : STAR file.
    truth : STAR file of the same rows with poses and classes, or None.
    structures, symmetries : files, and their groups (or one for all).
    max_shift : Å; None is the program's own.
    """

    name: str
    particles: Path
    truth: Path | None
    structures: tuple[Path, ...]
    symmetries: tuple[str, ...] = ("C1",)
    max_shift: float | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    log, error, best : float64 [K, M]
        Integrated log-ratio, its reported standard error, and the log-ratio of the best pose.
    rotation : float64 [K, M, 3, 3]
        Best pose, not refined.
    rows : float64 [K, M]
        Rows (view, shift) summed at full band, those drawn at random included.
    seconds : float
        Wall time of all.
    """

    log: np.ndarray
    error: np.ndarray
    best: np.ndarray
    rotation: np.ndarray
    rows: np.ndarray
    seconds: float

    @property
    def ms(self) -> float:
        """Milliseconds per particle and structure."""
        return 1e3 * self.seconds / self.log.size


class Searches:
    """A case made ready: particles on the polar grid, templates of all levels, the scale's prior.

    Parameters
    ----------
    case : Case
    count : particles, the first of the file.
    threads : worker processes.
    priors : scale prior of each optics group; learned from the particles where not given.
    sampling : options of ``likelihood``.
    """

    def __init__(
        self, case: Case, count: int, threads: int, priors: dict[int, ScalePrior] | None = None, **sampling: Any
    ) -> None:
        self.case, self.threads = case, use_threads(threads)
        given = {
            "particles": [str(case.particles)],
            "structures": [str(path) for path in case.structures],
            "symmetry": list(case.symmetries),
            "max_shift": case.max_shift,
            "search": "hierarchical",
            "rows": f"1:{count}",
            "out": "unused",
        }
        parameters = complete("likelihood", given | sampling)
        self.setup = prepare_run(parameters, "cpu")
        limits = budget(parameters, self.setup)
        self.counted = [
            _CountedSearch(
                k, self.setup.bands, levels, self.setup.division, self.setup.near, self.setup.n_inplane,
                self.setup.ring_ctf, limits.fine / len(self.setup.structures),
            )
            for k, levels in enumerate(self.setup.levels)
        ]  # fmt: skip
        for one in self.counted:
            for level in range(len(one.levels)):
                one.templates(level)
        groups, order = self.setup.particles.optics_index, np.arange(len(self.setup.particles))
        size = max(1, min(limits.piece, len(order) // self.threads))
        members = [order[groups == group] for group in np.unique(groups)]
        places = [rows[start : start + size] for rows in members for start in range(0, len(rows), size)]
        self.pieces = [(rows, made) for rows, made in zip(places, parallel(self._convert, places)) if made.images is not None]
        self.rows = np.concatenate([rows[made.usable] for rows, made in self.pieces])
        self.priors = priors or self._learn(members, size)

    @property
    def grid_rows(self) -> np.ndarray:
        """Rows (view, shift) of the grid of every structure: int64 [K]."""
        return np.array([len(table) * len(self.setup.shifts) for table in self.setup.tables])

    def hierarchical(self) -> Found:
        """From coarse to fine."""
        return self._run("hierarchical", self.setup)

    def exhaustive(self) -> Found:
        """Every pose of the same grid."""
        return self._run("exhaustive", replace(self.setup, search="exhaustive", bands=self.setup.bands[-1:]))

    def reference_seconds(self) -> float:
        """Of CryoLike's algorithm per image, template and shift, on its own grid, for a few of these."""
        import torch

        setup, particles = self.setup, self.setup.particles
        group = particles.optics[particles.optics_index[self.rows[0]]]
        rows = self.rows[particles.optics_index[self.rows] == particles.optics_index[self.rows[0]]][:_REFERENCE_IMAGES]
        grid = reference_grid(group.box, setup.settings.grid.k_max)
        settings = PolarSettings.from_plain(
            setup.settings.plain() | {"n_radii": grid.n_radii, "n_angles": grid.n_angles, "precision": "single"}
        )
        rule = power_rule(grid, max(s.radius for s in setup.structures), ctf_arguments(particles, rows))
        made = convert(particles, rows, settings, rule, "flag")
        assert made.images is not None
        images = full_circle(made.images.matched)
        table = setup.tables[0]
        views = np.unique(np.linspace(0, len(table) - 1, _REFERENCE_VIEWS).astype(int))
        slices = SliceMaker(setup.structures[0], grid)(table.rotations()[views])
        templates = torch.fft.fft(full_circle(slices), dim=-1, norm="forward")
        origins = torch.as_tensor(setup.shifts.origins[:_REFERENCE_SHIFTS])
        torch.set_num_threads(self.threads)  # the reference works with all of them in every operation
        try:
            seconds = best_of(lambda: search(images, templates, grid, origins, _REFERENCE_BATCH), 3)
        finally:
            torch.set_num_threads(1)
        return seconds / (len(images) * len(templates) * len(origins))

    def _convert(self, rows: np.ndarray) -> Converted:
        setup = self.setup
        return convert(setup.particles, rows, setup.settings, setup.rule, "flag", setup.cache, setup.device)

    def _learn(self, members: list[np.ndarray], size: int) -> dict[int, ScalePrior]:
        """The scale prior of every optics group, from its first particles."""
        scoring, learned = Scoring(self.setup, list(self.counted), {}, BlockSizes(), size), {}
        for rows in members:
            images = pilot_images(scoring, rows[: get("likelihood", "pilot").default], _PILOT_PRIOR)
            learned[int(self.setup.particles.optics_index[rows[0]])] = learn_scale(images, _PILOT_PRIOR).prior
        return learned

    def _run(self, what: str, setup: Setup) -> Found:
        """Search all pieces in processes, as a run does, timed from the first to the last, after a search of one particle."""
        rows, made = self.pieces[0]
        assert made.images is not None
        self._search(setup, rows[made.usable][:1], made.images.take(slice(0, 1)))

        def search(piece: int, _: object) -> tuple[list[Integral], list[dict[int, int]]]:
            for counted in self.counted:
                counted.rows.clear()
            rows, made = self.pieces[piece]
            return self._search(setup, rows[made.usable], made.images), [counted.rows for counted in self.counted]

        sizes = [len(made.usable) for _, made in self.pieces]
        with ForkedWorkers(search, self.threads) as workers:
            start = time.perf_counter()
            found = told(zip(sizes, workers.map(range(len(sizes)))), f"{self.case.name}, {what}", len(self.rows))
            parts, summed = zip(*found)
            seconds = time.perf_counter() - start
        names = ("log", "error", "best", "rotation")
        whole = {
            n: np.array([np.concatenate([getattr(p[k], n) for p in parts]) for k in range(len(self.counted))]) for n in names
        }
        opened = np.repeat(self.grid_rows[:, None], len(self.rows), axis=1).astype(np.float64)
        if setup.search == "hierarchical":
            seeds = setup.particles.row[self.rows]
            own = [{row: n for each in summed for row, n in each[k].items()} for k in range(len(self.counted))]
            opened[:] = [[count[int(seed)] for seed in seeds] for count in own]
        return Found(**whole, rows=opened, seconds=seconds)

    def _search(self, setup: Setup, rows: np.ndarray, images) -> list[Integral]:
        """Integrals under every structure; lower bands of the images are made here, as a run would."""
        scoring = Scoring(setup, list(self.counted), self.priors, BlockSizes(), len(rows))
        prior = self.priors[int(setup.particles.optics_index[rows[0]])]
        none: list[Optima | None] = [None] * len(self.counted)
        return list(_Piece(setup, images, rows).integrals(scoring, prior, lambda _: None, none))


class _CountedSearch(StructureSearch):
    """A search that remembers how many rows of the grid it summed for every particle (by its row in the source)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows: dict[int, int] = {}

    def finish(self, searches, images, prior, seeds, samples):
        scorer = searches[0].scorers[-1]
        summed, count = scorer.sums, Counter({one.image: sum(len(s.view) for s in one.sums) for one in searches})

        def counting(image: int, origin: np.ndarray, view: np.ndarray):
            count[image] += len(view)
            return summed(image, origin, view)

        scorer.sums = counting
        integral = super().finish(searches, images, prior, seeds, samples)
        for one, seed in zip(searches, seeds):
            self.rows[int(seed)] = count[one.image]
        return integral


def told(parts: Iterable[tuple[int, Item]], what: str, total: int) -> Iterator[Item]:
    """Parts, of so many particles each, as they come; how far it is goes to stderr now and then."""
    done, start = 0, time.perf_counter()
    last = start
    for size, part in parts:
        done += size
        now = time.perf_counter()
        if now - last > _TOLD_EVERY or done == total:
            print(f"{what}: {done}/{total} particles, {now - start:.0f} s", file=sys.stderr, flush=True)
            last = now
        yield part
