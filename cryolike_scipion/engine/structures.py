"""A structure: density on voxels, from a map, an atomic model, or a file of this program.

Everything that compares particles with structures works on :class:`Structure`; where it came from no longer
matters then. On disk it is an HDF5 file that also holds the table of views.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from . import symmetry as point_groups
from .atom_density import band_limited_density
from .atom_files import AtomChoice
from .atomic import atomic_path
from .atoms import AtomModel, read_ensemble
from .density_map import read_map, support_radius
from .errors import InputError
from .views import ViewTable

logger = logging.getLogger(__name__)

FORMAT = "cryolike-structure-1"
INDEX = "templates.json"
ATOM_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".mrcs")
_COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class Structure:
    """A density whose central slices can be made at any orientation.

    Attributes
    ----------
    density : float32 [z, y, x]
        Cubic; the centre of rotation is voxel ``N // 2`` on every axis.
    pixel_size : float
        Side of a voxel, Å.
    label : str
        Name for tables and plots.
    symmetry : str
        Point group in RELION's names.
    source : Path
        The file it was read from.
    radius : float
        Radius about the centre that holds the structure, Å.
    k_max : float
        Spatial frequency up to which slices are the structure's own, 1/Å; beyond it they are 0.
    kind : str
        ``"map"`` or ``"atoms"``.
    metadata : dict
        How it was made, in plain values: for atoms the model, the number of atoms and the offset (Å) that was
        subtracted from their coordinates.
    """

    density: NDArray[np.float32]
    pixel_size: float
    label: str
    symmetry: str
    source: Path
    radius: float
    k_max: float
    kind: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def box(self) -> int:
        """Voxels on a side."""
        return self.density.shape[0]


def atom_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """How atomic structures are read, from the parameters of a verb: keyword arguments of :func:`read_structures`."""
    choice = AtomChoice(
        parameters.get("select"),
        parameters.get("models", "first"),
        parameters.get("assembly"),
        not parameters.get("no_hydrogens", False),
        parameters.get("waters", False),
    )
    return {"choice": choice, **{name: parameters[name] for name in ("atom_model", "atom_radius", "residue_model")}}


def read_structure(path: str | Path, **options: Any) -> Structure:
    """The first structure of a file; see :func:`read_structures`."""
    return read_structures(path, **options)[0]


def read_structures(
    path: str | Path,
    *,
    symmetry: str | None = None,
    label: str | None = None,
    k_max: float | None = None,
    atom_model: str = "factors",
    atom_radius: float | None = None,
    residue_model: bool = False,
    choice: AtomChoice | None = None,
) -> list[Structure]:
    """Read a map, the structures of a file of atoms, or a file that :func:`save` wrote.

    Parameters
    ----------
    path : path
        ``.mrc``/``.map``, ``.pdb``/``.cif`` (also compressed), or ``.h5``.
    symmetry : str, optional
        Point group. Default: C1, or what the HDF5 file says.
    label : str, optional
        Default: the file's name without its ending, or what the HDF5 file says.
    k_max : float, optional
        Band limit, 1/Å. A map is used up to its Nyquist frequency at most. An atomic structure needs a limit.
    atom_model, atom_radius, residue_model, choice
        For atomic structures; see :func:`cryolike_scipion.engine.atoms.read_ensemble`. Each of several models is a structure,
        whose label ends in the model's number.

    Raises
    ------
    InputError
        If the file cannot be used; the message says why.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "h5":
        structure, _ = load(path)
        changes: dict[str, Any] = {"k_max": structure.k_max if k_max is None else min(k_max, structure.k_max)}
        if symmetry is not None:
            changes["symmetry"] = point_groups.canonical(symmetry)
        if label is not None:
            changes["label"] = label
        return [replace(structure, **changes)]
    group = point_groups.canonical(symmetry or "C1")
    label = _stem(path) if label is None else label
    if kind == "map":
        found = read_map(path)
        nyquist = 0.5 / found.pixel_size
        whole = Structure(
            found.density,
            found.pixel_size,
            label,
            group,
            path,
            support_radius(found.density, found.pixel_size),
            nyquist if k_max is None else min(k_max, nyquist),
            "map",
        )
        return [whole]
    if k_max is None:
        raise InputError(
            "an atomic structure has no pixel size of its own",
            file=path,
            remedy="Give a resolution or a pixel size.",
        )
    found_models = read_ensemble(
        path, atom_model=atom_model, atom_radius=atom_radius, residue_model=residue_model, choice=choice or AtomChoice()
    )
    if choice is not None and choice.models == "ensemble" and len(found_models) > 1:
        logger.info("%s: each of its %d models is a structure", path, len(found_models))
    return [_of_atoms(model, number, k_max, label, group, path) for number, model in found_models]


