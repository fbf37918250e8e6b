"""Which structures the particles show: shares, posteriors, likelihoods against each other."""

import numpy as np

from .style import COLOURS, INK, colours, empty, new_figure, one_axis, open_frame, plain

_DECIDED = 0.95  # posterior from which a particle counts as decided
_PAIRS = 6
_MATRIX_COLUMNS = 1200
_SPAN = 0.98  # of the differences lie inside the histogram's ends


def populations(posteriors, labels):
    """Draw the share of each structure among these particles, with what their posteriors leave open.

    Parameters
    ----------
    posteriors : float64 [k, m], structure posterior of each particle.
    labels : of the structures.
    """
    share, deviation = population_shares(posteriors)
    figure, axis = one_axis(0.8 + 0.32 * len(labels))
    rows = np.arange(len(labels))
    axis.barh(rows, 100 * share, xerr=100 * deviation, color=colours(len(labels)), ecolor=INK, capsize=3)
    axis.set_yticks(rows, [plain(label, 24) for label in labels])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("particles (%)", fontsize=9)
    return figure


def population_shares(posteriors):
    """Return the share of each structure among these particles, and its standard deviation.

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


def posterior_histogram(chosen):
    """Draw the posterior of the best structure [m]: how many particles are decided."""
    figure, axis = one_axis()
    axis.hist(chosen, bins=np.linspace(0, 1, 41).tolist(), color=COLOURS[0])
    axis.axvline(_DECIDED, color=COLOURS[1], lw=1)
    axis.set_title(f"{100 * decided(chosen):.0f} % of the particles above {_DECIDED:g}", fontsize=9)
    axis.set_xlabel("posterior of the best structure", fontsize=9)
    axis.set_ylabel("particles", fontsize=9)
    return figure


def decided(chosen):
    """Return the fraction of particles whose best structure has a posterior above 0.95."""
    return float((chosen > _DECIDED).mean()) if len(chosen) else 0.0


def log_odds(integrated, labels):
    """Draw the difference of integrated log-likelihood between pairs of structures.

    Parameters
    ----------
    integrated : float64 [k, m], nat.
    labels : of the structures.  With more than four, each of the first seven is compared with the first.
    """
    count = len(labels)
    if count < 2:
        return empty("There is one structure only: nothing to compare.")
    if count <= 4:
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    else:
        pairs = [(0, j) for j in range(1, min(count, _PAIRS + 1))]
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(2.6 * rows + 0.3, 5.0 if columns == 1 else 7.5)
    for number, (i, j) in enumerate(pairs):
        axis = open_frame(figure.add_subplot(rows, columns, number + 1))
        _draw_difference(axis, integrated[i] - integrated[j], COLOURS[i % len(COLOURS)], COLOURS[j % len(COLOURS)])
        axis.set_xlabel(f"log-likelihood of {plain(labels[i], 16)} − {plain(labels[j], 16)} (nat)", fontsize=8)
        axis.set_ylabel("particles", fontsize=8)
    return figure


def _draw_difference(axis, difference, first, second):
    difference = difference[np.isfinite(difference)]
    reach = float(np.quantile(np.abs(difference), _SPAN)) if len(difference) else 1.0
    edges = np.linspace(-reach - 1e-9, reach + 1e-9, 41)
    clipped = np.clip(difference, edges[0], edges[-1])
    axis.hist([clipped[clipped > 0], clipped[clipped <= 0]], bins=edges.tolist(), stacked=True, color=[first, second])
    axis.axvline(0, color=INK, lw=1)


def likelihood_matrix(integrated, best, labels):
    """Draw the log-likelihood of every particle under every structure, less that of its best.

    Parameters
    ----------
    integrated : float64 [k, m], nat.
    best : int64 [m], best structure from 0; the particles are sorted by it, then by how clearly it is the best.
    labels : of the structures.
    """
    below = integrated - integrated.max(axis=0)
    margin = -np.partition(below, -2, axis=0)[-2] if len(labels) > 1 else np.zeros(below.shape[1])
    shown = below[:, np.lexsort((-margin, best))]
    if shown.shape[1] > _MATRIX_COLUMNS:
        shown = shown[:, np.linspace(0, shown.shape[1] - 1, _MATRIX_COLUMNS).astype(np.int64)]
    low = float(np.quantile(shown, 0.05)) if shown.size else -1.0
    figure = new_figure(1.5 + 0.3 * max(2, len(labels)), 7.5)
    axis = figure.add_subplot()
    picture = axis.imshow(shown, aspect="auto", cmap="viridis", vmin=min(low, -1.0), vmax=0.0, interpolation="nearest")
    axis.set_yticks(np.arange(len(labels)), [plain(label, 18) for label in labels])
    axis.set_xticks([])
    axis.set_xlabel(f"{integrated.shape[1]:,} particles, by best structure and margin", fontsize=9)
    axis.tick_params(labelsize=8)
    bar = figure.colorbar(picture, ax=axis, pad=0.01, extend="min")
    bar.set_label("less the best (nat)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure
