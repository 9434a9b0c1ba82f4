"""Sweeps over the states of a tile, forward and reverse (arrays in, arrays out; the GIL is not held).

A *tile* is what one pass works on: as many samples as a vector has lanes (sample lanes), or one sample whose
lowest bits are the lanes (amplitude lanes, for large states and small batches). `Recipe` (made by `schedule`) is
the program of the sweep, `Workspace` the scratch of one worker; nothing is allocated here.

Cost of one rotation in real multiply-adds per pair of amplitudes: 4 forward, 12 in reverse (4 to undo it on each of
the two states, 4 for its sum); half of that for real circuits. A phase costs 4 per amplitude forward and 10 in
reverse, and 4 in each for the product of two table entries, which rows with the same entries share.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qtm._engines.statevector.kernels import lane_rotations, rotations, simd, sine_cosine
from qtm._engines.statevector.kernels import lookup_tables as tables
from qtm._engines.statevector.kernels.compilation import inlined, jit
from qtm._engines.statevector.kernels.lane_rotations import LANES_MOVE, LANES_PAIR, LANES_STAY
from qtm._engines.statevector.kernels.recipe import (
    BITS,
    COUNT,
    DOUBLE_SUPPORT,
    FIRST_INDEX,
    GROUPS,
    KIND,
    LANES,
    MASKS,
    PHASE,
    ROTATE,
    SECOND_COUNT,
    SECOND_INDEX,
    SLOT,
    TABLE_ROW,
    TILE_BITS,
    TILE_INDEX,
    Recipe,
)

# By bytes of a number: a pass leaves no more than this of the true scale in the state, whose square must not overflow.
TINY = {4: 1e-12, 8: 1e-120}
LARGE = 64.0  # radians: below, a double leaves an error of 1e-14


ABORTED = 1 << 62  # arrivals at a barrier: more than any member waits for


class Scratch(NamedTuple):
    """Memory of one worker; every array starts on a vector boundary."""

    angles: np.ndarray  # (slots * lanes,) float64
    sums: np.ndarray  # (slots * lanes,) like the state, and so the others
    scale: np.ndarray  # (lanes,): the state is this times what the rows hold
    square: np.ndarray  # (2 * lanes,)
    table: np.ndarray  # (table rows * 2 * lanes,)
    weights: np.ndarray  # (table rows * 2 * lanes,): two copies of each, see `tables`
    factors: np.ndarray  # (masks * lanes,)


class Workspace(NamedTuple):
    """What a sweep over one tile uses: the worker's `Scratch`, and what is kept of the angles behind the state."""

    cosine: np.ndarray  # (slots * lanes,) of half the slots' angles
    sine: np.ndarray  # the same, and so the tangents
    tangent: np.ndarray
    angles: np.ndarray
    sums: np.ndarray
    scale: np.ndarray
    square: np.ndarray
    table: np.ndarray
    weights: np.ndarray
    factors: np.ndarray


class Team(NamedTuple):
    """Threads that sweep over one state together; each has a workspace and partial sums of its own."""

    member: int
    size: int
    barrier: np.ndarray  # (1,) int64, shared: how often any member has arrived
    ticket: np.ndarray  # (1,) int64, own: how many barriers this member has passed
    started: np.ndarray  # (1,) int64: counted up when the kernel begins, for threads that wait for it

    def abort(self) -> None:
        """Let no member wait for another any more: one has failed."""
        if self.size > 1:
            self.barrier[0] = ABORTED


@jit
def odd_lane(lane: int, mask: int) -> bool:
    """Whether ``lane`` and ``mask`` share an odd number of bits."""
    bits = lane & mask
    bits ^= bits >> 4
    bits ^= bits >> 2
    return bool((bits ^ (bits >> 1)) & 1)


@jit
def workspace(scratch: Scratch, state: Any, size: int) -> Workspace:
    """The workspace for a tile: behind the ``size`` numbers of its rows come a scale for each lane, and the angles."""
    slots, first = scratch.angles.size, size + scratch.scale.size
    return Workspace(
        state[first : first + slots], state[first + slots : first + 2 * slots],
        state[first + 2 * slots : first + 3 * slots], scratch.angles, scratch.sums, scratch.scale, scratch.square,
        scratch.table, scratch.weights, scratch.factors,
    )  # fmt: skip


