"""Structures of different origin with one radial profile of amplitudes.

Maps differ in sharpening, filtering and scattering model, which says nothing about which of them particles show, and yet
counts in a likelihood. Here each structure's Fourier amplitudes are scaled, shell by shell, so that its power on spheres,

    P(k) = mean over directions of |F(k)|²,

is that of all structures' geometric mean. Phases, and how amplitudes differ within a shell, stay. P is smoothed over the width
that a structure's size gives a shell, so that the scaling is smooth in k, and blurs the structure's edge by a fraction of its
radius only. Where a structure has next to no power it counts as if it had a floor of it, so that nothing is blown up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from .density_map import support_radius
from .errors import InputError
from .fourier_volume import FourierVolume
from .polar_grid import fft_friendly
from .structures import Structure
from .views import healpix_views

__all__ = ["AmplitudeMatch", "match_amplitudes", "radial_power"]

_FLOOR = 1e-6  # of the power of the structure that has most of it in a shell
_EMPTY = 1e-5  # of the same, where it has most: a structure with less has no detail there to speak of
_PER_RADIUS = 8  # shells in 1/R
_SMOOTH = 0.5  # 1/R, standard deviation of the smoothing of ln P
_WIDEST = 1.25  # most that a structure's radius grows by
_DIRECTIONS_STEP = 10.0  # degrees

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AmplitudeMatch:
    """Structures with one radial profile.

    Attributes
    ----------
    structures : list of Structure
    radii : float64 [r]
        Shells, 1/Å.
    gain : float64 [K, r]
        Factors of the amplitudes; each structure's is 1 at its root mean square over the band.
    """

    structures: list[Structure]
    radii: NDArray[np.float64]
    gain: NDArray[np.float64]


def match_amplitudes(structures: Sequence[Structure], k_max: float) -> AmplitudeMatch:
    """Scale the shells of every structure up to ``k_max`` (1/Å), which all of them reach, to the common profile.

    Raises
    ------
    InputError
        If a structure has no power within the band.
    """
    smallest = min(s.radius for s in structures)
    radii = np.linspace(0.0, k_max, max(16, int(np.ceil(_PER_RADIUS * k_max * smallest))))
    power = np.array([radial_power(structure, radii) for structure in structures])
    weight = radii**2 / (radii**2).sum()
    mean = (power * weight).sum(axis=1, keepdims=True)
    for structure, own in zip(structures, mean):
        if not own > 0:
            raise InputError("structure has no density within the band", file=structure.source, remedy="Check the map.")
    width = _SMOOTH / smallest / radii[1]
    relative = np.maximum(power / mean, _FLOOR * (power / mean).max(axis=0))
    logs = _smooth(np.log(relative), width)
    common = logs.mean(axis=0)
    gain = np.exp(0.5 * (common - logs))
    for structure, own in zip(structures, logs):
        _tell_empty(structure, radii, own - logs.max(axis=0))
    gain /= np.sqrt((gain**2 * relative * weight).sum(axis=1, keepdims=True) / (relative * weight).sum(axis=1, keepdims=True))
    return AmplitudeMatch([_filtered(s, radii, own) for s, own in zip(structures, gain)], radii, gain)


def radial_power(structure: Structure, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """P at ``radii`` (1/Å), float64 [r]: the box and the pixel size do not matter to it."""
    directions = healpix_views(_DIRECTIONS_STEP).directions()
    volume = FourierVolume(structure, k_max=float(radii[-1]))
    return np.array([(np.abs(volume.at(k * (1 - 1e-6) * directions)) ** 2).mean() for k in radii])


def _smooth(logs: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """A Gaussian over shells: even about k = 0, and with the slope that it has at the limit carried on beyond it."""
    room = min(int(np.ceil(4 * width)), logs.shape[1] - 1)
    low = np.pad(logs, ((0, 0), (room, 0)), mode="reflect")
    both = np.pad(low, ((0, 0), (0, room)), mode="reflect", reflect_type="odd")
    return gaussian_filter1d(both, width, axis=1)[:, room : room + logs.shape[1]]


def _tell_empty(structure: Structure, radii: NDArray[np.float64], below: NDArray[np.float64]) -> None:
    """Warn where a structure holds no detail up to the limit; ``below`` is ln of its power over the largest, shell by shell."""
    last = float(radii[np.flatnonzero(below - below.max() > np.log(_EMPTY))[-1]])
    if last < 0.95 * radii[-1]:
        logger.warning(
            "%s has hardly any detail beyond %.1f Å: compare up to there (--resolution), or it is told from the others by that",
            structure.label,
            1 / max(last, 1e-9),
        )


def _filtered(structure: Structure, radii: NDArray[np.float64], gain: NDArray[np.float64]) -> Structure:
    """The structure with its amplitudes multiplied by a function of k; beyond the last radius by its last value."""
    box, pixel = structure.box, structure.pixel_size
    # The filter's kernel reaches about a radius: room enough that nothing comes back from the other side.
    size = fft_friendly(max(box, int(np.ceil(4 * structure.radius / pixel))), 2)
    start = size // 2 - box // 2
    inside = (slice(start, start + box),) * 3
    padded = np.zeros((size,) * 3, dtype=np.float32)
    padded[inside] = structure.density
    spectrum = scipy.fft.rfftn(padded, overwrite_x=True, workers=1)
    full, half = scipy.fft.fftfreq(size, pixel) ** 2, scipy.fft.rfftfreq(size, pixel) ** 2
    for z in range(size):  # by planes, so that no second volume is needed
        frequency = np.sqrt(full[z] + full[:, None] + half)
        spectrum[z] *= np.interp(frequency, radii, gain).astype(np.float32)
    density = scipy.fft.irfftn(spectrum, s=padded.shape, overwrite_x=True, workers=1).astype(np.float32)
    wide = replace(structure, density=density)
    radius = min(max(structure.radius, support_radius(density, pixel)), _WIDEST * structure.radius)
    kept = min(size, 2 * int(np.ceil(radius / pixel)) + 8)  # what is cut off softly afterwards needs a little room
    if kept > box:
        start = size // 2 - kept // 2
        inside = (slice(start, start + kept),) * 3
    return replace(wide, density=np.ascontiguousarray(density[inside]), radius=radius)
