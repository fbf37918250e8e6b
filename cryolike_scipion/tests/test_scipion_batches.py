"""How a run's particles are divided, who gets which GPU, and that no more cores are used than were given.

The engine is a program that notes what it is asked and writes what is asked for, so that these tests take seconds.
"""

import concurrent.futures
import os
import re
import sqlite3
import stat
import threading
import time

import numpy as np
import pytest
import tifffile
from pwem.objects import SetOfParticles
from pyworkflow.object import Float
from pyworkflow.protocol import FunctionStep
from pyworkflow.protocol.constants import STATUS_WAITING

from cryolike_scipion.convert.set_update import write_attribute
from cryolike_scipion.protocols import ProtCryolikeConvertParticles, ProtCryolikeLikelihood, gpu_pool
from cryolike_scipion.protocols.batches import Batch, file_identity, read_json, stored_batches, write_json
from cryolike_scipion.protocols.gpu_pool import MASK, GpuPool, pool_of
from cryolike_scipion.protocols.likelihood_batches import ProtCryolikeLikelihoodBatches
from cryolike_scipion.protocols.run_progress import progress_line

from .scipion_project import columns
from .scipion_sets import make_particles, write_stack

# Stands in for the engine's Python: notes its arguments and time, and copies the particles with their two columns.
ENGINE = """#!/bin/sh
# -m cryolike_scipion run --job JOB --device D --threads N
folder=$(dirname "$5")
echo "start $(date +%s.%N) $7 $9 gpu=$CUDA_VISIBLE_DEVICES $5" >> "$NOTES"
sleep 0.3
test -e "$STOP" && test "$(grep -c start "$NOTES")" -gt 2 && { echo "end $(date +%s.%N)" >> "$NOTES"; exit 3; }
mkdir -p "$folder/result"
awk '
/^data_particles/ { inside = 1 }
/^_/ && inside { columns = columns + 1; print; if ($1 == "_cryolikeItemId") item = columns; next }
inside && columns && NF > 1 {
    if (!added) { added = 1; print "_cryolikeCoefficients #90"; print "_cryolikeCoefficientsHash #91" }
    print $0, "000001@polar.h5", "hash" $item; next }
{ print }' "$folder/input_particles.star" > "$folder/result/particles.star.tmp"
mv "$folder/result/particles.star.tmp" "$folder/result/particles.star"
echo "end $(date +%s.%N)" >> "$NOTES"
"""


@pytest.fixture(scope="module")
def source(project):
    make_particles("source.sqlite", [(write_stack("images.mrcs", 23), 23)]).close()
    return project.import_set(os.path.abspath("source.sqlite"), 1.5)


@pytest.fixture()
def notes(project, monkeypatch, tmp_path):
    """A program in place of the engine; the file with its notes."""
    path = os.path.abspath("engine.sh")
    with open(path, "w") as stream:
        stream.write(ENGINE)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CRYOLIKE_PYTHON", path)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("STOP", str(tmp_path / "stop"))
    monkeypatch.delenv(MASK, raising=False)
    return tmp_path / "notes"


def starts(notes):
    """Return the engine's starts: list of (device, threads, gpu, job)."""
    found = [line.split() for line in notes.read_text().splitlines() if line.startswith("start")]
    return [(words[2], int(words[3]), words[4][4:], words[5]) for words in found]


def most_at_once(notes):
    """Return how many engines worked at the same time, at most."""
    events = sorted((float(line.split()[1]), line.startswith("start")) for line in notes.read_text().splitlines())
    now = most = 0
    for _, begins in events:
        now += 1 if begins else -1
        most = max(most, now)
    return most


def convert(project, source, **values):
    return project.new(ProtCryolikeConvertParticles, inputParticles=(source, "outputParticles"), **values)


def test_one_step_for_a_set_that_is_small(project, source, notes):
    protocol = project.run(convert(project, source, binThreads=3))
    assert protocol.isFinished(), project.log(protocol)
    assert starts(notes) == [("cpu", 3, "", protocol._getExtraPath("job.json"))]
    assert os.path.exists(protocol._getExtraPath("result", "particles.star"))
    assert protocol.outputParticles.getSize() == 23
    assert protocol.outputParticles.isStreamClosed()


