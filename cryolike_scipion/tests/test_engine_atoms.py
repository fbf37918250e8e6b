"""Atomic models: what is read from a file, and that the density has the model's transform within its band."""

import gzip
import subprocess
import sys

import gemmi
import numpy as np
import pytest
import torch

from cryolike_scipion.engine import atoms
from cryolike_scipion.engine.atom_density import band_limited_density, transform
from cryolike_scipion.engine.atom_files import AtomChoice
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.fourier_volume import FourierVolume
from cryolike_scipion.engine.structures import read_structure

PDB = """\
CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1
ATOM      1  N   GLY A   1       0.000   0.000   0.000  1.00 20.00           N
ATOM      2  CA  GLY A   1       1.500   0.000   0.000  1.00 80.00           C
ATOM      3  HA2 GLY A   1       1.900   1.000   0.000  1.00 20.00           H
ATOM      4  N   TRP A   2       3.000   0.000   1.000  1.00 20.00           N
ATOM      5  CA ATRP A   2       4.000   1.000   1.000  0.70 20.00           C
ATOM      6  CA BTRP A   2       4.000   2.000   1.000  0.30 20.00           C
ATOM      7  CA  MSE B   1      10.000   0.000   5.000  1.00 20.00           C
ATOM      8 SE   MSE B   1      12.000   0.000   5.000  1.00 20.00          SE
HETATM    9 CA    CA B 101      -5.000   0.000   0.000  1.00 20.00          CA
HETATM   10  O   HOH B 201     -50.000   0.000   0.000  1.00 20.00           O
END
"""


@pytest.fixture
def pdb(tmp_path):
    path = tmp_path / "a model.pdb"
    path.write_text(PDB)
    return path


def _cloud(forms, count, radius, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    x *= (radius * rng.random(count) ** (1 / 3) / np.linalg.norm(x, axis=1))[:, None]
    index = np.arange(count) % len(forms)
    return atoms.AtomModel(x, rng.uniform(0.5, 1.5, count), index, tuple(forms), "test", np.zeros(3))


def _in_band(k_max, count=4000, seed=1):
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(count, 3))
    return k * (k_max * rng.random(count) ** (1 / 3) / np.linalg.norm(k, axis=1))[:, None]


def _factors(*elements):
    return [atoms.GaussianSum(tuple(gemmi.Element(e).c4322.a), tuple(gemmi.Element(e).c4322.b)) for e in elements]


FORMS = {
    "factors": _factors("C", "N", "O", "S", "H"),
    "gaussian": [atoms.gaussian(0.1), atoms.gaussian(2.3), atoms.gaussian(3.4)],
    "sphere": [atoms.Ball(1.7), atoms.Ball(3.0)],
}


@pytest.mark.parametrize("name", FORMS)
def test_the_exact_transform_equals_the_direct_sum(name):
    model = _cloud(FORMS[name], 40, 25.0)
    k = np.concatenate([_in_band(0.3, 300), np.zeros((1, 3))])
    direct = np.zeros(len(k), complex)
    for x, weight, index in zip(model.positions, model.weights, model.form_index):
        direct += weight * model.forms[index].at(np.linalg.norm(k, axis=1)) * np.exp(-2j * np.pi * k @ x)
    assert np.abs(transform(model, k) - direct).max() < 1e-12 * np.abs(direct).max()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("count", "radius", "k_max"), [(5, 15.0, 0.1), (600, 40.0, 0.2)])
def test_the_density_has_the_models_transform_within_the_band(name, count, radius, k_max):
    from cryolike_scipion.engine.structures import Structure

    model = _cloud(FORMS[name], count, radius)
    density = band_limited_density(model, k_max)
    structure = Structure(density.values, density.pixel_size, "x", "C1", None, model.radius, k_max, "atoms")
    k = _in_band(k_max)
    exact = transform(model, k)
    error = np.abs(FourierVolume(structure, torch.complex128).at(k) - exact)
    # Measured: at most 5e-5 of the largest value and 1.4e-5 in the mean square.
    assert error.max() < 1e-4 * np.abs(exact).max()
    assert np.sqrt(np.mean(error**2)) < 3e-5 * np.sqrt(np.mean(np.abs(exact) ** 2))


def test_form_factors_are_transforms_of_their_densities():
    r, step = np.linspace(0, 30, 300001, retstep=True)

    def numeric(density, k):
        return 4 * np.pi * np.sum(density * r**2 * np.sinc(2 * k * r)) * step

    for k in (0.0, 1e-4, 0.05, 0.3):
        ball = numeric((r <= 2.5).astype(float), k)
        assert atoms.Ball(2.5).at(np.array([k]))[0] == pytest.approx(ball, rel=2e-3, abs=2e-3)
        gauss = numeric(np.exp(-(r**2) / (2 * 1.8**2)) / (2 * np.pi * 1.8**2) ** 1.5, k)
        assert atoms.gaussian(1.8).at(np.array([k]))[0] == pytest.approx(gauss, rel=1e-6, abs=1e-9)


