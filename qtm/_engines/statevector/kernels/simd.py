"""SIMD building blocks of the kernels: numba intrinsics that emit LLVM vector code, loops included.

A *row* is what the kernels hold of one amplitude (or of as many amplitudes as a vector has lanes): ``parts``
vectors, the real part and, unless the circuit is real, the imaginary part. Arrays that are passed here must be
aligned to `VECTOR_BYTES`, and are addressed in whole vectors.

Plain numba loops do not vectorise here, because LLVM cannot prove the rows distinct; emitting the vectors needs
no compiler on the user's machine and reaches what C++ with vector extensions reaches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.compilation import jit, target_features

_FEATURES = target_features()
_AVX512 = "avx512f" in _FEATURES
_AVX2 = "avx2" in _FEATURES
VECTOR_BYTES = 64 if _AVX512 else 32 if "avx" in _FEATURES else 16
FAST = ("contract", "nsz")
INT = ir.IntType(64)
_DOUBLE = ir.DoubleType()


def lanes(dtype: Any) -> int:
    """Numbers of ``dtype`` in one vector of this machine."""
    return VECTOR_BYTES // int(np.dtype(dtype).itemsize)


class Rows:
    """A 1-D array seen as vectors."""

    def __init__(self, emit: Emit, array_type: types.Array, pointer: ir.Value) -> None:
        real = _DOUBLE if array_type.dtype == types.float64 else ir.FloatType()
        # Angles are double where the state is single: their vectors have as many numbers, not as many bytes.
        self.type = ir.VectorType(real, emit.lanes)
        self.emit = emit
        self.base = emit.builder.bitcast(pointer, self.type.as_pointer())

    def at(self, index: Any) -> ir.Value:
        return self.emit.builder.gep(self.base, [self.emit.constant(index)])

    def load(self, index: Any) -> ir.Value:
        return self.emit.builder.load(self.at(index), align=VECTOR_BYTES)

    def store(self, value: ir.Value, index: Any) -> None:
        self.emit.builder.store(value, self.at(index), align=VECTOR_BYTES)


class Accumulator:
    """A vector that changes from one iteration of a loop to the next."""

    def __init__(self, builder: ir.IRBuilder, start: ir.Value) -> None:
        self.builder, self.place = builder, cgutils.alloca_once(builder, start.type)
        self.set(start)

    def get(self) -> ir.Value:
        return self.builder.load(self.place)

    def set(self, value: ir.Value) -> None:
        self.builder.store(value, self.place)


class Emit:
    """Vector and index arithmetic bound to one LLVM builder."""

    def __init__(self, builder: ir.IRBuilder, lane_count: int) -> None:
        self.builder, self.lanes = builder, lane_count

    # Indices

    def constant(self, value: Any) -> ir.Value:
        return ir.Constant(INT, value) if isinstance(value, int) else value

    def plus(self, index: Any, step: Any) -> ir.Value:
        return self.builder.add(self.constant(index), self.constant(step))

    def power(self, exponent: Any) -> ir.Value:
        return self.builder.shl(self.constant(1), self.constant(exponent))

    def vector_index(self, row: Any, parts: int, part: int) -> ir.Value:
        return self.plus(self.builder.mul(self.constant(row), self.constant(parts)), part)

    def odd(self, mask: ir.Value) -> ir.Value:
        """1 where an odd number of bits is set, else 0."""
        return self.builder.and_(self.builder.ctpop(mask), self.constant(1))

    def deposit(self, number: ir.Value, position: ir.Value) -> ir.Value:
        """Open a zero bit in ``number`` at ``position``."""
        b = self.builder
        low = b.and_(number, b.sub(self.power(position), self.constant(1)))
        return b.or_(b.shl(b.xor(number, low), self.constant(1)), low)

    def coset(self, row: ir.Value, masks: list) -> list:
        """``row ^ (xor of a subset of masks)``, subset s at position s."""
        rows = [row]
        for mask in masks:
            rows += [self.builder.xor(r, mask) for r in rows]
        return rows

    def loop(self, count: Any, start: Any = 0) -> Any:
        return cgutils.for_range(self.builder, self.constant(count), start=self.constant(start))

    def switch(self, choice: list, variants: Sequence[tuple[int, ...]], emit: Callable[[tuple], None]) -> None:
        """Run the code that ``emit`` generates for the variant equal to the run-time numbers ``choice``.

        Each number takes two bits of the case: variants are made of numbers below 4.
        """
        b, case = self.builder, self.constant(0)
        for place, number in enumerate(choice):
            case = b.or_(case, b.shl(self.constant(number), self.constant(2 * place)))
        end = b.append_basic_block("switch.end")
        other = b.append_basic_block("switch.other")
        table = b.switch(case, other)
        for variant in variants:
            block = b.append_basic_block("switch.case")
            table.add_case(ir.Constant(INT, sum(number << 2 * place for place, number in enumerate(variant))), block)
            b.position_at_end(block)
            emit(variant)
            b.branch(end)
        b.position_at_end(other)
        b.unreachable()
        b.position_at_end(end)

    # Vectors

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b, flags=FAST)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b, flags=FAST)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b, flags=FAST)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.add(self.mul(a, b), c)

    def fnma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.sub(c, self.mul(a, b))

    def cmul(self, a: list, b: list) -> list:
        return [self.fnma(a[1], b[1], self.mul(a[0], b[0])), self.fma(a[1], b[0], self.mul(a[0], b[1]))]

    def conj_mul(self, a: list, b: list) -> list:
        """conj(a) * b."""
        return [self.fma(a[1], b[1], self.mul(a[0], b[0])), self.fnma(a[1], b[0], self.mul(a[0], b[1]))]

    def splat(self, vector: ir.VectorType, number: float) -> ir.Value:
        return ir.Constant(vector, [ir.Constant(vector.element, number)] * vector.count)

    def spread(self, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
        """A run-time number in every lane."""
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    def sign(self, odd: ir.Value, vector: ir.VectorType) -> ir.Value:
        """+1 in every lane for 0, -1 for 1."""
        # From memory, as an operand of the instruction that multiplies: no unit of arithmetic is needed to make it.
        both = ir.Constant(ir.ArrayType(vector, 2), [self.splat(vector, 1.0), self.splat(vector, -1.0)])
        name = f"sign.{vector.count}.{vector.element}"
        table = self.builder.module.globals.get(name) or cgutils.global_constant(self.builder.module, name, both)
        table.align = VECTOR_BYTES
        return self.builder.load(self.builder.gep(table, [self.constant(0), odd]), align=VECTOR_BYTES)

    def accumulator(self, start: ir.Value) -> Accumulator:
        """A vector that a loop changes, held in a register."""
        return Accumulator(self.builder, start)

    def call(self, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
        """Call a function of LLVM or of the C library."""
        kind = ir.FunctionType(result, [a.type for a in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), args)

    def swap_lanes(self, value: ir.Value, mask: ir.Value) -> ir.Value:
        """Lane l of the result is lane ``l ^ mask`` of ``value``."""
        if _AVX512:
            return _permute(self, value, mask)
        return _permute_halves(self, value, mask) if _AVX2 else _shuffle(self, value, mask)

    def pin(self, *values: ir.Value) -> list:
        """The same values, two or more, which must all be computed before any that is pinned later.

        LLVM's scheduler would otherwise begin more chains than there are registers, and spill.
        """
        if not _AVX512:
            return list(values)
        kinds = [v.type for v in values]
        constraint = ",".join(["=v"] * len(values) + [str(i) for i in range(len(values))])
        kind = ir.FunctionType(ir.LiteralStructType(kinds), kinds)
        together = self.builder.call(ir.InlineAsm(kind, "", constraint, side_effect=True), values)
        return [self.builder.extract_value(together, i) for i in range(len(values))]

    def fence(self) -> None:
        """Keep LLVM from interleaving two parts of a row: together they do not fit the registers."""
        asm = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", side_effect=True)
        self.builder.call(asm, [])


def _permute(e: Emit, value: ir.Value, mask: ir.Value) -> ir.Value:
    width, suffix = (64, "df") if value.type.element == _DOUBLE else (32, "sf")
    index = ir.VectorType(ir.IntType(width), e.lanes)
    own = ir.Constant(index, list(range(e.lanes)))
    scalar = mask if width == 64 else e.builder.trunc(mask, ir.IntType(32))
    order = e.builder.xor(own, e.spread(scalar, index))
    return e.call(f"llvm.x86.avx512.permvar.{suffix}.512", value.type, value, order)


def _permute_halves(e: Emit, value: ir.Value, mask: ir.Value) -> ir.Value:
    """With the one instruction of AVX2 that takes its order from a register: it moves 32 bits, half a double."""
    halves = 2 if value.type.element == _DOUBLE else 1
    index, floats = ir.VectorType(ir.IntType(32), 8), ir.VectorType(ir.FloatType(), 8)
    scalar = e.builder.trunc(e.builder.mul(mask, e.constant(halves)), ir.IntType(32))
    order = e.builder.xor(ir.Constant(index, list(range(8))), e.spread(scalar, index))
    moved = e.call("llvm.x86.avx2.permps", floats, e.builder.bitcast(value, floats), order)
    return e.builder.bitcast(moved, value.type)


def _shuffle(e: Emit, value: ir.Value, mask: ir.Value) -> ir.Value:
    for bit in range(e.lanes.bit_length() - 1):
        order = ir.Constant(ir.VectorType(ir.IntType(32), e.lanes), [i ^ 1 << bit for i in range(e.lanes)])
        swapped = e.builder.shuffle_vector(value, value, order)
        chosen = e.builder.icmp_signed("!=", e.builder.and_(mask, e.constant(1 << bit)), e.constant(0))
        value = e.builder.select(chosen, swapped, value)
    return value


def step(emit: Callable, *args: Any, variants: Sequence[tuple[int, ...]] = ()) -> tuple:
    """Signature and code generator of an intrinsic: arrays become `Rows`, literal integers Python integers.

    A `types.Array` of integers is passed on as a pointer to its first number. With ``variants`` the last arguments
    choose at run time among combinations for each of which ``emit`` generates code of its own, and gets Python
    integers. They must be one of these combinations.
    """
    literal = [a.literal_value if isinstance(a, types.IntegerLiteral) else None for a in args]
    # Literals stay in the signature: numba keeps one code generator for each.
    plain = [
        a if f is not None or not isinstance(a, types.Integer) else types.int64
        for a, f in zip(args, literal, strict=True)
    ]
    signature = types.void(*plain)
    count = lanes("f8" if plain[0].dtype == types.float64 else "f4")  # the state, the first argument, decides

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        e = Emit(builder, count)
        unpacked: list[Any] = []
        for kind, fixed, value in zip(plain, literal, values, strict=True):
            if isinstance(kind, types.Array):
                pointer = context.make_array(kind)(context, builder, value).data
                unpacked.append(pointer if isinstance(kind.dtype, types.Integer) else Rows(e, kind, pointer))
            else:
                unpacked.append(value if fixed is None else fixed)
        if variants:
            first = len(unpacked) - len(variants[0])
            e.switch(unpacked[first:], variants, lambda chosen: emit(e, *unpacked[:first], *chosen))
        else:
            emit(e, *unpacked)
        return context.get_dummy_value()

    return signature, codegen


# --- Several threads ----------------------------------------------------------------------------------------------


def _first(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
    """Pointer to the first number of an intrinsic's first argument."""
    return context.make_array(sig.args[0])(context, builder, values[0]).data


