"""Particles of two made-up structures for tests of the nodes: maps, images and STAR files, with and without poses."""

import os
from pathlib import Path

import mrcfile
import numpy as np

from cryolike_scipion import Plugin

PIXEL, BOX, COUNT = 13.1, 32, 24
# RELION's five columns of a pose.
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
_BLOBS, _MOVED, _RADIUS, _SIGMA = 40, 12, 110.0, 14.0  # Å


def two_states():
    """Return the folder with ``state_D.mrc``, ``state_E.mrc``, ``particles.mrcs``, ``particles.star`` and ``truth.star``.

    It is made once a process, in Scipion's home of the tests.
    """
    folder = Path(os.environ["SCIPION_HOME"]) / "two states"
    if not folder.exists():
        folder.mkdir()
        maps = [_write_map(folder / f"state_{name}.mrc", centres) for name, centres in zip("DE", _centres())]
        sizes = ["--count", COUNT, "--snr", 0.5, "--max-shift", 20, "--seed", 3]
        Plugin.callEngine(["simulate", "--structures", *maps, *sizes, "--out", str(folder)])
    return folder


def _centres():
    """Centres of the blobs of both structures, Å; in the second a part has turned away."""
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(_BLOBS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    one = directions * _RADIUS * rng.uniform(0.1, 1, (_BLOBS, 1)) ** (1 / 3)
    other = one.copy()
    part = np.argsort(one[:, 0])[-_MOVED:]
    other[part] = one[part][:, [1, 0, 2]] * [-1, 1, 1]  # by 90° about z
    return one, other


def _write_map(path, centres):
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    density = np.zeros((BOX, BOX, BOX), dtype=np.float32)
    for x, y, z in centres:
        near = [np.exp(-0.5 * ((axis - at) / _SIGMA) ** 2) for at in (z, y, x)]
        density += np.einsum("i,j,k->ijk", *near).astype(np.float32)
    with mrcfile.new(str(path), density) as file:
        file.voxel_size = PIXEL
    return str(path)
