"""Best poses off the grid: all five parameters by Fisher scoring.

Near its maximum the log-likelihood of a pose is that of a least-squares fit, so the expected second derivative is
``alpha²/lambda² <dT/dx_i, dT/dx_j>`` with both derivatives behind the CTF. It is positive definite whatever the noise, and a
damped step with it (Levenberg-Marquardt) never has to be guessed. Rotations are changed by small turns about the image's
own axes, ``A' = exp([omega]) A``, so there are no poles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from .likelihood import ScalePrior
from .polar_images import PolarImages
from .pose_scores import PoseScores, collect, pose_batch, posed_products, score_poses, shift_phase
from .template_bank import TemplateBank
from .template_power import ring_power

__all__ = ["RefinedPoses", "refine_poses"]

_SETTLED = 1e-5  # nat; a pose that gains less is at its maximum
_STEP = np.deg2rad(0.5)  # of the numerical derivatives with respect to the view


@dataclass(frozen=True)
class RefinedPoses:
    """Refined poses [r] and their scores.

    Attributes
    ----------
    rotation : float64 [r, 3, 3]
    origin : float64 [r, 2]
        Å.
    scores : PoseScores
    """

    rotation: np.ndarray
    origin: np.ndarray
    scores: PoseScores


def refine_poses(
    images: PolarImages,
    rotations: np.ndarray,
    origins: np.ndarray,
    bank: TemplateBank,
    prior: ScalePrior,
    reach: float,
    iterations: int = 6,
) -> RefinedPoses:
    """Climb from given poses to the nearest maxima of the likelihood.

    Parameters
    ----------
    images : PolarImages
        One image per pose.
    rotations : float64 [r, 3, 3]
    origins : float64 [r, 2]
        Å.
    bank : TemplateBank
    prior : ScalePrior
    reach : float
        Longest change of the origin in one iteration, Å; turns are limited to 2° each.
    iterations : int
        Steps tried per pose.
    """
    rotations, origins = rotations.copy(), origins.copy()
    batch = pose_batch(bank) // 6 + 1
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        rotations[part], origins[part] = _climb(
            images.take(part), rotations[part], origins[part], bank, prior, reach, iterations
        )
    return RefinedPoses(rotations, origins, score_poses(images, rotations, origins, bank, prior))


def _climb(images, rotations, origins, bank, prior, reach, iterations) -> tuple[np.ndarray, np.ndarray]:
    rotations, origins = rotations.copy(), origins.copy()
    damping = np.full(len(images), 1e-3)
    slices = bank.slices(rotations)
    power, product = posed_products(images, slices, shift_phase(bank, origins), bank)
    best = collect(images, power, product, prior)
    rows = np.arange(len(images))  # those that still climb
    for _ in range(iterations):
        step = _step(images, rotations[rows], origins[rows], slices, best, damping[rows], bank, prior, reach)
        tried_rotation = Rotation.from_rotvec(step[:, :3]).as_matrix() @ rotations[rows]
        tried_origin = origins[rows] + step[:, 3:]
        tried_slices = bank.slices(tried_rotation)
        power, product = posed_products(images, tried_slices, shift_phase(bank, tried_origin), bank)
        tried = collect(images, power, product, prior)
        gain = tried.log_ratio - best.log_ratio
        better = gain > 0
        rotations[rows] = np.where(better[:, None, None], tried_rotation, rotations[rows])
        origins[rows] = np.where(better[:, None], tried_origin, origins[rows])
        damping[rows] = np.where(better, damping[rows] / 3, np.minimum(damping[rows] * 10, 1e3))
        climbs = (gain > _SETTLED) | (~better & (damping[rows] < 100.0))
        if not climbs.any():
            break
        keep = torch.as_tensor(better, device=slices.device)[:, None, None]
        chosen = torch.from_numpy(np.flatnonzero(climbs)).to(slices.device)
        slices = torch.where(keep, tried_slices, slices)[chosen]
        best = PoseScores(*(np.where(better, getattr(tried, f), getattr(best, f))[climbs] for f in PoseScores.__annotations__))
        images, rows = images.take(chosen), rows[climbs]
    return rotations, origins


def _step(images, rotations, origins, slices, best: PoseScores, damping, bank, prior, reach: float) -> np.ndarray:
    """Damped change of rotation vectors (radian) and origins (Å): float64 [r, 5]."""
    gradient, fisher = _derivatives(images, rotations, origins, slices, best, bank, prior)
    diagonal = np.einsum("rii->ri", fisher)
    damped = fisher + np.einsum("r,ri,ij->rij", damping, diagonal, np.eye(5))
    step = np.linalg.solve(damped + 1e-12 * np.eye(5), gradient[..., None])[..., 0]
    step[:, :3] = _shorten(step[:, :3], np.deg2rad(2.0))
    step[:, 3:] = _shorten(step[:, 3:], reach)
    return step


def _shorten(vectors: np.ndarray, longest: float) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * np.minimum(1.0, longest / np.maximum(length, 1e-300))


def _derivatives(images, rotations, origins, slices, scores: PoseScores, bank, prior) -> tuple[np.ndarray, np.ndarray]:
    """Gradient [r, 5] of ln(evidence/null) and Fisher matrix [r, 5, 5]; parameters omega_x, omega_y, omega_z, o_x, o_y."""
    grid, phase = bank.grid, shift_phase(bank, origins)
    in_b, in_a = _evidence_slopes(scores, prior)
    turned = [_turn_derivative(axis, images, rotations, phase, bank) for axis in (0, 1)]
    points = torch.as_tensor(grid.points_half(), dtype=slices.real.dtype, device=slices.device)
    changes = [turned[0][0], turned[1][0], -_angle_derivative(slices)]
    changes += [2j * torch.pi * points[..., axis] * slices for axis in (0, 1)]
    weights = torch.as_tensor(grid.weights, device=slices.device)
    along_b = torch.stack([(images.matched.conj() * d * phase).real.double().mean(-1) @ weights for d in changes], dim=1)
    gradient = in_b[:, None] * along_b.cpu().numpy()
    for axis, along_a in enumerate((turned[0][1], turned[1][1], _power_slope(images, slices, bank))):
        gradient[:, axis] += in_a * along_a.cpu().numpy()
    # CTF² on the search grid's radii, from that of the power nodes: near enough for a step's length.
    matrix = torch.as_tensor(bank.rule.from_grid, dtype=slices.real.dtype, device=slices.device)
    share = (images.power[..., 0].real.to(matrix) @ matrix).clamp_min(0).sqrt()
    flat = torch.view_as_real(torch.stack(changes, dim=1) * share[:, None, :, None]).flatten(2)
    overlap = torch.bmm(flat, flat.mT).double() / grid.n_half
    return gradient, overlap.cpu().numpy() * _information(scores, prior)[:, None, None]


def _power_slope(images: PolarImages, slices: Tensor, bank: TemplateBank) -> Tensor:
    """Derivative of a [r] with respect to a turn about the viewing direction; 0 without astigmatism."""
    orders = ring_power(bank.rule, slices)
    j = torch.arange(orders.shape[-1], device=slices.device)
    return -(2 * (images.power.conj() * (2j * j) * orders).real.double()).sum(dim=(1, 2))


def _information(scores: PoseScores, prior: ScalePrior) -> np.ndarray:
    """``alpha²/lambda²`` at its posterior: float64 [r]."""
    a, b, c, n = scores.power, scores.product, scores.image_power, scores.dof
    if prior.flat:
        q = c - b**2 / a
    else:
        inverse = 1 / prior.tau**2
        q = c + prior.mu**2 * inverse - (a + inverse) * scores.scale**2
    return scores.scale**2 * n / np.maximum(q, 1e-12 * c)


def _evidence_slopes(scores: PoseScores, prior: ScalePrior) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of ln(evidence/null) with respect to b and a, without the factor for alpha > 0 (flat near a peak)."""
    a, b, c, n = scores.power, scores.product, scores.image_power, scores.dof
    if prior.flat:
        q = 1 - b**2 / (a * c)
        return (n - 2) * b / (a * c) / q, -0.5 / a - (n - 2) / 2 * b**2 / (a**2 * c) / q
    v = 1 / prior.tau**2
    total = a + v
    q = 1 + (-2 * prior.mu * b * v + prior.mu**2 * a * v - b**2) / (total * c)
    in_b = (n - 1) * (b + prior.mu * v) / (total * c) / q
    in_a = -0.5 / total - (n - 1) / 2 * ((b + prior.mu * v) / total) ** 2 / c / q
    return in_b, in_a


def _turn_derivative(axis: int, images, rotations, phase, bank) -> tuple[Tensor, Tensor]:
    """Derivative of the slices [r, n, W/2] and of a [r] with respect to a turn about image axis x or y."""
    turn = np.zeros(3)
    turn[axis] = _STEP
    plus = bank.slices(Rotation.from_rotvec(turn).as_matrix() @ rotations)
    minus = bank.slices(Rotation.from_rotvec(-turn).as_matrix() @ rotations)
    a_plus, _ = posed_products(images, plus, phase, bank)
    a_minus, _ = posed_products(images, minus, phase, bank)
    return (plus - minus) / (2 * _STEP), (a_plus - a_minus) / (2 * _STEP)


def _angle_derivative(half: Tensor) -> Tensor:
    """d/dtheta of slices on the half circle [r, n, W/2], by the FFT over the full circle."""
    count = half.shape[-1]
    orders = torch.fft.fft(torch.cat([half, half.conj()], dim=-1), dim=-1)
    q = torch.fft.fftfreq(2 * count, 1 / (2 * count), device=half.device).to(half.real.dtype)
    q[count] = 0
    return torch.fft.ifft(1j * q * orders, dim=-1)[..., :count]