def _of_atoms(model: AtomModel, number: int | None, k_max: float, label: str, group: str, path: Path) -> Structure:
    density = band_limited_density(model, k_max)
    return Structure(
        density.values,
        density.pixel_size,
        label if number is None else f"{label} model {number}",
        group,
        path,
        model.radius,
        k_max,
        "atoms",
        model.description() | ({} if number is None else {"model": number}),
    )


def cut_softly(structure: Structure, radius: float, edge: float) -> Structure:
    """The structure within a radius, with a soft edge outside it, in the smallest box that holds both.

    Parameters
    ----------
    structure : Structure
        Is not changed.
    radius : float
        Å about the centre: nothing is changed within.
    edge : float
        Å over which a raised cosine falls to 0, not 0.

    Returns
    -------
    Structure
        Of radius ``radius + edge``; its box may be smaller.
    """
    pixel, centre = structure.pixel_size, structure.box // 2
    half = int(np.ceil((radius + edge) / pixel))
    # A cube of 2 half + 1 voxels has its centre at voxel half.
    kept = slice(centre - half, centre + half + 1) if half <= (structure.box - 1) // 2 else slice(None)
    density = structure.density[kept, kept, kept].copy()
    axis2 = ((np.arange(len(density)) - len(density) // 2) * pixel) ** 2
    for z, plane in enumerate(density):  # by planes, so that no second volume is needed
        distance = np.sqrt(axis2[z] + axis2[:, None] + axis2)
        plane *= 0.5 * (1.0 + np.cos(np.pi * np.clip((distance - radius) / edge, 0.0, 1.0)))
    return replace(structure, density=density, radius=radius + edge)


def structure_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that were meant: a folder made by the verb ``templates`` stands for its structures, in order.

    Raises
    ------
    InputError
        If a folder holds no readable ``templates.json``.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        try:
            entries = json.loads((path / INDEX).read_text(encoding="utf-8"))
            files.extend([path / entry["file"] for entry in entries])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"folder holds no readable {INDEX}", file=path, remedy="Give a folder that 'templates' made."
            ) from None
    return files


def one_each(values: list[str], count: int, what: str, spread: bool = True) -> list[str]:
    """One value for each structure; with ``spread`` a single value stands for all.

    Raises
    ------
    InputError
        If the numbers do not fit.
    """
    if spread and len(values) == 1:
        return list(values) * count
    if len(values) != count:
        raise InputError(f"{len(values)} {what} for {count} structures", remedy="Give one for each structure.")
    return list(values)


def save(path: str | Path, structure: Structure, views: ViewTable, parameters: dict[str, Any] | None = None) -> None:
    """Write a structure and its views to an HDF5 file, whole or not at all.

    Datasets: ``density`` [z, y, x], ``views/rot``, ``views/tilt`` (degrees), ``views/weight`` (sum 1) and,
    for HEALPix views, ``views/cell``. Attributes carry units; those named ``parameter.…`` are what made the
    file.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as handle:
        handle.attrs["format"] = FORMAT
        density = handle.create_dataset("density", data=structure.density, compression="gzip", compression_opts=1)
        density.attrs["axes"] = "z, y, x; the centre is index N // 2"
        for name, value in (("pixel_size", structure.pixel_size), ("radius", structure.radius)):
            handle.attrs[name] = value
            handle.attrs[f"{name}.unit"] = "Å"
        handle.attrs["k_max"] = structure.k_max
        handle.attrs["k_max.unit"] = "1/Å"
        for name in ("label", "symmetry", "kind"):
            handle.attrs[name] = getattr(structure, name)
        handle.attrs["source"] = str(structure.source)
        for prefix, values in (("metadata", structure.metadata), ("parameter", parameters or {})):
            for name, value in values.items():
                if value is not None:
                    handle.attrs[f"{prefix}.{name}"] = value
        group = handle.create_group("views")
        for name, column, unit in (
            ("rot", views.rot_deg, "degree"),
            ("tilt", views.tilt_deg, "degree"),
            ("weight", views.weights, "1"),
        ):
            group.create_dataset(name, data=column).attrs["unit"] = unit
        group.attrs["symmetry"] = views.symmetry
        group.attrs["step_deg"] = views.step_deg
        if views.nside is not None and views.cells is not None:
            group.attrs["nside"] = views.nside
            group.create_dataset("cell", data=views.cells)


def load(path: str | Path) -> tuple[Structure, ViewTable]:
    """Read what :func:`save` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as handle:
            if handle.attrs.get("format") != FORMAT:
                raise InputError("HDF5 file holds no structure", file=path, remedy="Make it anew with 'templates'.")
            return _structure_of(handle), _views_of(handle["views"])
    except FileNotFoundError:
        raise InputError("structure does not exist", file=path, remedy="Check the name.") from None
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"structure cannot be read ({reason})", file=path, remedy="Make it anew with 'templates'.") from None


