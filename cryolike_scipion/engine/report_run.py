"""The verb ``report``: one HTML page of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .atomic import atomic_path
from .progress import Progress
from .results import Results, load_results

REPORT = "report.html"
logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write the page of a run.

    Parameters
    ----------
    parameters : completed parameters of the verb ``report``.
    progress : told about the page.

    Raises
    ------
    InputError
        If the folder holds no result.
    """
    folder = Path(parameters["run"])
    path = Path(parameters["out"]) if parameters["out"] is not None else folder / REPORT
    progress.start(1, "report", "page")
    write_report(load_results(folder), path, parameters["title"] or folder.resolve().name)
    progress.update(1)
    progress.close()
    logger.info("report: %s", path)


def write_report(results: Results, path: Path, title: str) -> None:
    """Write the page of `results`, whole or not at all; the likelihood and merge verbs end with it."""
    from .report import render  # matplotlib, which input that is refused need not wait for

    page = render(results, title)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
