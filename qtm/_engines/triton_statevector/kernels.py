"""The Triton kernels: sweeps over tiles of states, and the maps between gate angles and operations.

A program holds one tile of a state, or several small ones, in registers; a state that is one tile is there as a whole.
Place j of a tile is the amplitude ``base ^ index[j]``, and the partner of place j under the mask ``x`` is place
``j ^ x``, which `tl.gather` fetches. States lie in memory as (rows, parts, amplitudes): real parts, then imaginary
parts unless all are zero. Operation k turns by the angle of column k of ``cosine`` and ``sine`` (rows, operations),
those of half the angle:

    about i X^x Z^w:  p_i <- c p_i - (-1)^popcount(i & w) s p_{i ^ x}
    about Z^w:        p_i <- (c - i (-1)^popcount(i & w) s) p_i

The machine code for NVIDIA's compute capability 9.0 (Triton 3.7.1, complex64, tiles of 2^11 amplitudes, 256 threads of
8 amplitudes each) was counted, with ``benchmarks/count_kernels.py``; it was not timed:

    for each amplitude               `evolve`                   `pull_back`
    memory, a pass                   16 bytes                   32 bytes
    rotation: instructions           18.5, 5 multiply (and add)  36, 10 multiply (and add)
    phase: instructions              12, 4 multiply (and add)    25, 10 multiply (and add)
    rotation: shared memory          16 bytes                   32 bytes
    registers of a thread            60                         102
    programs at once on an SM        4                          2

No register is spilled, warps read 128 neighbouring bytes, and exchanges have no bank conflicts: partners of 32
neighbours are 32 neighbours. An H200 moves 4.8e12 bytes and executes 33.5e12 instructions of threads in a second (67
TFLOP/s). So an amplitude takes at least 3.3 ps for the traffic of a pass of `evolve`, and 0.55 ps for a rotation: from
6 rotations a pass on, instructions are the limit, not memory. Passes of circuits with 22 qubits hold 20 to 60
operations, two thirds of them rotations: at most a third to a ninth of the bandwidth. A pass for every operation would
take 3.3 ps for each.

Imported where Triton is at hand only. With the environment variable ``TRITON_INTERPRET=1``, set before, Triton's
interpreter runs these kernels on the CPU, with NumPy.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def odd(bits):
    """1 where an odd number of bits is set, else 0."""
    bits = bits ^ (bits >> 16)
    bits = bits ^ (bits >> 8)
    bits = bits ^ (bits >> 4)
    return (0x6996 >> (bits & 15)) & 1  # bit b of 0x6996 is the parity of b


@triton.jit
def places(index, base, units, split, TILE_BITS: tl.constexpr, UNIT_BITS: tl.constexpr):
    """Of the numbers of a program: row, amplitude, base of the tile, and whether there is such a tile.

    Row, base and the last are scalars where a program holds one tile, so that cosines are loaded once for a thread.
    """
    program = tl.program_id(0).to(tl.int64)
    numbers = tl.arange(0, 1 << (TILE_BITS + UNIT_BITS))
    unit = program if UNIT_BITS == 0 else (program << UNIT_BITS) + (numbers >> TILE_BITS)
    first = tl.load(base + (unit & ((1 << split) - 1)), mask=unit < units, other=0)
    return unit >> split, tl.load(index + (numbers & ((1 << TILE_BITS) - 1))) ^ first, first, unit < units


@triton.jit
def signs(masks, first, UNIT_BITS: tl.constexpr, BITS: tl.constexpr, LOW: tl.constexpr):
    """The sign bit of int32 (numbers of a program,): set where an amplitude and a mask share an odd number of bits.

    ``masks`` points to columns 1 .. 3 of a row of a table. The parity of the amplitude ``first ^ index[j]`` is that of
    the base of its tile, of the low bits of j, which are the number of a thread, and of its high bits h: bit h of a
    word.
    """
    by_base = first & tl.load(masks + 1)
    if UNIT_BITS == 0:
        words = tl.load(masks + 2) ^ -odd(tl.arange(0, 1 << LOW) & tl.load(masks) ^ by_base)
        high = tl.arange(0, 1 << (BITS - LOW))
        bits = tl.reshape(words[None, :] << (31 - high)[:, None], (1 << BITS,)) & -0x80000000
    else:
        bits = odd(tl.arange(0, 1 << BITS) & tl.load(masks) ^ by_base) << 31
    return bits


@triton.jit
def signed(values, bits):
    """Values whose sign changes where the sign bit of ``bits`` is set."""
    if values.dtype == tl.float64:
        turned = values.to(tl.int64, bitcast=True) ^ (bits.to(tl.int64) << 32)
    else:
        turned = values.to(tl.int32, bitcast=True) ^ bits
    return turned.to(values.dtype, bitcast=True)


@triton.jit
def exchanged(re, im, partner, COMPLEX: tl.constexpr):
    """Parts of the partners of amplitudes; those of complex64 come together, in half as many instructions."""
    if COMPLEX:
        if re.dtype == tl.float32:
            low = re.to(tl.uint32, bitcast=True).to(tl.uint64)
            pair = tl.gather((im.to(tl.uint32, bitcast=True).to(tl.uint64) << 32) | low, partner, 0)
            other_re = (pair & 0xFFFFFFFF).to(tl.uint32).to(tl.float32, bitcast=True)
            other_im = (pair >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
        else:
            other_re = tl.gather(re, partner, 0)
            other_im = tl.gather(im, partner, 0)
    else:
        other_re = tl.gather(re, partner, 0)
        other_im = im
    return other_re, other_im


@triton.jit
def sums_of_tiles(values, live, TILE_BITS: tl.constexpr, UNIT_BITS: tl.constexpr):
    """Sums (tiles of a program,)."""
    if UNIT_BITS != 0:
        values = tl.where(live, values, 0.0)
    return tl.sum(tl.reshape(values, (1 << UNIT_BITS, 1 << TILE_BITS)), 1)


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
    table,  # (operations, 4): mask of X in the tile; of signs: mask in the tile, mask, parities of the high bits
    index,  # (places,): the amplitude of every place of the first tile
    base,  # (tiles,)
    groups,  # (groups, 4): mask of X in the tile, whether the factor is i, first string, end
    string_masks,  # (strings, 4): as in the table; column 0 is not read
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
    LOW: tl.constexpr,  # log2 of the threads
    COMPLEX: tl.constexpr,  # 1 or 0
    ZERO: tl.constexpr,
    STORE: tl.constexpr,
):
    """Operations ``first`` .. ``last`` on every tile, then the strings of the groups."""
    BITS: tl.constexpr = TILE_BITS + UNIT_BITS
    numbers = tl.arange(0, 1 << BITS)
    row, i, at_base, live = places(index, base, units, split, TILE_BITS, UNIT_BITS)
    if ZERO:
        re = tl.where(i == 0, 1.0, 0.0).to(cosine.dtype.element_ty)
        im = tl.zeros_like(re)
    else:
        re = tl.load(source + row * source_stride + i, mask=live, other=0.0)
        im = tl.zeros_like(re)
        if COMPLEX:
            im = tl.load(source + row * source_stride + amplitudes + i, mask=live, other=0.0)
    for k in range(first, last):
        x = tl.load(table + 4 * k)
        c = tl.load(cosine + row * operations + k, mask=live, other=1.0)
        s = tl.load(sine + row * operations + k, mask=live, other=0.0)
        s = signed(s, signs(table + 4 * k + 1, at_base, UNIT_BITS, BITS, LOW))
        if COMPLEX and x == 0:
            turned = c * re + s * im
            im = c * im - s * re
            re = turned
        else:
            other_re, other_im = exchanged(re, im, numbers ^ x, COMPLEX)
            re = c * re - s * other_re
            if COMPLEX:
                im = c * im - s * other_im
    own = (tl.program_id(0).to(tl.int64) << UNIT_BITS) + tl.arange(0, 1 << UNIT_BITS)
    for group in range(first_group, last_group):
        # Of the string i^k X^x Z^z, k being 0 or 1: the sum over i of the sign of i & z times this.
        other_re, other_im = exchanged(re, im, numbers ^ tl.load(groups + 4 * group), COMPLEX)
        product = re * other_re
        if COMPLEX:
            if tl.load(groups + 4 * group + 1) == 0:
                product += im * other_im
            else:
                product = re * other_im - im * other_re
        for m in range(tl.load(groups + 4 * group + 2), tl.load(groups + 4 * group + 3)):
            term = signed(product, signs(string_masks + 4 * m + 1, at_base, UNIT_BITS, BITS, LOW))
            total = sums_of_tiles(term, live, TILE_BITS, UNIT_BITS)
            tl.store(sums + own * columns + (m - shift), total, mask=own < units)
    if STORE:
        _, i, _, _ = places(index, base, units, split, TILE_BITS, UNIT_BITS)  # again: kept, it would fill registers
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
    LOW: tl.constexpr,  # log2 of the threads
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
    BITS: tl.constexpr = TILE_BITS + UNIT_BITS
    numbers = tl.arange(0, 1 << BITS)
    row, i, at_base, live = places(index, base, units, split, TILE_BITS, UNIT_BITS)
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
            factor += signed(weight, signs(string_masks + 4 * m + 1, at_base, UNIT_BITS, BITS, LOW))
        other_re, other_im = exchanged(re, im, numbers ^ tl.load(groups + 4 * group), COMPLEX)
        if COMPLEX:
            if tl.load(groups + 4 * group + 1) == 0:
                a_re += factor * other_re
                a_im += factor * other_im
            else:  # times i, and times -1: the sign is that of i ^ x, which overlaps z in one bit more or less
                a_re += factor * other_im
                a_im -= factor * other_re
        else:
            a_re += factor * other_re
    own = (tl.program_id(0).to(tl.int64) << UNIT_BITS) + tl.arange(0, 1 << UNIT_BITS)
    for step in range(last - first):
        k = last - 1 - step
        x = tl.load(table + 4 * k)
        c = tl.load(cosine + row * operations + k, mask=live, other=1.0)
        s = tl.load(sine + row * operations + k, mask=live, other=0.0)
        bits = signs(table + 4 * k + 1, at_base, UNIT_BITS, BITS, LOW)
        s = signed(s, bits)
        if COMPLEX and x == 0:
            slope = a_re * im - a_im * re
            turned = c * re - s * im
            im = c * im + s * re
            re = turned
            turned = c * a_re - s * a_im
            a_im = c * a_im + s * a_re
            a_re = turned
        else:
            other_re, other_im = exchanged(re, im, numbers ^ x, COMPLEX)
            slope = -a_re * other_re
            re = c * re + s * other_re
            if COMPLEX:
                slope -= a_im * other_im
                im = c * im + s * other_im
            other_re, other_im = exchanged(a_re, a_im, numbers ^ x, COMPLEX)
            a_re = c * a_re + s * other_re
            if COMPLEX:
                a_im = c * a_im + s * other_im
        total = sums_of_tiles(signed(slope, bits), live, TILE_BITS, UNIT_BITS)
        tl.store(gradient + own * columns + (k - shift), total, mask=own < units)
    _, i, _, _ = places(index, base, units, split, TILE_BITS, UNIT_BITS)  # again: kept, it would fill registers
    at = row * (1 + COMPLEX) * amplitudes + i
    if STORE_STATE:
        tl.store(state + at, re, mask=live)
        if COMPLEX:
            tl.store(state + at + amplitudes, im, mask=live)
    if STORE_ADJOINT:
        tl.store(adjoint + at, a_re, mask=live)
        if COMPLEX:
            tl.store(adjoint + at + amplitudes, a_im, mask=live)


@triton.jit(do_not_specialize=["samples", "angles", "columns", "longest", "largest"])
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
    largest,  # angle in radians
    BLOCK: tl.constexpr,
):
    """Cosine and sine of half of each offset plus its terms, NaN where an angle is not finite or beyond the largest.

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
            values + (number // columns) * angles + tl.load(source + term, mask=inside, other=0), mask=inside, other=0.0
        )
        angle = tl.where(tl.abs(angle) <= largest, angle, float("nan"))
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
