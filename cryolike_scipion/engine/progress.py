"""How far a run is: a bar in a terminal, plain lines with rate and time left in a log."""

import logging
import sys
import threading
import time
from typing import Any, Callable, Optional

logger = logging.getLogger(__name__)


def plain_time(seconds: float) -> str:
    """Write a duration: ``"37 s"``, ``"5 min 02 s"``, ``"3 h 10 min"``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Count of what is done, shown as a tqdm bar or as log lines.

    One object serves a whole run: each stage begins with :meth:`start`.  Lines such as
    ``likelihood: 25% (150/600 particles, 12.3/s, 37 s left)`` go to this module's logger at most every
    `interval` seconds; with a bar they go there too, for the log file, and the command line keeps them off
    the terminal.

    Parameters
    ----------
    total : items of the stage; ``None`` when the stage begins later, by :meth:`start`.
    label, unit : what is being done, and to what ("particles").
    bar : draw a tqdm bar; default: when standard error is a terminal.
    interval : least time between two log lines, in seconds.
    clock : seconds from any origin.
    """

    def __init__(
        self,
        total: Optional[int] = None,
        label: str = "",
        unit: str = "",
        *,
        bar: Optional[bool] = None,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shows_bar = sys.stderr.isatty() if bar is None else bar
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._bar: Any = None
        self._total: Optional[int] = None
        self._done = self._first = 0
        self._label = self._unit = ""
        self._started = self._last_line = 0.0
        if total is not None:
            self.start(total, label, unit)

    def start(self, total: int, label: str, unit: str = "", done: int = 0) -> "Progress":
        """Begin a stage of `total` items, of which an earlier run finished `done`; return self."""
        self.close()
        self._total, self._label, self._unit = int(total), label, unit
        self._done = self._first = int(done)
        self._started = self._last_line = self._clock()
        if self.shows_bar:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, desc=label, unit=f" {unit}", leave=True)
        return self

    @property
    def done(self) -> int:
        """Items of the stage that are finished."""
        return self._done

    def update(self, n: int = 1) -> None:
        """Count `n` more items as finished; any thread may call it."""
        with self._lock:
            if self._total is None:
                raise RuntimeError("Progress.update needs a stage: call start first")
            self._done += int(n)
            if self._bar is not None:
                self._bar.update(n)
            now = self._clock()
            if now - self._last_line >= self._interval and self._done < self._total:
                self._last_line = now
                logger.info("%s", self.line(now))

    def line(self, now: Optional[float] = None) -> str:
        """Return the state of the stage as one line of text."""
        total = self._total or 0
        elapsed = (self._clock() if now is None else now) - self._started
        fresh = self._done - self._first
        rate = fresh / elapsed if elapsed > 0 else 0.0
        percent = 100 * self._done // total if total else 100
        items = f"{self._done}/{total} {self._unit}".rstrip()
        parts = [items]
        if rate > 0:
            parts.append(f"{rate:.3g}/s" if rate < 100 else f"{rate:.0f}/s")
        if self._done >= total:
            parts.append(plain_time(elapsed))
        elif rate > 0:
            parts.append(f"{plain_time((total - self._done) / rate)} left")
        return f"{self._label}: {percent}% ({', '.join(parts)})"

    def close(self) -> None:
        """End the stage and write its last line; safe to call twice."""
        if self._total is None:
            return
        logger.info("%s", self.line())
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._total = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
