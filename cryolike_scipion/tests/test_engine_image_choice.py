"""Which mask a run takes where none is asked for."""

import json

import numpy as np
import pytest

from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.image_choice import choose_images, default_mask
from cryolike_scipion.engine.image_prep import ImageSettings
from cryolike_scipion.engine.particles import OpticsGroup
from cryolike_scipion.engine.polar_images import Window
from cryolike_scipion.engine.polar_settings import PolarSettings

from .small_sets import score, simulate, write_maps

NOTHING = {
    "mask_diameter": None,
    "invert": False,
    "background_diameter": None,
    "no_normalise": False,
    "scale_from": None,
}


def optics(box, pixel_size, voltage=300.0):
    return OpticsGroup("one", pixel_size, box, voltage, 2.7, 0.1)


def test_the_mask_holds_the_moved_structure_and_what_the_ctf_spreads():
    """At 300 kV the wavelength is 0.01969 Å: 25,000 Å of defocus move detail of 10 Å by 49.2 Å."""
    wanted = 2 * (60 + 15 + 49.2)
    diameter = default_mask(60.0, 15.0, 0.1, [optics(100, 4.0)])
    assert wanted <= diameter < wanted + 40
    assert diameter / 40 == pytest.approx(round(diameter / 40))
    assert default_mask(60.0, 15.0, 0.1, [optics(100, 4.0, 100.0)]) > diameter  # slower electrons are spread farther


def test_a_box_without_room_gets_no_mask():
    assert default_mask(60.0, 15.0, 0.1, [optics(62, 4.0)]) is None
    assert default_mask(60.0, 15.0, 0.1, [optics(100, 4.0), optics(62, 4.0)]) is None  # the smallest box decides
    assert default_mask(60.0, 15.0, 0.25, [optics(100, 4.0)]) is None


def test_what_is_asked_for_comes_first_then_what_is_stored():
    groups = [optics(100, 4.0)]
    stored = PolarSettings(0.1, 60.0, Window(100.0, 8.0), ImageSettings(mask_diameter=333.0, mask_edge=12.0))
    assert choose_images(NOTHING, stored, 60.0, 15.0, 0.1, groups) == stored.images
    assert choose_images(NOTHING, None, 60.0, 15.0, 0.1, groups).mask_diameter == pytest.approx(280.0)
    asked = choose_images({**NOTHING, "mask_diameter": 150.0}, stored, 60.0, 15.0, 0.1, groups)
    assert (asked.mask_diameter, asked.mask_edge) == (150.0, 12.0)
    assert choose_images({**NOTHING, "mask_diameter": 0.0}, stored, 60.0, 15.0, 0.1, groups).mask_diameter is None


def test_a_run_that_takes_the_scale_of_another_takes_its_mask(tmp_path):
    """Rows that are scored later must be comparable, and their own default may be another."""
    maps = write_maps(tmp_path, 1)
    star = simulate(tmp_path, maps, count=40) / "particles.star"
    score(tmp_path / "first", star, maps, mask_diameter=80.0, rows="1:30")
    next_rows = score(tmp_path / "next", star, maps, scale_from=str(tmp_path / "first"), rows="31:40")
    assert next_rows.parameters["polar"]["images"]["mask_diameter"] == 80.0
    scale = tmp_path / "first" / "scale.json"
    content = json.loads(scale.read_text())
    del content["conditions"]["images"]
    scale.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"scale\.json"):
        score(tmp_path / "last", star, maps, scale_from=str(tmp_path / "first"), rows="31:40")


def test_the_default_mask_loses_nothing(tmp_path):
    """At the true poses structures are told apart as well as without a mask; a tight one cuts off what the CTF spreads."""
    maps = write_maps(tmp_path, 2, box=48)
    truth = simulate(tmp_path, maps, count=150, snr=0.03, resolution=16.0) / "truth.star"
    nats = {}
    for name, diameter in {"default": None, "none": 0.0, "tight": 56.0}.items():
        found = score(tmp_path / name, truth, maps, search="fixed", mask_diameter=diameter, resolution=16.0)
        nats[name] = float(np.abs(found.integrated[0] - found.integrated[1]).mean())
        assert (found.parameters["polar"]["images"]["mask_diameter"] is None) == (name == "none")
    assert nats["default"] > 0.97 * nats["none"]
    assert nats["tight"] < 0.9 * nats["none"]
