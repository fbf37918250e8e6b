"""What the nodes refuse before they start, and whether they say what to do."""

import os

import pytest
from pwem.objects import AtomStruct, SetOfVolumes, Volume
from pyworkflow.object import Pointer

import cryolike_scipion
from cryolike_scipion.objects import CryolikeTemplates, SetOfCryolikeTemplates
from cryolike_scipion.parameters import get
from cryolike_scipion.protocols import (
    ProtCryolikeConvertParticles,
    ProtCryolikeGenerateTemplates,
    ProtCryolikeLikelihood,
)
from cryolike_scipion.protocols.protocol_likelihood import FROM_STRUCTURES, FROM_TEMPLATES

from .scipion_sets import make_particles, write_map, write_stack


@pytest.fixture(scope="module")
def project(project):
    write_stack("stack.mrcs", 3)
    write_map("map.mrc", pixel=1.5)
    return project


@pytest.fixture()
def particles(project):
    return make_particles("good.sqlite", [("stack.mrcs", 3)])


def volume(path="map.mrc", pixel=1.5):
    made = Volume(location=path)
    made.setSamplingRate(pixel)
    return made


def likelihood(project, particles, structures=None, **values):
    protocol = project.new(ProtCryolikeLikelihood, structuresFrom=FROM_STRUCTURES, **values)
    protocol.inputParticles.set(particles)
    protocol.inputStructures.set([Pointer(each) for each in (structures if structures is not None else [volume()])])
    return protocol


def errors(protocol):
    found = protocol._validate()
    assert all("\n" not in error and error.endswith(".") for error in found), found
    return " ".join(found)


def test_good_input_passes(project, particles):
    assert errors(likelihood(project, particles)) == ""
    convert = project.new(ProtCryolikeConvertParticles)
    convert.inputParticles.set(particles)
    assert errors(convert) == ""
    templates = project.new(ProtCryolikeGenerateTemplates)
    templates.inputStructures.set([Pointer(volume())])
    templates.inputParticles.set(particles)
    assert errors(templates) == ""


def test_particles_without_ctf(project):
    bare = make_particles("bare.sqlite", [("stack.mrcs", 3)], ctf=False)
    assert "have no CTF. Estimate it" in errors(likelihood(project, bare))


def test_missing_and_empty_particles(project):
    assert "Choose the input particles." in errors(likelihood(project, None))
    assert "is empty" in errors(likelihood(project, make_particles("empty.sqlite", [])))


def test_phase_flipped_particles(project):
    flipped = make_particles("flipped.sqlite", [("stack.mrcs", 3)])
    flipped.setIsPhaseFlipped(True)
    assert errors(likelihood(project, flipped)) == ""


def test_pixel_size_zero(project):
    assert "no pixel size" in errors(likelihood(project, make_particles("zero.sqlite", [("stack.mrcs", 1)], pixel=0)))
    zero = make_particles("good.sqlite", [("stack.mrcs", 1)])
    assert "Structure 'map' has no pixel size" in errors(likelihood(project, zero, [volume(pixel=0.0)]))


def search_number(name):
    return get("likelihood", "search").choices.index(name)


def test_the_hierarchical_search_is_offered_first_and_chosen(project, particles):
    protocol = likelihood(project, particles)
    assert protocol.search.get() == 0 == search_number("hierarchical")
    assert protocol.getParam("search").choices == list(get("likelihood", "search").choices)
    assert errors(protocol) == ""
    assert {"max_shift", "angular_step", "levels"} <= set(protocol._parameterNames())
    assert "local_range" not in protocol._parameterNames()


def test_scores_by_view_or_shift_are_of_an_exhaustive_search(project, particles):
    template = get("likelihood", "keep").choices.index("template")
    assert "keep" not in likelihood(project, particles, keep=template)._formValues()
    exhaustive = likelihood(project, particles, keep=template, search=search_number("exhaustive"))
    assert exhaustive._formValues()["keep"] == "template" and errors(exhaustive) == ""


@pytest.mark.parametrize("search", ["local", "fixed"])
def test_searches_that_start_from_poses_need_them(project, particles, search):
    number = search_number(search)
    assert "projection alignment, or the hierarchical search" in errors(likelihood(project, particles, search=number))
    posed = make_particles("posed.sqlite", [("stack.mrcs", 3)], posed=True)
    assert errors(likelihood(project, posed, search=number)) == ""


