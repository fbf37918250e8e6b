"""The contrast prior that one run learned, for other runs over the same structures: the file ``scale.json``.

Particles that are scored in parts, as they come or on several machines, are comparable only if all parts have the same
prior. It means something only for the structures, the resolution and the preparation of images that it was learned with.
Optics groups are told by all their values, because their numbers differ between particle files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..constants import SCALE_FILE
from .atomic import write_bytes
from .errors import InputError
from .fingerprint import canonical_json
from .noise_spectrum import NoiseModel
from .particles import OpticsGroup
from .polar_settings import PolarSettings
from .results import StructureEntry
from .shared_file import understood

__all__ = ["SCALE_FILE", "mean_noise", "read_scale", "scale_conditions", "shared_mask", "shared_noise", "write_scale"]

_FORMAT = 2
_CONDITIONS = {
    "structures": "other structures",
    "k_max": "another resolution",
    "images": "another preparation of images",
    "noise": "another noise model",
}
_SPECTRA = ("spectra", "background")
_LACKS = {"noise": "white"}  # what files of earlier versions do not say
logger = logging.getLogger(__name__)


def scale_conditions(entries: Sequence[StructureEntry], settings: PolarSettings) -> dict[str, Any]:
    """What a prior depends on besides the particles, as JSON values."""
    return {
        "structures": sorted(entry.sha256 for entry in entries),
        "k_max": settings.k_max,
        "images": asdict(settings.images),
        "noise": "white" if settings.noise is None else "radial",
    }


def write_scale(out: Path, learned: Mapping[str, Any], optics: Sequence[OpticsGroup], conditions: Mapping[str, Any]) -> None:
    """Write the prior of a run into its output folder.

    Parameters
    ----------
    out : Path
    learned : mapping
        ``kind`` and ``groups``: number of the optics group (a text, from 0) to the fields of its `ScalePrior`; ``noise``, where
        it is radial: `NoiseModel.plain`.
    optics : sequence of OpticsGroup
    conditions : mapping
        From `scale_conditions`.
    """
    groups = [{"optics": asdict(optics[int(g)]), "prior": dict(values)} for g, values in learned["groups"].items()]
    content = {"format": _FORMAT, "kind": learned["kind"], "conditions": dict(conditions), "groups": groups}
    if "noise" in learned:
        content["noise_top"] = learned["noise"]["top"]
        for g, group in zip(learned["groups"], groups):
            group["noise"] = {name: learned["noise"][name][int(g)] for name in _SPECTRA}
    write_bytes(out / SCALE_FILE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("ascii"))


def read_scale(
    run: str | os.PathLike[str], kind: str, optics: Sequence[OpticsGroup], conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """The prior that another run learned, for the optics groups of this one.

    A group that the other run did not have gets the mean of what it had.

    Parameters
    ----------
    run : path
        Output folder of the other run.
    kind : str
        "learned" or "free": what this run was asked for.
    optics : sequence of OpticsGroup
    conditions : mapping
        Of this run, from `scale_conditions`.

    Returns
    -------
    dict
        ``kind`` and ``groups``, as for `write_scale`.

    Raises
    ------
    InputError
        If the folder has no such file, it cannot be understood, or the prior is of another kind or was learned under other
        conditions.
    """
    path = Path(run) / SCALE_FILE
    with _understood(path) as content:
        made, found = str(content["kind"]), content["conditions"]
        known = {canonical_json(each["optics"]): each["prior"] for each in content["groups"]}
        mean = _mean(known.values())
        differs = [
            what
            for name, what in _CONDITIONS.items()
            if canonical_json((_LACKS | found)[name]) != canonical_json((_LACKS | dict(conditions))[name])
        ]
    if made != kind:
        raise InputError(
            f"the contrast prior is '{made}', and --scale is '{kind}'", path, remedy=f"Use --scale {made}, or another prior"
        )
    if differs:
        raise InputError(
            f"the contrast prior was learned with {' and '.join(differs)}",
            path,
            remedy="Give --scale-from a run with the same structures, --resolution, --noise and preparation of images",
        )
    groups = {}
    for g, group in enumerate(optics):
        own = known.get(canonical_json(asdict(group)))
        if own is None:
            logger.warning("%s has no contrast prior of the optics group %s: the mean of its groups is used", path, group.name)
        groups[str(g)] = mean if own is None else own
    return {"kind": made, "groups": groups}


def shared_mask(run: str | os.PathLike[str]) -> float | None:
    """Mask diameter (Å) of the run that learned a prior; None: no mask.

    Raises
    ------
    InputError
        If the folder has no such file, or it cannot be understood.
    """
    with _understood(Path(run) / SCALE_FILE) as content:
        diameter = content["conditions"]["images"]["mask_diameter"]
        return None if diameter is None else float(diameter)


def shared_noise(run: str | os.PathLike[str], optics: Sequence[OpticsGroup]) -> NoiseModel:
    """Noise spectra of another run for the optics groups of this one; a group that it did not have gets its groups' mean.

    Raises
    ------
    InputError
        If the folder has no file of such a run, its noise is white, or it cannot be understood.
    """
    path = Path(run) / SCALE_FILE
    with _understood(path) as content:
        known, mean = _spectra(content, path)
        found = [known.get(canonical_json(asdict(group))) for group in optics]
        for group, each in zip(optics, found):
            if each is None:
                logger.warning("%s has no noise spectrum of the optics group %s: the mean is used", path, group.name)
        spectra = {name: [(each or mean)[name] for each in found] for name in _SPECTRA}
        return NoiseModel.from_plain({"top": content["noise_top"], **spectra})


def mean_noise(run: str | os.PathLike[str]) -> NoiseModel:
    """The mean of a run's noise spectra, as that of one group; errors as for `shared_noise`."""
    path = Path(run) / SCALE_FILE
    with _understood(path) as content:
        _, mean = _spectra(content, path)
        return NoiseModel.from_plain({"top": content["noise_top"], **{name: [mean[name]] for name in _SPECTRA}})


def _spectra(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Noise spectra by optics group, and their mean."""
    if content["conditions"].get("noise", "white") == "white":
        raise InputError("the noise of this run is white", path, remedy="Take the spectrum of a run with --noise radial")
    known = {canonical_json(each["optics"]): each["noise"] for each in content["groups"]}
    columns = {name: zip(*(each[name] for each in known.values())) for name in _SPECTRA}
    return known, {name: [sum(column) / len(known) for column in of_groups] for name, of_groups in columns.items()}


def _understood(path: Path) -> AbstractContextManager[dict[str, Any]]:
    return understood(path, _FORMAT, "contrast prior", "Give --scale-from the folder of a run that has learned one")


def _mean(priors) -> dict[str, Any]:
    some = list(priors)
    if any(each.get("flat") for each in some):
        return {"flat": True}
    return {name: sum(each[name] for each in some) / len(some) for name in ("mu", "tau")}
