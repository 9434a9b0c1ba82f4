"""The tangent pass: derivatives along a direction of angles, forward and in reverse.

Along a direction v of the slots' angles a state p has the tangent d, its derivative by e at angles a + e v. With J the
antisymmetric pairing of a rotation, R = cos(a/2) - sin(a/2) J and J J = -1 on its pairs, so

    p <- R p,    d <- R d - v/2 J p,

the second with the new p; a phase has i times a diagonal of signs in place of J. A rotation is orthogonal, so a
cotangent q and its tangent m go back in the same way: q <- R' q, m <- R' (m + v/2 J q), and so do p and d. The
derivative along v of the sum <q|J|p> of a generator is <m|J|p> + <q|J|d>. It is the same before and after that
addition, because J commutes with itself.

State and tangent share one scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qtm._engines.statevector.kernels import lane_rotations, rotations, simd
from qtm._engines.statevector.kernels import lookup_tables as tables
from qtm._engines.statevector.kernels import tangent_phases as phases
from qtm._engines.statevector.kernels.compilation import inlined, jit
from qtm._engines.statevector.kernels.expectation import add_row, collect, collect_initial, observe, start_state
from qtm._engines.statevector.kernels.recipe import (
    BITS,
    COUNT,
    DOUBLE_SUPPORT,
    GROUPS,
    KIND,
    MASKS,
    PHASE,
    ROTATE,
    SECOND_COUNT,
    SLOT,
    STRING_COUNTS,
    STRING_FIRST,
    STRING_INDEX,
    STRING_LANES,
    STRING_MASK,
    STRING_ODD,
    TABLE_ROW,
    TILE_BITS,
    Recipe,
)
from qtm._engines.statevector.kernels.sweep import (
    Scratch,
    Team,
    Workspace,
    angles_of,
    build_phases,
    close_pass,
    fill,
    lanes_of,
    odd_lane,
    open_phases,
    prepare,
    reduce_weights,
    remaining,
    rescale,
    rotate_one,
    rotate_one_adjoint,
    share,
    tile_base,
    together,
    workspace,
)


class Direction(NamedTuple):
    """Memory of one worker beside its `Scratch`."""

    half: np.ndarray  # (slots * lanes,): half the direction of every slot's angle, or minus that to go back
    table: np.ndarray  # (table rows * lanes,): sums of them over the parities of the phases of a pass


@jit
def prepare_direction(
    recipe: Recipe, work: Workspace, along: Direction, direction: Any, tile: int, factor: float
) -> None:
    """``factor`` times the direction of the slots' angles, of the tile's samples."""
    lanes, half = work.scale.size, along.half
    slots, source, coef = recipe.slot_start, recipe.slot_angle, recipe.slot_coef
    for slot in range(recipe.slot_offset.size):
        for lane in range(lanes):
            sample = tile if recipe.lane_bits else min(tile * lanes + lane, direction.shape[0] - 1)
            total = 0.0
            for j in range(slots[slot], slots[slot + 1]):
                total += coef[j] * direction[sample, source[j]]
            if recipe.lane_bits and odd_lane(lane, recipe.slot_lanes[slot]):
                total = -total
            half[slot * lanes + lane] = factor * total


# --- What a rotation adds -----------------------------------------------------------------------------------------


@inlined
def _add_one(target: Any, source: Any, op: Any, which: int, parts: int, half: Any, team: Team) -> None:
    if op[MASKS] == 0:
        lane_rotations.add_lane_generator(target, source, op, half, team.member, team.size, parts)
    else:
        doubled = int(op[KIND] == DOUBLE_SUPPORT)
        rotations.add_generator(target, source, op, which, half, team.member, team.size, parts, doubled)


# --- Sweeps -------------------------------------------------------------------------------------------------------


@jit
def _pass_forward(
    recipe: Recipe, work: Workspace, along: Direction, state: Any, tangent: Any, first: int, last: int, team: Team
) -> None:
    """Operations first .. last of a pass, tile by tile, on a state and its tangent."""
    parts, index, tan, half, ops = recipe.parts, recipe.index, work.tangent, along.half, recipe.ops
    for number in range(first, last):
        if ops[number, KIND] == PHASE:
            build_phases(ops[number], work, ops[number, TABLE_ROW], work.scale)
    phases.build_directions(ops, half, along.table, first, last, work.scale.size)
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(first, last):
            op = ops[number]
            if op[KIND] == PHASE:
                two = int(op[SECOND_COUNT] > 0)
                phases.phase_tile_tangent(state, tangent, op, work.table, along.table, index, base, two)
            else:
                rotations.rotate_tangent(state, tangent, op, tan, half, base, index, op[COUNT], parts, lanes_of(op))
    slot, count = angles_of(ops, first, last)
    simd.scale_by_product(work.scale, work.cosine, slot, count)


@jit
def _pass_reverse(
    recipe: Recipe,
    work: Workspace,
    along: Direction,
    state: Any,
    tangent: Any,
    cotangent: Any,
    cotangent_tangent: Any,
    first: int,
    last: int,
    team: Team,
) -> None:
    """Undo `_pass_forward` on both pairs."""
    parts, index, tan, sums, ops = recipe.parts, recipe.index, work.tangent, work.sums, recipe.ops
    open_phases(ops, work, first, last)
    phases.build_directions(ops, along.half, along.table, first, last, work.scale.size)
    begin, end = share(1 << (ops[first, BITS] - ops[first, TILE_BITS]), team)
    for tile in range(begin, end):
        base = tile_base(tile, ops[first], index)
        for number in range(last - 1, first - 1, -1):
            op = ops[number]
            if op[KIND] == PHASE:
                phases.phase_tile_tangent_adjoint(
                    state, tangent, cotangent, cotangent_tangent, op, work.table, along.table, work.weights, index,
                    base, int(op[SECOND_COUNT] > 0),
                )  # fmt: skip
            else:
                rotations.rotate_tangent_adjoint(
                    state, tangent, cotangent, cotangent_tangent, op, tan, along.half, sums, base, index, op[COUNT],
                    parts, lanes_of(op),
                )  # fmt: skip
    close_pass(ops, work, first, last)


@inlined
def _sweep_forward(
    recipe: Recipe, work: Workspace, along: Direction, state: Any, tangent: Any, tiny: float, team: Team
) -> None:
    """`sweep.sweep_forward` of a state and its tangent."""
    parts, ops = recipe.parts, recipe.ops
    left, alone = ops.shape[0], 0  # operations before ``alone`` are done one by one
    while left > 0:
        number = ops.shape[0] - left
        op = ops[number]
        last = number + (op[GROUPS] if number >= alone else 1)
        in_pass = op[KIND] == ROTATE or op[KIND] == PHASE
        if in_pass and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            rescale(tangent, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                alone = max(alone, last)
                last = number + 1
                in_pass = remaining(ops, work.scale, work.cosine, number, last) > tiny
        if in_pass:
            _pass_forward(recipe, work, along, state, tangent, number, last, team)
            together(team)
        else:
            for b in range(op[COUNT]):
                rotate_one(state, op, b, parts, work, team)
                rotate_one(tangent, op, b, parts, work, team)
                _add_one(tangent, state, op, b, parts, along.half, team)
                together(team)
        left = ops.shape[0] - last


@inlined
def _sweep_reverse(
    recipe: Recipe,
    work: Workspace,
    along: Direction,
    state: Any,
    tangent: Any,
    cotangent: Any,
    cotangent_tangent: Any,
    tiny: float,
    team: Team,
) -> None:
    """`sweep.sweep_reverse` of both pairs; ``along`` has minus half the direction."""
    parts, ops, last = recipe.parts, recipe.ops, recipe.ops.shape[0]
    alone = last  # operations from here on are undone one by one
    while last > 0:
        op = ops[last - 1]
        number = last - (op[GROUPS] if last <= alone else 1)
        in_pass = op[KIND] == ROTATE or op[KIND] == PHASE
        if in_pass and not remaining(ops, work.scale, work.cosine, number, last) > tiny:
            rescale(state, parts << op[BITS], work.scale, team)
            rescale(tangent, parts << op[BITS], work.scale, team)
            rescale(cotangent, parts << op[BITS], work.scale, team)
            rescale(cotangent_tangent, parts << op[BITS], work.scale, team)
            together(team)
            fill(work.scale, work.scale.size, 1.0)
            if not remaining(ops, work.scale, work.cosine, number, last) > tiny:
                alone = min(alone, number)
                number = last - 1
                in_pass = remaining(ops, work.scale, work.cosine, number, last) > tiny
        if in_pass:
            _pass_reverse(recipe, work, along, state, tangent, cotangent, cotangent_tangent, number, last, team)
            together(team)
        else:
            for b in range(op[COUNT] - 1, -1, -1):
                _add_one(tangent, state, op, b, parts, along.half, team)
                _add_one(cotangent_tangent, cotangent, op, b, parts, along.half, team)
                rotate_one_adjoint(state, cotangent_tangent, op, b, parts, work, team)
                rotate_one_adjoint(tangent, cotangent, op, b, parts, work, team)
                together(team)
                simd.scale_sums(work.sums, work.scale, work.cosine, op[SLOT] + b, 1, 0)
        last = number


# --- Entry points -------------------------------------------------------------------------------------------------


@inlined
def _values(state: Any, tangent: Any, recipe: Recipe, work: Workspace, values: Any, tile: int, team: Team) -> None:
    """values[sample, m] += the derivative of output m, 2 Re <state|O_m|tangent>."""
    lanes, sums, weights = work.scale.size, work.factors, work.weights
    begin, observable, coefs = recipe.mask_start, recipe.mask_observable, recipe.mask_coef
    simd.square_row(work.square, work.scale)
    for g in range(recipe.groups.shape[0]):
        group = recipe.groups[g]
        first, second, lane = group[STRING_COUNTS], group[STRING_COUNTS + 1], group[STRING_LANES]
        second_table = 1 << first
        fill(weights, 2 * (second_table + (1 << second)) * lanes, 0.0)
        tables.weigh_rows_tangent(
            state, tangent, recipe.row_bits, group[STRING_MASK], lane, weights, recipe.index, team.member, team.size,
            group[STRING_INDEX], group[STRING_INDEX + 1], second_table, recipe.parts, group[STRING_ODD], int(lane != 0),
        )  # fmt: skip
        fill(sums, (first + second) * lanes, 0.0)
        reduce_weights(sums, weights, first, second)
        simd.scale_rows(sums, 0, first + second, work.square, 0)
        for j in range(first + second):
            mask, row = group[STRING_FIRST] + j, sums[j * lanes : (j + 1) * lanes]
            for entry in range(begin[mask], begin[mask + 1]):
                column, signs = observable[entry], recipe.mask_lanes[mask]
                add_row(values, column, tile, row, coefs[entry], recipe.lane_bits, signs)


@inlined
def _begin(
    state: Any,
    tangent: Any,
    initial: Any,
    initial_tangent: Any,
    angles: Any,
    recipe: Recipe,
    work: Workspace,
    tile: int,
    team: Team,
) -> None:
    """The tile's angles, and the initial states and tangents of its samples."""
    if team.member == 0:
        prepare(recipe, work, angles, tile)
        start_state(state, initial, recipe, work, tile)
        start_state(tangent, initial_tangent, recipe, work, tile)
        if initial_tangent.shape[0] == 0:
            lanes, parts = work.scale.size, recipe.parts
            fill(tangent, lanes * (parts << recipe.row_bits if initial.shape[0] else parts), 0.0)
    fill(work.scale, work.scale.size, 1.0)
    together(team)