@jit
def prepare(recipe: Recipe, work: Workspace, angles: Any, tile: int) -> None:
    """Slot angles of the tile's samples, their cosines, sines and tangents."""
    lanes, slots = work.scale.size, recipe.slot_offset.size
    start, source, coef, offset = recipe.slot_start, recipe.slot_angle, recipe.slot_coef, recipe.slot_offset
    target, cosine, sine, tangent = work.angles, work.cosine, work.sine, work.tangent
    first, stride = (tile, 0) if recipe.lane_bits else (tile * lanes, 1)  # lanes are samples, or all of one
    for slot in range(slots):
        for lane in range(lanes):
            target[slot * lanes + lane] = offset[slot]
        for j in range(start[slot], start[slot + 1]):
            if sine_cosine.add_terms(target, slot, coef[j], angles, first, source[j], stride, LARGE, work.scale):
                continue
            for lane in range(lanes):
                angle = angles[min(first + lane * stride, angles.shape[0] - 1), source[j]]
                term = coef[j] * angle
                # Before it is added to others: a large term would round them, and its own sine, away.
                reduced = term if abs(term) < LARGE else sine_cosine.reduced_product(coef[j], angle)
                target[slot * lanes + lane] += reduced
    sine_cosine.half_angle_rows(cosine, sine, tangent, target, slots)
    if recipe.lane_bits:
        for slot in range(slots):
            for lane in range(lanes):
                if odd_lane(lane, recipe.slot_lanes[slot]):
                    sine[slot * lanes + lane] *= -1
                    tangent[slot * lanes + lane] *= -1


@jit
def fill(array: Any, count: int, value: float) -> None:
    """Set the first numbers to a value."""
    for i in range(count):
        array[i] = value


@jit
def reduce_weights(target: Any, weights: Any, count0: int, count1: int) -> None:
    """target[j] += sum over table entries v of (-1)^(bit j of v) weights[v], for both tables; spoils them."""
    first = base = 0
    tables.join_copies(weights, (1 << count0) + (1 << count1))
    for count in (count0, count1):
        for j in range(count - 1, -1, -1):
            simd.fold_rows(weights, base, 1 << j, target, first + j)
        first += count
        base += 1 << count


@jit
def together(team: Team) -> None:
    """Wait until all members of the team have come this far."""
    if team.size > 1:
        team.ticket[0] += 1
        simd.atomic_increment(team.barrier)
        while simd.atomic_load(team.barrier) < team.size * team.ticket[0]:
            simd.thread_yield()


@jit
def share(count: int, team: Team) -> tuple[int, int]:
    """What falls to a member, as (first, last)."""
    return count * team.member // team.size, count * (team.member + 1) // team.size


@jit
def build_phases(op: Any, work: Workspace, base: int, scale: Any) -> None:
    """Tables of exp(-i/2 sum_j +-a_j) over the parities of the masks, from row ``base``; ``scale`` goes into the first.

    It is 1 afterwards.
    """
    slot, table, cosine, sine = op[SLOT], work.table, work.cosine, work.sine
    for count in (op[COUNT], op[SECOND_COUNT]):
        tables.begin_phases(table, base, scale)
        for j in range(count):
            tables.extend_phases(table, base, 1 << j, cosine, sine, slot + j)
        slot += count
        base += 1 << count


@inlined
def _phase(state: Any, op: Any, index: Any, work: Workspace, team: Team) -> None:
    build_phases(op, work, 0, work.scale)
    table, second_table, two = work.table, 1 << op[COUNT], int(op[SECOND_COUNT] > 0)
    tables.phase_rows(
        state, op[BITS], table, index, team.member, team.size, op[FIRST_INDEX], op[SECOND_INDEX], second_table, two
    )


@inlined
def _phase_adjoint(state: Any, cotangent: Any, op: Any, index: Any, work: Workspace, team: Team) -> None:
    first, second = op[COUNT], op[SECOND_COUNT]  # masks in each table
    second_table, weights, table = 1 << first, work.weights, work.table
    fill(weights, 2 * (second_table + (1 << second)) * work.scale.size, 0.0)
    simd.square_row(work.square, work.scale)
    build_phases(op, work, 0, work.scale)
    tables.phase_rows_adjoint(
        state, cotangent, op[BITS], table, weights, index, team.member, team.size, op[FIRST_INDEX], op[SECOND_INDEX],
        second_table, int(second > 0),
    )  # fmt: skip
    reduce_weights(work.sums[op[SLOT] * work.scale.size :], weights, first, second)
    simd.scale_rows(work.sums, op[SLOT], first + second, work.square, 0)


