"""Sweeps over the state vectors of a tile of samples: forward, observables, reverse (arrays in, arrays out).

One *tile* is as many samples as a vector has lanes. `Recipe` (made by `qtm._schedule`) is the program of
the sweep; `Workspace` the scratch of one worker. Nothing is allocated here, and the GIL is not held.

Cost of one rotation, in real multiply-adds per pair of amplitudes and sample: 4 forward, 12 in reverse (4 to
undo it on each of the two states, 4 for its sum); half of that for real circuits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from . import simd

ROTATE, GROW, PHASE = 0, 1, 2
# Columns of an operation: kind, bits, slot, count, then masks x (3), signs w (3), pivots of their span (3)
# and of each alone (3);
# for phases: kind, bits, slot, masks in table 0 and 1, offsets of their index arrays.
LOW_BITS = 6  # rows are indexed as (high, low) with this many low bits
# By bytes of a number: below this cosine a rotation is done in full; below this scale the state is brought back to
# its true scale.
TINY = {4: (1e-2, 1e-6), 8: (1e-6, 1e-60)}


class Recipe(NamedTuple):
    """A scheduled circuit with its observables, as plain arrays."""

    ops: np.ndarray  # (operations, 16) int64
    slot_start: np.ndarray  # (slots + 1,) int64; slot angle = offset + sum coef * angle
    slot_angle: np.ndarray  # (terms,) int64
    slot_coef: np.ndarray  # (terms,) float64
    slot_offset: np.ndarray  # (slots,) float64
    index: np.ndarray  # int32, row -> table entry, see `_schedule.row_index`
    groups: np.ndarray  # (groups, 7) int64: mask x, odd, first mask, masks in table 0 and 1, index offsets
    mask_start: np.ndarray  # (masks + 1,) int64; observable m has sum coef * mask value
    mask_observable: np.ndarray  # (entries,) int64
    mask_coef: np.ndarray  # (entries,) float64
    row_bits: int
    parts: int


class Workspace(NamedTuple):
    """Scratch of one worker; every array starts on a vector boundary."""

    angles: np.ndarray  # (slots * lanes,) float64
    cosine: np.ndarray  # (slots * lanes,) like the state, and so the others
    sine: np.ndarray
    tangent: np.ndarray
    sums: np.ndarray
    scale: np.ndarray  # (lanes,) the state is this times what the rows hold
    square: np.ndarray  # (lanes,)
    table: np.ndarray  # (table rows * 2 * lanes,)
    weights: np.ndarray  # (table rows * lanes,)
    factors: np.ndarray  # (masks * lanes,)


jit = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@jit
def _prepare(recipe: Recipe, work: Workspace, angles: Any, tile: int) -> None:
    """Slot angles of the tile's samples, their cosines, sines and tangents."""
    lanes = work.scale.size
    start, source, coef, offset = recipe.slot_start, recipe.slot_angle, recipe.slot_coef, recipe.slot_offset
    target, cosine, sine, tangent = work.angles, work.cosine, work.sine, work.tangent
    for lane in range(lanes):
        sample = min(tile * lanes + lane, angles.shape[0] - 1)
        for slot in range(offset.size):
            total = offset[slot]
            for j in range(start[slot], start[slot + 1]):
                total += coef[j] * angles[sample, source[j]]
            target[slot * lanes + lane] = total
    for slot in range(offset.size):
        simd.half_angle_row(cosine, sine, tangent, target, slot)


@jit
def _deposit(number: int, position: int) -> int:
    """Open a zero bit in ``number`` at ``position``."""
    low = number & ((1 << position) - 1)
    return ((number ^ low) << 1) | low


@jit
def _row1(g: int, q0: int, x0: int, w0: int) -> int:
    row = _deposit(g, q0)
    return row ^ (x0 & simd.parity(row & w0))


@jit
def _row2(g: int, q0: int, q1: int, x0: int, x1: int, w0: int, w1: int) -> int:
    row = _deposit(_deposit(g, q0), q1)
    row ^= x0 & simd.parity(row & w0)
    return row ^ (x1 & simd.parity(row & w1))


@jit
def _row3(g: int, q0: int, q1: int, q2: int, x0: int, x1: int, x2: int, w0: int, w1: int, w2: int) -> int:
    row = _deposit(_deposit(_deposit(g, q0), q1), q2)
    # Which of the coset's rows comes first is settled by the signs: on it all of them are plus.
    first = x0 & simd.parity(row & w0)
    second = x1 & simd.parity(row & w1)
    return row ^ first ^ second ^ (x2 & simd.parity(row & w2))


