"""Rotations that pair lanes of the same row, one at a time; `rotations` has those inside the tiles of others.

Every lane l of a row has lane ``l ^ lanes`` of the same row as its partner. The signs of the pairs are the parity of
the row under the generator's mask, and over the lanes they are in the vectors of sines and tangents.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.recipe import BITS, LANES, SIGNS, SLOT
from qtm._engines.statevector.kernels.simd import Emit, Rows, step

PARTS = (1, 2)  # what is compiled in: real or complex rows
# What becomes of the lanes: none of them moves; some move while their rows are paired; or they are paired within a row.
LANES_STAY, LANES_MOVE, LANES_PAIR = 0, 1, 2
_VARIANTS = tuple(product(PARTS))


# --- What all passes of rotations share --------------------------------------------------------------


def column(e: Emit, op: ir.Value, number: int) -> ir.Value:
    return e.builder.load(e.builder.gep(op, [e.constant(number)]))


def columns(e: Emit, op: ir.Value, first: int, count: int) -> list:
    return [column(e, op, first + j) for j in range(count)]


def share(e: Emit, count: Any, member: Any, team: Any) -> Any:
    """A loop over what falls to ``member`` of a team of threads."""
    start, stop = (e.builder.sdiv(e.builder.mul(count, e.plus(member, j)), e.constant(team)) for j in (0, 1))
    return e.loop(stop, start)


# --- One rotation in full (cosine and sine) -------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def rotate_lanes(typing, state, op, cosine, sine, member, team, parts):
    """p <- c p - s swap(p) on every row."""

    def emit(e: Emit, state: Rows, op: Any, cosine: Rows, sine: Rows, member: Any, team: Any, parts: int) -> None:
        slot, lane, sign = column(e, op, SLOT), column(e, op, LANES), column(e, op, SIGNS)
        c, plain = cosine.load(slot), sine.load(slot)
        with share(e, e.power(column(e, op, BITS)), member, team) as loop:
            s = e.mul(plain, e.sign(e.odd(e.builder.and_(loop.index, sign)), plain.type))
            for part in range(parts):
                i = e.vector_index(loop.index, parts, part)
                p = state.load(i)
                state.store(e.fnma(s, e.swap_lanes(p, lane), e.mul(c, p)), i)

    return step(emit, state, op, cosine, sine, member, team, parts, variants=_VARIANTS)


@intrinsic(prefer_literal=True)
def rotate_lanes_adjoint(typing, state, cotangent, op, cosine, sine, sums, member, team, parts):
    """Undo `rotate_lanes` on both and add the generator's sum."""

    def emit(e: Emit, state: Rows, cotangent: Rows, op: Any, cosine: Rows, sine: Rows, sums: Rows, member: Any,
             team: Any, parts: int) -> None:  # fmt: skip
        slot, lane, mask = column(e, op, SLOT), column(e, op, LANES), column(e, op, SIGNS)
        c, plain = cosine.load(slot), sine.load(slot)
        held = e.accumulator(sums.load(slot))
        with share(e, e.power(column(e, op, BITS)), member, team) as loop:
            sign = e.sign(e.odd(e.builder.and_(loop.index, mask)), plain.type)
            s, total = e.mul(plain, sign), e.splat(state.type, 0.0)
            for part in range(parts):
                i = e.vector_index(loop.index, parts, part)
                p, q = state.load(i), cotangent.load(i)
                swapped = e.swap_lanes(p, lane)
                total = e.fnma(q, swapped, total)
                state.store(e.fma(s, swapped, e.mul(c, p)), i)
                cotangent.store(e.fma(s, e.swap_lanes(q, lane), e.mul(c, q)), i)
            held.set(e.fma(total, sign, held.get()))
        sums.store(held.get(), slot)

    return step(emit, state, cotangent, op, cosine, sine, sums, member, team, parts, variants=_VARIANTS)


@intrinsic(prefer_literal=True)
def add_lane_generator(typing, target, source, op, half, member, team, parts):
    """q <- q - h swap(p) on every row."""

    def emit(e: Emit, target: Rows, source: Rows, op: Any, half: Rows, member: Any, team: Any, parts: int) -> None:
        slot, lane, sign = column(e, op, SLOT), column(e, op, LANES), column(e, op, SIGNS)
        plain = half.load(slot)
        with share(e, e.power(column(e, op, BITS)), member, team) as loop:
            h = e.mul(plain, e.sign(e.odd(e.builder.and_(loop.index, sign)), plain.type))
            for part in range(parts):
                i = e.vector_index(loop.index, parts, part)
                target.store(e.fnma(h, e.swap_lanes(source.load(i), lane), target.load(i)), i)

    return step(emit, target, source, op, half, member, team, parts, variants=_VARIANTS)
