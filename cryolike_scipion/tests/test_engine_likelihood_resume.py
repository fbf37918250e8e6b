"""Runs of ``likelihood`` that are interrupted, resumed, changed, cut into rows and merged: the result is the same."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cryolike_scipion.engine import likelihood_run
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.particles import read_particles
from cryolike_scipion.engine.results import PER_PARTICLE, PER_STRUCTURE, load_results

from .helpers import REPOSITORY
from .small_sets import SEARCH, rewrite_stack, score, simulate, write_maps

QUICK = {"batch_images": 4, "angular_step": 25.0, "resolution": 14.0}
RESULTS = ("particles.star", "matrix.npy", "scores.h5", "report.html")


@pytest.fixture(autouse=True)
def _plain_report(monkeypatch):
    """Plots take longer than these runs."""
    monkeypatch.setattr(likelihood_run, "write_report", lambda results, path, title, setup: path.write_text(title))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Twelve particles of two structures in three chunks of four."""
    folder = tmp_path_factory.mktemp("resume")
    maps = write_maps(folder)
    simulate(folder, maps)
    return folder, maps


def run(small, out, **options):
    folder, maps = small
    return score(out, folder / "particles.star", maps, **{**QUICK, **options})


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The result of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return run(small, tmp_path_factory.mktemp("whole"))


def assert_same(found, wanted):
    for name in (*PER_STRUCTURE, *PER_PARTICLE):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name


def chunk_files(out):
    return {path.name: path.stat().st_mtime_ns for path in sorted((out / "chunks").glob("*.npz"))}


class Interrupted(Exception):
    pass


@pytest.fixture
def chunks_scored(monkeypatch):
    """How often a chunk is scored; ``stop_after`` makes the next one fail."""
    plain = likelihood_run.score_chunk

    class Counter:
        done, stop_after = 0, None

        def __call__(self, *arguments, **options):
            if self.done == self.stop_after:
                raise Interrupted
            self.done += 1
            return plain(*arguments, **options)

    counter = Counter()
    monkeypatch.setattr(likelihood_run, "score_chunk", counter)
    return counter


def _interrupt(small, out, counter, after, **options):
    counter.stop_after = counter.done + after
    with pytest.raises(Interrupted):
        run(small, out, **options)
    counter.stop_after = None


def test_a_stopped_run_goes_on_where_it_was(small, whole, tmp_path, chunks_scored):
    _interrupt(small, tmp_path, chunks_scored, 2)
    assert not any((tmp_path / name).exists() for name in RESULTS)
    assert json.loads((tmp_path / "manifest.json").read_text())["finished"] is False
    first = chunk_files(tmp_path)
    assert len(first) == 2
    # The memory that is free now and another batch size do not matter: boundaries are those of the start.
    found = run(small, tmp_path, batch_images=5, memory=2.0)
    assert chunks_scored.done == 3
    assert_same(found, whole)
    assert found.parameters["scale_prior"] == whole.parameters["scale_prior"]
    after = chunk_files(tmp_path)
    assert len(after) == 3 and {name: after[name] for name in first} == first
    assert json.loads((tmp_path / "manifest.json").read_text())["finished"] is True
    # Once more: nothing is left to compute.
    assert_same(run(small, tmp_path), whole)
    assert chunks_scored.done == 3 and chunk_files(tmp_path) == after


def test_the_scale_is_not_learned_again(small, tmp_path, chunks_scored, monkeypatch):
    _interrupt(small, tmp_path, chunks_scored, 0)
    assert json.loads((tmp_path / "manifest.json").read_text())["scale_prior"]["kind"] == "learned"
    monkeypatch.setattr(likelihood_run, "learn_prior", None)
    assert run(small, tmp_path).integrated.shape == (2, 12)


def test_restart_computes_everything_again(small, whole, tmp_path, chunks_scored):
    run(small, tmp_path)
    before = chunk_files(tmp_path)
    assert_same(run(small, tmp_path, restart=True), whole)
    after = chunk_files(tmp_path)
    assert chunks_scored.done == 6
    assert set(after) == set(before) and all(after[name] > before[name] for name in before)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file", None])
def test_a_damaged_chunk_is_computed_again(small, whole, tmp_path, chunks_scored, damage):
    run(small, tmp_path)
    path = tmp_path / "chunks" / list(chunk_files(tmp_path))[1]
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert_same(run(small, tmp_path), whole)
    assert chunks_scored.done == 4


def test_a_changed_parameter_does_not_mix_with_the_old_one(small, whole, tmp_path, chunks_scored):
    """Two chunks with shifts to 4 Å, then a whole run with shifts to 8 Å."""
    _interrupt(small, tmp_path, chunks_scored, 2, max_shift=4.0)
    old = chunk_files(tmp_path)
    assert_same(run(small, tmp_path), whole)
    assert chunks_scored.done == 5
    assert len(chunk_files(tmp_path)) == 3 and not set(old) & set(chunk_files(tmp_path))


