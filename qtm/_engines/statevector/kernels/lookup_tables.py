"""Passes that look a number up for every row: phases of diagonal rotations, and observables.

The number belongs to the parities of the row under some masks. They are dealt into two tables, so that a few
dozen entries serve thousands of rows; entry ``index[low row] ^ index[high row]`` is the one of a row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.lane_rotations import column
from qtm._engines.statevector.kernels.recipe import (
    ALIKE,
    BITS,
    COSET_INDEX,
    COSETS,
    COUNT,
    FIRST_INDEX,
    FIRST_TILE,
    SECOND_INDEX,
    SECOND_TILE,
    TABLE_ROW,
)
from qtm._engines.statevector.kernels.simd import INT, Emit, Rows, step

LOW_BITS = 6  # rows are looked up as (high, low) with this many low bits
TABLE_VARIANTS = ((0,), (1,))  # whether there is a second table
# Parts, whether the imaginary part is meant, which real states do not have, and whether lanes are paired.
_STRING_VARIANTS = ((1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1), (2, 1, 0), (2, 1, 1))
_OBSERVE_VARIANTS = tuple((fresh, *variant) for fresh in (0, 1) for variant in _STRING_VARIANTS)


class _Lookup:
    """Entries of both tables for every row, in one loop over high and one over low rows."""

    def __init__(self, e: Emit, index: ir.Value, bits: Any, first: Any, second: Any, base: Any, two: int) -> None:
        self.e, self.index, self.offsets = e, index, [e.constant(o) for o in (first, second)[: 1 + two]]
        self.base = base  # where the second table begins
        b = e.builder
        small = b.icmp_signed("<", bits, e.constant(LOW_BITS))
        low_bits = b.select(small, bits, e.constant(LOW_BITS))
        self.low_rows, self.high_rows = e.power(low_bits), e.power(b.sub(bits, low_bits))

    def _entry(self, position: ir.Value) -> ir.Value:
        pointer = self.e.builder.gep(self.index, [position])
        return self.e.builder.sext(self.e.builder.load(pointer), ir.IntType(64))

    def each(self, body: Any, member: Any, team: Any) -> None:
        """Emit ``body(row, entries, copy)`` for every row that falls to ``member`` of a team of threads.

        ``copy`` is 0 and 1 in turn: rows that follow one another often have the same entry, and adding to it in
        memory would wait for the addition before.
        """
        e, b = self.e, self.e.builder
        start, stop = (b.sdiv(b.mul(self.high_rows, e.plus(member, j)), e.constant(team)) for j in (0, 1))
        with e.loop(stop, start) as high:
            far = [self._entry(e.plus(e.plus(o, self.low_rows), high.index)) for o in self.offsets]
            start = b.mul(high.index, self.low_rows)
            with e.loop(self.low_rows) as low:
                entries = [b.xor(f, self._entry(e.plus(o, low.index))) for f, o in zip(far, self.offsets, strict=True)]
                if len(entries) == 2:
                    entries[1] = e.plus(entries[1], self.base)
                body(b.add(start, low.index), entries, b.and_(low.index, e.constant(1)))


class TileLookup:
    """The same for the rows of one tile, which begins at row ``tile``."""

    def __init__(self, e: Emit, op: ir.Value, index: ir.Value, tile: Any, two: int) -> None:
        self.e, self.index, self.tile, self.op = e, index, tile, op
        b = e.builder
        bits, table = column(e, op, BITS), column(e, op, TABLE_ROW)
        small = b.icmp_signed("<", bits, e.constant(LOW_BITS))
        low_rows = e.power(b.select(small, bits, e.constant(LOW_BITS)))
        low = b.and_(tile, b.sub(low_rows, e.constant(1)))
        high = e.plus(low_rows, b.lshr(tile, e.constant(LOW_BITS)))
        tables = ((FIRST_INDEX, FIRST_TILE), (SECOND_INDEX, SECOND_TILE))[: 1 + two]
        self.within = [column(e, op, tile_column) for _, tile_column in tables]
        self.far = [
            b.xor(self._at(column(e, op, where), low), self._at(column(e, op, where), high)) for where, _ in tables
        ]
        self.bases = [table, e.plus(table, e.power(column(e, op, COUNT)))][: 1 + two]

    def _at(self, first: ir.Value, number: ir.Value) -> ir.Value:
        b = self.e.builder
        return b.sext(b.load(b.gep(self.index, [b.add(first, number)])), INT)

    def each(self, begin: Any, body: Any, end: Any) -> None:
        """Emit ``body(row, first)`` for rows that share ``first = begin(entries)``, then ``end(entries, first)``."""
        e, b = self.e, self.e.builder
        offset, alike = column(e, self.op, COSET_INDEX), column(e, self.op, ALIKE)
        with e.loop(column(e, self.op, COSETS)) as loop:
            entries = [
                e.plus(base, b.xor(far, self._at(within, loop.index)))
                for base, far, within in zip(self.bases, self.far, self.within, strict=True)
            ]
            first = begin(entries)
            start = b.add(offset, b.mul(loop.index, alike))
            with e.loop(alike) as rows:
                body(b.xor(self.tile, self._at(start, rows.index)), first)
            end(entries, first)


def pair(e: Emit, rows: Rows, row: Any) -> list:
    return [rows.load(e.vector_index(row, 2, part)) for part in range(2)]


def store(e: Emit, rows: Rows, row: Any, values: list) -> None:
    for part, value in enumerate(values):
        rows.store(value, e.vector_index(row, len(values), part))


def phase_of(e: Emit, table: Rows, entries: list) -> list:
    phase = pair(e, table, entries[0])
    return phase if len(entries) == 1 else e.cmul(phase, pair(e, table, entries[1]))


def add_at(e: Emit, weights: Rows, entries: list, copy: Any, weight: Any) -> None:
    for entry in entries:
        i = e.builder.or_(e.builder.shl(entry, e.constant(1)), copy)
        weights.store(e.add(weights.load(i), weight), i)


@intrinsic(prefer_literal=True)
def join_copies(typing, weights, count):
    """weights[v] <- weights[2 v] + weights[2 v + 1] for v < count."""

    def emit(e: Emit, weights: Rows, count: Any) -> None:
        with e.loop(count) as loop:
            i = e.builder.shl(loop.index, e.constant(1))
            weights.store(e.add(weights.load(i), weights.load(e.plus(i, 1))), loop.index)

    return step(emit, weights, count)


# --- Phases -----------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def begin_phases(typing, table, row, scale):
    """table[row] <- scale[0]; scale[0] <- 1."""

    def emit(e: Emit, table: Rows, row: Any, scale: Rows) -> None:
        store(e, table, row, [scale.load(0), e.splat(scale.type, 0.0)])
        scale.store(e.splat(scale.type, 1.0), 0)

    return step(emit, table, row, scale)


@intrinsic(prefer_literal=True)
def extend_phases(typing, table, first, count, cosine, sine, slot):
    """table[v + count] <- table[v] (c + i s); table[v] <- table[v] (c - i s), for ``count`` v from ``first``."""

    def emit(e: Emit, table: Rows, first: Any, count: Any, cosine: Rows, sine: Rows, slot: Any) -> None:
        phase = [cosine.load(slot), sine.load(slot)]
        with e.loop(count) as loop:
            row = e.plus(first, loop.index)
            value = pair(e, table, row)
            store(e, table, e.plus(row, count), e.cmul(phase, value))
            store(e, table, row, e.conj_mul(phase, value))

    return step(emit, table, first, count, cosine, sine, slot)


@intrinsic(prefer_literal=True)
def phase_rows(typing, state, bits, table, index, member, team, first, second, base, two):
    """p <- p * (product of the row's entries)."""

    def emit(e: Emit, state: Rows, bits: Any, table: Rows, index: Any, member: Any, team: Any, *lookup: Any) -> None:
        def body(row: Any, entries: list, copy: Any) -> None:
            store(e, state, row, e.cmul(phase_of(e, table, entries), pair(e, state, row)))

        _Lookup(e, index, bits, *lookup).each(body, member, team)

    return step(emit, state, bits, table, index, member, team, first, second, base, two, variants=TABLE_VARIANTS)


@intrinsic(prefer_literal=True)
def phase_tile(typing, state, op, table, index, tile, two):
    """`phase_rows` on the tile at row ``tile``."""

    def emit(e: Emit, state: Rows, op: Any, table: Rows, index: Any, tile: Any, two: int) -> None:
        def begin(entries: list) -> list:
            return phase_of(e, table, entries)

        def body(row: Any, phase: list) -> None:
            store(e, state, row, e.cmul(phase, pair(e, state, row)))

        def end(entries: list, phase: list) -> None:
            pass

        TileLookup(e, op, index, tile, two).each(begin, body, end)

    return step(emit, state, op, table, index, tile, two, variants=TABLE_VARIANTS)


@intrinsic(prefer_literal=True)
def phase_rows_adjoint(typing, state, cotangent, bits, table, weights, index, member, team, first, second, base, two):
    """Undo `phase_rows` on state p and cotangent q, adding Im(conj(q) p) to ``weights``."""

    def emit(e: Emit, state: Rows, cotangent: Rows, bits: Any, table: Rows, weights: Rows, index: Any, member: Any,
             team: Any, *lookup: Any) -> None:  # fmt: skip
        def body(row: Any, entries: list, copy: Any) -> None:
            add_at(e, weights, entries, copy, _turn_back(e, phase_of(e, table, entries), state, cotangent, row))

        _Lookup(e, index, bits, *lookup).each(body, member, team)

    return step(
        emit, state, cotangent, bits, table, weights, index, member, team, first, second, base, two,
        variants=TABLE_VARIANTS,
    )  # fmt: skip


@intrinsic(prefer_literal=True)
def phase_tile_adjoint(typing, state, cotangent, op, table, weights, index, tile, two):
    """`phase_rows_adjoint` on the tile at row ``tile``."""

    def emit(e: Emit, state: Rows, cotangent: Rows, op: Any, table: Rows, weights: Rows, index: Any, tile: Any,
             two: int) -> None:  # fmt: skip
        def begin(entries: list) -> tuple:
            return phase_of(e, table, entries), e.accumulator(e.splat(state.type, 0.0))

        def body(row: Any, first: tuple) -> None:
            phase, total = first
            total.set(e.add(total.get(), _turn_back(e, phase, state, cotangent, row)))

        def end(entries: list, first: tuple) -> None:
            add_at(e, weights, entries, e.constant(0), first[1].get())

        TileLookup(e, op, index, tile, two).each(begin, body, end)

    return step(emit, state, cotangent, op, table, weights, index, tile, two, variants=TABLE_VARIANTS)


def _turn_back(e: Emit, phase: list, state: Rows, cotangent: Rows, row: Any) -> ir.Value:
    """Undo a phase on a row of state p and cotangent q; return Im(conj(q) p)."""
    p, q = pair(e, state, row), pair(e, cotangent, row)
    store(e, state, row, e.conj_mul(phase, p))
    store(e, cotangent, row, e.conj_mul(phase, q))
    return e.fnma(q[1], p[0], e.mul(q[0], p[1]))


# --- Observables ------------------------------------------------------------------------------------------------


def _other(e: Emit, state: Rows, row: Any, mask: Any, lane: Any, parts: int, permute: int) -> list:
    other = e.builder.xor(row, e.constant(mask))
    values = [state.load(e.vector_index(other, parts, part)) for part in range(parts)]
    return [e.swap_lanes(v, e.constant(lane)) for v in values] if permute else values


def _weight(e: Emit, r: list, p: list, odd: int) -> ir.Value:
    """Re(conj(r) p), or the imaginary part."""
    if odd:
        return e.fnma(r[1], p[0], e.mul(r[0], p[1]))
    weight = e.mul(r[0], p[0])
    for a, b in zip(r[1:], p[1:], strict=True):
        weight = e.fma(a, b, weight)
    return weight


@intrinsic(prefer_literal=True)
def weigh_rows(typing, state, bits, mask, lane, weights, index, member, team, first, second, base, parts, odd, permute):
    """Add Re(conj(p_other) p_row), or its imaginary part if ``odd``, to ``weights`` at the row's entries."""

    def emit(e: Emit, state: Rows, bits: Any, mask: Any, lane: Any, weights: Rows, index: Any, member: Any, team: Any,
             first: Any, second: Any, base: Any, parts: int, odd: int, permute: int) -> None:  # fmt: skip
        def body(row: Any, entries: list, copy: Any) -> None:
            p = [state.load(e.vector_index(row, parts, part)) for part in range(parts)]
            r = _other(e, state, row, mask, lane, parts, permute)
            add_at(e, weights, entries, copy, _weight(e, r, p, odd))

        _Lookup(e, index, bits, first, second, base, 1).each(body, member, team)

    return step(
        emit, state, bits, mask, lane, weights, index, member, team, first, second, base, parts, odd, permute,
        variants=_STRING_VARIANTS,
    )  # fmt: skip


@intrinsic(prefer_literal=True)
def weigh_rows_tangent(
    typing, state, tangent, bits, mask, lane, weights, index, member, team, first, second, base, parts, odd, permute
):
    """What `weigh_rows` adds when the state p moves along its tangent d: conj(d_other) p_row + conj(p_other) d_row."""

    def emit(e: Emit, state: Rows, tangent: Rows, bits: Any, mask: Any, lane: Any, weights: Rows, index: Any,
             member: Any, team: Any, first: Any, second: Any, base: Any, parts: int, odd: int,
             permute: int) -> None:  # fmt: skip
        def body(row: Any, entries: list, copy: Any) -> None:
            p, d = ([rows.load(e.vector_index(row, parts, part)) for part in range(parts)] for rows in (state, tangent))
            r, s = (_other(e, rows, row, mask, lane, parts, permute) for rows in (state, tangent))
            add_at(e, weights, entries, copy, e.add(_weight(e, s, p, odd), _weight(e, r, d, odd)))

        _Lookup(e, index, bits, first, second, base, 1).each(body, member, team)

    return step(
        emit, state, tangent, bits, mask, lane, weights, index, member, team, first, second, base, parts, odd, permute,
        variants=_STRING_VARIANTS,
    )  # fmt: skip


@intrinsic(prefer_literal=True)
def observe_rows(
    typing,
    state,
    target,
    bits,
    mask,
    lane,
    factors,
    index,
    member,
    team,
    first,
    second,
    base,
    fresh,
    parts,
    odd,
    permute,
):
    """target_row += f p_other, or i f p_other if ``odd``; f is the sum of the row's entries of ``factors``.

    With ``fresh``, the target is not read: it counts as 0.
    """

    def emit(e: Emit, state: Rows, target: Rows, bits: Any, mask: Any, lane: Any, factors: Rows, index: Any,
             member: Any, team: Any, first: Any, second: Any, base: Any, fresh: int, parts: int,
             odd: int, permute: int) -> None:  # fmt: skip
        def body(row: Any, entries: list, copy: Any) -> None:
            f = e.add(factors.load(entries[0]), factors.load(entries[1]))
            p = _other(e, state, row, mask, lane, parts, permute)
            q = [e.splat(state.type, 0.0)] * parts
            if not fresh:
                q = [target.load(e.vector_index(row, parts, part)) for part in range(parts)]
            if odd:
                q = [e.fnma(f, p[1], q[0]), e.fma(f, p[0], q[1])]
            else:
                q = [e.fma(f, a, b) for a, b in zip(p, q, strict=True)]
            store(e, target, row, q)

        _Lookup(e, index, bits, first, second, base, 1).each(body, member, team)

    return step(
        emit, state, target, bits, mask, lane, factors, index, member, team, first, second, base, fresh, parts, odd,
        permute, variants=_OBSERVE_VARIANTS,
    )  # fmt: skip
