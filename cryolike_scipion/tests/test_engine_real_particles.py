"""Real particles: TRPV1 at its refined poses, and dark 50S particles of another box and pixel size than the maps."""

import numpy as np
import pytest
import torch

from cryolike_scipion.engine import rotations
from cryolike_scipion.engine.conversion import convert
from cryolike_scipion.engine.likelihood import ScalePrior
from cryolike_scipion.engine.likelihood_setup import prepare_run
from cryolike_scipion.engine.pose_scores import score_poses
from cryolike_scipion.engine.results import load_results
from cryolike_scipion.parameters import complete

from .helpers import shared_data
from .truth import all_threads, cryolike, phase_randomised

RANDOM_POSES = 200


@pytest.mark.parametrize("mask_diameter", [None, 180.0])
def test_refined_poses_of_trpv1_beat_random_ones(tmp_path, mask_diameter):
    data = shared_data("trpv1_real")
    given = {
        "particles": [str(data / "particles.star")],
        "structures": [str(data / "map.mrc")],
        "symmetry": ["C4"],
        "search": "fixed",
        "mask_diameter": mask_diameter,
        "out": str(tmp_path / "out"),
    }
    cryolike(
        "likelihood",
        "--particles",
        data / "particles.star",
        "--structures",
        data / "map.mrc",
        "--symmetry",
        "C4",
        "--search",
        "fixed",
        *(() if mask_diameter is None else ("--mask-diameter", mask_diameter)),
        "--out",
        tmp_path / "out",
    )
    refined = load_results(tmp_path / "out").cc[0]

    setup = prepare_run(complete("likelihood", given), "cpu")
    particles = setup.particles
    images = convert(particles, np.arange(len(particles)), setup.settings, setup.rule, "stop").images
    rng = np.random.default_rng(7)
    random = np.array(
        [
            score_poses(
                images.take(torch.full((RANDOM_POSES,), i)),
                rotations.random_rotations(RANDOM_POSES, rng),
                np.repeat([[particles.origin_x[i], particles.origin_y[i]]], RANDOM_POSES, axis=0),
                setup.banks[0],
                ScalePrior(),
            ).cc
            for i in range(len(particles))
        ]
    )
    beaten = (refined[:, None] > random).mean(axis=1)
    print(f"mean cc {refined.mean():.3f}, at random poses {random.mean():.3f}; beats {beaten.min():.3f} or more of them")
    assert refined.mean() >= 2.3 * random.mean()
    assert beaten.min() >= 0.95


def test_dark_ribosomes_prefer_the_map_to_its_phase_randomised_copy(tmp_path):
    data, maps = shared_data("ribosome_real"), shared_data("two_state")
    decoys = []
    for seed, state in enumerate("DE"):
        decoys.append(tmp_path / f"decoy_{state}.mrc")
        phase_randomised(maps / f"50S_state_{state}.mrc", decoys[-1], seed)
    structures = [maps / "50S_state_D.mrc", maps / "50S_state_E.mrc", *decoys]
    for name, option in (("inverted", ("--invert",)), ("as_is", ())):
        cryolike(
            "likelihood",
            "--particles",
            data / "empiar_10076_7.star",
            "--structures",
            *structures,
            *option,
            "--max-shift",
            40,
            "--levels",
            0,
            "--no-report",
            "--out",
            tmp_path / name,
            *all_threads(),
        )
    right, wrong = (load_results(tmp_path / name).integrated for name in ("inverted", "as_is"))
    gain = right[:2] - right[2:]
    for i in range(7):
        print(
            f"particle {i + 1}: D {right[0, i]:.2f}, E {right[1, i]:.2f}, their decoys {right[2, i]:.2f}, {right[3, i]:.2f}; "
            f"contrast not inverted D {wrong[0, i]:.2f}, E {wrong[1, i]:.2f} nat"
        )
    assert (np.median(gain, axis=1) > 0).all()
    assert np.median(right[:2].max(axis=0) - wrong[:2].max(axis=0)) > 0
