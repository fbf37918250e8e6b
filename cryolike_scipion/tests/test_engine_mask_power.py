"""<T,T> behind a mask against sums over pixels."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine.image_prep import ImageSettings, mask_of
from cryolike_scipion.engine.mask_power import kept_power
from cryolike_scipion.engine.rotations import random_rotations
from cryolike_scipion.engine.simulate import HalfPlane
from cryolike_scipion.engine.slices import SliceMaker
from cryolike_scipion.engine.structures import read_structure

from .helpers import shared_data

BOX, PIXEL, K_MAX = 48, 4.88, 0.1


def _arguments(defocus):
    defocus = torch.as_tensor(defocus, dtype=torch.float64)
    same = torch.ones_like(defocus)
    return {
        "defocus_u": defocus + 200,
        "defocus_v": defocus - 200,
        "defocus_angle_deg": 30 * same,
        "voltage_kv": 300 * same,
        "cs_mm": 2.0 * same,
        "amplitude_contrast": 0.1 * same,
        "phase_shift_deg": 0 * same,
        "bfactor": 0 * same,
        "scale": same,
    }


@pytest.mark.parametrize("diameter, edge", [(110.0, 15.0), (160.0, 15.0), (230.0, 4.0)])
def test_share_left_by_a_mask(diameter, edge):
    structure = read_structure(shared_data("trpv1_real") / "map.mrc", k_max=K_MAX)
    settings = ImageSettings(mask_diameter=diameter, mask_edge=edge)
    defocus = np.array([22000.0, 9000.0, 14000.0, 18000.0, 9500.0, 20000.0, 12000.0, 16500.0])
    found = kept_power(structure, settings, BOX, PIXEL, K_MAX, _arguments(defocus))

    from cryolike_scipion.engine.ctf import ctf

    plane = HalfPlane(3 * BOX, PIXEL, K_MAX)
    points = torch.as_tensor(plane.points())
    k, theta = torch.hypot(points[:, 0], points[:, 1]), torch.atan2(points[:, 1], points[:, 0])
    slices = SliceMaker(structure, plane.points())(random_rotations(300, np.random.default_rng(4))).to(torch.complex128)
    mask = torch.zeros(3 * BOX, 3 * BOX, dtype=torch.float64)
    mask[BOX : 2 * BOX, BOX : 2 * BOX] = mask_of(settings, BOX, PIXEL)
    for i in range(len(defocus)):
        values = {name: value[i] for name, value in _arguments(defocus).items()}
        images = plane.image(slices * ctf(k, theta, **values))
        right = float(((mask * images) ** 2).sum() / (images**2).sum())
        assert found[i] == pytest.approx(right, abs=0.02)
    assert found.max() < 1.0
    assert (found.max() < 0.9) == (diameter == 110.0)


def test_more_defocus_leaves_less():
    structure = read_structure(shared_data("trpv1_real") / "map.mrc", k_max=K_MAX)
    found = kept_power(
        structure, ImageSettings(mask_diameter=150.0, mask_edge=10.0), BOX, PIXEL, K_MAX, _arguments([8000.0, 30000.0])
    )
    assert found[0] > found[1] + 0.02
