"""The verb ``report``: one HTML page of a finished run, or of templates or converted particles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

from ..constants import DENSITY_FILE, OUTPUT_GALLERY, RESULT_FOLDER
from .atomic import atomic_path
from .particles import read_particles
from .progress import Progress
from .results import Results, load_results
from .structures import INDEX

if TYPE_CHECKING:
    from .likelihood_setup import Setup

REPORT = "report.html"
_DENSITIES = 8
logger = logging.getLogger(__name__)


def run(parameters: dict[str, Any], progress: Progress) -> None:
    """Write the page of a folder.

    Parameters
    ----------
    parameters : completed parameters of the verb ``report``.
    progress : told about the page.

    Raises
    ------
    InputError
        If the folder holds neither a result, nor templates, nor particles.
    """
    folder = Path(parameters["run"])
    path = Path(parameters["out"]) if parameters["out"] is not None else folder / REPORT
    title = parameters["title"] or title_of(folder)
    progress.start(1, "report", "page")
    if (folder / "scores.h5").exists():
        _write(_page_of_run(load_results(folder), title, folder), path)
    elif (folder / INDEX).exists():
        write_template_report(folder, path, title)
    elif (folder / "particles.star").exists():
        write_particle_report(folder, path, title)
    else:
        load_results(folder)  # says what is missing
    progress.update(1)
    progress.close()
    logger.info("report: %s", path)


def title_of(folder: Path) -> str:
    """Name of a run: its folder's, or that of the node in a Scipion project, which keeps its result in ``Runs/NODE/extra``."""
    parts = folder.resolve().parts
    if parts[-1] == RESULT_FOLDER and "Runs" in parts[:-1]:
        return parts[len(parts) - parts[::-1].index("Runs")]
    return parts[-1]


def write_report(results: Results, path: Path, title: str, setup: Setup | None = None) -> None:
    """Write the page of `results`, whole or not at all; the likelihood and merge verbs end with it.

    Parameters
    ----------
    results : Results
    path : Path
        The page; pictures of single particles are in ``gallery.npz`` beside it.
    title : its heading.
    setup : Setup, optional
        Of the run: the gallery is made from it first.
    """
    if setup is not None:
        write_pictures(results, path.parent, setup)
    _write(_page_of_run(results, title, path.parent), path)


def write_pictures(results: Results, folder: Path, setup: Setup) -> None:
    """Write the gallery of a run into its folder, or warn."""

    def write() -> None:
        from .gallery import write_gallery  # matplotlib, which input that is refused need not wait for

        write_gallery(folder, setup, results, results.parameters["scale_prior"])

    or_warn("the pictures of particles", write)


def or_warn(what: str, write: Callable[..., None], *arguments: Any) -> None:
    """Write something to look at, or say why it could not be: hours of work are worth more than a picture of it."""
    try:
        write(*arguments)
    except Exception as error:
        logger.warning("%s could not be made: %s: %s", what, type(error).__name__, error)
        logger.debug("while %s were made", what, exc_info=True)


def write_template_report(folder: Path, path: Path, title: str) -> None:
    """Write the page of the templates in a folder."""
    from .report_inputs import render_templates

    _write(render_templates(folder, title), path)


def write_particle_report(folder: Path, path: Path, title: str) -> None:
    """Write the page of the converted particles in a folder, and the pictures that a viewer shows at once."""
    from .inspect_particles import look_at_particles
    from .report_inputs import first_converted, render_particles

    particles = read_particles([folder])
    first = first_converted(particles)
    look = None if first is None else look_at_particles(particles, first)
    if look is not None:
        with atomic_path(folder / OUTPUT_GALLERY) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **look)
    _write(render_particles(particles, look, title), path)


def _page_of_run(results: Results, title: str, folder: Path) -> str:
    from .report import render  # matplotlib, which input that is refused need not wait for

    pictures, path = None, folder / OUTPUT_GALLERY
    if path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            pictures = {name: arrays[name] for name in arrays.files}
    return render(results, title, pictures, list(_densities(results, folder)))


def _densities(results: Results, folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Label, density and voxel size (Å) of the first structures of a run."""
    for number, label in enumerate(results.labels[:_DENSITIES], start=1):
        path = folder / (DENSITY_FILE % number)
        if path.exists():
            with mrcfile.open(path, permissive=True) as file:
                yield label, np.array(file.data), float(file.voxel_size.x)


def _write(page: str, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
