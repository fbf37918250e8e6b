"""Particle images of known structures at known poses, after the image model of the engine.

    image = scale · signal · CTF · shift_o · P(A) V + offset + noise,   noise with variance 1, white or coloured

`signal` is one factor for all particles that gives the wanted signal-to-noise ratio, the variance of the
clean images over that of the noise, over the whole box and averaged over the particles (before the scale
varies).  Frames, signs and units are the engine's: RELION's angles in degrees, origins in Å; see
:mod:`.rotations` and :mod:`.ctf`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .ctf import ctf
from .rotations import euler_from_matrix, matrix_from_euler, random_rotations

_DECIMALS = 4  # of angles, origins and defocus: what is simulated is what the STAR file says


@dataclass(frozen=True)
class HalfPlane:
    """The Cartesian Fourier points of a real image, without those that follow from others, below a limit.

    Attributes
    ----------
    box : pixels along an edge.
    pixel_size : Å.
    k_max : points have 0 <= kx and |k| < k_max (Å⁻¹), which is at most the Nyquist frequency.
    """

    box: int
    pixel_size: float
    k_max: float

    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of each point in the array of :func:`torch.fft.rfft2`: two int64 [P]."""
        ky, kx = self._frequencies()
        rows, columns = np.nonzero(np.hypot(ky, kx) < self.k_max * (1 - 1e-12))
        return rows, columns

    def points(self) -> np.ndarray:
        """The points as (kx, ky), Å⁻¹: float64 [P, 2]."""
        ky, kx = self._frequencies()
        rows, columns = self.indices()
        return np.stack([kx[rows, columns], ky[rows, columns]], axis=-1)

    def _frequencies(self) -> tuple[np.ndarray, np.ndarray]:
        ky = np.fft.fftfreq(self.box, self.pixel_size)
        kx = np.fft.rfftfreq(self.box, self.pixel_size)
        rows, columns = np.meshgrid(ky, kx, indexing="ij")
        return rows, columns

    def image(self, values: Tensor) -> Tensor:
        """Real images [m, y, x] from their Fourier transforms [m, P] about the centre pixel, index box // 2.

        The transform has the units of the image times Å², so that a projection keeps its units.
        """
        rows, columns = self.indices()
        spectrum = values.new_zeros((len(values), self.box, self.box // 2 + 1))
        spectrum[:, torch.as_tensor(rows), torch.as_tensor(columns)] = values
        images = torch.fft.irfft2(spectrum, s=(self.box, self.box)) / self.pixel_size**2
        centre = self.box // 2
        return torch.roll(images, (centre, centre), dims=(1, 2))


@dataclass(frozen=True)
class Truth:
    """What each simulated particle is; every array is [M].

    Attributes
    ----------
    structure : int64, from 0.
    rot, tilt, psi : RELION angles, degree.
    origin_x, origin_y : RELION origin, Å: the particle sits at minus the origin.
    defocus_u, defocus_v : Å, positive for underfocus.
    defocus_angle_deg : degree, angle of the U axis.
    scale : relative contrast, mean 1.
    offset : constant added to the image, in units of the noise.
    """

    structure: np.ndarray
    rot: np.ndarray
    tilt: np.ndarray
    psi: np.ndarray
    origin_x: np.ndarray
    origin_y: np.ndarray
    defocus_u: np.ndarray
    defocus_v: np.ndarray
    defocus_angle_deg: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.structure)


@dataclass(frozen=True)
class Optics:
    """Microscope: kV, mm of spherical aberration, amplitude contrast (a fraction), degrees of phase shift."""

    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift_deg: float = 0.0


def draw_truth(
    count: int,
    populations: np.ndarray,
    rng: np.random.Generator,
    *,
    max_shift: float,
    defocus: tuple[float, float],
    astigmatism: float,
    scale_spread: float = 0.0,
    offset_spread: float = 0.0,
) -> Truth:
    """Draw structures, poses and CTFs.

    Parameters
    ----------
    count : number of particles.
    populations : float64 [K], relative numbers; each structure gets its share, rounded, in random order.
    rng : source of randomness.
    max_shift : Å; origins are uniform in the square of this half edge.
    defocus : Å; defocus U is uniform between the two.
    astigmatism : Å; U − V is uniform between 0 and this.
    scale_spread : relative standard deviation of the contrast, log-normal with mean 1.
    offset_spread : standard deviation of the constant added to an image.
    """
    edges = np.round(count * np.cumsum(populations) / np.sum(populations)).astype(np.int64)
    structure = rng.permutation(np.searchsorted(edges, np.arange(count), side="right"))
    rot, tilt, psi = euler_from_matrix(random_rotations(count, rng))
    origin = rng.uniform(-max_shift, max_shift, (2, count))
    defocus_u = rng.uniform(*defocus, count)
    defocus_v = defocus_u - rng.uniform(0, astigmatism, count)
    spread = math.sqrt(math.log1p(scale_spread**2))
    scale = np.exp(rng.normal(-(spread**2) / 2, spread, count))
    drawn = (
        rot,
        tilt,
        psi,
        *origin,
        defocus_u,
        defocus_v,
        rng.uniform(0, 180, count),
        scale,
        rng.normal(0, offset_spread, count),
    )
    return Truth(structure, *(np.round(values, _DECIMALS) for values in drawn))


def clean_images(
    truth: Truth, which: np.ndarray, slices: Callable[[np.ndarray], Tensor], plane: HalfPlane, optics: Optics
) -> Tensor:
    """Images without noise, offset and scale, of particles that show one structure.

    Parameters
    ----------
    truth, which : the particles `which` (int64 [m]) of `truth`.
    slices : rotation matrices float64 [m, 3, 3] to central slices [m, P] at the points of `plane`.
    plane : the images' Fourier points.
    optics : microscope.

    Returns
    -------
    Tensor
        float64 [m, y, x].
    """
    matrices = matrix_from_euler(truth.rot[which], truth.tilt[which], truth.psi[which])
    points = torch.as_tensor(plane.points())
    k, theta = torch.hypot(points[:, 0], points[:, 1]), torch.atan2(points[:, 1], points[:, 0])

    def column(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values[which])[:, None]

    transfer = ctf(
        k,
        theta,
        column(truth.defocus_u),
        column(truth.defocus_v),
        column(truth.defocus_angle_deg),
        optics.voltage_kv,
        optics.cs_mm,
        optics.amplitude_contrast,
        optics.phase_shift_deg,
    )
    phase = 2 * math.pi * (points[:, 0] * column(truth.origin_x) + points[:, 1] * column(truth.origin_y))
    values = slices(matrices).to(torch.complex128) * transfer * torch.polar(torch.ones_like(phase), phase)
    return plane.image(values)


def noisy_images(
    clean: Tensor, signal: float, truth: Truth, which: np.ndarray, seed: int, amplitude: np.ndarray | None = None
) -> Tensor:
    """Add scale, offset and noise to clean images [m, y, x]; returns float32.

    The noise of a particle depends on `seed` and on its number only, not on the order in which particles are
    made. It is white, or has the root of its power given, float64 [N, N // 2 + 1], at the frequencies of a real DFT.
    """
    scale, offset = (torch.as_tensor(values[which])[:, None, None] for values in (truth.scale, truth.offset))
    noise = np.stack([np.random.default_rng([seed, int(m)]).standard_normal(clean.shape[1:]) for m in which])
    if amplitude is not None:
        noise = np.fft.irfft2(np.fft.rfft2(noise) * amplitude, s=noise.shape[1:])
    return (signal * scale * clean + offset + torch.as_tensor(noise)).to(torch.float32)
