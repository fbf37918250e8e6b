"""How near the scoring comes to the model that made the images, its contrast and noise known, on the same poses."""

from cryolike_scipion.engine.particles import read_particles

from .exact_model import compare_scales
from .helpers import shared_data

COUNT = 200


def test_structures_are_told_apart_as_well_as_with_known_contrast_and_noise(tmp_path):
    """A coarse grid (14.7° and one pixel) for time; `benchmarks/known_scale.py` takes 3,000 views and all 600 particles."""
    data = shared_data("two_state")
    truth = read_particles([data / "two_state_truth.star"]).class_number - 1
    maps = [data / f"50S_state_{state}.mrc" for state in "DE"]
    found = compare_scales(
        tmp_path, data / "two_state.star", data / "two_state_truth.star", maps, truth[:COUNT], noise_variance=1.0,
        kinds=("exact", "learned"), angular_step=14.7, shift_step=13.1, max_shift=47.0, rows=f":{COUNT}",
    )  # fmt: skip
    exact, learned = found["exact"], found["learned"]
    print(f"accuracy {exact.accuracy:.3f} with contrast and noise known, {learned.accuracy:.3f} with both learned")
    assert exact.accuracy > 0.75  # it is a limit worth comparing with
    assert learned.accuracy >= exact.accuracy - 0.01
    # The coarse grid is what limits both: it makes either claim more than it holds.
    assert exact.claimed > exact.accuracy
