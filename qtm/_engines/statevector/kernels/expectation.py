"""Observables on a tile, and the two entry points of the engine: `evaluate` and `differentiate`.

Observables come grouped by the mask x of their Pauli strings (DESIGN: i^k X^x Z^z): one pass over the rows per
group gives the values of all its strings, however many observables they belong to, by summing into tables
over the parities of the masks z.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtm._engines.statevector.kernels import lookup_tables as tables
from qtm._engines.statevector.kernels import simd
from qtm._engines.statevector.kernels.compilation import inlined, jit
from qtm._engines.statevector.kernels.recipe import (
    STRING_COUNTS,
    STRING_FIRST,
    STRING_INDEX,
    STRING_LANES,
    STRING_MASK,
    STRING_ODD,
    Recipe,
)
from qtm._engines.statevector.kernels.sweep import (
    Scratch,
    Team,
    Workspace,
    fill,
    odd_lane,
    prepare,
    reduce_weights,
    sweep_forward,
    sweep_reverse,
    together,
    workspace,
)


@inlined
def _weigh(state: Any, group: Any, recipe: Recipe, work: Workspace, team: Team) -> None:
    """Sum conj(p_{i^x}) p_i (real or imaginary part) over the rows, into the tables of the group."""
    second_table, weights, lane = 1 << group[STRING_COUNTS], work.weights, group[STRING_LANES]
    fill(weights, 2 * (second_table + (1 << group[STRING_COUNTS + 1])) * work.scale.size, 0.0)
    tables.weigh_rows(
        state, recipe.row_bits, group[STRING_MASK], lane, weights, recipe.index, team.member, team.size,
        group[STRING_INDEX], group[STRING_INDEX + 1], second_table, recipe.parts, group[STRING_ODD], int(lane != 0),
    )  # fmt: skip


@inlined
def add_row(target: Any, column: int, tile: int, row: Any, coef: float, lane_bits: int, signs: int) -> None:
    """Add ``coef * row`` (lanes,) to a column of the tile's samples; lanes of one sample add up with their signs."""
    if lane_bits:
        for lane in range(row.size):
            target[tile, column] += -coef * row[lane] if odd_lane(lane, signs) else coef * row[lane]
    else:
        first = tile * row.size
        for lane in range(min(row.size, target.shape[0] - first)):
            target[first + lane, column] += coef * row[lane]


@inlined
def _values(state: Any, recipe: Recipe, work: Workspace, values: Any, tile: int, team: Team) -> None:
    """values[sample, m] for the samples of the tile."""
    lanes, sums = work.scale.size, work.factors
    start, observable, coefs = recipe.mask_start, recipe.mask_observable, recipe.mask_coef
    simd.square_row(work.square, work.scale)
    for g in range(recipe.groups.shape[0]):
        group = recipe.groups[g]
        first, second = group[STRING_COUNTS], group[STRING_COUNTS + 1]
        _weigh(state, group, recipe, work, team)
        fill(sums, (first + second) * lanes, 0.0)
        reduce_weights(sums, work.weights, first, second)
        simd.scale_rows(sums, 0, first + second, work.square, 0)
        for j in range(first + second):
            mask, row = group[STRING_FIRST] + j, sums[j * lanes : (j + 1) * lanes]
            for entry in range(start[mask], start[mask + 1]):
                column, signs = observable[entry], recipe.mask_lanes[mask]
                add_row(values, column, tile, row, coefs[entry], recipe.lane_bits, signs)


@jit
def _build_factors(group: Any, recipe: Recipe, work: Workspace, cotangent: Any, tile: int) -> None:
    """Tables of sum_j +-f_j with f_j = sum_m coef_jm cotangent_m, over the parities of the group's masks."""
    lanes, table, factor, lane_bits = work.scale.size, work.weights, work.factors, recipe.lane_bits
    start, observable, coefs = recipe.mask_start, recipe.mask_observable, recipe.mask_coef
    base, mask = 0, group[STRING_FIRST]
    for which in range(2):
        count = group[STRING_COUNTS + which]
        for lane in range(lanes):
            table[base * lanes + lane] = 0.0
        for j in range(count):
            for lane in range(lanes):
                sample = tile if lane_bits else min(tile * lanes + lane, cotangent.shape[0] - 1)
                total = 0.0
                for entry in range(start[mask + j], start[mask + j + 1]):
                    total += coefs[entry] * cotangent[sample, observable[entry]]
                if lane_bits and odd_lane(lane, recipe.mask_lanes[mask + j]):
                    total = -total
                factor[lane] = total
            for v in range(1 << j):
                simd.split_row(table, base + v, base + v + (1 << j), factor, 0)
        mask += count
        base += 1 << count


@inlined
def observe(state: Any, target: Any, recipe: Recipe, work: Workspace, cotangent: Any, tile: int, team: Team) -> None:
    """target <- sum_m cotangent_m O_m state."""
    index, factors, parts, bits = recipe.index, work.weights, recipe.parts, recipe.row_bits
    member, size = team.member, team.size
    if recipe.groups.shape[0] == 0 and member == 0:
        fill(target, (parts << bits) * work.scale.size, 0.0)
    for g in range(recipe.groups.shape[0]):
        group = recipe.groups[g]
        _build_factors(group, recipe, work, cotangent, tile)
        second_table, lane = 1 << group[STRING_COUNTS], group[STRING_LANES]
        tables.observe_rows(
            state, target, bits, group[STRING_MASK], lane, factors, index, member, size,
            group[STRING_INDEX], group[STRING_INDEX + 1], second_table, int(g == 0), parts, group[STRING_ODD],
            int(lane != 0),
        )  # fmt: skip


