"""Passes of real rotations over a state, forward and reverse.

A rotation by a about a generator with masks (x, w) turns every pair of amplitudes (i, i ^ x):

    p_i <- cos(a/2) p_i - (-1)^popcount(i & w) sin(a/2) p_{i ^ x}.

Up to three that commute are done in one pass, the rows of a coset of their masks in registers. The cosines are
divided out: 2 multiply-adds per pair and part instead of 4, and 6 in reverse (2 on each state, 2 for the sum).
Rows are numbered without the bits that are lanes; ``lane`` masks say which lanes a generator pairs, and the
signs over the lanes are in the vectors of tangents and sines. A generator that pairs lanes of the same row has an
operation of its own: there the partner of a row is itself with its lanes swapped.

Passes go tile by tile: a tile is the coset of a row under some 2^TILE_BITS combinations of masks, small enough to
stay in the cache while several groups of rotations are done on it.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.lane_rotations import (
    LANES_MOVE,
    LANES_PAIR,
    LANES_STAY,
    PARTS,
    column,
    columns,
    share,
)
from qtm._engines.statevector.kernels.recipe import (
    BITS,
    COSET_INDEX,
    COSETS,
    LANES,
    MASKS,
    MAX_GENERATORS,
    PIVOTS,
    SIGNS,
    SLOT,
)
from qtm._engines.statevector.kernels.simd import INT, Emit, Rows, step

# What is compiled in: whether rows are real or complex, and further choices; a recipe picks one at run time.
_PASS_VARIANTS = (  # generators, parts, what becomes of the lanes
    *product(range(1, MAX_GENERATORS + 1), PARTS, (LANES_STAY, LANES_MOVE)),
    *product((1,), PARTS, (LANES_PAIR,)),
)
_FULL_VARIANTS = tuple(product(PARTS, (0, 1)))  # parts, whether the support doubles


def _pairs(count: int, bit: int) -> list[tuple[int, int]]:
    return [(s, s | 1 << bit) for s in range(1 << count) if not s >> bit & 1]


class _Group:
    """The rotations of one operation: their masks, and the cosets of rows they mix in one tile."""

    def __init__(self, e: Emit, op: ir.Value, base: Any, index: ir.Value, count: int, permute: int) -> None:
        self.e, self.count, self.permute, self.within = e, count, permute, permute == LANES_PAIR
        self.masks, self.signs = columns(e, op, MASKS, count), columns(e, op, SIGNS, count)
        self.lanes, self.base = columns(e, op, LANES, count), base
        self.slot, self.cosets = column(e, op, SLOT), column(e, op, COSETS)
        self.index = e.builder.gep(index, [column(e, op, COSET_INDEX)])

    def rows(self, number: ir.Value) -> tuple[list, list]:
        """Rows of a coset (subset s of the generators at position s), and the sign bit of each generator."""
        b = self.e.builder
        row = b.xor(self.base, b.sext(b.load(b.gep(self.index, [number])), INT))
        odd = [self.e.odd(b.and_(row, w)) for w in self.signs]
        if not self.permute:
            # Each generator's signs depend on its own mask alone: the row where all are plus comes first.
            for bit, mask in zip(odd, self.masks, strict=True):
                row = b.xor(row, b.and_(mask, b.neg(bit)))
        return self.e.coset(row, [] if self.within else self.masks), odd

    def aligned(self, rows: Rows, where: list) -> list:
        return [self.turn(rows.load(i), s) for s, i in enumerate(where)]

    def turn(self, value: ir.Value, subset: int) -> ir.Value:
        """Bring the lanes of a row to those of the coset's first row, or back."""
        if not self.permute or not subset:
            return value
        mask = self.e.constant(0)
        for b in range(self.count):
            if subset >> b & 1:
                mask = self.e.builder.xor(mask, self.lanes[b])
        return self.e.swap_lanes(value, mask)