def _structure_of(handle: h5py.File) -> Structure:
    start = "metadata."
    plain = {
        name[len(start) :]: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in handle.attrs.items()
        if name.startswith(start)
    }
    return Structure(
        density=handle["density"][()],
        pixel_size=float(handle.attrs["pixel_size"]),
        label=str(handle.attrs["label"]),
        symmetry=str(handle.attrs["symmetry"]),
        source=Path(str(handle.attrs["source"])),
        radius=float(handle.attrs["radius"]),
        k_max=float(handle.attrs["k_max"]),
        kind=str(handle.attrs["kind"]),
        metadata=plain,
    )


def _views_of(group: h5py.Group) -> ViewTable:
    has_cells = "cell" in group
    return ViewTable(
        rot_deg=group["rot"][()],
        tilt_deg=group["tilt"][()],
        weights=group["weight"][()],
        symmetry=str(group.attrs["symmetry"]),
        step_deg=float(group.attrs["step_deg"]),
        nside=int(group.attrs["nside"]) if has_cells else None,
        cells=group["cell"][()] if has_cells else None,
    )


def _suffixes(path: Path) -> list[str]:
    """The ending of a file name, lower case, with a compression ending apart."""
    endings = [suffix.lower() for suffix in path.suffixes[-2:]]
    if endings and endings[-1] in _COMPRESSED:
        return endings
    return endings[-1:]


def _stem(path: Path) -> str:
    name = path.name
    for suffix in reversed(_suffixes(path)):
        name = name[: len(name) - len(suffix)]
    return name or path.name


def kind_of(path: Path) -> str:
    """``"h5"``, ``"map"`` or ``"atoms"``, by the ending of the name.

    Raises
    ------
    InputError
        If the ending is none of these.
    """
    endings = _suffixes(path)
    ending = endings[0] if endings else ""
    if ending in (".h5", ".hdf5"):
        return "h5"
    if ending in MAP_SUFFIXES:
        return "map"
    if ending in ATOM_SUFFIXES:
        return "atoms"
    raise InputError(f"file ending {ending!r} is not known", file=path, remedy="Give a .mrc, .map, .pdb, .cif or .h5 file.")
