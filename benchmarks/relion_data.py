"""Particles simulated by RELION's own projector, and RELION's programs run on them.

The two structures are made-up proteins in two states (`cryolike_scipion.engine.synthetic_structure`) as maps; everything
after the maps is RELION's: ``relion_project`` makes the images, with shifts, CTF and white noise.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from common import Usage, measure
from particles import WIDTH

from cryolike_scipion.engine.resample import density_on_grid
from cryolike_scipion.engine.rotations import euler_from_matrix, random_rotations
from cryolike_scipion.engine.star_file import loop_lines
from cryolike_scipion.engine.structures import read_structure
from cryolike_scipion.engine.synthetic_structure import write_structures

DIAMETER = 160.0  # Å, of RELION's mask: the structures are 140 Å across
_VOLTAGE, _CS, _CONTRAST = 300.0, 2.7, 0.1
_SHIFT_PIXELS = 4.0
_CLEAN = 200  # images whose variance sets the noise
_TRUTH = (
    "rlnImageName",
    "rlnOpticsGroup",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnClassNumber",
    "rlnRandomSubset",
)
_POSE = _TRUTH[5:11]


@dataclass(frozen=True)
class Simulation:
    """Simulated particles of two structures, shuffled.

    Attributes
    ----------
    folder : where RELION is started: image names are relative to it.
    particles : STAR file with CTF and half sets, as a user has it.
    truth : the same rows with poses and classes.
    maps : the two structures.
    references : STAR file that names the maps, for ``relion_refine --ref``.
    box : pixels.
    pixel : Å.
    """

    folder: Path
    particles: Path
    truth: Path
    maps: tuple[Path, Path]
    references: Path
    box: int
    pixel: float


def missing_programs() -> list[str]:
    """Programs of RELION that are not installed."""
    names = [f"relion_{name}" for name in ("project", "reconstruct", "refine", "image_handler")]
    return [name for name in names if shutil.which(name) is None]


def relion(name: str, *arguments: object, folder: Path, timeout: float = 3600.0) -> Usage:
    """Run a program of RELION in a folder to its end.

    Raises
    ------
    RuntimeError
        If it fails; the message holds what it wrote.
    """
    command = ["env", "-C", folder, f"relion_{name}", *arguments]
    return measure(command, timeout)


def simulate(folder: Path, count: int, box: int, snr: float = 0.1, seed: int = 1, width: float = WIDTH) -> Simulation:
    """Make `count` particles, half of each structure, or take those that an earlier call left in the folder.

    Parameters
    ----------
    folder : path
    count : particles.
    box : pixels.
    snr : variance of the clean images over that of the noise, over the whole box.
    seed : of poses, shifts, CTFs and order; RELION's noise has a seed of its own.
    width : Å, edge of the box.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixel = width / box
    maps = (folder / "state_1.mrc", folder / "state_2.mrc")
    data = Simulation(folder, folder / "particles.star", folder / "truth.star", maps, folder / "references.star", box, pixel)
    if data.particles.exists():  # written last
        return data
    for target, source in zip(maps, write_structures(folder, seed)):
        density = density_on_grid(read_structure(source, k_max=0.5 / pixel), box, pixel)
        with mrcfile.new(target, overwrite=True) as file:
            file.set_data(density)
            file.voxel_size = pixel
    data.references.write_text("\n".join(loop_lines("", ["rlnReferenceImage"], [str(m.name) for m in maps])))
    rng = np.random.default_rng(seed)
    numbers = [f"{i + 1:06d}@sim_{k}.mrcs" for k in (1, 2) for i in range(count // 2)]
    rows = _rows(rng, numbers, pixel)
    _project(data, rows, snr)
    order = rng.permutation(len(rows))
    _write(data.truth, [rows[i] for i in order], box, pixel)
    plain = [[text for label, text in zip(_TRUTH, rows[i]) if label not in _POSE] for i in order]
    _write(data.particles, plain, box, pixel, [label for label in _TRUTH if label not in _POSE])
    return data


def _rows(rng: np.random.Generator, names: list[str], pixel: float) -> list[list[str]]:
    count = len(names)
    rot, tilt, psi = euler_from_matrix(random_rotations(count, rng))
    shift = rng.uniform(-_SHIFT_PIXELS, _SHIFT_PIXELS, (count, 2)) * pixel
    defocus = rng.uniform(8000, 25000, count)
    second = defocus - rng.uniform(0, 500, count)
    angle = rng.uniform(0, 180, count)
    half = rng.permutation(np.arange(count) % 2) + 1
    return [
        [
            names[i],
            "1",
            *(f"{value:.6f}" for value in (defocus[i], second[i], angle[i], rot[i], tilt[i], psi[i], *shift[i])),
            names[i].partition("sim_")[2][0],
            str(half[i]),
        ]
        for i in range(count)
    ]


def _project(data: Simulation, rows: list[list[str]], snr: float) -> None:
    """Let RELION make the stacks. Clean images of the first structure set the noise of both."""
    own = {k: [row for row in rows if f"@sim_{k}." in row[0]] for k in (1, 2)}
    some = data.folder / "angles_clean.star"
    _write(some, own[1][:_CLEAN], data.box, data.pixel)
    _relion_project(data, some, "clean", 1)
    noise = float(np.sqrt(mrcfile.read(data.folder / "clean.mrcs").var(axis=(1, 2)).mean() / snr))
    for k in (1, 2):
        angles = data.folder / f"angles_{k}.star"
        _write(angles, own[k], data.box, data.pixel)
        _relion_project(data, angles, f"sim_{k}", k, "--add_noise", "--white_noise", noise)


def _relion_project(data: Simulation, angles: Path, out: str, k: int, *more: object) -> None:
    common = ("--i", data.maps[k - 1].name, "--ang", angles.name, "--o", out, "--ctf", "--angpix", data.pixel)
    relion("project", *common, *more, folder=data.folder)


def _write(path: Path, rows: list[list[str]], box: int, pixel: float, labels: list[str] | tuple[str, ...] = _TRUTH) -> None:
    optics = [
        "rlnOpticsGroup",
        "rlnOpticsGroupName",
        "rlnImagePixelSize",
        "rlnImageSize",
        "rlnImageDimensionality",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
    ]
    group = f"1 opticsGroup1 {pixel:.6f} {box} 2 {_VOLTAGE} {_CS} {_CONTRAST}"
    lines = ["# version 30001", "", *loop_lines("optics", optics, [group])]
    lines += ["# version 30001", "", *loop_lines("particles", list(labels), [" ".join(row) for row in rows])]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def half_maps(data: Simulation, star: Path, k: int, stem: str) -> tuple[Path, Path]:
    """Reconstruct the two halves of one class of a STAR file."""
    halves = []
    for half in (1, 2):
        target = data.folder / f"{stem}_class{k}_half{half}.mrc"
        arguments = ("--i", star.resolve(), "--o", target.name, "--ctf", "--subset", half, "--class", k)
        relion("reconstruct", *arguments, folder=data.folder)
        halves.append(target)
    return halves[0], halves[1]


def fsc(one: Path, other: Path) -> tuple[np.ndarray, np.ndarray]:
    """Fourier shell correlation of two maps: frequencies (1/Å), one a shell from 0, and correlations."""
    first, second = mrcfile.read(one).astype(np.float64), mrcfile.read(other).astype(np.float64)
    with mrcfile.open(one, header_only=True, permissive=True) as file:
        pixel = float(file.voxel_size.x)
    edge = len(first)
    frequency = [np.fft.fftfreq(edge) * edge] * 2 + [np.fft.rfftfreq(edge) * edge]
    shell = np.rint(np.sqrt(sum(k**2 for k in np.meshgrid(*frequency, indexing="ij")))).astype(int)
    a, b = np.fft.rfftn(first), np.fft.rfftn(second)
    sums = [np.bincount(shell.ravel(), weights=v.ravel()) for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)]
    shells = np.arange(edge // 2)
    return shells / (edge * pixel), (sums[0] / np.sqrt(sums[1] * sums[2]))[shells]


def resolution(frequency: np.ndarray, correlation: np.ndarray, threshold: float = 0.143) -> float:
    """Å where the correlation first falls below the threshold, between shells by a line; the last shell if it never does."""
    below = np.flatnonzero(correlation[1:] < threshold)
    if len(below) == 0:
        return float(1 / frequency[-1])
    i = int(below[0]) + 1
    part = (correlation[i - 1] - threshold) / (correlation[i - 1] - correlation[i])
    return float(1 / (frequency[i - 1] + part * (frequency[i] - frequency[i - 1])))
