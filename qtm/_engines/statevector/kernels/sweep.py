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

from qtm._engines.statevector.kernels import lookup_tables as tables
from qtm._engines.statevector.kernels import rotations, simd, sine_cosine
from qtm._engines.statevector.kernels.compilation import inlined, jit
from qtm._engines.statevector.kernels.rotations import GROUPS, LANES, PIVOTS, PLACE, TILE

ROTATE, GROW, PHASE, TURN_LANES = 0, 1, 2, 3
# By bytes of a number: a pass leaves no more than this of the true scale in the state, whose square must not overflow.
TINY = {4: 1e-12, 8: 1e-120}
LARGE = 64.0  # radians: below, a double leaves an error of 1e-14


ABORTED = 1 << 62  # arrivals at a barrier: more than any member waits for


class Recipe(NamedTuple):
    """A scheduled circuit with its observables, as plain arrays."""

    ops: np.ndarray  # (operations, 22) int64, see `rotations`
    slot_start: np.ndarray  # (slots + 1,) int64; slot angle = offset + sum coef * angle
    slot_angle: np.ndarray  # (terms,) int64
    slot_coef: np.ndarray  # (terms,) float64
    slot_offset: np.ndarray  # (slots,) float64
    slot_lanes: np.ndarray  # (slots,) int64, mask of the signs over the lanes
    index: np.ndarray  # type: ignore[assignment]  # int32, row -> table entry, see `_schedule.row_index`
    groups: np.ndarray  # (groups, 8) int64: row mask, odd, first mask, masks in tables, index offsets, lane mask
    mask_start: np.ndarray  # (masks + 1,) int64; observable m has sum coef * mask value
    mask_observable: np.ndarray  # (entries,) int64
    mask_coef: np.ndarray  # (entries,) float64
    mask_lanes: np.ndarray  # (masks,) int64
    row_bits: int
    lane_bits: int  # 0: lanes are samples
    parts: int


class Workspace(NamedTuple):
    """Scratch of one worker; every array starts on a vector boundary."""

    angles: np.ndarray  # (slots * lanes,) float64
    cosine: np.ndarray  # (slots * lanes,) like the state, and so the others
    sine: np.ndarray
    tangent: np.ndarray
    sums: np.ndarray
    scale: np.ndarray  # (lanes,): the state is this times what the rows hold
    square: np.ndarray  # (lanes,)
    table: np.ndarray  # (table rows * 2 * lanes,)
    weights: np.ndarray  # (table rows * 2 * lanes,): two copies of each, see `tables`
    factors: np.ndarray  # (masks * lanes,)


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
def prepare(recipe: Recipe, work: Workspace, angles: Any, tile: int) -> None:
    """Slot angles of the tile's samples, their cosines, sines and tangents."""
    lanes, slots = work.scale.size, recipe.slot_offset.size
    start, source, coef, offset = recipe.slot_start, recipe.slot_angle, recipe.slot_coef, recipe.slot_offset
    target, cosine, sine, tangent = work.angles, work.cosine, work.sine, work.tangent
    for lane in range(lanes if recipe.lane_bits == 0 else 1):
        sample = min(tile * lanes + lane, angles.shape[0] - 1) if recipe.lane_bits == 0 else tile
        for slot in range(slots):
            total = offset[slot]
            for j in range(start[slot], start[slot + 1]):
                term = coef[j] * angles[sample, source[j]]
                # Before it is added to others: a large term would round them, and its own sine, away.
                total += term if abs(term) < LARGE else sine_cosine.reduced_product(coef[j], angles[sample, source[j]])
            target[slot * lanes + lane] = total
    if recipe.lane_bits:
        for slot in range(slots):
            target[slot * lanes : (slot + 1) * lanes] = target[slot * lanes]
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
def _build_phases(op: Any, work: Workspace) -> None:
    """Tables of exp(-i/2 sum_j +-a_j) over the parities of the masks; the state's scale goes into the first."""
    slot, base, table, cosine, sine = op[2], 0, work.table, work.cosine, work.sine
    for count in (op[3], op[4]):
        tables.begin_phases(table, base, work.scale)
        for j in range(count):
            tables.extend_phases(table, base, 1 << j, cosine, sine, slot + j)
        slot += count
        base += 1 << count


@inlined
def _phase(state: Any, op: Any, index: Any, work: Workspace, team: Team) -> None:
    _build_phases(op, work)
    table, base, member, size = work.table, 1 << op[3], team.member, team.size
    if op[4]:
        tables.phase_rows(state, op[1], table, index, member, size, op[5], op[6], base, 1)
    else:
        tables.phase_rows(state, op[1], table, index, member, size, op[5], op[6], base, 0)