def test_steps_at_the_same_time_use_the_cores_that_were_given_and_share_the_gpus(project, source, notes):
    protocol = project.run(
        convert(project, source, particlesPerStep=4, numberOfThreads=4, binThreads=2, useGpu=True, gpuList="5 7")
    )
    assert protocol.isFinished(), project.log(protocol)
    found = starts(notes)
    assert len(found) == 6
    assert {(device, threads) for device, threads, _, _ in found} == {("auto", 2)}
    assert {gpu for _, _, gpu, _ in found} == {"5", "7"}
    assert most_at_once(notes) == 2, "three steps at a time, but a GPU works on one"
    before, after = (columns(each.outputParticles.getFileName()) for each in (source, protocol))
    for label in ("id", "_filename", "_index"):
        assert after[label] == before[label]
    assert after["_cryolike_coefficientsHash"] == [f"hash{number}" for number in before["id"]]


def test_a_run_that_is_continued_repeats_no_batch_and_loses_none(project, source, notes, tmp_path):
    (tmp_path / "stop").touch()
    protocol = project.run(convert(project, source, particlesPerStep=6))
    assert protocol.isFailed()
    assert "The engine ended with status 3" in protocol.getErrorMessage()
    assert protocol.outputParticles.getSize() == 12, "what was done is in the output"
    assert protocol.outputParticles.isStreamClosed()
    assert "12 of 23 particles" in project.log(protocol)
    (tmp_path / "stop").unlink()
    before = len(starts(notes))
    again = project.run(protocol, resume=True)
    assert again.isFinished(), project.log(again)
    assert [re.search(r"batches/(\d+)", job).group(1) for _, _, _, job in starts(notes)[before:]] == ["000003", "000004"]
    assert columns(again.outputParticles.getFileName())["id"] == columns(source.outputParticles.getFileName())["id"]
    assert len({name for *_, name in project.relations() if name}) == 1


def test_an_open_set_is_worked_on_as_it_grows_until_it_is_closed(project, notes, monkeypatch):
    monkeypatch.setenv("SCIPION_STEPS_CHECK_SEC", "1")
    make_particles("growing.sqlite", [(write_stack("more.mrcs", 70), 70)]).close()
    growing = project.import_set(os.path.abspath("growing.sqlite"), 1.5)
    path = growing.outputParticles.getFileName()
    later = [item.clone() for item in growing.outputParticles.iterItems(where="id > 550")]
    with sqlite3.connect(path) as database:  # as it was when the first 55 had come
        database.execute("delete from Objects where id > 550")
    change(path, [], SetOfParticles.STREAM_OPEN)
    protocol = convert(project, growing, numberOfThreads=3)
    project._project.launchProtocol(protocol, wait=False)
    wait_until(project, protocol, lambda: output_size(protocol) == 55)
    assert protocol.outputParticles.isStreamOpen()
    change(path, later, SetOfParticles.STREAM_CLOSED)
    wait_until(project, protocol, lambda: not protocol.isActive())
    assert protocol.isFinished(), project.log(protocol)
    assert columns(protocol.outputParticles.getFileName())["id"] == [10 * number for number in range(1, 71)]
    assert protocol.outputParticles.isStreamClosed()
    assert len(starts(notes)) == 2


def change(path, items, state):
    """Add items to a set on the disk, and open or close it."""
    particles = SetOfParticles(filename=path)
    particles.loadAllProperties()
    particles.enableAppend()
    for item in items:
        particles.append(item)
    particles.setStreamState(state)
    particles.write()
    particles.close()


def output_size(protocol):
    return protocol.outputParticles.getSize() if hasattr(protocol, "outputParticles") else 0