@intrinsic
def atomic_increment(typing, counter):
    """Add one to ``counter[0]`` for other threads to see."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        builder.atomic_rmw("add", _first(context, builder, sig, values), ir.Constant(INT, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), codegen


@intrinsic
def atomic_load(typing, counter):
    """``counter[0]`` as other threads left it."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        return builder.load_atomic(_first(context, builder, sig, values), "seq_cst", 8)

    return types.int64(counter), codegen


@intrinsic
def thread_yield(typing):
    """Let other threads have the core: on a busy machine spinning would cost a time slice."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@jit
def spin_until_changed(counter: np.ndarray, seen: int, looks: int) -> None:
    """Return as soon as ``counter`` is no longer ``seen``, or after that many looks."""
    for _ in range(looks):
        if atomic_load(counter) != seen:
            return
        thread_yield()


@jit
def count_and_spin(finished: np.ndarray, counter: np.ndarray, seen: int, looks: int) -> None:
    """Add one to ``finished``, then `spin_until_changed`."""
    atomic_increment(finished)
    spin_until_changed(counter, seen, looks)


# --- Small vector steps -----------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def scale_rows(typing, target, first, count, source, j):
    """target[i] *= source[j] for first <= i < first + count."""

    def emit(e: Emit, target: Rows, first: Any, count: Any, source: Rows, j: Any) -> None:
        factor = source.load(j)
        with e.loop(count) as loop:
            i = e.plus(first, loop.index)
            target.store(e.mul(target.load(i), factor), i)

    return step(emit, target, first, count, source, j)


@intrinsic(prefer_literal=True)
def copy_row(typing, target, i, source, j):
    """target[i] <- source[j]."""

    def emit(e: Emit, target: Rows, i: Any, source: Rows, j: Any) -> None:
        target.store(source.load(j), i)

    return step(emit, target, i, source, j)


@intrinsic(prefer_literal=True)
def square_row(typing, target, source):
    """target[0] <- source[0] squared."""

    def emit(e: Emit, target: Rows, source: Rows) -> None:
        value = source.load(0)
        target.store(e.mul(value, value), 0)

    return step(emit, target, source)


@intrinsic(prefer_literal=True)
def scale_by_product(typing, scale, factors, first, count):
    """scale[0] *= factors[first] * ... * factors[first + count - 1]."""

    def emit(e: Emit, scale: Rows, factors: Rows, first: Any, count: Any) -> None:
        scale.store(_product(e, scale, factors, first, count), 0)

    return step(emit, scale, factors, first, count)


@intrinsic(prefer_literal=True)
def least_product(typing, scale, factors, first, count):
    """Smallest magnitude over the lanes of scale[0] * factors[first] * ... * factors[first + count - 1]."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        e = Emit(builder, lanes(str(sig.args[0].dtype)))
        pointers = [context.make_array(a)(context, builder, v).data for a, v in zip(sig.args[:2], values, strict=False)]
        scale, factors = (Rows(e, a, p) for a, p in zip(sig.args, pointers, strict=False))
        product = _product(e, scale, factors, *values[2:])
        suffix = f"v{e.lanes}f{64 if product.type.element == _DOUBLE else 32}"
        magnitude = e.call(f"llvm.fabs.{suffix}", product.type, product)
        least = e.call(f"llvm.vector.reduce.fmin.{suffix}", product.type.element, magnitude)
        return least if least.type == _DOUBLE else builder.fpext(least, _DOUBLE)

    return types.float64(scale, factors, types.int64, types.int64), codegen


