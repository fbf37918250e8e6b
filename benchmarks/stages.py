"""Where the time of a likelihood run goes: the engine's functions, timed by name while they run in this process."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import markdown
from particles import Dataset

from cryolike_scipion import engine

# Stage: functions of the engine, module.name or module.Class.name. A stage within another is counted in itself alone.
STAGES = {
    "tables, structures, grids": ("likelihood_setup.prepare_run",),
    "contrast check": ("contrast.inverted_share",),
    "conversion of images": ("conversion.convert",),
    "templates": ("template_bank.TemplateBank.templates",),
    "lower bands of images": ("bands.band_images",),
    "exhaustive search": ("exhaustive.search_grid",),
    "local search": ("pose_search.StructureSearch.around",),
    "coarse to fine: explore": ("hierarchical.LevelSearch.explore",),
    "coarse to fine: other structures' views": ("hierarchical.LevelSearch.look_below",),
    "coarse to fine: draw closed rows, open more": ("hierarchical.LevelSearch.finish",),
    "finer levels": ("division.divide_rows",),
    "mass near the best pose": ("pose_search.StructureSearch._near_best",),
    "refinement of poses": ("refine.refine_poses",),
    "fit of the scale": ("scale_prior.learn_scale",),
    "output: tables": ("results.Results.save", "particle_star.write_particles"),
    "output: structures": ("resample.density_on_grid",),
    "output: report": ("report_run.write_report",),
}
_REST = "the rest"


@dataclass
class Stage:
    """Totals of a stage, without the stages within it.

    Attributes
    ----------
    calls : how often it was entered.
    wall : seconds on the main thread.
    workers : seconds on other threads, summed over them.
    cpu : seconds of all threads.
    """

    calls: int = 0
    wall: float = 0.0
    workers: float = 0.0
    cpu: float = 0.0


@dataclass
class _Frame:
    stage: str
    wall: float
    cpu: float


@dataclass
class Recorder:
    """Adds up stages.

    The processor time of a stage on the main thread is the whole process's, so that it holds what its workers do; a stage
    that a worker enters has the worker's own, which is taken from the main thread's stage.
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _main: list[_Frame] = field(default_factory=list)
    _local: threading.local = field(default_factory=threading.local)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs within as the stage `name`."""
        main = threading.current_thread() is threading.main_thread()
        clock: Callable[[], float] = time.process_time if main else time.thread_time
        if not main and not hasattr(self._local, "stack"):
            self._local.stack = []
        stack = self._main if main else self._local.stack
        frame = _Frame(name, time.perf_counter(), clock())
        inner = _Frame(name, 0.0, 0.0)  # seconds of stages within
        stack.append(inner)
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - frame.wall, clock() - frame.cpu
            with self._lock:
                stack.pop()
                if stack:
                    stack[-1].wall += wall
                    stack[-1].cpu += cpu
                elif not main and self._main:
                    self._main[-1].cpu += cpu
                own = self.stages.setdefault(name, Stage())
                own.calls += 1
                own.cpu += cpu - inner.cpu
                if main:
                    own.wall += wall - inner.wall
                else:
                    own.workers += wall - inner.wall

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, counted as the stage `name`."""

        @functools.wraps(function)
        def counted(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return counted


def wrap_stages(recorder: Recorder) -> Callable[[], None]:
    """Put counted functions in place of those of :data:`STAGES`, wherever the engine imported them; return the undoing.

    Raises
    ------
    AttributeError, ModuleNotFoundError
        If the engine has no function of that name: the table is to be brought up to date.
    """
    package = engine.__name__
    importlib.import_module(f"{package}.likelihood_run")
    replaced: list[tuple[Any, str, Any]] = []
    for stage, paths in STAGES.items():
        for path in paths:
            module_name, *owners, name = path.split(".")
            holder: Any = importlib.import_module(f"{package}.{module_name}")
            for owner in owners:
                holder = getattr(holder, owner)
            original = getattr(holder, name)
            places = [holder] if owners else [m for n, m in list(sys.modules.items()) if n.startswith(package + ".")]
            counted = recorder.wrap(original, stage)
            for place in places:
                if vars(place).get(name) is original:
                    replaced.append((place, name, original))
                    setattr(place, name, counted)

    def undo() -> None:
        for place, name, original in replaced:
            setattr(place, name, original)

    return undo


def profile(data: Dataset, out: Path, count: int, structures: int, options: dict[str, Any]) -> Recorder:
    """Score the first `count` particles in this process and add up its stages; all but the imports."""
    recorder = Recorder()
    undo = wrap_stages(recorder)
    try:
        with recorder.stage(_REST):
            engine.run(
                "likelihood",
                particles=[data.particles],
                structures=list(data.structures[:structures]),
                rows=f"1:{count}",
                out=out,
                **options,
            )
    finally:
        undo()
    return recorder


def profile_table(data: Dataset, out: Path, count: int, structures: int, options: dict[str, Any]) -> str:
    """The stages of a run as a Markdown table, the costliest first."""
    stages = profile(data, out, count, structures, options).stages
    wall, cpu = sum(s.wall for s in stages.values()), sum(s.cpu for s in stages.values())
    rows = [
        (
            name,
            stage.calls,
            f"{stage.wall:.2f}",
            f"{stage.workers:.2f}" if stage.workers else "",
            f"{stage.cpu:.2f}",
            f"{100 * stage.cpu / cpu:.1f} %",
        )
        for name, stage in sorted(stages.items(), key=lambda item: -item[1].cpu)
    ]
    header = ("stage", "calls", "wall, main thread (s)", "wall, workers' sum (s)", "CPU (s)", "share of CPU")
    total = ("whole run but the imports", "", f"{wall:.2f}", "", f"{cpu:.2f}", "100 %")
    return markdown(header, [*rows, total])
