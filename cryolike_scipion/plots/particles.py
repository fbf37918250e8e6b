"""Particles before and after their preparation, and the CTF over the spectrum of one of them."""

import numpy as np

from .style import COLOURS, new_figure, one_axis, open_frame, show_image

_GREYS = (0.5, 99.5)


def before_after(raw, prepared, captions):
    """Draw images as they are in the file, and below each as it is compared.

    Parameters
    ----------
    raw, prepared : float [v, n, n]
    captions : list of str, of length v
    """
    count = max(1, len(raw))
    figure = new_figure(3.2, 0.5 + 1.3 * count)
    for column, (before, after, caption) in enumerate(zip(raw, prepared, captions)):
        upper = figure.add_subplot(2, count, column + 1)
        show_image(upper, before, caption, np.percentile(before, _GREYS))
        lower = figure.add_subplot(2, count, count + column + 1)
        show_image(lower, after, "", np.percentile(after, _GREYS))
        if column == 0:
            upper.set_ylabel("before", fontsize=9)
            lower.set_ylabel("after", fontsize=9)
    return figure


def ctf_over_spectrum(frequency, power, ctf_frequency, ctf_squared, title):
    """Draw the CTF² of a particle over the rotational average of its power.

    Parameters
    ----------
    frequency : float64 [r], 1/Å.
    power : float64 [r], of the image.
    ctf_frequency, ctf_squared : float64 [c], 1/Å, and the mean over angles.
    title : str
    """
    figure, axis = one_axis(3.0, 6.5)
    draw_spectrum(axis, frequency, power, ctf_frequency, ctf_squared)
    axis.set_title(title, fontsize=9)
    return figure


def draw_spectrum(axis, frequency, power, ctf_frequency, ctf_squared):
    """Draw :func:`ctf_over_spectrum` on an axis."""
    axis.semilogy(frequency[1:], power[1:], color=COLOURS[0], lw=1.3)
    axis.set_ylabel("power of the image", fontsize=9, color=COLOURS[0])
    last = float(frequency[-1])
    ticks = np.linspace(last / 6, last, 6)
    axis.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axis.set_xlim(0, last)
    axis.set_xlabel("resolution (Å)", fontsize=9)
    other = axis.twinx()
    other.plot(ctf_frequency, ctf_squared, color=COLOURS[1], lw=1.1)
    other.set_ylim(0, 1.05)
    other.set_ylabel("CTF²", fontsize=9, color=COLOURS[1])
    other.spines["top"].set_visible(False)
    other.tick_params(labelsize=8)


def mask_preview(image, projection, box_width):
    """Draw a particle and a structure's projection side by side, for a mask's circle over both.

    Parameters
    ----------
    image, projection : float [n, n] and [p, p], or None where there is none.
    box_width : float, widths of the two pictures in Å: (particle's, projection's).

    Returns
    -------
    figure, axes : Figure, and the axes whose unit is Å from the centre.
    """
    figure = new_figure(4.0, 8.0)
    axes = []
    shown = [("particle", image, box_width[0]), ("projection of the structure", projection, box_width[1])]
    for place, (name, picture, width) in enumerate([each for each in shown if each[1] is not None]):
        axis = open_frame(figure.add_subplot(1, sum(each[1] is not None for each in shown), place + 1))
        half = width / 2
        limits = np.percentile(picture, _GREYS)
        axis.imshow(picture, cmap="gray", origin="lower", extent=(-half, half, -half, half), vmin=limits[0], vmax=limits[1])
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("Å", fontsize=9)
        axes.append(axis)
    return figure, axes
