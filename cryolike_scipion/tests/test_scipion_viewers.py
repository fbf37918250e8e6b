"""What the viewers of the likelihood node show, and the two halves of a selection."""

import os

import numpy as np
import pytest

from cryolike_scipion.convert.inspection import read_inspection
from cryolike_scipion.objects import SCORE_ATTRIBUTES
from cryolike_scipion.plots.scores import SCORES
from cryolike_scipion.protocols import ProtCryolikeSelect
from cryolike_scipion.viewers import CryolikeLikelihoodViewer
from cryolike_scipion.viewers.viewer_table import CryolikeParticlesTable

from .node_project import ROWS
from .scipion_project import columns


@pytest.fixture(scope="module")
def scored(project, imported, volumes):
    return project.likelihood((imported, "outputParticles"), [(volumes, "outputVolumes")])


@pytest.fixture()
def viewer(project, scored):
    viewer = project.viewer(CryolikeLikelihoodViewer, scored)
    viewer.setProtocol(scored)
    return viewer


def test_scipion_offers_the_viewer(project, scored):
    assert CryolikeLikelihoodViewer in project.viewers_of(scored)


def figures(view, choice=None):
    return {name: draw() for name, draw in view.tabs(choice)}


def test_every_score_has_its_threshold(viewer, scored):
    for number, score in enumerate(SCORES):
        viewer.score.set(number)
        (view,) = viewer._showScore()
        assert view.score is score and len(view.values) == len(ROWS)
        stored = columns(scored.outputParticles.getFileName())[score.attribute]
        assert np.allclose(view.values, stored, rtol=1e-5, atol=1e-5)
    assert view.labels == ["state_D", "state_E"] and view.best.max() < 2


def test_structures_poses_classes_and_densities_are_drawn(viewer):
    (view,) = viewer._showPopulations()
    assert list(figures(view)) == ["Shares", "Posteriors", "Differences", "Matrix"]
    (view,) = viewer._showPoses()
    assert len(figures(view)["Views"].axes) == 1
    (view,) = viewer._showClasses()
    assert len(figures(view)["Averages and best members"].axes) >= 2 * 4
    (view,) = viewer._showDensities()
    assert len(view.choices) == 2
    pictures = [axis.images[0].get_array() for axis in figures(view, view.choices[1])["Slices and projections"].axes]
    assert [picture.shape for picture in pictures] == [(32, 32)] * 6
    (view,) = viewer._showAgreement()  # these came without poses
    assert figures(view)["Agreement with the input poses"].texts


def test_a_particle_is_shown_beside_its_templates(viewer, scored):
    item = columns(scored.outputParticles.getFileName())["id"][3]
    viewer.particleId.set(item)
    (view,) = viewer._showParticle()
    assert len(figures(view)[f"Particle {item}"].axes) == 2 * 3
    cache = scored._getExtraPath("inspect", f"particle_{item}.npz")
    found = read_inspection(cache)
    assert np.allclose(found.residual, found.image - found.templates, atol=1e-4 * np.abs(found.image).max())
    made = os.stat(cache).st_mtime_ns
    viewer._showParticle()
    assert os.stat(cache).st_mtime_ns == made, "the second time needs no engine"


def test_a_particle_that_is_not_there_is_told(viewer):
    viewer.particleId.set(123456)
    (message,) = viewer._showParticle()
    assert "no particle 123456" in message._msg


def test_the_table_names_our_columns_and_is_the_first_viewer(project, scored, imported):
    particles = scored.outputParticles
    assert project.viewers_of(particles)[0] is CryolikeParticlesTable
    assert CryolikeParticlesTable not in project.viewers_of(imported.outputParticles)
    (view,) = project.viewer(CryolikeParticlesTable, scored)._visualize(particles)
    visible, order, rendered = (text.split() for text in view.getVisibleAndOrderLabels())
    assert {attribute for attribute, _ in SCORE_ATTRIBUTES.values()} <= set(visible) == set(order)
    assert rendered == ["_filename"] and set(visible) - {"id", "enabled"} <= set(columns(particles.getFileName()))


def test_both_halves_of_a_selection(project, scored):
    table = columns(scored.outputParticles.getFileName())
    values, best = np.array(table["_cryolike_logLikelihood"]), np.array(table["_cryolike_bestStructure"])
    threshold = float(np.median(values))
    select = project.finish(
        ProtCryolikeSelect, inputParticles=(scored, "outputParticles"), score=0, threshold=threshold, structures="2"
    )
    wanted = (values >= threshold) & (best == 2)
    kept, rejected = (columns(getattr(select, name).getFileName()) for name in ("outputParticles", "outputRejected"))
    assert kept["id"] == list(np.array(table["id"])[wanted]) and rejected["id"] == list(np.array(table["id"])[~wanted])
    assert kept["_cryolike_logLikelihood"] == list(values[wanted])
    assert select.outputParticles.hasAlignmentProj() and f"{wanted.sum()} of {len(ROWS)}" in select._summary()[0]
    select.threshold.set(float(values.min()) - 1.0)
    select.structures.set("")
    again = project.run(select, resume=True)
    assert columns(again.outputParticles.getFileName())["id"] == table["id"], "a changed threshold divides anew"
    assert again.outputRejected.getSize() == 0 and not list(again.outputRejected), "of the earlier start nothing stays"
    assert f"{len(ROWS)} of {len(ROWS)}" in again._summary()[0]


def test_a_selection_needs_scores_and_numbers(project, scored, imported):
    plain = project.new(ProtCryolikeSelect, inputParticles=(imported, "outputParticles"), threshold=1.0)
    assert "no likelihood scores" in plain._validate()[0]
    wrong = project.new(ProtCryolikeSelect, inputParticles=(scored, "outputParticles"), threshold=1.0, structures="one")
    assert "'one' is no list" in wrong._validate()[0]
    assert "Give a threshold" in project.new(ProtCryolikeSelect, inputParticles=(scored, "outputParticles"))._validate()[0]
