"""Several models, assemblies, hydrogen and water of PDB and mmCIF files, and runs over an ensemble."""

import gzip
import json

import gemmi
import numpy as np
import pytest

from cryolike_scipion import engine
from cryolike_scipion.engine.atom_files import AtomChoice, read_models
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.likelihood_setup import _content_sha256
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.structures import atom_options, read_structure, read_structures

from .small_sets import score, simulate

ATOM = "ATOM  {n:5d}  {name:<3s} {residue} {chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00          {element:>2s}\n"
ASSEMBLY = """\
REMARK 350 BIOMOLECULE: 1
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000       40.00000
REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000
REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000
REMARK 350 BIOMOLECULE: 2
REMARK 350 APPLY THE FOLLOWING TO CHAINS: A, B
REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000
REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000
REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000
"""


def atoms_of(model, seed=0, count=8):
    """Lines of two chains, a hydrogen and a water; chain B moves from model to model."""
    rng = np.random.default_rng(seed)
    lines, n = [], 0
    for chain, centre in (("A", (0, 0, 0)), ("B", (18 + 6 * model, 4 * model, 0))):
        for i, place in enumerate(rng.uniform(-12, 12, (count, 3)) + centre, 1):
            n += 1
            x, y, z = place
            lines.append(ATOM.format(n=n, name="CA", residue="ALA", chain=chain, number=i, x=x, y=y, z=z, element="C"))
    lines.append(ATOM.format(n=n + 1, name="HA", residue="ALA", chain="A", number=1, x=1, y=2, z=3, element="H"))
    lines.append(ATOM.format(n=n + 2, name="O", residue="HOH", chain="W", number=1, x=9, y=2, z=3, element="O"))
    return "".join(lines)


@pytest.fixture(params=["pdb", "pdb.gz", "cif", "cif.gz"])
def ensemble(request, tmp_path):
    """A file of three models, numbered 2, 4 and 6, in every format."""
    text = ASSEMBLY + "".join(f"MODEL     {2 * m:4d}\n{atoms_of(m)}ENDMDL\n" for m in (1, 2, 3)) + "END\n"
    path = tmp_path / "an ensemble.pdb"
    path.write_text(text)
    kind, _, packed = request.param.partition(".")
    if kind == "cif":
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        path = path.with_suffix(".cif")
        structure.make_mmcif_document().write_file(str(path))
    if packed:
        target = path.with_name(path.name + ".gz")
        target.write_bytes(gzip.compress(path.read_bytes()))
        path = target
    return path


def count(model):
    return model.count_atom_sites()


def test_every_model_is_a_structure(ensemble):
    found = read_structures(ensemble, k_max=0.1, choice=AtomChoice(models="ensemble"))
    assert [s.label for s in found] == ["an ensemble model 2", "an ensemble model 4", "an ensemble model 6"]
    assert [s.metadata["model"] for s in found] == [2, 4, 6] and {s.metadata["atoms"] for s in found} == {17}
    radii = [s.radius for s in found]
    assert radii == sorted(radii) and radii[0] < radii[2]
    named = read_structures(ensemble, k_max=0.1, label="state", choice=AtomChoice(models="ensemble"))
    assert [s.label for s in named] == ["state model 2", "state model 4", "state model 6"]


def test_the_first_model_alone_or_all_together(ensemble):
    (first,) = read_models(ensemble, AtomChoice())
    assert first.number == 2 and count(first.atoms) == 17
    (whole,) = read_models(ensemble, AtomChoice(models="together"))
    assert whole.number is None and count(whole.atoms) == 51
    assert read_structure(ensemble, k_max=0.1, choice=AtomChoice(models="together")).label == "an ensemble"


def test_a_single_model_has_no_number(tmp_path):
    path = tmp_path / "one.pdb"
    path.write_text(atoms_of(1) + "END\n")
    (found,) = read_structures(path, k_max=0.1, choice=AtomChoice(models="ensemble"))
    assert found.label == "one" and "model" not in found.metadata


@pytest.mark.parametrize(
    ("choice", "atoms"),
    [
        (AtomChoice(), 17),
        (AtomChoice(hydrogens=False), 16),
        (AtomChoice(waters=True), 18),
        (AtomChoice(hydrogens=False, waters=True), 17),
        (AtomChoice("B"), 8),
        (AtomChoice("A", hydrogens=False), 8),
    ],
)
def test_hydrogen_water_and_selection(ensemble, choice, atoms):
    (found,) = read_models(ensemble, choice)
    assert count(found.atoms) == atoms


