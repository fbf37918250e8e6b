"""Plots of the report and the viewers: what they hold, with odd labels, nothing, one value, and very many particles."""

import time

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cryolike_scipion.plots import classes, one_particle, particles, poses, scores, structures, templates, volumes

ODD = ['a "b" $(x) $y$ 100% ä\nend', "_hidden"]
MANY = 100_000


def drawn(figure):
    """Draw a figure, as a window or the report does; return it."""
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.fixture(scope="module")
def some():
    """Scores and poses of 60 particles of two structures."""
    return made_up(60)


def made_up(count, structures=2):
    rng = np.random.default_rng(3)
    return {
        "values": rng.normal(40, 10, count),
        "best": rng.integers(0, structures, count),
        "integrated": rng.normal(40, 10, (structures, count)),
        "rot": rng.uniform(-180, 180, count),
        "tilt": np.rad2deg(np.arccos(rng.uniform(-1, 1, count))),
        "shift": rng.normal(0, 4, (2, count)),
    }


def test_a_threshold_keeps_what_reaches_it(some):
    lines = scores.kept_text(some["values"], some["best"], ODD, 40.0)
    kept = some["values"] >= 40.0
    assert lines[0].startswith(f"{kept.sum()} of 60 particles stay")
    assert lines[2].endswith(f"{(kept & (some['best'] == 1)).sum()} of {(some['best'] == 1).sum()}")
    assert scores.kept_text(np.array([np.nan, 1.0]), np.array([0, 0]), ["a"], 1.0)[0].startswith("1 of 2")


def test_the_cumulative_curve_is_the_share_at_or_above(some):
    figure = drawn(scores.cumulative_curves("x", some["values"], some["best"], ODD))
    x, y = figure.axes[0].lines[1].get_data()
    own = some["values"][some["best"] == 1]
    assert y[0] == 100.0
    assert np.allclose(y, [100 * (own >= value).mean() for value in x])


def test_the_histogram_holds_every_particle(some):
    figure, axes = scores.threshold_figure("x", some["values"], some["best"], ODD)
    drawn(figure)
    assert sum(patch.get_height() for patch in axes[0].patches) == 60
    scores.threshold_lines(axes, 30.0)
    assert axes[1].lines[-1].get_xdata() == [30.0, 30.0]


@pytest.mark.parametrize("values", [np.zeros(0), np.full(3, np.nan), np.full(3, 2.0)])
def test_nothing_and_one_value(values):
    best = np.zeros(len(values), dtype=np.int64)
    drawn(scores.threshold_figure("x", values, best, ["a"])[0])
    drawn(scores.score_histogram("x", values, best, ["a"]))
    drawn(scores.cumulative_curves("x", values, best, ["a"]))


@pytest.mark.parametrize("count, panels", [(1, 0), (2, 1), (4, 6), (7, 6)])
def test_differences_of_pairs(count, panels):
    figure = drawn(structures.log_odds(made_up(50, count)["integrated"], [f"model {k}" for k in range(count)]))
    assert len(figure.axes) == panels


def test_the_matrix_has_zero_at_the_best_and_is_sorted(some):
    integrated = some["integrated"]
    best = integrated.argmax(axis=0)
    picture = drawn(structures.likelihood_matrix(integrated, best, ODD)).axes[0].images[0].get_array()
    assert picture.shape == (2, 60) and np.all(picture.max(axis=0) == 0)
    assert np.all(np.diff(picture.argmax(axis=0)) >= 0)
    margins = -picture[1][picture.argmax(axis=0) == 0]
    assert np.all(np.diff(margins) <= 0)


def test_views_outside_the_usual_range_are_where_they_point(some):
    first = poses.on_map(np.array([10.0, 190.0, 370.0]), np.array([30.0, -30.0, 30.0]))
    assert np.allclose(first[0], np.deg2rad(10)) and np.allclose(first[1], np.deg2rad(60))


def test_agreement_holds_all_and_says_when_there_is_none(some):
    labels = ["a", "b"]
    angle = np.abs(some["values"])
    figure = drawn(poses.agreement(angle, angle / 10, some["best"], labels))
    assert [sum(patch.get_height() for patch in axis.patches) for axis in figure.axes] == [60, 60]
    assert drawn(poses.agreement(np.full(3, np.nan), np.full(3, np.nan), np.zeros(3, int), labels)).texts