@intrinsic(prefer_literal=True)
def rotate(typing, state, op, tangent, base, index, count, parts, permute):
    """p0, p1 <- p0 - t p1, p1 + t p0 for ``count`` generators on every coset of the tile at row ``base``."""

    def emit(e: Emit, state: Rows, op: Any, tangent: Rows, base: Any, index: Any, count: int, parts: int,
             permute: int) -> None:  # fmt: skip
        group = _Group(e, op, base, index, count, permute)
        tangents = [tangent.load(e.plus(group.slot, b)) for b in range(count)]
        with e.loop(group.cosets) as loop:
            rows, odd = group.rows(loop.index)
            t = [e.mul(v, e.sign(o, v.type)) for v, o in zip(tangents, odd, strict=True)] if permute else tangents
            for part in range(parts):
                where = [e.vector_index(r, parts, part) for r in rows]
                p = group.aligned(state, where)
                _turn(e, group, p, t)
                for s, i in enumerate(where):
                    state.store(group.turn(p[s], s), i)

    return step(emit, state, op, tangent, base, index, count, parts, permute, variants=_PASS_VARIANTS)


@intrinsic(prefer_literal=True)
def rotate_adjoint(typing, state, cotangent, op, tangent, sums, base, index, count, parts, permute):
    """Undo `rotate` on state p and cotangent q, adding <q|(-iQ)|p> of each generator to ``sums``."""

    def emit(e: Emit, state: Rows, cotangent: Rows, op: Any, tangent: Rows, sums: Rows, base: Any, index: Any,
             count: int, parts: int, permute: int) -> None:  # fmt: skip
        group = _Group(e, op, base, index, count, permute)
        slots = [e.plus(group.slot, b) for b in range(count)]
        tangents = [tangent.load(slot) for slot in slots]
        zero = e.splat(state.type, 0.0)
        # Each part has sums of its own, in registers: an addition to the last one would wait for it.
        held = [[e.accumulator(zero) for _ in slots] for _ in range(1 if permute else parts)]
        with e.loop(group.cosets) as loop:
            rows, odd = group.rows(loop.index)
            t = _signed(e, tangents, odd, permute)
            for part in range(parts):
                where = [e.vector_index(r, parts, part) for r in rows]
                p, q = group.aligned(state, where), group.aligned(cotangent, where)
                for b in reversed(range(count)):
                    own = held[part % len(held)][b]
                    total = _undo(e, group, b, t[b], p, q, zero if permute else own.get())
                    own.set(e.fma(total, e.sign(odd[b], total.type), own.get()) if permute else total)
                for s, i in enumerate(where):
                    state.store(group.turn(p[s], s), i)
                    cotangent.store(group.turn(q[s], s), i)
                e.fence()
        for b, slot in enumerate(slots):
            value = sums.load(slot)
            for of_part in held:
                value = e.add(value, of_part[b].get())
            sums.store(value, slot)

    return step(emit, state, cotangent, op, tangent, sums, base, index, count, parts, permute, variants=_PASS_VARIANTS)


def _undo(e: Emit, group: _Group, b: int, t: ir.Value, p: list, q: list, total: ir.Value) -> ir.Value:
    """Undo generator b on the rows p and q of a coset; ``total`` + <q|(-iQ)|p>."""
    if group.within:
        swapped = e.swap_lanes(p[0], group.lanes[0])
        total = e.fnma(q[0], swapped, total)
        p[0], q[0] = e.fma(t, swapped, p[0]), e.fma(t, e.swap_lanes(q[0], group.lanes[0]), q[0])
        return total
    for lo, hi in _pairs(group.count, b):
        total = e.fnma(q[lo], p[hi], e.fma(q[hi], p[lo], total))
        p[lo], p[hi] = e.fma(t, p[hi], p[lo]), e.fnma(t, p[lo], p[hi])
        q[lo], q[hi] = e.fma(t, q[hi], q[lo]), e.fnma(t, q[lo], q[hi])
        p[lo], p[hi], q[lo], q[hi], total = e.pin(p[lo], p[hi], q[lo], q[hi], total)
    return total


def _turn(e: Emit, group: _Group, rows: list, t: list, back: bool = False) -> None:
    """Rotate the rows of a coset about every generator, or undo that."""
    if group.within:
        swapped = e.swap_lanes(rows[0], group.lanes[0])
        rows[0] = e.fma(t[0], swapped, rows[0]) if back else e.fnma(t[0], swapped, rows[0])
        return
    for b in reversed(range(len(t))) if back else range(len(t)):
        for lo, hi in _pairs(len(t), b):
            if back:
                rows[lo], rows[hi] = e.fma(t[b], rows[hi], rows[lo]), e.fnma(t[b], rows[lo], rows[hi])
            else:
                rows[lo], rows[hi] = e.fnma(t[b], rows[hi], rows[lo]), e.fma(t[b], rows[lo], rows[hi])


def _add(e: Emit, group: _Group, target: list, source: list, h: list) -> None:
    """q0, q1 <- q0 - h p1, q1 + h p0: what turning p by small angles 2 h adds."""
    if group.within:
        target[0] = e.fnma(h[0], e.swap_lanes(source[0], group.lanes[0]), target[0])
        return
    for b in range(len(h)):
        for lo, hi in _pairs(len(h), b):
            target[lo] = e.fnma(h[b], source[hi], target[lo])
            target[hi] = e.fma(h[b], source[lo], target[hi])


@intrinsic(prefer_literal=True)
def rotate_tangent(typing, state, tangent, op, tan, half, base, index, count, parts, permute):
    """`rotate` state p and tangent d, and add to d what turning p by small angles 2 h adds."""

    def emit(e: Emit, state: Rows, tangent: Rows, op: Any, tan: Rows, half: Rows, base: Any, index: Any, count: int,
             parts: int, permute: int) -> None:  # fmt: skip
        group = _Group(e, op, base, index, count, permute)
        plain = [[rows.load(e.plus(group.slot, b)) for b in range(count)] for rows in (tan, half)]
        with e.loop(group.cosets) as loop:
            rows, odd = group.rows(loop.index)
            t, h = (_signed(e, values, odd, permute) for values in plain)
            for part in range(parts):
                where = [e.vector_index(r, parts, part) for r in rows]
                p, d = group.aligned(state, where), group.aligned(tangent, where)
                _turn(e, group, p, t)
                _turn(e, group, d, t)
                _add(e, group, d, p, h)
                for s, i in enumerate(where):
                    state.store(group.turn(p[s], s), i)
                    tangent.store(group.turn(d[s], s), i)
                e.fence()

    return step(emit, state, tangent, op, tan, half, base, index, count, parts, permute, variants=_PASS_VARIANTS)


def _signed(e: Emit, values: list, odd: list, permute: int) -> list:
    return [e.mul(v, e.sign(o, v.type)) for v, o in zip(values, odd, strict=True)] if permute else values


def _add_sums(e: Emit, group: _Group, total: list, p: list, q: list) -> None:
    """Add <q|(-iQ)|p> of each generator Q."""
    if group.within:
        total[0] = e.fnma(q[0], e.swap_lanes(p[0], group.lanes[0]), total[0])
        return
    for b in range(len(total)):
        for lo, hi in _pairs(len(total), b):
            total[b] = e.fnma(q[lo], p[hi], e.fma(q[hi], p[lo], total[b]))