@inlined
def _unphase(state: Any, cotangent: Any, op: Any, index: Any, work: Workspace, team: Team) -> None:
    base, weights = 1 << op[3], work.weights
    fill(weights, 2 * (base + (1 << op[4])) * work.scale.size, 0.0)
    simd.square_row(work.square, work.scale)
    _build_phases(op, work)
    table, member, size = work.table, team.member, team.size
    if op[4]:
        tables.unphase_rows(state, cotangent, op[1], table, weights, index, member, size, op[5], op[6], base, 1)
    else:
        tables.unphase_rows(state, cotangent, op[1], table, weights, index, member, size, op[5], op[6], base, 0)
    reduce_weights(work.sums[op[2] * work.scale.size :], weights, op[3], op[4])
    simd.scale_rows(work.sums, op[2], op[3] + op[4], work.square, 0)


@jit
def _remaining(ops: Any, scale: Any, cosine: Any, first: int, last: int) -> float:
    """Smallest scale over the lanes after the rotations of operations first .. last of a pass."""
    return simd.least_product(scale, cosine, ops[first, 2], _slots(ops, first, last))


@jit
def _slots(ops: Any, first: int, last: int) -> int:
    return ops[last - 1, 2] + ops[last - 1, 3] - ops[first, 2]


@jit
def _tile(number: int, op: Any, index: Any) -> int:
    """First row of a tile: zero bits opened in its number at the pivots of the tile's masks."""
    for j in range(op[TILE]):
        position = index[op[PIVOTS] + j]
        low = number & ((1 << position) - 1)
        number = ((number ^ low) << 1) | low
    return number


@inlined
def _rotate(state: Any, op: Any, parts: int, tangent: Any, base: int, index: Any) -> None:
    permute = (op[LANES] | op[LANES + 1] | op[LANES + 2]) != 0
    # One call for each variant, because the number of generators, parts, and whether lanes move are compiled in.
    case = op[3] + 4 * parts + 16 * permute
    if case == 1 + 4:
        rotations.rotate(state, op, tangent, base, index, 1, 1, 0)
    elif case == 2 + 4:
        rotations.rotate(state, op, tangent, base, index, 2, 1, 0)
    elif case == 3 + 4:
        rotations.rotate(state, op, tangent, base, index, 3, 1, 0)
    elif case == 1 + 8:
        rotations.rotate(state, op, tangent, base, index, 1, 2, 0)
    elif case == 2 + 8:
        rotations.rotate(state, op, tangent, base, index, 2, 2, 0)
    elif case == 3 + 8:
        rotations.rotate(state, op, tangent, base, index, 3, 2, 0)
    elif case == 1 + 4 + 16:
        rotations.rotate(state, op, tangent, base, index, 1, 1, 1)
    elif case == 2 + 4 + 16:
        rotations.rotate(state, op, tangent, base, index, 2, 1, 1)
    elif case == 3 + 4 + 16:
        rotations.rotate(state, op, tangent, base, index, 3, 1, 1)
    elif case == 1 + 8 + 16:
        rotations.rotate(state, op, tangent, base, index, 1, 2, 1)
    elif case == 2 + 8 + 16:
        rotations.rotate(state, op, tangent, base, index, 2, 2, 1)
    else:
        rotations.rotate(state, op, tangent, base, index, 3, 2, 1)


@inlined
def _unrotate(state: Any, cotangent: Any, op: Any, parts: int, tangent: Any, sums: Any, base: int, index: Any) -> None:
    permute = (op[LANES] | op[LANES + 1] | op[LANES + 2]) != 0
    case = op[3] + 4 * parts + 16 * permute
    if case == 1 + 4:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 1, 1, 0)
    elif case == 2 + 4:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 2, 1, 0)
    elif case == 3 + 4:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 3, 1, 0)
    elif case == 1 + 8:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 1, 2, 0)
    elif case == 2 + 8:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 2, 2, 0)
    elif case == 3 + 8:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 3, 2, 0)
    elif case == 1 + 4 + 16:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 1, 1, 1)
    elif case == 2 + 4 + 16:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 2, 1, 1)
    elif case == 3 + 4 + 16:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 3, 1, 1)
    elif case == 1 + 8 + 16:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 1, 2, 1)
    elif case == 2 + 8 + 16:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 2, 2, 1)
    else:
        rotations.unrotate(state, cotangent, op, tangent, sums, base, index, 3, 2, 1)


@inlined
def _turn(state: Any, op: Any, which: int, parts: int, work: Workspace, team: Team) -> None:
    cosine, sine, member, size = work.cosine, work.sine, team.member, team.size
    case = op[0] + 4 * parts
    if case == ROTATE + 4:
        rotations.turn(state, op, which, cosine, sine, member, size, 1, 0)
    elif case == ROTATE + 8:
        rotations.turn(state, op, which, cosine, sine, member, size, 2, 0)
    elif case == GROW + 4:
        rotations.turn(state, op, which, cosine, sine, member, size, 1, 1)
    elif case == GROW + 8:
        rotations.turn(state, op, which, cosine, sine, member, size, 2, 1)
    elif case == TURN_LANES + 4:
        rotations.turn_lanes(state, op, cosine, sine, member, size, 1)
    else:
        rotations.turn_lanes(state, op, cosine, sine, member, size, 2)


