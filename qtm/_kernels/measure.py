"""Observables on a tile, and the two entry points of the engine: `evaluate` and `differentiate`.

Observables come grouped by the mask x of their Pauli strings (DESIGN: i^k X^x Z^z): one pass over the rows per
group gives the values of all its strings, however many observables they belong to, by summing into tables
over the parities of the masks z.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import simd
from .cpu import (
    LOW_BITS,
    Recipe,
    Workspace,
    _clear,
    _prepare,
    _reduce_weights,
    _square_scale,
    jit,
    sweep_forward,
    sweep_reverse,
)


@jit
def _weigh(state: Any, group: Any, recipe: Recipe, work: Workspace) -> None:
    """Sum conj(p_{i^x}) p_i (real or imaginary part) over the rows, into the tables of the group."""
    x, odd, second, first_index, second_index = group[0], group[1], 1 << group[3], group[5], group[6]
    index, weights, parts = recipe.index, work.weights, recipe.parts
    _clear(weights, (second + (1 << group[4])) * work.scale.size)
    low_rows = 1 << min(recipe.row_bits, LOW_BITS)
    for high in range(1 << max(recipe.row_bits - LOW_BITS, 0)):
        a, b = index[first_index + low_rows + high], index[second_index + low_rows + high]
        for low in range(low_rows):
            row = high * low_rows + low
            i, j = a ^ index[first_index + low], (b ^ index[second_index + low]) + second
            if odd:
                simd.weigh_row(state, row, row ^ x, 2, 1, weights, i, j, 2)
            elif parts == 2:
                simd.weigh_row(state, row, row ^ x, 2, 0, weights, i, j, 2)
            else:
                simd.weigh_row(state, row, row ^ x, 1, 0, weights, i, j, 2)


@jit
def _values(state: Any, recipe: Recipe, work: Workspace, values: Any, tile: int) -> None:
    """values[sample, m] for the samples of the tile."""
    lanes, sums, square = work.scale.size, work.factors, work.square
    start, observable, coefs = recipe.mask_start, recipe.mask_observable, recipe.mask_coef
    samples = min(lanes, values.shape[0] - tile * lanes)
    _square_scale(work)
    for g in range(recipe.groups.shape[0]):
        group = recipe.groups[g]
        count = group[3] + group[4]
        _weigh(state, group, recipe, work)
        _clear(sums, count * lanes)
        _reduce_weights(sums, 0, work.weights, group[3], group[4])
        for j in range(count):
            for entry in range(start[group[2] + j], start[group[2] + j + 1]):
                m, coef = observable[entry], coefs[entry]
                for lane in range(samples):
                    values[tile * lanes + lane, m] += coef * sums[j * lanes + lane] * square[lane]


@jit
def _build_factors(group: Any, recipe: Recipe, work: Workspace, cotangent: Any, tile: int) -> None:
    """Tables of sum_j +-f_j with f_j = sum_m coef_jm cotangent_m, over the parities of the group's masks."""
    lanes, table, factor = work.scale.size, work.weights, work.factors
    start, observable, coefs = recipe.mask_start, recipe.mask_observable, recipe.mask_coef
    base, mask = 0, group[2]
    for which in range(2):
        count = group[3 + which]
        for lane in range(lanes):
            table[base * lanes + lane] = 0.0
        for j in range(count):
            for lane in range(lanes):
                sample = min(tile * lanes + lane, cotangent.shape[0] - 1)
                total = 0.0
                for entry in range(start[mask + j], start[mask + j + 1]):
                    total += coefs[entry] * cotangent[sample, observable[entry]]
                factor[lane] = total
            for v in range(1 << j):
                simd.split_row(table, base + v, base + v + (1 << j), factor, 0)
        mask += count
        base += 1 << count


@jit
def _observe(state: Any, target: Any, recipe: Recipe, work: Workspace, cotangent: Any, tile: int) -> None:
    """target <- sum_m cotangent_m O_m state."""
    index, factors, parts = recipe.index, work.weights, recipe.parts
    _clear(target, (parts << recipe.row_bits) * work.scale.size)
    low_rows = 1 << min(recipe.row_bits, LOW_BITS)
    for g in range(recipe.groups.shape[0]):
        group = recipe.groups[g]
        _build_factors(group, recipe, work, cotangent, tile)
        x, odd, second, first_index, second_index = group[0], group[1], 1 << group[3], group[5], group[6]
        for high in range(1 << max(recipe.row_bits - LOW_BITS, 0)):
            a, b = index[first_index + low_rows + high], index[second_index + low_rows + high]
            for low in range(low_rows):
                row = high * low_rows + low
                i, j = a ^ index[first_index + low], (b ^ index[second_index + low]) + second
                if odd:
                    simd.observe_row(state, target, row, row ^ x, 2, 1, factors, i, j, 2)
                elif parts == 2:
                    simd.observe_row(state, target, row, row ^ x, 2, 0, factors, i, j, 2)
                else:
                    simd.observe_row(state, target, row, row ^ x, 1, 0, factors, i, j, 2)


