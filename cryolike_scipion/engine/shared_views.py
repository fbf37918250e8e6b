"""How the views of input poses are distributed: the prior of ``--view-prior input``, and the file ``views.json``.

A distribution depends on the particles it is taken of. Particles that are scored in parts are comparable only if all parts
have the same one: that of the whole file where rows of it are scored, and that of another run with ``--scale-from``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_bytes
from .errors import InputError
from .particles import Particles
from .pose_priors import count_views, view_places
from .shared_file import understood

__all__ = ["VIEWS_FILE", "input_views", "write_views"]

VIEWS_FILE = "views.json"
_FORMAT = 1


def input_views(parameters: Mapping[str, Any], particles: Particles) -> NDArray[np.int64] | None:
    """Number of poses at each view, int64 [v]; None where they are not asked for.

    Parameters
    ----------
    parameters : mapping
        ``view_prior`` and ``scale_from`` of the verb ``likelihood``.
    particles : Particles
        All rows of the file.

    Raises
    ------
    InputError
        If the particles have no views, or the other run has left none.
    """
    if parameters["view_prior"] != "input":
        return None
    if parameters["scale_from"] is not None:
        return _read(parameters["scale_from"])
    if not particles.has_pose:
        raise InputError(
            "the views of the particles are not known, so that they give no prior",
            particles.source,
            remedy="Use --view-prior uniform, or give a file with rlnAngleRot, rlnAngleTilt and rlnAnglePsi",
        )
    return count_views(particles.rot, particles.tilt)


def write_views(out: Path, counts: NDArray[np.int64]) -> None:
    """Write numbers of poses [v] into the folder of a run."""
    write_bytes(out / VIEWS_FILE, (json.dumps({"format": _FORMAT, "poses": counts.tolist()}) + "\n").encode("ascii"))


def _read(run: str | os.PathLike[str]) -> NDArray[np.int64]:
    remedy = "Make the run of --scale-from with --view-prior input, too, or use --view-prior uniform"
    with understood(Path(run) / VIEWS_FILE, _FORMAT, "input views", remedy) as content:
        counts = np.array(content["poses"], dtype=np.int64)
        if counts.shape != (view_places(),) or counts.min() < 0 or counts.sum() == 0:
            raise ValueError(f"{counts.size} numbers of poses")
        return counts
