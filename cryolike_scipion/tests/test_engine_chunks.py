"""Runs that are stopped, resumed and changed: chunks, the manifest, fingerprints and atomic files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cryolike_scipion.engine.atomic import atomic_path, remove_leftovers, write_bytes
from cryolike_scipion.engine.chunks import ChunkStore, Manifest, read_manifest
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.fingerprint import canonical_json, file_sha256, fingerprint, particles_identity
from cryolike_scipion.engine.particles import read_particles

from .particle_files import random_images, write_set, write_stack

DECIDES = {"resolution": 8.0, "structures": ["abc"], "engine": "1"}


def start(out, decides=DECIDES, boundaries=(0, 3, 6, 7), **options):
    return Manifest.open(out, decides, boundaries, **options)


# ---------------------------------------------------------------- atomic files


def test_an_atomic_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    write_bytes(path, b"first")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
        raise RuntimeError
    assert path.read_text() == "first" and len(list(path.parent.iterdir())) == 1


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    code = (
        "import os, sys\nfrom cryolike_scipion.engine.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half')\n    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], timeout=60)
    assert done.returncode == 9 and not (tmp_path / "a.txt").exists() and len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".mine").write_text("kept")
    assert remove_leftovers(tmp_path) == 1 and [p.name for p in tmp_path.iterdir()] == [".mine"]


# ---------------------------------------------------------------- fingerprints


def test_equal_values_have_one_fingerprint():
    from pathlib import Path

    first = {"b": (1, 2), "a": np.float64(0.1), "c": Path("x"), "d": np.array([1, 2])}
    second = {"a": 0.1, "c": "x", "b": [1, 2], "d": [1, 2]}
    assert fingerprint(first) == fingerprint(second) and len(fingerprint(first)) == 64
    assert fingerprint({**second, "a": 0.1 + 1e-16}) != fingerprint(second)
    assert canonical_json({"é": None, "a": True}) == '{"a":true,"\\u00e9":null}'


@pytest.mark.parametrize("value, error", [(float("nan"), ValueError), (object(), TypeError), ({1}, TypeError)])
def test_what_has_no_fingerprint(value, error):
    with pytest.raises(error):
        fingerprint({"a": value})


def test_a_files_hash(tmp_path):
    import hashlib

    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_identity_of_particles_follows_content(tmp_path):
    star = write_set(tmp_path / "a")
    base = particles_identity(read_particles(star))
    assert particles_identity(read_particles(star)) == base
    assert particles_identity(read_particles(star).take([0, 1])) != base
    assert particles_identity(read_particles(star).take([1, 0, 2, 3])) != base
    moved = tmp_path / "b"
    (tmp_path / "a").rename(moved)
    assert particles_identity(read_particles(moved / star.name)) == base
    os.utime(moved / "images.mrcs", ns=(1, 1))
    assert particles_identity(read_particles(moved / star.name)) != base
    write_stack(moved / "images.mrcs", random_images(4))
    (moved / star.name).write_text((moved / star.name).read_text().replace("10002.10", "10002.11"))
    text = particles_identity(read_particles(moved / star.name))
    assert text["sources"] != base["sources"] and text["rows"] == base["rows"]
    (moved / "images.mrcs").unlink()
    assert particles_identity(read_particles(moved / star.name))["stacks"] != text["stacks"]


# ---------------------------------------------------------------- runs


def test_a_chunk_comes_back(tmp_path):
    with start(tmp_path) as manifest:
        store = ChunkStore(manifest)
        arrays = {
            "integrated": np.random.default_rng(0).normal(size=(2, 3)),
            "status": np.array([0, 1, 3], np.uint8),
            "label": np.array(["é", "b", "c"]),
        }
        assert store.missing() == [0, 1, 2] and manifest.ranges == [range(0, 3), range(3, 6), range(6, 7)]
        store.write(1, arrays)
        assert store.missing() == [0, 2] and store.has(1) and manifest.hash[:16] in store.path(1).name
        found = store.read(1)
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_objects_are_never_pickled(tmp_path):
    with start(tmp_path) as manifest, pytest.raises(ValueError, match="holds Python objects"):
        ChunkStore(manifest).write(0, {"a": np.array([None, 1], dtype=object)})
    assert list((tmp_path / "chunks").glob("*.npz")) == []


def test_a_second_start_keeps_work_boundaries_and_prior(tmp_path):
    with start(tmp_path, versions={"torch": "1"}) as manifest:
        ChunkStore(manifest).write(0, {"a": np.ones(3)})
        manifest.set_scale_prior({"opticsGroup1": {"mu": np.float64(1.25), "tau": 0.1 + 0.2}})
    with start(tmp_path, boundaries=lambda: pytest.fail("a resumed run asks for boundaries")) as manifest:
        assert manifest.boundaries == (0, 3, 6, 7) and manifest.versions == {"torch": "1"}
        assert manifest.scale_prior == {"opticsGroup1": {"mu": 1.25, "tau": 0.1 + 0.2}}
        assert ChunkStore(manifest).missing() == [1, 2]


def test_another_parameter_never_meets_old_chunks(tmp_path):
    other = {**DECIDES, "resolution": 9.0}
    with start(tmp_path) as manifest:
        ChunkStore(manifest).write(0, {"a": np.zeros(3)})
        manifest.set_scale_prior({"mu": 1})
        old = ChunkStore(manifest).path(0)
    with start(tmp_path, other, (0, 7)) as manifest:
        assert manifest.scale_prior is None and manifest.boundaries == (0, 7)
        assert ChunkStore(manifest).missing() == [0] and old.exists()
    with start(tmp_path, boundaries=(0, 1, 7)) as manifest:
        assert manifest.boundaries == (0, 3, 6, 7) and manifest.scale_prior == {"mu": 1}
        assert ChunkStore(manifest).missing() == [1, 2] and not read_manifest(tmp_path)["finished"]
    with start(tmp_path, other, (0, 7)) as manifest:
        ChunkStore(manifest).write(0, {"a": np.ones(7)})
        manifest.finish()
        assert ChunkStore(manifest).has(0) and not old.exists()
        assert [p.suffix for p in sorted((tmp_path / "chunks").glob("[!.]*"))] == [".json", ".npz"]
    assert read_manifest(tmp_path)["finished"]


def test_restart_forgets(tmp_path):
    with start(tmp_path) as manifest:
        ChunkStore(manifest).write(0, {"a": np.zeros(3)})
    with start(tmp_path, boundaries=(0, 7), restart=True) as manifest:
        assert ChunkStore(manifest).missing() == [0] and manifest.boundaries == (0, 7)


def test_a_damaged_chunk_is_done_again(tmp_path):
    with start(tmp_path) as manifest:
        store = ChunkStore(manifest)
        store.write(0, {"a": np.zeros(3)})
        os.truncate(store.path(0), 100)
        assert 0 in store.missing()
        with pytest.raises(InputError, match="the result of chunk 0 cannot be read"):
            store.read(0)
        with pytest.raises(InputError, match="the result of chunk 1 cannot be read"):
            store.read(1)


def test_a_damaged_manifest_begins_anew(tmp_path):
    with start(tmp_path) as manifest:
        path = manifest.chunk_file(".json")
    path.write_text("{half")
    with start(tmp_path, boundaries=(0, 7)) as manifest:
        assert manifest.boundaries == (0, 7)
    assert json.loads(path.read_text())["boundaries"] == [0, 7]


@pytest.mark.parametrize("boundaries", [(), (1, 3), (0, 3, 3), (0, 5, 2)])
def test_boundaries_rise_from_0(tmp_path, boundaries):
    with pytest.raises(ValueError, match="do not rise from 0"):
        start(tmp_path, boundaries=boundaries)
    start(tmp_path).close()


def test_two_processes_do_not_share_a_folder(tmp_path):
    with start(tmp_path), pytest.raises(InputError, match="another process is running in this output folder"):
        start(tmp_path)
    start(tmp_path).close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        start(tmp_path / "file")
    with pytest.raises(InputError, match="the folder has no manifest of a run"):
        read_manifest(tmp_path)


def test_temporary_files_of_a_killed_run_go_with_the_next_start(tmp_path):
    start(tmp_path).close()
    for folder in (tmp_path, tmp_path / "chunks"):
        (folder / ".0011223344556677.cryolike-tmp").write_text("half")
    start(tmp_path).close()
    assert not list(tmp_path.rglob("*.cryolike-tmp"))
