"""The plots of a likelihood run, each a matplotlib figure of its own; no window and no global state."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

COLOURS = ("#2a6f97", "#d1495b", "#66a182", "#edae49", "#7a5195", "#8d6a4f", "#5c6b73", "#c06c84")
_DECIDED = 0.95  # posterior from which a particle counts as decided


def plain(label: str, length: int = 40) -> str:
    """A label as matplotlib shows it unchanged: one line, no mathematics, not hidden, not too long."""
    text = " ".join(label.split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def score_histogram(title: str, values: NDArray[np.float64], best: NDArray[np.int64], labels: list[str]) -> Figure:
    """A histogram of one score, particles coloured by their best structure.

    Parameters
    ----------
    title : name and unit of the score.
    values : float64 [m].
    best : int64 [m], best structure from 0.
    labels : of the structures.
    """
    figure, axis = _figure()
    finite = np.isfinite(values)
    if finite.any():
        edges = np.histogram_bin_edges(values[finite], bins=min(40, max(8, int(np.sqrt(finite.sum())))))
        groups = [values[finite & (best == k)] for k in range(len(labels))]
        axis.hist(groups, bins=edges.tolist(), stacked=True, color=_colours(len(labels)))
    axis.set_xlabel(title)
    axis.set_ylabel("particles")
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
    figure, axis = _figure(0.8 + 0.45 * len(labels))
    rows = np.arange(len(labels))
    axis.barh(rows, 100 * share, xerr=100 * deviation, color=_colours(len(labels)), ecolor="#222", capsize=3)
    axis.set_yticks(rows, [plain(label, 24) for label in labels])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("particles (%)")
    return figure


def population_shares(posteriors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each structure among these particles, and its standard deviation given their posteriors.

    The number of particles of a structure is a sum of independent events of probability p, so that its mean
    is Σ p and its variance Σ p (1 − p).

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
    figure, axis = _figure()
    axis.hist(chosen, bins=np.linspace(0, 1, 41).tolist(), color=COLOURS[0])
    axis.axvline(_DECIDED, color=COLOURS[1], lw=1)
    axis.set_title(f"{100 * decided(chosen):.0f} % of the particles above {_DECIDED:g}", fontsize=10)
    axis.set_xlabel("posterior of the best structure")
    axis.set_ylabel("particles")
    return figure


def decided(chosen: NDArray[np.float64]) -> float:
    """Fraction of particles whose best structure has a posterior above 0.95."""
    return float((chosen > _DECIDED).mean()) if len(chosen) else 0.0


def log_odds(integrated: NDArray[np.float64], labels: list[str]) -> Figure:
    """Difference of integrated log-likelihood between the first two structures, [2, m], in nat."""
    figure, axis = _figure()
    difference = integrated[0] - integrated[1]
    difference = difference[np.isfinite(difference)]
    reach = float(np.quantile(np.abs(difference), 0.98)) if len(difference) else 1.0
    edges = np.linspace(-reach - 1e-9, reach + 1e-9, 41)
    clipped = np.clip(difference, edges[0], edges[-1])
    axis.hist([clipped[clipped > 0], clipped[clipped <= 0]], bins=edges.tolist(), stacked=True, color=_colours(2))
    axis.axvline(0, color="#222", lw=1)
    axis.set_xlabel(f"log-likelihood of {plain(labels[0], 16)} − {plain(labels[1], 16)} (nat)")
    axis.set_ylabel("particles")
    return figure


def view_distribution(
    rot_deg: NDArray[np.float64], tilt_deg: NDArray[np.float64], best: NDArray[np.int64], labels: list[str]
) -> Figure:
    """Viewing directions [m] on an equal-area chart, rot against cos tilt, coloured by the best structure."""
    figure, axis = _figure()
    rot = (rot_deg + 180.0) % 360.0 - 180.0
    colours = np.array(_colours(len(labels)))[best]
    axis.scatter(rot, np.cos(np.deg2rad(tilt_deg)), s=_dot(len(rot)), alpha=0.7, color=colours, linewidths=0)
    axis.set_xlim(-180, 180)
    axis.set_ylim(-1, 1)
    axis.set_xticks(np.arange(-180, 181, 60))
    axis.set_xlabel("rot (degree)")
    axis.set_ylabel("cos tilt")
    _legend(figure, labels)
    return figure


def shift_distribution(origin_x: NDArray[np.float64], origin_y: NDArray[np.float64]) -> Figure:
    """Origins of the best poses, Å, [m]."""
    figure, axis = _figure()
    reach = max(1e-3, float(np.abs([origin_x, origin_y]).max(initial=0.0))) * 1.05
    axis.scatter(origin_x, origin_y, s=_dot(len(origin_x)), alpha=0.7, color=COLOURS[0], linewidths=0)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.set_xlabel("origin x (Å)")
    axis.set_ylabel("origin y (Å)")
    return figure


def _figure(height: float = 2.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height), layout="constrained")
    axis = figure.add_subplot()
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8, color="#5c6b73")
    return figure, axis


def _dot(count: int) -> float:
    """Area of a marker that keeps `count` of them apart."""
    return float(np.clip(2500 / max(1, count), 1, 14))


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _legend(figure: Figure, labels: list[str]) -> None:
    """The structures' colours below the plot; none for one structure, and none for more than can be told
    apart.
    """
    if not 2 <= len(labels) <= len(COLOURS):
        return
    handles = [Patch(color=colour) for colour in _colours(len(labels))]
    figure.legend(
        handles,
        [plain(label) for label in labels],
        loc="outside lower center",
        frameon=False,
        ncols=2,
        fontsize=8,
    )
