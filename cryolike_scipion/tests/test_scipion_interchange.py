"""Particles through Scipion and back: what RELION's import drops is found again, and its export has our scores."""

import os
import re

import mrcfile
import numpy as np
import pytest
from pwem.objects import SetOfParticles
from pwem.protocols import ProtSetFilter

from cryolike_scipion.convert.locations import StackNames
from cryolike_scipion.convert.original_star import OriginalStar
from cryolike_scipion.convert.particles import PROVIDED, write_particles
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.convert.star_tables import read_tables, split
from cryolike_scipion.protocols import ProtCryolikeLikelihood
from cryolike_scipion.protocols.particle_input import input_notes, original_star
from cryolike_scipion.protocols.protocol_likelihood import FROM_STRUCTURES

from .scipion_project import columns
from .two_states import PIXEL, two_states

COUNT = 12
COARSE = {"angularStep": 25.0, "maxShift": 13.1, "levels": 0, "resolution": 50.0}
TAIL = (
    "\ndata_job\n\n_rlnJobTypeLabel  relion.class3d   # odd   spacing\n\ndata_odd\n\nloop_\n_a #1\n_b #2\n1.50 'two  words'\n"
)
GROUPS = {"1": ("'first group'", "300.0", "2.70", "1.0e-1", "0.50"), "2": ("second", "200", "1.40", "0.07", "-0.125")}
OPTICS = ("rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX")


def relion_file(data, folder):
    """A STAR file of two optics groups with scores, coordinates, odd columns and tables; its first poses are not all 0."""
    os.makedirs(os.path.join(folder, "Extract", "job005"))
    for k in (1, 2):
        with mrcfile.new(os.path.join(folder, "Extract", "job005", f"stack{k}.mrcs")) as file:
            file.set_data(mrcfile.read(str(data / "particles.mrcs"))[(k - 1) * COUNT : k * COUNT])
            file.set_image_stack()
            file.voxel_size = PIXEL
    names = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst",
             "rlnOriginYAngst")  # fmt: skip
    truth = read_columns(str(data / "truth.star"), "particles", names)
    head = "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n" + "".join(f"_{name}\n" for name in OPTICS)
    head += "_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"
    head += "".join(f"{number} {' '.join(values)} {PIXEL:.4f} 32 2\n" for number, values in GROUPS.items())
    extra = (
        "rlnLogLikeliContribution",
        "rlnMicrographName",
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnRandomSubset",
        "oddColumn",
    )
    labels = ("rlnImageName", "rlnOpticsGroup", *names, *extra)
    rows = []
    for i in np.random.default_rng(4).permutation(2 * COUNT):
        place = f"{i % COUNT + 1:06d}@Extract/job005/stack{i // COUNT + 1}.mrcs"
        values = [truth[name][i] for name in names]
        values[0] += "0"  # texts that no program would write
        more = (f"{1e4 + i:.3f}", f"mics/m{i % 3}.mrc", f"{10 * i}.0", f"{7 * i}.5", str(1 + i % 2), f"'odd {i}'")
        rows.append(" ".join((place, str(1 + i % 2), *values, *more)))
    body = "\n# version 30001\n\ndata_particles\n\nloop_\n" + "".join(f"_{label}\n" for label in labels)
    star = os.path.join(folder, "particles.star")
    with open(star, "w", encoding="utf-8") as stream:
        stream.write(head + body + "\n".join(rows) + "\n" + TAIL)
    return star


@pytest.fixture(scope="module")
def data():
    return two_states()


@pytest.fixture(scope="module")
def star(project, data, tmp_path_factory):
    return relion_file(data, str(tmp_path_factory.mktemp("a relion project")))


@pytest.fixture(scope="module")
def imported(project, star):
    return project.import_star(star, PIXEL)


@pytest.fixture(scope="module")
def volumes(project, data):
    return project.import_volumes(str(data / "state_*.mrc"), PIXEL)


def run(project, particles, volumes, **values):
    return project.finish(
        ProtCryolikeLikelihood,
        structuresFrom=FROM_STRUCTURES,
        inputParticles=particles,
        inputStructures=[(volumes, "outputVolumes")],
        **dict(COARSE, **values),
    )


@pytest.fixture(scope="module")
def scored(project, imported, volumes):
    return run(project, (imported, "outputParticles"), volumes, assignedAbove=0.5, csv=True)


def result(protocol, name="particles.star"):
    return protocol._getExtraPath("result", name)


