"""Viewing directions with quadrature weights, over the sphere or one asymmetric unit of a point group.

A view is (rot, tilt) in degrees, RELION's convention: the structure is seen along the direction
``(sin tilt cos rot, sin tilt sin rot, cos tilt)``. The weights of a table sum to 1, so that ``Σ weight
f(view)`` is the mean over the sphere of any f that has the symmetry of the table.

A regular table holds HEALPix cells. With symmetry the asymmetric unit is the Dirichlet cell of a direction
``p`` far from every axis, ``{v : v·p ≥ v·(g p) for every g}``. Kept are the cells whose centre lies in it;
the weight of a kept cell is its own area within the unit plus the area of the cut cells nearer to it than to
any other kept cell or to a mate of one. These areas (without symmetry, equal ones) are then changed as little
as possible so that symmetric functions of low degree are integrated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import eval_legendre

from . import healpix
from . import symmetry as point_groups
from .errors import InputError
from .rotations import angles_of_directions, directions, matrix_from_euler

_MAX_DEGREE = 24  # of the symmetric functions whose integral is made exact
FINEST_STEP_DEG, COARSEST_STEP_DEG = 1.5, 7.5  # of a first grid, before it is refined
_AREA_SAMPLES = 400_000  # about how many samples of the sphere measure the areas under symmetry


@dataclass(frozen=True)
class ViewTable:
    """Viewing directions and weights.

    Attributes
    ----------
    rot_deg, tilt_deg : float64 [V]
        RELION's first two Euler angles.
    weights : float64 [V]
        Quadrature weights; they sum to 1 in a whole table, and to the parents' weights in a table of
        children.
    symmetry : str
        Point group in RELION's names.
    step_deg : float
        Spacing of the views: the side of a square as large as a cell.
    nside : int or None
        HEALPix resolution, None where the views are no HEALPix cells.
    cells : int64 [V] or None
        HEALPix cells in the numbering of :mod:`cryolike_scipion.engine.healpix`.
    """

    rot_deg: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    weights: NDArray[np.float64]
    symmetry: str
    step_deg: float
    nside: int | None = None
    cells: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rot_deg)

    def rotations(self) -> NDArray[np.float64]:
        """Matrices A(rot, tilt, 0): float64 [V, 3, 3]."""
        return matrix_from_euler(self.rot_deg, self.tilt_deg, 0.0)

    def directions(self) -> NDArray[np.float64]:
        """Unit vectors of the views in the frame of the structure: float64 [V, 3]."""
        return directions(self.rot_deg, self.tilt_deg)


def first_step_deg(radius: float, k_max: float) -> float:
    """Step (degrees) of a first grid of views for a structure of a radius (Å) compared up to k_max (1/Å).

    One step moves the rim by half a turn over pi of the finest detail (``step · radius · k_max = 0.5``), within 1.5° to 7.5°.
    """
    return float(np.clip(np.rad2deg(0.5 / (k_max * radius)), FINEST_STEP_DEG, COARSEST_STEP_DEG))


def healpix_views(step_deg: float, symmetry: str = "C1") -> ViewTable:
    """HEALPix centres no farther apart than a step, over one asymmetric unit.

    Parameters
    ----------
    step_deg : float
        Largest spacing, degrees, above 0.
    symmetry : str
        Point group.

    Raises
    ------
    InputError
        If the step is not positive or the group is unknown.
    """
    if not step_deg > 0:
        raise InputError(f"angular step is {step_deg} degrees", remedy="Give a step above 0.")
    name = point_groups.canonical(symmetry)
    nside = healpix.nside_for(step_deg)
    if name == "C1":
        cells = np.arange(healpix.cell_count(nside))
        weights = _whole_sphere_weights(healpix.centres(cells, nside))
    else:
        cells, weights = _asymmetric_cells(nside, point_groups.rotations(name))
    return _healpix_table(cells, weights, name, nside)


def cryolike_views(step_deg: float) -> ViewTable:
    """CryoLike's rule: Gauss–Legendre circles in cos tilt, equispaced azimuths on each.

    With d the step in radians there are ``3 + ⌈(3 + round(2π/d))/2⌉`` circles and ``3 + round(2π
    sin(tilt)/d)`` azimuths on each, the first at rot 0; the weights are normalised to sum 1.

    Raises
    ------
    InputError
        If the step is not positive.
    """
    if not step_deg > 0:
        raise InputError(f"angular step is {step_deg} degrees", remedy="Give a step above 0.")
    frequency = 2.0 * np.pi / np.deg2rad(step_deg)
    equator = 3 + int(np.round(frequency))
    cosine, circle_weight = np.polynomial.legendre.leggauss(3 + int(np.ceil(equator / 2)))
    tilt = np.arccos(cosine)
    counts = 3 + np.round(frequency * np.sin(tilt)).astype(np.int64)
    rot = np.concatenate([np.arange(n) * (360.0 / n) for n in counts])
    weights = np.repeat(circle_weight / counts, counts) / 2.0
    return ViewTable(rot, np.rad2deg(np.repeat(tilt, counts)), weights, "C1", float(step_deg))


def view_table(rot_deg: ArrayLike, tilt_deg: ArrayLike, weights: ArrayLike | None = None, symmetry: str = "C1") -> ViewTable:
    """A table of given views; equal weights where none are given.

    Raises
    ------
    ValueError
        If the arrays differ in length, hold no view, or a weight is negative or all are 0.
    """
    rot = np.atleast_1d(np.asarray(rot_deg, dtype=np.float64))
    tilt = np.atleast_1d(np.asarray(tilt_deg, dtype=np.float64))
    weight = np.ones_like(rot) if weights is None else np.atleast_1d(np.asarray(weights, dtype=np.float64))
    if not (len(rot) == len(tilt) == len(weight)) or len(rot) == 0:
        raise ValueError(f"{len(rot)} rot, {len(tilt)} tilt and {len(weight)} weights do not make a table of views")
    if not np.all(np.isfinite(np.concatenate([rot, tilt, weight]))):
        raise ValueError("an angle or weight is not a finite number")
    if np.any(weight < 0) or weight.sum() == 0:
        raise ValueError("weights must not be negative and not all 0")
    name = point_groups.canonical(symmetry)
    unit = 4.0 * np.pi / len(point_groups.rotations(name))
    step = float(np.rad2deg(np.sqrt(unit / len(rot))))
    return ViewTable(rot, tilt, weight / weight.sum(), name, step)


def view_table_from_file(path: str | Path, symmetry: str = "C1") -> ViewTable:
    """Views from a text file (columns rot, tilt and, if there is one, weight) or a STAR file.

    In a STAR file the columns are ``rlnAngleRot``, ``rlnAngleTilt`` and, if there is one,
    ``cryolikeViewWeight``. In a text file a line starting with ``#`` is a comment, and columns are separated
    by white space or commas.

    Raises
    ------
    InputError
        If the file cannot be read, names no view, or holds a value that is no number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"views cannot be read ({reason})", file=path, remedy="Give a text or STAR file.") from None
    columns = _star_columns(path, text) if path.suffix.lower() == ".star" else _text_columns(path, text)
    rot, tilt, *rest = columns
    try:
        return view_table(rot, tilt, rest[0] if rest else None, symmetry)
    except ValueError as error:
        raise InputError(str(error), file=path, remedy="Give one view a row: rot tilt [weight], degrees.") from None