@inlined
def start_state(state: Any, initial: Any, recipe: Recipe, work: Workspace, tile: int) -> None:
    """|0...0>, or the given amplitudes (samples or 1, amplitudes * parts)."""
    lanes, parts = work.scale.size, recipe.parts
    fill(work.scale, work.scale.size, 1.0)
    if initial.shape[0] == 0:
        # Rows beyond the first are written before they are read, when the support grows into them.
        fill(state, parts * lanes, 0.0)
        fill(state, 1 if recipe.lane_bits else lanes, 1.0)
    elif recipe.lane_bits:
        sample = min(tile, initial.shape[0] - 1)
        for i in range(initial.shape[1]):
            amplitude, part = i // parts, i % parts
            state[(amplitude // lanes * parts + part) * lanes + amplitude % lanes] = initial[sample, i]
    else:
        for lane in range(lanes):
            sample = min(tile * lanes + lane, initial.shape[0] - 1)
            for i in range(initial.shape[1]):
                state[i * lanes + lane] = initial[sample, i]


@jit
def evaluate(
    recipe: Recipe,
    scratch: Scratch,
    angles: np.ndarray,  # (samples, angles)
    initial: np.ndarray,  # (samples or 1 or 0, amplitudes * parts)
    states: np.ndarray,  # (tiles kept or 1, rows * parts * lanes + lanes + 3 * slots * lanes)
    values: np.ndarray,  # (samples, observables), zeros
    first: int,
    last: int,
    tiny: float,
    team: Team,
) -> None:
    """Expectation values of tiles first .. last.

    Their final states stay in ``states``, with their scales, and the cosines, sines and tangents of the angles.
    """
    simd.atomic_increment(team.started)
    size = (recipe.parts << recipe.row_bits) * scratch.scale.size
    for tile in range(first, last):
        state = states[min(tile - first, states.shape[0] - 1)]
        work = workspace(scratch, state, size)
        if team.member == 0:
            prepare(recipe, work, angles, tile)
            start_state(state, initial, recipe, work, tile)
        fill(work.scale, work.scale.size, 1.0)
        together(team)
        sweep_forward(recipe, work, state, tiny, team)
        _values(state, recipe, work, values, tile, team)
        together(team)
        if team.member == 0:
            simd.copy_row(state, size // work.scale.size, work.scale, 0)


@inlined
def collect(recipe: Recipe, work: Workspace, gradient: Any, tile: int) -> None:
    """gradient[sample, angle] += the sums of its slots."""
    lanes, start, source, coef = work.scale.size, recipe.slot_start, recipe.slot_angle, recipe.slot_coef
    for slot in range(recipe.slot_offset.size):
        row, signs = work.sums[slot * lanes : (slot + 1) * lanes], recipe.slot_lanes[slot]
        for j in range(start[slot], start[slot + 1]):
            add_row(gradient, source[j], tile, row, coef[j], recipe.lane_bits, signs)


@inlined
def collect_initial(recipe: Recipe, work: Workspace, seed: Any, gradient: Any, tile: int) -> None:
    """gradient[sample, amplitude part] = 2 * cotangent, where |state> = circuit |initial>."""
    lanes, parts = work.scale.size, recipe.parts
    if recipe.lane_bits:
        for i in range(gradient.shape[1]):
            amplitude, part = i // parts, i % parts
            where = (amplitude // lanes * parts + part) * lanes + amplitude % lanes
            gradient[tile, i] = 2.0 * seed[where] * work.scale[0]
    else:
        for lane in range(min(lanes, gradient.shape[0] - tile * lanes)):
            for i in range(gradient.shape[1]):
                gradient[tile * lanes + lane, i] = 2.0 * seed[i * lanes + lane] * work.scale[lane]


@jit
def differentiate(
    recipe: Recipe,
    scratch: Scratch,
    states: np.ndarray,  # (tiles, rows * parts * lanes + lanes + 3 * slots * lanes) from `evaluate`, consumed
    cotangent: np.ndarray,  # (samples, observables)
    seeds: np.ndarray,  # (tiles or 1, rows * parts * lanes or more): scratch, or O|state> itself where seeded
    seeded: bool,
    gradient: np.ndarray,  # (samples, angles), zeros
    initial_gradient: np.ndarray,  # (samples or 0, amplitudes * parts)
    first: int,
    last: int,
    tiny: float,
    team: Team,
) -> None:
    """Reverse sweep over tiles first .. last: derivative of sum(cotangent * values) by every angle."""
    simd.atomic_increment(team.started)
    size = (recipe.parts << recipe.row_bits) * scratch.scale.size
    for tile in range(first, last):
        state = states[tile - first]
        seed = seeds[min(tile - first, seeds.shape[0] - 1)]
        work = workspace(scratch, state, size)
        simd.copy_row(work.scale, 0, state, size // work.scale.size)
        if not seeded:
            observe(state, seed, recipe, work, cotangent, tile, team)
        together(team)
        fill(work.sums, work.sums.size, 0.0)
        sweep_reverse(recipe, work, state, seed, tiny, team)
        collect(recipe, work, gradient, tile)
        if initial_gradient.shape[0] and team.member == 0:
            collect_initial(recipe, work, seed, initial_gradient, tile)
        together(team)
