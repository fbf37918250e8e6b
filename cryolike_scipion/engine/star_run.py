"""The verb ``star``: any particle file as one RELION 3.1 STAR file."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import Any

from .errors import InputError
from .own_output import refuse_overwriting
from .particle_star import write_particles
from .particles import read_particles
from .progress import Progress
from .stack_paths import file_part

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write the particle table, with the full names of the image stacks.

    Parameters
    ----------
    parameters : dict
        Completed parameters of the verb ``star``.
    progress : Progress
        Told about the file.

    Raises
    ------
    InputError
        If the particles cannot be read, or the file to write is one of theirs.
    """
    out = Path(parameters["out"])
    if out.is_dir():
        raise InputError("the output is a folder", out, remedy="Give the name of a STAR file with --out")
    refuse_overwriting(out.parent, [glob.escape(out.name)], parameters["particles"])
    progress.start(1, "star", "file")
    particles = read_particles(
        parameters["particles"],
        root=parameters["root"],
        pixel_size=parameters["pixel"],
        amplitude_contrast=parameters["amplitude_contrast"],
    )
    formats = [name[len(file_part(name)) :] for name in particles.image_names()]  # RELION reads p.mrc:mrcs, but not p.mrc
    places = zip(particles.stack_index, particles.frame, formats)
    names = [f"{frame + 1:06d}@{particles.stacks[s]}{kind}" for s, frame, kind in places]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_particles(out, particles, {"rlnImageName": names}, keep_overwritten=False)
    progress.update(1)
    progress.close()
    missing = [stack for stack in particles.stacks if not stack.exists()]
    if missing:
        logger.warning("%d of %d image stacks are missing, the first: %s", len(missing), len(particles.stacks), missing[0])
    logger.info("%d particles: %s", len(particles), out)