def test_an_assembly_is_built_from_its_recipe(ensemble):
    (plain,) = read_models(ensemble, AtomChoice("A", hydrogens=False))
    (built,) = read_models(ensemble, AtomChoice("A", hydrogens=False, assembly="1"))
    positions = np.array([site.atom.pos.tolist() for site in built.atoms.all()])
    one = np.array([site.atom.pos.tolist() for site in plain.atoms.all()])
    np.testing.assert_allclose(positions, np.concatenate([one, one * [-1, -1, 1] + [40, 0, 0]]), atol=1e-3)
    (both,) = read_models(ensemble, AtomChoice(hydrogens=False, assembly="2"))
    assert count(both.atoms) == 16
    several = read_models(ensemble, AtomChoice(assembly="1", models="ensemble", hydrogens=False))
    assert [m.number for m in several] == [2, 4, 6] and {count(m.atoms) for m in several} == {16}
    with pytest.raises(InputError, match=r"there is no assembly '7' \(the file has: 1, 2\)"):
        read_models(ensemble, AtomChoice(assembly="7"))


def test_what_is_unknown_is_refused(tmp_path):
    path = tmp_path / "one.pdb"
    path.write_text(atoms_of(1) + "END\n")
    with pytest.raises(InputError, match="'every' says nothing about models"):
        read_models(path, AtomChoice(models="every"))
    with pytest.raises(InputError, match="no assembly '1' \\(the file has: none\\)"):
        read_models(path, AtomChoice(assembly="1"))


def test_parameters_become_a_choice():
    given = {"atom_model": "factors", "atom_radius": None, "residue_model": False, "select": "A"}
    assert atom_options(given)["choice"] == AtomChoice("A")  # as runs of older versions were made
    newer = given | {"models": "ensemble", "assembly": "1", "no_hydrogens": True, "waters": True}
    assert atom_options(newer)["choice"] == AtomChoice("A", "ensemble", "1", False, True)


def test_other_atoms_of_one_file_are_another_structure(tmp_path):
    """Else `merge` would take rows scored with and without an assembly for scores of one structure."""
    atoms, density = tmp_path / "one.pdb", tmp_path / "one.mrc"
    atoms.write_text(atoms_of(1) + "END\n")
    density.write_text("any")

    def hashed(path, **given):
        plain = {"atom_model": "factors", "atom_radius": None, "residue_model": False}
        return _content_sha256(path, atom_options({**plain, **given}))

    others = [{"select": "A"}, {"assembly": "1"}, {"models": "together"}, {"no_hydrogens": True}, {"waters": True},
              {"atom_model": "gaussian"}, {"atom_radius": 2.0}, {"residue_model": True}]  # fmt: skip
    assert len({hashed(atoms), *(hashed(atoms, **other) for other in others)}) == 1 + len(others)
    assert hashed(atoms) == hashed(atoms, no_hydrogens=False)
    assert len({hashed(density), *(hashed(density, **other) for other in others)}) == 1, "they decide nothing of a map"


def test_templates_and_scores_of_an_ensemble(tmp_path):
    path = tmp_path / "states.pdb"
    path.write_text("".join(f"MODEL     {m:4d}\n{atoms_of(3 * m, count=25)}ENDMDL\n" for m in (1, 2)) + "END\n")
    engine.run("templates", structure=[str(path)], box=24, pixel=4.0, angular_step=25.0, preview=2, out=str(tmp_path / "made"))
    entries = json.loads((tmp_path / "made" / "templates.json").read_text())
    assert [entry["label"] for entry in entries] == ["states model 1", "states model 2"]
    assert [entry["input"] for entry in entries] == [0, 0] and len({entry["file"] for entry in entries}) == 2

    folder = simulate(tmp_path / "set", [str(path)], count=12, snr=3.0, box=24, pixel=4.0, populations=[1, 2])
    direct = score(tmp_path / "direct", folder / "particles.star", [str(path)], labels=["state"])
    assert direct.labels == ["state model 1", "state model 2"] and direct.integrated.shape == (2, 12)
    from_templates = score(tmp_path / "templates", folder / "particles.star", [str(tmp_path / "made")])
    assert from_templates.labels == ["states model 1", "states model 2"]
    truth = read_particles([folder / "truth.star"]).class_number
    assert sorted(set(truth.tolist())) == [1, 2] and (direct.best_structure == truth).mean() > 0.8
    with pytest.raises(InputError, match=r"priors"):
        score(tmp_path / "priors", folder / "particles.star", [str(path)], priors=[1.0, 1.0, 1.0])
