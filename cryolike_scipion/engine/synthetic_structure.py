"""A made-up protein in two conformations, for demonstrations and tests: bundles of ideal alpha helices.

The body is a bundle of parallel helices in a hexagonal arrangement with random lengths, heights and turns; an
arm, a smaller bundle, leaves it at one side and swings about a hinge between the two states.  Every random
number comes from the seed.
"""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np

# Backbone and CB atoms of an ideal alpha helix in cylindrical coordinates: radius (Å), angle (degree) and
# height (Å) relative to the CA atom; a residue adds 1.5 Å and 100 degrees.  After Arnott & Dover, J. Mol.
# Biol. 30 (1967) 209.
_ATOMS = (
    ("N", "N", 1.55, -27.9, -0.87),
    ("CA", "C", 2.29, 0.0, 0.0),
    ("C", "C", 1.66, 26.7, 1.05),
    ("O", "O", 2.02, 21.9, 2.24),
    ("CB", "C", 3.30, -20.2, -0.66),
)
_RISE, _TURN_DEG = 1.5, 100.0
_SPACING = 10.0  # Å between the axes of neighbouring helices

STATE_ANGLES_DEG = (-25.0, 45.0)  # swing of the arm in the two states


def generate_structure(seed: int) -> list[gemmi.Structure]:
    """Make one made-up protein in two conformations.

    Parameters
    ----------
    seed : the same seed makes the same protein.

    Returns
    -------
    list of gemmi.Structure
        State 1 and state 2: chain A is the body, the same in both; chain B is the arm, turned about its hinge
        by :data:`STATE_ANGLES_DEG`.  About 3,500 atoms, 140 Å across, body and arm centred together at the
        origin.
    """
    rng = np.random.default_rng(seed)
    axes = _hexagonal(19)
    body = _bundle(axes[axes[:, 1] > -12.0], residues=(20, 40), rng=rng)  # a side is missing: no near-symmetry
    arm = _bundle(_hexagonal(7), residues=(22, 30), rng=rng)
    arm = [helix + (0.0, 0.0, 22.0) for helix in arm]  # the hinge, at the origin, is the arm's lower end
    hinge = np.array([22.0, 0.0, 24.0])
    states = []
    for number, angle in enumerate(STATE_ANGLES_DEG, start=1):
        turned = [helix @ _about_y(angle).T + hinge for helix in arm]
        states.append(_structure(f"state_{number}", {"A": body, "B": turned}))
    return states


def write_structures(folder: Path, seed: int) -> list[Path]:
    """Write the states of :func:`generate_structure` as ``state_1.cif`` and ``state_2.cif`` and return the
    paths.
    """
    paths = []
    for structure in generate_structure(seed):
        path = folder / f"{structure.name}.cif"
        structure.make_mmcif_document().write_file(str(path))
        paths.append(path)
    return paths


def _hexagonal(count: int) -> np.ndarray:
    """The `count` points of a hexagonal lattice nearest to its origin, Å: [count, 2]."""
    i, j = np.meshgrid(np.arange(-4, 5), np.arange(-4, 5))
    points = _SPACING * np.stack([i + j / 2, j * np.sqrt(3) / 2], axis=-1).reshape(-1, 2)
    order = np.lexsort((points[:, 1], points[:, 0], np.round(np.hypot(*points.T), 6)))
    return points[order[:count]]


def _bundle(axes: np.ndarray, residues: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Helices along z through the points `axes`; each float64 [atoms, 3], in Å, atoms as in _ATOMS by
    residue.
    """
    helices = []
    for axis in axes:
        n = int(rng.integers(residues[0], residues[1] + 1))
        radius, angle, height = (np.array([atom[i] for atom in _ATOMS]) for i in (2, 3, 4))
        turn = np.deg2rad(rng.uniform(0, 360) + angle + _TURN_DEG * np.arange(n)[:, None])
        z = height + _RISE * (np.arange(n)[:, None] - (n - 1) / 2) + rng.uniform(-6, 6)
        direction = rng.choice([-1.0, 1.0])  # up or down: a half turn about x
        xyz = np.stack([radius * np.cos(turn), direction * radius * np.sin(turn), direction * z], axis=-1)
        helices.append(xyz.reshape(-1, 3) + [axis[0], axis[1], 0.0])
    return helices


def _about_y(angle_deg: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _structure(name: str, chains: dict[str, list[np.ndarray]]) -> gemmi.Structure:
    centre = np.concatenate([helix for helices in chains.values() for helix in helices]).mean(axis=0)
    model = gemmi.Model(1)
    for chain_name, helices in chains.items():
        chain, number = gemmi.Chain(chain_name), 0
        for helix in helices:
            for atoms in helix.reshape(-1, len(_ATOMS), 3) - centre:
                number += 1
                chain.add_residue(_residue(number, atoms))
            number += 10  # a gap: the helices are not connected
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.name = name
    structure.add_model(model)
    structure.setup_entities()
    return structure


def _residue(number: int, positions: np.ndarray) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number))
    for (name, element, *_), position in zip(_ATOMS, positions):
        atom = gemmi.Atom()
        atom.name, atom.element = name, gemmi.Element(element)
        atom.pos = gemmi.Position(*(float(value) for value in position))
        atom.b_iso = 30.0
        residue.add_atom(atom)
    return residue
