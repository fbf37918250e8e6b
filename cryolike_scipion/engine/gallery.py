"""Pictures of a run, made while its structures are in memory: averages, best members, and some single particles.

They go to ``gallery.npz``, which the report and Scipion's viewers show:

``labels`` [K] and, for the S structures that most particles chose, ``shown`` [S] (from 1), ``average``,
``average_template`` [S, n, n], ``average_count`` [S], ``member_row`` [S, m] (from 1; 0 for none), ``member_image``,
``member_template`` [S, m, n, n]; then for some particles E ``example_row`` [E], ``example_kind`` [E], and what
:mod:`~cryolike_scipion.engine.inspect_run` writes, with the prefix ``example_1_`` and so on; the first has a landscape.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import affine_transform

from ..constants import OUTPUT_GALLERY
from .atomic import atomic_path
from .ctf import ctf
from .image_stacks import OK, read_images
from .inspect_particles import as_compared
from .inspect_run import best_pose, compare, landscape, posed_templates
from .likelihood import ScalePrior
from .likelihood_setup import Setup
from .results import Results
from .rotations import directions, matrix_from_euler
from .simulate import HalfPlane
from .slices import SliceMaker
from .template_power import ctf_arguments

__all__ = ["write_gallery"]

logger = logging.getLogger(__name__)

_STRUCTURES = 8
_COMPARED = 20  # structures; single particles are compared with no more than these
_MEMBERS = 6
_AVERAGED = 100
_SEARCHED = 2000  # members among which the most frequent view is looked for
_SIMILAR_DEG = 12.0
_PIXELS = 96
_LARGEST_LANDSCAPE = 2e8  # scores


def write_gallery(out: Path, setup: Setup, results: Results, scale_prior: dict[str, Any]) -> None:
    """Write ``gallery.npz`` into the folder of a run; nothing where no image could be scored.

    Parameters
    ----------
    out : Path
    setup : Setup
    results : Results
        Of the particles of ``setup``.
    scale_prior : dict
        As the run's manifest has it.
    """
    if not (results.status == OK).any():
        return
    chosen = np.bincount(results.best_structure, minlength=len(setup.structures) + 1)[1:]
    shown = np.sort(np.argsort(-chosen, kind="stable")[:_STRUCTURES])
    arrays: dict[str, Any] = {"labels": np.array(results.labels), "shown": shown + 1}
    parts = [_members(setup, results, int(k)) for k in shown]
    arrays |= {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    examples = _examples(results) if len(setup.structures) <= _COMPARED else {}
    arrays["example_kind"] = np.array(list(examples))
    arrays["example_row"] = np.array([place + 1 for place in examples.values()], dtype=np.int64)
    for number, place in enumerate(examples.values(), start=1):
        found = compare(results, setup, place)
        if number == 1:
            k = int(results.best_structure[place]) - 1
            if len(setup.tables[k]) * len(setup.shifts) * setup.n_inplane <= _LARGEST_LANDSCAPE:
                group = str(setup.particles.optics_index[place])
                found |= landscape(setup, place, k, ScalePrior(**scale_prior["groups"][group]))
        arrays |= {f"example_{number}_{name}": value for name, value in found.items() if name != "labels"}
    with atomic_path(out / OUTPUT_GALLERY) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _examples(results: Results) -> dict[str, int]:
    """Particles worth a look: a clear one, a middling one, and one whose structure is least decided."""
    good = np.flatnonzero(results.status == OK)
    order = good[np.argsort(results.of_best("integrated")[good], kind="stable")]
    found = {"clear": int(order[int(0.95 * (len(order) - 1))]), "middling": int(order[len(order) // 2])}
    if len(results.structures) > 1:
        found["undecided"] = int(good[np.argmin(results.of_best("structure_posterior")[good])])
    return found


def _members(setup: Setup, results: Results, k: int) -> dict[str, np.ndarray]:
    """Average of the most frequent view of a structure, and its members of highest log-likelihood."""
    own = np.flatnonzero(results.best_structure == k + 1)
    size = min(_PIXELS, *(group.box for group in setup.particles.optics))
    blank = np.zeros((size, size), dtype=np.float32)
    rows = own[np.argsort(-results.integrated[k, own], kind="stable")][:_MEMBERS]
    filler = [blank] * (_MEMBERS - len(rows))
    arrays = {
        "member_row": np.array([m + 1 for m in rows] + [0] * len(filler), dtype=np.int64),
        "member_image": np.stack([_shrunk(_image(setup, int(m)), size) for m in rows] + filler),
        "member_template": np.stack([_shrunk(_template(setup, results, k, int(m)), size) for m in rows] + filler),
    }
    average, template, count = _average(setup, results, k, own, size) if len(own) else (blank, blank, 0)
    return arrays | {"average": average, "average_template": template, "average_count": np.array(count)}


def _image(setup: Setup, m: int) -> np.ndarray:
    """A particle as it is compared, float64 [N, N]."""
    raw, _, _ = read_images(setup.particles, np.array([m]))
    return as_compared(setup.particles, np.array([m]), raw, setup.settings.images)[0].numpy()


def _template(setup: Setup, results: Results, k: int, m: int) -> np.ndarray:
    pose = best_pose(results, setup.particles, k, m)
    return posed_templates(setup.structures[k], setup.particles, m, *pose, setup.settings.k_max)


def _average(setup: Setup, results: Results, k: int, own: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Phase-flipped images of the most frequent view, turned and shifted onto each other; its projection; their number."""
    few = own[np.linspace(0, len(own) - 1, min(len(own), _SEARCHED)).astype(np.int64)]
    groups = setup.particles.optics_index[few]
    centre, near = _most_frequent(directions(results.rot[k, few], results.tilt[k, few]), groups)
    similar = few[near]
    group = setup.particles.optics[groups[centre]]
    plane = HalfPlane(group.box, group.pixel_size, min(setup.settings.k_max, 0.5 / group.pixel_size))
    total = np.zeros((group.box, group.box))
    for m in similar:
        _, origin = best_pose(results, setup.particles, k, int(m))
        total += _upright(_phase_flipped(setup, int(m), plane), results.psi[k, m], origin / group.pixel_size)
    rotation = matrix_from_euler(results.rot[k, few[centre]], results.tilt[k, few[centre]], 0.0)
    slices = SliceMaker(setup.structures[k], plane.points())(rotation[None]).to(torch.complex128)
    return _shrunk(total / len(similar), size), _shrunk(plane.image(slices)[0].numpy(), size), len(similar)


