"""Scores of one chunk of particles under every structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from .bands import band_images
from .chunk_arrays import (
    empty,
    keep_input_poses,
    optima_of,
    store_confidence,
    store_null,
    store_optima,
    store_scores,
)
from .compute import thread_count
from .conversion import convert
from .correlation import shift_factors
from .exhaustive import BlockSizes
from .likelihood import ScalePrior
from .likelihood_setup import Setup
from .optima import Optima
from .polar_images import PolarImages
from .pose_scores import score_poses
from .pose_search import Integral, PoseSamples, StructureSearch
from .processes import ForkedWorkers, process_count
from .refine import RefinedPoses, refine_poses
from .rotations import matrix_from_euler
from .row_scores import MovedImages
from .scale_prior import PilotImage
from .workers import parallel

__all__ = ["STAGES", "Scoring", "forked", "pilot_images", "score_chunk"]

# Ticks per image and structure: the grid, and everything after it.
STAGES = 2
_SAMPLES = 256  # heaviest poses of a pilot image


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How particles are scored.

    Attributes
    ----------
    setup : Setup
    searches : list of StructureSearch
    priors : dict
        Scale prior of each optics group.
    blocks : BlockSizes
    piece : int
        Images that one thread works on at a time.
    keep : str
        See `Optima`; "pose": nothing.
    keep_poses : int
        Best distinct poses to keep.
    workers : ForkedWorkers or None
        See `forked`; None: threads.
    """

    setup: Setup
    searches: list[StructureSearch]
    priors: dict[int, ScalePrior]
    blocks: BlockSizes
    piece: int
    keep: str = "pose"
    keep_poses: int = 0
    workers: ForkedWorkers | None = None


@contextmanager
def forked(scoring: Scoring) -> Iterator[Scoring]:
    """The same with a process for every thread that may be used, where that helps: they end with the context."""
    _prepare(scoring)
    count = process_count(scoring.setup.device)
    if count == 1:
        yield scoring
        return
    with ForkedWorkers(partial(_score_or_sample, scoring), count) as workers:
        yield dataclasses.replace(scoring, workers=workers)


def score_chunk(scoring: Scoring, indices: np.ndarray, tick: Callable[[int], None] | None = None) -> dict[str, np.ndarray]:
    """Score the particles ``indices`` (from 0) of a run.

    Returns
    -------
    dict of arrays
        `PER_STRUCTURE` names [K, m], ``integrated_change`` and ``integrated_error`` [K, m], ``best_poses`` [poses, 7, K, m]
        (columns `POSE_COLUMNS`), ``null_log_density`` and ``status`` [m], and with ``keep`` other than "pose" ``keep_value_K``
        and ``keep_position_K`` per structure.
    """
    arrays = empty(scoring.setup, len(indices), scoring.keep, scoring.keep_poses)
    pieces = _pieces(scoring.setup, indices, scoring.piece)
    groups = scoring.setup.particles.optics_index[indices]
    tasks = [_Task(indices[places], scoring.priors[int(groups[places[0]])], False) for places in pieces]
    for places, part in zip(pieces, _in_parallel(scoring, tasks, tick)):
        for name, values in part.items():
            arrays[name][places if name.startswith("keep_") else (..., places)] = values
    return arrays


def pilot_images(
    scoring: Scoring, indices: np.ndarray, prior: ScalePrior, tick: Callable[[int], None] | None = None
) -> list[PilotImage]:
    """Heaviest poses of pilot particles of one optics group."""
    tasks = [_Task(indices[places], prior, True) for places in _pieces(scoring.setup, indices, scoring.piece)]
    return [image for found in _in_parallel(scoring, tasks, tick) for image in found]


@dataclasses.dataclass(frozen=True)
class _Task:
    """Rows (from 0) of one optics group to score, or to take the heaviest poses of; and its scale prior."""

    rows: np.ndarray
    prior: ScalePrior
    sample: bool


def _in_parallel(scoring: Scoring, tasks: list[_Task], tick: Callable[[int], None] | None) -> Iterator[Any]:
    if scoring.workers is not None:
        return scoring.workers.map(tasks, tick)
    _prepare(scoring)
    counted = _locked(tick)
    return parallel(lambda task: _score_or_sample(scoring, task, counted), tasks)


