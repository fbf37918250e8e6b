"""Densities on the particles' grid."""

from pathlib import Path

import numpy as np
import pytest

from cryolike_scipion.engine.resample import density_on_grid
from cryolike_scipion.engine.structures import Structure


def _blob(box, pixel_size, centre, width=12.0):
    """A Gaussian of unit mass at a position (x, y, z) from the centre, Å."""
    axis = (np.arange(box) - box // 2) * pixel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    square = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    return (np.exp(-square / (2 * width**2)) / (2 * np.pi * width**2) ** 1.5).astype(np.float32)


@pytest.mark.parametrize("box, pixel_size", [(32, 6.0), (33, 6.0), (48, 3.0), (64, 4.5)])
def test_density_keeps_its_values_and_place(box, pixel_size):
    centre = (15.0, -9.0, 6.0)
    source = Structure(_blob(60, 3.0, centre), 3.0, "blob", "C1", Path("blob.mrc"), 80.0, 1 / 6.0, "map")
    found = density_on_grid(source, box, pixel_size)
    expected = _blob(box, pixel_size, centre)
    assert found.shape == (box,) * 3
    assert np.abs(found - expected).max() < 2e-3 * expected.max()
