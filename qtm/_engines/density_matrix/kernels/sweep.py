"""Sweeps over the coordinates of as many samples as a vector has lanes, forward and reverse.

Arrays in, arrays out; the GIL is not held and nothing is allocated. Cost of a rotation in real multiply-adds per pair
of rows: 4 forward; 10 in reverse, 4 to undo it on the state and on the cotangent each and 2 for its derivative. Half of
the rows rotate, in pairs.
"""

from __future__ import annotations

from typing import Any

from qtm._engines.density_matrix.kernels import vectors
from qtm._engines.density_matrix.kernels.recipe import ROTATE, SCALE, SHIFT, Recipe, Workspace
from qtm._engines.statevector.kernels import simd, sine_cosine
from qtm._engines.statevector.kernels.compilation import inlined, jit
from qtm._engines.statevector.kernels.sweep import LARGE


@jit
def _odd(mask: int) -> int:
    mask ^= mask >> 32
    mask ^= mask >> 16
    mask ^= mask >> 8
    mask ^= mask >> 4
    mask ^= mask >> 2
    return (mask ^ (mask >> 1)) & 1


@jit
def fill(array: Any, count: int, value: float) -> None:
    """Set the first numbers to a value."""
    for i in range(count):
        array[i] = value


@jit
def prepare(recipe: Recipe, work: Workspace, angles: Any, numbers: Any, tile: int) -> None:
    """Cosines and sines of the slots, and the numbers of the channels, for the samples of a tile."""
    lanes, slots = work.units.size // 2, recipe.slot_offset.size
    for lane in range(lanes):
        work.units[lane] = 1.0
        work.units[lanes + lane] = -1.0
        sample = min(tile * lanes + lane, angles.shape[0] - 1)
        for slot in range(slots):
            total = recipe.slot_offset[slot]
            for j in range(recipe.slot_start[slot], recipe.slot_start[slot + 1]):
                coef, angle = recipe.slot_coef[j], angles[sample, recipe.slot_angle[j]]
                # Reduced before the sum: a large term would round off the others, and its own sine.
                total += coef * angle if abs(coef * angle) < LARGE else sine_cosine.reduced_product(coef, angle)
            work.angles[slot * lanes + lane] = 2.0 * total
        row = min(sample, numbers.shape[0] - 1)
        for number in range(numbers.shape[1]):
            work.numbers[2 * number * lanes + lane] = numbers[row, number]
            work.numbers[(2 * number + 1) * lanes + lane] = -numbers[row, number]
    sine_cosine.half_angle_rows(work.cosine, work.spare, work.sums, work.angles, slots)
    for slot in range(slots):
        for lane in range(lanes):
            work.sine[2 * slot * lanes + lane] = work.spare[slot * lanes + lane]
            work.sine[(2 * slot + 1) * lanes + lane] = -work.spare[slot * lanes + lane]


@jit
def begin(recipe: Recipe, work: Workspace, state: Any, start: Any, tile: int) -> None:
    """Set the state before the first operation; a ``start`` without rows means |0...0>."""
    lanes = work.units.size // 2
    known = 1 << recipe.start_bits
    fill(state, lanes << recipe.row_bits, 0.0)
    if start.shape[0] == 0:
        fill(state, known * lanes, 1.0)
        return
    for lane in range(lanes):
        sample = min(tile * lanes + lane, start.shape[0] - 1)
        for row in range(known):
            state[row * lanes + lane] = start[sample, row]


@jit
def _open_tile(recipe: Recipe, work: Workspace, step: Any, number: int) -> int:
    """Rows of a tile, and the parities of their strings."""
    first = recipe.reps[step[2] + number]
    for i in range(step[0]):
        row = first ^ recipe.combs[step[1] + i]
        work.rows[i] = row
        work.parities[i] = recipe.parity[row]
    return first


@jit
def _ask_for(recipe: Recipe, state: Any, step: Any, number: int, lanes: int) -> None:
    """Prefetch the rows of the next tile, which are scattered over the state."""
    if number >= step[3]:
        return
    first = recipe.reps[step[2] + number]
    for i in range(step[0]):
        vectors.prefetch(state, (first ^ recipe.combs[step[1] + i]) * lanes)


