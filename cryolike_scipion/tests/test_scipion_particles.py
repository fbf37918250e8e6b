"""A Scipion set, written as the engine's STAR file: values, names, groups, and what is refused."""

import os

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from pwem.objects import Acquisition
from pyworkflow.object import Float, Integer, String

from cryolike_scipion.convert.locations import StackNames
from cryolike_scipion.convert.original_star import OriginalStar
from cryolike_scipion.convert.particles import PROVIDED, write_particles
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.objects import COEFFICIENTS_ATTRIBUTE, COEFFICIENTS_HASH_ATTRIBUTE
from cryolike_scipion.protocols.batches import file_identity
from cryolike_scipion.protocols.particle_input import input_notes

from .scipion_sets import ODD_NAME, make_particles, write_stack

STAR = "input.star"
COLUMNS = (
    "rlnImageName",
    "rlnOpticsGroup",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnPhaseShift",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnCtfBfactor",
    "rlnMicrographName",
    "cryolikeItemId",
    "cryolikeCoefficients",
    "cryolikeCoefficientsHash",
)
OPTICS = (
    "rlnOpticsGroupName",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnImagePixelSize",
    "rlnImageSize",
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(particles):
    write_particles(particles, STAR, StackNames("inputs"))
    return read_columns(STAR, "particles", COLUMNS), read_columns(STAR, "optics", OPTICS)


def test_flipped_phases_are_said_to_the_engine():
    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 2), 2)])
    for flipped, expected in ((False, {}), (True, {"rlnCtfDataArePhaseFlipped": ["1"]})):
        particles.setIsPhaseFlipped(flipped)
        written(particles)
        assert read_columns(STAR, "optics", ("rlnCtfDataArePhaseFlipped",)) == expected


def test_ids_locations_ctf_and_optics():
    stack = write_stack("a.mrcs", 3)
    rows, optics = written(make_particles("p.sqlite", [(stack, 3)]))
    assert rows["cryolikeItemId"] == ["10", "20", "30"]
    assert rows["rlnImageName"] == ["000001@a.mrcs", "000002@a.mrcs", "000003@a.mrcs"]
    assert [float(text) for text in rows["rlnDefocusU"]] == [10000 + i / 3 for i in (1, 2, 3)]
    assert set(rows["rlnDefocusV"]) == {"9000"}
    assert set(rows["rlnDefocusAngle"]) == {"12.5"}
    assert "rlnAngleRot" not in rows
    assert "rlnPhaseShift" not in rows
    assert optics == {
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": ["200"],
        "rlnSphericalAberration": ["1.4"],
        "rlnAmplitudeContrast": ["0.07"],
        "rlnImagePixelSize": ["1.5"],
        "rlnImageSize": ["16"],
    }


def test_poses_are_relions():
    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 40), 40)], posed=True)
    rows, _ = written(particles)
    random = np.random.default_rng(5)
    for row in range(40):
        sent = [
            random.uniform(-180, 180),
            random.uniform(0, 180),
            random.uniform(-180, 180),
            random.uniform(-5, 5),
            random.uniform(-5, 5),
        ]
        got = [float(rows[name][row]) for name in COLUMNS[6:11]]
        assert np.allclose(sent, got, atol=1e-9)


def test_more_rows_than_a_block(monkeypatch):
    monkeypatch.setattr("cryolike_scipion.convert.particles._BLOCK", 7)
    rows, _ = written(make_particles("p.sqlite", [(write_stack("a.mrcs", 20), 20)], posed=True))
    assert rows["cryolikeItemId"] == [str(10 * i) for i in range(1, 21)]
    assert len(set(rows["rlnAngleRot"])) == 20


def test_disabled_particles_are_left_out():
    def change(particle, number):
        particle.setEnabled(number % 2 == 1)

    rows, _ = written(make_particles("p.sqlite", [(write_stack("a.mrcs", 5), 5)], change=change))
    assert rows["cryolikeItemId"] == ["10", "30", "50"]


def test_no_enabled_particle_is_refused_and_leaves_nothing():
    particles = make_particles(
        "p.sqlite", [(write_stack("a.mrcs", 2), 2)], change=lambda particle, _: particle.setEnabled(False)
    )
    with pytest.raises(ValueError, match="no enabled particle"):
        written(particles)
    assert not os.path.exists(STAR)


