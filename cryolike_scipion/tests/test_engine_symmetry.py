"""Point groups: that they are groups, and that their axes are RELION's and Scipion's."""

import subprocess

import numpy as np
import pytest

from cryolike_scipion.engine import symmetry
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.rotations import matrix_from_euler

from .helpers import program

ORDERS = {
    "C1": 1,
    "C2": 2,
    "C7": 7,
    "D1": 2,
    "D2": 4,
    "D7": 14,
    "T": 12,
    "O": 24,
    "I": 60,
    "I1": 60,
    "I2": 60,
    "I3": 60,
    "I4": 60,
}

# Euler angles (degrees) of elements of each group, as relion_refine 3.1.3 --print_symmetry_ops has them.
RELION_ELEMENTS = {
    "C7": [(0, 0, 51.4286)],
    "D2": [(0, 0, -180), (0, 180, 180)],
    "T": [(0, 0, 120), (90, 109.471, -150)],
    "O": [(0, 90, 90), (0, 0, 90)],
    "I1": [(0, 180, 180), (-148.283, 108, 31.7175)],
    "I2": [(0, 0, -180), (-58.2825, 36, 121.717)],
    "I3": [(0, 0, 72), (180, 63.4349, 0)],
    "I4": [(0, 63.4349, 180), (-72, 63.4349, 108)],
}


def _nearest(group, matrix):
    return np.abs(group - matrix).max(axis=(1, 2)).min()


@pytest.mark.parametrize("name", ORDERS)
def test_it_is_a_group(name):
    group = symmetry.rotations(name)
    assert len(group) == ORDERS[name]
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-15)
    np.testing.assert_allclose(group @ group.transpose(0, 2, 1), np.broadcast_to(np.eye(3), group.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(group), 1.0, atol=1e-12)
    distinct = {tuple(np.round(element, 6).ravel() + 0.0) for element in group}
    assert len(distinct) == len(group)
    worst = max(_nearest(group, product) for element in group for product in element @ group)
    assert worst < 1e-12


@pytest.mark.parametrize("name", RELION_ELEMENTS)
def test_relions_elements_are_in_it(name):
    group = symmetry.rotations(name)
    for angles in RELION_ELEMENTS[name]:
        assert _nearest(group, matrix_from_euler(*angles)) < 2e-5


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_it_equals_what_relion_prints(name):
    relion = program("relion_refine")
    text = subprocess.run([relion, "--print_symmetry_ops", "--sym", name], capture_output=True, text=True).stdout
    lines = text.splitlines()
    printed = [
        [[float(word) for word in line.split()] for line in lines[i + 1 : i + 4]]
        for i, line in enumerate(lines)
        if line.strip().startswith("R(")
    ]
    group = symmetry.rotations(name)
    assert len(printed) == len(group)
    assert max(_nearest(group, np.array(matrix)) for matrix in printed) < 1e-5


def test_the_icosahedral_settings_are_turned_copies_of_each_other():
    turn = symmetry.rotations("C4")[1]
    for element in symmetry.rotations("I1"):
        assert _nearest(symmetry.rotations("I2"), turn @ element @ turn.T) < 1e-12
    flip = np.diag([-1.0, -1.0, 1.0])
    for element in symmetry.rotations("I3"):
        assert _nearest(symmetry.rotations("I4"), flip @ element @ flip) < 1e-12
    assert max(_nearest(symmetry.rotations("I2"), e) for e in symmetry.rotations("I1")) > 0.1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("c04", "C4"),
        (" d7 ", "D7"),
        ("i", "I2"),
        ("o", "O"),
        ("I222", "I1"),
        ("I222r", "I2"),
        ("In25", "I3"),
        ("In25r", "I4"),
        ("Tz3", "T"),
        ("Dx5", "D5"),
    ],
)
def test_names_have_one_spelling(given, expected):
    assert symmetry.canonical(given) == expected


@pytest.mark.parametrize("name", ["", "C0", "C", "X", "I5", "D-2", "CI", "C1.5", "C4; rm"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"symmetry .* is not known.*C1.*I4"):
        symmetry.canonical(name)


def test_rotations_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        symmetry.rotations("D2")[0, 0, 0] = 5.0
