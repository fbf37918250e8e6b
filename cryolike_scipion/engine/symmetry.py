"""Point groups in RELION's names and axis conventions, which Scipion uses too.

=========  ======================================================================
name       axes
=========  ======================================================================
``Cn``     n-fold along z
``Dn``     n-fold along z, 2-fold along x
``T``      3-fold along z, 2-fold in the y-z plane (0, √(2/3), √(1/3))
``O``      4-folds along x, y and z
``I``      the same as ``I2``
``I1``     2-folds along x, y and z, 5-fold in the x-z plane nearer to x
``I2``     2-folds along x, y and z, 5-fold in the x-z plane nearer to z
``I3``     5-fold along z, 2-fold in the x-z plane at negative x
``I4``     5-fold along z, 2-fold in the x-z plane at positive x
=========  ======================================================================

A group is the set of rotations g with ``density(g x) = density(x)``. Orientations ``A`` and ``A g`` then give
the same image, and the viewing directions v and ``g v`` are equivalent.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0
_TILT_FIVE = np.arctan(1.0 / _GOLDEN)  # from a 2-fold axis to the nearest 5-fold axis, 31.717°

# Two rotations (order, axis) that generate each group without a parameter.
_GENERATORS: dict[str, tuple[tuple[int, tuple[float, float, float]], ...]] = {
    "T": ((3, (0.0, 0.0, 1.0)), (2, (0.0, np.sqrt(2.0), 1.0))),
    "O": ((3, (1.0, 1.0, 1.0)), (4, (0.0, 0.0, 1.0))),
    "I1": ((2, (1.0, 0.0, 0.0)), (5, (_GOLDEN, 0.0, -1.0)), (2, (0.0, 0.0, 1.0))),
    "I2": ((2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN)), (2, (1.0, 0.0, 0.0))),
    "I3": ((5, (0.0, 0.0, 1.0)), (2, (-np.sin(_TILT_FIVE), 0.0, np.cos(_TILT_FIVE)))),
    "I4": ((5, (0.0, 0.0, 1.0)), (2, (np.sin(_TILT_FIVE), 0.0, np.cos(_TILT_FIVE)))),
}
_ORDERS = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
# Names that Scipion's packages write for the groups above (pwem.constants.SCIPION_SYM_NAME).
_ALIASES = {"I": "I2", "I222": "I1", "I222R": "I2", "IN25": "I3", "IN25R": "I4", "TZ3": "T"}
_MAX_FOLD = 360


def canonical(name: str) -> str:
    """The name of a group in one spelling: upper case, ``I`` as ``I2``, Scipion's names (``I222``, …) as
    RELION's.

    Raises
    ------
    InputError
        If the name is not that of a rotation group listed in this module.
    """
    text = str(name).strip().upper()
    cyclic = re.fullmatch(r"(C|D)X?0*([1-9]\d*)", text)
    if cyclic and int(cyclic.group(2)) <= _MAX_FOLD:
        return f"{cyclic.group(1)}{cyclic.group(2)}"
    text = _ALIASES.get(text, text)
    if text in _GENERATORS:
        return text
    raise InputError(
        f"symmetry {name!r} is not known",
        remedy="Use one of C1, C2, …, D1, D2, …, T, O, I, I1, I2, I3, I4 (RELION's names).",
    )


@lru_cache(maxsize=64)
def _group(name: str) -> NDArray[np.float64]:
    if name[0] in "CD":
        fold = int(name[1:])
        turns = np.stack([_rotation((0.0, 0.0, 1.0), 2.0 * np.pi * i / fold) for i in range(fold)])
        if name[0] == "C":
            group = turns
        else:
            flip = np.diag([1.0, -1.0, -1.0])
            group = np.concatenate([turns, turns @ flip])
    else:
        group = _closure([_rotation(axis, 2.0 * np.pi / order) for order, axis in _GENERATORS[name]], _ORDERS[name])
    group.setflags(write=False)
    return group


def rotations(name: str) -> NDArray[np.float64]:
    """The rotations of a group, the identity first.

    Parameters
    ----------
    name : str
        A name that :func:`canonical` accepts.

    Returns
    -------
    float64 [G, 3, 3]
        Read-only; acting on column vectors (x, y, z) in the frame of the structure.

    Raises
    ------
    InputError
        If the name is not known.
    """
    return _group(canonical(name))


def _rotation(axis: tuple[float, float, float], angle: float) -> NDArray[np.float64]:
    """Rotation by ``angle`` (radian, right-handed) about ``axis`` (Rodrigues' formula)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def _closure(generators: list[NDArray[np.float64]], order: int) -> NDArray[np.float64]:
    """All products of the generators; ``order`` is how many there are."""
    group = [np.eye(3)]
    for element in group:  # grows while it is walked: every element is multiplied by every generator once
        for generator in generators:
            product = element @ generator
            if not any(np.allclose(product, known, atol=1e-6) for known in group):
                group.append(product)
        if len(group) > order:
            raise ArithmeticError(f"generators make more than {order} rotations")
    return np.stack(group)