def test_a_particle_without_ctf_is_named():
    def change(particle, number):
        if number == 1:
            particle.setCTF(None)

    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 2), 2)], change=change, ctf=True)
    with pytest.raises(ValueError, match="Particle 10 has no CTF"):
        written(particles)
    assert sorted(os.listdir(".")) == ["a.mrcs", "p.sqlite"]


def test_odd_names_become_links_that_lead_to_the_stack():
    odd, plain = write_stack(ODD_NAME, 2), write_stack(os.path.abspath("plain.mrcs"), 1)
    rows, _ = written(make_particles("p.sqlite", [(odd, 2), (plain, 1), (odd, 1)]))
    first, second, third, fourth = (name.split("@")[1] for name in rows["rlnImageName"])
    assert first == second == fourth == os.path.join("inputs", "stack00001.mrcs")
    assert os.path.realpath(first) == os.path.realpath(ODD_NAME)
    assert third == os.path.abspath("plain.mrcs")
    assert not os.path.exists("oops")


def _spider(images, name):
    from pwem.emlib.image import ImageHandler

    ImageHandler().convertStack("a.mrcs", name)


def _shaped_tiff(images, name):
    tifffile.imwrite(name, images)


def _paged_tiff(images, name):
    with tifffile.TiffWriter(name) as file:
        for image in images:
            file.write(image, contiguous=False)


def _eman_hdf(images, name):
    with h5py.File(name, "w") as file:
        for number, image in enumerate(images):
            file.create_dataset(f"MDF/images/{number}/image", data=image)


@pytest.mark.parametrize("make, ending", [(_spider, "stk"), (_shaped_tiff, "tif"), (_paged_tiff, "TIFF"), (_eman_hdf, "hdf")])
def test_a_format_the_engine_does_not_read_is_converted_once_and_told(make, ending):
    images = mrcfile.read(write_stack("a.mrcs", 3))
    name = f"with space.{ending}"
    make(images, name)
    names = StackNames("inputs")
    write_particles(make_particles("p.sqlite", [("a.mrcs", 1), (name, 3), (name, 3)]), STAR, names)
    rows = read_columns(STAR, "particles", COLUMNS)["rlnImageName"]
    (stack,) = {row.split("@")[1] for row in rows[1:]}
    assert rows[1:4] == rows[4:] and np.allclose(mrcfile.read(stack), images)
    assert rows[0] == "000001@a.mrcs" and names.converted == [name] and names.formats() == [f".{ending.lower()}"]
    assert f"1 image stacks were converted to MRC (.{ending.lower()})." in input_notes(names, None)
    assert sorted(file for file in os.listdir("inputs") if "part" in file) == []
    assert file_identity(stack)[2] == file_identity(name)[2], "a run that is continued takes it for the same"
    before = os.stat(stack).st_ino
    again = StackNames("inputs")
    assert [again("a.mrcs"), again(name)] == ["a.mrcs", stack] and os.stat(stack).st_ino == before, "and does not make it again"
    os.utime(name, ns=(0, 10**18))
    again = StackNames("inputs")
    assert [again("a.mrcs"), again(name)] == ["a.mrcs", stack] and os.stat(stack).st_ino != before, "unless it has changed"


def test_phase_shift_b_factor_and_micrograph():
    from pwem.objects import Coordinate

    def change(particle, number):
        particle.getCTF().setPhaseShift(30.0 * number)
        particle._rlnCtfBfactor = Float(7.5)
        coordinate = Coordinate(x=1, y=2)
        coordinate.setMicName("mic 'a'\n#1.mrc")
        particle.setCoordinate(coordinate)

    rows, _ = written(make_particles("p.sqlite", [(write_stack("a.mrcs", 2), 2)], change=change))
    assert rows["rlnPhaseShift"] == ["30", "60"]
    assert rows["rlnCtfBfactor"] == ["7.5", "7.5"]
    assert rows["rlnMicrographName"] == ["mic__a___1.mrc"] * 2


