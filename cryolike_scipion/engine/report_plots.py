"""The plots of a likelihood run, each a matplotlib figure of its own; no window and no global state."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOURS = ("#2a6f97", "#d1495b", "#66a182", "#edae49", "#7a5195", "#8d6a4f", "#5c6b73", "#c06c84")
_DECIDED = 0.95  # posterior from which a particle counts as decided
_STYLE = {"spines": ("top", "right"), "grey": "#5c6b73"}


def plain(label: str, length: int = 40) -> str:
    """A label as matplotlib shows it unchanged: one line, no mathematics, not hidden, not too long."""
    text = " ".join(label.split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def score_histograms(
    scores: dict[str, NDArray[np.float64]], best: NDArray[np.int64], labels: list[str]
) -> Figure:
    """A histogram per score, particles grouped by their best structure.

    Parameters
    ----------
    scores : title of the score to its value for each particle, [m].
    best : int64 [m], best structure from 0.
    labels : of the structures.
    """
    figure = Figure(figsize=(10, 2.9 * -(-len(scores) // 3)), layout="constrained")
    axes = figure.subplots(-(-len(scores) // 3), 3, squeeze=False).ravel()
    for axis, (title, values) in zip(axes, scores.items()):
        finite = np.isfinite(values)
        groups = [values[finite & (best == k)] for k in range(len(labels))]
        if finite.any():
            edges = np.histogram_bin_edges(values[finite], bins=min(40, max(8, int(np.sqrt(finite.sum())))))
            axis.hist(groups, bins=edges, stacked=True, color=_colours(len(labels)))
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("particles", fontsize=8)
        _tidy(axis)
    for axis in axes[len(scores) :]:
        axis.axis("off")
    _legend(figure, labels)
    return figure


def populations(posteriors: NDArray[np.float64], labels: list[str]) -> Figure:
    """Share of each structure among these particles, with the standard deviation that their posteriors leave.

    Parameters
    ----------
    posteriors : float64 [k, m], structure posterior of each particle.
    labels : of the structures.
    """
    share, deviation = population_shares(posteriors)
    figure = Figure(figsize=(5, 0.8 + 0.45 * len(labels)), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(labels))
    axis.barh(rows, 100 * share, xerr=100 * deviation, color=_colours(len(labels)), ecolor="#222", capsize=3)
    axis.set_yticks(rows, [plain(label, 24) for label in labels])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("particles (%)")
    _tidy(axis)
    return figure


def population_shares(posteriors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each structure among these particles, and its standard deviation given their posteriors.

    The number of particles of a structure is a sum of independent events of probability p, so that its mean is
    Σ p and its variance Σ p (1 − p).

    Parameters
    ----------
    posteriors : float64 [k, m].

    Returns
    -------
    share, deviation : float64 [k].
    """
    count = max(1, posteriors.shape[1])
    return posteriors.sum(axis=1) / count, np.sqrt((posteriors * (1 - posteriors)).sum(axis=1)) / count


def posterior_histogram(chosen: NDArray[np.float64]) -> Figure:
    """Posterior of the best structure: how many particles are decided."""
    figure = Figure(figsize=(5, 2.9), layout="constrained")
    axis = figure.subplots()
    axis.hist(chosen, bins=np.linspace(0, 1, 41), color=COLOURS[0])
    axis.axvline(_DECIDED, color=COLOURS[1], lw=1)
    axis.set_title(f"{100 * decided(chosen):.0f} % of the particles above {_DECIDED:g}", fontsize=10)
    axis.set_xlabel("posterior of the best structure")
    axis.set_ylabel("particles")
    _tidy(axis)
    return figure


def decided(chosen: NDArray[np.float64]) -> float:
    """Fraction of particles whose best structure has a posterior above 0.95."""
    return float((chosen > _DECIDED).mean()) if len(chosen) else 0.0


def log_odds(integrated: NDArray[np.float64], labels: list[str]) -> Figure:
    """Difference of integrated log-likelihood between the first two structures, [2, m], in nat."""
    figure = Figure(figsize=(5, 2.9), layout="constrained")
    axis = figure.subplots()
    difference = integrated[0] - integrated[1]
    difference = difference[np.isfinite(difference)]
    reach = float(np.quantile(np.abs(difference), 0.98)) if len(difference) else 1.0
    edges = np.linspace(-reach - 1e-9, reach + 1e-9, 41)
    clipped = np.clip(difference, edges[0], edges[-1])
    axis.hist([clipped[clipped > 0], clipped[clipped <= 0]], bins=edges, stacked=True, color=_colours(2))
    axis.axvline(0, color="#222", lw=1)
    axis.set_xlabel(f"log-likelihood of {plain(labels[0], 16)} − {plain(labels[1], 16)} (nat)")
    axis.set_ylabel("particles")
    _tidy(axis)
    return figure


def view_distribution(
    rot_deg: NDArray[np.float64], tilt_deg: NDArray[np.float64], best: NDArray[np.int64], labels: list[str]
) -> Figure:
    """Viewing directions on an equal-area chart, rot against cos tilt, a panel per structure [m]."""
    columns = min(2, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(5 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for k, axis in enumerate(axes):
        if k >= len(labels):
            axis.axis("off")
            continue
        own = best == k
        size = float(np.clip(2500 / max(1, own.sum()), 1, 14))
        axis.scatter(_wrap(rot_deg[own]), np.cos(np.deg2rad(tilt_deg[own])), s=size, alpha=0.7,
                     color=COLOURS[k % len(COLOURS)], linewidths=0)
        axis.set_xlim(-180, 180)
        axis.set_ylim(-1, 1)
        axis.set_xticks(np.arange(-180, 181, 60))
        axis.set_xlabel("rot (degree)", fontsize=8)
        axis.set_ylabel("cos tilt", fontsize=8)
        axis.set_title(plain(labels[k]), fontsize=10)
        _tidy(axis)
    return figure


def shift_distribution(origin_x: NDArray[np.float64], origin_y: NDArray[np.float64]) -> Figure:
    """Origins of the best poses, Å, [m]."""
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axis = figure.subplots()
    reach = max(1e-3, float(np.abs([origin_x, origin_y]).max(initial=0.0))) * 1.05
    size = float(np.clip(2500 / max(1, len(origin_x)), 1, 14))
    axis.scatter(origin_x, origin_y, s=size, alpha=0.7, color=COLOURS[0], linewidths=0)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.set_xlabel("origin x (Å)")
    axis.set_ylabel("origin y (Å)")
    _tidy(axis)
    return figure


def _wrap(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    return (degrees + 180.0) % 360.0 - 180.0


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _legend(figure: Figure, labels: list[str]) -> None:
    from matplotlib.patches import Patch

    if len(labels) < 2:
        return
    handles = [Patch(color=colour) for colour in _colours(len(labels))]
    figure.legend(handles, [plain(label) for label in labels], loc="outside lower center", frameon=False,
                  ncols=min(4, len(labels)), fontsize=9)


def _tidy(axis) -> None:
    for side in _STYLE["spines"]:
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8, color=_STYLE["grey"])
