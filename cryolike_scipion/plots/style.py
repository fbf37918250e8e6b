"""Colours, figures, legends and labels that all plots share."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLOURS = ("#2a6f97", "#d1495b", "#66a182", "#edae49", "#7a5195", "#8d6a4f", "#5c6b73", "#c06c84")
INK = "#222222"
WIDTH = 5.0
_MANY = 1000
_BLUR = 0.12  # of the sampling frequency


def new_figure(height=2.9, width=WIDTH):
    """Return an empty figure of some size in inches that lays out itself."""
    return Figure(figsize=(width, height), layout="constrained")


def one_axis(height=2.9, width=WIDTH):
    """Return a figure and its only axis, without the frame's upper and right line."""
    figure = new_figure(height, width)
    return figure, open_frame(figure.add_subplot())


def open_frame(axis):
    """Take the upper and right line of a frame away; return the axis."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    return axis


def empty(text, height=1.4):
    """Return a figure that says why there is nothing to see."""
    figure = new_figure(height)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, wrap=True)
    return figure


def plain(label, length=40):
    """Return a label as matplotlib shows it unchanged: one line, no mathematics, not hidden, not too long."""
    text = " ".join(label.split())
    text = text if len(text) <= length else text[: length - 1] + "…"
    text = text.replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def colours(count):
    """Return a colour for each of so many structures; they repeat where there are more than can be told apart."""
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def dot(count):
    """Return the area of a dot, in points², that still shows where so many lie."""
    return 9.0 if count < _MANY else 2.5


def legend(figure, labels):
    """Put the structures' colours below the plot; none for one structure, none for more than there are colours."""
    if not 2 <= len(labels) <= len(COLOURS):
        return
    figure.legend(
        [Patch(color=colour) for colour in colours(len(labels))],
        [plain(label) for label in labels],
        loc="outside lower center",
        frameon=False,
        ncols=2,
        fontsize=8,
    )


def smoothed(image):
    """Return an image blurred by about a pixel, in which the eye finds a particle sooner."""
    size = image.shape[0]
    k2 = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-k2 / (2 * _BLUR**2)), s=image.shape)


def show_image(axis, image, title="", limits=None):
    """Show an image in greys without ticks.

    Parameters
    ----------
    axis : matplotlib Axes
    image : ndarray, float, [N, N]
    title : str
    limits : pair of float, the black and the white; the image's own by default.
    """
    low, high = limits if limits is not None else (None, None)
    axis.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=high, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(title, fontsize=8, pad=3)