def test_optics_groups_of_a_relion_import_keep_their_values():
    particles = make_particles(
        "p.sqlite",
        [(write_stack("a.mrcs", 3), 3)],
        change=lambda particle, number: setattr(particle, "_rlnOpticsGroup", Integer(1 + number % 2)),
    )
    particles.getAcquisition().opticsGroupInfo.set(
        "data_optics\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnVoltage #3\n"
        "_rlnSphericalAberration #4\n"
        "_rlnAmplitudeContrast #5\nfirst 1 300 2.7 0.1\n'the second' 2 200 2.0 0.08\n"
    )
    rows, optics = written(particles)
    assert rows["rlnOpticsGroup"] == ["1", "2", "1"]
    assert optics["rlnOpticsGroupName"] == ["the second", "first"]
    assert optics["rlnVoltage"] == ["200", "300"]
    assert optics["rlnSphericalAberration"] == ["2", "2.7"]


def test_a_joined_set_keeps_each_particles_microscope_and_aberrations():
    table = "data_optics\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n"
    first = table + "_rlnAmplitudeContrast\n_rlnBeamTiltX\n_rlnOddZernike\nx 1 200 1.4 0.07 0.5 [1,2]\n"
    other = table + "_rlnAmplitudeContrast\nx 1 300 2.7 0.1\n"

    def change(particle, number):
        voltage, cs, contrast, text = ((300, 2.7, 0.1, other), (120, 6.3, 0.2, None), (200, 1.4, 0.07, first))[number % 3]
        own = Acquisition(voltage=voltage, sphericalAberration=cs, amplitudeContrast=contrast, magnification=1)
        own.opticsGroupInfo.set(text)
        particle.setAcquisition(own)
        particle._rlnOpticsGroup = Integer(1)

    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 3), 3)], change=change)
    particles.getAcquisition().opticsGroupInfo.set(first)
    rows, optics = written(particles)
    more = read_columns(STAR, "optics", ("rlnBeamTiltX", "rlnOddZernike"))
    found = [[each[int(group) - 1] for group in rows["rlnOpticsGroup"]] for each in (*optics.values(), *more.values())]
    assert found[0] == ["opticsGroup1", "x", "x_2"], "names are told apart"
    assert found[1:4] == [["120", "200", "300"], ["6.3", "1.4", "2.7"], ["0.2", "0.07", "0.1"]]
    assert found[6:] == [["0", "0.5", "0"], ["[0,0]", "[1,2]", "[0,0]"]]


def test_particles_that_the_original_file_lacks_have_none_of_its_aberrations():
    with open("o.star", "wb") as stream:
        stream.write(
            b"data_optics\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n"
            b"_rlnAmplitudeContrast\n_rlnImagePixelSize\n_rlnBeamTiltX\n_rlnMtfFileName\nx 1 200 1.4 0.07 1.5 0.5 m.star\n"
            b"data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnMicrographName\n1@a.mrcs 1 caf\xe9.mrc\n"
        )
    original = OriginalStar("o.star", PROVIDED)
    particles = make_particles("p.sqlite", [(write_stack("a.mrcs", 2), 2)])
    write_particles(particles, STAR, StackNames("inputs"), original=original)
    rows = read_columns(STAR, "particles", ("rlnOpticsGroup", "rlnMicrographName"))
    optics = read_columns(STAR, "optics", ("rlnVoltage", "rlnBeamTiltX", "rlnMtfFileName"))
    assert rows == {"rlnOpticsGroup": ["1", "2"], "rlnMicrographName": ["caf\udce9.mrc", "None"]}
    assert optics == {"rlnVoltage": ["200", "200"], "rlnBeamTiltX": ["0.5", "0"], "rlnMtfFileName": ["m.star", "None"]}
    with open(STAR, "rb") as stream:
        assert b"caf\xe9.mrc" in stream.read(), "a name that is not UTF-8 stays as it is"


def test_places_of_coefficients_are_carried():
    def change(particle, number):
        setattr(particle, COEFFICIENTS_ATTRIBUTE, String(f"{number:06d}@/a b/polar.h5"))
        setattr(particle, COEFFICIENTS_HASH_ATTRIBUTE, String("abc"))

    rows, _ = written(make_particles("p.sqlite", [(write_stack("a.mrcs", 2), 2)], change=change))
    assert rows["cryolikeCoefficients"] == ["000001@/a b/polar.h5", "000002@/a b/polar.h5"]
    assert rows["cryolikeCoefficientsHash"] == ["abc", "abc"]


def test_single_images_get_index_one():
    def change(particle, _):
        particle.setLocation(0, particle.getFileName())

    rows, _ = written(make_particles("p.sqlite", [(write_stack("one.mrc", 1), 1)], change=change))
    assert rows["rlnImageName"] == ["000001@one.mrc"]
