"""The verb ``particles``: polar coefficients of particles, made once and kept as a cache for `likelihood`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..constants import OUTPUT_GALLERY
from .allocator import keep_freed_memory
from .coefficient_store import stored_hashes, write_coefficients
from .conversion import convert
from .errors import InputError
from .image_choice import image_settings
from .image_stacks import OK, STATUS_NAMES
from .own_output import refuse_overwriting
from .particle_star import write_particles
from .particles import Particles, read_particles
from .polar_images import Window
from .polar_settings import PolarSettings, band_tail, image_hashes
from .progress import Progress
from .report_run import REPORT, or_warn, title_of, write_particle_report
from .template_power import ctf_arguments, power_rule
from .workers import parallel

__all__ = ["run"]

logger = logging.getLogger(__name__)

_CHUNK = 256
_SHIFT_FRACTION = 0.1  # of the box: the default range of shifts of `likelihood`
_STATUS = "cryolikeStatus"


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write ``polar-….h5`` files and a ``particles.star`` whose rows point into them.

    Parameters
    ----------
    parameters : dict
        Completed parameters of the verb ``particles``.
    progress : Progress
        Counts particles.

    Raises
    ------
    InputError
        If the particles cannot be used, or an image is bad and ``bad_images`` is "stop".
    """
    out = Path(parameters["out"])
    refuse_overwriting(out, ("particles.star", "polar-*.h5", REPORT, OUTPUT_GALLERY), parameters["particles"])
    out.mkdir(parents=True, exist_ok=True)
    particles = read_particles(
        parameters["particles"],
        root=parameters["root"],
        pixel_size=parameters["pixel"],
        amplitude_contrast=parameters["amplitude_contrast"],
    )
    settings = _settings(particles, parameters)
    rule = power_rule(settings.grid, settings.template_radius, ctf_arguments(particles, np.arange(len(particles))))
    hashes = image_hashes(particles, np.arange(len(particles)), settings)
    pointers, made, statuses = [""] * len(particles), [""] * len(particles), np.zeros(len(particles), dtype=np.uint8)
    files = [_File(out, group, rows) for group, rows in _chunks(particles, parameters["batch_images"] or _CHUNK)]

    def write(file: _File) -> np.ndarray:
        """Status of each row of a file, which is made unless an earlier run finished it."""
        wanted = [hashes[i] for i in file.rows]
        if not parameters["restart"] and stored_hashes(file.path) == wanted:
            return np.full(len(file.rows), OK, dtype=np.uint8)
        done = convert(particles, file.rows, settings, rule, parameters["bad_images"], device=parameters["device"])
        if done.images is not None:
            write_coefficients(file.path, done.images, [wanted[i] for i in done.usable], settings)
        return done.status

    keep_freed_memory()
    progress.start(len(particles), "convert", "particles")
    for file, status in zip(files, parallel(write, files)):
        statuses[file.rows] = status
        for place, i in enumerate(file.rows[status == OK], start=1):
            pointers[i], made[i] = f"{place:06d}@{os.fspath(file.path)}", hashes[i]
        progress.update(len(file.rows))
    progress.close()
    columns = {
        "cryolikeCoefficients": pointers,
        "cryolikeCoefficientsHash": made,
        _STATUS: [STATUS_NAMES[s] for s in statuses],
    }
    write_particles(out / "particles.star", particles, columns)
    written = {file.path for file in files}
    for path in out.glob("polar-*.h5"):
        if path not in written:
            path.unlink()
    or_warn("the report", write_particle_report, out, out / REPORT, title_of(out))
    if statuses.any():
        logger.warning("%d of %d images could not be converted", int((statuses != 0).sum()), len(particles))
    logger.info("%d radii, %d angles to %.2f Å", settings.grid.n_radii, settings.grid.n_angles, 1 / settings.k_max)
    logger.info("results: %s", out)


class _File:
    """Rows of one optics group, and the file of their coefficients."""

    def __init__(self, folder: Path, group: int, rows: np.ndarray) -> None:
        self.rows = rows
        self.path = folder / f"polar-{group + 1:02d}-{int(rows[0]) + 1:08d}.h5"


def _settings(particles: Particles, parameters: dict[str, Any]) -> PolarSettings:
    """A grid for structures as large as the mask (or the box) and the default range of shifts."""
    coarsest = max(group.pixel_size for group in particles.optics)
    k_max = min(group.nyquist for group in particles.optics)
    boxes = [group.box for group in particles.optics]
    if parameters["downsample"] is not None:
        if parameters["downsample"] > min(boxes):
            raise InputError(
                f"a down-sampled box of {parameters['downsample']} pixels is larger than the box of {min(boxes)}",
                remedy="Give a smaller --downsample, or leave it out.",
            )
        k_max = min(k_max * parameters["downsample"] / box for box in boxes)
    if parameters["resolution"] is not None:
        k_max = min(k_max, 1 / parameters["resolution"])
    width = max(group.box * group.pixel_size for group in particles.optics)
    diameter = parameters["mask_diameter"] or None
    radius = (diameter or width) / 2
    reach = _SHIFT_FRACTION * width + max(coarsest, 0.5 / k_max)
    images = image_settings(parameters, diameter, coarsest)
    return PolarSettings(
        k_max, radius, Window(radius + reach + band_tail(k_max), 2 * coarsest), images, parameters["precision"]
    )


def _chunks(particles: Particles, size: int):
    """Rows of each optics group, in order, at most ``size`` together."""
    for group in range(len(particles.optics)):
        rows = np.flatnonzero(particles.optics_index == group)
        for start in range(0, len(rows), size):
            yield group, rows[start : start + size]
