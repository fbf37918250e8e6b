"""Structures of different origin compare fairly once their amplitudes have one radial profile."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from cryolike_scipion.engine.amplitude_match import match_amplitudes, radial_power
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.structures import read_structure

from .blob_particles import Blobs
from .small_sets import BOX, score, simulate, write_map
from .structure_origins import FORMS, particles_of_both, rates, write_forms

K_MAX = 0.1
SEARCH = {"search": "exhaustive", "angular_step": 18.0, "max_shift": 4.0, "shift_step": 4.0, "resolution": 10.0, "pilot": 40}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Structures of every form of one molecule, and another one; the folder and the paths of their files."""
    folder = tmp_path_factory.mktemp("forms")
    paths = write_forms(folder)
    return folder, paths, [read_structure(path, k_max=K_MAX) for path in paths]


def _shape(structure, radii):
    power = radial_power(structure, radii)
    return power / (power * radii**2).sum()


def test_the_power_of_a_structure_does_not_depend_on_its_box(forms):
    radii = np.linspace(0, K_MAX, 20)
    map_, reboxed = (_shape(forms[2][FORMS.index(name)], radii) for name in ("map", "reboxed"))
    assert np.abs(reboxed / map_ - 1).max() < 0.02


def test_matched_structures_have_one_profile_and_differed_before(forms):
    structures, radii = forms[2], np.linspace(0.015, K_MAX, 20)
    found = match_amplitudes(structures, K_MAX)
    before, after = (np.array([_shape(s, radii) for s in some]) for some in (structures, found.structures))
    assert np.log(before[FORMS.index("atoms")] / before[FORMS.index("map")]).std() > 1.0
    # Forms of one molecule agree closely but for the last shells; another molecule's shells do so after smoothing.
    assert np.abs(np.log(after[:4, :-3] / after[0, :-3])).max() < 0.1 and np.abs(np.log(after[:4] / after[0])).max() < 0.4
    assert np.log(after[4] / after[0]).std() < 0.3
    assert found.gain.shape == (5, len(found.radii)) and found.radii[-1] == K_MAX
    assert all(s.radius <= 1.25 * t.radius + 1e-6 for s, t in zip(found.structures, structures))


def test_a_structure_alone_stays_as_it_is(forms):
    structure = forms[2][0]
    found = match_amplitudes([structure], K_MAX)
    assert np.allclose(found.gain, 1.0)
    centre = tuple(slice(n // 2 - 8, n // 2 + 8) for n in found.structures[0].density.shape)
    mine = tuple(slice(structure.box // 2 - 8, structure.box // 2 + 8) for _ in range(3))
    assert np.abs(found.structures[0].density[centre] - structure.density[mine]).max() < 1e-5 * structure.density.max()


def test_a_map_without_fine_detail_is_told_and_not_blown_up(forms, caplog):
    blobs = Blobs.random(71, count=12, radius=24.0, sigma=4.5)
    fine, blurred = blobs.structure(48), replace(blobs, sigma=9.0).structure(48)
    with caplog.at_level(logging.WARNING):
        found = match_amplitudes([replace(fine, label="fine"), replace(blurred, label="blurred")], K_MAX)
    assert "blurred has hardly any detail beyond" in caplog.text and "--resolution" in caplog.text
    assert "fine has hardly" not in caplog.text
    relative = found.gain[1] / found.gain[0]
    assert relative.max() / relative.min() < 2e3  # exp(2 pi² 0.1² (9² - 4.5²)), 1.6e5, without a floor


def test_an_empty_structure_is_refused(forms):
    empty = replace(forms[2][0], density=np.zeros_like(forms[2][0].density))
    with pytest.raises(InputError, match="no density within the band"):
        match_amplitudes([forms[2][0], empty], K_MAX)


def test_a_structure_wins_at_one_rate_whatever_file_it_comes_from(forms, tmp_path, no_report):
    """Map, sharpened map, another box and pixel size, atomic model: each against another structure, on the same particles.

    Every form decides alike when matched; as they come, the sharpened map and the atomic model lose particles of their own.
    """
    star, truth = particles_of_both(tmp_path, forms[1], 100, snr=0.1, max_shift=3.5, resolution=1 / K_MAX)
    matched = score(tmp_path / "matched", star, forms[1], match_amplitudes=True, **SEARCH)
    found = rates(matched.integrated, truth)
    assert matched.parameters["match_amplitudes"]
    assert found[0] > 0.85 and np.abs(found - found[0]).max() <= 0.02 + 1e-9
    odds = matched.integrated[:-1] - matched.integrated[-1]
    assert np.median(np.abs(odds - odds[0]), axis=1).max() < 0.25
    plain = rates(score(tmp_path / "plain", star, forms[1], rows=":50", **SEARCH).integrated, truth[:50])
    assert plain[FORMS.index("atoms")] < found.min() - 0.15 and plain[FORMS.index("sharpened")] < found.min() - 0.05


def test_a_contrast_prior_of_unmatched_structures_is_refused(tmp_path, no_report):
    blobs = [Blobs.random(seed, count=8, radius=20.0, sigma=5.0) for seed in (40, 41)]
    maps = [write_map(tmp_path / f"{i}.mrc", one.structure(BOX).density) for i, one in enumerate(blobs)]
    simulate(tmp_path, maps, count=10)
    options = {"angular_step": 30.0, "resolution": 20.0}
    score(tmp_path / "plain", tmp_path / "particles.star", maps, **options)
    with pytest.raises(InputError, match="other structures"):
        score(tmp_path / "out", tmp_path / "particles.star", maps, scale_from=str(tmp_path / "plain"), match_amplitudes=True,
              **options)  # fmt: skip
