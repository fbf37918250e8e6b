"""Pictures for wizards: a particle as in its file, a structure's projection and how wide it is."""

import itertools
import os

import h5py
import mrcfile
import numpy as np
from pwem.emlib.image import ImageHandler

from .locations import STACK_EXTENSIONS, file_of
from .structures import MAP_EXTENSIONS

_LOUD = 0.1  # of the highest density: what is above counts as structure
_HIGHEST = 99.9  # percentile
_COARSE = 128  # voxels along an edge, at most, of the map that tells how wide the structure is
_ATOM_BOX = 128
_ATOM_BLUR = 6.0  # Å


def particle_image(particle):
    """Return a particle's image as it is in its file: ndarray, float64, [N, N]."""
    index, name = particle.getLocation()
    path = file_of(name)
    if os.path.splitext(path)[1].lower() in STACK_EXTENSIONS:
        with mrcfile.mmap(path, permissive=True) as file:
            data = file.data if file.data.ndim == 3 else file.data[None]
            return np.array(data[max(0, index - 1)], dtype=np.float64)
    return np.array(ImageHandler().read((index, name)).getData(), dtype=np.float64)


def some_particles(particles, count):
    """Return at most so many enabled particles, evenly spread over a set."""
    ids = sorted(particles.getIdSet())
    return [particles[ids[i]].clone() for i in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(np.int64))]


def low_passed(image, pixel, resolution):
    """Return an image without detail finer than a resolution in Å, with a soft edge."""
    size = image.shape[0]
    k = np.hypot(np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None])
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-0.5 * (k * resolution) ** 2), s=(size, size))


def projection_of_template(item):
    """Return a prepared structure's widest projection, its width and the structure's diameter, both in Å.

    Parameters
    ----------
    item : CryolikeTemplates
    """
    with h5py.File(item.getFileName(), "r") as file:
        density, pixel = file["density"][()], float(file.attrs["pixel_size"])
        return _projected(density), density.shape[0] * pixel, 2.0 * float(file.attrs["radius"])


def projection_of_structure(structure):
    """Return a map's or an atomic structure's widest projection, its width and the structure's diameter, both in Å.

    Parameters
    ----------
    structure : StructureFile
    """
    return _of_map(structure) if structure.is_map else _of_atoms(structure.source)


def _of_map(structure):
    if os.path.splitext(structure.source)[1].lower() in MAP_EXTENSIONS and not structure.index:
        with mrcfile.open(structure.source, permissive=True) as file:
            density = np.array(file.data, dtype=np.float32)
    else:
        density = np.array(ImageHandler().read((structure.index or 1, structure.source)).getData(), dtype=np.float32)
    size = density.shape[0]
    return _projected(density), size * structure.pixel, _widest(density) * structure.pixel


def _projected(density):
    """Return a density's projection along the axis along which it is shortest, [N, N]: nothing long hides behind it."""
    loud, _ = _coarse(density)
    spread = []
    for axis in range(3):
        profile = loud.sum(axis=tuple(other for other in range(3) if other != axis))
        place = np.arange(len(profile)) - len(profile) // 2
        spread.append((profile * place**2).sum())
    return density.sum(axis=int(np.argmin(spread)))  # along z where it is as short


def _coarse(density):
    """Return which blocks of a density hold structure, bool [n, n, n], and the edge of a block in voxels."""
    size = density.shape[0]
    step = -(-size // _COARSE)
    count = size // step  # voxels at the end that fill no block are left out
    coarse = np.zeros((count,) * 3, dtype=np.float32)
    for shift in itertools.product(range(step), repeat=3):
        coarse += density[tuple(slice(first, first + count * step, step) for first in shift)]
    return coarse > _LOUD * np.percentile(coarse, _HIGHEST), step


def _widest(density):
    """Return the diameter about the centre that holds a map's structure, in its voxels: density, float32, [N, N, N]."""
    size = density.shape[0]
    loud, step = _coarse(density)
    axis2 = np.square(np.arange(len(loud), dtype=np.float32) * step + (step - 1) / 2 - size // 2)
    distance2 = axis2[:, None, None] + axis2[:, None] + axis2
    farthest = np.sqrt(np.percentile(distance2[loud], _HIGHEST)) if loud.any() else size / 2
    return float(min(2.0 * farthest, size))


def _of_atoms(path):
    coordinates = atom_coordinates(path)
    coordinates = coordinates - coordinates.mean(axis=0)
    diameter = 2.0 * float(np.sqrt((coordinates**2).sum(axis=1)).max())
    width = 1.3 * diameter + 4 * _ATOM_BLUR
    edges = np.linspace(-width / 2, width / 2, _ATOM_BOX + 1)
    shortest = 2 - int(coordinates.var(axis=0)[::-1].argmin())  # z where it is as short
    x, y = np.delete(coordinates, shortest, axis=1).T
    picture, _ = np.histogramdd(np.stack([y, x], axis=1), bins=[edges, edges])
    return low_passed(picture, width / _ATOM_BOX, _ATOM_BLUR), width, diameter


def atom_coordinates(path):
    """Return the coordinates of the first model's atoms, Å: float64, [A, 3]."""
    from Bio.PDB import MMCIFParser, PDBParser

    parser = MMCIFParser(QUIET=True) if path.lower().endswith((".cif", ".mmcif")) else PDBParser(QUIET=True)
    model = next(iter(parser.get_structure("structure", path)))
    return np.array([atom.coord for atom in model.get_atoms()], dtype=np.float64)