@pytest.mark.parametrize("what", ["image", "star", "map"])
def test_changed_input_is_another_run(tmp_path, chunks_scored, what):
    maps = write_maps(tmp_path)
    small = simulate(tmp_path, maps), maps
    first = run(small, tmp_path / "out", scale="free")
    if what == "image":
        rewrite_stack(tmp_path / "particles.mrcs", lambda data: data[::-1])
    elif what == "star":
        star = tmp_path / "particles.star"
        star.write_text(star.read_text().replace("000001@", "000002@"))
    else:
        write_maps(tmp_path, radius=12.0)
    second = run(small, tmp_path / "out", scale="free")
    assert chunks_scored.done == 6
    assert np.abs(second.integrated[:, 0] - first.integrated[:, 0]).max() > 0.01


def test_a_killed_process_loses_one_chunk_at_most(small, whole, tmp_path):
    folder, maps = small
    options = {**SEARCH, **QUICK, "batch_images": 1}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [
        sys.executable, "-m", "cryolike_scipion", "likelihood", "--particles", folder / "particles.star",
        "--structures", *maps, *arguments, "--threads", "1", "--out", tmp_path,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not chunk_files(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    before = chunk_files(tmp_path)
    assert 1 <= len(before) < 12
    assert not any((tmp_path / name).exists() for name in RESULTS)
    found = run(small, tmp_path, batch_images=1)
    after = chunk_files(tmp_path)
    assert len(after) == 12 and {name: after[name] for name in before} == before
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") and path.name != ".lock"]
    # Other batches, and a process with its own order of sums
    assert np.allclose(found.integrated, whole.integrated, atol=1e-3)
    assert np.array_equal(found.best_structure, whole.best_structure)


def test_two_runs_in_one_folder_are_refused(small, tmp_path, monkeypatch):
    seen = []

    def second(*_arguments, **_options):
        with pytest.raises(InputError, match="another process") as refusal:
            monkeypatch.setattr(likelihood_run, "score_chunk", None)
            run(small, tmp_path)
        seen.append(str(refusal.value))
        raise Interrupted

    monkeypatch.setattr(likelihood_run, "score_chunk", second)
    with pytest.raises(Interrupted):
        run(small, tmp_path)
    assert len(seen) == 1


# ---------------------------------------------------------------- rows and merge


@pytest.fixture(scope="module")
def free(small, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood_run, "write_report", lambda *_: None)
        return run(small, tmp_path_factory.mktemp("free"), scale="free")


@pytest.fixture
def merged(monkeypatch):
    from cryolike_scipion import engine
    from cryolike_scipion.engine import merge_run

    monkeypatch.setattr(merge_run, "write_report", lambda *_: None)

    def merge(out, *folders):
        engine.run("merge", runs=[str(folder) for folder in folders], out=str(out))
        return load_results(out)

    return merge


def test_rows_that_are_merged_are_the_whole_run(small, free, merged, tmp_path):
    for name, rows, count in (("c", "10:", 3), ("a", ":5", 5), ("b", "6:9", 4)):
        part = run(small, tmp_path / name, scale="free", rows=rows)
        assert part.integrated.shape == (2, count)
        assert np.load(tmp_path / name / "matrix.npy").shape == (2, count)
        assert len(read_particles([tmp_path / name / "particles.star"])) == count
    found = merged(tmp_path / "all", tmp_path / "c", tmp_path / "a", tmp_path / "b")
    assert list(found.row) == list(range(1, 13)) and found.image_name == free.image_name
    for name in (*PER_STRUCTURE, *PER_PARTICLE):
        assert np.allclose(getattr(found, name), getattr(free, name), rtol=1e-5, atol=1e-3), name
    assert np.array_equal(found.best_structure, free.best_structure)
    assert read_particles([tmp_path / "all" / "particles.star"]).image_names() == free.image_name


def test_one_row_alone_has_the_scores_that_it_has_among_others(small, free, tmp_path):
    alone = run(small, tmp_path, scale="free", rows="7")
    assert np.allclose(alone.integrated[:, 0], free.integrated[:, 6], atol=1e-3)
    assert list(alone.row) == [7]


@pytest.mark.parametrize("rows", ["0:3", "13:", "5:2", "a:b", "1:2:3", "", "-3:"])
def test_rows_that_are_not_there(small, tmp_path, rows):
    with pytest.raises(InputError, match="rows"):
        run(small, tmp_path / "out", rows=rows)
    assert not (tmp_path / "out" / "particles.star").exists()