def test_scattering_factors_at_zero_angle_are_those_of_the_tables():
    # International Tables C, table 4.3.2.2: the coefficients a of an element add up to f(0) in Å.
    zero = {form: sum(gemmi.Element(form).c4322.a) for form in ("H", "C", "N", "O", "P", "S")}
    assert zero == {form: pytest.approx(_factors(form)[0].at(np.zeros(1))[0]) for form in zero}
    expected = {"H": 0.529, "C": 2.509, "N": 2.211, "O": 1.983, "P": 5.488, "S": 5.161}
    assert zero == {element: pytest.approx(value, abs=3e-3) for element, value in expected.items()}


def test_water_goes_hydrogen_stays_and_alternatives_count_by_occupancy(pdb):
    model = atoms.read_atoms(pdb)
    assert len(model.positions) == 9
    np.testing.assert_allclose(sorted(model.weights)[:2], [0.3, 0.7], rtol=1e-6)
    np.testing.assert_allclose(sorted(model.weights)[2:], 1.0)
    assert model.name == "factors" and len(model.forms) == 5  # C, Ca, H, N, Se
    hydrogen = model.forms[model.form_index[2]]
    assert hydrogen.at(np.zeros(1))[0] == pytest.approx(0.529, abs=1e-3)


def test_the_centre_of_mass_is_at_the_origin_and_the_offset_is_recorded(pdb):
    model = atoms.read_atoms(pdb)
    numbers = [gemmi.Element(e).weight for e in ("N", "C", "H", "N", "C", "C", "C", "Se", "Ca")]
    mass = np.array(numbers) * model.weights
    np.testing.assert_allclose(mass @ model.positions, 0, atol=1e-9)
    np.testing.assert_allclose(model.positions[0] + model.offset, [0, 0, 0], atol=1e-12)
    assert model.description()["offset_x"] == model.offset[0]
    assert model.radius >= np.linalg.norm(model.positions, axis=1).max()


def test_b_factors_are_not_used(pdb, tmp_path):
    other = tmp_path / "b.pdb"
    other.write_text(PDB.replace("80.00", " 5.00"))
    k = _in_band(0.2, 50)
    np.testing.assert_array_equal(transform(atoms.read_atoms(pdb), k), transform(atoms.read_atoms(other), k))


def test_mmcif_and_compressed_files_give_the_same_model(pdb, tmp_path):
    cif, packed = tmp_path / "m.cif", tmp_path / "m.pdb.gz"
    gemmi.read_structure(str(pdb)).make_mmcif_document().write_file(str(cif))
    packed.write_bytes(gzip.compress(pdb.read_bytes()))
    one = atoms.read_atoms(pdb)
    for path in (cif, packed):
        other = atoms.read_atoms(path)
        np.testing.assert_allclose(other.positions, one.positions, atol=1e-3)
        np.testing.assert_array_equal(other.weights, one.weights)


def test_only_the_first_model_is_read(pdb, tmp_path):
    structure = gemmi.read_structure(str(pdb))
    second = structure[0].clone()
    second.num = 2
    structure.add_model(second)
    path = tmp_path / "two.pdb"
    structure.write_pdb(str(path))
    assert len(gemmi.read_structure(str(path))) == 2
    assert len(atoms.read_atoms(path).positions) == 9


@pytest.mark.parametrize(("select", "count"), [("A", 6), ("A,B", 9), ("A/1/CA[C]", 1), ("[N]", 2), ("(TRP)", 3)])
def test_selection(pdb, select, count):
    assert len(atoms.read_atoms(pdb, choice=AtomChoice(select)).positions) == count


def test_gaussian_and_sphere_radii(pdb):
    given = atoms.read_atoms(pdb, atom_model="gaussian", atom_radius=2.5)
    assert given.forms == (atoms.gaussian(2.5),)
    balls = atoms.read_atoms(pdb, atom_model="sphere")
    assert balls.forms[balls.form_index[1]].radius == pytest.approx(gemmi.Element("C").vdw_r)
    gaussians = atoms.read_atoms(pdb, atom_model="gaussian")
    sigma = gemmi.Element("C").vdw_r / np.sqrt(5)
    assert gaussians.forms[gaussians.form_index[1]] == atoms.gaussian(sigma)


