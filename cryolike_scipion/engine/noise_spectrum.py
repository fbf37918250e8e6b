"""The power spectrum of coloured noise, and how images and CTFs are whitened by it.

Noise of power P(|k|) has the weight 1/P in every inner product. The same follows from dividing the transforms of the images,
and the CTF that a template is behind, by √P: the noise is then white, and all that is said of white noise holds, the number of
independent values inside mask and band included. P is kept as ``½ ln P(k) = Σ_j c_j cos(π j k / k_top)``, constant beyond
k_top: positive and smooth, so that 1/√P moves detail by about ``(J − 1) / (2 k_top)`` (Å) at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["MicrographSpectra", "NoiseModel", "fitted_spectrum", "log_amplitude", "spectrum_cosines", "term_count", "whitened"]

_FEWEST_TERMS, _MOST_TERMS = 6, 24
_WIDTH = 3.0  # of the prior of c_j, in units of 1/j²: smooth where the data do not say otherwise
_FLOOR = 0.02  # of the mean power: less is no noise but a filter that the templates lack, and would count without bound
_INTERVALS = 400


@dataclass(frozen=True, eq=False)
class MicrographSpectra:
    """What the spectra of micrographs differ from that of their optics group.

    Attributes
    ----------
    differences : float64 [s, J]
        Of c_0 … c_{J−1}.
    of_particle : int64 [M]
        Which of them a particle of the run has; -1: none.
    """

    differences: np.ndarray
    of_particle: np.ndarray


@dataclass(frozen=True)
class NoiseModel:
    """Noise spectra of a run's optics groups, each of mean 1 over the disc up to ``top``.

    Attributes
    ----------
    top : float
        k_top, 1/Å.
    spectra : tuple of tuple of float
        c_0 … c_{J−1} of each optics group.
    background : tuple of tuple of float
        The same of the background alone; empty where it is not known.
    micrographs : MicrographSpectra or None
        Of a run's particles; made anew from their images where it goes on.
    """

    top: float
    spectra: tuple[tuple[float, ...], ...]
    background: tuple[tuple[float, ...], ...] = ()
    micrographs: MicrographSpectra | None = None

    def power(self, group: int, k: np.ndarray) -> np.ndarray:
        """P at frequencies k (1/Å), float64 of the same shape."""
        cosines = spectrum_cosines(torch.as_tensor(k, dtype=torch.float64), self.top, len(self.spectra[group]))
        return np.exp(2.0 * np.tensordot(self.spectra[group], cosines.numpy(), 1))

    def micrograph_ratios(self, k: np.ndarray) -> np.ndarray:
        """P of micrographs over that of their groups at frequencies k [q] (1/Å), float64 [s, q]; none without micrographs."""
        if self.micrographs is None:
            return np.zeros((0, len(k)))
        cosines = spectrum_cosines(torch.as_tensor(k), self.top, self.micrographs.differences.shape[1])
        return np.exp(2.0 * self.micrographs.differences @ cosines.numpy())

    def fades_at(self, group: int, k_max: float) -> float | None:
        """Where, within the band, there is hardly any noise left (1/Å): images have been filtered. None: nowhere."""
        k = np.linspace(0.0, k_max, _INTERVALS)
        low = np.flatnonzero(self.power(group, k) < 2 * _FLOOR)
        return float(k[low[0]]) if len(low) else None

    def plain(self) -> dict[str, Any]:
        """As JSON values, without micrographs."""
        return {
            "top": self.top,
            "spectra": [list(row) for row in self.spectra],
            "background": [list(row) for row in self.background],
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> NoiseModel:
        """The inverse of `plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            If the values are no such model.
        """
        spectra, background = (
            tuple(tuple(float(c) for c in row) for row in values[name]) for name in ("spectra", "background")
        )
        if len({len(row) for row in (*spectra, *background)}) != 1 or not spectra or not spectra[0]:
            raise ValueError("noise spectra of different lengths, or none")
        if len(background) not in (0, len(spectra)) or not float(values["top"]) > 0:
            raise ValueError("noise spectra without a background or a frequency")
        return cls(float(values["top"]), spectra, background)

    def coefficients(self, groups: np.ndarray, rows: np.ndarray | None) -> Tensor:
        """c of particles: float64 [m, J] from their optics groups [m] and their rows in the run [m] (None: of the group)."""
        found = np.array(self.spectra)[groups]
        if self.micrographs is not None and rows is not None:
            which = self.micrographs.of_particle[rows]
            found = found + np.where((which >= 0)[:, None], self.micrographs.differences[which], 0.0)
        return torch.from_numpy(found)

    def arguments(self, groups: np.ndarray, rows: np.ndarray | None = None) -> dict[str, Tensor]:
        """What `CtfPoints` needs to divide CTFs by √P: ``noise`` float64 [m, J] and ``noise_top`` [m]; see `coefficients`."""
        found = self.coefficients(groups, rows)
        return {"noise": found, "noise_top": torch.full((len(found),), self.top, dtype=torch.float64)}


def term_count(box: int) -> int:
    """J for images of ``box`` pixels: 1/√P then reaches over a quarter of the box at most."""
    return int(np.clip(box // 4, _FEWEST_TERMS, _MOST_TERMS))


def spectrum_cosines(k: Tensor, top: float, count: int) -> Tensor:
    """cos(π j k / top), k no larger than ``top``: float64 [count, ...]."""
    angle = (np.pi / top) * k.to(torch.float64).clamp(max=top)
    order = torch.arange(count, dtype=torch.float64, device=k.device)
    return torch.cos(order.view(-1, *[1] * k.ndim) * angle)


def log_amplitude(coefficients: Tensor, cosines: Tensor) -> Tensor:
    """½ ln P, float64 [m, ...], or [1, ...] where all rows of the coefficients [m, J] are the same."""
    rows = coefficients[:1] if bool((coefficients == coefficients[:1]).all()) else coefficients
    return torch.tensordot(rows, cosines, 1)


def whitened(images: Tensor, pixel_size: float, noise: NoiseModel, group: int, rows: np.ndarray | None = None) -> Tensor:
    """Images [m, N, N] of one optics group (pixel size in Å) with their transforms divided by √P.

    With their rows [m] in the run by the spectra of their micrographs, where these are known.

    An image is continued periodically, as simulated noise is; what comes in at an edge from the opposite one stays within the
    reach of 1/√P.
    """
    box = images.shape[-1]
    ky = torch.fft.fftfreq(box, pixel_size, dtype=torch.float64)[:, None]
    kx = torch.fft.rfftfreq(box, pixel_size, dtype=torch.float64)
    cosines = spectrum_cosines(torch.hypot(kx, ky), noise.top, len(noise.spectra[group]))
    coefficients = noise.coefficients(np.full(len(images), group), rows)
    weights = torch.exp(-log_amplitude(coefficients, cosines)).to(images.device, images.dtype)
    return torch.fft.irfft2(torch.fft.rfft2(images) * weights, s=(box, box))


def fitted_spectrum(k: np.ndarray, power: np.ndarray, count: np.ndarray, top: float, terms: int) -> tuple[float, ...]:
    """Coefficients of a smooth spectrum through the mean powers of rings.

    Parameters
    ----------
    k : float64 [r]
        1/Å.
    power : float64 [r]
        Mean power of each ring, in any unit.
    count : float64 [r]
        Independent values that were averaged; the variance of ½ ln power is half of the inverse. 0: nothing is known.
    top : float
        1/Å.
    terms : int
        J.

    Returns
    -------
    tuple of float
        All 0, white, where there is no power.
    """
    known = (count > 0) & np.isfinite(power) & (k <= top * (1 + 1e-9))
    weights = np.where(known, np.maximum(k, 0.0), 0.0)
    mean = float(weights @ np.where(known, power, 0.0) / weights.sum()) if weights.sum() > 0 else 0.0
    if not mean > 0:
        return (0.0,) * terms
    cosines = spectrum_cosines(torch.as_tensor(k[known]), top, terms).numpy()
    logs = 0.5 * np.log(np.maximum(power[known], _FLOOR * mean) / mean)
    precision = 2.0 * count[known]
    penalty = np.diag((np.arange(terms) ** 2 / _WIDTH) ** 2)
    fit = np.linalg.solve((cosines * precision) @ cosines.T + penalty + 1e-9 * np.eye(terms), cosines @ (precision * logs))
    return unit_mean(fit, top)


def unit_mean(coefficients: np.ndarray, top: float) -> tuple[float, ...]:
    """The same spectrum with mean 1 over the disc up to ``top``."""
    edges = np.linspace(0.0, top, _INTERVALS + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    cosines = spectrum_cosines(torch.as_tensor(middle), top, len(coefficients)).numpy()
    mean = np.average(np.exp(2.0 * coefficients @ cosines), weights=middle)
    result = np.array(coefficients, dtype=np.float64)
    result[0] -= 0.5 * np.log(mean)
    return tuple(float(c) for c in result)
