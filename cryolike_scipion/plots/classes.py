"""Classes by structure: the average of similar views beside the projection, and the best members."""

import numpy as np

from .style import colours, new_figure, plain, show_image, smoothed

_GREYS = (0.5, 99.5)


def members(gallery, labels):
    """Draw for each structure an average, its projection, and its best members with theirs below.

    Parameters
    ----------
    gallery : mapping of arrays as the engine's ``gallery.npz`` has them
        ``average``, ``average_template`` [k, n, n], ``average_count`` [k]; ``member_row`` [k, s] (0: none),
        ``member_image``, ``member_template`` [k, s, n, n].
    labels : of the structures.
    """
    shown = [k for k in range(len(labels)) if gallery["average_count"][k] > 0][:8]
    count = gallery["member_row"].shape[1]
    figure = new_figure(0.3 + 2.4 * max(1, len(shown)), 1.15 * (count + 1) + 0.8)
    for place, k in enumerate(shown):
        tint = colours(len(labels))[k]
        pairs = [(gallery["average"][k], gallery["average_template"][k], f"average of {int(gallery['average_count'][k])}")]
        for j in range(count):
            row = int(gallery["member_row"][k, j])
            if row:
                pairs.append((gallery["member_image"][k, j], gallery["member_template"][k, j], f"particle {row}"))
        for column, (image, template, name) in enumerate(pairs):
            for line, picture in enumerate((smoothed(image), template)):
                axis = figure.add_subplot(2 * len(shown), count + 1, (2 * place + line) * (count + 1) + column + 1)
                show_image(axis, picture, name if line == 0 else "", np.percentile(picture, _GREYS))
                if column == 0:
                    axis.set_ylabel(plain(labels[k], 16) if line == 0 else "projection", fontsize=8, color=tint)
    return figure