def _most_frequent(vectors: np.ndarray, groups: np.ndarray) -> tuple[int, np.ndarray]:
    """The view [n, 3] that most others of its optics group [n] are close to, and places of those, itself among them."""
    near = (vectors @ vectors.T > np.cos(np.deg2rad(_SIMILAR_DEG))) & (groups[:, None] == groups)
    centre = int(np.argmax(near.sum(axis=1)))
    return centre, np.flatnonzero(near[centre])[:_AVERAGED]


def _phase_flipped(setup: Setup, m: int, plane: HalfPlane) -> np.ndarray:
    """A particle with the sign of its CTF taken away, within the band."""
    image = torch.as_tensor(_image(setup, m))
    centre = plane.box // 2
    rows, columns = (torch.as_tensor(index) for index in plane.indices())
    spectrum = torch.fft.rfft2(torch.roll(image, (-centre, -centre), dims=(0, 1)))[rows, columns]
    points = torch.as_tensor(plane.points())
    transfer = ctf(
        torch.hypot(points[:, 0], points[:, 1]),
        torch.atan2(points[:, 1], points[:, 0]),
        **ctf_arguments(setup.particles, np.array([m])),
    )
    return plane.image((spectrum * torch.sign(transfer))[None] * plane.pixel_size**2)[0].numpy()


def _upright(image: np.ndarray, psi_deg: float, origin: np.ndarray) -> np.ndarray:
    """The image turned so that its pose has psi 0 and origin 0.

    Pixel (x, y) about the centre of the result is the image's at (x cos psi + y sin psi, -x sin psi + y cos psi) less the
    origin (pixels, x and y).
    """
    c, s = np.cos(np.deg2rad(psi_deg)), np.sin(np.deg2rad(psi_deg))
    centre = image.shape[0] // 2
    turn = np.array([[c, -s], [s, c]])  # rows y, columns x: (y, x) -> (c y - s x, s y + c x)
    place = np.array([centre, centre])
    return affine_transform(image, turn, place - turn @ place - origin[::-1], order=1, mode="constant")


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """The image on fewer pixels, its Fourier transform cut: float32 [size, size]."""
    box = image.shape[0]
    if box <= size:
        return image.astype(np.float32)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    start = box // 2 - size // 2
    part = spectrum[start : start + size, start : start + size]
    return (np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(part))).real * (size / box) ** 2).astype(np.float32)
