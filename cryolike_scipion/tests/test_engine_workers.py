"""Work in threads: order, errors, nested calls, and the same results whatever the number of threads."""

import threading
import time

import pytest
import torch

from cryolike_scipion.engine import compute
from cryolike_scipion.engine.workers import parallel


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(compute, "_threads", None)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    def slow_at_first(item):
        time.sleep(0.02 / (1 + item))
        return item**2

    assert list(parallel(slow_at_first, range(12), threads)) == [i**2 for i in range(12)]
    assert list(parallel(slow_at_first, [], threads)) == []


def test_calls_run_at_the_same_time():
    """Each waits for the other."""
    barrier = threading.Barrier(2, timeout=10)
    assert sorted(parallel(lambda _: barrier.wait(), range(2), 2)) == [0, 1]


def test_one_thread_is_the_caller_s_own():
    assert set(parallel(lambda _: threading.get_ident(), range(4), 1)) == {threading.get_ident()}
    assert threading.get_ident() not in set(parallel(lambda _: threading.get_ident(), range(4), 2))


def test_the_number_of_threads_is_that_of_the_engine(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert compute.thread_count() == 3
    assert compute.use_threads(2) == 2 == compute.thread_count()
    assert torch.get_num_threads() == 1
    assert compute.use_threads(None) == 3
    compute.use_threads(1)
    assert set(parallel(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_drops_what_has_not_begun(threads):
    begun = []

    def fail_early(item):
        begun.append(item)
        time.sleep(0.01)
        if item == 3:
            raise KeyError(item)
        return item

    found = parallel(fail_early, range(200), threads)
    with pytest.raises(KeyError, match="3"):
        list(found)
    assert 4 <= len(begun) < 50
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count  # nothing goes on in the background


@pytest.mark.parametrize("threads", [1, 2])
def test_who_stops_asking_stops_the_work(threads):
    begun = []

    def note(item):
        begun.append(item)
        time.sleep(0.01)

    for _ in parallel(note, range(200), threads):
        break
    assert len(begun) < 50


def test_calls_within_a_worker_run_in_it():
    def inner(_):
        return threading.get_ident()

    def outer(_):
        own = threading.get_ident()
        return all(other == own for other in parallel(inner, range(3), 2))

    assert all(parallel(outer, range(4), 2))
    # and outside of a worker there are threads again
    assert threading.get_ident() not in set(parallel(inner, range(3), 2))


def test_torch_gives_the_same_in_one_thread_and_in_two():
    data = torch.randn(8, 200, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))

    def work(i):
        return torch.fft.irfft(data[i] @ data[i].mT, n=300)

    for one, two in zip(parallel(work, range(8), 1), parallel(work, range(8), 2)):
        assert torch.equal(one, two)
    assert torch.get_num_threads() == 1
