"""Best pose and sums of every row and view without the table of scores: a Triton kernel on a GPU, torch elsewhere.

The plain way writes b for every row of images, view and in-plane angle and reads it again for every step from b to the sum of
the evidence; on a GPU that traffic is most of the time. The kernel keeps the angles of a tile of rows and views in registers:
products over the radial functions, then the inverse transform over the orders as a product with a table of cosines and sines,
then running largest b, log-sum-exp and mean of the log-ratio. Ranks differ from order to order, so that coefficients are laid
out anew for it (`PackedBasis`), templates once.

Triton comes with CUDA builds of torch. It is imported when first needed, and nothing here needs it.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from .correlation import correlate
from .radial_basis import RadialBasis
from .scoring import GridEvidence

logger = logging.getLogger(__name__)

__all__ = ["FusedScorer", "FusedScores", "PackedBasis", "fused_scores", "plain_scores", "triton_scores", "uses_kernel"]

_SLOTS, _CHUNK, _ALIGNED = 16, 16, 8  # orders and functions that a program multiplies at a time; places in a row are multiples
_ROWS, _MOST_VIEWS, _PAIR_ANGLES, _WARPS = 16, 16, 16384, 8  # of a program
_FIRST_TENSOR_CORES = 8  # compute capability with TF32
_SCORES_AT_ONCE = 1 << 24
_TRIED_ROWS, _TRIED_VIEWS = 32, 64
_NAT, _SHARE = 0.01, 1e-4  # by which the kernel may differ, and of a number's size

_trusted: dict[tuple, bool] = {}


@dataclass(frozen=True)
class FusedScores:
    """Every row and view over all in-plane angles, [r, v].

    Attributes
    ----------
    best : float32
        Largest b without its offset; effective b of `GridEvidence` where <T,T> depends on the angle.
    inplane : int32
        In-plane angle of it.
    log_mass : float32
        ln Σ_g evidence/null, alpha > 0 included, no prior.
    mean_log : float32
        Mean log-ratio under that sum.
    """

    best: Tensor
    inplane: Tensor
    log_mass: Tensor
    mean_log: Tensor


class FusedScorer:
    """Scores against the views of one structure: by the kernel on CUDA tensors where Triton is, else by `plain_scores`.

    The first scores of every kind of kernel and device are compared with those of `plain_scores` for a few rows; should they
    differ, or the kernel fail, that is logged and the plain way is taken from then on.

    Parameters
    ----------
    templates : complex Tensor [v, K]
        `Templates.rows`; packed here, once.
    basis : RadialBasis
    n_inplane : int
        At least 2 n_orders angles, even.
    """

    def __init__(self, templates: Tensor, basis: RadialBasis, n_inplane: int) -> None:
        self._templates, self._basis, self._n_inplane = templates, basis, n_inplane
        self._layout: PackedBasis | None = None
        if uses_kernel(templates.device, templates.dtype):
            self._layout = PackedBasis.of(basis, n_inplane, templates.device)
            self._packed = self._layout.pack(templates)

    def __call__(self, rows: Tensor, scores: GridEvidence, views: slice = slice(None)) -> FusedScores:
        """Score rows against some views, of which ``scores`` are; see `plain_scores`."""
        templates = self._templates[views]
        if self._layout is not None:
            key = str(rows.device), self._layout.part, scores.turn is None
            if _trusted.get(key, True):
                try:
                    found = triton_scores(self._layout.pack(rows), self._packed[:, views], self._layout, scores)
                    if key not in _trusted:
                        _trusted[key] = self._agrees(found, rows, templates, scores)
                except Exception:
                    logger.warning("the Triton kernel does not run on %s", rows.device, exc_info=True)
                    _trusted[key] = False
                if _trusted[key]:
                    return found
        return plain_scores(rows, templates, self._basis, self._n_inplane, scores)

    def _agrees(self, found: FusedScores, rows: Tensor, templates: Tensor, scores: GridEvidence) -> bool:
        """Whether scores are those of `plain_scores`, tried with a few rows of the first image and views."""
        n, v = min(len(rows) // len(scores.offset), _TRIED_ROWS), min(len(templates), _TRIED_VIEWS)
        few = scores.take((slice(0, 1), slice(0, v)))
        expected = plain_scores(rows[:n], templates[:v], self._basis, self._n_inplane, few)
        off = max(
            float(((getattr(found, name)[:n, :v] - value).abs() / (_NAT + _SHARE * value.abs())).nan_to_num(torch.inf).max())
            for name, value in (("log_mass", expected.log_mass), ("mean_log", expected.mean_log))
        )
        if off > 1:
            logger.warning("the Triton kernel on %s differs from plain torch, which is used instead", rows.device)
        return off <= 1


def fused_scores(rows: Tensor, templates: Tensor, basis: RadialBasis, n_inplane: int, scores: GridEvidence) -> FusedScores:
    """`plain_scores` by the Triton kernel on CUDA tensors, where Triton can be imported; else that itself."""
    return FusedScorer(templates, basis, n_inplane)(rows, scores)


def plain_scores(rows: Tensor, templates: Tensor, basis: RadialBasis, n_inplane: int, scores: GridEvidence) -> FusedScores:
    """Score every row against every view over all in-plane angles, in torch.

    Parameters
    ----------
    rows : complex Tensor [r, K]
        Conjugated coefficients of moved images, from `shifted_rows`: r / m consecutive rows (shifts) of each of m images.
    templates : complex Tensor [v, K]
        `Templates.rows`.
    basis : RadialBasis
    n_inplane : int
        At least 2 n_orders angles, even.
    scores : GridEvidence
        Of the m images at the v views.

    Returns
    -------
    FusedScores
    """
    image = _images_of(rows, scores)
    parts = []
    at_once = max(1, _SCORES_AT_ONCE // (len(templates) * n_inplane))
    for start in range(0, len(rows), at_once):
        own = scores.take(image[start : start + at_once])
        b = correlate(rows[start : start + at_once], templates, basis, n_inplane)
        best, inplane = own.effective(b).max(dim=2)
        logs = own.log_ratio(b)
        top = logs.amax(dim=2, keepdim=True)
        weights = torch.exp(logs - top)
        mass = weights.sum(dim=2)
        mean = torch.linalg.vecdot(weights, logs - top) / mass
        parts.append((best, inplane.int(), top[..., 0] + torch.log(mass), top[..., 0] + mean))
    return FusedScores(*(torch.cat(part) for part in zip(*parts)))


@dataclass(frozen=True)
class PackedBasis:
    """Where the kernel finds the coefficients of every order, and its table of waves.

    Even orders come first, then odd ones, in blocks of as many; the orders of a block have its largest rank, rounded up, and
    places that no function has hold zeros.

    Attributes
    ----------
    n_half : int
        In-plane angles of half a turn.
    size : int
        Length of a packed row.
    place : int64 [K]
        Of every coefficient in it.
    starts, widths : int32 [blocks]
        Where a block begins and how many places each of its orders has.
    n_even : int
        Blocks of even orders.
    waves : float32 [2, orders, angles]
        Cosines and negative sines of the orders as packed, times two but for order 0; angles beyond ``n_half`` fill up.
    part : int
        Angles that the kernel sums at a time.
    """

    n_half: int
    size: int
    place: Tensor
    starts: Tensor
    widths: Tensor
    n_even: int
    waves: Tensor
    part: int

    @classmethod
    def of(cls, basis: RadialBasis, n_inplane: int, device: torch.device | str) -> PackedBasis:
        if n_inplane % 2 or n_inplane < 2 * basis.n_orders:
            raise ValueError(f"{basis.n_orders} orders need an even number of angles, at least {2 * basis.n_orders}")
        ranks = [block.rank for block in basis.blocks for _ in range(block.count)]
        begins = [block.start + i * block.rank for block in basis.blocks for i in range(block.count)]
        place = torch.empty(basis.size, dtype=torch.int64)
        starts, widths, orders = [], [], []
        size = n_even = 0
        for parity in (0, 1):
            alike = list(range(parity, basis.n_orders, 2))
            for first in range(0, len(alike), _SLOTS):
                block = alike[first : first + _SLOTS]
                most = _rounded(max(ranks[q] for q in block), _ALIGNED)
                for slot, q in enumerate(block):
                    place[begins[q] : begins[q] + ranks[q]] = size + slot * most + torch.arange(ranks[q])
                starts.append(size)
                widths.append(most)
                orders += block + [0] * (_SLOTS - len(block))  # nothing is stored for the latter
                size += _SLOTS * most
                n_even += parity == 0
        n_half = n_inplane // 2
        part = _part(n_half, size, len(orders))
        order = torch.tensor(orders)[:, None]
        turns = (order * torch.arange(_rounded(n_half, part))) % n_inplane
        angle = turns.double() * (2 * torch.pi / n_inplane)
        waves = (1.0 + order.clamp_max(1)) * torch.stack([torch.cos(angle), -torch.sin(angle)])
        begin, width = (torch.tensor(values, dtype=torch.int32, device=device) for values in (starts, widths))
        return cls(n_half, size, place.to(device), begin, width, n_even, waves.float().to(device), part)

    def pack(self, rows: Tensor) -> Tensor:
        """Coefficients [r, K] as the kernel takes them: real and imaginary parts, float32 [2, r, size]."""
        packed = torch.zeros(2, len(rows), self.size, dtype=torch.float32, device=rows.device)
        packed[0].index_copy_(1, self.place, rows.real)
        packed[1].index_copy_(1, self.place, rows.imag)
        return packed


def triton_scores(rows: Tensor, templates: Tensor, layout: PackedBasis, scores: GridEvidence) -> FusedScores:
    """`plain_scores` of packed rows [2, r, size] and templates [2, v, size] by the Triton kernel, all in float32."""
    (n_rows, n_views), device = (rows.shape[1], templates.shape[1]), rows.device
    images = len(scores.offset)
    per_image = len(_images_of(rows[0], scores)) // images
    known, turn = scores.evidence, scores.turn
    fields = torch.empty(9, images, n_views, 1, dtype=torch.float32, device=device)
    for field, value in zip(fields, (
        known.constant + torch.log(known.prior_factor), known.half_dof, known.base, known.slope, known.curve,
        known.scale_gain * known.inverse_width, known.scale_shift * known.inverse_width,
        scores.offset, known.scale_shift / known.scale_gain,
    )):  # fmt: skip
        field.copy_(value)
    turns = fields if turn is None else turn.float().contiguous()
    floats = [torch.empty(n_rows, n_views, dtype=torch.float32, device=device) for _ in range(3)]
    found = FusedScores(floats[0], torch.empty(n_rows, n_views, dtype=torch.int32, device=device), *floats[1:])
    views_at_once = min(_MOST_VIEWS, _PAIR_ANGLES // (_ROWS * layout.part))
    grid = (-(-n_rows // _ROWS) * -(-n_views // views_at_once),)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        _kernel().score_tiles[grid](
            rows, rows.stride(0), templates, templates.stride(0), layout.size, layout.starts, layout.widths, layout.n_even,
            len(layout.starts), layout.waves, layout.waves.stride(0), layout.waves.shape[2], fields, turns,
            found.best, found.inplane, found.log_mass, found.mean_log, n_rows, n_views, per_image, layout.n_half,
            SLOTS=_SLOTS, CHUNK=_CHUNK, ROWS=_ROWS, VIEWS=views_at_once, PART=layout.part, TURNING=turn is not None,
            PRECISION=_precision(device), num_warps=_WARPS, num_stages=2, enable_fp_fusion=True,
        )  # fmt: skip
    return found


def uses_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tensors of a device and type are scored by the kernel: complex64 on CUDA, where Triton can be imported."""
    if device.type != "cuda" or dtype != torch.complex64:
        return False
    try:
        _kernel()
    except ImportError:
        return False
    return True


def _precision(device: torch.device) -> str:
    """How the kernel multiplies: in three products of TF32, as exact as float32 and faster, where there are tensor cores."""
    cores = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _FIRST_TENSOR_CORES
    return "tf32x3" if cores else "ieee"


@lru_cache(maxsize=1)
def _kernel() -> ModuleType:
    return importlib.import_module(".fused_triton", __package__)


def _images_of(rows: Tensor, scores: GridEvidence) -> Tensor:
    """The image of every row, int64 [r]."""
    images = len(scores.offset)
    if len(rows) % images:
        raise ValueError(f"{len(rows)} rows are not as many of each of {images} images")
    return torch.arange(len(rows), device=rows.device) // (len(rows) // images)


def _part(n_half: int, size: int, orders: int) -> int:
    """Angles at a time, a power of two: products of coefficients are made anew for each part, and angles filled up to it."""

    def work(part: int) -> int:
        return -(-n_half // part) * (4 * size + 2 * orders * part)

    return min((128, 64, 32), key=work)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
