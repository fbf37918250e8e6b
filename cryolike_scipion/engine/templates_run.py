"""The verb ``templates``: structures made ready for comparison, with their views and a stack to look at.

The output folder receives, for each structure, an HDF5 file (see
:func:`cryolike_scipion.engine.structures.save`) and an MRC stack of projections, and ``templates.json``, a
list with an entry for each structure in the order given: ``label``, ``file``, ``preview`` (or null),
``symmetry``, ``views`` (their number) and ``preview_views`` (which of them the stack shows, from 1). File
names in it are relative to the folder.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray

from .atomic import atomic_path, write_bytes
from .errors import InputError
from .own_output import refuse_overwriting
from .progress import Progress
from .report_run import REPORT, or_warn, title_of, write_template_report
from .simulate import HalfPlane
from .slices import SliceMaker
from .structures import INDEX, Structure, atom_options, one_each, read_structures, save
from .views import ViewTable, first_step_deg, healpix_views, view_table_from_file

_PROJECTIONS_AT_ONCE = 32
_LONGEST_NAME = 80
_RECORDED = (
    "box",
    "pixel",
    "angular_step",
    "views",
    "resolution",
    "atom_model",
    "atom_radius",
    "residue_model",
    "select",
    "models",
    "assembly",
    "no_hydrogens",
    "waters",
)

logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Read each structure, and write its HDF5 file, its preview and, last, the index.

    Parameters
    ----------
    parameters : dict
        Completed parameters of the verb ``templates``.
    progress : Progress
        Counts projections.

    Raises
    ------
    InputError
        If a structure or view file cannot be used, or the numbers of labels and symmetries do not fit.
    """
    paths = [Path(path) for path in parameters["structure"]]
    symmetries = one_each(parameters["symmetry"], len(paths), "symmetries")
    labels: list[str | None] = [None] * len(paths)
    if parameters["labels"]:
        labels = list(one_each(parameters["labels"], len(paths), "labels", spread=False))
    out = Path(parameters["out"])
    refuse_overwriting(out, ("*.h5", "*.mrcs", "templates.json", REPORT), paths)
    out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    inputs = enumerate(zip(paths, symmetries, labels))
    found = ((i, one) for i, (path, group, label) in inputs for one in _read(path, group, label, parameters))
    for source, structure in found:
        views = _views(structure, parameters)
        name = safe_name(structure.label, taken)
        save(out / f"{name}.h5", structure, views, {key: parameters.get(key) for key in _RECORDED})
        entries.append({
            "label": structure.label, "file": f"{name}.h5", "preview": None, "symmetry": structure.symmetry,
            "views": len(views), "preview_views": [], "input": source,
        })  # fmt: skip
        shown = _shown(len(views), parameters["preview"])
        if len(shown):
            _write_preview(out / f"{name}.mrcs", structure, views.rotations()[shown], parameters, progress)
            entries[-1].update(preview=f"{name}.mrcs", preview_views=[int(i) + 1 for i in shown])
        logger.info(
            "%s: %d views %.2f degrees apart (%s), up to %.2f Å, radius %.0f Å",
            structure.label,
            len(views),
            views.step_deg,
            views.symmetry,
            1.0 / structure.k_max,
            structure.radius,
        )
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    write_bytes(out / INDEX, f"[\n{lines}\n]\n".encode())
    or_warn("the report", write_template_report, out, out / REPORT, title_of(out))


def safe_name(label: str, taken: set[str]) -> str:
    """A file name for a label: ASCII letters, digits, dot, dash and underscore; added to those ``taken``.

    Accents are dropped, every other run of characters becomes one underscore, and a number is added where the
    name is already taken (upper and lower case count as the same).
    """
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode("ascii")
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:_LONGEST_NAME] or "structure"
    name, number = base, 1
    while name.lower() in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name.lower())
    return name


def _read(path: Path, symmetry: str, label: str | None, parameters: dict[str, Any]) -> list[Structure]:
    pixel = parameters["pixel"]
    finest = max(2.0 * (pixel or 0.0), parameters["resolution"] or 0.0)
    structures = read_structures(
        path, symmetry=symmetry, label=label, k_max=1.0 / finest if finest > 0 else None, **atom_options(parameters)
    )
    for structure in structures:
        box, pixel = _size(structure, parameters)
        if 2.0 * structure.radius > box * pixel:
            logger.warning(
                "%s is %.0f Å across, but the box only %.0f Å",
                structure.label,
                2.0 * structure.radius,
                box * pixel,
            )
    return structures


def _size(structure: Structure, parameters: dict[str, Any]) -> tuple[int, float]:
    """Box and pixel size of the projections: as given, else the map's own."""
    box, pixel = parameters["box"], parameters["pixel"]
    if (box is None or pixel is None) and structure.kind == "atoms":
        raise InputError(
            "an atomic structure has no box and pixel size of its own",
            file=structure.source,
            remedy="Give --box and --pixel.",
        )
    return box or structure.box, pixel or structure.pixel_size


def _views(structure: Structure, parameters: dict[str, Any]) -> ViewTable:
    if parameters["views"]:
        return view_table_from_file(parameters["views"], structure.symmetry)
    k_max = min(structure.k_max, 0.5 / parameters["pixel"]) if parameters["pixel"] else structure.k_max
    return healpix_views(parameters["angular_step"] or first_step_deg(structure.radius, k_max), structure.symmetry)


def _shown(count: int, wanted: int) -> NDArray[np.int64]:
    """Indices of at most ``wanted`` views, spread evenly over the table."""
    wanted = min(count, wanted)
    return np.arange(wanted) * count // max(wanted, 1)


def _write_preview(
    path: Path,
    structure: Structure,
    rotations: NDArray[np.float64],
    parameters: dict[str, Any],
    progress: Progress,
) -> None:
    """Write projections ``∫ρ dz`` (density × Å) at given orientations as an MRC stack."""
    box, pixel = _size(structure, parameters)
    plane = HalfPlane(box, pixel, min(structure.k_max, 0.5 / pixel))
    dtype = torch.complex128 if parameters["precision"] == "double" else torch.complex64
    maker = SliceMaker(structure, plane.points(), dtype)
    progress.start(len(rotations), structure.label, "projections")
    images = np.empty((len(rotations), box, box), dtype=np.float32)
    for start in range(0, len(rotations), _PROJECTIONS_AT_ONCE):
        part = slice(start, start + _PROJECTIONS_AT_ONCE)
        images[part] = plane.image(maker(rotations[part])).numpy()
        progress.update(len(images[part]))
    progress.close()
    with atomic_path(path) as temporary, mrcfile.new(temporary) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = pixel
