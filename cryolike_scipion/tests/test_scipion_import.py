"""The node *import particles*: what RELION's and cryoSPARC's files say arrives in Scipion, and comes out again the same."""

import os
import time

import numpy as np
import pytest

from cryolike_scipion.convert.imported import ImportedParticles, ParticleFileError
from cryolike_scipion.convert.locations import StackNames
from cryolike_scipion.convert.particles import write_particles
from cryolike_scipion.convert.poses import euler_matrices
from cryolike_scipion.convert.star import read_columns
from cryolike_scipion.protocols import ProtCryolikeImportParticles

from .scipion_project import columns
from .scipion_sets import write_stack

HEAD = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
first 1 300.0 2.7 0.1 1.5 16 2
second 2 200.0 0.01 0.07 {pixel} 16 2

data_particles

loop_
"""
LABELS = ["ImageName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift", "RandomSubset", "ClassNumber"]
LABELS += ["AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "MicrographName", "CoordinateX", "CoordinateY"]
VALUES = ("rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift", "rlnRandomSubset")
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def write_relion(name, rows, pixel=1.5, labels=LABELS, stack="relion/images.mrcs"):
    """Write a STAR file of particles, numbered from `rows`; return its values."""
    lines = []
    for n in rows:
        values = [f"{n:06d}@{stack}", 1 + n % 2, 10000 + n / 3, 9000 + n, 12.5 * n, 90.0, 1 + n % 2, 3]
        values += [20.25 * n, 10.5 + n, -7.75 * n, 0.5 * n, -1.25, "mic.mrc", 10 * n, 20 * n]
        lines.append(" ".join(str(value) for value in values[: len(labels)]))
    text = HEAD.format(pixel=pixel) + "".join(f"_rln{label} #{i + 1}\n" for i, label in enumerate(labels))
    with open(name + ".tmp", "w") as stream:
        stream.write(text + "\n".join(lines) + "\n")
    os.replace(name + ".tmp", name)


@pytest.fixture(scope="module")
def project(project):
    os.makedirs("relion")
    write_stack("relion/images.mrcs", 9)
    return project


def back(particles):
    """Write a set as the engine's input; return its columns, numbers where they are such."""
    write_particles(particles, "back.star", StackNames("links"))
    return read_columns("back.star", "particles", VALUES + POSE + ("rlnImageName", "cryolikeImageSign")), read_columns(
        "back.star", "optics", ("rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    )


def test_a_relion_file_comes_out_again_the_same(project):
    write_relion("relion.star", range(1, 6))
    protocol = project.finish(ProtCryolikeImportParticles, files=os.path.abspath("relion.star"))
    particles = protocol.outputParticles
    assert particles.getSize() == 5 and particles.isStreamClosed()
    assert particles.hasCTF() and particles.hasAlignmentProj()
    assert particles.getSamplingRate() == 1.5 and particles.getXDim() == 16
    table = columns(particles.getFileName())
    assert table["_index"] == [1, 2, 3, 4, 5]
    assert set(table["_filename"]) == {os.path.realpath("relion/images.mrcs")}
    assert set(table["_classId"]) == {3}
    assert table["_coordinate._x"] == [10, 20, 30, 40, 50]
    found, optics = back(particles)
    given = read_columns("relion.star", "particles", VALUES + POSE)
    names = {name: text for text, name in zip(("1", "2"), optics["rlnOpticsGroupName"])}
    assert sorted(names) == ["first", "second"]
    assert [optics["rlnVoltage"][optics["rlnOpticsGroupName"].index("second")]] == ["200"]
    expected = [names["second" if n % 2 else "first"] for n in range(1, 6)]
    assert found["rlnOpticsGroup"] == expected
    for name in VALUES[1:]:
        assert np.allclose(np.array(found[name], float), np.array(given[name], float), atol=1e-5), name
    one, other = (np.array([each[name] for name in POSE], float) for each in (found, given))
    assert np.allclose(euler_matrices(*one[:3]), euler_matrices(*other[:3]), atol=1e-6)
    assert np.allclose(one[3:], other[3:], atol=1e-4)
    assert "5 particles from 1 files." in protocol.summary()
    (methods,) = protocol._methods()
    assert "5 particles with their CTFs" in methods and "1 file of RELION [Scheres2012]" in methods


def test_a_cryosparc_file_keeps_its_sign(project):
    fields = [("uid", "u8"), ("blob/path", "S40"), ("blob/idx", "u4"), ("blob/shape", "u4", 2), ("blob/psize_A", "f4")]
    fields += [("blob/sign", "f4"), ("ctf/accel_kv", "f4"), ("ctf/cs_mm", "f4"), ("ctf/amp_contrast", "f4")]
    fields += [("ctf/df1_A", "f4"), ("ctf/df2_A", "f4"), ("ctf/df_angle_rad", "f4"), ("ctf/phase_shift_rad", "f4")]
    array = np.zeros(4, dtype=fields)
    for name, value in zip(array.dtype.names, (7, b"relion/images.mrcs", 0, 16, 1.5, -1, 300, 2.7, 0.1, 12000, 11000, 0.5, 0)):
        array[name] = value
    array["uid"] += np.arange(4, dtype=np.uint64)
    array["blob/idx"] = [3, 1, 0, 2]
    with open("J3_particles.cs", "wb") as stream:
        np.save(stream, array, allow_pickle=False)
    protocol = project.finish(ProtCryolikeImportParticles, files="J3_particles.cs")
    table = columns(protocol.outputParticles.getFileName())
    assert table["_index"] == [4, 2, 1, 3]
    assert set(table["_cryolike_imageSign"]) == {-1}
    found, _ = back(protocol.outputParticles)
    assert set(found["cryolikeImageSign"]) == {"-1"}
    assert not protocol.outputParticles.hasAlignmentProj()


def test_files_that_come_are_imported_once_and_a_stop_repeats_nothing(project):
    os.makedirs("session")
    write_relion("session/a.star", [1, 2])
    protocol = project.new(
        ProtCryolikeImportParticles,
        files=os.path.abspath("session/*.star"),
        dataStreaming=True,
        stopFile=os.path.abspath("session/stop"),
        fileTimeout=0.2,
    )
    project._project.launchProtocol(protocol, wait=False)
    wait_for(project, protocol, 2)
    assert protocol.outputParticles.isStreamOpen()
    project._project.stopProtocol(protocol)
    write_relion("session/b.star", [5, 4, 3])
    open("session/stop", "w").close()
    again = project.run(project._project.getProtocol(protocol.getObjId(), fromRuns=False), resume=True)
    assert again.isFinished(), project.log(again)
    table = columns(again.outputParticles.getFileName())
    assert table["id"] == [1, 2, 3, 4, 5]
    assert table["_index"] == [1, 2, 5, 4, 3]
    assert again.outputParticles.isStreamClosed()


def wait_for(project, protocol, count):
    end = time.monotonic() + 120
    while not hasattr(protocol, "outputParticles") or protocol.outputParticles.getSize() < count:
        assert time.monotonic() < end and not protocol.isFailed(), project.log(protocol)
        time.sleep(0.3)
        project._project._updateProtocol(protocol)


def test_what_one_set_cannot_hold_is_refused(project):
    write_relion("two.star", [1, 2], pixel=1.7)
    with pytest.raises(ParticleFileError, match=r"two.star has optics groups of different pixel sizes, from 1.5 to 1.7 Å"):
        ImportedParticles("two.star", "two.star")
    write_relion("bare.star", [1, 2], labels=LABELS[:2])
    with pytest.raises(ParticleFileError, match="have no defocus"):
        ImportedParticles("bare.star", "bare.star")


def test_files_of_several_microscopes_keep_their_own(project):
    os.makedirs("several")
    write_relion("several/a.star", [1, 2])
    write_relion("several/b.star", [3, 4])
    with open("several/b.star") as stream:
        text = stream.read().replace("_rlnVoltage #3", "_rlnVoltage #3\n_rlnBeamTiltX")
    with open("several/b.star", "w") as stream:
        stream.write(text.replace("first 1 300.0", "first 1 120.0 0.5").replace("second 2 200.0", "second 2 200.0 0"))
    protocol = project.finish(ProtCryolikeImportParticles, files=os.path.abspath("several/*.star"))
    found, optics = back(protocol.outputParticles)
    tilts = read_columns("back.star", "optics", ["rlnBeamTiltX"])["rlnBeamTiltX"]
    groups = [int(text) - 1 for text in found["rlnOpticsGroup"]]
    assert [optics["rlnVoltage"][group] for group in groups] == ["200", "300", "200", "120"]
    assert [float(tilts[group]) for group in groups] == [0, 0, 0, 0.5]
    assert [optics["rlnOpticsGroupName"][group] for group in groups] == ["second", "first", "second", "first_2"]
    assert columns(protocol.outputParticles.getFileName())["_rlnOpticsGroup"] == [2, 1, 2, 3]
    write_relion("several/b.star", [5, 6, 7])
    again = project.run(protocol, resume=True)
    assert columns(again.outputParticles.getFileName())["_index"] == [1, 2, 5, 6, 7], "the file has changed"


def one_behind_the_other(first, second):
    """Make a set of the particles of two files."""
    from pwem.objects import SetOfParticles

    if os.path.exists("both.sqlite"):
        os.remove("both.sqlite")
    both = SetOfParticles(filename="both.sqlite")
    for place, name in enumerate((first, second)):
        particles = ImportedParticles(name, name)
        if place:
            both = SetOfParticles(filename="both.sqlite")
            both.loadAllProperties()
            particles.follow(both)
            both.enableAppend()
        else:
            both.setSamplingRate(particles.pixel)
            both.setAcquisition(particles.acquisition)
        for particle in particles:
            both.append(particle)
        both.write()
        both.close()
    return columns("both.sqlite")


def test_a_file_with_other_columns_is_filled_or_refused(project):
    write_relion("shifted.star", [1, 2], labels=LABELS[:6])
    write_relion("plain.star", [3], labels=LABELS[:5])
    table = one_behind_the_other("shifted.star", "plain.star")
    assert table["_ctfModel._phaseShift"] == [90.0, 90.0, 0.0] and table["_index"] == [1, 2, 3]
    assert table["_ctfModel._defocusAngle"] == [12.5, 25.0, 37.5]
    with pytest.raises(ParticleFileError, match=r"shifted.star does not have the same columns .*\(ctfModel\)"):
        one_behind_the_other("plain.star", "shifted.star")
    write_relion("halves.star", [1], labels=LABELS[:7])
    with pytest.raises(ParticleFileError, match=r"shifted.star .*\(rlnRandomSubset\)"):
        one_behind_the_other("halves.star", "shifted.star")
    with open("plain.star") as source, open("coarse.star", "w") as stream:
        stream.write(source.read().replace(" 1.5 16 2", " 1.7 16 2"))
    with pytest.raises(ParticleFileError, match=r"coarse.star has a pixel size of 1.7 Å, and .* 1.5 Å"):
        one_behind_the_other("plain.star", "coarse.star")


def test_while_files_come_a_link_without_its_file_is_waited_for_and_a_change_refused(project):
    os.makedirs("links")
    os.symlink("nowhere.star", "links/a.star")
    protocol = project.new(ProtCryolikeImportParticles, files="links/*.star", dataStreaming=True)
    assert protocol._present() == [] and not protocol._isComplete("links/a.star")
    with pytest.raises(ParticleFileError, match=r"links/a.star has changed since it was imported"):
        protocol._refuseChanged(["links/a.star"])
    protocol.dataStreaming.set(False)
    assert protocol._present() == ["links/a.star"], "at once the user is told of it"


def test_names_that_are_not_utf_8_do_not_stop_an_import(project):
    write_relion("plain.star", [1, 2])
    with open("plain.star", "rb") as source, open("latin.star", "wb") as stream:
        stream.write(source.read().replace(b"mic.mrc", b"caf\xe9.mrc").replace(b"first 1", b"caf\xe9 1"))
    particles = ImportedParticles("latin.star", "latin.star")
    assert [each.getCoordinate().getMicName() for each in particles] == ["caf\ufffd.mrc"] * 2
    assert "caf\ufffd 1" in particles.acquisition.opticsGroupInfo.get()
    with open("latin.star", "rb") as source, open("stack.star", "wb") as stream:
        stream.write(source.read().replace(b"images.mrcs", b"\xe9.mrcs"))
    with pytest.raises(ParticleFileError, match="a name that is not UTF-8"):
        list(ImportedParticles("stack.star", "stack.star"))


def test_validation(project):
    protocol = project.new(ProtCryolikeImportParticles, files="")
    assert "Give a particle file." in protocol._validate()
    protocol.files.set("no/such*.star")
    assert "There is no file no/such*.star." in protocol._validate()[0]
    protocol.dataStreaming.set(True)
    assert protocol._validate() == []
    write_relion("one.star", [1])
    protocol.files.set("one.star")
    protocol.stopFile.set("one.star")
    assert "The stop file is one of the particle files" in protocol._validate()[0]
