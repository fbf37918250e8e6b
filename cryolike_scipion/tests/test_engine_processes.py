"""Work in forked processes: order, ticks, errors, ends, and the same scores as in one process."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cryolike_scipion.engine import compute
from cryolike_scipion.engine.errors import InputError
from cryolike_scipion.engine.processes import ForkedWorkers, process_count
from cryolike_scipion.engine.workers import parallel

from .small_sets import score, simulate, write_maps

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
LIMIT = 20.0  # seconds


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch):
    monkeypatch.setattr(compute, "_threads", None)


def _gone(pid):
    """Whether a process has ended; one that nobody has asked for its status counts."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _wait_for(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _slow_at_first(item, tick):
    time.sleep(0.05 / (1 + item))
    tick(item)
    return item**2, os.getpid()


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_items(count):
    ticks = []
    with ForkedWorkers(_slow_at_first, count) as workers:
        for _ in range(2):  # the same processes take the next items
            found = list(workers.map(range(10), ticks.append))
            assert [value for value, _ in found] == [i**2 for i in range(10)]
            assert os.getpid() not in {pid for _, pid in found}
        assert list(workers.map([])) == []
    assert sorted(ticks) == sorted(2 * list(range(10)))
    assert all(_gone(pid) for _, pid in found)


def test_workers_read_what_was_made_before_and_keep_their_changes():
    data = np.zeros(4)

    def add(item, tick):
        data[0] += item
        return float(data[0])

    data[:] = 5.0
    with ForkedWorkers(add, 1) as workers:
        assert list(workers.map([1, 2])) == [6.0, 8.0]
    assert data[0] == 5.0


def test_calls_run_at_the_same_time(tmp_path):
    """Each waits for the other's file."""

    def meet(item, tick):
        (tmp_path / f"{item}").touch()
        _wait_for((tmp_path / f"{1 - item}").exists)
        return item

    with ForkedWorkers(meet, 2) as workers:
        assert list(workers.map([0, 1])) == [0, 1]


def test_threads_within_a_worker_are_its_own():
    def inside(item, tick):
        return set(parallel(lambda _: threading.get_ident(), range(4), 2)) == {threading.get_ident()}

    with ForkedWorkers(inside, 2) as workers:
        assert all(workers.map(range(4)))


def test_errors_come_back_and_end_the_rest(tmp_path):
    def fail(item, tick):
        if item == 1:
            raise InputError("the image is missing", file="a.mrcs", row=3, remedy="Bring it back")
        if item == 2:
            raise KeyError("what was that")
        (tmp_path / f"{item}").touch()
        time.sleep(0.05)
        return item

    said = r"a\.mrcs, row 3: the image is missing\. Bring it back\."
    with pytest.raises(InputError, match=said), ForkedWorkers(fail, 1) as workers:
        list(workers.map([0, 1, *range(3, 40)]))
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(RuntimeError, match="KeyError: 'what was that'"), ForkedWorkers(fail, 2) as workers:
        list(workers.map([0, 2]))


def test_a_worker_that_the_system_ends_is_an_error_with_a_remedy():
    def die(item, tick):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match=r"signal 9, SIGKILL.*to continue"), ForkedWorkers(die, 2) as workers:
        list(workers.map(range(3)))


def test_who_stops_asking_does_not_wait_for_what_is_left():
    begun = time.monotonic()
    with ForkedWorkers(lambda item, tick: time.sleep(0.05) or item, 2) as workers:
        assert next(workers.map(range(1000))) == 0
    assert time.monotonic() - begun < LIMIT


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_goes_on_when_the_run_is_ended(ending):
    script = """
import os, time
from cryolike_scipion.engine.processes import ForkedWorkers
def work(item, tick):
    tick(os.getpid())
    time.sleep(60)
with ForkedWorkers(work, 2) as workers:
    list(workers.map([0, 1], lambda pid: print(pid, flush=True)))
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pids = [int(run.stdout.readline()) for _ in range(2)]
    assert not any(_gone(pid) for pid in pids)
    run.send_signal(ending)
    run.communicate(timeout=LIMIT)
    assert run.returncode != 0
    _wait_for(lambda: all(_gone(pid) for pid in pids))


def test_a_process_with_the_context_of_a_gpu_is_not_forked():
    compute.use_threads(3)
    assert process_count("cpu") == 3
    assert process_count("cuda:0") == 1
    compute.use_threads(1)
    assert process_count("cpu") == 1


@pytest.mark.parametrize("search", ["exhaustive", "fixed"])
def test_scores_are_those_of_one_process(tmp_path, search):
    maps = write_maps(tmp_path)
    data = simulate(tmp_path, maps, count=40, snr=0.3)
    options = {"search": search, "levels": 1, "pilot": 20, "no_report": True}
    one, two = (score(tmp_path / f"{n}", data / "truth.star", maps, threads=n, **options) for n in (1, 2))
    for name in ("integrated", "max", "pose_entropy"):
        assert np.abs(getattr(one, name) - getattr(two, name)).max() < 1e-3
    assert (one.best_structure == two.best_structure).all()
