"""The viewers' drawings and what they read, without a window."""

import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from pwem.objects import Particle, SetOfParticles
from pyworkflow.object import Float, Integer

from cryolike_scipion.convert.inspection import Inspection, is_fresh, read_inspection, row_of_item
from cryolike_scipion.convert.set_columns import read_attributes
from cryolike_scipion.convert.star import write_star
from cryolike_scipion.viewers.plots import draw_histogram, draw_montage, draw_particle

ODD_LABEL = 'a "b" $(x) $y$ 100% ä\nend'


def drawn(figure):
    """Draw the figure and return the texts in it, as matplotlib reads them."""
    figure.canvas.draw()
    texts = [axes.get_title() for axes in figure.axes]
    for axes in figure.axes:
        legend = axes.get_legend()
        texts += [text.get_text() for text in legend.get_texts()] if legend else []
        texts += [text.get_text() for text in axes.texts]
    return texts


def inspection(count):
    images = np.random.default_rng(1).normal(size=(2 * count + 1, 16, 16))
    labels = [ODD_LABEL] + ["other"] * (count - 1)
    return Inspection(images[0], images[1 : count + 1], images[count + 1 :], labels, *([np.ones(count)] * 3))


def test_histogram_has_an_outline_a_structure():
    figure = Figure()
    values = {ODD_LABEL: list(np.arange(30.0)), "other": [5.0, float("nan")], "nobody": []}
    draw_histogram(figure, values, "log-likelihood", "nat")
    texts = drawn(figure)
    assert any(text.endswith("(30)") for text in texts)
    assert any(text.startswith("other") for text in texts)
    assert figure.axes[0].get_xlabel() == "log-likelihood (nat)"
    assert len(figure.axes[0].patches) == 2


@pytest.mark.parametrize("values", [{}, {"one": []}, {"one": [float("nan")]}])
def test_histogram_of_nothing_says_so(values):
    figure = Figure()
    draw_histogram(figure, values, "score", "")
    assert "no particle has this score" in drawn(figure)


def test_histogram_of_one_value():
    figure = Figure()
    draw_histogram(figure, {"one": [2.0, 2.0]}, "score", "")
    assert drawn(figure)
    assert figure.axes[0].patches


@pytest.mark.parametrize("count", [1, 3])
def test_particle_beside_template_and_difference(count):
    figure = Figure()
    shown = inspection(count)
    draw_particle(figure, shown, "Particle 5")
    texts = drawn(figure)
    assert len(figure.axes) == 3 * count
    assert texts[0] == "particle"
    assert "cc 1.000, log-likelihood 1.0, probability 1.000" in texts[1]
    pictures = [axes.images[0].get_array() for axes in figure.axes[:3]]
    for picture, expected in zip(pictures, (shown.image, shown.templates[0], shown.residual[0])):
        assert np.array_equal(picture, expected)
    assert figure.axes[0].images[0].get_clim() == figure.axes[2].images[0].get_clim()


def test_montage_numbers_its_views():
    figure = Figure()
    draw_montage(figure, np.zeros((13, 8, 8)), [str(number) for number in range(1, 14)], ODD_LABEL)
    assert drawn(figure) == [str(number) for number in range(1, 14)]


def test_attributes_of_enabled_items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "set #1 100%?.sqlite"
    particles = SetOfParticles(filename=name)
    for number in (3, 1, 2):
        particle = Particle(location=(number, "stack.mrcs"), objId=number)
        particle._cryolike_logLikelihood = Float(number / 3)
        particle._cryolike_bestStructure = Integer(number)
        particle.setEnabled(number != 2)
        particles._insertItem(particle)
    particles.write()
    particles.close()
    found = read_attributes(name, ["_cryolike_logLikelihood", "_cryolike_bestStructure", "_absent"])
    assert found == {"id": [1, 3], "_cryolike_logLikelihood": [1 / 3, 1.0], "_cryolike_bestStructure": [1, 3]}


def test_row_of_an_item(tmp_path):
    star = str(tmp_path / "particles.star")
    write_star(star, [("particles", ["cryolikeItemId", "x"], [["40", "1"], ["4", "2"], ["44", "3"]])])
    assert [row_of_item(star, item) for item in (40, 4, 44)] == [1, 2, 3]
    with pytest.raises(KeyError, match="no particle 41"):
        row_of_item(star, 41)


def test_an_inspection_is_read_back_and_ages(tmp_path):
    star, path = str(tmp_path / "particles.star"), str(tmp_path / "particle.npz")
    open(star, "w").close()
    os.utime(star, ns=(10**18, 10**18))
    shown = inspection(2)
    np.savez(
        path,
        image=shown.image,
        templates=shown.templates,
        residual=shown.residual,
        labels=np.array(shown.labels),
        cc=shown.cc,
        log_likelihood=shown.log_likelihood,
        structure_posterior=shown.posterior,
    )
    assert is_fresh(path, star)
    assert not is_fresh(path + "x", star)
    os.utime(path, ns=(10**17, 10**17))
    assert not is_fresh(path, star)
    again = read_inspection(path)
    assert again.labels == shown.labels
    assert np.array_equal(again.residual, shown.residual)
