"""Images without flipped phases, antisymmetric aberrations and anisotropic magnification."""

from __future__ import annotations

from collections.abc import Mapping

import finufft
import numpy as np
import torch
from torch import Tensor

from .ctf import CtfPoints
from .particles import OpticsGroup

__all__ = ["corrected"]

_ACCURACY = {torch.float32: 1e-6, torch.float64: 1e-12}


def corrected(images: Tensor, group: OpticsGroup, arguments: Mapping[str, Tensor]) -> Tensor:
    """Undo the phases and the distortion of a group's images; see `aberrations` for the model.

    Flipped phases are turned back where the CTF of lowest order is negative, as programs that flip them do. The transform is
    multiplied by ``exp(−i φ(M k))``. Where M is not one, the image that belongs to it is then evaluated, by
    the trigonometric polynomial through its pixels, at ``Mᵀ x`` for every pixel x about the centre ``N // 2``. White noise
    stays white; what comes from beyond an edge comes in at the opposite one.

    Parameters
    ----------
    images : Tensor [m, N, N]
        float32 or float64.
    group : OpticsGroup
    arguments : mapping of name to float64 Tensor [m]
        Of `ctf`.

    Returns
    -------
    Tensor [m, N, N]
        The given images where nothing has to be done.
    """
    aberrations = group.aberrations
    if not aberrations.changes_images and not group.phase_flipped:
        return images
    box = images.shape[-1]
    frequency = np.fft.fftfreq(box, group.pixel_size)
    ky, kx = np.meshgrid(frequency, frequency, indexing="ij")
    qx, qy = (row[0] * kx + row[1] * ky for row in aberrations.matrix)
    phase = torch.as_tensor(aberrations.odd_phase(qx, qy), device=images.device) if any(aberrations.odd) else torch.zeros(1)
    factor = torch.polar(torch.ones_like(phase), -phase)
    spectrum = torch.fft.fft2(images) * factor.to(images.device, torch.promote_types(images.dtype, torch.complex64))
    if group.phase_flipped:
        lowest = {name: values for name, values in arguments.items() if name != "even"}
        transfer = CtfPoints(kx, ky, images.device)(lowest, images.dtype)
        spectrum = torch.where(transfer < 0, -spectrum, spectrum)
    if not aberrations.distorts:
        return torch.fft.ifft2(spectrum).real
    return _distorted(spectrum, aberrations.matrix.T).to(images)


def _distorted(spectrum: Tensor, matrix: np.ndarray) -> Tensor:
    """Real images [m, N, N] whose value at x is that of the transformed ones at ``matrix · x``, both about the centre."""
    box = spectrum.shape[-1]
    real = torch.float32 if spectrum.dtype == torch.complex64 else torch.float64
    offset = np.arange(box) - box // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    # The corner is pixel 0 of the transform, the centre pixel box // 2.
    at_x, at_y = (2 * np.pi / box * (row[0] * x + row[1] * y + box // 2).ravel() for row in matrix)
    kind = np.float32 if real == torch.float32 else np.float64
    coefficients = torch.fft.fftshift(spectrum, dim=(-2, -1)) / box**2
    values = finufft.nufft2d2(
        np.ascontiguousarray(at_y, dtype=kind),
        np.ascontiguousarray(at_x, dtype=kind),
        np.ascontiguousarray(coefficients.cpu().numpy()),
        isign=1,
        eps=_ACCURACY[real],
        nthreads=torch.get_num_threads(),
    )
    return torch.from_numpy(np.ascontiguousarray(values.real)).reshape(-1, box, box)