def table(path, name="particles"):
    """Columns of a table with the text of every value: dict of label to list."""
    found = next(each for each in read_tables(path) if each.name == name)
    return {label: [row[i] for row in found.rows] for i, label in enumerate(found.labels)}


def by_image(path, label="rlnImageName"):
    """Place of every row by image number and stack's own name."""
    names = [name.split("@") for name in table(path)[label]]
    return {(int(index), os.path.basename(stack)): row for row, (index, stack) in enumerate(names)}


# ---------------------------------------------------------------- RELION's import, and what it drops


def test_every_value_of_the_original_file_comes_back_as_its_text(star, scored):
    before, after = table(star), table(result(scored))
    one, two = by_image(star), by_image(result(scored))
    assert set(one) == set(two) and len(two) == 2 * COUNT
    pairs = [(row, two[key]) for key, row in one.items()]
    for label in before:
        if label in ("rlnImageName", "rlnOpticsGroup"):
            continue
        kept = next(name for name in (f"cryolikeInput{label[3:]}", label) if name in after)
        assert all(before[label][i] == after[kept][j] for i, j in pairs), label
    assert [after["cryolikeSourceImageName"][j] for _, j in pairs] == [before["rlnImageName"][i] for i, _ in pairs]
    with open(result(scored), encoding="utf-8") as stream:
        text = stream.read()
    assert all(f"data_{part.strip()}\n" in text for part in TAIL.split("data_")[1:])


def test_optics_groups_are_the_original_ones(star, scored):
    optics, groups = table(result(scored), "optics"), table(result(scored))["rlnOpticsGroup"]
    place = by_image(star)
    original = table(star)["rlnOpticsGroup"]
    for key, row in by_image(result(scored)).items():
        group = optics["rlnOpticsGroup"].index(groups[row])
        expected = GROUPS[original[place[key]]]
        assert tuple(optics[label][group].strip("'") for label in OPTICS) == tuple(text.strip("'") for text in expected)
    assert len(optics["rlnOpticsGroup"]) == 2


def test_the_node_says_where_it_found_what_the_import_dropped(star, scored):
    assert f"Optics groups and further columns are from {star}." in "\n".join(scored.summary())


def test_order_and_ids_are_scipions(imported, scored):
    before, after = (columns(each.outputParticles.getFileName()) for each in (imported, scored))
    for label in ("id", "_index", "_filename", "_micId", "_coordinate._x", "_coordinate._y", "_coordinate._micName"):
        assert before[label] == after[label], label
    assert [int(text) for text in table(result(scored))["cryolikeItemId"]] == after["id"]


class Messages:
    """A node, as far as looking for the original file needs one."""

    def __init__(self, source):
        self.getProject, self.said = source.getProject, []
        self.warning = self.said.append


def written(source, path):
    """Write a set's STAR file as the nodes do; return what they would say of it."""
    node, names = Messages(source), StackNames("inputs")
    original = original_star(node, source.outputParticles)
    write_particles(source.outputParticles, path, names, original=original)
    return "\n".join(node.said + input_notes(names, original))


def test_an_acquisition_that_the_form_changed_goes_before_the_file(project, star):
    other = project.import_star(star, PIXEL, voltage=120.0)
    assert star in written(other, "other.star")
    optics = table("other.star", "optics")
    assert set(optics["rlnVoltage"]) == {"120"} and sorted(optics["rlnSphericalAberration"]) == ["1.40", "2.70"]


def test_a_pixel_size_that_the_form_changed_changes_all_groups(project, star):
    other = project.import_star(star, 2 * PIXEL)
    written(other, "other.star")
    assert [float(text) for text in table("other.star", "optics")["rlnImagePixelSize"]] == [2 * PIXEL] * 2


def test_a_file_that_is_gone_is_told(project, data, tmp_path):
    gone = relion_file(data, str(tmp_path / "gone"))
    source = project.import_star(gone, PIXEL)
    os.remove(gone)
    assert "No original STAR file was found" in written(source, "gone.star")
    found, stored = table("gone.star"), columns(source.outputParticles.getFileName())
    assert "oddColumn" not in found
    for label, attribute in (("rlnCoordinateX", "_coordinate._x"), ("rlnCoordinateY", "_coordinate._y")):
        assert [float(text) for text in found[label]] == stored[attribute]


def test_a_file_that_was_overwritten_is_told(project, data, tmp_path):
    broken = relion_file(data, str(tmp_path / "broken"))
    source = project.import_star(broken, PIXEL)
    with open(broken, "w", encoding="utf-8") as stream:
        stream.write("data_other\n\n_rlnThing 1\n")
    assert "no table has the column rlnImageName" in written(source, "broken.star")


