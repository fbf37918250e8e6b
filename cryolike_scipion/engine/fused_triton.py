"""The kernel of :mod:`.fused_kernel`; imports Triton, so it must itself be imported only where Triton is.

A program takes a tile of rows and views and the angles 2 pi g / G, g < G/2, in parts that fit the registers. Even orders do
not change when half a turn is added and odd ones change sign: their waves E and O are summed apart, and E + O and E - O are
the inner products at an angle and half a turn further.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["score_tiles"]

_NOTHING = tl.constexpr(-1e30)  # the logarithm of nothing: finite, as inf - inf is not a number
# erfc(x) = y exp(-x² + P(y)), y = 1 / (1 + x/2), to 1.2e-7 of itself for x >= 0: W. H. Press et al., Numerical Recipes,
# 2nd ed., section 6.2.
_P0, _P1, _P2 = tl.constexpr(-1.26551223), tl.constexpr(1.00002368), tl.constexpr(0.37409196)
_P3, _P4, _P5 = tl.constexpr(0.09678418), tl.constexpr(-0.18628806), tl.constexpr(0.27886807)
_P6, _P7, _P8 = tl.constexpr(-1.13520398), tl.constexpr(1.48851587), tl.constexpr(-0.82215223)
_P9 = tl.constexpr(0.17087277)


# (ln(1 + m) - m) / m² for -1/4 <= m <= 1/2, a fit with which ln(1 + m) is right to 1.2e-7 of itself in float32
_L0, _L1, _L2 = tl.constexpr(-0.500000596), tl.constexpr(0.333335489), tl.constexpr(-0.249934703)
_L3, _L4, _L5 = tl.constexpr(0.199770898), tl.constexpr(-0.168223932), tl.constexpr(0.149834648)
_L6, _L7 = tl.constexpr(-0.120691158), tl.constexpr(0.0541583486)
_LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _log1p(a):
    """ln(1 + a), without the branches of the library's logarithm."""
    one, three_quarters = 0x3F800000, 0x3F400000  # the bits of 1 and 3/4
    e = ((1.0 + a).to(tl.int32, bitcast=True) - three_quarters) & -0x800000  # 2^n in the exponent's place, 1 + a near it
    m = (a.to(tl.int32, bitcast=True) - e).to(tl.float32, bitcast=True)
    m += (one - e).to(tl.float32, bitcast=True) - 1.0  # (1 + a) / 2^n - 1
    p = (((_L7 * m + _L6) * m + _L5) * m + _L4) * m + _L3
    p = ((p * m + _L2) * m + _L1) * m + _L0
    return p * (m * m) + m + e.to(tl.float32) * (_LN2 / 0x800000)


@triton.jit
def _log_ndtr(t):
    """ln of the standard normal's probability below t."""
    x = tl.abs(t) * 0.7071067811865476
    y = 1.0 / (1.0 + 0.5 * x)
    p = (((_P9 * y + _P8) * y + _P7) * y + _P6) * y + _P5
    p = ((((p * y + _P4) * y + _P3) * y + _P2) * y + _P1) * y + _P0 - x * x
    below = t < 0
    log = _log1p(tl.where(below, 0.5 * x, -0.5 * y * tl.exp(p)))
    return tl.where(below, p - log - _LN2, log)


@triton.jit
def _log_ratio(b, level, half_dof, base, slope, curve, gain, shift):
    """`Evidence.log_ratio` at b; gain and shift give the scale's posterior mean over its width for u = 0."""
    u = tl.maximum((curve * b + slope) * b + base, -1.0 + 1e-6)
    return level - half_dof * _log1p(u) + _log_ndtr((gain * b + shift) * tl.rsqrt(1.0 + u))