@jit
def _start(state: Any, initial: Any, recipe: Recipe, work: Workspace, tile: int) -> None:
    """|0...0>, or the given amplitudes (samples or 1, rows * parts)."""
    lanes = work.scale.size
    work.scale[:] = 1.0
    if initial.shape[0] == 0:
        # Rows beyond the first are written before they are read, when the support grows into them.
        _clear(state, recipe.parts * lanes)
        state[:lanes] = 1.0
        return
    for lane in range(lanes):
        sample = min(tile * lanes + lane, initial.shape[0] - 1)
        for i in range(initial.shape[1]):
            state[i * lanes + lane] = initial[sample, i]


@jit
def _forward(
    recipe: Recipe, work: Workspace, angles: Any, initial: Any, state: Any, tile: int, tiny: tuple[float, float]
) -> None:
    size = (recipe.parts << recipe.row_bits) * work.scale.size
    _prepare(recipe, work, angles, tile)
    _start(state, initial, recipe, work, tile)
    sweep_forward(recipe, work, state, tiny[0], tiny[1])
    state[size:] = work.scale


@jit
def evaluate(
    recipe: Recipe,
    work: Workspace,
    angles: np.ndarray,  # (samples, angles)
    initial: np.ndarray,  # (samples or 1 or 0, rows * parts)
    states: np.ndarray,  # (tiles kept or 1, rows * parts * lanes + lanes)
    values: np.ndarray,  # (samples, observables), zeros
    first: int,
    last: int,
    tiny: tuple[float, float],
) -> None:
    """Expectation values of tiles first .. last; their final states stay in ``states``."""
    for tile in range(first, last):
        state = states[min(tile - first, states.shape[0] - 1)]
        _forward(recipe, work, angles, initial, state, tile, tiny)
        _values(state, recipe, work, values, tile)


@jit
def differentiate(
    recipe: Recipe,
    work: Workspace,
    angles: np.ndarray,  # (samples, angles)
    initial: np.ndarray,  # (samples or 1 or 0, rows * parts)
    states: np.ndarray,  # (tiles kept or 1, rows * parts * lanes + lanes), consumed
    known: bool,
    cotangent: np.ndarray,  # (samples, observables)
    seeds: np.ndarray,  # (tiles or 1, rows * parts * lanes): scratch, or O|state> itself where seeded
    seeded: bool,
    gradient: np.ndarray,  # (samples, angles), zeros
    initial_gradient: np.ndarray,  # (samples or 0, rows * parts)
    first: int,
    last: int,
    tiny: tuple[float, float],
) -> None:
    """Reverse sweep over tiles first .. last: derivative of sum(cotangent * values) by every angle."""
    lanes = work.scale.size
    size = (recipe.parts << recipe.row_bits) * lanes
    for tile in range(first, last):
        state = states[min(tile - first, states.shape[0] - 1)]
        if known:
            _prepare(recipe, work, angles, tile)
            work.scale[:] = state[size:]
        else:
            _forward(recipe, work, angles, initial, state, tile, tiny)
        seed = seeds[min(tile - first, seeds.shape[0] - 1)]
        if not seeded:
            _observe(state, seed, recipe, work, cotangent, tile)
        _clear(work.sums, work.sums.size)
        sweep_reverse(recipe, work, state, seed, tiny[0], tiny[1])
        samples = min(lanes, angles.shape[0] - tile * lanes)
        sums, start, source, coef = work.sums, recipe.slot_start, recipe.slot_angle, recipe.slot_coef
        for lane in range(samples):
            for slot in range(recipe.slot_offset.size):
                for j in range(start[slot], start[slot + 1]):
                    gradient[tile * lanes + lane, source[j]] += coef[j] * sums[slot * lanes + lane]
        if initial_gradient.shape[0]:
            for lane in range(samples):
                for i in range(initial_gradient.shape[1]):
                    value = seed[i * lanes + lane] * work.scale[lane]
                    initial_gradient[tile * lanes + lane, i] = 2.0 * value