@jit
def remaining(ops: Any, scale: Any, cosine: Any, first: int, last: int) -> float:
    """Smallest scale over the lanes after operations first .. last of a pass."""
    slot, count = angles_of(ops, first, last)
    return simd.least_product(scale, cosine, slot, count)


@jit
def angles_of(ops: Any, first: int, last: int) -> tuple[int, int]:
    """The first angle of the rotations among operations first .. last of a pass, and how many there are."""
    slot, count = 0, 0
    for number in range(first, last):
        if ops[number, KIND] == ROTATE:
            slot = slot if count else ops[number, SLOT]
            count += ops[number, COUNT]
    return slot, count


@jit
def tile_base(number: int, op: Any, index: Any) -> int:
    """First row of a tile: zero bits opened in its number at the pivots of the tile's masks."""
    for j in range(op[TILE_BITS]):
        position = index[op[TILE_INDEX] + j]
        low = number & ((1 << position) - 1)
        number = ((number ^ low) << 1) | low
    return number


@jit
def lanes_of(op: Any) -> int:
    """What becomes of the lanes in an operation."""
    if op[LANES] | op[LANES + 1] | op[LANES + 2]:
        return LANES_MOVE if op[MASKS] else LANES_PAIR
    return LANES_STAY


@inlined
def rotate_one(state: Any, op: Any, which: int, parts: int, work: Workspace, team: Team) -> None:
    """One generator of an operation, cosine and all."""
    cosine, sine, member, size = work.cosine, work.sine, team.member, team.size
    if op[MASKS] == 0:
        lane_rotations.rotate_lanes(state, op, cosine, sine, member, size, parts)
    else:
        rotations.rotate_full(state, op, which, cosine, sine, member, size, parts, int(op[KIND] == DOUBLE_SUPPORT))


@inlined
def rotate_one_adjoint(
    state: Any, cotangent: Any, op: Any, which: int, parts: int, work: Workspace, team: Team
) -> None:
    """Undo `rotate_one` on state and cotangent, and add the generator's sum."""
    cosine, sine, sums, member, size = work.cosine, work.sine, work.sums, team.member, team.size
    if op[MASKS] == 0:
        lane_rotations.rotate_lanes_adjoint(state, cotangent, op, cosine, sine, sums, member, size, parts)
    else:
        doubled = int(op[KIND] == DOUBLE_SUPPORT)
        rotations.rotate_full_adjoint(state, cotangent, op, which, cosine, sine, sums, member, size, parts, doubled)


@jit
def rescale(state: Any, count: int, scale: Any, team: Team) -> None:
    """Multiply the first ``count`` vectors of a state by its scale."""
    first, last = share(count, team)
    simd.scale_rows(state, first, last - first, scale, 0)


@jit
def _pass_forward(recipe: Recipe, work: Workspace, state: Any, first: int, last: int, team: Team) -> None:
    """Operations first .. last of a pass, tile by tile; the cosines of rotations are divided out."""
    parts, index, tangent, ops = recipe.parts, recipe.index, work.tangent, recipe.ops
    for number in range(first, last):
        if ops[number, KIND] == PHASE:
            build_phases(ops[number], work, ops[number, TABLE_ROW], work.scale)
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(first, last):
            op = ops[number]
            if op[KIND] == PHASE:
                tables.phase_tile(state, op, work.table, index, base, int(op[SECOND_COUNT] > 0))
            else:
                rotations.rotate(state, op, tangent, base, index, op[COUNT], parts, lanes_of(op))
    slot, count = angles_of(ops, first, last)
    simd.scale_by_product(work.scale, work.cosine, slot, count)


@jit
def _pass_reverse(
    recipe: Recipe, work: Workspace, state: Any, cotangent: Any, first: int, last: int, team: Team
) -> None:
    """Undo `_pass_forward`."""
    parts, index, tangent, sums, ops = recipe.parts, recipe.index, work.tangent, work.sums, recipe.ops
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    open_phases(ops, work, first, last)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(last - 1, first - 1, -1):
            op = ops[number]
            if op[KIND] == PHASE:
                two = int(op[SECOND_COUNT] > 0)
                tables.phase_tile_adjoint(state, cotangent, op, work.table, work.weights, index, base, two)
            else:
                moved = lanes_of(op)
                rotations.rotate_adjoint(state, cotangent, op, tangent, sums, base, index, op[COUNT], parts, moved)
    close_pass(ops, work, first, last)


