"""What scoring a chunk of particles gives: its arrays, and where each result goes in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import symmetry
from .conversion import Converted
from .image_stacks import OK
from .likelihood import null_log_density
from .likelihood_setup import Setup
from .optima import Optima
from .pose_confidence import POSE_COLUMNS, only_pose
from .pose_mass import PoseWindow
from .pose_scores import PoseScores
from .pose_search import Integral
from .refine import RefinedPoses
from .results import PER_STRUCTURE
from .rotations import distance_deg, euler_from_matrix, matrix_from_euler
from .views import nearest_view

__all__ = ["empty", "keep_input_poses", "optima_of", "store_confidence", "store_null", "store_optima", "store_scores"]


def empty(setup: Setup, size: int, keep: str, keep_poses: int) -> dict[str, np.ndarray]:
    """Arrays of a chunk or piece of ``size`` particles."""
    count = len(setup.structures)
    arrays = {name: np.zeros((count, size)) for name in (*PER_STRUCTURE, "integrated_change", "integrated_error")}
    arrays["best_poses"] = np.full((keep_poses, len(POSE_COLUMNS), count, size), np.nan, dtype=np.float32)
    arrays["null_log_density"] = np.zeros(size)
    arrays["status"] = np.zeros(size, dtype=np.uint8)
    if keep != "pose":
        for k in range(count):
            store_optima(arrays, k, np.zeros(0, np.int64), size, optima_of(setup, k, 0, keep))
    return arrays


def keep_input_poses(arrays: dict[str, np.ndarray], setup: Setup, rows: np.ndarray, places: np.ndarray) -> None:
    """Rows that cannot be scored keep the pose they came with."""
    for name in ("rot", "tilt", "psi", "origin_x", "origin_y"):
        arrays[name][:, places] = getattr(setup.particles, name)[rows]


def store_null(arrays: dict[str, np.ndarray], converted: Converted, usable: np.ndarray) -> None:
    images = converted.images
    assert images is not None
    unit = (images.pixel_size**2).cpu().numpy()
    arrays["null_log_density"][usable] = null_log_density(
        images.projected_power.cpu().numpy() / unit, images.dof.cpu().numpy(), images.mask_power.cpu().numpy() / unit
    )
    arrays["status"][usable] = OK


def store_scores(
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


def store_confidence(
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


def store_optima(arrays: dict[str, np.ndarray], k: int, usable: np.ndarray, size: int, optima: Optima) -> None:
    for what in ("value", "position"):
        tensor = getattr(optima, what)
        if tensor is None:
            continue
        name = f"keep_{what}_{k + 1:03d}"
        if name not in arrays:
            arrays[name] = np.zeros((size, *tensor.shape[1:]), dtype=tensor.cpu().numpy().dtype)
        arrays[name][usable] = tensor.cpu().numpy()


def optima_of(setup: Setup, k: int, images: int, keep: str) -> Optima:
    return Optima(keep, images, len(setup.tables[k]), len(setup.shifts), setup.n_inplane, setup.device)
