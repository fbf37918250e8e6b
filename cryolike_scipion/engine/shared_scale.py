"""The contrast prior that one run learned, for other runs over the same structures: the file ``scale.json``.

Particles that are scored in parts, as they come or on several machines, are comparable only if all parts have the same
prior. Optics groups are told by name and pixel size, because their numbers differ between particle files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic import write_bytes
from .errors import InputError
from .particles import OpticsGroup

__all__ = ["SCALE_FILE", "read_scale", "write_scale"]

SCALE_FILE = "scale.json"
_FORMAT = 1


def write_scale(out: Path, learned: Mapping[str, Any], optics: Sequence[OpticsGroup]) -> None:
    """Write the prior of a run into its output folder.

    Parameters
    ----------
    out : Path
    learned : mapping
        ``kind`` and ``groups``: number of the optics group (a text, from 0) to the fields of its `ScalePrior`.
    optics : sequence of OpticsGroup
    """
    groups = [
        {"name": optics[int(g)].name, "pixel_size": optics[int(g)].pixel_size, "prior": dict(values)}
        for g, values in learned["groups"].items()
    ]
    content = {"format": _FORMAT, "kind": learned["kind"], "groups": groups}
    write_bytes(out / SCALE_FILE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("ascii"))


def read_scale(run: str | os.PathLike[str], optics: Sequence[OpticsGroup]) -> dict[str, Any]:
    """The prior that another run learned, for the optics groups of this one.

    A group that the other run did not have gets the mean of what it had.

    Returns
    -------
    dict
        ``kind`` and ``groups``, as for `write_scale`.

    Raises
    ------
    InputError
        If the folder has no such file, or it cannot be understood.
    """
    path = Path(run) / SCALE_FILE
    try:
        content = json.loads(path.read_text(encoding="ascii"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}")
        known = {(each["name"], each["pixel_size"]): each["prior"] for each in content["groups"]}
        groups = {str(g): known.get((group.name, group.pixel_size)) or _mean(known.values()) for g, group in enumerate(optics)}
        return {"kind": str(content["kind"]), "groups": groups}
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"the contrast prior of this run cannot be read ({error})",
            path,
            remedy="Give --scale-from the folder of a run that has learned one",
        ) from None


def _mean(priors) -> dict[str, Any]:
    some = list(priors)
    if any(each.get("flat") for each in some):
        return {"flat": True}
    return {name: sum(each[name] for each in some) / len(some) for name in ("mu", "tau")}