@jit
def evaluate_tangent(
    recipe: Recipe,
    scratch: Scratch,
    along: Direction,
    angles: np.ndarray,  # (samples, angles)
    direction: np.ndarray,  # (samples, angles)
    initial: np.ndarray,  # (samples or 1 or 0, amplitudes * parts)
    initial_tangent: np.ndarray,  # (samples or 1 or 0, amplitudes * parts); no rows: it does not move
    states: np.ndarray,  # (tiles kept or 1, rows * parts * lanes + lanes + 3 * slots * lanes)
    tangents: np.ndarray,  # the same
    values: np.ndarray,  # (samples, observables), zeros
    first: int,
    last: int,
    tiny: float,
    team: Team,
) -> None:
    """Derivatives of expectation values along a direction; the final states and tangents stay in their buffers."""
    simd.atomic_increment(team.started)
    size = (recipe.parts << recipe.row_bits) * scratch.scale.size
    for tile in range(first, last):
        place = min(tile - first, states.shape[0] - 1)
        state, tangent = states[place], tangents[place]
        work = workspace(scratch, state, size)
        prepare_direction(recipe, work, along, direction, tile, 0.5)
        _begin(state, tangent, initial, initial_tangent, angles, recipe, work, tile, team)
        _sweep_forward(recipe, work, along, state, tangent, tiny, team)
        _values(state, tangent, recipe, work, values, tile, team)
        together(team)
        if team.member == 0:
            simd.copy_row(state, size // work.scale.size, work.scale, 0)
            simd.copy_row(tangent, size // work.scale.size, work.scale, 0)


@jit
def differentiate_tangent(
    recipe: Recipe,
    scratch: Scratch,
    along: Direction,
    angles: np.ndarray,  # (samples or 0, angles); no rows: the states are given, and so are the seeds
    direction: np.ndarray,  # (samples, angles)
    initial: np.ndarray,  # (samples or 1 or 0, amplitudes * parts), as for `evaluate_tangent`
    initial_tangent: np.ndarray,  # (samples or 1 or 0, amplitudes * parts)
    states: np.ndarray,  # (tiles or 1, rows * parts * lanes + lanes + 3 * slots * lanes): scratch, or given, consumed
    tangents: np.ndarray,  # the same
    cotangent: np.ndarray,  # (samples, observables)
    seeds: np.ndarray,  # (tiles or 1, rows * parts * lanes or more): scratch, or O|state> itself
    seed_tangents: np.ndarray,  # the same: scratch, or the tangent of the seeds
    gradient: np.ndarray,  # (samples, angles), zeros
    by_initial: np.ndarray,  # (samples or 0, amplitudes * parts): the derivative by the initial state
    by_initial_tangent: np.ndarray,  # (samples or 0, amplitudes * parts): its derivative along the direction
    first: int,
    last: int,
    tiny: float,
    team: Team,
) -> None:
    """The derivative along a direction of what `expectation.differentiate` computes.

    Where the states that `evaluate_tangent` keeps are not given, both sweeps follow one another, tile by tile.
    """
    simd.atomic_increment(team.started)
    size = (recipe.parts << recipe.row_bits) * scratch.scale.size
    for tile in range(first, last):
        own, place = min(tile - first, states.shape[0] - 1), min(tile - first, seeds.shape[0] - 1)
        state, tangent, seed, seed_tangent = states[own], tangents[own], seeds[place], seed_tangents[place]
        work = workspace(scratch, state, size)
        if angles.shape[0]:
            prepare_direction(recipe, work, along, direction, tile, 0.5)
            _begin(state, tangent, initial, initial_tangent, angles, recipe, work, tile, team)
            _sweep_forward(recipe, work, along, state, tangent, tiny, team)
            observe(state, seed, recipe, work, cotangent, tile, team)
            observe(tangent, seed_tangent, recipe, work, cotangent, tile, team)
        else:
            simd.copy_row(work.scale, 0, state, size // work.scale.size)
        prepare_direction(recipe, work, along, direction, tile, -0.5)
        together(team)
        fill(work.sums, work.sums.size, 0.0)
        _sweep_reverse(recipe, work, along, state, tangent, seed, seed_tangent, tiny, team)
        collect(recipe, work, gradient, tile)
        if by_initial.shape[0] and team.member == 0:
            collect_initial(recipe, work, seed, by_initial, tile)
            collect_initial(recipe, work, seed_tangent, by_initial_tangent, tile)
        together(team)


@jit
def project_tangents(
    states: np.ndarray,  # (tiles, size + lanes or more): complex states with their scales
    tangents: np.ndarray,  # the same: changed
    size: int,  # numbers of a state
    lane_bits: int,
    total: np.ndarray,  # (lanes,) float64: scratch
) -> None:
    """d <- d - p <p|d> for states of norm 1: what is left is no change of the phase."""
    lanes = total.size
    for tile in range(states.shape[0]):
        p, d = states[tile], tangents[tile]
        for lane in range(lanes):
            total[lane] = 0.0
        for row in range(size // (2 * lanes)):
            re, im = row * 2 * lanes, row * 2 * lanes + lanes
            for lane in range(lanes):
                total[lane] += p[re + lane] * d[im + lane] - p[im + lane] * d[re + lane]
        # <p|d> is imaginary, because the norm stays.
        if lane_bits:
            for lane in range(1, lanes):
                total[0] += total[lane]
            for lane in range(1, lanes):
                total[lane] = total[0]
        for row in range(size // (2 * lanes)):
            re, im = row * 2 * lanes, row * 2 * lanes + lanes
            for lane in range(lanes):
                factor = total[lane] * p[size + lane] * p[size + lane]
                d[re + lane] += factor * p[im + lane]
                d[im + lane] -= factor * p[re + lane]