@jit
def _rotate(state: Any, op: Any, parts: int, tangent: Any) -> None:
    bits, slot, count = op[1], op[2], op[3]
    x0, x1, x2, w0, w1, w2 = op[4], op[5], op[6], op[7], op[8], op[9]
    q0, q1, q2 = op[10], op[11], op[12]
    groups = 1 << (bits - count)
    if parts == 2:
        if count == 3:
            for g in range(groups):
                row = _row3(g, q0, q1, q2, x0, x1, x2, w0, w1, w2)
                simd.rotate_rows(state, row, (x0, x1, x2), 2, tangent, slot)
        elif count == 2:
            for g in range(groups):
                row = _row2(g, q0, q1, x0, x1, w0, w1)
                simd.rotate_rows(state, row, (x0, x1), 2, tangent, slot)
        else:
            for g in range(groups):
                simd.rotate_rows(state, _row1(g, q0, x0, w0), (x0,), 2, tangent, slot)
    elif count == 3:
        for g in range(groups):
            row = _row3(g, q0, q1, q2, x0, x1, x2, w0, w1, w2)
            simd.rotate_rows(state, row, (x0, x1, x2), 1, tangent, slot)
    elif count == 2:
        for g in range(groups):
            row = _row2(g, q0, q1, x0, x1, w0, w1)
            simd.rotate_rows(state, row, (x0, x1), 1, tangent, slot)
    else:
        for g in range(groups):
            simd.rotate_rows(state, _row1(g, q0, x0, w0), (x0,), 1, tangent, slot)


@jit
def _unrotate(state: Any, cotangent: Any, op: Any, parts: int, tangent: Any, sums: Any) -> None:
    bits, slot, count = op[1], op[2], op[3]
    x0, x1, x2, w0, w1, w2 = op[4], op[5], op[6], op[7], op[8], op[9]
    q0, q1, q2 = op[10], op[11], op[12]
    groups = 1 << (bits - count)
    if parts == 2:
        if count == 3:
            for g in range(groups):
                row = _row3(g, q0, q1, q2, x0, x1, x2, w0, w1, w2)
                simd.unrotate_rows(state, cotangent, row, (x0, x1, x2), 2, tangent, slot, sums)
        elif count == 2:
            for g in range(groups):
                row = _row2(g, q0, q1, x0, x1, w0, w1)
                simd.unrotate_rows(state, cotangent, row, (x0, x1), 2, tangent, slot, sums)
        else:
            for g in range(groups):
                row = _row1(g, q0, x0, w0)
                simd.unrotate_rows(state, cotangent, row, (x0,), 2, tangent, slot, sums)
    elif count == 3:
        for g in range(groups):
            row = _row3(g, q0, q1, q2, x0, x1, x2, w0, w1, w2)
            simd.unrotate_rows(state, cotangent, row, (x0, x1, x2), 1, tangent, slot, sums)
    elif count == 2:
        for g in range(groups):
            row = _row2(g, q0, q1, x0, x1, w0, w1)
            simd.unrotate_rows(state, cotangent, row, (x0, x1), 1, tangent, slot, sums)
    else:
        for g in range(groups):
            row = _row1(g, q0, x0, w0)
            simd.unrotate_rows(state, cotangent, row, (x0,), 1, tangent, slot, sums)


@jit
def _turn(state: Any, bits: int, x: int, w: int, pivot: int, parts: int, work: Workspace, slot: int) -> None:
    # Bound here, because numba counts references where an array is taken out of a tuple inside a loop.
    cosine, sine = work.cosine, work.sine
    for g in range(1 << (bits - 1)):
        row = _row1(g, pivot, x, w)
        if parts == 2:
            simd.turn_pair(state, row, x, 2, cosine, sine, slot, 0)
        else:
            simd.turn_pair(state, row, x, 1, cosine, sine, slot, 0)


@jit
def _unturn(
    state: Any, cotangent: Any, bits: int, x: int, w: int, pivot: int, parts: int, work: Workspace, slot: int
) -> None:
    cosine, sine, sums = work.cosine, work.sine, work.sums
    for g in range(1 << (bits - 1)):
        row = _row1(g, pivot, x, w)
        if parts == 2:
            simd.unturn_pair(state, cotangent, row, x, 2, cosine, sine, slot, sums, 0)
        else:
            simd.unturn_pair(state, cotangent, row, x, 1, cosine, sine, slot, sums, 0)


