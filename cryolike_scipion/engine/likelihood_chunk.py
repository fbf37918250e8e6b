"""Scores of one chunk of particles under every structure."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from .adaptive import Integral, PoseSamples, integrate
from .conversion import Converted, convert
from .correlation import Templates
from .exhaustive import BlockSizes, search_grid
from .image_stacks import OK
from .likelihood import ScalePrior, null_log_density
from .likelihood_setup import Setup
from .optima import Optima
from .polar_images import PolarImages
from .pose_cells import cells_around, cells_of_grid
from .pose_scores import PoseScores, score_poses
from .refine import RefinedPoses, refine_poses
from .results import PER_STRUCTURE
from .rotations import euler_from_matrix, matrix_from_euler
from .scale_prior import PilotImage
from .views import nearest_view

__all__ = ["STAGES", "TemplateCache", "pilot_images", "score_chunk"]

logger = logging.getLogger(__name__)

# Ticks per image and structure: the grid, and the first division of its cells.
STAGES = 2


class TemplateCache:
    """Templates of the first grid of every structure, kept as long as they fit in ``max_bytes``."""

    def __init__(self, setup: Setup, max_bytes: float) -> None:
        self._setup, self._left = setup, max_bytes
        self._kept: dict[int, Templates] = {}

    def __getitem__(self, k: int) -> Templates:
        if k in self._kept:
            return self._kept[k]
        bank, table = self._setup.banks[k], self._setup.tables[k]
        templates = bank.templates(table)
        size = bank.bytes_per_view() * len(table)
        if size <= self._left:
            self._left -= size
            self._kept[k] = templates
        return templates


def score_chunk(
    setup: Setup,
    indices: np.ndarray,
    priors: dict[int, ScalePrior],
    templates: TemplateCache,
    blocks: BlockSizes,
    keep: str = "pose",
    tick: Callable[[int], None] | None = None,
    max_bytes: float = 1e9,
) -> dict[str, np.ndarray]:
    """Score the particles ``indices`` (from 0) of a run.

    Returns
    -------
    dict of arrays
        `PER_STRUCTURE` names [K, m], ``integrated_change`` [K, m], ``null_log_density`` and ``status`` [m], and with ``keep``
        other than "pose" ``keep_value_K`` and ``keep_position_K`` per structure.
    """
    count, size = len(setup.structures), len(indices)
    arrays = {name: np.zeros((count, size)) for name in (*PER_STRUCTURE, "integrated_change")}
    arrays["null_log_density"] = np.zeros(size)
    arrays["status"] = np.zeros(size, dtype=np.uint8)
    groups = setup.particles.optics_index[indices]
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        rows = indices[places]
        converted = convert(setup.particles, rows, setup.settings, setup.rule, setup.bad_images, setup.cache, setup.device)
        arrays["status"][places] = converted.status
        _keep_input_poses(arrays, setup, rows, places)
        if keep != "pose" and setup.search == "exhaustive":
            for k in range(count):
                _store_optima(arrays, k, places[:0], size, _optima(setup, k, 0, keep))
        if converted.images is None:
            continue
        usable = places[converted.usable]
        _null(arrays, converted, usable)
        for k in range(count):
            integral, poses, optima = _search(
                setup, k, converted.images, indices[usable], priors[int(group)], templates, blocks, keep, max_bytes, tick
            )
            _store(arrays, setup, k, usable, integral, poses)
            if optima is not None:
                _store_optima(arrays, k, usable, size, optima)
    return arrays


def pilot_images(
    setup: Setup,
    indices: np.ndarray,
    prior: ScalePrior,
    templates: TemplateCache,
    blocks: BlockSizes,
    max_bytes: float,
    tick: Callable[[int], None] | None = None,
) -> list[PilotImage]:
    """Heaviest poses of pilot particles of one optics group."""
    converted = convert(setup.particles, indices, setup.settings, setup.rule, "flag", setup.cache, setup.device)
    if converted.images is None:
        return []
    unmasked, rows = converted.images, indices[converted.usable]
    samples: list[list[PoseSamples]] = [[] for _ in rows]
    for k in range(len(setup.structures)):
        images = setup.behind_mask(k, unmasked, rows)
        if setup.search == "fixed":
            scores = _fixed(setup, k, images, rows, prior).scores
            found = [PoseSamples(np.zeros(1), scores.power[i : i + 1], scores.product[i : i + 1]) for i in range(len(rows))]
            if tick is not None:
                tick(STAGES * len(rows))
        else:
            integral, _ = _integrate(
                setup, k, images, rows, prior, templates, blocks, None, max_bytes, keep_samples=256, tick=tick
            )
            found = integral.samples or []
        for own, one in zip(samples, found):
            own.append(one)
    c, n = unmasked.projected_power.cpu().numpy(), unmasked.dof.cpu().numpy()
    return [PilotImage(float(c[i]), float(n[i]), samples[i]) for i in range(len(rows))]


def _search(
    setup: Setup,
    k: int,
    images: PolarImages,
    rows: np.ndarray,
    prior: ScalePrior,
    templates: TemplateCache,
    blocks: BlockSizes,
    keep: str,
    max_bytes: float,
    tick: Callable[[int], None] | None,
) -> tuple[Integral | None, RefinedPoses, Optima | None]:
    """Integral and refined best pose of images under structure k."""
    images = setup.behind_mask(k, images, rows)
    if setup.search == "fixed":
        poses = _fixed(setup, k, images, rows, prior)
        if tick is not None:
            tick(STAGES * len(images))
        return None, poses, None
    optima = None
    if keep != "pose" and setup.search == "exhaustive":
        optima = _optima(setup, k, len(images), keep)
    integral, optima = _integrate(setup, k, images, rows, prior, templates, blocks, optima, max_bytes, tick=tick)
    poses = refine_poses(
        images,
        integral.rotation,
        integral.origin,
        setup.banks[k],
        prior,
        reach=max(setup.shifts.step) if len(setup.shifts) > 1 else 0.0,
    )
    return integral, poses, optima


def _optima(setup: Setup, k: int, images: int, keep: str) -> Optima:
    return Optima(keep, images, len(setup.tables[k]), len(setup.shifts), setup.n_inplane, setup.device)


def _integrate(
    setup: Setup,
    k: int,
    images: PolarImages,
    rows: np.ndarray,
    prior: ScalePrior,
    templates: TemplateCache,
    blocks: BlockSizes,
    optima: Optima | None,
    max_bytes: float,
    keep_samples: int = 0,
    tick: Callable[[int], None] | None = None,
) -> tuple[Integral, Optima | None]:
    table, grid = setup.tables[k], setup.settings.grid
    confinement = None
    if setup.search == "local":
        rotations, origins = _input_poses(setup, rows)
        cells, confinement = cells_around(rotations, origins, setup.local_range, table, setup.shifts)
        if tick is not None:
            tick(len(images))
    else:
        scores = search_grid(
            images, templates[k], table.weights, setup.shifts, setup.n_inplane, prior, grid, blocks, optima=optima, tick=tick
        )
        cells = cells_of_grid(scores, setup.shifts)
    integral = integrate(
        images,
        cells,
        table,
        setup.shifts,
        setup.n_inplane,
        setup.banks[k],
        prior,
        grid,
        setup.near,
        setup.division,
        confinement,
        keep_samples,
        max_bytes,
        tick,
    )
    return integral, optima


def _input_poses(setup: Setup, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = setup.particles
    rotations = matrix_from_euler(p.rot[rows], p.tilt[rows], p.psi[rows])
    return rotations, np.stack([p.origin_x[rows], p.origin_y[rows]], axis=1)


def _fixed(setup: Setup, k: int, images: PolarImages, rows: np.ndarray, prior: ScalePrior) -> RefinedPoses:
    rotations, origins = _input_poses(setup, rows)
    return RefinedPoses(rotations, origins, score_poses(images, rotations, origins, setup.banks[k], prior))


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


def _store_optima(arrays: dict[str, np.ndarray], k: int, usable: np.ndarray, size: int, optima: Optima) -> None:
    for what in ("value", "position"):
        tensor = getattr(optima, what)
        if tensor is None:
            continue
        name = f"keep_{what}_{k + 1:03d}"
        if name not in arrays:
            arrays[name] = np.zeros((size, *tensor.shape[1:]), dtype=tensor.cpu().numpy().dtype)
        arrays[name][usable] = tensor.cpu().numpy()