@jit
def open_phases(ops: Any, work: Workspace, first: int, last: int) -> None:
    """Tables of the phases of a pass, from the last, which takes the scale of both states; and room for their sums."""
    lanes = work.scale.size
    simd.copy_row(work.square, 1, work.scale, 0)
    for number in range(last - 1, first - 1, -1):
        op = ops[number]
        if op[KIND] == PHASE:
            build_phases(op, work, op[TABLE_ROW], work.square[lanes:])
            weights = work.weights[2 * op[TABLE_ROW] * lanes :]
            fill(weights, 2 * ((1 << op[COUNT]) + (1 << op[SECOND_COUNT])) * lanes, 0.0)


@jit
def close_pass(ops: Any, work: Workspace, first: int, last: int) -> None:
    """Sums of a pass at the scale that both states had then; and the scale they have now."""
    lanes, sums, scale, square, cosine = work.scale.size, work.sums, work.scale, work.square, work.cosine
    since = square[lanes:]  # how the scale has changed since the first tables were made, which have the rest
    fill(since, lanes, 1.0)
    taken = False
    for number in range(last - 1, first - 1, -1):
        op = ops[number]
        if op[KIND] == PHASE:
            weights = work.weights[2 * op[TABLE_ROW] * lanes :]
            reduce_weights(sums[op[SLOT] * lanes :], weights, op[COUNT], op[SECOND_COUNT])
            simd.square_row(square, scale)
            simd.scale_rows(sums, op[SLOT], op[COUNT] + op[SECOND_COUNT], square, 0)
            if not taken:
                simd.copy_row(scale, 0, since, 0)
                taken = True
        else:
            simd.scale_by_product(since, cosine, op[SLOT], op[COUNT])
            simd.scale_sums(sums, scale, cosine, op[SLOT], op[COUNT], 1)


@inlined
def sweep_forward(recipe: Recipe, work: Workspace, state: Any, tiny: float, team: Team) -> None:
    """Evolve the state of one tile; what it lacks in norm is left in ``work.scale``."""
    parts, ops = recipe.parts, recipe.ops
    left, alone = ops.shape[0], 0  # operations before ``alone`` are done one by one
    while left > 0:
        number = ops.shape[0] - left
        op = ops[number]
        last = number + (op[GROUPS] if number >= alone else 1)
        in_pass = op[KIND] == ROTATE or last - number > 1
        if in_pass and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                alone = max(alone, last)
                last = number + 1
                in_pass = op[KIND] == ROTATE and remaining(ops, work.scale, work.cosine, number, last) > tiny
        if in_pass:
            _pass_forward(recipe, work, state, number, last, team)
            together(team)
        elif op[KIND] == PHASE:
            _phase(state, op, recipe.index, work, team)
            together(team)
        else:
            for b in range(op[COUNT]):
                rotate_one(state, op, b, parts, work, team)
                together(team)
        left = ops.shape[0] - last


@inlined
def sweep_reverse(recipe: Recipe, work: Workspace, state: Any, cotangent: Any, tiny: float, team: Team) -> None:
    """Undo the circuit on state and cotangent; ``work.sums`` gets the derivative by every slot angle."""
    parts, ops, last = recipe.parts, recipe.ops, recipe.ops.shape[0]
    alone = last  # operations from here on are undone one by one
    while last > 0:
        op = ops[last - 1]
        number = last - (op[GROUPS] if last <= alone else 1)
        in_pass = op[KIND] == ROTATE or last - number > 1
        if in_pass and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            rescale(cotangent, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                alone = min(alone, number)
                number = last - 1
                in_pass = op[KIND] == ROTATE and remaining(ops, work.scale, work.cosine, number, last) > tiny
        if in_pass:
            _pass_reverse(recipe, work, state, cotangent, number, last, team)
            together(team)
        elif op[KIND] == PHASE:
            _phase_adjoint(state, cotangent, op, recipe.index, work, team)
            together(team)
        else:
            for b in range(op[COUNT] - 1, -1, -1):
                rotate_one_adjoint(state, cotangent, op, b, parts, work, team)
                together(team)
                simd.scale_sums(work.sums, work.scale, work.cosine, op[SLOT] + b, 1, 0)
        last = number
