"""An atomic model's Fourier transform, exactly, and a density with the same transform within a band."""

from __future__ import annotations

from dataclasses import dataclass

import finufft
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from .atoms import AtomModel, FormFactor
from .gridding import LEAST_CELLS, kernel_plan, kernel_transform
from .polar_grid import fft_friendly

_VOXELS_PER_WAVE = 4.0  # voxel = 1 / (4 k_max): Nyquist is at twice the band limit
_TAIL = 3.0  # the roll-off's ringing dies within this distance, in 1 / k_max
_KAISER_BETA = 9.0
_SPREAD_EPS = 1e-5
_EXACT_EPS = 1e-13
_POINTS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Density:
    """A cubic density, float32 [z, y, x], centre at ``N // 2``, with its voxel size in Å."""

    values: NDArray[np.float32]
    pixel_size: float


def transform(model: AtomModel, frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """``Σ_j w_j f_j(|k|) exp(−2πi k·x_j)`` at frequencies (kx, ky, kz) in 1/Å.

    Computed in double precision by a non-uniform FFT of type 3 for each form factor, to about 1e-12 of its
    largest value.

    Parameters
    ----------
    model : AtomModel
        Scatterers.
    frequencies : float64 [P, 3]
        Where.

    Returns
    -------
    complex128 [P]
    """
    total = np.zeros(len(frequencies), dtype=np.complex128)
    for index, form in enumerate(model.forms):
        mine = model.form_index == index
        x, y, z = (np.ascontiguousarray(axis) for axis in model.positions[mine].T)
        weights = model.weights[mine].astype(np.complex128)
        for start in range(0, len(frequencies), _POINTS_AT_ONCE):
            part = frequencies[start : start + _POINTS_AT_ONCE]
            s, t, u = (np.ascontiguousarray(2.0 * np.pi * axis) for axis in part.T)
            phases = finufft.nufft3d3(x, y, z, weights, s, t, u, eps=_EXACT_EPS, isign=-1, nthreads=torch.get_num_threads())
            total[start : start + _POINTS_AT_ONCE] += form.at(np.linalg.norm(part, axis=1)) * phases
    return total


def band_limited_density(model: AtomModel, k_max: float) -> Density:
    """A density whose transform is the model's for ``|k| ≤ k_max``.

    The scatterers of each form factor are spread on voxels of ``1/(4 k_max)`` with a compact kernel, and the
    sum is divided by the kernel's transform and multiplied by the form factor, in Fourier space. Between
    k_max and Nyquist (2 k_max) the transform is rolled off by a Kaiser window's integral, whose ringing in
    space ends within the box. Error at any frequency in the band: below 1e-4 of the largest value.

    Memory grows with the box only: about 24 bytes a voxel, however many atoms there are.

    Parameters
    ----------
    model : AtomModel
        Scatterers.
    k_max : float
        Band limit, 1/Å.
    """
    pixel_size = 1.0 / (_VOXELS_PER_WAVE * k_max)
    reach = float(np.max(np.linalg.norm(model.positions, axis=1)))
    half = (reach + _TAIL / k_max + max(form.extent for form in model.forms)) / pixel_size
    size = fft_friendly(max(2 * int(np.ceil(half)), LEAST_CELLS), 2)
    total = np.zeros((size, size, size // 2 + 1), dtype=np.complex64)
    mode = scipy.fft.fftfreq(size, 1.0 / size).astype(np.int64)
    step = 1.0 / (size * pixel_size)
    window = 1.0 / kernel_transform(size, mode, _SPREAD_EPS, np.complex64)
    for index, form in enumerate(model.forms):
        spectrum = _spread_spectrum(model, model.form_index == index, size, pixel_size)
        _add_filtered(total, spectrum, form, mode * step, window, k_max)
    total /= pixel_size**3
    values = scipy.fft.irfftn(total, s=(size,) * 3, overwrite_x=True, workers=torch.get_num_threads())
    return Density(np.ascontiguousarray(scipy.fft.fftshift(values)), pixel_size)


def _spread_spectrum(model: AtomModel, mine: NDArray[np.bool_], size: int, pixel_size: float) -> NDArray[np.complex64]:
    """rfftn of chosen scatterers spread on the voxels with the kernel, the origin at voxel 0."""
    plan = kernel_plan(1, (size,) * 3, _SPREAD_EPS, np.complex64)
    points = (2.0 * np.pi / (size * pixel_size) * model.positions[mine]).astype(np.float32)
    plan.setpts(*(np.ascontiguousarray(axis) for axis in points.T[::-1]))
    spread = plan.execute(model.weights[mine].astype(np.complex64))
    real = np.ascontiguousarray(spread.real)
    del spread
    return scipy.fft.rfftn(scipy.fft.ifftshift(real), overwrite_x=True, workers=torch.get_num_threads())


def _add_filtered(
    total: NDArray[np.complex64],
    spectrum: NDArray[np.complex64],
    form: FormFactor,
    frequency: NDArray[np.float64],
    window: NDArray[np.float64],
    k_max: float,
) -> None:
    """Add spectrum · form(|k|) · roll-off(|k|) · window to the total, plane by plane."""
    last = total.shape[2]
    across = frequency[:, None] ** 2 + frequency[None, :last] ** 2
    table = np.linspace(0.0, 2.0 * k_max, 8193)
    response = form.at(table) * _roll_off(table / k_max)
    plane_window = window[:, None] * window[None, :last]
    for z, kz in enumerate(frequency):
        k = np.sqrt(across + kz**2)
        gain = np.interp(k, table, response, right=0.0) * plane_window * window[z]
        total[z] += spectrum[z] * gain.astype(np.float32)


def _roll_off(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 up to k = 1, 0 from k = 2, and the integral of a Kaiser window between."""
    fine = np.linspace(-1.0, 1.0, 4097)
    rise = np.cumsum(np.i0(_KAISER_BETA * np.sqrt(np.maximum(1.0 - fine**2, 0.0))))
    return 1.0 - np.interp(2.0 * k - 3.0, fine, rise / rise[-1], left=0.0, right=1.0)