def wait_until(project, protocol, condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end and not protocol.isFailed(), project.log(protocol)
        time.sleep(0.3)
        project._project._updateProtocol(protocol)


def test_other_parameters_begin_anew_but_other_resources_do_not(project, source, notes):
    protocol = project.run(convert(project, source, particlesPerStep=12))
    protocol.batchImages.set(7)
    protocol.binThreads.set(2)
    project.run(protocol, resume=True)
    assert len(starts(notes)) == 2
    notes_of_results = [protocol._getExtraPath(name) for name in ("merged.json", "done.json")]
    for path in notes_of_results:  # as a likelihood run has them, which may be one batch or several
        write_json(path, {})
    protocol.resolution.set(9.0)
    again = project.run(protocol, resume=True)
    assert len(starts(notes)) == 4
    assert again.outputParticles.getSize() == 23
    assert not any(map(os.path.exists, notes_of_results)), "what they name is forgotten with the batches"


def test_an_output_that_other_parameters_made_does_not_outlive_a_stop(project, source, notes, tmp_path):
    protocol = project.run(convert(project, source, particlesPerStep=12))
    path = protocol._getExtraPath("run.json")
    first = read_json(path)
    (tmp_path / "stop").touch()
    protocol.resolution.set(9.0)
    assert project.run(protocol, resume=True).isFailed()
    stopped = read_json(path)
    assert stopped["key"] != first["key"] == stopped["output"] == first["output"]
    (tmp_path / "stop").unlink()
    assert project.run(protocol, resume=True).isFinished()
    assert read_json(path) == dict.fromkeys(("key", "output"), stopped["key"])
    # As if it had been killed when the batches were done, and the output was the old one still.
    output, before = protocol.outputParticles.getFileName(), len(starts(notes))
    hashes = columns(output)["_cryolike_coefficientsHash"]
    write_attribute(output, "_cryolike_coefficientsHash", dict.fromkeys(columns(output)["id"], "old"))
    write_json(path, stopped)
    os.remove(protocol.getStepsFile())
    assert project.run(protocol, resume=True).isFinished()
    assert columns(output)["_cryolike_coefficientsHash"] == hashes
    assert len(starts(notes)) == before


def test_stacks_that_are_converted_are_not_taken_for_new_ones(project, notes, tmp_path):
    tifffile.imwrite("images.tif", np.random.default_rng(1).normal(size=(12, 16, 16)).astype(np.float32))
    make_particles("tiff.sqlite", [(os.path.abspath("images.tif"), 12)]).close()
    tiff = project.import_set(os.path.abspath("tiff.sqlite"), 1.5)
    (tmp_path / "stop").touch()
    protocol = project.run(convert(project, tiff, particlesPerStep=4))
    assert protocol.isFailed() and protocol.outputParticles.getSize() == 8
    (tmp_path / "stop").unlink()
    before = len(starts(notes))
    again = project.run(protocol, resume=True)
    assert again.isFinished(), project.log(again)
    assert [re.search(r"batches/(\d+)", job).group(1) for _, _, _, job in starts(notes)[before:]] == ["000003"]


def test_an_input_that_looks_unchanged_is_looked_at_after_a_while(project, source, monkeypatch):
    protocol = convert(project, source)
    finish, looks = FunctionStep(wait=True), []
    finish.setStatus(STATUS_WAITING)
    path = source.outputParticles.getFileName()
    protocol._steps, protocol._finish, protocol._inserted, protocol._newSteps, protocol._left = [finish], 1, {}, False, 0
    protocol._seen, protocol._lookedAt = [file_identity(path), file_identity(path + "-wal")], time.time()
    monkeypatch.setattr(protocol, "_look", lambda particles, isOpen: looks.append(isOpen))
    monkeypatch.setattr(protocol, "updateSteps", lambda: None)
    protocol._stepsCheck()
    assert looks == [] and finish.isWaiting()
    protocol._lookedAt -= 60.0  # seconds
    protocol._stepsCheck()
    assert looks == [False] and not finish.isWaiting(), "it was closed"


def test_progress_is_noted_by_steps_at_the_same_time(project, source):
    protocol = convert(project, source)
    os.makedirs(protocol._getExtraPath(), exist_ok=True)
    protocol._appended, protocol._assigned, protocol._before, protocol._began = set(), {1, 2}, 0, time.time()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for noted in [threads.submit(protocol._noteProgress, isOpen=True) for _ in range(400)]:
            noted.result()
    assert read_json(protocol._getExtraPath("progress.json"))["known"] == 2


def test_a_score_that_compares_with_the_whole_set_is_that_of_the_joint_result(project, notes):
    scored = make_particles(
        "scored.sqlite",
        [("images.mrcs", 4)],
        change=lambda particle, number: setattr(particle, "_cryolike_logRatioZ", Float(number % 2)),  # two batches
    )
    scored.close()
    protocol = project.new(ProtCryolikeLikelihood)
    os.makedirs(protocol._resultPath(""))
    values = {40: 1.5, 10: -0.25, 30: float("nan"), 20: 0.125}
    with open(protocol._resultPath("particles.star"), "w") as stream:
        stream.write("data_particles\n\nloop_\n_cryolikeItemId #1\n_cryolikeLogRatioZ #2\n")
        stream.writelines(f"{number} {value}\n" for number, value in values.items())
    protocol.outputParticles, protocol._single, protocol._merging = scored, False, threading.Lock()
    protocol._merge = lambda: None
    ProtCryolikeLikelihoodBatches._conclude(protocol)
    assert columns("scored.sqlite")["_cryolike_logRatioZ"] == [-0.25, 0.125, None, 1.5]
    with pytest.raises(KeyError, match="no attribute _other"):
        write_attribute("scored.sqlite", "_other", {})


def test_images_that_changed_are_worked_on_again(project, source, notes):
    protocol = project.run(convert(project, source, particlesPerStep=12))
    batches = stored_batches(protocol._getExtraPath())
    assert [batch.number for batch in batches] == [1, 2]
    write_stack("images.mrcs", 23, seed=9)
    again = project.run(protocol, resume=True)
    assert len(starts(notes)) == 4
    assert columns(again.outputParticles.getFileName())["id"] == columns(source.outputParticles.getFileName())["id"]


def test_gpus_of_a_pool_are_lent_to_one_step_at_a_time():
    pool, inside, most = GpuPool([0, 1]), [], []
    lock = threading.Lock()

    def work():
        with pool.one() as gpu:
            with lock:
                inside.append(gpu)
                most.append(len(inside))
                assert len(set(inside)) == len(inside)
            time.sleep(0.01)
            with lock:
                inside.remove(gpu)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 8 and max(most) == 2
    with pytest.raises(ZeroDivisionError), pool.one():
        raise ZeroDivisionError
    assert pool._free.qsize() == 2, "a step that fails gives its GPU back"
    with GpuPool([]).one() as gpu:
        assert gpu is None


def test_gpus_of_the_form_or_of_the_queue(project, source, monkeypatch):
    protocol = convert(project, source, useGpu=True, gpuList="0,2-3")
    assert pool_of(protocol).size == 3
    protocol.useGpu.set(False)
    assert pool_of(protocol).size == 0
    protocol.useGpu.set(True)
    monkeypatch.setattr(protocol, "useQueueForProtocol", lambda: True)
    monkeypatch.setenv(MASK, "4,GPU-9a,6,7")
    pool = pool_of(protocol)
    assert [pool._free.get() for _ in range(pool.size)] == ["4", "GPU-9a", "6"]
    monkeypatch.setattr(protocol, "useQueueForSteps", lambda: True)
    assert pool_of(protocol).size == 0, "the queue masks the GPU of each job"
    assert gpu_pool.VOID_GPU not in protocol.getGpuList()


def test_a_queue_is_asked_for_what_is_used(project, source):
    protocol = convert(project, source, numberOfThreads=5, binThreads=3, useGpu=True, gpuList="0 1")
    project._project._setHostConfig(protocol)
    protocol.setQueueParams(["main", {"QUEUE_FOR_JOBS": "N"}])
    whole = protocol.getSubmitDict()
    assert (whole["JOB_CORES"], whole["JOB_THREADS"], whole["GPU_COUNT"]) == (12, 12, 2)
    protocol.setQueueParams(["main", {"QUEUE_FOR_JOBS": "Y", "JOB_THREADS": "8"}])
    step = protocol.getSubmitDict()
    assert (step["JOB_CORES"], step["JOB_THREADS"], step["GPU_COUNT"]) == (3, "8", 1), "the user's own value counts"


def test_sizes_of_steps(project, source):
    protocol = convert(project, source)
    assert protocol._stepSize(10**6) == 5000
    protocol.numberOfThreads.set(5)
    assert protocol._stepSize(10**6) == 5000
    assert protocol._stepSize(8000) == 500, "four steps each for four that work at the same time"
    assert protocol._stepSize(300) == 100, "not less than the start of an engine is worth"
    protocol.particlesPerStep.set(77)
    assert protocol._stepSize(10**6) == 77


def test_progress_in_words():
    done = {"done": 300, "known": 1200, "before": 100, "seconds": 100.0, "open": False}
    assert progress_line(done) == "300 of 1200 particles, 2/s, 0:07:30 left"
    assert progress_line(dict(done, open=True)) == "300 of 1200 particles, 2/s, 0:07:30 left, more may come"
    assert progress_line(dict(done, done=100)) == "100 of 1200 particles"
    waiting = dict(done, done=0, open=True, here=12, needed=300)
    assert progress_line(waiting) == "12 particles have come; the run begins with 300"
    assert progress_line(dict(done, done=1200)) == "1200 of 1200 particles, 11/s"


def test_what_a_stop_may_leave_is_no_finished_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = Batch(1, "batches/000001", [1])
    os.makedirs(batch.folder)
    batch.signature = "a" * 64
    batch.set_done()
    assert not batch.is_done("particles.star"), "the result is missing"
    os.makedirs(batch.result())
    open(batch.result("particles.star"), "w").close()
    assert batch.is_done("particles.star")
    batch.signature = "b" * 64
    assert not batch.is_done("particles.star"), "something that decides the result has changed"
    with open(os.path.join(batch.folder, "done.json"), "w") as stream:
        stream.write('{"signature": ')
    assert not batch.is_done("particles.star"), "the file was cut off"
    assert stored_batches(".") == [], "a batch without its particles does not count"
