"""Coloured noise that RELION made: the radial model tells structures apart better than the white one, with fairer claims."""

import numpy as np
import pytest

from .relion_noise import simulate, spectrum
from .small_sets import score


def _compare(folder, out, maps, **options):
    """Right or wrong [m] and posterior of the best structure [m], for both noise models on the same particles."""
    found = {}
    for noise in ("white", "radial"):
        results = score(
            out / noise, folder / "particles.star", maps, noise=noise, no_report=True, mask_diameter=96.0, **options
        )
        truth = np.repeat([0, 1], results.integrated.shape[1] // 2)
        found[noise] = results.integrated.argmax(axis=0) == truth, results.structure_posterior.max(axis=0), results
    gain = found["radial"][0].astype(float) - found["white"][0]
    error = gain.std() / np.sqrt(len(gain))
    accuracy = {noise: each[0].mean() for noise, each in found.items()}
    claimed = {noise: each[1].mean() for noise, each in found.items()}
    for noise in found:
        print(f"{noise}: {accuracy[noise]:.3f} of {len(gain)} structures right, {claimed[noise]:.3f} claimed")
    print(f"gain, on the same particles: {gain.mean():.3f} ± {error:.3f}")
    return accuracy, claimed, gain.mean(), error, found["radial"][2]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    return folder, simulate(folder, 1000, snr=0.015)


def test_at_known_poses_more_structures_are_right(known, tmp_path):
    folder, maps = known
    accuracy, _, gain, error, results = _compare(folder, tmp_path, maps, search="fixed")
    assert accuracy["radial"] > accuracy["white"] and gain > 3 * error
    k, power = (results.grids[name].values for name in ("noise_frequency", "noise_power"))
    true = spectrum(k) / np.average(spectrum(k), weights=k)
    assert np.abs(np.log(power[0] / true))[10:].max() < 0.1


def test_in_a_search_more_structures_are_right_and_probabilities_are_fairer(tmp_path):
    maps = simulate(tmp_path, 320, snr=0.02)
    accuracy, claimed, gain, error, _ = _compare(tmp_path, tmp_path, maps, search="local", pilot=40)
    assert accuracy["radial"] > accuracy["white"] and gain > 2 * error
    assert abs(claimed["radial"] - accuracy["radial"]) < 0.5 * abs(claimed["white"] - accuracy["white"])
