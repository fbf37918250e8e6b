"""Where the particles' best poses lie: views on the sphere, in-plane angles, shifts; agreement with input poses."""

import numpy as np
from matplotlib.patheffects import Normal, Stroke

from .style import COLOURS, colours, dot, empty, legend, new_figure, one_axis, open_frame, plain

_DOTS = 3000  # more particles than these become a density
_CELLS = (72, 36)


def view_distribution(rot_deg, tilt_deg, best, labels):
    """Draw viewing directions [m] on an equal-area map of the sphere (Mollweide's).

    Up to some thousand are dots in their structure's colour; more are a density, in which uniform views are
    of one colour everywhere.

    Parameters
    ----------
    rot_deg, tilt_deg : float64 [m]
    best : int64 [m], structure from 0.
    labels : of the structures.
    """
    figure = new_figure(3.1)
    axis = sphere_axis(figure, 111)
    longitude, latitude = on_map(rot_deg, tilt_deg)
    if len(longitude) > _DOTS:
        draw_density(figure, axis, longitude, latitude, "particles")
    else:
        tint = np.array(colours(max(1, len(labels))))[best]
        axis.scatter(longitude, latitude, s=dot(len(longitude)), alpha=0.7, color=tint, linewidths=0)
        legend(figure, labels)
    return figure


def sphere_axis(figure, place):
    """Return an axis with Mollweide's map of the sphere: rot to the right, tilt from 0 at the top to 180."""
    axis = figure.add_subplot(place, projection="mollweide")
    axis.grid(True, lw=0.4, color="#c8ced2")
    axis.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["-120°", "-60°", "rot 0°", "60°", "120°"], fontsize=7)
    axis.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["150°", "120°", "tilt 90°", "60°", "30°"], fontsize=7)
    axis.set_axisbelow(False)  # rot is written on the equator, among the dots
    for label in axis.get_xticklabels():
        label.set_path_effects([Stroke(linewidth=2.5, foreground="white"), Normal()])
    return axis


def on_map(rot_deg, tilt_deg):
    """Return longitude and latitude, radians, of viewing directions; rot and tilt may be outside their usual range."""
    rot, tilt = np.deg2rad(rot_deg), np.deg2rad(tilt_deg)
    latitude = np.arcsin(np.clip(np.cos(tilt), -1, 1))
    longitude = np.arctan2(np.sin(tilt) * np.sin(rot), np.sin(tilt) * np.cos(rot))
    return longitude, latitude


def draw_density(figure, axis, longitude, latitude, what, weights=None):
    """Draw how many directions lie in each cell of equal area."""
    edges = np.linspace(-np.pi, np.pi, _CELLS[0] + 1), np.linspace(-1, 1, _CELLS[1] + 1)
    counts, _ = np.histogramdd(np.stack([longitude, np.sin(latitude)], axis=1), bins=edges, weights=weights)
    picture = axis.pcolormesh(edges[0], np.arcsin(edges[1]), counts.T, cmap="viridis", vmin=0, rasterized=True)
    bar = figure.colorbar(picture, ax=axis, shrink=0.7, pad=0.03)
    bar.set_label(f"{what} in a cell", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def inplane_distribution(psi_deg, best, labels):
    """Draw a histogram of the in-plane angle psi, degrees [m], coloured by structure."""
    figure, axis = one_axis()
    psi = (np.asarray(psi_deg) + 180.0) % 360.0 - 180.0
    groups = [psi[best == k] for k in range(len(labels))]
    axis.hist(groups, bins=np.linspace(-180, 180, 37).tolist(), stacked=True, color=colours(len(labels)))
    axis.set_xlim(-180, 180)
    axis.set_xticks(np.arange(-180, 181, 60))
    axis.set_xlabel("psi (degree)", fontsize=9)
    axis.set_ylabel("particles", fontsize=9)
    legend(figure, labels)
    return figure


def shift_distribution(origin_x, origin_y):
    """Draw the origins of the best poses, Å, [m]."""
    figure, axis = one_axis(3.2)
    reach = max(1e-3, float(np.abs([origin_x, origin_y]).max(initial=0.0))) * 1.05
    if len(origin_x) > _DOTS:
        edges = np.linspace(-reach, reach, 61)
        counts, _ = np.histogramdd(np.stack([origin_x, origin_y], axis=1), bins=[edges, edges])
        picture = axis.pcolormesh(edges, edges, counts.T, cmap="viridis", rasterized=True)
        figure.colorbar(picture, ax=axis, shrink=0.8).set_label("particles in a cell", fontsize=8)
    else:
        axis.scatter(origin_x, origin_y, s=dot(len(origin_x)), alpha=0.7, color=COLOURS[0], linewidths=0)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.set_xlabel("origin x (Å)", fontsize=9)
    axis.set_ylabel("origin y (Å)", fontsize=9)
    return figure


def agreement(angle_deg, shift, best, labels):
    """Draw how far the best poses lie from those that the particles had.

    Parameters
    ----------
    angle_deg : float64 [m], angle of the rotation between the two poses; the nearest mate under symmetry.
    shift : float64 [m], distance of the origins in Å.
    best : int64 [m], structure from 0.
    labels : of the structures.
    """
    finite = np.isfinite(angle_deg)
    if not finite.any():
        return empty("The particles came without poses.")
    figure = new_figure(3.1, 8.0)
    for place, (name, values, unit) in enumerate((("rotation", angle_deg, "degree"), ("origin", shift, "Å"))):
        axis = open_frame(figure.add_subplot(1, 2, place + 1))
        reach = float(np.quantile(values[finite], 0.99)) * 1.02 + 1e-6
        groups = [np.minimum(values[finite & (best == k)], reach) for k in range(len(labels))]
        axis.hist(groups, bins=np.linspace(0, reach, 41).tolist(), stacked=True, color=colours(len(labels)))
        median = float(np.median(values[finite]))
        axis.axvline(median, color="#222", lw=1, ls="--")
        axis.set_title(f"median {median:.2f} {unit}", fontsize=9)
        axis.set_xlabel(f"difference of {name} from the input's ({unit})", fontsize=9)
        axis.set_ylabel("particles", fontsize=9)
    legend(figure, [plain(label) for label in labels])
    return figure
