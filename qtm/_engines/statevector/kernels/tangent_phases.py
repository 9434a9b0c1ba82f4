"""Phases of states that have tangents, in the tiles of a pass; `tangent` has the formulas.

With s the sum of a row's halved directions, + where the parity under a mask is even, a phase turns the row's tangent d
and adds -i s p. Like the phases themselves, the sums of a row are made of entries of two tables.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from qtm._engines.statevector.kernels import simd
from qtm._engines.statevector.kernels.compilation import jit
from qtm._engines.statevector.kernels.lookup_tables import (
    TABLE_VARIANTS,
    TileLookup,
    add_at,
    pair,
    phase_of,
    store,
)
from qtm._engines.statevector.kernels.recipe import COUNT, KIND, PHASE, SECOND_COUNT, SLOT, TABLE_ROW
from qtm._engines.statevector.kernels.simd import Emit, Rows, step


@jit
def build_directions(ops: Any, half: Any, table: Any, first: int, last: int, lanes: int) -> None:
    """Tables of sum_j +-half_j over the parities of the masks, + where they are even, of the phases of a pass."""
    for number in range(first, last):
        if ops[number, KIND] == PHASE:
            slot, base = ops[number, SLOT], ops[number, TABLE_ROW]
            for count in (ops[number, COUNT], ops[number, SECOND_COUNT]):
                for lane in range(lanes):
                    table[base * lanes + lane] = 0.0
                for j in range(count):
                    for entry in range(base, base + (1 << j)):
                        simd.split_row(table, entry, entry + (1 << j), half, slot + j)
                slot += count
                base += 1 << count


def _direction(e: Emit, directions: Rows, entries: list) -> ir.Value:
    first, *second = [directions.load(entry) for entry in entries]
    return e.add(first, second[0]) if second else first


def _add_turned(e: Emit, target: list, source: list, direction: ir.Value) -> list:
    """target - i direction source."""
    return [e.fma(direction, source[1], target[0]), e.fnma(direction, source[0], target[1])]


@intrinsic(prefer_literal=True)
def phase_tile_tangent(typing, state, tangent, op, table, directions, index, tile, two):
    """`phase_tile` on state p and tangent d, then d <- d - i s p; s is the sum of the row's entries of directions."""

    def emit(e: Emit, state: Rows, tangent: Rows, op: Any, table: Rows, directions: Rows, index: Any, tile: Any,
             two: int) -> None:  # fmt: skip
        def begin(entries: list) -> tuple:
            return phase_of(e, table, entries), _direction(e, directions, entries)

        def body(row: Any, first: tuple) -> None:
            phase, direction = first
            p, d = (e.cmul(phase, pair(e, rows, row)) for rows in (state, tangent))
            store(e, state, row, p)
            store(e, tangent, row, _add_turned(e, d, p, direction))

        def end(entries: list, first: tuple) -> None:
            pass

        TileLookup(e, op, index, tile, two).each(begin, body, end)

    return step(emit, state, tangent, op, table, directions, index, tile, two, variants=TABLE_VARIANTS)


@intrinsic(prefer_literal=True)
def phase_tile_tangent_adjoint(
    typing, state, tangent, cotangent, dual, op, table, directions, weights, index, tile, two
):
    """Undo `phase_tile_tangent` on state p and tangent d, and on cotangent q and its tangent m (``dual``).

    Adds Im(conj(m) p + conj(q) d) to ``weights``; ``directions`` are of minus the direction.
    """

    def emit(e: Emit, state: Rows, tangent: Rows, cotangent: Rows, dual: Rows, op: Any, table: Rows, directions: Rows,
             weights: Rows, index: Any, tile: Any, two: int) -> None:  # fmt: skip
        def begin(entries: list) -> tuple:
            total = e.accumulator(e.splat(state.type, 0.0))
            return phase_of(e, table, entries), _direction(e, directions, entries), total

        def body(row: Any, first: tuple) -> None:
            phase, direction, total = first
            p, d, q, m = (pair(e, rows, row) for rows in (state, tangent, cotangent, dual))
            weight = e.fnma(m[1], p[0], e.fma(m[0], p[1], total.get()))
            total.set(e.add(weight, e.fnma(q[1], d[0], e.mul(q[0], d[1]))))
            d, m = _add_turned(e, d, p, direction), _add_turned(e, m, q, direction)
            for rows, values in ((state, p), (tangent, d), (cotangent, q), (dual, m)):
                store(e, rows, row, e.conj_mul(phase, values))

        def end(entries: list, first: tuple) -> None:
            add_at(e, weights, entries, e.constant(0), first[2].get())

        TileLookup(e, op, index, tile, two).each(begin, body, end)

    return step(
        emit, state, tangent, cotangent, dual, op, table, directions, weights, index, tile, two,
        variants=TABLE_VARIANTS,
    )  # fmt: skip
