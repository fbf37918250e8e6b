"""One structure as files of different origin, another structure, and particles of both."""

from pathlib import Path

import numpy as np

from .blob_particles import PIXEL, Blobs
from .small_sets import BOX, simulate, write_map

FORMS = ("map", "sharpened", "reboxed", "atoms")
_SIGMA, _ATOMS = 4.5, 40
_SHARPENING = 700.0  # Å², B-factor taken away


def write_forms(folder):
    """Write the first structure as every one of `FORMS`, and the second as a map; return their paths, the second's last."""
    folder = Path(folder)
    first, second = (_centres(seed) for seed in (71, 72))
    coarse = _blobs(first).structure(BOX).density
    paths = [
        write_map(folder / "map.mrc", coarse),
        write_map(folder / "sharpened.mrc", 30 * sharpened(coarse, PIXEL, _SHARPENING)),
        write_map(folder / "reboxed.mrc", 0.1 * _blobs(first).structure(44, 2.7).density, pixel=2.7),
        _write_atoms(folder / "atoms.pdb", first),
        write_map(folder / "second.mrc", _blobs(second).structure(BOX).density),
    ]
    return paths


def sharpened(density, pixel, b):
    """A map [z, y, x] whose amplitudes are multiplied by exp(b k²/4)."""
    frequency = [np.fft.fftfreq(n, pixel) ** 2 for n in density.shape[:2]] + [np.fft.rfftfreq(density.shape[2], pixel) ** 2]
    square = frequency[0][:, None, None] + frequency[1][:, None] + frequency[2]
    return np.fft.irfftn(np.fft.rfftn(density) * np.exp(b * square / 4), s=density.shape)


def particles_of_both(folder, paths, count, **options):
    """Simulate particles, half of the first structure (as the map) and half of the second; return the STAR file and 0 or 1."""
    simulate(folder, [paths[0], paths[-1]], count=count, **options)
    lines = (Path(folder) / "truth.star").read_text(encoding="utf-8").split("data_particles")[1].splitlines()
    column = [line.split()[0] for line in lines if line.startswith("_")].index("_rlnClassNumber")
    return Path(folder) / "particles.star", np.array([int(line.split()[column]) for line in lines if "@" in line]) - 1


def rates(integrated, truth):
    """How often particles go to their own structure, in a contest of each form with the second structure: [forms]."""
    won = integrated[:-1] > integrated[-1]
    return np.where(truth == 0, won, ~won).mean(axis=1)


def _centres(seed):
    """Centres of atoms (Å) about their mean: float64 [n, 3]."""
    centres = Blobs.random(seed, count=_ATOMS, radius=27.0).centres
    return centres - centres.mean(axis=0)


def _blobs(centres):
    return Blobs(centres, np.full(len(centres), 6.0), _SIGMA)


def _write_atoms(path, centres):
    lines = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C  "
        for i, (x, y, z) in enumerate(centres, start=1)
    ]
    path.write_text("\n".join([*lines, "END", ""]), encoding="ascii")
    return str(path)
