"""The search of some images under one structure: on the grid, then by division, then what the rows tell about the best pose."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from scipy.spatial import cKDTree

from .bands import Band
from .correlation import Templates
from .division import Confinement, Division, LastRows, RowGrid, divide_rows, division_link, finer
from .exhaustive import BlockSizes, search_grid
from .fine_views import FineViews
from .hierarchical import LevelSearch, Tolerance
from .levels import Level, Link
from .likelihood import ScalePrior
from .optima import Optima
from .polar_images import PolarImages
from .pose_confidence import PoseConfidence, pose_confidence
from .pose_mass import PoseWindow, pose_mass
from .pose_priors import PosePrior
from .pose_rows import PoseRows
from .rotations import matrix_from_euler
from .row_scores import MovedImages, RowScorer
from .views import nearest_view

__all__ = ["Integral", "PoseSamples", "StructureSearch"]

_TOLERANCE, _BLOCKS = Tolerance(), BlockSizes()
_UNIFORM = PosePrior()
_SAMPLED_ROWS = 32  # from which a pilot's poses are taken
_SEEDS, _NEXT = 2, 2.2  # rows whose views structures tell each other, and how far (steps of the grid) around them is looked


@dataclass(frozen=True)
class PoseSamples:
    """The heaviest poses of one image and structure, from which the scale prior is learned.

    ``log_prior`` [s], ``power`` [s] (a) and ``product`` [s] (b, offset removed), float64.
    """

    log_prior: np.ndarray
    power: np.ndarray
    product: np.ndarray


@dataclass
class Integral:
    """Integrated likelihoods of images under one structure; logs are relative to the null model.

    Attributes
    ----------
    log : float64 [m]
        ``ln Σ prior · evidence/null`` over all poses.
    mean_log : float64 [m]
        Posterior mean of the log-ratio; ``mean_log - log`` is the information gained over the prior, nat.
    change : float64 [m]
        Change of ``log`` by the last division: an estimate of the error of the sampling.
    error : float64 [m]
        Standard error of ``log`` from poses that were left out, nat.
    pose_mass : float64 [m]
        Posterior mass near the best pose.
    rotation : float64 [m, 3, 3]
        Best pose found.
    origin : float64 [m, 2]
        Å.
    best : float64 [m]
        ln(evidence/null) there.
    confidence : list of PoseConfidence
    samples : list of PoseSamples
        Empty where none were asked for.
    """

    log: np.ndarray
    mean_log: np.ndarray
    change: np.ndarray
    error: np.ndarray
    pose_mass: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    best: np.ndarray
    confidence: list[PoseConfidence] = field(default_factory=list)
    samples: list[PoseSamples] = field(default_factory=list)


class StructureSearch:
    """Everything that searches of one structure share.

    Parameters
    ----------
    structure : int
        Index in the bands' banks.
    bands : list of Band
        Lowest first.
    levels : list of Level
        Of the search; one level is an exhaustive or local one.
    division : Division
    near : PoseWindow
        What counts as near the best pose.
    n_inplane : int
        In-plane angles of the grid.
    ring_ctf : float64 [n]
        Mean CTF² at the radii of the full band.
    max_bytes : float
        Memory for templates of finer views.
    keep_poses : int
        Best distinct poses to keep for each image.
    pose_prior : PosePrior
        Over shifts and views, beside the uniform one.
    """

    def __init__(
        self,
        structure: int,
        bands: list[Band],
        levels: list[Level],
        division: Division,
        near: PoseWindow,
        n_inplane: int,
        ring_ctf: np.ndarray,
        max_bytes: float,
        keep_poses: int = 0,
        pose_prior: PosePrior = _UNIFORM,
    ) -> None:
        self.structure, self.bands, self.levels, self.division, self.near = structure, bands, levels, division, near
        self.bank = bands[-1].banks[structure]
        self.shifts, self.table = levels[-1].shifts, levels[-1].table
        self.keep_poses, self.pose_prior = keep_poses, pose_prior
        step = self.shifts.step if len(self.shifts) > 1 else (0.0, 0.0)
        self.n_inplane = n_inplane
        self.grid = RowGrid(0, step, n_inplane)
        self.fine = FineViews(self.bank, self.table, max_bytes)
        self._ring_ctf = ring_ctf
        self._links: list[Link] = []
        self._templates: dict[int, Templates] = {}
        self._directions = cKDTree(self.table.directions())
        self._lock = Lock()

    def templates(self, level: int = -1) -> Templates:
        """Templates of all views of a level, made once."""
        level %= len(self.levels)
        with self._lock:
            if level not in self._templates:
                here = self.levels[level]
                self._templates[level] = self.bands[here.band].banks[self.structure].templates(here.table)
            return self._templates[level]

    def links(self) -> list[Link]:
        """Links of the divisions, measured once."""
        with self._lock:
            grid = self.grid
            while len(self._links) < self.division.levels:
                self._links.append(division_link(self.bank, self.fine, grid, self._ring_ctf))
                grid = finer(grid, self.fine)
            return self._links

    def begin(self, images: list[PolarImages], moved: list[MovedImages], prior: ScalePrior, tolerance=_TOLERANCE):
        """Hierarchical searches of some images, explored: list of LevelSearch.

        Parameters
        ----------
        images : list of PolarImages
            The same images in every band, behind the structure's mask.
        moved : list of MovedImages
            For every level.
        prior : ScalePrior
        tolerance : Tolerance
        """
        scorers, full = self._scorers(images, moved, prior, None), images[-1]
        noise = (full.projected_power / full.dof).cpu().numpy()
        searches = [LevelSearch(i, self.levels, scorers, float(noise[i]), prior.mu, tolerance) for i in range(len(full))]
        for one in searches:
            one.explore()
        return searches

    def also_open(self, searches: list[LevelSearch], other: StructureSearch, found: list[LevelSearch]) -> None:
        """Look closer at the views in which another structure has its best poses."""
        if len(self.levels) == 1:
            return
        reach = 2 * np.sin(np.deg2rad(_NEXT * self.table.step_deg) / 2)
        for one, best in zip(searches, found):
            directions = other.table.directions()[best.heaviest(_SEEDS)]
            here = self.table.directions()[nearest_view(self.table, directions)]
            one.look_below(np.unique(np.concatenate(self._directions.query_ball_point(here, reach)).astype(np.int64)))

    def finish(self, searches: list[LevelSearch], images: PolarImages, prior: ScalePrior, seeds: np.ndarray, samples: int):
        """The integral of explored searches; ``seeds`` int64 [m] of the random choices for each image."""
        found = [one.finish(np.random.default_rng(int(seed))) for one, seed in zip(searches, seeds)]
        return self._integral(images, found, searches[0].scorers[-1], prior, None, samples)

    def around(
        self, images: PolarImages, moved: MovedImages, prior: ScalePrior, rotations: np.ndarray, range_deg: float, samples: int
    ) -> Integral:
        """Search around given rotations [m, 3, 3]: views and turns within ``range_deg``."""
        confinement = Confinement(rotations, range_deg)
        scorer = self._scorers([images], [moved], prior, confinement)[0]
        found = [self._around(i, scorer, confinement) for i in range(len(images))]
        return self._integral(images, found, scorer, prior, confinement, samples)

    def everywhere(
        self,
        images: PolarImages,
        moved: MovedImages,
        prior: ScalePrior,
        blocks: BlockSizes = _BLOCKS,
        optima: Optima | None = None,
        samples: int = 0,
    ) -> Integral:
        """Search every pose of the grid."""
        found = self._every_pose(images, prior, blocks, optima)
        scorer = RowScorer(images, moved, self.bands[-1], self.templates(), prior, self.n_inplane)
        return self._integral(images, found, scorer, prior, None, samples)

    def _integral(
        self,
        images: PolarImages,
        found: list[tuple[PoseRows, tuple[np.ndarray, np.ndarray]]],
        scorer: RowScorer,
        prior: ScalePrior,
        confinement: Confinement | None,
        samples: int,
    ) -> Integral:
        """Divide the rows of the grid and sum up."""
        zero, rows = self.table.rotations(), [own for own, _ in found]
        last = [LastRows(scorer, i, origin, view, zero[view]) for i, (_, (origin, view)) in enumerate(found)]
        change = np.zeros(len(rows))
        if self.division.levels:
            change = divide_rows(
                images, rows, last, self.bands[-1], self.fine, self.links(), self.grid, prior, self.division, confinement
            )
        for i, (own, at) in enumerate(zip(rows, last)):
            self.pose_prior.apply(own, at.at_zero[:, 2], self._log_mean_prior(i, confinement))
        return Integral(
            log=np.array([r.total for r in rows]),
            mean_log=np.array([r.mean for r in rows]),
            change=change,
            error=np.array([r.error for r in rows]),
            pose_mass=np.array([self._near_best(r, at) for r, at in zip(rows, last)]),
            rotation=np.array([r.best_rotation for r in rows]),
            origin=np.array([r.best_origin for r in rows]),
            best=np.array([r.best for r in rows]),
            confidence=[]
            if samples
            else [
                pose_confidence(r, at, self.bank.structure.symmetry, self.near, self.keep_poses) for r, at in zip(rows, last)
            ],
            samples=[_samples(r, at, samples) for r, at in zip(rows, last)] if samples else [],
        )

    def _scorers(self, images, moved, prior: ScalePrior, confinement: Confinement | None) -> list[RowScorer]:
        zero = self.table.rotations()
        allowed = None
        if confinement is not None:

            def allowed(image: int, views: np.ndarray) -> np.ndarray:
                return confinement.inplane(image, zero[views], self.n_inplane)

        scorers = []
        for number, level in enumerate(self.levels):
            final = number == len(self.levels) - 1
            turns = self.n_inplane if final else self.bands[level.band].n_inplane
            scorers.append(
                RowScorer(
                    images[level.band],
                    moved[number],
                    self.bands[level.band],
                    self.templates(number),
                    prior,
                    turns,
                    allowed if final else None,
                )
            )
        return scorers

    def _every_pose(self, images: PolarImages, prior: ScalePrior, blocks: BlockSizes, optima: Optima | None):
        templates, table = self.templates(), self.table
        scores = search_grid(
            images,
            templates,
            table.weights,
            self.shifts,
            self.n_inplane,
            prior,
            self.bank.grid,
            self.bands[-1].basis,
            blocks,
            optima=optima,
        )
        view, shift, psi = (t.cpu().numpy() for t in (scores.view, scores.shift, scores.inplane))
        best = matrix_from_euler(table.rot_deg[view], table.tilt_deg[view], 360.0 * psi / self.n_inplane)
        integrated, mean = scores.integrated.cpu().numpy(), scores.mean_log.cpu().numpy()
        found = []
        for i, heavy in enumerate(scores.heavy):
            o, v = np.divmod(heavy["row"], len(table))
            left, left_mean = _rest(integrated[i], mean[i], heavy["log_mass"], heavy["mean_log"])
            found.append(
                (
                    PoseRows(
                        view=v,
                        origin=self.shifts.origins[o],
                        log_mass=heavy["log_mass"],
                        mean_log=heavy["mean_log"],
                        log_prior=np.log(table.weights[v] / (len(self.shifts) * self.n_inplane)),
                        left_log_mass=left,
                        left_mean_log=left_mean,
                        error=0.0,
                        best=float(scores.best[i]),
                        best_rotation=best[i],
                        best_origin=self.shifts.origins[shift[i]],
                        scale=float(scores.scale[i]),
                        power=float(scores.power[i]),
                        scored=len(table) * len(self.shifts),
                    ),
                    (o, v),
                )
            )
        return found

    def _around(self, i: int, scorer: RowScorer, confinement: Confinement):
        """Every pose near a given one; the prior is uniform over views, turns and shifts near it."""
        inside = confinement.views(i, self.table.directions())
        origin, view = (a.ravel() for a in np.meshgrid(np.arange(len(self.shifts)), inside, indexing="ij"))
        found = scorer.sums(i, origin, view)
        allowed = confinement.inplane(i, self.table.rotations()[inside], self.n_inplane).sum(axis=1)
        log_views = np.log(self.table.weights[inside] / self.table.weights[inside].sum() / allowed)
        log_prior = log_views[np.searchsorted(inside, found.view)] - np.log(len(self.shifts))
        top = int(found.peak.argmax())
        rot, tilt = self.table.rot_deg[found.view[top]], self.table.tilt_deg[found.view[top]]
        rows = PoseRows(
            view=found.view,
            origin=self.shifts.origins[found.origin],
            log_mass=found.log_mass + log_prior,
            mean_log=found.mean_log,
            log_prior=log_prior,
            left_log_mass=-np.inf,
            left_mean_log=0.0,
            error=0.0,
            best=float(found.peak[top]),
            best_rotation=matrix_from_euler(rot, tilt, 360.0 * found.angle / self.n_inplane),
            best_origin=self.shifts.origins[found.origin[top]],
            scale=found.scale,
            power=float(found.power.mean()),
            scored=len(found.view),
        )
        return rows, (found.origin, found.view)

    def _log_mean_prior(self, i: int, confinement: Confinement | None) -> float:
        """ln of the mean of the prior over the views that are searched for an image."""
        if confinement is None or self.pose_prior.view is None:
            return 0.0
        directions = self.table.directions()
        inside = confinement.views(i, directions)
        return self.pose_prior.view.log_mean(directions[inside], self.table.weights[inside])

    def _near_best(self, rows: PoseRows, at: LastRows) -> float:
        """Posterior mass near the best pose."""
        close = np.hypot(*(rows.origin - rows.best_origin).T) <= self.near.shift * (1 + 1e-9)
        near = np.flatnonzero(close & self.near.may_hold(at.at_zero, self.bank.structure.symmetry, rows.best_rotation))
        if not len(near):
            return 0.0
        logs, _, _ = at.scorer.poses(at.image, at.origin[near], at.view[near])
        weights = torch.from_numpy(np.exp(logs + rows.log_prior[near, None] - rows.total))
        return pose_mass(
            weights,
            at.at_zero[near],
            np.arange(len(near)),
            rows.origin[near],
            self.bank.structure.symmetry,
            rows.best_rotation,
            rows.best_origin,
            self.near,
        )


def _rest(total: float, mean: float, log_mass: np.ndarray, mean_log: np.ndarray) -> tuple[float, float]:
    """ln of a whole less some rows, and the mean log-ratio of what is left."""
    share = np.exp(log_mass - total)
    rest = 1.0 - share.sum()
    if rest <= 1e-12:
        return -np.inf, 0.0
    return float(total + np.log(rest)), float((mean - share @ mean_log) / rest)


def _samples(rows: PoseRows, at: LastRows, count: int) -> PoseSamples:
    """The heaviest poses of the heaviest rows."""
    top = np.argsort(-rows.log_mass)[:_SAMPLED_ROWS]
    logs, products, powers = at.scorer.poses(at.image, at.origin[top], at.view[top])
    weighted = logs + rows.log_prior[top, None]
    flat = np.argsort(-weighted, axis=None)[:count]
    row, angle = np.unravel_index(flat, weighted.shape)
    return PoseSamples(
        log_prior=rows.log_prior[top][row],
        power=powers[row, angle if powers.shape[1] > 1 else 0 * angle],
        product=products[row, angle],
    )
