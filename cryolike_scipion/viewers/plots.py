"""Drawings on matplotlib figures; no window is opened here, so they also serve tests and reports."""

import numpy as np

COLUMNS = 10
_BINS = 50
_GREY_LIMITS = (0.5, 99.5)


def draw_histogram(figure, values, title, unit):
    """Draw the distribution of a score, one outline a structure.

    Parameters
    ----------
    figure : matplotlib Figure, empty.
    values : dict
        Label of a structure to the scores of the particles that chose it, in its order.
    title, unit : text of the horizontal axis.
    """
    axes = figure.add_subplot(111)
    everything = np.concatenate([np.asarray(each, dtype=np.float64) for each in values.values()] or [np.zeros(0)])
    everything = everything[np.isfinite(everything)]
    if everything.size == 0:
        axes.text(0.5, 0.5, "no particle has this score", ha="center", transform=axes.transAxes)
        return
    bins = np.linspace(everything.min(), everything.max() or 1.0, _BINS) if np.ptp(everything) else _BINS
    for label, each in values.items():
        if len(each):
            axes.hist(each, bins=bins, histtype="step", linewidth=1.5, label=f"{_plain(label)} ({len(each)})")
    axes.set_xlabel(f"{title} ({unit})" if unit else title)
    axes.set_ylabel("particles")
    axes.legend(loc="best", fontsize=8)


def draw_particle(figure, inspection, title):
    """Draw a particle beside its best template of each structure and the difference of the two, a row each.

    Parameters
    ----------
    figure : matplotlib Figure, empty.
    inspection : convert.inspection.Inspection
    title : text over all.
    """
    count = len(inspection.templates)
    low, high = np.percentile(inspection.image, _GREY_LIMITS)
    figure.suptitle(title)
    for row in range(count):
        scores = (
            f"cc {inspection.cc[row]:.3f}, log-likelihood {inspection.log_likelihood[row]:.1f}, "
            f"probability {inspection.posterior[row]:.3f}"
        )
        panels = (
            ("particle", inspection.image),
            (f"{_plain(inspection.labels[row])}\n{scores}", inspection.templates[row]),
            ("difference", inspection.residual[row]),
        )
        for column, (name, image) in enumerate(panels):
            axes = figure.add_subplot(count, 3, 3 * row + column + 1)
            # Particle and difference share their greys; the template is faint in the noise and has its own.
            limits = {} if column == 1 else {"vmin": low, "vmax": high}
            axes.imshow(image, cmap="gray", origin="lower", **limits)
            axes.set_title(name, fontsize=8)
            axes.set_axis_off()


def draw_montage(figure, images, captions, title):
    """Draw projections in rows of ten.

    Parameters
    ----------
    figure : matplotlib Figure, empty.
    images : ndarray, float, [V, N, N]
    captions : list of str, of length V
    title : text over all.
    """
    rows = max(1, -(-len(images) // COLUMNS))
    figure.suptitle(_plain(title))
    for number, (image, caption) in enumerate(zip(images, captions)):
        axes = figure.add_subplot(rows, COLUMNS, number + 1)
        axes.imshow(image, cmap="gray", origin="lower")
        axes.set_title(caption, fontsize=6, pad=2)
        axes.set_axis_off()


def _plain(label):
    """Return a label that matplotlib does not take for a formula."""
    return label.replace("\n", " ").replace("$", r"\$")
