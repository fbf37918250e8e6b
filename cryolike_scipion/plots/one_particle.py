"""One particle: the image, the best template of each structure, the residual, and the landscape of its scores."""

import numpy as np

from .poses import on_map, sphere_axis
from .style import new_figure, plain, show_image, smoothed

_GREYS = (0.5, 99.5)
_DEPTH = 25.0  # nat below the best that the colours span
_MOST = 6


def comparison(image, templates, residual, labels, cc, log_likelihood, posterior, title):
    """Draw a particle beside its best template of each structure and what the template leaves.

    Parameters
    ----------
    image : float [n, n]
    templates, residual : float [k, n, n]; of more than six structures the most probable six are shown.
    labels : of the structures.
    cc, log_likelihood, posterior : float [k], the scores; the log-likelihood in nat.
    title : text over all.
    """
    shown = np.sort(np.argsort(-np.asarray(posterior), kind="stable")[:_MOST])
    figure = new_figure(0.4 + 2.35 * len(shown), 7.4)
    figure.suptitle(plain(title, 90), fontsize=10)
    image, residual = smoothed(image), [smoothed(each) for each in residual]
    limits = np.percentile(image, _GREYS)
    for row, k in enumerate(shown):
        scores = f"cc {cc[k]:.3f}, log-likelihood {log_likelihood[k]:.1f}, probability {posterior[k]:.3f}"
        # Particle and residual share their greys; the template is faint in the noise and has its own.
        panels = (
            ("particle, smoothed", image, limits),
            (f"{plain(labels[k], 40)}\n{scores}", templates[k], None),
            ("residual, smoothed", residual[k], limits),
        )
        for column, (name, picture, greys) in enumerate(panels):
            show_image(figure.add_subplot(len(shown), 3, 3 * row + column + 1), picture, name, greys)
    return figure


def view_landscape(rot_deg, tilt_deg, score, label):
    """Draw the best log-ratio of every view on the sphere, less the greatest.

    Parameters
    ----------
    rot_deg, tilt_deg, score : float64 [v]; degrees, nat.
    label : of the structure.
    """
    figure = new_figure(3.1)
    axis = sphere_axis(figure, 111)
    order = np.argsort(score)
    longitude, latitude = on_map(rot_deg[order], tilt_deg[order])
    below = score[order] - score.max()
    size = float(np.clip(24000.0 / max(1, len(score)), 2.0, 40.0))
    points = axis.scatter(longitude, latitude, c=below, s=size, cmap="viridis", vmin=_floor(below), vmax=0, linewidths=0)
    bar = figure.colorbar(points, ax=axis, shrink=0.7, pad=0.03, extend="min")
    bar.set_label("less the best (nat)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axis.set_title(f"{plain(label)}: best at every view", fontsize=9)
    return figure


def shift_landscape(shifts, inplane_deg, score, label):
    """Draw the log-ratio of shifts × in-plane angles at the best view, in two pictures.

    Parameters
    ----------
    shifts : float64 [o, 2], origins x and y in Å.
    inplane_deg : float64 [g]
    score : float64 [o, g], nat; best over views.
    label : of the structure.
    """
    figure = new_figure(3.0, 8.0)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    below = score - score.max()
    best_angle = below.max(axis=1)
    spacing = _spacing(shifts)
    reach = max(float(np.abs(shifts).max(initial=0.0)) + spacing / 2, 1e-3)
    area = float(np.clip((150.0 * spacing / (2 * reach)) ** 2, 4.0, 900.0))
    left.scatter(
        shifts[:, 0], shifts[:, 1], c=best_angle, s=area, marker="s", cmap="viridis", vmin=_floor(below), vmax=0, linewidths=0
    )
    left.set_xlim(-reach, reach)
    left.set_ylim(-reach, reach)
    left.set_aspect("equal")
    left.set_xlabel("origin x (Å)", fontsize=8)
    left.set_ylabel("origin y (Å)", fontsize=8)
    left.set_title("best over in-plane angles", fontsize=8)
    order = np.lexsort((shifts[:, 0], np.round(np.hypot(*shifts.T), 3)))
    extent = (0.0, 360.0, -0.5, len(shifts) - 0.5)
    picture = right.imshow(
        below[order], aspect="auto", origin="lower", extent=extent, cmap="viridis", vmin=_floor(below), vmax=0,
        interpolation="nearest",
    )  # fmt: skip
    right.set_xticks(np.arange(0, 361, 90))
    right.set_xlabel("in-plane angle psi (degree)", fontsize=8)
    right.set_ylabel("number of the shift, outwards", fontsize=8)
    right.set_title(f"{plain(label)}: shifts × rotation", fontsize=8)
    bar = figure.colorbar(picture, ax=right, pad=0.02, extend="min")
    bar.set_label("less the best (nat)", fontsize=8)
    for axis in (left, right, bar.ax):
        axis.tick_params(labelsize=7)
    return figure


def _floor(below):
    """Return where the colours end: at most 25 nat below the best."""
    lowest = float(np.min(below)) if np.size(below) else -1.0
    return min(-1e-3, max(-_DEPTH, lowest))


def _spacing(shifts):
    """Return the distance of neighbouring shifts along an axis, 1 where there is one shift only."""
    steps = np.concatenate([np.diff(np.unique(np.round(column, 6))) for column in shifts.T])
    return float(steps.min()) if steps.size else 1.0
