"""Reading particle images: types, order, and every way in which an image can be bad."""

import bz2
import gzip
import lzma
import os
import struct

import numpy as np
import pytest

from cryolike_scipion.engine import mrc_stack
from cryolike_scipion.engine.image_stacks import CONSTANT, MISSING, NAN, OK, STATUS_NAMES, read_images
from cryolike_scipion.engine.mrc_stack import StackError, open_stack, read_stack_header
from cryolike_scipion.engine.particles import read_particles

from .helpers import shared_data
from .particle_files import random_images, write_set, write_stack


def problem_of(particles, index=0):
    images, status, problems = read_images(particles, [index])
    assert status[0] == MISSING and not images.any()
    return problems[0]


def test_status_names():
    assert [STATUS_NAMES[i] for i in (OK, CONSTANT, NAN, MISSING)] == ["ok", "constant", "nan", "missing"]


@pytest.mark.parametrize("kind", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extended", [0, 160])
def test_types_byte_orders_and_extended_headers(tmp_path, kind, order, extended):
    star = write_set(tmp_path)
    images = np.random.default_rng(1).integers(0, 100, size=(4, 8, 8))
    write_stack(tmp_path / "images.mrcs", images, kind, order, extended)
    found, status, problems = read_images(read_particles(star), range(4))
    assert found.dtype == np.float32 and np.array_equal(found, images)
    assert not status.any() and problems == [None] * 4


def test_mrcfile_reads_the_same_real_images():
    import mrcfile

    folder = shared_data("trpv1_real")
    found, status, _ = read_images(read_particles(folder / "particles.star"), range(10))
    assert np.array_equal(found, mrcfile.read(folder / "particles.mrcs")) and not status.any()


def test_images_come_in_the_order_asked_for(tmp_path):
    first, second = write_set(tmp_path / "a", 3), write_set(tmp_path / "b", 3)
    write_stack(tmp_path / "b" / "images.mrcs", random_images(3, seed=9))
    particles = read_particles([first, second])
    everything = np.concatenate([random_images(3), random_images(3, seed=9)])
    order = [5, 0, 4, 1, 0]
    assert np.array_equal(read_images(particles, order)[0], everything[order])
    assert np.array_equal(read_images(particles.take([4, 2]), [0, 1])[0], everything[[4, 2]])
    assert read_images(particles, [])[0].shape == (0, 0, 0)


def test_images_of_two_boxes_are_not_read_together(tmp_path):
    first, second = write_set(tmp_path / "a", 2), write_set(tmp_path / "b", 2)
    write_stack(tmp_path / "b" / "images.mrcs", random_images(2, 16))
    second.write_text(second.read_text().replace("2.500000 8 2", "2.500000 16 2"))
    particles = read_particles([first, second])
    assert read_images(particles, [2, 3])[0].shape == (2, 16, 16)
    with pytest.raises(ValueError, match="different boxes"):
        read_images(particles, [1, 2])


def test_bad_images_have_a_status_and_the_others_their_values(tmp_path):
    star = write_set(tmp_path, 6, rows=[f"{i}@images.mrcs 1 10000 9000 0" for i in (1, 2, 3, 4, 5, 7)])
    images = random_images(6)
    images[1] = 3.5
    images[2, 4, 4] = np.nan
    images[3, 0, 0] = np.inf
    write_stack(tmp_path / "images.mrcs", images)
    found, status, problems = read_images(read_particles(star), range(6))
    assert status.tolist() == [OK, CONSTANT, NAN, NAN, OK, MISSING]
    assert np.array_equal(found[[0, 4]], images[[0, 4]]) and not found[[1, 2, 3, 5]].any()
    stack = tmp_path / "images.mrcs"
    assert problems[1] == (
        f"{star}, row 2: image 2 of {stack} is constant (every pixel is 3.5). Extract the particle again, or remove the row."
    )
    assert f"{star}, row 3: image 3 of {stack} has values that are NaN or infinite." in problems[2]
    assert f"{star}, row 6: there is no image 7 of {stack}, which has 6." in problems[5]


@pytest.mark.parametrize("name", ["0@images.mrcs", "-1@images.mrcs"])
def test_frames_count_from_one(tmp_path, name):
    particles = read_particles(write_set(tmp_path, rows=[f"{name} 1 10000 9000 0"]))
    assert "there is no image" in problem_of(particles)


def test_a_truncated_stack_keeps_its_whole_images(tmp_path):
    star = write_set(tmp_path)
    stack = tmp_path / "images.mrcs"
    os.truncate(stack, 1024 + 2 * 256 + 100)
    found, status, problems = read_images(read_particles(star), range(4))
    assert status.tolist() == [OK, OK, MISSING, MISSING] and np.array_equal(found[:2], random_images(4)[:2])
    cut = f"image 3 of {stack} is cut off: the file is truncated and holds 2 of 4 images."
    assert problems[2].startswith(f"{star}, row 3: {cut}")
    os.truncate(stack, 1024)
    assert "holds 0 of 4 images" in problem_of(read_particles(star))


def test_stacks_that_cannot_be_read(tmp_path):
    star = write_set(tmp_path)
    stack = tmp_path / "images.mrcs"
    whole = stack.read_bytes()
    for content, message in (
        (whole[:500], "500 bytes, less than an MRC header"),
        (b"\x1f\x8b" + whole[2:], "cannot be read (Unknown compression method)"),
        (b"\x28\xb5\x2f\xfd" + whole[4:], "is compressed (zstandard)"),
        (bytes(2048), "is not an MRC image stack"),
        (whole[:12] + struct.pack("<i", 4) + whole[16:], "an MRC file of mode 4, which is not read"),
    ):
        stack.write_bytes(content)
        line = problem_of(read_particles(star))
        assert line.startswith(f"{star}, row 1: ") and message in line
    stack.unlink()
    assert problem_of(read_particles(star)).endswith(
        f"{stack} does not exist. Give the folder that the image names are relative to with --root."
    )


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(("kind", "order", "extended"), [("f4", "<", 0), ("f2", ">", 80), ("i1", "<", 0)])
def test_packed_stacks_whatever_their_name(tmp_path, pack, kind, order, extended):
    star = write_set(tmp_path)
    images = np.random.default_rng(1).integers(-100, 100, size=(4, 8, 8))
    stack = write_stack(tmp_path / "images.mrcs", images, kind, order, extended)
    stack.write_bytes(pack(stack.read_bytes()))
    found, status, problems = read_images(read_particles(star), [3, 0, 1])
    assert np.array_equal(found, images[[3, 0, 1]]) and not status.any() and problems == [None] * 3
    named = stack.rename(tmp_path / "images.mrcs.gz")
    star.write_text(star.read_text().replace("images.mrcs", named.name))
    assert np.array_equal(read_images(read_particles(star), [2])[0][0], images[2])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_stack_that_is_cut_off_keeps_what_came_before(tmp_path, pack):
    star = write_set(tmp_path)
    stack = write_stack(tmp_path / "images.mrcs", np.random.default_rng(0).normal(size=(4, 8, 8)))
    whole = stack.read_bytes()
    stack.write_bytes(pack(whole[: 1024 + 2 * 256 + 100]))
    _, status, problems = read_images(read_particles(star), range(4))
    assert status.tolist() == [OK, OK, MISSING, MISSING] and "holds 2 of 4 images" in problems[2]
    packed = pack(whole)
    stack.write_bytes(packed[: len(packed) // 2])
    _, status, _ = read_images(read_particles(star), range(4))
    assert status[3] == MISSING


def test_a_packed_stack_is_unpacked_again_when_it_changes_and_not_when_it_is_too_large(tmp_path, monkeypatch):
    particles = read_particles(write_set(tmp_path))
    for seed in (1, 2):
        stack = write_stack(tmp_path / "images.mrcs", random_images(4, seed=seed))
        stack.write_bytes(gzip.compress(stack.read_bytes()))
        os.utime(stack, ns=(seed, seed))
        assert np.array_equal(read_images(particles, range(4))[0], random_images(4, seed=seed))
    monkeypatch.setattr(mrc_stack, "_LARGEST_UNPACKED", 1000)
    os.utime(stack, ns=(9, 9))
    assert "is compressed and too large to be unpacked in memory (0.0 GiB). Decompress it." in problem_of(particles)


def test_packed_stacks_are_kept_as_far_as_they_fit_and_unpacked_again_with_one_warning(tmp_path, monkeypatch, caplog):
    unpacked = []
    unpack = mrc_stack._unpack
    monkeypatch.setattr(mrc_stack, "_unpack", lambda header: unpacked.append(header.path.parent.name) or unpack(header))
    monkeypatch.setattr(mrc_stack, "_UNPACKED", mrc_stack._Unpacked())
    sets = [write_set(tmp_path / name, 3) for name in "abc"]
    for seed, star in enumerate(sets):
        stack = write_stack(star.parent / "images.mrcs", random_images(3, seed=seed))
        stack.write_bytes(gzip.compress(stack.read_bytes()))
    bytes_of_one = random_images(3).astype(np.float32).nbytes
    particles, rows = read_particles(sets), [0, 3, 6, 1, 4, 7]
    wanted = np.concatenate([random_images(3, seed=seed) for seed in range(3)])[rows]

    def read():
        unpacked.clear()
        assert np.array_equal([read_images(particles, [row])[0][0] for row in rows], wanted)
        return "".join(unpacked)

    assert read() == "abc" and read() == "" and not caplog.records
    monkeypatch.setattr(mrc_stack, "_UNPACKED", mrc_stack._Unpacked())
    monkeypatch.setattr(mrc_stack, "_KEPT_UNPACKED", 2 * bytes_of_one)
    assert read() == "abcabc"
    monkeypatch.setattr(mrc_stack, "_KEPT_UNPACKED", 0)
    assert read() == "abcabc"
    (record,) = caplog.records
    assert f"{tmp_path / 'a' / 'images.mrcs'} is unpacked again" in record.getMessage()


def test_a_stack_that_changed_its_box_after_the_table_was_read(tmp_path):
    particles = read_particles(write_set(tmp_path))
    write_stack(tmp_path / "images.mrcs", random_images(4, 16))
    assert "are 16 x 16 pixels, not 8 x 8" in problem_of(particles)


def test_a_header_is_read_again_when_the_file_changes(tmp_path):
    stack = write_stack(tmp_path / "a.mrcs", random_images(2))
    assert read_stack_header(stack).available == 2
    write_stack(stack, random_images(3))
    assert read_stack_header(stack).available == 3
    assert open_stack(read_stack_header(stack)).shape == (3, 8, 8)
    with pytest.raises(StackError):
        read_stack_header(tmp_path / "b.mrcs")
