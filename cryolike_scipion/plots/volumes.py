"""A density as three central slices and three projections."""

import numpy as np

from .style import new_figure, plain, show_image

_NAMES = ("along z", "along y", "along x")


def slices_and_projections(density, title, pixel):
    """Draw a density's central slices above its projections along z, y and x.

    Parameters
    ----------
    density : float [z, y, x]
    title : text over all.
    pixel : voxel size in Å.
    """
    figure = new_figure(4.6, 6.8)
    size = density.shape[0]
    figure.suptitle(f"{plain(title, 50)} ({size} px, {pixel:.3g} Å/px)", fontsize=10)
    for axis_number, name in enumerate(_NAMES):
        middle = np.take(density, density.shape[axis_number] // 2, axis=axis_number)
        total = density.sum(axis=axis_number, dtype=np.float64) * pixel
        for line, (kind, picture) in enumerate((("slice", middle), ("projection", total))):
            show_image(figure.add_subplot(2, 3, 3 * line + axis_number + 1), picture, f"{kind} {name}")
    return figure
