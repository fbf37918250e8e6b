"""The priors over shifts and views that a run asked for."""

from __future__ import annotations

import logging
from typing import Any

from .errors import InputError
from .likelihood_setup import Setup
from .pose_priors import PosePrior, ShiftPrior, ViewPrior

__all__ = ["choose_pose_priors"]

logger = logging.getLogger(__name__)


def choose_pose_priors(setup: Setup, parameters: dict[str, Any]) -> list[PosePrior]:
    """A prior for every structure.

    Raises
    ------
    InputError
        If a prior is asked for that the search does not have.
    """
    width, views = parameters["shift_prior"], parameters["view_prior"]
    if setup.search == "fixed" and (width is not None or views != "uniform"):
        raise InputError(
            "a fixed search has one pose, and no prior over poses", remedy="Leave out --shift-prior and --view-prior"
        )
    shift = None if width is None else ShiftPrior.over(width, setup.shifts)
    logger.info(
        "priors: structures %s; shifts %s; views %s",
        "equal" if not parameters["priors"] else ", ".join(f"{p:g}" for p in parameters["priors"]),
        "uniform" if width is None else f"Gaussian of {width:g} Å about the {'input' if setup.search == 'local' else 'centre'}",
        "uniform" if views == "uniform" else "as the input poses are distributed",
    )
    counts = setup.input_views
    groups = {} if counts is None else {s.symmetry: ViewPrior.of_counts(counts, s.symmetry) for s in setup.structures}
    return [PosePrior(shift, groups.get(structure.symmetry)) for structure in setup.structures]