def children(table: ViewTable, indices: ArrayLike) -> ViewTable:
    """Four sub-views of each chosen view, each with a quarter of its weight.

    HEALPix views split into the four HEALPix cells that tile theirs. Other views split into the corners of a
    square of half the side of their cell (its area taken from the weight), in the plane that touches the
    sphere at the view.

    Parameters
    ----------
    table : ViewTable
        Parents; may itself be a table of children.
    indices : int array_like [P]
        Which views to split.

    Returns
    -------
    ViewTable
        4 P views, the four of the first parent first.
    """
    chosen = np.atleast_1d(np.asarray(indices, dtype=np.int64))
    weights = np.repeat(table.weights[chosen] / 4.0, 4)
    if table.nside is not None and table.cells is not None:
        cells = healpix.children(table.cells[chosen], table.nside).reshape(-1)
        return _healpix_table(cells, weights, table.symmetry, 2 * table.nside)
    area = 4.0 * np.pi / len(point_groups.rotations(table.symmetry)) * table.weights[chosen]
    reach = 0.25 * np.sqrt(area)[:, None]
    offset = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * reach[:, :, None]
    frame = table.rotations()[chosen]  # rows: two tangents and the direction itself
    vectors = np.einsum("pca,pax->pcx", offset, frame[:, :2]) + frame[:, 2][:, None, :]
    rot, tilt = angles_of_directions(vectors.reshape(-1, 3))
    return ViewTable(rot, tilt, weights, table.symmetry, 0.5 * table.step_deg)


