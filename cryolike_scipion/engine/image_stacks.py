"""Particle images, read by row in the order asked for, with a status for those that cannot be scored."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .mrc_stack import StackError, StackHeader, open_stack, read_stack_header
from .particles import Particles

OK, CONSTANT, NAN, MISSING = range(4)
STATUS_NAMES = ("ok", "constant", "nan", "missing")


def read_images(particles: Particles, indices: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.uint8], list[str | None]]:
    """Read images of particles, each exactly once, in the order of `indices`.

    Grey values are as in the file: neither :attr:`Particles.sign` nor any normalisation is applied. Stacks
    are memory-mapped, and never beyond the end of a truncated file; packed ones are unpacked.

    Parameters
    ----------
    particles : Particles
    indices : array_like of int [m]
        Which particles, counted from 0. All must have one box.

    Returns
    -------
    images : float32 [m, N, N]
        ``[y, x]``; 0 where the status is not 0 (ok).
    status : uint8 [m]
        0 ok, 1 constant, 2 a value is NaN or infinite, 3 missing (no stack, no such image in it, or cut off).
    problems : list of str or None, of length m
        For each image that is not ok one line: ``FILE, row N: what is wrong. Remedy.``

    Raises
    ------
    ValueError
        If the particles have different boxes.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    boxes = np.unique(particles.box[chosen])
    if len(boxes) > 1:
        raise ValueError(f"images of different boxes cannot be read together: {boxes.tolist()}")
    edge = int(boxes[0]) if len(boxes) else 0
    images = np.zeros((len(chosen), edge, edge), dtype=np.float32)
    status = np.zeros(len(chosen), dtype=np.uint8)
    problems: list[str | None] = [None] * len(chosen)
    stack_of = particles.stack_index[chosen]
    for stack in dict.fromkeys(stack_of.tolist()):
        places = np.flatnonzero(stack_of == stack)
        header, frames, trouble = _open(particles, stack, edge)
        for place in places:
            index = int(chosen[place])
            state, found = (
                (MISSING, trouble) if header is None else _read_one(header, frames, int(particles.frame[index]), images[place])
            )
            status[place] = state
            if found is not None:
                images[place] = 0
                problems[place] = particles.problem(index, *found)
    return images, status, problems


_Trouble = tuple[str, str]


def _open(particles: Particles, stack: int, edge: int) -> tuple[StackHeader | None, NDArray, _Trouble | None]:
    nothing = np.empty((0, edge, edge), dtype=np.float32)
    try:
        header = read_stack_header(particles.stacks[stack])
        if (header.nx, header.ny) != (edge, edge):
            raise StackError(
                f"the images of {header.path} are {header.nx} x {header.ny} pixels, not {edge} x {edge}",
                "Export the particles again, or correct rlnImageSize",
            )
        return header, open_stack(header), None
    except StackError as error:
        return None, nothing, (error.args[0], error.args[1])
    except (OSError, ValueError) as error:
        return (
            None,
            nothing,
            (f"the image stack {particles.stacks[stack]} cannot be read ({error})", "Check the file"),
        )


def _read_one(header: StackHeader, frames: NDArray, frame: int, out: NDArray) -> tuple[int, _Trouble | None]:
    """Put one image into `out`; its status and what is wrong with it."""
    name = f"image {frame + 1} of {header.path}"
    if not 0 <= frame < header.nz:
        return MISSING, (
            f"there is no {name}, which has {header.nz}",
            "Correct the image name, or extract the particles again",
        )
    if frame >= len(frames):
        return MISSING, (
            f"{name} is cut off: the file is truncated and holds {len(frames)} of {header.nz} images",
            "Copy or extract the stack again",
        )
    out[...] = frames[frame]
    low, high = float(out.min()), float(out.max())
    if not np.isfinite(low) or not np.isfinite(high):
        return NAN, (
            f"{name} has values that are NaN or infinite",
            "Extract the particle again, or remove the row",
        )
    if low == high:
        return CONSTANT, (
            f"{name} is constant (every pixel is {low:g})",
            "Extract the particle again, or remove the row",
        )
    return OK, None