@jit
def _grow(state: Any, op: Any, parts: int, work: Workspace) -> None:
    """A rotation into amplitudes that were zero so far: the rows from 2^bits to 2^(bits + 1) come into being."""
    slot, x, w = op[2], op[4], op[7]
    cosine, sine = work.cosine, work.sine
    for row in range(1 << op[1]):
        if parts == 2:
            if simd.parity(row & w):
                simd.turn_pair(state, row, x, 2, cosine, sine, slot, -1)
            else:
                simd.turn_pair(state, row, x, 2, cosine, sine, slot, 1)
        elif simd.parity(row & w):
            simd.turn_pair(state, row, x, 1, cosine, sine, slot, -1)
        else:
            simd.turn_pair(state, row, x, 1, cosine, sine, slot, 1)


@jit
def _ungrow(state: Any, cotangent: Any, op: Any, parts: int, work: Workspace) -> None:
    """Undo `_grow`: what is left has half the rows, so the first layer of a circuit costs next to nothing."""
    slot, x, w = op[2], op[4], op[7]
    cosine, sine, sums = work.cosine, work.sine, work.sums
    for row in range(1 << op[1]):
        if parts == 2:
            if simd.parity(row & w):
                simd.unturn_pair(state, cotangent, row, x, 2, cosine, sine, slot, sums, -1)
            else:
                simd.unturn_pair(state, cotangent, row, x, 2, cosine, sine, slot, sums, 1)
        elif simd.parity(row & w):
            simd.unturn_pair(state, cotangent, row, x, 1, cosine, sine, slot, sums, -1)
        else:
            simd.unturn_pair(state, cotangent, row, x, 1, cosine, sine, slot, sums, 1)


@jit
def _build_phases(op: Any, work: Workspace) -> None:
    """Tables of exp(-i/2 sum_j +-a_j) over the parities of the masks; the state's scale goes into the first."""
    slot, lanes, base = op[2], work.scale.size, 0
    table, cosine, sine, scale = work.table, work.cosine, work.sine, work.scale
    for which in range(2):
        count = op[3 + which]
        for lane in range(lanes):
            table[2 * base * lanes + lane] = scale[lane] if which == 0 else 1.0
            table[(2 * base + 1) * lanes + lane] = 0.0
        for j in range(count):
            for v in range(1 << j):
                simd.extend_phases(table, base + v, base + v + (1 << j), cosine, sine, slot + j)
        slot += count
        base += 1 << count
    scale[:] = 1.0


@jit
def _phase(state: Any, op: Any, index: Any, work: Workspace) -> None:
    _build_phases(op, work)
    bits, second, two, first_index, second_index = op[1], 1 << op[3], op[4] > 0, op[5], op[6]
    table, low_rows = work.table, 1 << min(bits, LOW_BITS)
    for high in range(1 << max(bits - LOW_BITS, 0)):
        a, b = index[first_index + low_rows + high], index[second_index + low_rows + high]
        if two:
            for low in range(low_rows):
                i, j = a ^ index[first_index + low], (b ^ index[second_index + low]) + second
                simd.phase_row(state, high * low_rows + low, table, i, j, 2)
        else:
            for low in range(low_rows):
                i = a ^ index[first_index + low]
                simd.phase_row(state, high * low_rows + low, table, i, i, 1)


@jit
def _unphase(state: Any, cotangent: Any, op: Any, index: Any, work: Workspace) -> None:
    bits, second, two, first_index, second_index = op[1], 1 << op[3], op[4] > 0, op[5], op[6]
    table, weights, low_rows = work.table, work.weights, 1 << min(bits, LOW_BITS)
    _clear(weights, (second + (1 << op[4])) * work.scale.size)
    _square_scale(work)
    _build_phases(op, work)
    for high in range(1 << max(bits - LOW_BITS, 0)):
        a, b = index[first_index + low_rows + high], index[second_index + low_rows + high]
        if two:
            for low in range(low_rows):
                i, j = a ^ index[first_index + low], (b ^ index[second_index + low]) + second
                simd.unphase_row(state, cotangent, high * low_rows + low, table, i, j, weights, 2)
        else:
            for low in range(low_rows):
                i = a ^ index[first_index + low]
                simd.unphase_row(state, cotangent, high * low_rows + low, table, i, i, weights, 1)
    _reduce_weights(work.sums, op[2], weights, op[3], op[4])
    for j in range(op[3] + op[4]):
        simd.scale_row(work.sums, op[2] + j, work.square, 0)


