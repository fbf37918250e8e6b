"""Populations of structures with their errors, and what the particles tell of them."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from .style import COLOURS, INK, colours, new_figure, one_axis, plain

_NAMED = 30  # structures that get a name


def populations_with_errors(labels, mean, low, high, most_likely, bootstrap=None):
    """Draw populations with their intervals: a bar each, or a line over the number where there are many.

    Parameters
    ----------
    labels : of the structures.
    mean, low, high, most_likely : float64 [k], fractions.
    bootstrap : float64 [2, k], optional.
    """
    mean, low, high, most_likely = (100 * np.asarray(values, dtype=float) for values in (mean, low, high, most_likely))
    where = np.arange(len(labels))
    if len(labels) > _NAMED:
        figure, axis = one_axis(3.4, 7.0)
        axis.fill_between(where + 1, low, high, color=COLOURS[0], alpha=0.35, lw=0)
        axis.plot(where + 1, mean, color=COLOURS[0], lw=0.8)
        axis.plot(where + 1, most_likely, ".", color=INK, ms=2)
        axis.set_ylim(0, None)
        axis.set_xlabel("structure", fontsize=9)
        axis.set_ylabel("population (%)", fontsize=9)
        return figure
    figure, axis = one_axis(0.9 + 0.32 * len(labels))
    errors = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
    axis.barh(where, mean, xerr=errors, color=colours(len(labels)), ecolor=INK, capsize=3)
    axis.plot(most_likely, where, "x", color=INK)
    if bootstrap is not None:
        axis.hlines(where + 0.3, 100 * bootstrap[0], 100 * bootstrap[1], color=INK, lw=0.8, linestyles="dotted")
    axis.set_yticks(where, [plain(label, 24) for label in labels])
    axis.invert_yaxis()
    axis.set_xlim(0, None)
    axis.set_xlabel("population (%)", fontsize=9)
    return figure


def known_of_division(known):
    """Draw how much the particles tell about the division between every two structures, float64 [k, k]."""
    figure = new_figure(3.6, 4.2)
    axis = figure.add_subplot()
    count = len(known)
    shown = axis.imshow(known, vmin=0, vmax=1, cmap="viridis", extent=(0.5, count + 0.5, count + 0.5, 0.5))
    bar = figure.colorbar(shown, ax=axis, shrink=0.8)
    bar.set_label("known of the division", fontsize=8)
    for each in (axis, bar.ax):
        each.tick_params(labelsize=8)
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("structure", fontsize=9)
    axis.set_ylabel("structure", fontsize=9)
    return figure