@triton.jit
def _waves(
    first, last, rows, row, row_plane, templates, view, view_plane, size, starts, widths, waves, wave_plane, angle, angles,
    SLOTS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, VIEWS: tl.constexpr, PART: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum of the orders in blocks first ... last - 1 over waves at some angles: [ROWS * VIEWS, PART]."""
    total = tl.zeros((ROWS * VIEWS, PART), dtype=tl.float32)
    slot, k = tl.arange(0, SLOTS), tl.arange(0, CHUNK)
    for block in range(first, last):
        start = tl.multiple_of(tl.load(starts + block), 8)
        width = tl.multiple_of(tl.load(widths + block), 8)
        real = tl.zeros((SLOTS, ROWS, VIEWS), dtype=tl.float32)
        imag = tl.zeros((SLOTS, ROWS, VIEWS), dtype=tl.float32)
        for j in range(0, width, CHUNK):
            here = j + k < width
            column = start + j + slot[:, None, None] * width
            image = rows + row[None, :, None] * size + (column + k[None, None, :])
            template = templates + view[None, None, :] * size + (column + k[None, :, None])
            a, t = tl.load(image, mask=here[None, None, :], other=0.0), tl.load(template, mask=here[None, :, None], other=0.0)
            ai = tl.load(image + row_plane, mask=here[None, None, :], other=0.0)
            ti = tl.load(template + view_plane, mask=here[None, :, None], other=0.0)
            real = tl.dot(a, t, real, input_precision=PRECISION)
            real = tl.dot(-ai, ti, real, input_precision=PRECISION)
            imag = tl.dot(a, ti, imag, input_precision=PRECISION)
            imag = tl.dot(ai, t, imag, input_precision=PRECISION)
        wave = waves + (block * SLOTS + slot)[:, None] * angles + angle[None, :]
        real = tl.reshape(tl.permute(real, (1, 2, 0)), (ROWS * VIEWS, SLOTS))
        imag = tl.reshape(tl.permute(imag, (1, 2, 0)), (ROWS * VIEWS, SLOTS))
        total = tl.dot(real, tl.load(wave), total, input_precision=PRECISION)
        total = tl.dot(imag, tl.load(wave + wave_plane), total, input_precision=PRECISION)
    return total


@triton.jit
def _absorb(
    b, angle, allowed, known, turns, highest, place, top, mass, moment,
    TURNING: tl.constexpr,
):  # fmt: skip
    """Fold raw inner products b at some angles into the running values of every pair."""
    level, half_dof, base, slope, curve, gain, shift, offset, s = known
    if TURNING:
        rho = tl.load(turns + angle[None, :], mask=allowed[None, :], other=1.0)
        b = (b + (s - offset)) * rho - s
        logs = _log_ratio(b, level, half_dof, base, slope, curve, gain, shift) + _log1p(rho - 1.0)
    else:
        b -= offset
        logs = _log_ratio(b, level, half_dof, base, slope, curve, gain, shift)
    logs = tl.where(allowed[None, :], logs, _NOTHING)
    b = tl.where(allowed[None, :], b, _NOTHING)
    here, index = tl.max(b, axis=1, return_indices=True)
    better = here > highest
    place = tl.where(better, index + tl.min(angle, axis=0), place)
    highest = tl.where(better, here, highest)
    raised = tl.maximum(top, tl.max(logs, axis=1))
    factor = tl.exp(top - raised)
    logs -= raised[:, None]
    weights = tl.exp(logs)
    moment = (moment + (top - raised) * mass) * factor + tl.sum(weights * logs, axis=1)
    mass = mass * factor + tl.sum(weights, axis=1)
    return highest, place, raised, mass, moment


@triton.jit
def _quarters(x):
    """Columns of [p, n] in four parts [p, n / 4]; whole, their logarithms would not fit the registers."""
    low, high = tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1)))
    first, second = tl.split(tl.permute(tl.reshape(low, (x.shape[0], 2, x.shape[1] // 4)), (0, 2, 1)))
    third, fourth = tl.split(tl.permute(tl.reshape(high, (x.shape[0], 2, x.shape[1] // 4)), (0, 2, 1)))
    return first, second, third, fourth


@triton.jit
def score_tiles(
    rows, row_plane, templates, view_plane, size, starts, widths, n_even, n_blocks, waves, wave_plane, angles,
    fields, turns, best, inplane, log_mass, mean_log, n_rows, n_views, rows_per_image, n_half,
    SLOTS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, VIEWS: tl.constexpr, PART: tl.constexpr,
    TURNING: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of ROWS rows and VIEWS views.

    Parameters
    ----------
    rows, templates : float32 [2, r, size], [2, v, size]
        Real and imaginary parts as `PackedBasis.pack` lays them out; ``row_plane`` and ``view_plane`` lie between the two.
    starts, widths : int32 [n_blocks]
        Of blocks of SLOTS orders; the first ``n_even`` hold the even ones.
    waves : float32 [2, n_blocks * SLOTS, angles]
        Cosines and negative sines of every order at angles g < n_half; ``wave_plane`` lies between the two.
    fields : float32 [9, m, v]
        level, half_dof, base, slope, curve, gain and shift of `_log_ratio`, offset of b, and s of `scoring`.
    turns : float32 [m, v, 2 n_half]
        rho of `scoring`; TURNING: used.
    best, inplane, log_mass, mean_log : [r, v]
        Results.
    """
    tiles = tl.cdiv(n_rows, ROWS)
    own_rows = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    own_views = (tl.program_id(0) // tiles) * VIEWS + tl.arange(0, VIEWS)
    row = tl.minimum(own_rows, n_rows - 1).to(tl.int64)
    view = tl.minimum(own_views, n_views - 1).to(tl.int64)
    pair = tl.reshape((row // rows_per_image)[:, None] * n_views + view[None, :], (ROWS * VIEWS,))
    at = fields + pair
    field = tl.cdiv(n_rows, rows_per_image).to(tl.int64) * n_views
    known = (
        tl.load(at)[:, None], tl.load(at + field)[:, None], tl.load(at + 2 * field)[:, None],
        tl.load(at + 3 * field)[:, None], tl.load(at + 4 * field)[:, None], tl.load(at + 5 * field)[:, None],
        tl.load(at + 6 * field)[:, None], tl.load(at + 7 * field)[:, None], tl.load(at + 8 * field)[:, None],
    )  # fmt: skip
    turns += (pair * (2 * n_half))[:, None]
    highest = tl.full((ROWS * VIEWS,), _NOTHING, dtype=tl.float32)
    top = tl.full((ROWS * VIEWS,), _NOTHING, dtype=tl.float32)
    place = tl.zeros((ROWS * VIEWS,), dtype=tl.int32)
    mass = tl.zeros((ROWS * VIEWS,), dtype=tl.float32)
    moment = tl.zeros((ROWS * VIEWS,), dtype=tl.float32)
    for begin in range(0, n_half, PART):
        angle = begin + tl.arange(0, PART)
        even = _waves(
            0, n_even, rows, row, row_plane, templates, view, view_plane, size, starts, widths, waves, wave_plane, angle,
            angles, SLOTS, CHUNK, ROWS, VIEWS, PART, PRECISION,
        )  # fmt: skip
        odd = _waves(
            n_even, n_blocks, rows, row, row_plane, templates, view, view_plane, size, starts, widths, waves, wave_plane, angle,
            angles, SLOTS, CHUNK, ROWS, VIEWS, PART, PRECISION,
        )  # fmt: skip
        e0, e1, e2, e3 = _quarters(even)
        o0, o1, o2, o3 = _quarters(odd)
        quarter = begin + tl.arange(0, PART // 4)
        for turned in range(0, 2):
            sign = 1.0 - 2.0 * turned
            for q in tl.static_range(4):
                alike, changing = (e0, e1, e2, e3)[q], (o0, o1, o2, o3)[q]
                near = quarter + q * (PART // 4)
                highest, place, top, mass, moment = _absorb(
                    alike + sign * changing, near + turned * n_half, near < n_half,
                    known, turns, highest, place, top, mass, moment, TURNING,
                )  # fmt: skip
    to = tl.reshape(own_rows.to(tl.int64)[:, None] * n_views + own_views[None, :], (ROWS * VIEWS,))
    inside = tl.reshape((own_rows < n_rows)[:, None] & (own_views < n_views)[None, :], (ROWS * VIEWS,))
    tl.store(best + to, highest, mask=inside)
    tl.store(inplane + to, place, mask=inside)
    tl.store(log_mass + to, top + tl.log(mass), mask=inside)
    tl.store(mean_log + to, top + moment / mass, mask=inside)
