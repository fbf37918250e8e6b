"""Atomic structures (PDB and mmCIF) as sums of spherical scatterers.

The transform of a model is ``F(k) = Σ_j w_j f_j(|k|) exp(−2πi k·x_j)``, with w the occupancy (and, for
residues, the number of electrons) and f one of

factors
    Electron scattering factors ``Σ_i a_i exp(−b_i k²/4)`` of the International Tables for Crystallography,
    vol. C (2004), table 4.3.2.2, in Å. The B-factor column is not used: in predicted models it holds a
    confidence.
gaussian
    A Gaussian of unit integral whose standard deviation is the radius: ``exp(−2π² r² k²)``. CryoLike divides
    each by ``(2π)^{3/2} r³`` once more, which makes small residues the heaviest; for equal radii this is only
    a factor.
sphere
    A ball of density 1 Å⁻³: ``(sin u − u cos u) / (2π² k³)``, u = 2π k r.

The centre of mass is moved to the origin, which is voxel ``N // 2`` of a density; what was subtracted is
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from .atom_files import AtomChoice, read_models
from .errors import InputError

ATOM_MODELS = ("factors", "gaussian", "sphere")
_EVERY_ATOM = AtomChoice()

# Radius (Å) of each residue in the residue model of Kim & Hummer, J. Mol. Biol. 375, 1416 (2008), as BioEM
# and CryoLike use it, and the number of electrons of the residue in a chain (the amino acid less one water).
_RESIDUES: dict[str, tuple[float, int]] = {
    "ALA": (2.50, 38), "ARG": (3.30, 84), "ASN": (2.85, 60), "ASP": (2.80, 60), "CYS": (2.75, 54),
    "GLN": (3.00, 68), "GLU": (2.95, 68), "GLY": (2.25, 30), "HIS": (3.05, 72), "ILE": (3.10, 62),
    "LEU": (3.10, 62), "LYS": (3.20, 70), "MET": (3.10, 70), "PHE": (3.20, 78), "PRO": (2.80, 52),
    "SER": (2.60, 46), "THR": (2.80, 54), "TRP": (3.40, 98), "TYR": (3.25, 86), "VAL": (2.95, 54),
}  # fmt: skip
_GAUSSIAN_EXTENT = 4.0  # standard deviations


@dataclass(frozen=True)
class GaussianSum:
    """Form factor ``Σ_i a_i exp(−b_i k²/4)``; a in the unit of the density times Å³, b in Å²."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    def at(self, k: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value at frequencies k (1/Å)."""
        square = 0.25 * np.asarray(k, dtype=np.float64) ** 2
        total = np.zeros_like(square)
        for a, b in zip(self.a, self.b):
            total += a * np.exp(-b * square)
        return total

    @property
    def extent(self) -> float:
        """Radius (Å) that holds the scatterer: four standard deviations of its widest term."""
        return float(_GAUSSIAN_EXTENT * np.sqrt(max(self.b) / (8.0 * np.pi**2)))


