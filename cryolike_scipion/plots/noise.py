"""The noise that a run gave its weights by."""

import numpy as np

from .style import COLOURS, INK, colours, legend, one_axis


def noise_spectra(frequency, power, k_max, labels):
    """Draw the power of the noise of each optics group.

    Parameters
    ----------
    frequency : float64 [q], 1/Å.
    power : float64 [g, q], in units of its mean.
    k_max : float, 1/Å, resolution limit of the run; what lies beyond it was not used.
    labels : list of str, of length g
    """
    figure, axis = one_axis()
    for row, colour in zip(power, colours(len(labels))):
        axis.semilogy(frequency, row, color=colour, lw=1.4)
    axis.axhline(1.0, color=INK, lw=0.6, ls=":")
    last = float(frequency[-1])
    if k_max < last:
        axis.axvspan(k_max, last, color=COLOURS[6], alpha=0.15, lw=0)
    ticks = np.linspace(last / 6, last, 6)
    axis.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axis.set_xlim(0, last)
    axis.set_xlabel("resolution (Å)", fontsize=9)
    axis.set_ylabel("power of the noise", fontsize=9)
    legend(figure, labels)
    return figure