@pytest.mark.parametrize(("atom_model", "kind"), [("factors", atoms.GaussianSum), ("sphere", atoms.Ball)])
def test_residue_model(pdb, atom_model, kind):
    model = atoms.read_atoms(pdb, atom_model=atom_model, residue_model=True)
    # CA of GLY, both of TRP, and MSE as MET; the calcium ion named CA is none.
    electrons = {"GLY": 30, "TRP": 98, "MET": 70}
    np.testing.assert_allclose(sorted(model.weights), sorted([30, 0.7 * 98, 0.3 * 98, 70]))
    assert all(isinstance(form, kind) for form in model.forms) and len(model.forms) == 3
    assert model.name.endswith("per residue")
    if kind is atoms.Ball:
        assert {form.radius for form in model.forms} == {2.25, 3.40, 3.10}
    else:
        # Intended difference: CryoLike's residue Gaussians weigh 1 / radius³, glycine 3.45 times tryptophan.
        assert electrons["TRP"] / electrons["GLY"] == pytest.approx(3.27, abs=0.01)
        assert pytest.approx(3.45, abs=0.01) == (3.40 / 2.25) ** 3


def test_an_unknown_residue_takes_the_mean(tmp_path):
    path = tmp_path / "u.pdb"
    path.write_text("ATOM      1  CA  UNK A   1       0.000   0.000   0.000  1.00 20.00           C\nEND\n")
    model = atoms.read_atoms(path, residue_model=True)
    assert model.weights[0] == pytest.approx(63.3) and len(model.forms) == 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PDB, {"choice": AtomChoice("Z")}, "no atoms in the selection 'Z'"),
        (PDB, {"choice": AtomChoice("a((b")}, r"selection cannot be understood \("),
        (PDB, {"choice": AtomChoice("[Se]"), "residue_model": True}, "no CA atoms in the selection"),
        (PDB, {"atom_radius": 2.0}, "scattering factors have no radius"),
        (PDB, {"atom_model": "gaussian", "atom_radius": -2.0}, "atom radius is -2.0 Å"),
        (PDB, {"atom_model": "cube"}, "atom model 'cube' is not known"),
        (
            PDB.replace("          SE", "           X"),
            {},
            "atom 'SE' of residue MSE 1 in chain B has no known element",
        ),
        (
            PDB.replace("1.00 ", "0.00 ").replace("0.70", "0.00").replace("0.30", "0.00"),
            {},
            "every occupancy is 0",
        ),
        ("nothing here\n", {}, "no atoms"),
        ("", {}, "no atoms"),
        (None, {}, "cannot be read|does not exist"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(tmp_path, text, options, message):
    path = tmp_path / "m.pdb"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_structure(path, k_max=0.1, **options)
    assert "\n" not in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("text", ["data_x\n_cell.length_a 10\n", "loop_ broken", "\0\1\2"])
def test_a_cif_without_atoms_is_refused(tmp_path, text):
    path = tmp_path / "m.cif"
    path.write_text(text)
    with pytest.raises(InputError, match=r"no atoms|cannot be read"):
        atoms.read_atoms(path)


def test_an_atomic_structure_needs_a_band_limit(pdb):
    with pytest.raises(InputError, match="no pixel size of its own"):
        read_structure(pdb)
    structure = read_structure(pdb, k_max=0.2, symmetry="c2")
    assert (structure.kind, structure.symmetry, structure.k_max) == ("atoms", "C2", 0.2)
    assert structure.metadata["atoms"] == 9 and structure.label == "a model"


_MEASURE = """
import resource, sys
from cryolike_scipion.engine.polar_grid import choose_grid
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import read_structure
from cryolike_scipion.engine.views import healpix_views
k_max = 0.5 / 2.9                           # 64 pixels of 2.9 Å hold a ferritin
structure = read_structure(sys.argv[1], k_max=k_max, symmetry="O")
grid = choose_grid(k_max, 92.0, structure.radius)
slices = SliceMaker(structure, grid)(healpix_views(3.0, "O").rotations())
assert slices.abs().max() > 0
print(len(slices), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_a_ferritin_at_64_pixels_stays_within_two_gibibytes(tmp_path):
    rng = np.random.default_rng(2)
    count = 24 * 1400
    direction = rng.normal(size=(count, 3))
    shell = direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(40, 62, (count, 1))
    names = np.tile(["N", "CA", "C", "O", "CB"], count // 5)
    chains = np.repeat(list("ABCDEFGHIJKLMNOPQRSTUVWX"), 1400)
    lines = [
        f"ATOM  {i % 100000:5d}  {name:<3s} ALA {chain}{residue:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00"
        f"           {name[0]}\n"
        for i, (name, chain, residue, (x, y, z)) in enumerate(
            zip(names, chains,
                np.arange(count) % 1400 // 5 + 1, shell, strict=True)
        )
    ]  # fmt: skip
    path = tmp_path / "ferritin.pdb"
    path.write_text("".join(lines))
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True)
    views, gibibytes = done.stdout.split()
    assert int(views) > 150
    assert float(gibibytes) < 2.0  # measured: 0.8