def test_radial_power_of_a_wave_is_in_its_ring():
    size, pixel = 32, 2.0
    x = np.arange(size)
    wave = np.cos(2 * np.pi * 5 * x / size)[None, None] * np.ones((1, size, 1))
    frequency, power = templates.radial_power(wave, pixel)
    assert np.argmax(power) == 5 and frequency[5] == pytest.approx(5 / (size * pixel))
    noise = np.random.default_rng(1).normal(size=(20, size, size))
    assert templates.radial_power(noise, pixel)[1].mean() == pytest.approx(size**2, rel=0.05)


def test_the_montage_shows_each_image_with_its_caption():
    figure = drawn(templates.montage(np.random.default_rng(1).normal(size=(13, 8, 8)), [str(i) for i in range(13)], ODD[0]))
    axis = figure.axes[0]
    assert len(axis.images) == 13 and [text.get_text() for text in axis.texts] == [str(i) for i in range(13)]
    assert templates.angle_captions([7], [12.4], [90.1]) == ["7\n12°, 90°"]


def test_a_particle_with_many_structures_shows_the_likeliest():
    rng = np.random.default_rng(2)
    images, k = rng.normal(size=(9, 16, 16)), 9
    posterior = np.linspace(0.0, 0.2, k)
    labels = [f"model {i}" for i in range(k)]
    arguments = (images[0], images, images, labels, posterior, posterior, posterior, ODD[0])
    figure = drawn(one_particle.comparison(*arguments))
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 18 and titles[1].startswith("model 3") and titles[-2].startswith("model 8")


def test_landscapes_end_at_the_best(some):
    figure = drawn(one_particle.view_landscape(some["rot"], some["tilt"], some["values"], ODD[0]))
    assert figure.axes[0].collections[-1].get_array().max() == 0
    grid = np.stack(np.meshgrid([-2.0, 0.0, 2.0], [-2.0, 0.0, 2.0]), axis=-1).reshape(-1, 2)
    score = np.random.default_rng(0).normal(size=(9, 12))
    figure = drawn(one_particle.shift_landscape(grid, np.arange(12) * 30.0, score, ODD[0]))
    shown = figure.axes[1].images[0].get_array()
    assert shown.max() == 0 and np.allclose(shown[0], score[4] - score.max())  # the centre comes first
    drawn(one_particle.shift_landscape(grid[:1], np.zeros(1), score[:1, :1], "one shift"))


def test_before_after_ctf_mask_and_density():
    rng = np.random.default_rng(4)
    images = rng.normal(size=(3, 16, 16))
    assert len(drawn(particles.before_after(images, images, ["a", "b", "c"])).axes) == 6
    frequency = np.linspace(0, 0.25, 9)
    drawn(particles.ctf_over_spectrum(frequency, np.ones(9), frequency, np.zeros(9), "x"))
    assert len(particles.mask_preview(images[0], images[1], (100.0, 80.0))[1]) == 2
    assert len(particles.mask_preview(images[0], None, (100.0, 100.0))[1]) == 1
    density = np.zeros((8, 8, 8))
    density[2, 5, 6] = 3.0
    pictures = [axis.images[0].get_array() for axis in drawn(volumes.slices_and_projections(density, "x", 2.0)).axes]
    assert pictures[1][5, 6] == 6.0 and pictures[3][2, 6] == 6.0 and pictures[5][2, 5] == 6.0  # density · Å


def test_classes_leave_out_those_without_members():
    shape = (2, 6, 8, 8)
    gallery = {
        "average": np.ones(shape[:1] + shape[2:]),
        "average_template": np.ones(shape[:1] + shape[2:]),
        "average_count": np.array([3, 0]),
        "member_row": np.array([[5, 2, 0, 0, 0, 0], [0] * 6]),
        "member_image": np.ones(shape),
        "member_template": np.ones(shape),
    }
    assert len(drawn(classes.members(gallery, ODD)).axes) == 2 * 3


def test_a_hundred_thousand_particles_are_drawn_at_once():
    many = made_up(MANY, 5)
    labels = [f"model {k}" for k in range(5)]
    for draw in (
        lambda: scores.threshold_figure("x", many["values"], many["best"], labels)[0],
        lambda: structures.log_odds(many["integrated"], labels),
        lambda: structures.likelihood_matrix(many["integrated"], many["best"], labels),
        lambda: poses.view_distribution(many["rot"], many["tilt"], many["best"], labels),
        lambda: poses.shift_distribution(*many["shift"]),
        lambda: poses.agreement(np.abs(many["values"]), np.abs(many["values"]), many["best"], labels),
    ):
        began = time.process_time()
        drawn(draw())
        assert time.process_time() - began < 3.0
    began = time.process_time()
    scores.kept_text(many["values"], many["best"], labels, 40.0)
    assert time.process_time() - began < 0.1  # with every move of the mouse