def _product(e: Emit, scale: Rows, factors: Rows, first: Any, count: Any) -> ir.Value:
    total = e.accumulator(scale.load(0))
    with e.loop(count) as loop:
        total.set(e.mul(total.get(), factors.load(e.plus(first, loop.index))))
    return total.get()


@intrinsic(prefer_literal=True)
def scale_sums(typing, sums, scale, cosine, first, count, shrink):
    """sums[i] *= scale[0]^2 for i from the last to ``first``; with ``shrink``, scale[0] *= cosine[i] after each."""

    def emit(e: Emit, sums: Rows, scale: Rows, cosine: Rows, first: Any, count: Any, shrink: int) -> None:
        factor = e.accumulator(scale.load(0))
        end = e.plus(e.plus(first, count), -1)
        with e.loop(count) as loop:
            i, value = e.builder.sub(end, loop.index), factor.get()
            sums.store(e.mul(sums.load(i), e.mul(value, value)), i)
            if shrink:
                factor.set(e.mul(value, cosine.load(i)))
        if shrink:
            scale.store(factor.get(), 0)

    return step(emit, sums, scale, cosine, first, count, shrink)


@intrinsic(prefer_literal=True)
def fold_rows(typing, rows, first, half, target, i):
    """target[i] += sum of (rows[v] - rows[v + half]) and rows[v] += rows[v + half], for ``half`` v from ``first``."""

    def emit(e: Emit, rows: Rows, first: Any, half: Any, target: Rows, i: Any) -> None:
        total = e.accumulator(target.load(i))
        with e.loop(half) as loop:
            low = e.plus(first, loop.index)
            high = e.plus(low, half)
            a, b = rows.load(low), rows.load(high)
            total.set(e.add(total.get(), e.sub(a, b)))
            rows.store(e.add(a, b), low)
        target.store(total.get(), i)

    return step(emit, rows, first, half, target, i)


@intrinsic(prefer_literal=True)
def split_row(typing, table, row, other, source, slot):
    """table[other] <- table[row] - source[slot]; table[row] <- table[row] + source[slot]."""

    def emit(e: Emit, table: Rows, row: Any, other: Any, source: Rows, slot: Any) -> None:
        value, change = table.load(row), source.load(slot)
        table.store(e.sub(value, change), other)
        table.store(e.add(value, change), row)

    return step(emit, table, row, other, source, slot)
