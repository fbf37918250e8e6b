"""Reports of what a comparison is made from: templates, and converted particles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import mrcfile
import numpy as np

from ..plots import particles as particle_plots
from ..plots import templates as template_plots
from ..plots import volumes
from . import report_page as page
from .particles import Particles
from .structures import INDEX

__all__ = ["first_converted", "render_particles", "render_templates"]

_STRUCTURES = 8
_VIEWS = 40


def render_templates(folder: Path, title: str) -> str:
    """Write the page of a folder that the verb ``templates`` made.

    Parameters
    ----------
    folder : Path
    title : heading of the page.

    Returns
    -------
    str
        HTML, with its pictures inside; at most eight structures are drawn.
    """
    entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    body, rows, curves = [], [], []
    for number, entry in enumerate(entries, start=1):
        with h5py.File(folder / entry["file"], "r") as file:
            size = [
                f"{2 * file.attrs['radius']:.0f}",
                f"{1 / file.attrs['k_max']:.2f}",
                f"{file['views'].attrs['step_deg']:.2f}",
            ]
            rows.append([str(number), entry["label"], entry["symmetry"], f"{entry['views']:,}", *size])
            if number > _STRUCTURES:
                continue
            rot, tilt, weight = (file["views"][name][()] for name in ("rot", "tilt", "weight"))
            density, pixel = file["density"][()], float(file.attrs["pixel_size"])
        figures = [
            (volumes.slices_and_projections(density, entry["label"], pixel), "The density that is projected."),
            (
                template_plots.view_sphere(rot, tilt, weight, f"{len(rot):,} views"),
                "Views on an equal-area map of the sphere, coloured by their weight.",
            ),
        ]
        if entry["preview"]:
            with mrcfile.mmap(folder / entry["preview"], permissive=True) as file:
                images, spacing = np.atleast_3d(file.data), float(file.voxel_size.x)
                curves.append((entry["label"], *template_plots.radial_power(images[:_VIEWS], spacing)))
                step = max(1, -(-len(images) // _VIEWS))
                chosen = np.array(entry["preview_views"])[::step] - 1
                captions = template_plots.angle_captions(chosen + 1, rot[chosen], tilt[chosen])
                montage = template_plots.montage(images[::step], captions, entry["label"])
            figures.append((montage, "Projections, each with the number of its view, rot and tilt."))
        body.append(page.section(entry["label"], page.plots(figures)))
    header = ["number", "structure", "symmetry", "views", "diameter (Å)", "resolution (Å)", "view spacing (degree)"]
    front = [page.section("Structures", page.table(header, rows, numbers=(0, 3, 4, 5, 6)))]
    if curves:
        labels, frequency, powers = [c[0] for c in curves], curves[0][1], [c[2] for c in curves]
        figure = template_plots.power_spectrum(frequency, powers, labels)
        front.append(page.plots([(figure, "Power of the projections against resolution, mean over angles and views.")]))
    return page.page(title, "Structures, ready for comparison with particles.", front + body)


def first_converted(particles: Particles) -> int | None:
    """The first particle that has coefficients, from 0; None if none has."""
    return next((i for i, text in enumerate(particles.coefficients or []) if "@" in text), None)


def render_particles(particles: Particles, look: Mapping[str, np.ndarray] | None, title: str) -> str:
    """Write the page of a folder that the verb ``particles`` made.

    Parameters
    ----------
    particles : Particles
        Read from that folder.
    look : mapping, optional
        What :func:`~cryolike_scipion.engine.inspect_particles.look_at_particles` says, if any particle was converted.
    title : heading of the page.

    Returns
    -------
    str
        HTML, with its pictures inside.
    """
    have = sum("@" in text for text in particles.coefficients or [])
    facts = [(f"{len(particles):,}", "particles"), (f"{len(particles) - have:,}", "could not be converted")]
    if look is None:
        return page.page(title, "Particles, ready for comparison with structures.", [page.facts(facts)])
    facts += [(f"{look['pixel_size']:.3g} Å", "pixel size"), (f"{1 / look['k_max']:.2f} Å", "resolution limit")]
    figures = [
        (
            particle_plots.before_after(look["raw"], look["prepared"], [f"particle {row}" for row in look["rows"]]),
            "Some particles as they are in their files (before) and as they are compared (after): contrast, background, "
            "mask and resolution limit.",
        ),
        (
            particle_plots.ctf_over_spectrum(
                look["frequency"], look["power"], look["ctf_frequency"], look["ctf_squared"],
                f"particle {look['rows'][0]}, defocus {float(look['defocus']) / 1e4:.2f} µm",
            ),
            "The power of one image and its CTF², both averaged over angles.",
        ),
    ]  # fmt: skip
    return page.page(title, "Particles, ready for comparison with structures.", [page.facts(facts), page.plots(figures)])
