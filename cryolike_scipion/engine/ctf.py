"""The contrast transfer function in RELION's convention.

    χ(k, θ) = π λ k² Δf(θ) − (π/2) Cs λ³ k⁴ + φ
    Δf(θ)   = (U + V)/2 + (U − V)/2 · cos 2(θ − θ_ast)
    CTF     = scale · exp(−B k²/4) · (√(1 − A²) sin χ + A cos χ)

Symmetric aberrations of higher order, where there are any, are subtracted from χ; see `aberrations`.

Underfocus is positive, and the CTF is then positive at low k, so that protein is bright in a particle that
RELION calls "white". U and V are in Å, θ_ast is the angle of the U axis from +x towards +y, φ the phase shift
of a phase plate, A the amplitude contrast. The signed astigmatism U − V is used, as in RELION: where U < V
the axis of larger defocus is perpendicular to θ_ast, and swapping U with V while turning θ_ast by 90° changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..constants import RELATIVISTIC_PER_VOLT, WAVELENGTH_VOLT
from .aberrations import even_polynomials
from .noise_spectrum import log_amplitude, spectrum_cosines

_ANGSTROM_PER_MM = 1e7


def wavelength(voltage_kv: Tensor | float) -> Tensor:
    """Electron wavelength in Å, float64, from the acceleration voltage in kV (any shape)."""
    volt = torch.as_tensor(voltage_kv, dtype=torch.float64) * 1e3
    return WAVELENGTH_VOLT / torch.sqrt(volt * (1.0 + RELATIVISTIC_PER_VOLT * volt))


def ctf(
    k: Tensor,
    theta: Tensor,
    defocus_u: Tensor | float,
    defocus_v: Tensor | float,
    defocus_angle_deg: Tensor | float,
    voltage_kv: Tensor | float,
    cs_mm: Tensor | float,
    amplitude_contrast: Tensor | float,
    phase_shift_deg: Tensor | float = 0.0,
    bfactor: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    even: Tensor | None = None,
) -> Tensor:
    """CTF at given spatial frequencies; every argument broadcasts against every other.

    Parameters
    ----------
    k : Tensor
        Length of the spatial frequency, Å⁻¹. Its dtype and device decide those of the result; the phase is
        evaluated in float64 and only the result is rounded, because χ reaches hundreds of radians.
    theta : Tensor
        Angle of the spatial frequency from +kx (along image columns) towards +ky, radians.
    defocus_u, defocus_v : Tensor or float
        Defocus along the two principal axes, Å, positive for underfocus.
    defocus_angle_deg : Tensor or float
        Angle of the U axis, degrees.
    voltage_kv : Tensor or float
        Acceleration voltage, kV.
    cs_mm : Tensor or float
        Spherical aberration, mm.
    amplitude_contrast : Tensor or float
        Amplitude contrast A in [0, 1].
    phase_shift_deg : Tensor or float
        Phase shift φ, degrees.
    bfactor : Tensor or float
        B in exp(−B k²/4), Å².
    scale : Tensor or float
        Factor of the whole CTF (``rlnCtfScalefactor``).
    even : Tensor [..., j], optional
        Coefficients of the symmetric aberrations, radians, behind the axes that broadcast.

    Returns
    -------
    Tensor
        Real, of the broadcast shape, dtype and device of ``k``.

    Examples
    --------
    For images m on a polar grid (radii n, angles w), give per-image values as ``[m, 1, 1]``, ``k`` as ``[n,
    1]`` and ``theta`` as ``[w]``; the result is ``[m, n, w]``.
    """
    lam = wavelength(torch.as_tensor(voltage_kv, dtype=torch.float64, device=k.device))
    return ctf_of_wavelength(
        k,
        theta,
        defocus_u,
        defocus_v,
        defocus_angle_deg,
        lam,
        cs_mm,
        amplitude_contrast,
        phase_shift_deg,
        bfactor,
        scale,
        even,
    )


def ctf_of_wavelength(
    k: Tensor,
    theta: Tensor,
    defocus_u: Tensor | float,
    defocus_v: Tensor | float,
    defocus_angle_deg: Tensor | float,
    wavelength_angstrom: Tensor | float,
    cs_mm: Tensor | float,
    amplitude_contrast: Tensor | float,
    phase_shift_deg: Tensor | float = 0.0,
    bfactor: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    even: Tensor | None = None,
) -> Tensor:
    """CTF for an electron wavelength in Å in place of a voltage; all else as in :func:`ctf`."""
    device = k.device

    def double(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=device)

    k2 = double(k) ** 2
    u, v, contrast, lam = (double(x) for x in (defocus_u, defocus_v, amplitude_contrast, wavelength_angstrom))
    axis = torch.deg2rad(double(defocus_angle_deg))
    defocus = 0.5 * (u + v) + 0.5 * (u - v) * torch.cos(2.0 * (double(theta) - axis))
    spherical = 0.5 * math.pi * _ANGSTROM_PER_MM * double(cs_mm) * lam**3
    chi = math.pi * lam * k2 * defocus - spherical * k2**2 + torch.deg2rad(double(phase_shift_deg))
    if even is not None:
        kx, ky = double(k) * torch.cos(double(theta)), double(k) * torch.sin(double(theta))
        for j, shape in enumerate(even_polynomials(even.shape[-1], kx.cpu().numpy(), ky.cpu().numpy())):
            chi = chi - double(even[..., j]) * double(shape)
    value = torch.sqrt(1.0 - contrast**2) * torch.sin(chi) + contrast * torch.cos(chi)
    value = value * double(scale) * torch.exp(-0.25 * double(bfactor) * k2)
    return value.to(k.dtype)


class CtfPoints:
    """Many CTFs at the same frequencies, as :func:`ctf` and faster.

    χ / 2π is linear in k², kx² − ky², 2 kx ky, k⁴, 1 and the symmetric polynomials, and ``√(1 − A²) sin χ + A cos χ =
    sin(χ + asin A)``: one product of matrices in float64, less whole turns, and one sine in the precision wanted.

    Parameters
    ----------
    kx, ky : float64 array [...]
        Frequencies, Å⁻¹, along columns and rows.
    """

    def __init__(self, kx: ArrayLike, ky: ArrayLike, device: torch.device | str = "cpu") -> None:
        x, y = (torch.as_tensor(np.asarray(k, dtype=np.float64), device=device) for k in (kx, ky))
        k2 = x**2 + y**2
        self._shape = k2.shape
        self._basis = torch.stack([k2, x**2 - y**2, 2.0 * x * y, k2**2, torch.ones_like(k2)]).flatten(1)
        self._points = x.flatten().cpu().numpy(), y.flatten().cpu().numpy()
        self._even = self._basis[:0]
        self._cosines: tuple[tuple[float, int], Tensor] | None = None

    def __call__(self, arguments: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """CTFs [m, ...] of the given dtype for keyword arguments of :func:`ctf`, each float64 [m]; the last four may lack.

        With ``noise`` and ``noise_top`` (`NoiseModel.arguments`) they are divided by the root of the noise's power.
        """
        lam = wavelength(arguments["voltage_kv"]).to(self._basis.device)
        u, v = arguments["defocus_u"], arguments["defocus_v"]
        axis = torch.deg2rad(arguments["defocus_angle_deg"])
        mean, half = 0.25 * lam * (u + v), 0.25 * lam * (u - v)
        spherical = -0.25 * _ANGSTROM_PER_MM * arguments["cs_mm"] * lam**3
        constant = torch.asin(arguments["amplitude_contrast"]) / (2.0 * math.pi)
        if "phase_shift_deg" in arguments:
            constant = constant + arguments["phase_shift_deg"] / 360.0
        terms = torch.stack([mean, half * torch.cos(2.0 * axis), half * torch.sin(2.0 * axis), spherical, constant], dim=1)
        turns = terms @ self._basis
        if "even" in arguments:
            turns -= arguments["even"] @ self._even_basis(arguments["even"].shape[1])
        turns = turns.frac_().to(dtype)
        value = turns.mul_(2.0 * math.pi).sin_()
        bfactor, scale = arguments.get("bfactor"), arguments.get("scale")
        if bfactor is not None and bool((bfactor != 0).any()):
            value *= torch.exp(torch.outer(-0.25 * bfactor, self._basis[0])).to(dtype)
        if scale is not None and bool((scale != 1).any()):
            value *= scale[:, None].to(dtype)
        if "noise" in arguments:
            value *= torch.exp(-self._log_amplitude(arguments["noise"], float(arguments["noise_top"][0]))).to(dtype)
        return value.unflatten(1, self._shape)

    def _log_amplitude(self, coefficients: Tensor, top: float) -> Tensor:
        """½ ln P at the points, float64 [m or 1, points]."""
        key = top, coefficients.shape[1]
        known = self._cosines
        if known is None or known[0] != key:
            known = key, spectrum_cosines(self._basis[0].sqrt(), *key)
            self._cosines = known
        return log_amplitude(coefficients, known[1])

    def _even_basis(self, count: int) -> Tensor:
        """The first symmetric polynomials in turns, float64 [count, points]; made when first asked for."""
        if len(self._even) < count:
            shapes = even_polynomials(count, *self._points) / (2.0 * math.pi)
            self._even = torch.from_numpy(shapes).to(self._basis.device)
        return self._even[:count]
