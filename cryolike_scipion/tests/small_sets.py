"""Small simulated particle sets on disk, and runs of the engine on them that take a second."""

from pathlib import Path

import mrcfile
import numpy as np

from cryolike_scipion import engine
from cryolike_scipion.engine.particle_star import write_particles
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import load_results

from .blob_particles import PIXEL, Blobs

BOX = 24
# A coarse search without finer levels.
SEARCH = {"angular_step": 18.0, "levels": 0, "max_shift": 8.0, "memory": 1.0, "device": "cpu"}


def write_map(path, density, pixel=PIXEL):
    """Write a density [z, y, x] as an MRC map; return its path."""
    with mrcfile.new(path, np.asarray(density, dtype=np.float32), overwrite=True) as file:
        file.voxel_size = pixel
    return str(path)


def write_maps(folder, number=2, box=BOX, symmetry="C1", **options):
    """Write different structures of blobs; return their paths."""
    settings = {"count": 8, "radius": 20.0, "sigma": 5.0, **options}
    return [
        write_map(Path(folder) / f"map_{i + 1}.mrc", Blobs.random(40 + i, symmetry=symmetry, **settings).structure(box).density)
        for i in range(number)
    ]


def simulate(folder, structures, **options):
    """Write ``particles.mrcs``, ``particles.star`` and ``truth.star`` into a folder; return it."""
    settings = {"count": 12, "snr": 1.0, "max_shift": 6.0, "defocus_max": 12000.0, **options}
    engine.run("simulate", structures=structures, out=str(folder), **settings)
    return Path(folder)


def score(out, star, structures, **options):
    """Run ``likelihood`` and read its result."""
    settings = {**SEARCH, **options}
    engine.run("likelihood", particles=[str(star)], structures=structures, out=str(out), **settings)
    return load_results(out)


def with_columns(star, target, **columns):
    """Copy a STAR file with other values in some columns; the stack is found beside it."""
    write_particles(Path(target), read_particles([star]), columns, keep_overwritten=False)
    return Path(target)


def with_poses(star, target, angles, origins):
    """Copy a STAR file with these angles [m, 3] (degrees) and origins [m, 2] (Å)."""
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    return with_columns(star, target, **dict(zip(names, np.column_stack([angles, origins]).T)))


def poses_of(star):
    """Angles [m, 3] (degrees) and origins [m, 2] (Å) of a STAR file."""
    particles = read_particles([star])
    angles = np.stack([particles.rot, particles.tilt, particles.psi], axis=1)
    return angles, np.stack([particles.origin_x, particles.origin_y], axis=1)


def rewrite_stack(path, change):
    """Apply a function to the images of a stack, in place."""
    with mrcfile.open(path, mode="r+") as file:
        file.data[...] = change(np.array(file.data))
