"""Loops over the rows of a tile as LLVM vector code: a vector holds one coordinate, with samples as lanes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.simd import INT, Emit, Rows, step

_LOCAL = 4095  # rows of a tile in a packed pair


def _integer(e: Emit, base: ir.Value, index: Any) -> ir.Value:
    """An integer of an array of any width."""
    value = e.builder.load(e.builder.gep(base, [e.constant(index)]))
    return value if value.type == INT else e.builder.zext(value, INT)


class _Pair:
    """One pair of a list: the two rows, and 0 or 1 for its sign."""

    def __init__(self, e: Emit, pairs: Any, index: Any, parities: Any, quadratic: Any, flip: Any) -> None:
        b = e.builder
        packed = _integer(e, pairs, index)
        self.first = b.and_(packed, e.constant(_LOCAL))
        self.second = b.and_(b.lshr(packed, e.constant(12)), e.constant(_LOCAL))
        own = b.and_(_integer(e, parities, self.first), e.constant(quadratic))
        self.odd = b.xor(b.lshr(packed, e.constant(24)), b.xor(own, e.constant(flip)))


@intrinsic(prefer_literal=True)
def turn_pairs(typing, state, pairs, first, count, cosine, sine, slot, parities, quadratic, flip):
    """(a, b) <- (cos a - sign sin b, cos b + sign sin a) for pairs of rows."""

    def emit(
        e: Emit, state: Rows, pairs: Any, first: Any, count: Any, cosine: Rows, sine: Rows, slot: Any,
        parities: Any, quadratic: Any, flip: Any,
    ) -> None:  # fmt: skip
        c, base = cosine.load(slot), e.builder.mul(e.constant(slot), e.constant(2))
        with e.loop(count) as loop:
            pair = _Pair(e, pairs, e.plus(first, loop.index), parities, quadratic, flip)
            s = sine.load(e.plus(base, pair.odd))
            a, b = state.load(pair.first), state.load(pair.second)
            state.store(e.fnma(s, b, e.mul(c, a)), pair.first)
            state.store(e.fma(s, a, e.mul(c, b)), pair.second)

    return step(emit, state, pairs, first, count, cosine, sine, slot, parities, quadratic, flip)


@intrinsic(prefer_literal=True)
def unturn_pairs(typing, state, cotangent, pairs, first, count, cosine, sine, units, sums, slot, parities, quadratic, flip):  # fmt: skip  # noqa: E501
    """Undo `turn_pairs` on both, and sums[slot] += the derivative with respect to the angle."""

    def emit(
        e: Emit, state: Rows, cotangent: Rows, pairs: Any, first: Any, count: Any, cosine: Rows, sine: Rows,
        units: Rows, sums: Rows, slot: Any, parities: Any, quadratic: Any, flip: Any,
    ) -> None:  # fmt: skip
        c, base = cosine.load(slot), e.builder.mul(e.constant(slot), e.constant(2))
        total = e.accumulator(sums.load(slot))
        with e.loop(count) as loop:
            pair = _Pair(e, pairs, e.plus(first, loop.index), parities, quadratic, flip)
            s, sign = sine.load(e.plus(base, pair.odd)), units.load(pair.odd)
            a, b = state.load(pair.first), state.load(pair.second)
            p, q = cotangent.load(pair.first), cotangent.load(pair.second)
            total.set(e.fma(sign, e.fnma(p, b, e.mul(q, a)), total.get()))
            state.store(e.fma(s, b, e.mul(c, a)), pair.first)
            state.store(e.fnma(s, a, e.mul(c, b)), pair.second)
            cotangent.store(e.fma(s, q, e.mul(c, p)), pair.first)
            cotangent.store(e.fnma(s, p, e.mul(c, q)), pair.second)
        sums.store(total.get(), slot)

    return step(emit, state, cotangent, pairs, first, count, cosine, sine, units, sums, slot, parities, quadratic, flip)


@intrinsic(prefer_literal=True)
def shift_pairs(typing, state, pairs, first, count, numbers, number, parities, quadratic, flip):
    """b += sign * number * a for pairs of rows (a, b)."""

    def emit(
        e: Emit, state: Rows, pairs: Any, first: Any, count: Any, numbers: Rows, number: Any,
        parities: Any, quadratic: Any, flip: Any,
    ) -> None:  # fmt: skip
        base = e.builder.mul(e.constant(number), e.constant(2))
        with e.loop(count) as loop:
            pair = _Pair(e, pairs, e.plus(first, loop.index), parities, quadratic, flip)
            factor = numbers.load(e.plus(base, pair.odd))
            state.store(e.fma(factor, state.load(pair.first), state.load(pair.second)), pair.second)

    return step(emit, state, pairs, first, count, numbers, number, parities, quadratic, flip)


@intrinsic(prefer_literal=True)
def unshift_pairs(typing, state, cotangent, pairs, first, count, numbers, by_numbers, units, number, parities, quadratic, flip):  # fmt: skip  # noqa: E501
    """Undo `shift_pairs` on the state, transpose it on the cotangent, and add the number's derivative."""

    def emit(
        e: Emit, state: Rows, cotangent: Rows, pairs: Any, first: Any, count: Any, numbers: Rows, by_numbers: Rows,
        units: Rows, number: Any, parities: Any, quadratic: Any, flip: Any,
    ) -> None:  # fmt: skip
        base = e.builder.mul(e.constant(number), e.constant(2))
        total = e.accumulator(by_numbers.load(number))
        with e.loop(count) as loop:
            pair = _Pair(e, pairs, e.plus(first, loop.index), parities, quadratic, flip)
            factor, a, q = numbers.load(e.plus(base, pair.odd)), state.load(pair.first), cotangent.load(pair.second)
            total.set(e.fma(e.mul(units.load(pair.odd), q), a, total.get()))
            state.store(e.fnma(factor, a, state.load(pair.second)), pair.second)
            cotangent.store(e.fma(factor, q, cotangent.load(pair.first)), pair.first)
        by_numbers.store(total.get(), number)

    return step(
        emit, state, cotangent, pairs, first, count, numbers, by_numbers, units, number, parities, quadratic, flip
    )


