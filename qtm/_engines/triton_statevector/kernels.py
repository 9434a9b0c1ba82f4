"""The Triton kernels: sweeps over tiles of states, and the maps between gate angles and operations.

A program holds one tile of a state, or several small ones, in registers; a state that is one tile is there as a whole.
Place j of a tile is the amplitude ``base ^ index[j]``, and the partner of place j under the mask ``x`` is place
``j ^ x``, which `tl.gather` fetches. States lie in memory as (rows, parts, amplitudes): real parts, then imaginary
parts unless all are zero. Operation k turns by the angle of column k of ``cosine`` and ``sine`` (rows, operations),
those of half the angle:

    about i X^x Z^w:  p_i <- c p_i - (-1)^popcount(i & w) s p_{i ^ x}
    about Z^w:        p_i <- (c - i (-1)^popcount(i & w) s) p_i

Imported where Triton is at hand only. With the environment variable ``TRITON_INTERPRET=1``, set before, Triton's
interpreter runs these kernels on the CPU, with NumPy.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def signed(values, index, mask):
    """Values, negative where an index and the mask share an odd number of bits."""
    bits = index & mask
    bits = bits ^ (bits >> 16)
    bits = bits ^ (bits >> 8)
    bits = bits ^ (bits >> 4)
    odd = (0x6996 >> (bits & 15)) & 1  # bit b of 0x6996 is the parity of b
    return tl.where(odd == 0, values, -values)


@triton.jit(
    do_not_specialize=[
        "source_stride", "units", "first", "last", "first_group", "last_group", "operations", "split", "shift",
        "columns",
    ]
)  # fmt: skip
def evolve(
    source,  # (rows or 1, parts, amplitudes), unless ZERO
    state,  # (rows, parts, amplitudes), where STORE
    cosine,  # (rows, operations)
    sine,
    table,  # (operations, 2): mask of X in the tile, mask of signs
    index,  # (places,): the amplitude of every place of the first tile
    base,  # (tiles,)
    groups,  # (groups, 4): mask of X in the tile, whether the factor is i, first string, end
    string_masks,  # (strings,)
    sums,  # (rows, tiles, columns): of string ``shift`` in column 0
    source_stride,  # numbers from one row of the source to the next: 0 where there is one
    units,  # tiles of all rows
    first,
    last,
    first_group,
    last_group,
    operations,
    split,  # log2 of the tiles of a row
    amplitudes,
    shift,
    columns,
    TILE_BITS: tl.constexpr,
    UNIT_BITS: tl.constexpr,
    COMPLEX: tl.constexpr,  # 1 or 0
    ZERO: tl.constexpr,
    STORE: tl.constexpr,
):
    """Operations ``first`` .. ``last`` on every tile, then the strings of the groups."""
    program = tl.program_id(0).to(tl.int64)
    numbers = tl.arange(0, 1 << (TILE_BITS + UNIT_BITS))
    unit = (program << UNIT_BITS) + (numbers >> TILE_BITS)
    live = unit < units
    row = unit >> split
    i = tl.load(index + (numbers & ((1 << TILE_BITS) - 1))) ^ tl.load(base + (unit & ((1 << split) - 1)))
    if ZERO:
        re = tl.where(i == 0, 1.0, 0.0).to(cosine.dtype.element_ty)
        im = tl.zeros_like(re)
    else:
        re = tl.load(source + row * source_stride + i, mask=live, other=0.0)
        im = tl.zeros_like(re)
        if COMPLEX:
            im = tl.load(source + row * source_stride + amplitudes + i, mask=live, other=0.0)
    for k in range(first, last):
        x = tl.load(table + 2 * k)
        c = tl.load(cosine + row * operations + k, mask=live, other=1.0)
        s = signed(tl.load(sine + row * operations + k, mask=live, other=0.0), i, tl.load(table + 2 * k + 1))
        if COMPLEX:
            if x == 0:
                turned = c * re + s * im
                im = c * im - s * re
                re = turned
            else:
                partner = numbers ^ x
                re = c * re - s * tl.gather(re, partner, 0)
                im = c * im - s * tl.gather(im, partner, 0)
        else:
            re = c * re - s * tl.gather(re, numbers ^ x, 0)
    own = (program << UNIT_BITS) + tl.arange(0, 1 << UNIT_BITS)
    for group in range(first_group, last_group):
        # Of the string i^k X^x Z^z, k being 0 or 1: the sum over i of the sign of i & z times this.
        partner = numbers ^ tl.load(groups + 4 * group)
        product = re * tl.gather(re, partner, 0)
        if COMPLEX:
            if tl.load(groups + 4 * group + 1) == 0:
                product += im * tl.gather(im, partner, 0)
            else:
                product = re * tl.gather(im, partner, 0) - im * tl.gather(re, partner, 0)
        for m in range(tl.load(groups + 4 * group + 2), tl.load(groups + 4 * group + 3)):
            term = tl.where(live, signed(product, i, tl.load(string_masks + m)), 0.0)
            total = tl.sum(tl.reshape(term, (1 << UNIT_BITS, 1 << TILE_BITS)), 1)
            tl.store(sums + own * columns + (m - shift), total, mask=own < units)
    if STORE:
        at = row * (1 + COMPLEX) * amplitudes + i  # of 64 bits, as the row has
        tl.store(state + at, re, mask=live)
        if COMPLEX:
            tl.store(state + at + amplitudes, im, mask=live)


@triton.jit(
    do_not_specialize=[
        "strings", "units", "first", "last", "first_group", "last_group", "operations", "split", "shift", "columns"
    ]
)  # fmt: skip
def pull_back(
    state,  # (rows, parts, amplitudes): after the operations
    adjoint,  # the same of the adjoint state
    cosine,  # (rows, operations)
    sine,
    table,  # as in `evolve`, and so the others
    index,
    base,
    groups,
    string_masks,
    weights,  # (rows, strings): cotangents of the strings that this pass measured
    gradient,  # (rows, tiles, columns): of operation ``shift`` in column 0
    strings,
    units,  # tiles of all rows
    first,
    last,
    first_group,
    last_group,
    operations,
    split,  # log2 of the tiles of a row
    amplitudes,
    shift,
    columns,
    TILE_BITS: tl.constexpr,
    UNIT_BITS: tl.constexpr,
    COMPLEX: tl.constexpr,  # 1 or 0
    LOAD: tl.constexpr,  # whether there is an adjoint state already
    STORE_STATE: tl.constexpr,
    STORE_ADJOINT: tl.constexpr,
):
    """Undo a pass on the state and on the adjoint state, with the derivative by every angle.

    The adjoint state is the sum of weights times strings, applied to the state. With it and the state after an
    operation, the derivative is minus the real part of <adjoint| J |state> for a rotation exp(-a/2 J), and the
    imaginary part of <adjoint| Z^w |state> for a phase.
    """
    program = tl.program_id(0).to(tl.int64)
    numbers = tl.arange(0, 1 << (TILE_BITS + UNIT_BITS))
    unit = (program << UNIT_BITS) + (numbers >> TILE_BITS)
    live = unit < units
    row = unit >> split
    i = tl.load(index + (numbers & ((1 << TILE_BITS) - 1))) ^ tl.load(base + (unit & ((1 << split) - 1)))
    at = row * (1 + COMPLEX) * amplitudes + i  # of 64 bits, as the row has
    re = tl.load(state + at, mask=live, other=0.0)
    im = tl.zeros_like(re)
    a_re = tl.zeros_like(re)
    a_im = tl.zeros_like(re)
    if LOAD:
        a_re = tl.load(adjoint + at, mask=live, other=0.0)
    if COMPLEX:
        im = tl.load(state + at + amplitudes, mask=live, other=0.0)
        if LOAD:
            a_im = tl.load(adjoint + at + amplitudes, mask=live, other=0.0)
    for group in range(first_group, last_group):
        factor = tl.zeros_like(re)
        for m in range(tl.load(groups + 4 * group + 2), tl.load(groups + 4 * group + 3)):
            weight = tl.load(weights + row * strings + m, mask=live, other=0.0)
            factor += signed(weight, i, tl.load(string_masks + m))
        partner = numbers ^ tl.load(groups + 4 * group)
        if COMPLEX:
            other_re = tl.gather(re, partner, 0)
            other_im = tl.gather(im, partner, 0)
            if tl.load(groups + 4 * group + 1) == 0:
                a_re += factor * other_re
                a_im += factor * other_im
            else:  # times i, and times -1: the sign is that of i ^ x, which overlaps z in one bit more or less
                a_re += factor * other_im
                a_im -= factor * other_re
        else:
            a_re += factor * tl.gather(re, partner, 0)
    own = (program << UNIT_BITS) + tl.arange(0, 1 << UNIT_BITS)
    for step in range(last - first):
        k = last - 1 - step
        x = tl.load(table + 2 * k)
        c = tl.load(cosine + row * operations + k, mask=live, other=1.0)
        w = tl.load(table + 2 * k + 1)
        s = signed(tl.load(sine + row * operations + k, mask=live, other=0.0), i, w)
        if COMPLEX:
            if x == 0:
                slope = a_re * im - a_im * re
                turned = c * re - s * im
                im = c * im + s * re
                re = turned
                turned = c * a_re - s * a_im
                a_im = c * a_im + s * a_re
                a_re = turned
            else:
                partner = numbers ^ x
                other_re = tl.gather(re, partner, 0)
                other_im = tl.gather(im, partner, 0)
                slope = -(a_re * other_re + a_im * other_im)
                re = c * re + s * other_re
                im = c * im + s * other_im
                a_re = c * a_re + s * tl.gather(a_re, partner, 0)
                a_im = c * a_im + s * tl.gather(a_im, partner, 0)
        else:
            partner = numbers ^ x
            other_re = tl.gather(re, partner, 0)
            slope = -a_re * other_re
            re = c * re + s * other_re
            a_re = c * a_re + s * tl.gather(a_re, partner, 0)
        slope = tl.where(live, signed(slope, i, w), 0.0)
        total = tl.sum(tl.reshape(slope, (1 << UNIT_BITS, 1 << TILE_BITS)), 1)
        tl.store(gradient + own * columns + (k - shift), total, mask=own < units)
    if STORE_STATE:
        tl.store(state + at, re, mask=live)
        if COMPLEX:
            tl.store(state + at + amplitudes, im, mask=live)
    if STORE_ADJOINT:
        tl.store(adjoint + at, a_re, mask=live)
        if COMPLEX:
            tl.store(adjoint + at + amplitudes, a_im, mask=live)


@triton.jit(do_not_specialize=["samples", "angles", "columns", "longest"])
def half_angles(
    values,  # (samples, angles)
    start,  # (columns + 1,)
    source,  # (terms,): the angle of a term
    coefficient,  # (terms,) float64: half of what multiplies it
    offset,  # (columns, 2) float64: cosine and sine of half the offset
    cosine,  # (samples, columns)
    sine,
    samples,
    angles,
    columns,
    longest,  # terms of the longest column
    BLOCK: tl.constexpr,
):
    """Cosine and sine of half of each offset plus its terms.

    Sine and cosine are taken of every term: a sum with a large angle would lose the digits of the others.
    """
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = number < samples * columns.to(tl.int64)
    column = number % columns
    begin = tl.load(start + column, mask=live, other=0)
    end = tl.load(start + column + 1, mask=live, other=0)
    c = tl.load(offset + 2 * column, mask=live, other=1.0)
    s = tl.load(offset + 2 * column + 1, mask=live, other=0.0)
    for step in range(longest):
        term = begin + step
        inside = term < end
        angle = tl.load(
            values + (number // columns) * angles + tl.load(source + term, mask=inside, other=0), mask=inside
        )
        half = tl.where(inside, angle.to(tl.float64) * tl.load(coefficient + term, mask=inside, other=0.0), 0.0)
        term_c = tl.cos(half)
        term_s = tl.sin(half)
        turned = c * term_c - s * term_s
        s = s * term_c + c * term_s
        c = turned
    tl.store(cosine + number, c, mask=live)
    tl.store(sine + number, s, mask=live)


@triton.jit(do_not_specialize=["samples", "width", "columns", "longest"])
def weighted_sums(
    values,  # (samples, width)
    start,  # (columns + 1,)
    source,  # (terms,): the column of the values
    coefficient,  # (terms,) float64
    result,  # (samples, columns)
    samples,
    width,
    columns,
    longest,  # terms of the longest column
    BLOCK: tl.constexpr,
):
    """Sums of coefficients times values, in double precision and in a fixed order."""
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = number < samples * columns.to(tl.int64)
    column = number % columns
    begin = tl.load(start + column, mask=live, other=0)
    end = tl.load(start + column + 1, mask=live, other=0)
    total = tl.zeros((BLOCK,), tl.float64)
    for step in range(longest):
        term = begin + step
        inside = term < end
        place = (number // columns) * width + tl.load(source + term, mask=inside, other=0)
        value = tl.load(values + place, mask=inside, other=0.0).to(tl.float64)
        total += value * tl.load(coefficient + term, mask=inside, other=0.0)
    tl.store(result + number, total, mask=live)