@inlined
def _list(op: Any, first: int) -> int:
    """Column of the place of the pairs for a tile."""
    return 6 + 2 * (_odd(first & op[2]) | _odd(first & op[3]) << 1)


@jit
def _apply(recipe: Recipe, work: Workspace, op: Any, first: int, count: int) -> None:
    kind = op[0]
    if kind == ROTATE:
        place = _list(op, first)
        vectors.turn_pairs(
            work.state, recipe.pairs, op[place], op[place + 1], work.cosine, work.sine, op[1],
            work.parities, op[5], _odd(first & op[4]),
        )  # fmt: skip
    elif kind == SHIFT:
        place = _list(op, first)
        vectors.shift_pairs(
            work.state, recipe.pairs, op[place], op[place + 1], work.numbers, op[1],
            work.parities, op[5], _odd(first & op[4]),
        )  # fmt: skip
    elif kind == SCALE:
        vectors.scale_tile(work.state, work.rows, count, recipe.factors, op[2])
    else:
        vectors.scale_classes(work.state, work.rows, count, recipe.classes, op[2], work.numbers, op[1])


@jit
def _undo(recipe: Recipe, work: Workspace, op: Any, first: int, count: int) -> None:
    kind = op[0]
    if kind == ROTATE:
        place = _list(op, first)
        vectors.unturn_pairs(
            work.state, work.cotangent, recipe.pairs, op[place], op[place + 1], work.cosine, work.sine, work.units,
            work.sums, op[1], work.parities, op[5], _odd(first & op[4]),
        )  # fmt: skip
    elif kind == SHIFT:
        place = _list(op, first)
        vectors.unshift_pairs(
            work.state, work.cotangent, recipe.pairs, op[place], op[place + 1], work.numbers, work.by_numbers,
            work.units, op[1], work.parities, op[5], _odd(first & op[4]),
        )  # fmt: skip
    else:
        vectors.unscale_tile(work.state, work.cotangent, work.rows, count, recipe.factors, op[2])


@jit
def _undo_from_checkpoint(recipe: Recipe, work: Workspace, op: Any, count: int) -> None:
    """Undo a scale that is too small to divide by: the state before it is in the tile already."""
    if op[0] == SCALE:
        vectors.scale_tile(work.cotangent, work.rows, count, recipe.factors, op[2])
    else:
        vectors.unscale_classes(
            work.state, work.cotangent, work.rows, count, recipe.classes, op[2], work.numbers, work.by_numbers, op[1]
        )


@jit
def forward(recipe: Recipe, work: Workspace, state: Any, checkpoints: Any) -> None:
    """Run all passes on the state of one tile of samples; checkpoints are stored if there is room for them."""
    size, lanes = state.size, work.units.size // 2
    for number in range(recipe.passes.shape[0]):
        step = recipe.passes[number]
        if step[6] >= 0 and checkpoints.size:
            target = checkpoints[step[6] * size : (step[6] + 1) * size]
            for i in range(size):
                target[i] = state[i]
        for tile in range(step[3]):
            first = _open_tile(recipe, work, step, tile)
            vectors.gather(work.state, state, work.rows, step[0])
            _ask_for(recipe, state, step, tile + 1, lanes)
            for place in range(step[4], step[5]):
                _apply(recipe, work, recipe.ops[place], first, step[0])
            vectors.scatter(state, work.state, work.rows, step[0])


@jit
def reverse(recipe: Recipe, work: Workspace, state: Any, cotangent: Any, checkpoints: Any) -> None:
    """Undo all passes on the state and pull the cotangent back; derivatives are left in the workspace."""
    size, lanes = state.size, work.units.size // 2
    for number in range(recipe.passes.shape[0] - 1, -1, -1):
        step = recipe.passes[number]
        kept = step[6] >= 0
        for tile in range(step[3]):
            first = _open_tile(recipe, work, step, tile)
            vectors.gather(work.state, state, work.rows, step[0])
            vectors.gather(work.cotangent, cotangent, work.rows, step[0])
            _ask_for(recipe, state, step, tile + 1, lanes)
            _ask_for(recipe, cotangent, step, tile + 1, lanes)
            for place in range(step[5] - 1, step[4] - 1 + kept, -1):
                _undo(recipe, work, recipe.ops[place], first, step[0])
            if kept:
                vectors.gather(work.state, checkpoints[step[6] * size : (step[6] + 1) * size], work.rows, step[0])
                _undo_from_checkpoint(recipe, work, recipe.ops[step[4]], step[0])
            vectors.scatter(state, work.state, work.rows, step[0])
            vectors.scatter(cotangent, work.cotangent, work.rows, step[0])