@intrinsic(prefer_literal=True)
def scale_tile(typing, state, rows, count, factors, first):
    """state[i] *= factors[first + rows[i]]."""

    def emit(e: Emit, state: Rows, rows: Any, count: Any, factors: Any, first: Any) -> None:
        with e.loop(count) as loop:
            value = _spread_factor(e, factors, e.plus(first, _integer(e, rows, loop.index)), state.type)
            state.store(e.mul(state.load(loop.index), value), loop.index)

    return step(emit, state, rows, count, factors, first)


@intrinsic(prefer_literal=True)
def unscale_tile(typing, state, cotangent, rows, count, factors, first):
    """cotangent[i] *= factors[first + rows[i]], and state[i] is divided by it."""

    def emit(e: Emit, state: Rows, cotangent: Rows, rows: Any, count: Any, factors: Any, first: Any) -> None:
        with e.loop(count) as loop:
            i = loop.index
            value = _spread_factor(e, factors, e.plus(first, _integer(e, rows, i)), state.type)
            cotangent.store(e.mul(cotangent.load(i), value), i)
            state.store(e.builder.fdiv(state.load(i), value), i)

    return step(emit, state, cotangent, rows, count, factors, first)


def _spread_factor(e: Emit, factors: Rows, index: Any, vector: ir.VectorType) -> ir.Value:
    """A number of a plain array of double in every lane."""
    b = e.builder
    numbers = b.bitcast(factors.base, factors.type.element.as_pointer())
    scalar = b.load(b.gep(numbers, [index]))
    if scalar.type != vector.element:
        scalar = b.fptrunc(scalar, vector.element)
    return e.spread(scalar, vector)


@intrinsic(prefer_literal=True)
def scale_classes(typing, state, rows, count, classes, first, numbers, number):
    """state[i] *= numbers[number + classes[first + rows[i]]]."""

    def emit(e: Emit, state: Rows, rows: Any, count: Any, classes: Any, first: Any, numbers: Rows, number: Any) -> None:
        with e.loop(count) as loop:
            i = loop.index
            value = numbers.load(_doubled(e, _class(e, rows, i, classes, first, number)))
            state.store(e.mul(state.load(i), value), i)

    return step(emit, state, rows, count, classes, first, numbers, number)


@intrinsic(prefer_literal=True)
def unscale_classes(typing, state, cotangent, rows, count, classes, first, numbers, by_numbers, number):
    """With the state before the scale: derivatives with respect to the numbers, and cotangent[i] times its number."""

    def emit(
        e: Emit, state: Rows, cotangent: Rows, rows: Any, count: Any, classes: Any, first: Any, numbers: Rows,
        by_numbers: Rows, number: Any,
    ) -> None:  # fmt: skip
        with e.loop(count) as loop:
            i = loop.index
            place = _class(e, rows, i, classes, first, number)
            p = cotangent.load(i)
            by_numbers.store(e.fma(p, state.load(i), by_numbers.load(place)), place)
            cotangent.store(e.mul(p, numbers.load(_doubled(e, place))), i)

    return step(emit, state, cotangent, rows, count, classes, first, numbers, by_numbers, number)


def _class(e: Emit, rows: Any, i: Any, classes: Any, first: Any, number: Any) -> ir.Value:
    return e.plus(_integer(e, classes, e.plus(first, _integer(e, rows, i))), number)


def _doubled(e: Emit, index: ir.Value) -> ir.Value:
    return e.builder.shl(index, e.constant(1))


@intrinsic(prefer_literal=True)
def gather(typing, tile, source, rows, count):
    """tile[i] <- source[rows[i]]."""

    def emit(e: Emit, tile: Rows, source: Rows, rows: Any, count: Any) -> None:
        with e.loop(count) as loop:
            tile.store(source.load(_integer(e, rows, loop.index)), loop.index)

    return step(emit, tile, source, rows, count)


@intrinsic(prefer_literal=True)
def scatter(typing, target, tile, rows, count):
    """target[rows[i]] <- tile[i]."""

    def emit(e: Emit, target: Rows, tile: Rows, rows: Any, count: Any) -> None:
        with e.loop(count) as loop:
            target.store(tile.load(loop.index), _integer(e, rows, loop.index))

    return step(emit, target, tile, rows, count)


@intrinsic
def prefetch(typing, array, index):
    """Prefetch the cache line of ``array[index]``, for reading and writing."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        base = context.make_array(sig.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(base, [values[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), codegen
