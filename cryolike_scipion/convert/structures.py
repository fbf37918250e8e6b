"""Volumes and atomic structures of Scipion, as files that the engine reads.

Scipion keeps the pixel size of a volume in its database and does not always write it into the file; the
engine has the file alone.
A map whose header says something else, or whose format the engine does not read, is
written once more into the protocol's folder; all others are linked there under a plain name.
"""

import os
import shutil
from dataclasses import dataclass, replace
from typing import Optional, Tuple

import mrcfile
import numpy as np
from pwem.emlib.image import ImageHandler
from pwem.objects import AtomStruct, SetOfAtomStructs, SetOfClasses3D, SetOfVolumes, Volume

from .locations import file_of, link, link_source

MAP_EXTENSIONS = (".mrc", ".map")
ATOM_EXTENSIONS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
_PIXEL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class StructureFile:
    """A structure for the engine.

    Attributes
    ----------
    source : absolute path of the file that Scipion knows.
    label : its name in tables and plots.
    pixel : pixel size in Å for a map, None for an atomic structure.
    shape : x, y and z dimension of a map in pixels, empty where unknown and for an atomic structure.
    index : number inside a stack of volumes, 0 for a file of its own.
    """

    source: str
    label: str
    pixel: Optional[float] = None
    shape: Tuple[int, ...] = ()
    index: int = 0

    @property
    def is_map(self):
        """Whether it is a map; if not, it is an atomic structure."""
        return self.pixel is not None


def list_structures(inputs):
    """Return the structures in some Scipion objects, in their order; disabled items of sets are left out.

    Parameters
    ----------
    inputs : iterable of Volume, SetOfVolumes, SetOfClasses3D (the average of each class), AtomStruct or SetOfAtomStructs

    Returns
    -------
    list of StructureFile
        With labels that all differ.
    """
    found = []
    for structure in inputs:
        if isinstance(structure, (SetOfVolumes, SetOfAtomStructs)):
            found += [_describe(item, structure) for item in structure.iterItems() if item.isEnabled()]
        elif isinstance(structure, SetOfClasses3D):
            found += [_describe_class(item, structure) for item in structure.iterItems() if item.isEnabled()]
        else:
            found.append(_describe(structure, None))
    return _with_unique_labels(found)


def _describe(item, parent):
    if isinstance(item, AtomStruct):
        path = os.path.abspath(file_of(item.getFileName()))
        return StructureFile(path, _label(item, path))
    if not isinstance(item, Volume):
        raise TypeError(f"{item.getClassName()} is neither a volume nor an atomic structure")
    index, name = item.getLocation()
    path = os.path.abspath(file_of(name))
    pixel = item.getSamplingRate() or (parent.getSamplingRate() if parent is not None else None) or 0.0
    return StructureFile(path, _label(item, path), float(pixel), _shape(item, path), index or 0)


def _describe_class(item, classes):
    label = item.getObjLabel().strip() or f"class {item.getObjId()}"
    average = item.getRepresentative() if item.hasRepresentative() else None
    if average is None or not average.getFileName():
        return StructureFile("", label, 1.0)  # a file that is not there
    described = _describe(average, None)
    pixel = described.pixel or classes.getSamplingRate() or 0.0
    return replace(described, label=label, pixel=float(pixel))


def _shape(item, path):
    try:
        dimensions = item.getDim() if os.path.exists(path) else None
    except Exception:  # whatever the reader of some format thinks of a file; the engine says what is wrong
        dimensions = None
    return tuple(int(n) for n in dimensions or ())


def _label(item, path):
    # Imports link the user's file under another name; the label is the user's.
    return item.getObjLabel().strip() or os.path.splitext(os.path.basename(os.path.realpath(path)))[0]


def _with_unique_labels(structures):
    taken, out = set(), []
    for structure in structures:
        label, count = structure.label, 1
        while label in taken:
            count += 1
            label = f"{structure.label} ({count})"
        taken.add(label)
        out.append(replace(structure, label=label))
    return out


def write_structures(structures, folder):
    """Make the files of some structures for the engine.

    Parameters
    ----------
    structures : list of StructureFile
    folder : where to put them, relative to the project's folder; made when it is missing.

    Returns
    -------
    list of str
        A plain file name a structure.
    """
    os.makedirs(folder, exist_ok=True)
    return [_write(structure, os.path.join(folder, f"structure{i + 1:03d}")) for i, structure in enumerate(structures)]


def _write(structure, stem):
    extension = os.path.splitext(structure.source)[1].lower()
    if not structure.is_map:
        name = stem + atom_extension(structure.source)
        link(structure.source, name)
        return name
    name = stem + ".mrc"
    if extension not in MAP_EXTENSIONS or structure.index:
        source = link_source(structure.source, name)
        if os.path.lexists(name):
            os.remove(name)
        ImageHandler().convert((structure.index or 1, source) if structure.index else source, name)
        _set_pixel(name, structure.pixel)
    elif _same_pixel(structure.source, structure.pixel):
        link(structure.source, name)
    else:
        link_source(structure.source, name)
        temporary = name + ".tmp"
        shutil.copyfile(structure.source, temporary)
        _set_pixel(temporary, structure.pixel)
        os.replace(temporary, name)
    return name


def atom_extension(path):
    """Return the ending of an atomic structure's name in lower case, with that of its packing: ``.cif.gz``."""
    stem, ending = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] + ending if ending == ".gz" else ending


def _same_pixel(path, pixel):
    try:
        with mrcfile.open(path, header_only=True, permissive=True) as file:
            sizes = np.array(file.voxel_size.tolist())
    except (OSError, ValueError):
        return True  # The engine names what is wrong with an unreadable file.
    return bool(np.allclose(sizes, pixel, rtol=_PIXEL_TOLERANCE, atol=0.0))


def _set_pixel(path, pixel):
    with mrcfile.open(path, mode="r+", permissive=True) as file:
        file.voxel_size = pixel
