"""Templates: projections with their angles, where the views lie, and the power at each resolution."""

import numpy as np

from .poses import draw_density, on_map, sphere_axis
from .style import COLOURS, colours, legend, new_figure, one_axis, plain

COLUMNS = 10
_DOTS = 5000
_FAINTEST = 1e-9
_GREYS = (0.5, 99.5)


def montage(images, captions, title, columns=COLUMNS):
    """Draw images in rows, each with its caption.

    Parameters
    ----------
    images : float [v, n, n]
    captions : list of str, of length v
    title : text over all.
    columns : images in a row.
    """
    count, size = len(images), images.shape[-1]
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    # One picture with room for captions: an axis an image would take a second to lay out.
    lines = max([caption.count("\n") + 1 for caption in captions] or [1])
    edge, room = size / 24, 0.17 * lines * size
    figure = new_figure(rows * (1.0 + 0.19 * lines) + 0.5, 1.05 * columns + 0.2)
    figure.suptitle(plain(title, 90), fontsize=10)
    axis = figure.add_subplot()
    for number, (image, caption) in enumerate(zip(images, captions)):
        left, top = (number % columns) * (size + edge), (number // columns) * (size + edge + room)
        low, high = np.percentile(image, _GREYS)
        place = (left, left + size, top + room + size, top + room)
        axis.imshow(image[::-1], cmap="gray", vmin=low, vmax=high, extent=place, interpolation="nearest")
        axis.text(left + size / 2, top + room - size / 40, caption, fontsize=6, ha="center", va="bottom", linespacing=1.1)
    axis.set_xlim(0, columns * (size + edge) - edge)
    axis.set_ylim(rows * (size + edge + room), 0)
    axis.set_axis_off()
    return figure


def angle_captions(numbers, rot_deg, tilt_deg):
    """Return a caption for each view: its number, and rot and tilt in whole degrees."""
    return [f"{number}\n{rot:.0f}°, {tilt:.0f}°" for number, rot, tilt in zip(numbers, rot_deg, tilt_deg)]


def view_sphere(rot_deg, tilt_deg, weights, title):
    """Draw the views of a structure on the sphere.

    Parameters
    ----------
    rot_deg, tilt_deg : float64 [v]
    weights : float64 [v], priors of the views; many views are drawn as the weight in cells of equal area.
    title : text over the map.
    """
    figure = new_figure(3.1)
    axis = sphere_axis(figure, 111)
    longitude, latitude = on_map(rot_deg, tilt_deg)
    if len(longitude) > _DOTS:
        draw_density(figure, axis, longitude, latitude, "weight", weights)
    else:
        relative = np.asarray(weights) / max(float(np.mean(weights)), 1e-30)
        points = axis.scatter(longitude, latitude, c=relative, s=6, cmap="viridis", vmin=0, linewidths=0)
        bar = figure.colorbar(points, ax=axis, shrink=0.7, pad=0.03)
        bar.set_label("weight / mean", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    axis.set_title(plain(title, 70), fontsize=9)
    return figure


def power_spectrum(frequency, power, labels, limit=None):
    """Draw the rotational average of the power of projections against resolution.

    Parameters
    ----------
    frequency : float64 [r], 1/Å.
    power : list of float64 [r], a curve a structure.
    labels : of the curves.
    limit : resolution limit in Å that is marked, if any.
    """
    figure, axis = one_axis(3.0)
    draw_power(axis, frequency, power, colours(len(power)))
    if limit:
        axis.axvline(1.0 / limit, color=COLOURS[1], lw=1.2, ls="--")
    legend(figure, labels)
    return figure


def draw_power(axis, frequency, power, tints):
    """Draw :func:`power_spectrum` on an axis whose ticks are resolutions in Å."""
    for curve, colour in zip(power, tints):
        shown = np.where(curve > _FAINTEST * np.max(curve), curve, np.nan)  # no more than rounding errors beyond a band limit
        axis.semilogy(frequency[1:], shown[1:], color=colour, lw=1.4)
    last = float(frequency[-1])
    ticks = np.linspace(last / 6, last, 6)
    axis.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axis.set_xlim(0, last)
    axis.set_xlabel("resolution (Å)", fontsize=9)
    axis.set_ylabel("power", fontsize=9)


def radial_power(images, pixel):
    """Return the rotational average of the power of images.

    Parameters
    ----------
    images : float [v, n, n]
    pixel : pixel size in Å.

    Returns
    -------
    frequency, power : float64 [n // 2 + 1]
        1/Å, and the mean over images and angles of |F|².
    """
    size = images.shape[-1]
    half = np.fft.rfft2(np.asarray(images, dtype=np.float64))
    power = (half.real**2 + half.imag**2).mean(axis=0)
    rings, count = rings_of(size), size // 2 + 1
    inside = rings < count
    weight = np.full(half.shape[-1], 2.0)
    weight[0] = 1.0
    if size % 2 == 0:
        weight[-1] = 1.0
    weights = np.broadcast_to(weight, power.shape)
    total = np.bincount(rings[inside], (power * weights)[inside], count)
    return np.arange(count) / (size * pixel), total / np.bincount(rings[inside], weights[inside], count)


def rings_of(size):
    """Return the ring of every coefficient of a real transform: int64 [n, n // 2 + 1]."""
    y = np.fft.fftfreq(size) * size
    x = np.arange(size // 2 + 1)
    return np.rint(np.hypot(y[:, None], x[None, :])).astype(np.int64)