@jit
def _measure(recipe: Recipe, state: Any, values: Any, tile: int, lanes: int) -> None:
    for lane in range(min(lanes, values.shape[0] - tile * lanes)):
        for value in range(values.shape[1]):
            total = 0.0
            for j in range(recipe.value_start[value], recipe.value_start[value + 1]):
                total += recipe.value_coef[j] * state[recipe.value_row[j] * lanes + lane]
            values[tile * lanes + lane, value] = total


@jit
def _seed(recipe: Recipe, target: Any, cotangent: Any, tile: int, lanes: int) -> None:
    fill(target, target.size, 0.0)
    for lane in range(min(lanes, cotangent.shape[0] - tile * lanes)):
        for value in range(cotangent.shape[1]):
            for j in range(recipe.value_start[value], recipe.value_start[value + 1]):
                target[recipe.value_row[j] * lanes + lane] += (
                    recipe.value_coef[j] * cotangent[tile * lanes + lane, value]
                )


@jit
def evaluate(
    recipe: Recipe, work: Workspace, angles: Any, numbers: Any, start: Any, states: Any, checkpoints: Any,
    values: Any, first: int, last: int, begun: Any,
) -> None:  # fmt: skip
    """Values (batch, values) of the samples of tiles ``first`` .. ``last``; one state for each tile, or one for all."""
    simd.atomic_increment(begun)
    lanes = work.units.size // 2
    for tile in range(first, last):
        place = min(tile - first, states.shape[0] - 1)
        state = states[place]
        prepare(recipe, work, angles, numbers, tile)
        begin(recipe, work, state, start, tile)
        forward(recipe, work, state, checkpoints[place])
        _measure(recipe, state, values, tile, lanes)


@jit
def differentiate(
    recipe: Recipe, work: Workspace, angles: Any, numbers: Any, start: Any, states: Any, checkpoints: Any,
    again: bool, cotangent: Any, pulled: Any, by_angles: Any, by_numbers: Any, by_start: Any,
    first: int, last: int, begun: Any,
) -> None:  # fmt: skip
    """Derivatives of ``sum(cotangent * values)``, from the states that `evaluate` left, or computed ``again``.

    ``by_numbers`` and ``by_start`` may have no rows: then they are not wanted. ``pulled`` is room for one state.
    """
    simd.atomic_increment(begun)
    lanes = work.units.size // 2
    for tile in range(first, last):
        place = min(tile - first, states.shape[0] - 1)
        state = states[place]
        prepare(recipe, work, angles, numbers, tile)
        if again:
            begin(recipe, work, state, start, tile)
            forward(recipe, work, state, checkpoints[place])
        _seed(recipe, pulled, cotangent, tile, lanes)
        fill(work.sums, work.sums.size, 0.0)
        fill(work.by_numbers, work.by_numbers.size, 0.0)
        reverse(recipe, work, state, pulled, checkpoints[place])
        _collect(recipe, work, pulled, by_angles, by_numbers, by_start, tile, lanes)


@jit
def _collect(
    recipe: Recipe, work: Workspace, pulled: Any, by_angles: Any, by_numbers: Any, by_start: Any, tile: int, lanes: int
) -> None:
    """Derivatives of a tile's samples, from lanes to rows."""
    for lane in range(min(lanes, by_angles.shape[0] - tile * lanes)):
        sample = tile * lanes + lane
        for slot in range(recipe.slot_offset.size):
            for j in range(recipe.slot_start[slot], recipe.slot_start[slot + 1]):
                by_angles[sample, recipe.slot_angle[j]] += recipe.slot_coef[j] * work.sums[slot * lanes + lane]
        if by_numbers.shape[0]:
            for number in range(by_numbers.shape[1]):
                by_numbers[sample, number] = work.by_numbers[number * lanes + lane]
        if by_start.shape[0]:
            for row in range(by_start.shape[1]):
                by_start[sample, row] = pulled[row * lanes + lane]