@inlined
def _unturn(state: Any, cotangent: Any, op: Any, which: int, parts: int, work: Workspace, team: Team) -> None:
    cosine, sine, sums, member, size = work.cosine, work.sine, work.sums, team.member, team.size
    case = op[0] + 4 * parts
    if case == ROTATE + 4:
        rotations.unturn(state, cotangent, op, which, cosine, sine, sums, member, size, 1, 0)
    elif case == ROTATE + 8:
        rotations.unturn(state, cotangent, op, which, cosine, sine, sums, member, size, 2, 0)
    elif case == GROW + 4:
        rotations.unturn(state, cotangent, op, which, cosine, sine, sums, member, size, 1, 1)
    elif case == GROW + 8:
        rotations.unturn(state, cotangent, op, which, cosine, sine, sums, member, size, 2, 1)
    elif case == TURN_LANES + 4:
        rotations.unturn_lanes(state, cotangent, op, cosine, sine, sums, member, size, 1)
    else:
        rotations.unturn_lanes(state, cotangent, op, cosine, sine, sums, member, size, 2)


@jit
def _rescale(state: Any, count: int, scale: Any, team: Team) -> None:
    first, last = share(count, team)
    simd.scale_rows(state, first, last - first, scale, 0)


@jit
def _pass_forward(recipe: Recipe, work: Workspace, state: Any, first: int, last: int, team: Team) -> None:
    """Groups first .. last of rotations, tile by tile, their cosines divided out."""
    parts, index, tangent, ops = recipe.parts, recipe.index, work.tangent, recipe.ops
    begin, end = share(1 << (ops[first, 1] - ops[first, TILE]), team)
    for tile in range(begin, end):
        base = _tile(tile, ops[first], index)
        for number in range(first, last):
            _rotate(state, ops[number], parts, tangent, base, index)
    simd.scale_by_product(work.scale, work.cosine, ops[first, 2], _slots(ops, first, last))


@jit
def _pass_reverse(
    recipe: Recipe, work: Workspace, state: Any, cotangent: Any, first: int, last: int, team: Team
) -> None:
    """Undo `_pass_forward`."""
    parts, index, tangent, sums, ops = recipe.parts, recipe.index, work.tangent, work.sums, recipe.ops
    begin, end = share(1 << (ops[first, 1] - ops[first, TILE]), team)
    for tile in range(begin, end):
        base = _tile(tile, ops[first], index)
        for number in range(last - 1, first - 1, -1):
            _unrotate(state, cotangent, ops[number], parts, tangent, sums, base, index)
    simd.scale_sums(sums, work.scale, work.cosine, ops[first, 2], _slots(ops, first, last), 1)


@inlined
def sweep_forward(recipe: Recipe, work: Workspace, state: Any, tiny: float, team: Team) -> None:
    """Evolve the state of one tile; what it lacks in norm is left in ``work.scale``."""
    parts, ops = recipe.parts, recipe.ops
    left = ops.shape[0]
    while left > 0:
        number = ops.shape[0] - left
        op = ops[number]
        if op[0] == PHASE:
            _phase(state, op, recipe.index, work, team)
            together(team)
            left -= 1
            continue
        last = number - op[PLACE] + op[GROUPS]
        if op[0] == ROTATE and not _remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _rescale(state, parts << op[1], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not _remaining(ops, work.scale, work.cosine, number, last) > tiny:
                last = number + 1
        if op[0] == ROTATE and _remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _pass_forward(recipe, work, state, number, last, team)
            together(team)
        else:
            for b in range(op[3]):
                _turn(state, op, b, parts, work, team)
                together(team)
            last = number + 1
        left = ops.shape[0] - last


@inlined
def sweep_reverse(recipe: Recipe, work: Workspace, state: Any, cotangent: Any, tiny: float, team: Team) -> None:
    """Undo the circuit on state and cotangent; ``work.sums`` gets the derivative by every slot angle."""
    parts, ops, last = recipe.parts, recipe.ops, recipe.ops.shape[0]
    while last > 0:
        op = ops[last - 1]
        if op[0] == PHASE:
            _unphase(state, cotangent, op, recipe.index, work, team)
            together(team)
            last -= 1
            continue
        number = last - 1 - op[PLACE]
        if op[0] == ROTATE and not _remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _rescale(state, parts << op[1], work.scale, team)
            _rescale(cotangent, parts << op[1], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not _remaining(ops, work.scale, work.cosine, number, last) > tiny:
                number = last - 1
        if op[0] == ROTATE and _remaining(ops, work.scale, work.cosine, number, last) > tiny:
            _pass_reverse(recipe, work, state, cotangent, number, last, team)
            together(team)
        else:
            for b in range(op[3] - 1, -1, -1):
                _unturn(state, cotangent, op, b, parts, work, team)
                together(team)
                simd.scale_sums(work.sums, work.scale, work.cosine, op[2] + b, 1, 0)
            number = last - 1
        last = number
