"""The verb ``inspect``: one particle beside its best templates, and its score landscape, for viewers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .atomic import atomic_path
from .conversion import convert
from .correlation import correlate, shift_factors, shifted_rows
from .ctf import ctf
from .errors import InputError
from .image_prep import mask_of
from .image_stacks import OK, read_images
from .inspect_particles import as_compared, look_at_particles
from .likelihood import ScalePrior
from .likelihood_setup import Setup, prepare_run
from .noise_spectrum import NoiseModel
from .particles import Particles, read_particles
from .progress import Progress
from .results import Results, find_row, load_results
from .rotations import matrix_from_euler
from .scoring import grid_evidence
from .simulate import HalfPlane
from .slices import SliceMaker
from .structures import Structure
from .template_power import ctf_arguments

__all__ = ["best_pose", "compare", "landscape", "posed_templates", "run"]

logger = logging.getLogger(__name__)

_VIEWS_AT_ONCE = 128


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write an NPZ file with

    ``image`` [N, N] as it was compared, ``templates`` [K, N, N] at the best poses, behind the CTF and on the image's grey
    scale, ``residual`` [K, N, N], ``labels`` [K], ``cc``, ``log_likelihood``, ``structure_posterior`` [K], ``pixel_size``,
    ``best_structure`` (from 1), and with ``landscape`` per structure K ``view_rot_K``, ``view_tilt_K``, ``view_score_K`` (best
    log-ratio of each view, nat), ``shift_K`` [o, 2] (Å), ``inplane_K`` (degrees) and ``shift_inplane_score_K`` [o, g] (best
    log-ratio over views). For a folder of the verb ``particles`` it holds what
    :func:`~cryolike_scipion.engine.inspect_particles.look_at_particles` says.

    Raises
    ------
    InputError
        If the folder holds neither a result nor particles, the row is not in it, or the image could not be scored.
    """
    folder = Path(parameters["run"])
    if not (folder / "scores.h5").exists() and (folder / "particles.star").exists():
        progress.start(1, "inspect", "particles")
        _write(parameters, _look(folder, parameters["row"]))
        progress.update(1)
        progress.close()
        return
    results = load_results(folder)
    place = _place(results, parameters["row"], folder)
    if "runs" in results.parameters:
        results, place = _in_part(results, place, folder)
    given = dict(results.parameters)
    scale_prior = given.pop("scale_prior")
    polar = given.pop("polar")
    noise = NoiseModel.from_plain(polar["noise"]) if "noise" in polar else None
    given = {"noise_from": None, "noise_per": "group"} | given  # what runs of earlier versions lack
    # Mask and views may have come from a run that is gone; a prior over views does not show here.
    given |= {"mask_diameter": polar["images"]["mask_diameter"] or 0.0, "view_prior": "uniform"}
    setup = prepare_run(given, parameters["device"], noise)
    progress.start(len(setup.structures) + 1, "inspect", "structures")
    arrays = compare(results, setup, place)
    progress.update(1)
    if parameters["landscape"]:
        prior = ScalePrior(**scale_prior["groups"][str(setup.particles.optics_index[place])])
        for k in range(len(setup.structures)):
            arrays.update(landscape(setup, place, k, prior))
            progress.update(1)
    progress.close()
    _write(parameters, arrays)


