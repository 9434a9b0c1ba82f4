"""Sweeps over the states of a tile, forward and reverse (arrays in, arrays out; the GIL is not held).

A *tile* is what one pass works on: as many samples as a vector has lanes (sample lanes), or one sample whose
lowest bits are the lanes (amplitude lanes, for large states and small batches). `Recipe` (made by `schedule`) is
the program of the sweep, `Workspace` the scratch of one worker; nothing is allocated here.

Cost of one rotation in real multiply-adds per pair of amplitudes: 4 forward, 12 in reverse (4 to undo it on each of
the two states, 4 for its sum); half of that for real circuits. A phase costs 8 per amplitude forward (4 for the product
of two table entries, 4 to apply it) and 16 in reverse.
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
    PLACE,
    ROTATE,
    SECOND_COUNT,
    SECOND_INDEX,
    SLOT,
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
    square: np.ndarray  # (lanes,)
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
def build_phases(op: Any, work: Workspace) -> None:
    """Tables of exp(-i/2 sum_j +-a_j) over the parities of the masks; the state's scale goes into the first."""
    slot, base, table, cosine, sine = op[SLOT], 0, work.table, work.cosine, work.sine
    for count in (op[COUNT], op[SECOND_COUNT]):
        tables.begin_phases(table, base, work.scale)
        for j in range(count):
            tables.extend_phases(table, base, 1 << j, cosine, sine, slot + j)
        slot += count
        base += 1 << count


@inlined
def _phase(state: Any, op: Any, index: Any, work: Workspace, team: Team) -> None:
    build_phases(op, work)
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
    build_phases(op, work)
    tables.phase_rows_adjoint(
        state, cotangent, op[BITS], table, weights, index, team.member, team.size, op[FIRST_INDEX], op[SECOND_INDEX],
        second_table, int(second > 0),
    )  # fmt: skip
    reduce_weights(work.sums[op[SLOT] * work.scale.size :], weights, first, second)
    simd.scale_rows(work.sums, op[SLOT], first + second, work.square, 0)


@jit
def remaining(ops: Any, scale: Any, cosine: Any, first: int, last: int) -> float:
    """Smallest scale over the lanes after the rotations of operations first .. last of a pass."""
    return simd.least_product(scale, cosine, ops[first, SLOT], slots_of(ops, first, last))


@jit
def slots_of(ops: Any, first: int, last: int) -> int:
    """How many angles operations first .. last have."""
    return ops[last - 1, SLOT] + ops[last - 1, COUNT] - ops[first, SLOT]


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
    """Groups first .. last of rotations, tile by tile, their cosines divided out."""
    parts, index, tangent, ops = recipe.parts, recipe.index, work.tangent, recipe.ops
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(first, last):
            op = ops[number]
            rotations.rotate(state, op, tangent, base, index, op[COUNT], parts, lanes_of(op))
    simd.scale_by_product(work.scale, work.cosine, ops[first, SLOT], slots_of(ops, first, last))


@jit
def _pass_reverse(
    recipe: Recipe, work: Workspace, state: Any, cotangent: Any, first: int, last: int, team: Team
) -> None:
    """Undo `_pass_forward`."""
    parts, index, tangent, sums, ops = recipe.parts, recipe.index, work.tangent, work.sums, recipe.ops
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(last - 1, first - 1, -1):
            op = ops[number]
            moved = lanes_of(op)
            rotations.rotate_adjoint(state, cotangent, op, tangent, sums, base, index, op[COUNT], parts, moved)
    simd.scale_sums(sums, work.scale, work.cosine, ops[first, SLOT], slots_of(ops, first, last), 1)


@inlined
def sweep_forward(recipe: Recipe, work: Workspace, state: Any, tiny: float, team: Team) -> None:
    """Evolve the state of one tile; what it lacks in norm is left in ``work.scale``."""
    parts, ops = recipe.parts, recipe.ops
    left = ops.shape[0]
    while left > 0:
        number = ops.shape[0] - left
        op = ops[number]
        if op[KIND] == PHASE:
            _phase(state, op, recipe.index, work, team)
            together(team)
            left -= 1
            continue
        last = number - op[PLACE] + op[GROUPS]
        if op[KIND] == ROTATE and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                last = number + 1
        if op[KIND] == ROTATE and remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _pass_forward(recipe, work, state, number, last, team)
            together(team)
        else:
            for b in range(op[COUNT]):
                rotate_one(state, op, b, parts, work, team)
                together(team)
            last = number + 1
        left = ops.shape[0] - last


@inlined
def sweep_reverse(recipe: Recipe, work: Workspace, state: Any, cotangent: Any, tiny: float, team: Team) -> None:
    """Undo the circuit on state and cotangent; ``work.sums`` gets the derivative by every slot angle."""
    parts, ops, last = recipe.parts, recipe.ops, recipe.ops.shape[0]
    while last > 0:
        op = ops[last - 1]
        if op[KIND] == PHASE:
            _phase_adjoint(state, cotangent, op, recipe.index, work, team)
            together(team)
            last -= 1
            continue
        number = last - 1 - op[PLACE]
        if op[KIND] == ROTATE and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            rescale(cotangent, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                number = last - 1
        if op[KIND] == ROTATE and remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _pass_reverse(recipe, work, state, cotangent, number, last, team)
            together(team)
        else:
            for b in range(op[COUNT] - 1, -1, -1):
                rotate_one_adjoint(state, cotangent, op, b, parts, work, team)
                together(team)
                simd.scale_sums(work.sums, work.scale, work.cosine, op[SLOT] + b, 1, 0)
            number = last - 1
        last = number
