"""The power <T,T> of a template behind every image's CTF, exactly and without a CTF-sized grid.

``a(psi) = ∫ CTF²(k, theta) |T(k, theta + psi)|² d²k``. The template is band-limited in radius by its extent, but CTF²
oscillates faster the larger the defocus. So |T|² is known at a few *power nodes* and CTF² is integrated against the
polynomials through these nodes on a radial rule as fine as the defocus needs (product integration): the weight of each
power node is particular to the image, the template side is common to all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import jv
from torch import Tensor

from .aberrations import even_polynomials
from .ctf import CtfPoints, wavelength
from .noise_spectrum import NoiseModel
from .particles import Particles
from .polar_grid import PolarGrid, choose_grid, gauss_radial_rule, radial_interpolation

__all__ = [
    "PowerRule",
    "ctf_arguments",
    "delocalisation",
    "power_by_angle",
    "power_rule",
    "power_weights",
    "ring_ctf",
    "ring_power",
    "template_power",
]

_ACCURACY = 1e-6


@dataclass(frozen=True)
class PowerRule:
    """Nodes at which |T|² is known, and how to get there from the search grid.

    Attributes
    ----------
    radii : float64 [p]
        Power nodes, 1/Å.
    from_grid : float64 [p, n]
        Interpolation of a template from the search grid's radii to the power nodes.
    fine_radii, fine_weights : float64 [f]
        Rule that resolves CTF² |T|².
    to_nodes : float64 [f, p]
        Interpolation of |T|² from the power nodes to the fine radii.
    n_orders : int
        Angular orders 0, 2, 4, … of CTF² that are kept; one where no image is astigmatic.
    """

    radii: np.ndarray
    from_grid: np.ndarray
    fine_radii: np.ndarray
    fine_weights: np.ndarray
    to_nodes: np.ndarray
    n_orders: int

    @property
    def n_angles(self) -> int:
        """Angles over [0, pi) at which CTF² is sampled."""
        return 1 if self.n_orders == 1 else 2 * self.n_orders


def ctf_arguments(
    particles: Particles, index: np.ndarray, device: torch.device | str = "cpu", noise: NoiseModel | None = None
) -> dict[str, Tensor]:
    """Keyword arguments of `ctf` for some particles, each float64 [m]; ``even`` [m, j] where one has such aberrations.

    With ``noise`` those of `CtfPoints` for whitened images; the particles are then those of the run.
    """
    optics = particles.optics_index[index]

    def of_group(name: str) -> np.ndarray:
        return np.array([getattr(group, name) for group in particles.optics], dtype=np.float64)[optics]

    values = {
        "defocus_u": particles.defocus_u[index],
        "defocus_v": particles.defocus_v[index],
        "defocus_angle_deg": particles.defocus_angle_deg[index],
        "voltage_kv": of_group("voltage_kv"),
        "cs_mm": of_group("cs_mm"),
        "amplitude_contrast": of_group("amplitude_contrast"),
        "phase_shift_deg": particles.phase_shift_deg[index],
        "bfactor": particles.ctf_bfactor[index],
        "scale": particles.ctf_scale[index],
    }
    count = max(len(group.aberrations.even) for group in particles.optics)
    if count:
        groups = np.zeros((len(particles.optics), count))
        for row, group in zip(groups, particles.optics):
            row[: len(group.aberrations.even)] = group.aberrations.even
        values["even"] = groups[optics]
    if noise is not None:
        values |= {key: value.numpy() for key, value in noise.arguments(optics, index).items()}
    return {key: torch.as_tensor(np.asarray(value, np.float64), device=device) for key, value in values.items()}


def delocalisation(arguments: dict[str, Tensor], k_max: float) -> float:
    """Largest distance (Å) by which these CTFs move detail up to k_max: lambda k |defocus - Cs lambda² k²|, and what symmetric
    aberrations add, their slope over 2 pi, and what whitening adds."""
    lam = wavelength(arguments["voltage_kv"])
    largest = torch.maximum(arguments["defocus_u"].abs(), arguments["defocus_v"].abs())
    spherical = arguments["cs_mm"] * 1e7 * lam**2 * k_max**2
    further = _even_slope(arguments["even"], k_max) / (2 * np.pi) if "even" in arguments else 0.0
    if "noise" in arguments:
        further = further + (arguments["noise"].shape[1] - 1) / (2 * arguments["noise_top"])
    return float((lam * k_max * torch.maximum(largest, spherical) + further).max())


def _even_slope(even: Tensor, k_max: float) -> Tensor:
    """Largest slope (radian Å) of symmetric aberrations within the band, [m]."""
    rows = even.cpu().numpy()
    # Few rows differ, those of the optics groups; one irrational mixture of the columns tells them apart quickly.
    _, first, inverse = np.unique(rows @ np.sqrt(np.arange(2.0, rows.shape[1] + 2)), return_index=True, return_inverse=True)
    unique = torch.from_numpy(rows[first])
    theta, radius = np.meshgrid(np.pi * np.arange(32) / 32, k_max * np.arange(1, 9) / 8)
    kx, ky, step = radius * np.cos(theta), radius * np.sin(theta), 1e-4 * k_max
    along = [
        even_polynomials(even.shape[1], kx + dx, ky + dy) - even_polynomials(even.shape[1], kx - dx, ky - dy)
        for dx, dy in ((step, 0.0), (0.0, step))
    ]
    slopes = [unique @ torch.from_numpy(one).flatten(1) / (2 * step) for one in along]
    return torch.hypot(*slopes).amax(dim=1)[torch.from_numpy(inverse)].to(even.device)


def power_rule(grid: PolarGrid, template_radius: float, arguments: dict[str, Tensor]) -> PowerRule:
    """Rule for templates of ``template_radius`` (Å) behind the CTFs of ``arguments`` (any number of images)."""
    k_max = grid.k_max
    spread = delocalisation(arguments, k_max)
    nodes = choose_grid(k_max, 2 * template_radius, 2 * template_radius, _ACCURACY).radii
    fine = choose_grid(k_max, 2 * spread + 1e-3 / k_max, 2 * template_radius, _ACCURACY).n_radii
    fine = max(fine, 2 * len(nodes))
    fine_radii, fine_weights = gauss_radial_rule(fine, k_max)
    astigmatism = (arguments["defocus_u"] - arguments["defocus_v"]).abs()
    swing = np.pi * wavelength(arguments["voltage_kv"]) * k_max**2 * astigmatism
    if "even" in arguments:
        swing = swing + k_max * _even_slope(arguments["even"], k_max)  # of the phase around a ring, as the first term
    largest = float(swing.max())
    orders = 1
    while orders < 64 and abs(float(jv(orders, largest))) > _ACCURACY:
        orders += 1
    return PowerRule(
        radii=nodes,
        from_grid=radial_interpolation(grid.radii, nodes),
        fine_radii=fine_radii,
        fine_weights=fine_weights,
        to_nodes=radial_interpolation(nodes, fine_radii),
        n_orders=min(orders, grid.n_half // 2),
    )


def ring_ctf(arguments: dict[str, Tensor], radii: np.ndarray) -> np.ndarray:
    """CTF² at radii (1/Å), mean over angles and at most 64 images, float64 [n]; behind whitening that of what is left."""
    count = len(arguments["voltage_kv"])
    few = np.unique(np.linspace(0, count - 1, min(count, 64)).astype(np.int64))
    theta = np.pi * np.arange(8) / 8
    points = CtfPoints(radii[:, None] * np.cos(theta), radii[:, None] * np.sin(theta))
    some = {name: value[few] for name, value in arguments.items()}
    return points(some, torch.float64).square().mean(dim=(0, 2)).numpy()


def power_weights(rule: PowerRule, arguments: dict[str, Tensor]) -> Tensor:
    """Weights of the images: complex64 [m, p, j], orders 0, 2, … 2 (J - 1) in theta of ``∫ CTF² · l_p`` .

    ``a(psi) = Re Σ_p (w_p0 P_p0 + 2 Σ_{j>0} conj(w_pj) P_pj exp(2 i j psi))`` with P from `ring_power`.
    """
    device = arguments["voltage_kv"].device
    radii, theta = rule.fine_radii[:, None], np.pi * np.arange(rule.n_angles) / rule.n_angles
    transfer = CtfPoints(radii * np.cos(theta), radii * np.sin(theta), device)(arguments, torch.float64)
    squared = transfer.square_().float()
    orders = squared @ _waves(rule.n_angles, rule.n_orders, device)
    matrix = torch.as_tensor((rule.to_nodes * rule.fine_weights[:, None]).T, dtype=torch.float32, device=device)
    return torch.view_as_complex(torch.matmul(matrix, orders).unflatten(2, (rule.n_orders, 2)))


def _waves(count: int, orders: int, device: torch.device | str) -> Tensor:
    """exp(−2πi j w / count) / count, real and imaginary parts alternating: float32 [count, 2 orders]."""
    phase = -2 * np.pi / count * torch.outer(torch.arange(count, dtype=torch.float64), torch.arange(orders))
    return torch.view_as_real(torch.polar(torch.ones_like(phase), phase) / count).flatten(1).to(device, torch.float32)


def ring_power(rule: PowerRule, slices: Tensor) -> Tensor:
    """|T|² at the power nodes by angular order: complex64 [v, p, j] from half-circle slices [v, n, W/2]."""
    real, device, count = slices.real.dtype, slices.device, slices.shape[-1]
    matrix = torch.as_tensor(rule.from_grid, dtype=real, device=device)
    # Real and imaginary parts side by side: one real product for both.
    at_nodes = torch.matmul(matrix, torch.view_as_real(slices).flatten(2))
    if rule.n_orders == 1:
        return (torch.linalg.vector_norm(at_nodes, dim=-1, keepdim=True) ** 2 / count).to(torch.complex64)
    waves = _waves(count, rule.n_orders, device).to(real).repeat_interleave(2, dim=0)  # of real and of imaginary parts
    orders = at_nodes.square_() @ waves
    return torch.view_as_complex(orders.unflatten(2, (rule.n_orders, 2))).to(torch.complex64)


def template_power(weights: Tensor, power: Tensor, n_inplane: int | None = None) -> Tensor:
    """a for every image and view: float32 [m, v], averaged over psi, or [m, v, n_inplane] with ``n_inplane``."""
    mean = weights[..., 0].real @ power[..., 0].real.T
    if n_inplane is None or weights.shape[-1] == 1:
        return mean if n_inplane is None else mean[..., None].expand(-1, -1, n_inplane)
    return power_by_angle(torch.einsum("mpj,vpj->mvj", weights.conj(), power), n_inplane)


def power_by_angle(orders: Tensor, n_inplane: int) -> Tensor:
    """a at every in-plane angle: float32 [..., n_inplane] from its even angular orders [..., j]."""
    spectrum = torch.zeros(*orders.shape[:-1], n_inplane // 2 + 1, dtype=orders.dtype, device=orders.device)
    count = min(orders.shape[-1], n_inplane // 4 + 1)
    spectrum[..., 0 : 2 * count : 2] = orders[..., :count]
    return torch.fft.irfft(spectrum, n=n_inplane, dim=-1, norm="forward")