# ---------------------------------------------------------------- on, and out again


def test_a_subset_by_score_goes_out_right(project, scored):
    from relion.convert import writeSetOfParticles

    source = columns(scored.outputParticles.getFileName())
    middle = float(np.median(source["_cryolike_logLikelihood"]))
    good = project.finish(
        ProtSetFilter, inputSet=(scored, "outputParticles"), formula=f"item._cryolike_logLikelihood.get() > {middle!r}"
    )
    labels = ["rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnClassNumber"]
    writeSetOfParticles(good.outputParticles, "subset.star", extraLabels=list(labels))
    theirs, whole = table("subset.star"), table(result(scored))
    place = by_image(result(scored))
    chosen = [place[key] for key in by_image("subset.star")]
    assert sorted(chosen) == [i for i, value in enumerate(source["_cryolike_logLikelihood"]) if value > middle]
    assert 0 < len(chosen) < 2 * COUNT
    for label in labels:
        expected = [float(whole[label][i]) for i in chosen]
        assert np.allclose([float(text) for text in theirs[label]], expected, atol=1e-3), label


def test_a_subset_finds_the_original_file_through_the_filter(project, star, scored):
    few = project.finish(ProtSetFilter, inputSet=(scored, "outputParticles"), formula="item._index.get() <= 4")
    assert star in written(few, "few.star")
    after, before = table("few.star"), table(star)
    one, two = by_image(star), by_image("few.star")
    assert set(two) == {key for key in one if key[0] <= 4}
    assert all(after["oddColumn"][row] == before["oddColumn"][one[key]] for key, row in two.items())


def test_per_structure_files_and_the_table(scored):
    whole = table(result(scored))
    sure = [float(text) >= 0.5 for text in whole["cryolikeStructurePosterior"]]
    for k in (1, 2):
        expected = [
            item
            for item, best, enough in zip(whole["cryolikeItemId"], whole["cryolikeBestStructure"], sure)
            if best == str(k) and enough
        ]
        assert expected
        assert table(result(scored, f"assigned/{k:03d}.star"))["cryolikeItemId"] == expected
    with open(result(scored, "scores.csv"), encoding="utf-8") as stream:
        header, *lines = stream.read().splitlines()
    assert header.startswith("cryolikeItemId,") and [line.split(",")[0] for line in lines] == whole["cryolikeItemId"]


# ---------------------------------------------------------------- the original file by itself


def test_images_find_their_rows_through_links(tmp_path):
    star = tmp_path / "p.star"
    star.write_text(
        "data_particles\n\nloop_\n_rlnImageName\n_rlnNote\n1@a/x.mrcs one\n2@a/x.mrcs two\n1@b/x.mrcs three\n1@y.mrcs 'fo ur'\n"
    )
    for name in ("a/x.mrcs", "b/x.mrcs", "y.mrcs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "b")
    original = OriginalStar(str(star), PROVIDED)
    assert original.row(2, str(tmp_path / "a" / "x.mrcs")) == 1
    assert original.row(1, str(tmp_path / "elsewhere" / "x.mrcs")) == 2
    assert original.others(original.row(1, str(tmp_path / "y.mrcs")), ["rlnNote"]) == ["'fo ur'"]
    assert original.row(3, str(tmp_path / "y.mrcs")) is None
    assert original.row(1, str(tmp_path / "c" / "x.mrcs")) is None, "two stacks have this name"
    assert {index for index, _ in original.missed} == {3, 1}


def test_rows_with_the_same_image_are_told_apart_by_their_ids(tmp_path):
    star = tmp_path / "p.star"
    star.write_text("data_particles\n\nloop_\n_rlnImageName\n_rlnNote\n1@x.mrcs one\n2@x.mrcs two\n1@x.mrcs three\n")
    original = OriginalStar(str(star), PROVIDED)
    assert [original.row(1, str(tmp_path / "x.mrcs"), item) for item in (1, 3, 99)] == [0, 2, 0]


def test_words_keep_their_quotes():
    assert split("a 'b  c' \"it's\" d#e # f") == ["a", "'b  c'", '"it\'s"', "d#e"]
    assert re.fullmatch(r"\S+", split("plain")[0])


def test_the_set_is_scipions(scored):
    particles = SetOfParticles(filename=scored.outputParticles.getFileName())
    particles.loadAllProperties()
    assert particles.hasAlignmentProj() and particles.getSize() == 2 * COUNT
