"""Few radial functions per angular order that hold every template of a set of structures.

The order q of a slice, ``T_q(k)``, of a structure within a radius R is a combination of ``J_q(2 pi k r)``, r <= R: about
``(2 pi k_max R - q) / pi`` functions of k matter, four to five times fewer than radial nodes over all orders. They are the
leading eigenvectors of the templates' covariance under the quadrature weights, taken over many views (Zhao & Singer, J. Opt.
Soc. Am. A 30, 871, 2013, do so for images). Images are projected onto the same functions, so that the inner product of order
q is a sum over them instead of over the radius, and orders without any power are not computed at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .polar_grid import PolarGrid

__all__ = ["OrderBlock", "RadialBasis", "compressed_basis", "full_circle_orders", "plain_basis"]

_POINTS_AT_ONCE = 1 << 17  # more would leave the cache
_SAME_RANK, _SPARE = 0.8, 3  # consecutive orders are worked on together while their ranks differ by less than this
_LEAST_RANK = 6  # smaller products are slower


@dataclass(frozen=True)
class OrderBlock:
    """Consecutive orders with equally many functions.

    Attributes
    ----------
    first, count : int
        Orders first … first + count - 1.
    rank : int
        Functions per order.
    start : int
        Where the block begins in a row of coefficients; it holds ``count · rank`` of them, order by order.
    vectors : real Tensor [count, n, rank]
        Orthonormal functions times the square root of the quadrature weights.
    """

    first: int
    count: int
    rank: int
    start: int
    vectors: Tensor

    @property
    def place(self) -> slice:
        """The block's coefficients in a row."""
        return slice(self.start, self.start + self.count * self.rank)

    def of(self, rows: Tensor) -> Tensor:
        """Coefficients [r, K] of this block as [count, r, rank], a view."""
        return rows[:, self.place].unflatten(1, (self.count, self.rank)).transpose(0, 1)


@dataclass(frozen=True)
class RadialBasis:
    """Radial functions of every order.

    Attributes
    ----------
    blocks : tuple of OrderBlock
        From order 0 upwards.
    """

    blocks: tuple[OrderBlock, ...]

    @property
    def n_orders(self) -> int:
        """Orders 0 … n_orders - 1 are there."""
        return self.blocks[-1].first + self.blocks[-1].count

    @property
    def size(self) -> int:
        """Number K of coefficients of a template or image."""
        return self.blocks[-1].start + self.blocks[-1].count * self.blocks[-1].rank

    def project(self, half: Tensor) -> Tensor:
        """Coefficients of slices or images on the half circle: complex [r, K] from [r, n, W/2]."""
        rows = torch.empty(len(half), self.size, dtype=half.dtype, device=half.device)
        batch = max(1, _POINTS_AT_ONCE // half[0].numel())
        for start in range(0, len(half), batch):
            some = half[start : start + batch]
            orders = torch.view_as_real(full_circle_orders(some, self.n_orders))  # [r, n, q, 2]: the functions are real
            orders = orders.permute(2, 0, 3, 1).contiguous()
            for block in self.blocks:
                own = orders[block.first : block.first + block.count].flatten(1, 2)
                made = torch.bmm(own, block.vectors).unflatten(1, (len(some), 2))
                place = torch.view_as_real(rows[start : start + batch, block.place].unflatten(1, (block.count, block.rank)))
                place.copy_(made.permute(1, 0, 3, 2))
        return rows


def full_circle_orders(half: Tensor, n_orders: int) -> Tensor:
    """Angular orders 0 … n_orders - 1 of a real image's transform given on the half circle.

    ``F_q = mean_theta F(theta) exp(-i q theta)``: [..., n_orders] from [..., W/2]; the other half circle is the
    conjugate.
    """
    count = half.shape[-1]
    if n_orders > count:
        raise ValueError(f"{n_orders} orders need at least {2 * n_orders} angles, not {2 * count}")
    # The even orders are those of the real part, the odd ones those of i times the imaginary part.
    orders = half.new_empty(*half.shape[:-1], n_orders)
    orders[..., 0::2] = torch.fft.rfft(half.real, norm="forward")[..., : (n_orders + 1) // 2]
    turn = torch.polar(half.real.new_ones(count), -torch.pi / count * torch.arange(count, device=half.device).to(half.real))
    orders[..., 1::2] = torch.fft.fft(half.imag * (1j * turn), norm="forward")[..., : n_orders // 2]
    return orders


def plain_basis(grid: PolarGrid, n_orders: int, dtype: torch.dtype = torch.complex64, device="cpu") -> RadialBasis:
    """Every radial node of every order: nothing is left out."""
    weights = torch.as_tensor(grid.weights, dtype=torch.float64, device=device).sqrt()
    vectors = torch.diag(weights).to(dtype.to_real()).expand(n_orders, -1, -1)
    return RadialBasis((OrderBlock(0, n_orders, grid.n_radii, 0, vectors),))


def compressed_basis(
    slices: Iterable[Iterable[Tensor]], grid: PolarGrid, n_orders: int, accuracy: float, dtype: torch.dtype = torch.complex64
) -> RadialBasis:
    """The fewest functions that hold templates to an accuracy.

    Parameters
    ----------
    slices : iterable of iterables of complex Tensor [v, n, W/2]
        For every structure, slices at many orientations; the structures' total powers count the same.
    grid : PolarGrid
    n_orders : int
        Orders beyond are 0.
    accuracy : float
        Root of the share of the power left out: the error of an inner product with white noise, relative to its standard
        deviation.
    dtype : complex torch dtype
        Of the templates.
    """
    covariance = sum(_covariance(own, grid, n_orders) for own in slices)
    if not isinstance(covariance, Tensor):
        raise ValueError("a basis needs slices")
    weights = torch.as_tensor(grid.weights, device=covariance.device).sqrt()
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    rising = values.flatten().sort().values
    threshold = rising[int((rising.cumsum(0) <= accuracy**2 * rising.sum()).sum().clamp_max(len(rising) - 1))]
    ranks = (values >= threshold).sum(dim=1).tolist()
    while ranks[-1] == 0 and len(ranks) > 1:
        ranks.pop()
    blocks: list[OrderBlock] = []
    first = start = 0
    while first < len(ranks):
        rank = min(max(_LEAST_RANK, *ranks[first:]), grid.n_radii)
        count = 1
        least = 0 if rank <= _LEAST_RANK else _SAME_RANK * rank - _SPARE
        while first + count < len(ranks) and max(ranks[first + count :]) > least:
            count += 1
        chosen = vectors[first : first + count, :, :rank] * weights[:, None]
        blocks.append(OrderBlock(first, count, rank, start, chosen.to(dtype.to_real()).contiguous()))
        first, start = first + count, start + count * rank
    return RadialBasis(tuple(blocks))


def _covariance(slices: Iterable[Tensor], grid: PolarGrid, n_orders: int) -> Tensor:
    """Real part of the covariance of one structure's orders under the quadrature weights, of trace one: float64 [q, n, n]."""
    total = torch.zeros((), dtype=torch.float64)
    for some in slices:
        weights = torch.as_tensor(grid.weights, device=some.device).sqrt()
        orders = full_circle_orders(some, n_orders).permute(2, 1, 0).to(torch.complex128) * weights[:, None]
        flat = torch.view_as_real(orders).flatten(2)
        total = total.to(flat.device) + flat @ flat.mT
    total[1:] *= 2  # orders q and -q
    return total / total.diagonal(dim1=1, dim2=2).sum()