@jit
def _clear(array: Any, count: int) -> None:
    for i in range(count):
        array[i] = 0.0


@jit
def _square_scale(work: Workspace) -> None:
    square, scale = work.square, work.scale
    for lane in range(scale.size):
        square[lane] = scale[lane] * scale[lane]


@jit
def _reduce_weights(target: Any, first: int, weights: Any, count0: int, count1: int) -> None:
    """target[first + j] += sum over table entries v of (-1)^(bit j of v) weights[v], for both tables."""
    base = 0
    for which in range(2):
        count = count0 if which == 0 else count1
        for j in range(count):
            for v in range(1 << count):
                if v >> j & 1:
                    simd.add_row(target, first + j, weights, base + v, -1)
                else:
                    simd.add_row(target, first + j, weights, base + v, 1)
        first += count
        base += 1 << count


@jit
def _rescale(state: Any, rows: int, work: Workspace) -> None:
    scale = work.scale
    for i in range(rows):
        simd.scale_row(state, i, scale, 0)


@jit
def _smallest(vector: Any, first: int, lanes: int) -> float:
    least = abs(vector[first])
    for lane in range(1, lanes):
        least = min(least, abs(vector[first + lane]))
    return least


@jit
def _is_plain(op: Any, work: Workspace, tiny: float) -> bool:
    """Whether all cosines of a group are large enough to divide by."""
    lanes = work.scale.size
    for b in range(op[3]):
        if not _smallest(work.cosine, (op[2] + b) * lanes, lanes) > tiny:
            return False
    return True


@jit
def sweep_forward(recipe: Recipe, work: Workspace, state: Any, tiny_cosine: float, tiny_scale: float) -> None:
    """Evolve the state of one tile; what it lacks in norm is left in ``work.scale``."""
    lanes = work.scale.size
    for number in range(recipe.ops.shape[0]):
        op = recipe.ops[number]
        if op[0] == ROTATE:
            if not _smallest(work.scale, 0, lanes) > tiny_scale:
                _rescale(state, recipe.parts << op[1], work)
                work.scale[:] = 1.0
            if _is_plain(op, work, tiny_cosine):
                _rotate(state, op, recipe.parts, work.tangent)
                for b in range(op[3]):
                    simd.scale_row(work.scale, 0, work.cosine, op[2] + b)
            else:
                for b in range(op[3]):
                    _turn(state, op[1], op[4 + b], op[7 + b], op[13 + b], recipe.parts, work, op[2] + b)
        elif op[0] == GROW:
            _grow(state, op, recipe.parts, work)
        else:
            _phase(state, op, recipe.index, work)


@jit
def sweep_reverse(
    recipe: Recipe, work: Workspace, state: Any, cotangent: Any, tiny_cosine: float, tiny_scale: float
) -> None:
    """Undo the circuit on state and cotangent; ``work.sums`` gets the derivative by every slot angle."""
    lanes = work.scale.size
    for number in range(recipe.ops.shape[0] - 1, -1, -1):
        op = recipe.ops[number]
        if op[0] == ROTATE:
            if not _smallest(work.scale, 0, lanes) > tiny_scale:
                _rescale(state, recipe.parts << op[1], work)
                _rescale(cotangent, recipe.parts << op[1], work)
                work.scale[:] = 1.0
            if _is_plain(op, work, tiny_cosine):
                _unrotate(state, cotangent, op, recipe.parts, work.tangent, work.sums)
                for b in range(op[3] - 1, -1, -1):
                    _square_scale(work)
                    simd.scale_row(work.sums, op[2] + b, work.square, 0)
                    simd.scale_row(work.scale, 0, work.cosine, op[2] + b)
            else:
                _square_scale(work)
                for b in range(op[3] - 1, -1, -1):
                    _unturn(
                        state, cotangent, op[1], op[4 + b], op[7 + b], op[13 + b], recipe.parts, work, op[2] + b
                    )
                    simd.scale_row(work.sums, op[2] + b, work.square, 0)
        elif op[0] == GROW:
            _square_scale(work)
            _ungrow(state, cotangent, op, recipe.parts, work)
            simd.scale_row(work.sums, op[2], work.square, 0)
        else:
            _unphase(state, cotangent, op, recipe.index, work)
