"""Progress lines: percentage, rate and time left, not too often."""

import logging
import threading
import time

import pytest

from cryolike_scipion.engine.progress import Progress, plain_time


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="cryolike_scipion")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("seconds, text", [(0.2, "0 s"), (37.4, "37 s"), (302, "5 min 02 s"), (11400, "3 h 10 min")])
def test_durations_are_written_plainly(seconds, text):
    assert plain_time(seconds) == text


def test_a_line_tells_rate_and_time_left(lines):
    clock = Clock()
    progress = Progress(600, "likelihood", "particles", bar=False, clock=clock)
    clock.now += 10
    progress.update(150)
    assert lines() == ["likelihood: 25% (150/600 particles, 15/s, 30 s left)"]
    clock.now += 30
    progress.update(450)
    progress.close()
    assert lines()[1:] == ["likelihood: 100% (600/600 particles, 15/s, 40 s)"]


def test_lines_keep_their_distance(lines):
    clock = Clock()
    progress = Progress(100, "x", "images", bar=False, clock=clock)
    for _ in range(99):
        clock.now += 0.5
        progress.update()
    assert len(lines()) == 9


def test_work_of_an_earlier_run_does_not_count_for_the_rate(lines):
    clock = Clock()
    progress = Progress(bar=False, clock=clock).start(100, "x", "images", done=80)
    clock.now += 10
    progress.update(10)
    assert lines() == ["x: 90% (90/100 images, 1/s, 10 s left)"]


def test_stages_follow_each_other_and_close_is_safe(lines):
    with Progress(bar=False) as progress:
        progress.start(2, "first").update(2)
        progress.start(0, "nothing")
        progress.close()
        progress.close()
    assert [line.split(" (")[0] for line in lines()] == ["first: 100%", "nothing: 100%"]
    with pytest.raises(RuntimeError, match="start"):
        progress.update()


def test_a_terminal_gets_a_bar(capsys):
    with Progress(3, "views", "views", bar=True) as progress:
        progress.update(3)
    assert "3/3" in capsys.readouterr().err


class Slow:
    """A count that lets other threads run while it is being read."""

    def __int__(self):
        time.sleep(0.001)
        return 1


def test_updates_of_several_threads_are_all_counted():
    progress = Progress(80, "likelihood", "particles", bar=False)
    threads = [threading.Thread(target=lambda: [progress.update(Slow()) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.done == 80
