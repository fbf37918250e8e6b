"""Reliability diagrams: what was claimed against how often it came true."""

import numpy as np

from .style import COLOURS, INK, one_axis


def diagram(found, claim):
    """Draw frequencies over claims, with two standard errors of a calibrated claim.

    Parameters
    ----------
    found : with the arrays claimed, observed and count of its bins, and mean_claimed, mean_observed, error.
    claim : name of what is claimed.
    """
    figure, axis = one_axis(3.6, 4.0)
    axis.plot([0, 1], [0, 1], color=INK, lw=0.8)
    width = 2 * np.sqrt(found.claimed * (1 - found.claimed) / found.count)
    axis.errorbar(found.claimed, found.observed, yerr=width, fmt="o", color=COLOURS[0], ms=4, capsize=2)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    axis.set_title(
        f"claimed {found.mean_claimed:.3f}, true {found.mean_observed:.3f}, calibration error {found.error:.3f}", fontsize=8
    )
    axis.set_xlabel(claim, fontsize=9)
    axis.set_ylabel("frequency", fontsize=9)
    return figure