def _score_or_sample(scoring: Scoring, task: _Task, tick: Callable[[int], None]) -> Any:
    return (_pilot_piece if task.sample else _score_piece)(scoring, task.rows, task.prior, tick)


def _prepare(scoring: Scoring) -> None:
    """Make what workers share, in all threads: templates of all levels, links of the divisions."""
    if scoring.setup.search != "fixed":
        for search in scoring.searches:
            for level in range(len(search.levels)):
                search.templates(level)
            search.links()


def _pieces(setup: Setup, indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Positions of at most ``size`` particles of one optics group each, fewer where some threads would have none."""
    groups = setup.particles.optics_index[indices]
    size = max(1, min(size, -(-len(indices) // thread_count())))
    found = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        found += [places[start : start + size] for start in range(0, len(places), size)]
    return found


def _locked(tick: Callable[[int], None] | None) -> Callable[[int], None]:
    """The same for several threads; nothing for None."""
    lock = Lock()

    def counted(number: int) -> None:
        if tick is not None:
            with lock:
                tick(number)

    return counted


def _score_piece(scoring: Scoring, rows: np.ndarray, prior: ScalePrior, tick: Callable[[int], None]) -> dict[str, np.ndarray]:
    setup, size = scoring.setup, len(rows)
    arrays = empty(setup, size, scoring.keep, scoring.keep_poses)
    converted = convert(setup.particles, rows, setup.settings, setup.rule, setup.bad_images, setup.cache, setup.device)
    arrays["status"] = converted.status
    keep_input_poses(arrays, setup, rows, np.arange(size))
    if converted.images is None:
        return arrays
    usable = converted.usable
    store_null(arrays, converted, usable)
    piece = _Piece(setup, converted.images, rows[usable])
    kept = range(len(setup.structures))
    optima = [optima_of(setup, k, len(usable), scoring.keep) if scoring.keep != "pose" else None for k in kept]
    group = setup.particles.optics[setup.particles.optics_index[rows[0]]]
    in_image = group.aberrations.origin_in_image
    for k, (integral, poses) in enumerate(piece.search(scoring, prior, optima, tick)):
        store_confidence(arrays, setup, k, usable, integral, poses, in_image)
        store_scores(arrays, setup, k, usable, integral, dataclasses.replace(poses, origin=in_image(poses.origin)))
        own = optima[k]
        if own is not None:
            store_optima(arrays, k, usable, size, own)
    return arrays


def _pilot_piece(scoring: Scoring, rows: np.ndarray, prior: ScalePrior, tick: Callable[[int], None]) -> list[PilotImage]:
    setup = scoring.setup
    converted = convert(setup.particles, rows, setup.settings, setup.rule, "flag", setup.cache, setup.device)
    if converted.images is None:
        return []
    piece = _Piece(setup, converted.images, rows[converted.usable])
    samples = list(zip(*piece.samples(scoring, prior, tick)))
    c, n = converted.images.projected_power.cpu().numpy(), converted.images.dof.cpu().numpy()
    return [PilotImage(float(c[i]), float(n[i]), list(samples[i])) for i in range(len(samples))]


class _Piece:
    """Images of some particles of one optics group, in every band, and moved."""

    def __init__(self, setup: Setup, images: PolarImages, rows: np.ndarray) -> None:
        self.setup, self.rows, self.images = setup, rows, images
        self.centre = np.zeros((len(rows), 2))
        if setup.search == "local":  # shifts are searched about the input origins
            self.centre = _input_poses(setup, rows)[1]
            factors = shift_factors(setup.settings.grid, self.centre, images.matched.real.dtype, images.matched.device)
            images = dataclasses.replace(images, matched=images.matched * factors)
        settings = setup.settings
        lower = [
            band_images(images, settings.grid, band, setup.particles, rows, settings.images, settings.window, settings.noise)
            for band in setup.bands[:-1]
        ]
        self.bands = [*lower, images]
        self._moved: dict[tuple[int, bytes], MovedImages] = {}

    def search(
        self, scoring: Scoring, prior: ScalePrior, optima: list[Optima | None], tick: Callable[[int], None]
    ) -> Iterator[tuple[Integral | None, RefinedPoses]]:
        """Integral and refined best pose under every structure."""
        setup = self.setup
        if setup.search == "fixed":
            rotations, origins = _input_poses(setup, self.rows)
            for k, bank in enumerate(setup.banks):
                scores = score_poses(setup.behind_mask(k, self.images, self.rows), rotations, origins, bank, prior)
                tick(STAGES * len(self.rows))
                yield None, RefinedPoses(rotations, origins, scores)
            return
        reach = max(setup.shifts.step) if len(setup.shifts) > 1 else 0.0
        for k, integral in enumerate(self.integrals(scoring, prior, tick, optima)):
            images = setup.behind_mask(k, self.images, self.rows)
            poses = refine_poses(images, integral.rotation, integral.origin, setup.banks[k], prior, reach=reach)
            tick(len(images))
            yield integral, poses

    def samples(self, scoring: Scoring, prior: ScalePrior, tick: Callable[[int], None]) -> Iterator[list[PoseSamples]]:
        """Heaviest poses under every structure."""
        setup = self.setup
        if setup.search != "fixed":
            for integral in self.integrals(scoring, prior, tick, [None] * len(setup.structures), samples=_SAMPLES):
                tick(len(self.rows))
                yield integral.samples
            return
        for k, bank in enumerate(setup.banks):
            images = setup.behind_mask(k, self.images, self.rows)
            scores = score_poses(images, *_input_poses(setup, self.rows), bank, prior)
            tick(STAGES * len(self.rows))
            yield [PoseSamples(np.zeros(1), scores.power[i : i + 1], scores.product[i : i + 1]) for i in range(len(self.rows))]

    def integrals(
        self,
        scoring: Scoring,
        prior: ScalePrior,
        tick: Callable[[int], None],
        optima: list[Optima | None],
        samples: int = 0,
    ) -> Iterator[Integral]:
        """Search every structure."""
        for integral in self._integrals(scoring, prior, tick, optima, samples):
            confidence = [one.moved(by) for one, by in zip(integral.confidence, self.centre)]
            yield dataclasses.replace(integral, origin=integral.origin + self.centre, confidence=confidence)

    def _integrals(self, scoring, prior, tick, optima, samples) -> Iterator[Integral]:
        setup, searches, count = self.setup, scoring.searches, len(self.rows)
        behind = [[setup.behind_mask(k, images, self.rows) for images in self.bands] for k in range(len(searches))]
        if setup.search == "hierarchical":
            begun = []
            for search, images in zip(searches, behind):
                at_levels = [self._moved_to(level.band, level.shifts.origins) for level in search.levels]
                begun.append(search.begin(images, at_levels, prior))
                tick(count)
            for k, search in enumerate(searches):
                for other in range(len(searches)):
                    if other != k:
                        search.also_open(begun[k], searches[other], begun[other])
            for search, one, images in zip(searches, begun, behind):
                yield search.finish(one, images[-1], prior, setup.particles.row[self.rows], samples)
            return
        moved = self._moved_to(len(setup.bands) - 1, setup.shifts.origins)
        for k, (search, images) in enumerate(zip(searches, behind)):
            if setup.search == "local":
                rotations = _input_poses(setup, self.rows)[0]
                integral = search.around(images[-1], moved, prior, rotations, setup.local_range, samples)
            else:
                integral = search.everywhere(images[-1], moved, prior, scoring.blocks, optima[k], samples)
            tick(count)
            yield integral

    def _moved_to(self, band: int, origins: np.ndarray) -> MovedImages:
        key = band, origins.tobytes()
        if key not in self._moved:
            self._moved[key] = MovedImages(self.bands[band], self.setup.bands[band], origins)
        return self._moved[key]


def _input_poses(setup: Setup, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = setup.particles
    rotations = matrix_from_euler(p.rot[rows], p.tilt[rows], p.psi[rows])
    group = p.optics[p.optics_index[rows[0]]]
    return rotations, group.aberrations.origin_undistorted(np.stack([p.origin_x[rows], p.origin_y[rows]], axis=1))
