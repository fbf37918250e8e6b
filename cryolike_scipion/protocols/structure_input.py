"""The part of a form that asks for structures, shared by the nodes that take them."""

import os

from pyworkflow.protocol.params import MultiPointerParam

from ..convert.structures import ATOM_EXTENSIONS, atom_extension, list_structures
from .batches import file_identity
from .form import add_parameters

ATOM_PARAMETERS = ("atom_model", "atom_radius", "residue_model", "select", "assembly", "no_hydrogens", "waters")


def add_structures(section, **options):
    """Add the pointer to structures."""
    section.addParam(
        "inputStructures",
        MultiPointerParam,
        label="Input structures",
        pointerClass="Volume,SetOfVolumes,SetOfClasses3D,AtomStruct,SetOfAtomStructs",
        minNumObjects=1,
        help="The structures that particles may show: volumes, atomic structures, sets of them, or 3D classes (the average "
        "of each), in any mixture. Their order numbers them: the first is structure 1.",
        **options,
    )


def add_atoms(section, verb, **options):
    """Add how atomic structures become density."""
    add_parameters(section, verb, ATOM_PARAMETERS, **options)


def pointed_structures(pointers):
    """Return the structures behind a MultiPointer: list of StructureFile."""
    return list_structures(pointer.get() for pointer in pointers if pointer.get() is not None)


def structures_identity(structures):
    """Return what tells these structures from others, in types that JSON knows."""
    return [[structure.label, structure.pixel, structure.index] + file_identity(structure.source) for structure in structures]


def structure_errors(structures, symmetries):
    """Return what is wrong with some structures, one line each.

    Parameters
    ----------
    structures : list of StructureFile
    symmetries : list of str
        Point groups as given in the form.
    """
    if not structures:
        return ["There is no input structure. Choose at least one volume or atomic structure."]
    errors = []
    for structure in structures:
        if not os.path.exists(structure.source):
            errors.append(f"The file of structure '{structure.label}' is missing: {structure.source}. Import it again.")
        elif structure.is_map and structure.pixel <= 0:
            errors.append(f"Structure '{structure.label}' has no pixel size. Set it when importing the volume.")
        elif structure.is_map and len(set(structure.shape)) > 1:
            errors.append(
                "Structure '{}' is not a cube ({}). Pad it to one.".format(
                    structure.label, " x ".join(str(n) for n in structure.shape)
                )
            )
        elif not structure.is_map and atom_extension(structure.source) not in ATOM_EXTENSIONS:
            errors.append(f"Structure '{structure.label}' is neither PDB nor mmCIF: {structure.source}.")
    if len(symmetries) not in (0, 1, len(structures)):
        errors.append(
            f"There are {len(symmetries)} symmetries for {len(structures)} structures. Give one for all, or one each."
        )
    return errors
