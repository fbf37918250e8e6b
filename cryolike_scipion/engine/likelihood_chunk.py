"""Scores of one chunk of particles under every structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from threading import Lock

import numpy as np

from . import symmetry
from .bands import band_images
from .compute import thread_count
from .conversion import Converted, convert
from .correlation import shift_factors
from .exhaustive import BlockSizes
from .image_stacks import OK
from .likelihood import ScalePrior, null_log_density
from .likelihood_setup import Setup
from .optima import Optima
from .polar_images import PolarImages
from .pose_confidence import POSE_COLUMNS, only_pose
from .pose_mass import PoseWindow
from .pose_scores import PoseScores, score_poses
from .pose_search import Integral, PoseSamples, StructureSearch
from .refine import RefinedPoses, refine_poses
from .results import PER_STRUCTURE
from .rotations import distance_deg, euler_from_matrix, matrix_from_euler
from .row_scores import MovedImages
from .scale_prior import PilotImage
from .views import nearest_view
from .workers import parallel

__all__ = ["STAGES", "Scoring", "pilot_images", "score_chunk"]

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
    """

    setup: Setup
    searches: list[StructureSearch]
    priors: dict[int, ScalePrior]
    blocks: BlockSizes
    piece: int
    keep: str = "pose"
    keep_poses: int = 0


def score_chunk(scoring: Scoring, indices: np.ndarray, tick: Callable[[int], None] | None = None) -> dict[str, np.ndarray]:
    """Score the particles ``indices`` (from 0) of a run.

    Returns
    -------
    dict of arrays
        `PER_STRUCTURE` names [K, m], ``integrated_change`` and ``integrated_error`` [K, m], ``best_poses`` [poses, 7, K, m]
        (columns `POSE_COLUMNS`), ``null_log_density`` and ``status`` [m], and with ``keep`` other than "pose" ``keep_value_K``
        and ``keep_position_K`` per structure.
    """
    arrays = _empty(scoring, len(indices))
    _prepare(scoring)
    pieces = _pieces(scoring.setup, indices, scoring.piece)
    counted = _locked(tick)
    for places, part in zip(pieces, parallel(lambda p: _score_piece(scoring, indices[p], counted), pieces)):
        for name, values in part.items():
            arrays[name][places if name.startswith("keep_") else (..., places)] = values
    return arrays


def pilot_images(
    scoring: Scoring, indices: np.ndarray, prior: ScalePrior, tick: Callable[[int], None] | None = None
) -> list[PilotImage]:
    """Heaviest poses of pilot particles of one optics group."""
    _prepare(scoring)
    counted = _locked(tick)
    pieces = _pieces(scoring.setup, indices, scoring.piece)
    return [image for found in parallel(lambda p: _pilot_piece(scoring, indices[p], prior, counted), pieces) for image in found]


def _empty(scoring: Scoring, size: int) -> dict[str, np.ndarray]:
    """Arrays of a chunk or piece of ``size`` particles."""
    count = len(scoring.setup.structures)
    arrays = {name: np.zeros((count, size)) for name in (*PER_STRUCTURE, "integrated_change", "integrated_error")}
    arrays["best_poses"] = np.full((scoring.keep_poses, len(POSE_COLUMNS), count, size), np.nan, dtype=np.float32)
    arrays["null_log_density"] = np.zeros(size)
    arrays["status"] = np.zeros(size, dtype=np.uint8)
    if scoring.keep != "pose":
        for k in range(count):
            _store_optima(arrays, k, np.zeros(0, np.int64), size, _optima(scoring.setup, k, 0, scoring.keep))
    return arrays


def _prepare(scoring: Scoring) -> None:
    """Make the templates of all levels in all threads: in a worker that needs them first, one thread would."""
    if scoring.setup.search != "fixed":
        for search in scoring.searches:
            for level in range(len(search.levels)):
                search.templates(level)


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


def _score_piece(scoring: Scoring, rows: np.ndarray, tick: Callable[[int], None]) -> dict[str, np.ndarray]:
    setup, size = scoring.setup, len(rows)
    arrays = _empty(scoring, size)
    converted = convert(setup.particles, rows, setup.settings, setup.rule, setup.bad_images, setup.cache, setup.device)
    arrays["status"] = converted.status
    _keep_input_poses(arrays, setup, rows, np.arange(size))
    if converted.images is None:
        return arrays
    usable = converted.usable
    _null(arrays, converted, usable)
    prior = scoring.priors[int(setup.particles.optics_index[rows[0]])]
    piece = _Piece(setup, converted.images, rows[usable])
    kept = range(len(setup.structures))
    optima = [_optima(setup, k, len(usable), scoring.keep) if scoring.keep != "pose" else None for k in kept]
    group = setup.particles.optics[setup.particles.optics_index[rows[0]]]
    in_image = group.aberrations.origin_in_image
    for k, (integral, poses) in enumerate(piece.search(scoring, prior, optima, tick)):
        _store_confidence(arrays, setup, k, usable, integral, poses, in_image)
        _store(arrays, setup, k, usable, integral, dataclasses.replace(poses, origin=in_image(poses.origin)))
        own = optima[k]
        if own is not None:
            _store_optima(arrays, k, usable, size, own)
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


