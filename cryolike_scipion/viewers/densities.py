"""Densities as arrays, for slices and projections."""

import h5py
import mrcfile
import numpy as np

_HDF5 = (".h5", ".hdf5")


def read_density(path):
    """Return a density and its voxel size.

    Parameters
    ----------
    path : an MRC map, or a structure that the engine wrote.

    Returns
    -------
    density : ndarray, float32, [z, y, x]
    pixel : float, Å
    """
    if path.endswith(_HDF5):
        with h5py.File(path, "r") as file:
            return file["density"][()], float(file.attrs["pixel_size"])
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data, dtype=np.float32), float(file.voxel_size.x)
