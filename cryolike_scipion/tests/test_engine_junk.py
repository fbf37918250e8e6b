"""The log-likelihood over the null and its robust z-score tell junk from particles."""

import numpy as np
import pytest

from cryolike_scipion.engine.junk import log_evidence_of_any, robust_z

from .junk_images import area_under_curve, junk_set
from .small_sets import score, write_maps


def test_z_is_in_standard_deviations_of_the_others_and_outliers_do_not_move_it():
    values = np.random.default_rng(1).normal(5.0, 2.0, 4000)
    good = np.ones(4000, dtype=bool)
    assert robust_z(values, good)[:2] == pytest.approx((values[:2] - 5) / 2, abs=0.15)
    spoiled = values.copy()
    spoiled[:400] = -1e6
    kept = (values[400:] - 5) / 2
    assert np.all(np.abs(robust_z(spoiled, good)[400:] - kept) < 0.2 + 0.2 * np.abs(kept))
    good[7] = False
    assert robust_z(values, good)[7] == 0.0
    assert not robust_z(values, np.zeros(4000, dtype=bool)).any()


def test_z_is_among_images_of_the_same_optics_where_there_are_enough():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(5.0, 2.0, 2000), rng.normal(100.0, 30.0, 2000), rng.normal(60.0, 1.0, 20)])
    groups, good = np.repeat([3, 0, 7], [2000, 2000, 20]), np.ones(4020, dtype=bool)
    found = robust_z(values, good, groups)
    assert found[:2] == pytest.approx((values[:2] - 5) / 2, abs=0.15)
    assert found[2000:2002] == pytest.approx((values[2000:2002] - 100) / 30, abs=0.15)
    assert np.array_equal(found[4000:], robust_z(values, good)[4000:])
    good[groups == 3] = False
    assert not robust_z(values, good, groups)[:2000].any()


def test_evidence_of_any_structure_is_their_mean_by_the_priors():
    found = log_evidence_of_any(np.log([[2.0, 1.0], [6.0, 0.0001]]), np.array([0.75, 0.25]))
    assert np.exp(found) == pytest.approx([3.0, 0.750025])


def test_noise_and_edges_are_told_from_particles(tmp_path, no_report):
    maps = write_maps(tmp_path)
    star, kinds = junk_set(tmp_path / "set", maps, 20, 8, snr=0.1)
    results = score(tmp_path / "out", star, maps, resolution=14.0)
    particles = results.log_ratio_z[kinds == "particle"]
    area = {kind: area_under_curve(particles, results.log_ratio_z[kinds == kind]) for kind in ("noise", "edge")}
    assert area["noise"] >= 0.97
    assert area["edge"] >= 0.9
    # The null is the better explanation of noise: what a user's threshold on the ratio itself rests on.
    assert np.median(results.of_best("integrated")[kinds == "noise"]) < 0
    assert np.median(results.of_best("integrated")[kinds == "particle"]) > 5