@intrinsic(prefer_literal=True)
def rotate_tangent_adjoint(
    typing, state, tangent, cotangent, dual, op, tan, half, sums, base, index, count, parts, permute
):
    """Undo `rotate_tangent` on state p with tangent d, and on cotangent q with tangent m (``dual``); h is negative.

    The sums <m|(-iQ)|p> + <q|(-iQ)|d> of all generators are taken before any is undone, because all rows together do
    not fit the registers. Undoing a generator multiplies the sums of those before it by 1 + t^2.
    """

    def emit(e: Emit, state: Rows, tangent: Rows, cotangent: Rows, dual: Rows, op: Any, tan: Rows, half: Rows,
             sums: Rows, base: Any, index: Any, count: int, parts: int, permute: int) -> None:  # fmt: skip
        group = _Group(e, op, base, index, count, permute)
        slots = [e.plus(group.slot, b) for b in range(count)]
        plain = [[rows.load(slot) for slot in slots] for rows in (tan, half)]
        grown = [e.splat(state.type, 1.0)] * count
        for b in reversed(range(count - 1)):
            later = plain[0][b + 1]
            grown[b] = e.fma(e.mul(later, later), grown[b + 1], grown[b + 1])
        held = [e.accumulator(e.splat(state.type, 0.0)) for _ in slots]
        with e.loop(group.cosets) as loop:
            rows, odd = group.rows(loop.index)
            signs = [e.sign(o, state.type) for o in odd]
            t, h = (_signed(e, values, odd, permute) for values in plain)
            for part in range(parts):
                where = [e.vector_index(r, parts, part) for r in rows]
                p, d = group.aligned(state, where), group.aligned(tangent, where)
                total = [e.splat(state.type, 0.0)] * count
                _add_sums(e, group, total, p, group.aligned(dual, where))
                _add_sums(e, group, total, d, group.aligned(cotangent, where))
                for b in range(count):
                    value = held[b].get()
                    held[b].set(e.fma(total[b], signs[b], value) if permute else e.add(total[b], value))
                for first, second in ((state, tangent), (cotangent, dual)):
                    p, d = (p, d) if first is state else (group.aligned(first, where), group.aligned(second, where))
                    _add(e, group, d, p, h)
                    _turn(e, group, p, t, back=True)
                    _turn(e, group, d, t, back=True)
                    for s, i in enumerate(where):
                        first.store(group.turn(p[s], s), i)
                        second.store(group.turn(d[s], s), i)
                    e.fence()
        for accumulator, slot, factor in zip(held, slots, grown, strict=True):
            sums.store(e.fma(accumulator.get(), factor, sums.load(slot)), slot)

    return step(
        emit, state, tangent, cotangent, dual, op, tan, half, sums, base, index, count, parts, permute,
        variants=_PASS_VARIANTS,
    )  # fmt: skip


# --- One rotation in full (cosine and sine) ---------------------------------------------------------------------


