"""Best cross-correlations by view, shift, in-plane angle, or all of them: what `--keep` asks for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .polar_images import PolarImages
from .scoring import GridEvidence

__all__ = ["KEEP", "Optima", "tensor_bytes"]

# What is kept, and over which axes of [m, v, o, g] (image, view, shift, in-plane angle) the best is taken.
KEEP = {
    "template": ("o", "g"),
    "shift": ("v", "g"),
    "rotation": ("v", "o"),
    "shift-rotation": ("v",),
    "full": (),
}


def tensor_bytes(keep: str, images: int, views: int, shifts: int, inplane: int) -> int:
    """Memory of the values and positions that `Optima` keeps."""
    sizes = {"v": views, "o": shifts, "g": inplane}
    cells = images * int(np.prod([n for axis, n in sizes.items() if axis not in KEEP[keep]]))
    return cells * (4 if keep == "full" else 8)


class Optima:
    """Running best cross-correlation ``cc = b/√(a c)`` over the axes named by ``keep``.

    Attributes
    ----------
    value : float32 [m, …]
        Remaining axes in the order view, shift, in-plane angle.
    position : int32 [m, …]
        Flat index, in the same order, into the axes over which the best was taken; absent for "full".
    """

    def __init__(self, keep: str, images: int, views: int, shifts: int, inplane: int, device="cpu") -> None:
        self.keep, self._over = keep, KEEP[keep]
        self._sizes = {"v": views, "o": shifts, "g": inplane}
        shape = [images] + [n for axis, n in self._sizes.items() if axis not in self._over]
        self.value = torch.full(shape, float("-inf"), dtype=torch.float32, device=device)
        self.position = torch.zeros(shape, dtype=torch.int32, device=device) if self._over else None

    def update(self, start: int, shift: int, first: int, b: Tensor, scores: GridEvidence, images: PolarImages) -> None:
        """Fold in a block b [m, o, v, g] that begins at image ``start``, shift ``shift`` and view ``first``."""
        m, o, v, _ = b.shape
        shifts, count, turns = slice(shift, shift + o), self._sizes["o"], self._sizes["g"]
        c = images.projected_power.to(b)[:, None, None]
        cc = (b.transpose(1, 2) - scores.offset[:, :, None]) / torch.sqrt(scores.power * c)[:, :, None]
        rows = slice(start, start + m)
        if self.position is None:
            self.value[rows, first : first + v, shifts] = cc.float()
            return
        place: tuple[slice, ...]
        if "v" not in self._over:  # over shifts and angles, of every view
            place = (rows, slice(first, first + v))
            best, where = cc.flatten(2).max(dim=-1)
            where = where + shift * turns
        elif "o" in self._over:  # over views and shifts, of every angle
            place = (rows,)
            best, where = cc.flatten(1, 2).max(dim=1)
            where = (where // o + first) * count + where % o + shift
        elif "g" in self._over:  # over views and angles, of every shift
            place = (rows, shifts)
            best, where = cc.transpose(2, 3).flatten(1, 2).max(dim=1)
            where = where + first * turns
        else:
            place = (rows, shifts)
            best, where = cc.max(dim=1)
            where = where + first
        better = best > self.value[place]
        self.value[place] = torch.where(better, best.float(), self.value[place])
        self.position[place] = torch.where(better, where.int(), self.position[place])