def nearest_view(table: ViewTable, view_directions: ArrayLike) -> NDArray[np.int64]:
    """Index of the view nearest to each direction [..., 3] under the table's symmetry: int64 [...]."""
    group = point_groups.rotations(table.symmetry)
    index, _ = _nearest(_mates(table.directions(), group), len(table), np.asarray(view_directions, dtype=np.float64))
    return index


def _healpix_table(cells: NDArray[np.int64], weights: NDArray[np.float64], name: str, nside: int) -> ViewTable:
    rot, tilt = angles_of_directions(healpix.centres(cells, nside))
    return ViewTable(rot, tilt, weights, name, healpix.spacing_deg(nside), nside, cells)


def _mates(vectors: NDArray[np.float64], group: NDArray[np.float64]) -> NDArray[np.float64]:
    """All symmetry mates of vectors [V, 3], element by element of the group: float64 [G V, 3]."""
    return np.einsum("gij,vj->gvi", group, vectors).reshape(-1, 3)


def _nearest(
    mates: NDArray[np.float64], count: int, vectors: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index of the view whose mate is nearest, and the chord to it."""
    chord, found = cKDTree(mates).query(vectors)
    return np.asarray(found % count, dtype=np.int64), chord


def _interior_direction(group: NDArray[np.float64]) -> NDArray[np.float64]:
    """A direction as far as possible from its own mates, turned a little so that no HEALPix centre ties."""
    nside = 24
    tried = healpix.centres(np.arange(healpix.cell_count(nside)), nside)
    largest = np.max([np.einsum("vi,vi->v", tried, tried @ g.T) for g in group[1:]], axis=0)
    best = tried[np.argmin(largest)]
    return best @ matrix_from_euler(0.7310585, 0.4142136, 0.2718282)


def _in_unit(vectors: NDArray[np.float64], group: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether directions lie in the Dirichlet cell of the group."""
    own, *others = group @ _interior_direction(group)
    reach = vectors @ own
    inside = np.ones(len(vectors), dtype=bool)
    for other in others:
        inside &= reach >= vectors @ other
    return inside


def _asymmetric_cells(nside: int, group: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cells of one asymmetric unit and their weights, by counting small cells of equal area."""
    split = max(2, int(np.ceil(np.sqrt(_AREA_SAMPLES / healpix.cell_count(nside)))))
    fine_side = split * nside
    fine = np.arange(healpix.cell_count(fine_side))
    samples = healpix.centres(fine, fine_side)
    inside = _in_unit(samples, group)
    fine, samples = fine[inside], samples[inside]
    face, rest = np.divmod(fine, fine_side**2)
    x, y = np.divmod(rest, fine_side)
    owner = (face * nside + x // split) * nside + y // split

    everything = np.arange(healpix.cell_count(nside))
    kept = everything[_in_unit(healpix.centres(everything, nside), group)]
    reach = np.deg2rad(healpix.spacing_deg(nside))
    while True:  # narrow corners of the unit may hold no centre
        if len(kept):
            tree_points = _mates(healpix.centres(kept, nside), group)
            orphan = ~np.isin(owner, kept)
            adopted, chord = _nearest(tree_points, len(kept), samples[orphan])
            if chord.size == 0 or chord.max() <= reach:
                break
            missing = owner[orphan][np.argmax(chord)]
        else:
            missing = owner[0]
        kept = np.sort(np.append(kept, missing))
    slot = np.empty(len(owner), dtype=np.int64)
    slot[orphan] = adopted
    slot[~orphan] = np.searchsorted(kept, owner[~orphan])
    area = np.bincount(slot, minlength=len(kept)).astype(np.float64)
    mates = _mates(healpix.centres(kept, nside), group).reshape(len(group), len(kept), 3)
    return kept, _exact_at_low_degree(area / area.sum(), mates)


def _whole_sphere_weights(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of all cells [V] of a HEALPix grid, from one cell of each set of cells that its symmetries exchange.

    The centres [V, 3] are unchanged by x ↔ y and by turning the sign of x, y or z, and so are the weights that change
    least: 16 times fewer unknowns.
    """
    height = np.abs(centres[:, 2:])
    folded = np.round(np.concatenate([np.sort(np.abs(centres[:, :2]), axis=1), height], axis=1), 9)
    _, first, member, count = np.unique(folded, axis=0, return_index=True, return_inverse=True, return_counts=True)
    signs = np.array(np.meshgrid([1, -1], [1, -1], [1, -1], indexing="ij"), dtype=np.float64).reshape(3, 8).T
    mates = np.concatenate([centres[first] * signs[:, None], centres[first][:, [1, 0, 2]] * signs[:, None]])
    return (_exact_at_low_degree(count / len(centres), mates, inversion=True) / count)[member.reshape(-1)]


def _exact_at_low_degree(
    weights: NDArray[np.float64], mates: NDArray[np.float64], inversion: bool = False
) -> NDArray[np.float64]:
    """Weights [V] changed so that symmetrised Legendre functions P_l(v·c) of views with mates [G, V, 3] have
    mean 0.

    The change is the smallest in Σ δ²/weight; the degree is the highest up to ``_MAX_DEGREE`` that leaves
    four views for a condition and every weight positive. Where the group holds the inversion, functions of odd degree
    vanish, and those of even degree have the invariants of the half of the group that turns.
    """
    turns, first = (len(mates) // 2, 2) if inversion else (len(mates), 1)
    degree = min(_MAX_DEGREE, int(np.sqrt(mates.shape[0] * mates.shape[1] / 4.0)) - 1)
    rng = np.random.default_rng(0)
    while degree >= 1:
        rows = [np.ones(len(weights))]
        for order in range(first, degree + 1, first):
            invariants = (2 * order + 1) // turns + 2  # at least as many as there are; more do no harm
            centres = rng.normal(size=(invariants, 3))
            centres /= np.linalg.norm(centres, axis=1, keepdims=True)
            rows.extend(eval_legendre(order, np.clip(mates @ c, -1.0, 1.0)).mean(axis=0) for c in centres)
        conditions = np.array(rows)
        wanted = np.zeros(len(rows))
        wanted[0] = 1.0
        value, vector = np.linalg.eigh(conditions * weights @ conditions.T)
        used = value > 1e-11 * value[-1]
        gap = vector[:, used].T @ (wanted - conditions @ weights)
        change = weights * (conditions.T @ (vector[:, used] @ (gap / value[used])))
        if np.all(weights + change > 0):
            return (weights + change) / (weights + change).sum()
        degree //= 2
    return weights


def _text_columns(path: Path, text: str) -> list[list[float]]:
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) not in (2, 3) or (rows and len(words) != len(rows[0])):
            raise InputError(f"{len(words)} columns", file=path, row=number, remedy="Give rot tilt [weight] in every row.")
        rows.append([_number(word, path, number) for word in words])
    return [list(column) for column in zip(*rows)] if rows else [[], []]


def _star_columns(path: Path, text: str) -> list[list[float]]:
    from gemmi import cif

    try:
        document = cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"STAR file cannot be parsed ({error})", file=path, remedy="Check the file.") from None
    names = ["_rlnAngleRot", "_rlnAngleTilt", "_cryolikeViewWeight"]
    for block in document:
        table = block.find(names[:2])
        if len(table):
            found = [block.find_loop(name) for name in names]
            return [[_number(v, path, i) for i, v in enumerate(column, start=1)] for column in found if len(column)]
    raise InputError("no rlnAngleRot and rlnAngleTilt columns", file=path, remedy="Give a STAR file with both.")


def _number(word: str, path: Path, row: int) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"{word!r} is not a number", file=path, row=row, remedy="Give angles in degrees.") from None