def _write(parameters: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(Path(parameters["out"])) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    logger.info("particle %d: %s", parameters["row"], parameters["out"])


def _look(folder: Path, row: int) -> dict[str, np.ndarray]:
    """A row of converted particles."""
    particles = read_particles([folder])
    if row > len(particles):
        raise InputError(f"row {row} is beyond the {len(particles)} particles", folder, remedy="Give a smaller --row.")
    return look_at_particles(particles, row - 1)


def _place(results: Results, row: int, folder: Path) -> int:
    count = results.integrated.shape[1]
    if row > count:
        raise InputError(f"row {row} is beyond the {count} particles", folder, remedy="Give a smaller --row.")
    if results.status[row - 1] != OK:
        raise InputError(f"the image of row {row} could not be scored", folder, remedy="Choose another --row.")
    return row - 1


def _in_part(merged: Results, place: int, folder: Path) -> tuple[Results, int]:
    """The run that a particle of a merged one comes from, and its place there."""
    wanted = merged.sources[merged.source_index[place]], int(merged.row[place])
    for name in merged.parameters["runs"]:
        try:
            found = find_row(name, *wanted)
            if found is not None and (part := load_results(name)).labels == merged.labels:
                return part, found
        except InputError:
            continue
    raise InputError(
        f"none of the runs that were merged holds row {place + 1} with every structure",
        folder,
        remedy="Inspect one of the runs: " + ", ".join(map(str, merged.parameters["runs"])),
    )


def posed_templates(
    structure: Structure, particles: Particles, index: int, rotation: np.ndarray, origin: np.ndarray, k_max: float
) -> np.ndarray:
    """The projection of a structure behind the CTF of one particle: float64 [N, N], density · Å.

    Parameters
    ----------
    rotation : float64 [3, 3]
    origin : float64 [2]
        Å.
    k_max : float
        Band limit, 1/Å.
    """
    group = particles.optics[particles.optics_index[index]]
    plane = HalfPlane(group.box, group.pixel_size, min(k_max, 0.5 / group.pixel_size))
    points = torch.as_tensor(plane.points())
    slices = SliceMaker(structure, plane.points())(rotation[None]).to(torch.complex128)
    transfer = ctf(
        torch.hypot(points[:, 0], points[:, 1]),
        torch.atan2(points[:, 1], points[:, 0]),
        **ctf_arguments(particles, np.array([index])),
    )
    phase = 2 * torch.pi * (points @ torch.as_tensor(origin, dtype=torch.float64))
    return plane.image(slices * transfer * torch.polar(torch.ones_like(phase), phase))[0].numpy()


def best_pose(results: Results, particles: Particles, k: int, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and origin [2] (Å, in the undistorted image) of a particle's best pose under a structure."""
    rotation = matrix_from_euler(results.rot[k, place], results.tilt[k, place], results.psi[k, place])
    aberrations = particles.optics[particles.optics_index[place]].aberrations
    return rotation, aberrations.origin_undistorted(np.array([results.origin_x[k, place], results.origin_y[k, place]]))


def compare(results: Results, setup: Setup, place: int) -> dict[str, np.ndarray]:
    """A particle beside its best template of every structure: the arrays of :func:`run` without a landscape."""
    particles, settings = setup.particles, setup.settings
    group = particles.optics[particles.optics_index[place]]
    raw, status, problems = read_images(particles, np.array([place]))
    if status[0] != OK:
        raise InputError(str(problems[0]))
    shown = as_compared(particles, np.array([place]), raw, settings.images)[0].numpy()
    mask = mask_of(settings.images, group.box, group.pixel_size)
    templates = []
    for k, structure in enumerate(setup.structures):
        template = posed_templates(structure, particles, place, *best_pose(results, particles, k, place), settings.k_max)
        templates.append(_on_scale_of(shown, template * mask.numpy(), mask.numpy()))
    stack = np.array(templates)
    return {
        "image": shown,
        "templates": stack,
        "residual": shown[None] - stack,
        "labels": np.array(results.labels),
        "cc": results.cc[:, place],
        "log_likelihood": results.integrated[:, place],
        "structure_posterior": results.structure_posterior[:, place],
        "best_structure": np.array(results.best_structure[place]),
        "pixel_size": np.array(group.pixel_size),
    }


def _on_scale_of(image: np.ndarray, template: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The template times the scale, plus the offset, that fit the image best (least squares)."""
    design = np.stack([template.ravel(), mask.ravel()], axis=1)
    fit, *_ = np.linalg.lstsq(design, image.ravel(), rcond=None)
    return (design @ fit).reshape(image.shape)


def landscape(setup: Setup, place: int, k: int, prior: ScalePrior) -> dict[str, np.ndarray]:
    """Best log-ratios over the first grid of one structure, by view and by shift and in-plane angle."""
    table, bank = setup.tables[k], setup.banks[k]
    images = convert(setup.particles, np.array([place]), setup.settings, setup.rule, "stop", setup.cache, setup.device).images
    assert images is not None
    images = setup.behind_mask(k, images, np.array([place]))
    basis = setup.bands[-1].basis
    factors = shift_factors(setup.settings.grid, setup.shifts.origins, images.matched.real.dtype, setup.device)
    rows = shifted_rows(images.matched, factors, basis)
    by_view = np.zeros(len(table))
    by_shift = np.full((len(setup.shifts), setup.n_inplane), -np.inf)
    for start in range(0, len(table), _VIEWS_AT_ONCE):
        index = np.arange(start, min(start + _VIEWS_AT_ONCE, len(table)))
        templates = bank.templates(table, index)
        known = grid_evidence(images, templates, prior, setup.n_inplane)
        logs = known.take(0).log_ratio(correlate(rows, templates.rows, basis, setup.n_inplane))
        by_view[index] = logs.amax(dim=(0, 2)).cpu().numpy()
        by_shift = np.maximum(by_shift, logs.amax(dim=1).cpu().numpy())
    number = f"{k + 1:03d}"
    return {
        f"view_rot_{number}": table.rot_deg,
        f"view_tilt_{number}": table.tilt_deg,
        f"view_score_{number}": by_view,
        f"shift_{number}": setup.shifts.origins,
        f"inplane_{number}": 360.0 * np.arange(setup.n_inplane) / setup.n_inplane,
        f"shift_inplane_score_{number}": by_shift,
    }