def test_mask_and_resolution_must_fit_the_images(project, particles):
    assert "larger than the box of 24 Å" in errors(likelihood(project, particles, maskDiameter=30.0))
    assert "Nyquist limit of 3 Å" in errors(likelihood(project, particles, resolution=2.0))
    assert errors(likelihood(project, particles, maskDiameter=24.0, resolution=3.0)) == ""


def test_form_values_are_checked_with_their_names(project, particles):
    assert "max_shift" in errors(likelihood(project, particles, maxShift=-1.0))
    assert "priors: a number is expected, not 'x'" in errors(likelihood(project, particles, priors="1 x"))


def test_structures(project, particles):
    write_map("flat.mrc", shape=(16, 16, 8))
    assert "no input structure" in errors(likelihood(project, particles, []))
    assert "'flat' is not a cube (8 x 16 x 16)" in errors(likelihood(project, particles, [volume("flat.mrc")]))
    assert "is missing" in errors(likelihood(project, particles, [volume("gone.mrc")]))
    with open("model.txt", "w") as stream:
        stream.write("x")
    assert "neither PDB nor mmCIF" in errors(likelihood(project, particles, [AtomStruct(filename="model.txt")]))
    assert "2 symmetries for 1 structures" in errors(likelihood(project, particles, symmetry="C1 C4"))
    assert "2 priors for 1 structures" in errors(likelihood(project, particles, priors="1, 2"))


def test_templates_of_the_likelihood(project, particles):
    protocol = likelihood(project, particles)
    protocol.structuresFrom.set(FROM_TEMPLATES)
    assert "Choose the input templates" in errors(protocol)
    templates = SetOfCryolikeTemplates(filename="templates.sqlite")
    templates.setSamplingRate(2.0)
    item = CryolikeTemplates()
    item.setLabel("one")
    item.setFileName("gone.h5")
    templates.append(item)
    protocol.inputTemplates.set(templates)
    assert "template 'one' is missing: gone.h5. Run 'generate templates' again." in errors(protocol)
    open("gone.h5", "w").close()
    assert errors(protocol) == ""
    assert "larger pixels" in " ".join(protocol._warnings())
    protocol.resolution.set(3.5)
    assert "templates' Nyquist limit of 4 Å" in errors(protocol)


def test_template_size(project):
    templates = project.new(ProtCryolikeGenerateTemplates)
    templates.inputStructures.set([Pointer(volume())])
    assert "Choose the particles" in errors(templates)
    templates.sizeFromParticles.set(False)
    assert "Give box and pixel size" in errors(templates)
    templates.box.set(32)
    templates.pixel.set(2.0)
    assert errors(templates) == ""
    templates.box.set(2)
    assert "box: 2 pixel is less than 8" in errors(templates)


def test_the_parameters_of_a_form_follow_its_conditions(project, particles):
    protocol = likelihood(project, particles)
    assert "atom_model" not in protocol._parameterNames()
    assert "symmetry" in protocol._parameterNames()
    protocol.inputStructures.set([Pointer(AtomStruct(filename="m.pdb"))])
    assert "atom_model" in protocol._parameterNames()
    protocol.search.set(search_number("fixed"))
    assert "max_shift" not in protocol._parameterNames()


def test_the_result_key_follows_parameters_and_input_but_not_threads(project, particles):
    protocol = likelihood(project, particles)
    first = protocol._resultKey()
    protocol.numberOfThreads.set(7)
    protocol.binThreads.set(9)
    protocol.memory.set(3.5)
    assert protocol._resultKey() == first
    protocol.angularStep.set(9.0)
    second = protocol._resultKey()
    assert second != first
    os.utime("map.mrc", (1, 1))
    assert protocol._resultKey() != second


def test_papers_and_labels():
    domain = ScipionProjectDomain()
    for name, label in (
        ("ProtCryolikeGenerateTemplates", "generate templates"),
        ("ProtCryolikeConvertParticles", "convert particles"),
        ("ProtCryolikeLikelihood", "likelihood"),
    ):
        protocol = domain[name]
        assert protocol._label == label
        keys = set(protocol()._citations()) | set(cryolike_scipion._references)
        assert keys <= set(cryolike_scipion._bibtex)


class ScipionProjectDomain(dict):
    """The protocols that Scipion finds."""

    def __init__(self):
        import pyworkflow

        super().__init__(pyworkflow.Config.getDomain().getProtocols())


def test_volumes_in_a_set_take_its_pixel_size(project, particles):
    volumes = SetOfVolumes(filename="volumes.sqlite")
    volumes.setSamplingRate(1.5)
    volumes.append(Volume(location="map.mrc"))
    assert errors(likelihood(project, particles, [volumes])) == ""