def _optima(setup: Setup, k: int, images: int, keep: str) -> Optima:
    return Optima(keep, images, len(setup.tables[k]), len(setup.shifts), setup.n_inplane, setup.device)


def _input_poses(setup: Setup, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = setup.particles
    rotations = matrix_from_euler(p.rot[rows], p.tilt[rows], p.psi[rows])
    group = p.optics[p.optics_index[rows[0]]]
    return rotations, group.aberrations.origin_undistorted(np.stack([p.origin_x[rows], p.origin_y[rows]], axis=1))


def _keep_input_poses(arrays: dict[str, np.ndarray], setup: Setup, rows: np.ndarray, places: np.ndarray) -> None:
    """Rows that cannot be scored keep the pose they came with."""
    for name in ("rot", "tilt", "psi", "origin_x", "origin_y"):
        arrays[name][:, places] = getattr(setup.particles, name)[rows]


def _null(arrays: dict[str, np.ndarray], converted: Converted, usable: np.ndarray) -> None:
    images = converted.images
    assert images is not None
    unit = (images.pixel_size**2).cpu().numpy()
    arrays["null_log_density"][usable] = null_log_density(
        images.projected_power.cpu().numpy() / unit, images.dof.cpu().numpy(), images.mask_power.cpu().numpy() / unit
    )
    arrays["status"][usable] = OK


def _store(
    arrays: dict[str, np.ndarray], setup: Setup, k: int, usable: np.ndarray, integral: Integral | None, poses: RefinedPoses
) -> None:
    scores: PoseScores = poses.scores
    rot, tilt, psi = euler_from_matrix(poses.rotation)
    values = {
        "integrated": scores.log_ratio if integral is None else integral.log,
        "integrated_change": 0.0 if integral is None else integral.change,
        "integrated_error": 0.0 if integral is None else integral.error,
        "max": scores.log_ratio,
        "cc": scores.cc,
        "rot": rot,
        "tilt": tilt,
        "psi": psi,
        "origin_x": poses.origin[:, 0],
        "origin_y": poses.origin[:, 1],
        "best_template": nearest_view(setup.tables[k], poses.rotation[:, 2]) + 1,
        "scale": scores.scale,
        "pose_posterior": 1.0 if integral is None else np.clip(integral.pose_mass, 0, 1),
        "pose_entropy": 0.0 if integral is None else np.maximum(integral.mean_log - integral.log, 0),
    }
    for name, value in values.items():
        arrays[name][k, usable] = value


def _store_confidence(
    arrays: dict[str, np.ndarray],
    setup: Setup,
    k: int,
    usable: np.ndarray,
    integral: Integral | None,
    poses: RefinedPoses,
    in_image: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Keep how sure poses are; origins of ``poses`` are in the undistorted image, ``in_image`` gives those of the files."""
    keep, values = len(arrays["best_poses"]), poses.scores.log_ratio
    if integral is None:
        found = [only_pose(r, o, v, keep) for r, o, v in zip(poses.rotation, poses.origin, values)]
    else:
        found = integral.confidence
    for name, attribute in (("pose_effective", "effective"), ("pose_gap", "gap"), ("pose_spread", "spread_deg")):
        arrays[name][k, usable] = [getattr(each, attribute) for each in found]
    if keep:
        kept = np.stack([each.poses for each in found])
        _refine_kept(kept, poses, setup.structures[k].symmetry, setup.near)
        kept[..., 3:5] = in_image(kept[..., 3:5])
        arrays["best_poses"][..., k, usable] = kept.transpose(1, 2, 0)


def _refine_kept(kept: np.ndarray, poses: RefinedPoses, group: str, near: PoseWindow) -> None:
    """Put refined poses in the place of the first of the kept ones [m, poses, 7] that each counts as; else nowhere.

    The most likely pose, which is refined, need not be the most probable one under the priors.
    """
    rotation = matrix_from_euler(*np.moveaxis(kept[..., :3], -1, 0))
    angle = distance_deg(rotation, poses.rotation[:, None], symmetry.rotations(group))
    apart = np.hypot(*np.moveaxis(kept[..., 3:5] - poses.origin[:, None], -1, 0))
    same = (angle <= near.angle_deg) & (apart <= near.shift * (1 + 1e-6))
    image = np.flatnonzero(same.any(axis=1))
    refined = np.column_stack([*euler_from_matrix(poses.rotation), poses.origin, poses.scores.log_ratio])
    kept[image, same[image].argmax(axis=1), :6] = refined[image]


def _store_optima(arrays: dict[str, np.ndarray], k: int, usable: np.ndarray, size: int, optima: Optima) -> None:
    for what in ("value", "position"):
        tensor = getattr(optima, what)
        if tensor is None:
            continue
        name = f"keep_{what}_{k + 1:03d}"
        if name not in arrays:
            arrays[name] = np.zeros((size, *tensor.shape[1:]), dtype=tensor.cpu().numpy().dtype)
        arrays[name][usable] = tensor.cpu().numpy()
