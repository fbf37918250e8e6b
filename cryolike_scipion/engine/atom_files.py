"""Which atoms of a PDB or mmCIF file belong to each structure: models, selection, assembly, hydrogen, water."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi

from .errors import InputError

__all__ = ["MODELS", "AtomChoice", "StructureModel", "read_models"]

MODELS = ("ensemble", "first", "together")


@dataclass(frozen=True)
class AtomChoice:
    """What is taken from a file of atoms.

    Attributes
    ----------
    select : str or None
        In gemmi's selection syntax, for example ``A,B`` or ``A/10-200/CA``; all atoms if None.
    models : str
        ``ensemble``: each model of the file is a structure. ``first``: only the first is. ``together``: all are one
        structure, as the copies in older files of assemblies are.
    assembly : str or None
        Name of the biological assembly to build, such as ``1``; None takes the coordinates as they are.
    hydrogens, waters : bool
        Whether these are taken, where the file has them.
    """

    select: str | None = None
    models: str = "first"
    assembly: str | None = None
    hydrogens: bool = True
    waters: bool = False


@dataclass(frozen=True)
class StructureModel:
    """Atoms of one structure, and the number of its model where the file has several."""

    atoms: gemmi.Model
    number: int | None


def read_models(path: Path, choice: AtomChoice) -> list[StructureModel]:
    """Structures of a PDB or mmCIF file (also compressed with gzip), in the file's order.

    Raises
    ------
    InputError
        If the file cannot be read or holds no atoms, the selection is wrong, there is no such assembly, or a choice is unknown.
    """
    if choice.models not in MODELS:
        raise InputError(f"{choice.models!r} says nothing about models", remedy=f"Use one of {', '.join(MODELS)}.")
    structure = _read(path)
    if not choice.waters:
        structure.remove_waters()
    if not choice.hydrogens:
        structure.remove_hydrogens()
    if len(structure) == 0:
        raise InputError("file holds no atoms", file=path, remedy="Give a PDB or mmCIF file with coordinates.")
    chosen = list(structure) if choice.select is None else _selected(structure, choice.select, path)
    several = len(chosen) > 1
    if choice.models == "first":
        chosen = chosen[:1]
    if choice.assembly is not None:
        chosen = [_assembled(structure, model, choice.assembly, path) for model in chosen]
    if choice.models == "together" and several:
        whole = gemmi.Model(1)
        for model in chosen:
            for chain in model:
                whole.add_chain(chain)
        return [StructureModel(whole, None)]
    return [StructureModel(model, model.num if several else None) for model in chosen]


def _read(path: Path) -> gemmi.Structure:
    try:
        structure = gemmi.read_structure(str(path))
    except FileNotFoundError:
        raise InputError("structure does not exist", file=path, remedy="Check the name.") from None
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"atomic structure cannot be read ({reason})", file=path, remedy="Give a PDB or mmCIF file.") from None
    return structure


def _selected(structure: gemmi.Structure, select: str, path: Path) -> list[gemmi.Model]:
    try:
        selection = gemmi.Selection(select)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"selection cannot be understood ({reason})",
            file=path,
            remedy="Write it like 'A,B' or 'A/10-200/CA'.",
        ) from None
    return [selection.copy_model_selection(model) for model in selection.models(structure)] or [gemmi.Model(1)]


def _assembled(structure: gemmi.Structure, model: gemmi.Model, name: str, path: Path) -> gemmi.Model:
    """The chains that the file's recipe for an assembly asks for, each copied and moved as it says."""
    recipes = {assembly.name: assembly for assembly in structure.assemblies}
    if name not in recipes:
        known = ", ".join(recipes) or "none"
        raise InputError(f"there is no assembly {name!r} (the file has: {known})", file=path, remedy="Give one of these.")
    built = gemmi.make_assembly(recipes[name], model, gemmi.HowToNameCopiedChain.AddNumber)
    built.num = model.num
    return built
