"""Distributions of scores, one structure beside the other, and how many particles a threshold leaves."""

from dataclasses import dataclass

import numpy as np
from matplotlib.patheffects import Normal, Stroke

from .style import INK, colours, empty, legend, new_figure, one_axis, open_frame, plain

_MOST_BINS = 60
_CURVE_POINTS = 500


@dataclass(frozen=True)
class Score:
    """A score as users see it.

    Attributes
    ----------
    name : of the array in ``scores.h5``.
    attribute : of a Scipion particle.
    title, unit : for axes and lists.
    meaning : one sentence.
    """

    name: str
    attribute: str
    title: str
    unit: str
    meaning: str

    @property
    def axis(self):
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


SCORES = (
    Score(
        "integrated",
        "_cryolike_logLikelihood",
        "log-likelihood",
        "nat",
        "Evidence for the structure at any pose over that of an image without a particle.",
    ),
    Score("max", "_cryolike_logLikelihoodMax", "log-likelihood at the best pose", "nat", "The same at the best pose alone."),
    Score(
        "cc",
        "_cryolike_crossCorrelation",
        "cross-correlation",
        "",
        "Correlation with the best projection, inside mask and resolution limit.",
    ),
    Score(
        "structure_posterior",
        "_cryolike_structurePosterior",
        "posterior of the structure",
        "",
        "Probability of the best structure among those given.",
    ),
    Score(
        "pose_posterior",
        "_cryolike_posePosterior",
        "posterior of the pose",
        "",
        "Probability that the pose lies close to the best one.",
    ),
    Score(
        "pose_entropy",
        "_cryolike_poseEntropy",
        "information on the pose",
        "nat",
        "Information that the image gives on the pose: 0 says that any pose is as good.",
    ),
    Score(
        "pose_effective",
        "_cryolike_poseEffective",
        "effective number of poses",
        "",
        "Number of equally probable distinct poses that would be as spread.",
    ),
    Score(
        "pose_gap",
        "_cryolike_poseGap",
        "lead over the second pose",
        "nat",
        "Log-likelihood of the best pose less that of the second best distinct one.",
    ),
    Score("pose_spread", "_cryolike_poseSpread", "angular spread", "degree", "Root mean square angle to the best pose."),
    Score(
        "log_ratio_z",
        "_cryolike_logRatioZ",
        "z-score of the evidence",
        "",
        "How far the evidence for any structure lies from the median of the optics group, in robust standard deviations: junk "
        "lies below.",
    ),
    Score("scale", "_cryolike_scale", "scale", "", "Contrast: the factor of the projection in the image."),
)


def score_edges(values):
    """Return the edges of bins that hold every finite value: float64 [b + 1]."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return np.array([0.0, 1.0])
    return np.histogram_bin_edges(finite, bins=min(_MOST_BINS, max(8, int(np.sqrt(finite.size)))))


def score_histogram(title, values, best, labels):
    """Draw a histogram of one score, particles coloured by their best structure, and over it the cumulative curves.

    Parameters
    ----------
    title : name and unit of the score.
    values : float64 [m].
    best : int64 [m], best structure from 0.
    labels : of the structures.
    """
    figure, axis = one_axis()
    draw_histogram(axis, title, values, best, len(labels))
    other = axis.twinx()
    draw_cumulative(other, title, values, best, len(labels), over=True)
    other.spines["top"].set_visible(False)
    other.tick_params(labelsize=8)
    legend(figure, labels)
    return figure


def draw_histogram(axis, title, values, best, count):
    """Draw :func:`score_histogram` on an axis, for `count` structures."""
    finite = np.isfinite(values)
    if finite.any():
        groups = [values[finite & (best == k)] for k in range(count)]
        axis.hist(groups, bins=score_edges(values).tolist(), stacked=True, color=colours(count))
    axis.set_xlabel(title, fontsize=9)
    axis.set_ylabel("particles", fontsize=9)


def cumulative_curves(title, values, best, labels):
    """Draw, against a threshold on a score, the share of each structure's particles that reach it."""
    figure, axis = one_axis()
    draw_cumulative(axis, title, values, best, len(labels))
    legend(figure, labels)
    return figure


def draw_cumulative(axis, title, values, best, count, over=False):
    """Draw :func:`cumulative_curves` on an axis, for `count` structures; `over` a histogram with outlined curves."""
    outline = [Stroke(linewidth=3.0, foreground="white"), Normal()] if over else []
    for k, colour in enumerate(colours(count)):
        own = np.sort(values[(best == k) & np.isfinite(values)])
        if own.size:
            place = np.unique(np.linspace(0, own.size - 1, min(own.size, _CURVE_POINTS)).astype(np.int64))
            axis.plot(own[place], 100.0 * (own.size - place) / own.size, color=colour, lw=1.5, path_effects=outline)
    axis.set_ylim(0, 102)
    axis.set_xlabel(title, fontsize=9)
    axis.set_ylabel("at or above (%)" if over else "of a structure's particles\nat or above (%)", fontsize=9)


def threshold_figure(title, values, best, labels):
    """Draw histogram and curves beside each other, with room for a threshold line in both.

    Returns
    -------
    figure, axes : Figure, and the two axes
    """
    if not np.isfinite(values).any():
        return empty("No particle has this score."), ()
    figure = new_figure(3.9, 10.5)
    left, right = (open_frame(axis) for axis in figure.subplots(1, 2))
    draw_histogram(left, title, values, best, len(labels))
    draw_cumulative(right, title, values, best, len(labels))
    legend(figure, labels)
    return figure, (left, right)


def threshold_lines(axes, value):
    """Draw a threshold on some axes; return the lines."""
    return [axis.axvline(value, color=INK, lw=1.8, ls="--") for axis in axes]


def kept_text(values, best, labels, threshold):
    """Return how many particles reach a threshold, in all and of each structure, a line each."""
    kept = np.isfinite(values) & (values >= threshold)
    total = len(values)
    lines = [f"{int(kept.sum()):,} of {total:,} particles stay ({100.0 * kept.sum() / max(1, total):.1f} %)"]
    for k, label in enumerate(labels[:8]):
        own = best == k
        if own.any():
            lines.append(f"{plain(label, 24)}: {int((kept & own).sum()):,} of {int(own.sum()):,}")
    return lines