@dataclass(frozen=True)
class Ball:
    """Form factor of a ball of density 1 and a radius in Å."""

    radius: float

    def at(self, k: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value at frequencies k (1/Å), Å³."""
        u = 2.0 * np.pi * self.radius * np.asarray(k, dtype=np.float64)
        safe = np.where(u < 1e-2, 1.0, u)
        shape = np.where(u < 1e-2, 1.0 - u**2 / 10.0 + u**4 / 280.0, 3.0 * (np.sin(safe) - safe * np.cos(safe)) / safe**3)
        return 4.0 / 3.0 * np.pi * self.radius**3 * shape

    @property
    def extent(self) -> float:
        """Its radius."""
        return self.radius


FormFactor = GaussianSum | Ball


def gaussian(radius: float) -> GaussianSum:
    """Gaussian of unit integral and a standard deviation ``radius`` in Å."""
    return GaussianSum((1.0,), (8.0 * np.pi**2 * radius**2,))


@dataclass(frozen=True)
class AtomModel:
    """Scatterers about the origin.

    Attributes
    ----------
    positions : float64 [A, 3]
        x, y, z in Å.
    weights : float64 [A]
        Factor of each scatterer's form factor.
    form_index : int64 [A]
        Which of ``forms`` each scatterer has.
    forms : tuple of GaussianSum or Ball
        The distinct form factors.
    name : str
        ``"factors"``, ``"gaussian"`` or ``"sphere"``, with ``" per residue"`` for the residue model.
    offset : float64 [3]
        What was subtracted from the coordinates of the file, Å.
    """

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    form_index: NDArray[np.int64]
    forms: tuple[FormFactor, ...]
    name: str
    offset: NDArray[np.float64]

    @property
    def radius(self) -> float:
        """Radius about the origin that holds every scatterer, Å."""
        extent = np.array([form.extent for form in self.forms])[self.form_index]
        return float(np.max(np.linalg.norm(self.positions, axis=1) + extent))

    def description(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {
            "atom_model": self.name,
            "atoms": len(self.positions),
            "offset_x": float(self.offset[0]),
            "offset_y": float(self.offset[1]),
            "offset_z": float(self.offset[2]),
        }


def read_atoms(
    path: str | Path,
    *,
    atom_model: str = "factors",
    atom_radius: float | None = None,
    residue_model: bool = False,
    choice: AtomChoice = _EVERY_ATOM,
) -> AtomModel:
    """The first structure that `read_ensemble` finds."""
    options = {"atom_model": atom_model, "atom_radius": atom_radius, "residue_model": residue_model}
    return read_ensemble(path, choice=choice, **options)[0][1]  # type: ignore[arg-type]


def read_ensemble(
    path: str | Path,
    *,
    atom_model: str = "factors",
    atom_radius: float | None = None,
    residue_model: bool = False,
    choice: AtomChoice = _EVERY_ATOM,
) -> list[tuple[int | None, AtomModel]]:
    """Read the structures of a PDB or mmCIF file (also compressed with gzip), each with its model's number.

    Alternative locations count by their occupancies.

    Parameters
    ----------
    path : path
        The file.
    atom_model : str
        ``factors``, ``gaussian`` or ``sphere``. The residue model has no scattering factors and takes
        Gaussians for ``factors``.
    atom_radius : float, optional
        Standard deviation of Gaussians or radius of balls, Å. Default: of residues, their own radius; of
        atoms, the van der Waals radius R for balls, and R/√5 (the same radius of gyration) for Gaussians.
    residue_model : bool
        One scatterer for each residue, at its CA atom; residues without one are left out.
    choice : AtomChoice
        Which atoms and models are taken.

    Raises
    ------
    InputError
        If the file cannot be read, the selection is wrong or empty, an element is unknown, or a parameter
        does not fit.
    """
    path = Path(path)
    if atom_model not in ATOM_MODELS:
        raise InputError(f"atom model {atom_model!r} is not known", remedy=f"Use one of {', '.join(ATOM_MODELS)}.")
    if residue_model and atom_model == "factors":
        atom_model = "gaussian"
    if atom_radius is not None and not atom_radius > 0:
        raise InputError(f"atom radius is {atom_radius} Å", remedy="Give a radius above 0.")
    if atom_radius is not None and atom_model == "factors":
        raise InputError(
            "scattering factors have no radius to set",
            remedy="Use the gaussian or sphere model, or leave the radius out.",
        )
    form = atom_model, atom_radius, residue_model
    return [(one.number, _scatterers(one.atoms, path, choice.select, *form)) for one in read_models(path, choice)]


def _scatterers(
    model: gemmi.Model, path: Path, select: str | None, atom_model: str, atom_radius: float | None, residue_model: bool
) -> AtomModel:
    found = _residue_scatterers(model) if residue_model else _atom_scatterers(model, path, atom_model)
    positions, weights, mass, kinds, radii = found
    if not len(positions):
        what = "CA atoms" if residue_model else "atoms"
        chosen = f" in the selection {select!r}" if select else ""
        raise InputError(f"no {what}{chosen}", file=path, remedy="Check the file and the selection.")
    if not np.all(np.isfinite(positions)):
        raise InputError("a coordinate is not a finite number", file=path, remedy="Repair the file.")
    if not np.any(weights > 0):
        raise InputError("every occupancy is 0", file=path, remedy="Set the occupancies.")
    forms, form_index = _form_factors(atom_model, atom_radius, kinds, radii)
    inertia = weights * mass
    offset = inertia @ positions / inertia.sum()
    name = f"{atom_model} per residue" if residue_model else atom_model
    return AtomModel(positions - offset, weights, form_index, forms, name, offset)


_Scatterers = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.str_], NDArray[np.float64]]


def _table(rows: list[tuple[float, float, float, float, float, str, float]]) -> _Scatterers:
    """Positions, weights, masses, kinds and default radii from rows (x, y, z, weight, mass, kind, radius)."""
    numbers = np.array([(*row[:5], row[6]) for row in rows], dtype=np.float64).reshape(-1, 6)
    kinds = np.array([row[5] for row in rows], dtype=np.str_)
    return numbers[:, :3], numbers[:, 3], numbers[:, 4], kinds, numbers[:, 5]


def _atom_scatterers(model: gemmi.Model, path: Path, atom_model: str) -> _Scatterers:
    rows = []
    for site in model.all():
        element = site.atom.element
        if element.atomic_number == 0 or (atom_model == "factors" and not any(element.c4322.a)):
            raise InputError(
                f"atom {site.atom.name!r} of residue {site.residue.name} {site.residue.seqid} in chain "
                f"{site.chain.name} has no known element",
                file=path,
                remedy="Correct its element, or leave it out by a selection.",
            )
        x, y, z = site.atom.pos.tolist()
        radius = element.vdw_r / np.sqrt(5.0) if atom_model == "gaussian" else element.vdw_r
        rows.append((x, y, z, site.atom.occ, element.weight, element.name, radius))
    return _table(rows)


def _residue_scatterers(model: gemmi.Model) -> _Scatterers:
    rows = []
    for site in model.all():
        if site.atom.name != "CA" or site.atom.element.name != "C":
            continue
        radius, electrons = _residue(site.residue.name)
        x, y, z = site.atom.pos.tolist()
        rows.append((x, y, z, site.atom.occ * electrons, 1.0, site.residue.name, radius))
    return _table(rows)


def _residue(name: str) -> tuple[float, float]:
    """Radius and electrons of a residue; a modified one has its parent's, an unknown one the mean."""
    if name not in _RESIDUES:
        letter = gemmi.find_tabulated_residue(name).one_letter_code.upper()
        name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) or ""
    if name in _RESIDUES:
        return _RESIDUES[name]
    radius, electrons = np.mean(list(_RESIDUES.values()), axis=0)
    return float(radius), float(electrons)


def _form_factors(
    atom_model: str, atom_radius: float | None, kinds: NDArray[np.str_], radii: NDArray[np.float64]
) -> tuple[tuple[FormFactor, ...], NDArray[np.int64]]:
    """The distinct form factors and, for each scatterer, which one it has."""
    if atom_model == "factors":
        names, index = np.unique(kinds, return_inverse=True)
        tables = [gemmi.Element(str(name)).c4322 for name in names]
        return tuple(GaussianSum(tuple(table.a), tuple(table.b)) for table in tables), index
    sizes, index = np.unique(radii if atom_radius is None else np.full(len(radii), atom_radius), return_inverse=True)
    make = gaussian if atom_model == "gaussian" else Ball
    return tuple(make(float(size)) for size in sizes), index