class _Single:
    """One generator of an operation: pairs of rows."""

    def __init__(self, e: Emit, op: ir.Value, which: Any, grow: int) -> None:
        self.e, self.grow = e, grow
        b = e.builder
        mask, sign, pivot, lane = (b.load(b.gep(op, [e.plus(which, first)])) for first in (MASKS, SIGNS, PIVOTS, LANES))
        self.mask, self.sign, self.pivot, self.lane = mask, sign, pivot, lane
        self.slot = e.plus(column(e, op, SLOT), which)
        bits = column(e, op, BITS)
        self.count = e.power(bits if grow else b.sub(bits, e.constant(1)))

    def share(self, member: Any, team: Any) -> Any:
        return share(self.e, self.count, member, team)

    def rows(self, number: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Both rows of a pair, and the sign bit of the first."""
        row = number if self.grow else self.e.deposit(number, self.pivot)
        odd = self.e.odd(self.e.builder.and_(row, self.sign))
        return row, self.e.builder.xor(row, self.mask), odd


@intrinsic(prefer_literal=True)
def rotate_full(typing, state, op, which, cosine, sine, member, team, parts, grow):
    """p0, p1 <- c p0 - s p1, s p0 + c p1 about generator ``which``; with ``grow``, p1 was zero and is not read."""

    def emit(e: Emit, state: Rows, op: Any, which: Any, cosine: Rows, sine: Rows, member: Any, team: Any, parts: int,
             grow: int) -> None:  # fmt: skip
        single = _Single(e, op, which, grow)
        c, plain = cosine.load(single.slot), sine.load(single.slot)
        with single.share(member, team) as loop:
            row, other, odd = single.rows(loop.index)
            s = e.mul(plain, e.sign(odd, plain.type))
            for part in range(parts):
                i, j = e.vector_index(row, parts, part), e.vector_index(other, parts, part)
                p0 = state.load(i)
                low, high = e.mul(c, p0), e.mul(s, p0)
                if not grow:
                    p1 = e.swap_lanes(state.load(j), single.lane)
                    low, high = e.fnma(s, p1, low), e.fma(c, p1, high)
                    high = e.swap_lanes(high, single.lane)
                state.store(low, i)
                state.store(high, j)

    return step(emit, state, op, which, cosine, sine, member, team, parts, grow, variants=_FULL_VARIANTS)


@intrinsic(prefer_literal=True)
def rotate_full_adjoint(typing, state, cotangent, op, which, cosine, sine, sums, member, team, parts, grow):
    """Undo `rotate_full` on both and add the generator's sum; with ``grow``, the rows that came into being are left."""

    def emit(e: Emit, state: Rows, cotangent: Rows, op: Any, which: Any, cosine: Rows, sine: Rows, sums: Rows,
             member: Any, team: Any, parts: int, grow: int) -> None:  # fmt: skip
        single = _Single(e, op, which, grow)
        c, plain = cosine.load(single.slot), sine.load(single.slot)
        held = e.accumulator(sums.load(single.slot))
        with single.share(member, team) as loop:
            row, other, odd = single.rows(loop.index)
            sign = e.sign(odd, plain.type)
            s, total = e.mul(plain, sign), e.splat(state.type, 0.0)
            for part in range(parts):
                i, j = e.vector_index(row, parts, part), e.vector_index(other, parts, part)
                p0, q0 = state.load(i), cotangent.load(i)
                p1, q1 = state.load(j), cotangent.load(j)
                if not grow:
                    p1, q1 = e.swap_lanes(p1, single.lane), e.swap_lanes(q1, single.lane)
                total = e.fnma(q0, p1, e.fma(q1, p0, total))
                state.store(e.fma(s, p1, e.mul(c, p0)), i)
                cotangent.store(e.fma(s, q1, e.mul(c, q0)), i)
                if not grow:
                    state.store(e.swap_lanes(e.fnma(s, p0, e.mul(c, p1)), single.lane), j)
                    cotangent.store(e.swap_lanes(e.fnma(s, q0, e.mul(c, q1)), single.lane), j)
            held.set(e.fma(total, sign, held.get()))
        sums.store(held.get(), single.slot)

    return step(
        emit, state, cotangent, op, which, cosine, sine, sums, member, team, parts, grow, variants=_FULL_VARIANTS
    )


@intrinsic(prefer_literal=True)
def add_generator(typing, target, source, op, which, half, member, team, parts, grow):
    """`add_generators` for generator ``which`` alone, on pairs as `rotate_full` leaves them."""

    def emit(e: Emit, target: Rows, source: Rows, op: Any, which: Any, half: Rows, member: Any, team: Any, parts: int,
             grow: int) -> None:  # fmt: skip
        single = _Single(e, op, which, grow)
        plain = half.load(single.slot)
        with single.share(member, team) as loop:
            row, other, odd = single.rows(loop.index)
            h = e.mul(plain, e.sign(odd, plain.type))
            for part in range(parts):
                i, j = e.vector_index(row, parts, part), e.vector_index(other, parts, part)
                p0, p1, q1 = source.load(i), source.load(j), target.load(j)
                if not grow:
                    p1, q1 = e.swap_lanes(p1, single.lane), e.swap_lanes(q1, single.lane)
                q1 = e.fma(h, p0, q1)
                target.store(e.fnma(h, p1, target.load(i)), i)
                target.store(q1 if grow else e.swap_lanes(q1, single.lane), j)

    return step(emit, target, source, op, which, half, member, team, parts, grow, variants=_FULL_VARIANTS)
