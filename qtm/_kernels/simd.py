"""SIMD building blocks of the kernels: each emits the LLVM vector code of one step on a few rows.

A *row* is what the kernels hold of one amplitude: ``parts`` vectors (real part, imaginary part; real
circuits have only the first), each of ``lanes(dtype)`` numbers, one number per sample of the tile.
Arrays that are passed here must be aligned to `VECTOR_BYTES` and are addressed in whole vectors.

Plain numba loops do not vectorise here, because LLVM cannot prove the rows distinct; emitting the vectors
by hand needs no compiler on the user's machine and reaches what C++ with vector extensions reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = llvm.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16
_FAST = ("contract", "reassoc", "nsz")
_INT = ir.IntType(64)
_DOUBLE = ir.DoubleType()


def lanes(dtype: Any) -> int:
    """Samples that one vector of ``dtype`` holds on this machine."""
    return VECTOR_BYTES // int(np.dtype(dtype).itemsize)


class _Rows:
    """A 1-D array seen as vectors."""

    def __init__(self, emit: _Emit, array_type: types.Array, pointer: ir.Value) -> None:
        real = _DOUBLE if array_type.dtype == types.float64 else ir.FloatType()
        # Angles are double also where the state is single: vectors of them have as many numbers, not bytes.
        self.type = ir.VectorType(real, emit.lanes)
        self.emit, self.align = emit, VECTOR_BYTES
        self.base = emit.builder.bitcast(pointer, self.type.as_pointer())

    def at(self, index: Any) -> ir.Value:
        return self.emit.builder.gep(self.base, [self.emit.int(index)])

    def load(self, index: Any) -> ir.Value:
        return self.emit.builder.load(self.at(index), align=self.align)

    def store(self, value: ir.Value, index: Any) -> None:
        self.emit.builder.store(value, self.at(index), align=self.align)


class _Emit:
    """Vector arithmetic bound to one LLVM builder."""

    def __init__(self, builder: ir.IRBuilder, lane_count: int) -> None:
        self.builder, self.lanes = builder, lane_count

    def int(self, value: Any) -> ir.Value:
        return ir.Constant(_INT, value) if isinstance(value, int) else value

    def index(self, row: ir.Value, parts: int, part: int) -> ir.Value:
        scaled = self.builder.mul(self.int(row), self.int(parts))
        return self.builder.add(scaled, self.int(part))

    def offset(self, index: Any, step: int) -> ir.Value:
        return self.builder.add(self.int(index), self.int(step))

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b, flags=_FAST)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b, flags=_FAST)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b, flags=_FAST)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.add(self.mul(a, b), c)

    def fnma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.sub(c, self.mul(a, b))

    def cmul(self, a: tuple, b: tuple) -> tuple:
        return self.fnma(a[1], b[1], self.mul(a[0], b[0])), self.fma(a[1], b[0], self.mul(a[0], b[1]))

    def conj_mul(self, a: tuple, b: tuple) -> tuple:
        """conj(a) * b."""
        return self.fma(a[1], b[1], self.mul(a[0], b[0])), self.fnma(a[1], b[0], self.mul(a[0], b[1]))

    def coset(self, row: ir.Value, masks: list) -> list:
        """Rows ``row ^ (xor of a subset of masks)``, subset s at position s."""
        rows = [row]
        for mask in masks:
            rows += [self.builder.xor(r, mask) for r in rows]
        return rows

    def fence(self) -> None:
        """Keep LLVM from interleaving two parts of a row: together they do not fit the registers."""
        asm = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", side_effect=True)
        self.builder.call(asm, [])

    def splat(self, vector: ir.VectorType, number: float) -> ir.Value:
        return ir.Constant(vector, [ir.Constant(vector.element, number)] * vector.count)


def _step(emit: Callable, *args: Any) -> tuple:
    """Signature and code generator of one step: arrays become `_Rows`, literal integers Python integers."""
    literal = [a.literal_value if isinstance(a, types.IntegerLiteral) else None for a in args]
    # Literals stay in the signature: numba keeps one code generator for each.
    plain = [a if f is not None or not isinstance(a, types.Integer) else types.int64 for a, f in zip(args, literal)]
    plain = [types.UniTuple(types.int64, len(a)) if isinstance(a, types.BaseTuple) else a for a in plain]
    signature = types.void(*plain)
    # The state (first argument) decides the lanes.
    count = lanes("f8" if plain[0].dtype == types.float64 else "f4")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        e = _Emit(builder, count)
        unpacked: list[Any] = []
        for kind, fixed, value in zip(plain, literal, values, strict=True):
            if isinstance(kind, types.Array):
                pointer = context.make_array(kind)(context, builder, value).data
                unpacked.append(_Rows(e, kind, pointer))
            elif isinstance(kind, types.UniTuple):
                unpacked.append([builder.extract_value(value, j) for j in range(len(kind))])
            else:
                unpacked.append(value if fixed is None else fixed)
        emit(e, *unpacked)
        return context.get_dummy_value()

    return signature, codegen


def _pairs(count: int, bit: int) -> list[tuple[int, int]]:
    return [(s, s | 1 << bit) for s in range(1 << count) if not s >> bit & 1]


# --- Rotations by several commuting generators at once: exp(-i a/2 Q), divided by cos(a/2) ---------------------


@intrinsic(prefer_literal=True)
def rotate_rows(typing, state, row, masks, parts, tangent, slot):  # type: ignore[no-untyped-def]
    """p0, p1 <- p0 - t p1, p1 + t p0 for each mask in turn, on one coset of rows held in registers."""

    def emit(e: _Emit, state: _Rows, row: Any, masks: list, parts: int, tangent: _Rows, slot: Any) -> None:
        rows = e.coset(row, masks)
        t = [tangent.load(e.offset(slot, b)) for b in range(len(masks))]
        for part in range(parts):
            where = [e.index(r, parts, part) for r in rows]
            p = [state.load(i) for i in where]
            for b in range(len(masks)):
                for lo, hi in _pairs(len(masks), b):
                    p[lo], p[hi] = e.fnma(t[b], p[hi], p[lo]), e.fma(t[b], p[lo], p[hi])
            for value, i in zip(p, where, strict=True):
                state.store(value, i)

    return _step(emit, state, row, masks, parts, tangent, slot)


@intrinsic(prefer_literal=True)
def unrotate_rows(typing, state, cotangent, row, masks, parts, tangent, slot, sums):  # type: ignore[no-untyped-def]
    """Undo `rotate_rows` on state and cotangent, adding <cotangent|(-iQ)|state> of each generator to ``sums``."""

    def emit(e, state, cotangent, row, masks, parts, tangent, slot, sums) -> None:  # type: ignore[no-untyped-def]
        rows, count = e.coset(row, masks), len(masks)
        t = [tangent.load(e.offset(slot, b)) for b in range(count)]
        for part in range(parts):
            where = [e.index(r, parts, part) for r in rows]
            p, q = [state.load(i) for i in where], [cotangent.load(i) for i in where]
            total = [sums.load(e.offset(slot, b)) for b in range(count)]
            for b in reversed(range(count)):
                for lo, hi in _pairs(count, b):
                    total[b] = e.fnma(q[lo], p[hi], e.fma(q[hi], p[lo], total[b]))
                    p[lo], p[hi] = e.fma(t[b], p[hi], p[lo]), e.fnma(t[b], p[lo], p[hi])
                    q[lo], q[hi] = e.fma(t[b], q[hi], q[lo]), e.fnma(t[b], q[lo], q[hi])
            for a, b, i in zip(p, q, where, strict=True):
                state.store(a, i)
                cotangent.store(b, i)
            for b in range(count):
                sums.store(total[b], e.offset(slot, b))
            e.fence()

    return _step(emit, state, cotangent, row, masks, parts, tangent, slot, sums)


# --- One rotation in full (cosine and sine): near half turns, and where it doubles the support -----------------


@intrinsic(prefer_literal=True)
def turn_pair(typing, state, row, mask, parts, cosine, sine, slot, grow):  # type: ignore[no-untyped-def]
    """p0, p1 <- c p0 - s p1, s p0 + c p1; with ``grow`` (the sign of s) p1 is zero and is not read."""

    def emit(e, state, row, mask, parts, cosine, sine, slot, grow) -> None:  # type: ignore[no-untyped-def]
        c, s = cosine.load(slot), sine.load(slot)
        other = e.builder.xor(row, e.int(mask))
        for part in range(parts):
            i, j = e.index(row, parts, part), e.index(other, parts, part)
            p0 = state.load(i)
            low, high = e.mul(c, p0), e.mul(s, p0)
            if grow < 0:
                high = e.builder.fneg(high)
            elif not grow:
                p1 = state.load(j)
                low, high = e.fnma(s, p1, low), e.fma(c, p1, high)
            state.store(low, i)
            state.store(high, j)

    return _step(emit, state, row, mask, parts, cosine, sine, slot, grow)


@intrinsic(prefer_literal=True)
def unturn_pair(typing, state, cotangent, row, mask, parts, cosine, sine, slot, sums, grow):  # type: ignore[no-untyped-def]
    """Undo `turn_pair`, adding its generator's sum; with ``grow`` the upper row is left behind."""

    def emit(e, state, cotangent, row, mask, parts, cosine, sine, slot, sums, grow) -> None:  # type: ignore[no-untyped-def]
        c, s, total = cosine.load(slot), sine.load(slot), sums.load(slot)
        other = e.builder.xor(row, e.int(mask))
        for part in range(parts):
            i, j = e.index(row, parts, part), e.index(other, parts, part)
            p0, p1, q0, q1 = state.load(i), state.load(j), cotangent.load(i), cotangent.load(j)
            if grow < 0:
                p1, q1 = e.builder.fneg(p1), e.builder.fneg(q1)
            total = e.fnma(q0, p1, e.fma(q1, p0, total))
            state.store(e.fma(s, p1, e.mul(c, p0)), i)
            cotangent.store(e.fma(s, q1, e.mul(c, q0)), i)
            if not grow:
                state.store(e.fnma(s, p0, e.mul(c, p1)), j)
                cotangent.store(e.fnma(s, q0, e.mul(c, q1)), j)
        sums.store(total, slot)

    return _step(emit, state, cotangent, row, mask, parts, cosine, sine, slot, sums, grow)


# --- Diagonals: a product of phases, looked up in one or two tables --------------------------------------------


def _complex_row(e: _Emit, rows: _Rows, row: Any) -> tuple:
    return rows.load(e.index(row, 2, 0)), rows.load(e.index(row, 2, 1))


def _store_row(e: _Emit, rows: _Rows, row: Any, value: tuple) -> None:
    for part in range(2):
        rows.store(value[part], e.index(row, 2, part))


@intrinsic(prefer_literal=True)
def phase_row(typing, state, row, table, first, second, tables):  # type: ignore[no-untyped-def]
    """p <- p * table[first] (* table[second])."""

    def emit(e, state, row, table, first, second, tables) -> None:  # type: ignore[no-untyped-def]
        phase = _complex_row(e, table, first)
        if tables == 2:
            phase = e.cmul(phase, _complex_row(e, table, second))
        _store_row(e, state, row, e.cmul(phase, _complex_row(e, state, row)))

    return _step(emit, state, row, table, first, second, tables)


@intrinsic(prefer_literal=True)
def unphase_row(typing, state, cotangent, row, table, first, second, weights, tables):  # type: ignore[no-untyped-def]
    """Undo `phase_row` on both, adding Im(conj(q) p) to the entries of ``weights`` that belong to the row."""

    def emit(e, state, cotangent, row, table, first, second, weights, tables) -> None:  # type: ignore[no-untyped-def]
        phase = _complex_row(e, table, first)
        if tables == 2:
            phase = e.cmul(phase, _complex_row(e, table, second))
        p, q = _complex_row(e, state, row), _complex_row(e, cotangent, row)
        weight = e.fnma(q[1], p[0], e.mul(q[0], p[1]))
        for where in (first, second)[:tables]:
            weights.store(e.add(weights.load(where), weight), where)
        _store_row(e, state, row, e.conj_mul(phase, p))
        _store_row(e, cotangent, row, e.conj_mul(phase, q))

    return _step(emit, state, cotangent, row, table, first, second, weights, tables)


@intrinsic(prefer_literal=True)
def extend_phases(typing, table, row, other, cosine, sine, slot):  # type: ignore[no-untyped-def]
    """table[other] <- table[row] (c + i s); table[row] <- table[row] (c - i s)."""

    def emit(e, table, row, other, cosine, sine, slot) -> None:  # type: ignore[no-untyped-def]
        phase, value = (cosine.load(slot), sine.load(slot)), _complex_row(e, table, row)
        _store_row(e, table, other, e.cmul(phase, value))
        _store_row(e, table, row, e.conj_mul(phase, value))

    return _step(emit, table, row, other, cosine, sine, slot)


# --- Observables ------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def weigh_row(typing, state, row, other, parts, odd, weights, first, second, tables):  # type: ignore[no-untyped-def]
    """Add Re(conj(p_other) p_row), or its imaginary part if ``odd``, to the entries that belong to the row."""

    def emit(e, state, row, other, parts, odd, weights, first, second, tables) -> None:  # type: ignore[no-untyped-def]
        p = [state.load(e.index(row, parts, part)) for part in range(parts)]
        r = [state.load(e.index(other, parts, part)) for part in range(parts)]
        if odd:
            weight = e.fnma(r[1], p[0], e.mul(r[0], p[1]))
        else:
            weight = e.mul(r[0], p[0])
            if parts == 2:
                weight = e.fma(r[1], p[1], weight)
        for where in (first, second)[:tables]:
            weights.store(e.add(weights.load(where), weight), where)

    return _step(emit, state, row, other, parts, odd, weights, first, second, tables)


@intrinsic(prefer_literal=True)
def observe_row(typing, state, cotangent, row, other, parts, odd, factors, first, second, tables):  # type: ignore[no-untyped-def]
    """cotangent[row] += f * p_other, or i f * p_other if ``odd``; f = factors[first] (+ factors[second])."""

    def emit(e, state, cotangent, row, other, parts, odd, factors, first, second, tables) -> None:  # type: ignore[no-untyped-def]
        f = factors.load(first)
        if tables == 2:
            f = e.add(f, factors.load(second))
        p = [state.load(e.index(other, parts, part)) for part in range(parts)]
        where = [e.index(row, parts, part) for part in range(parts)]
        q = [cotangent.load(i) for i in where]
        if odd:
            q = [e.fnma(f, p[1], q[0]), e.fma(f, p[0], q[1])]
        else:
            q = [e.fma(f, a, b) for a, b in zip(p, q, strict=True)]
        for value, i in zip(q, where, strict=True):
            cotangent.store(value, i)

    return _step(emit, state, cotangent, row, other, parts, odd, factors, first, second, tables)


# --- Small vector steps -----------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def add_row(typing, target, i, source, j, sign):  # type: ignore[no-untyped-def]
    """target[i] += sign * source[j]."""

    def emit(e, target, i, source, j, sign) -> None:  # type: ignore[no-untyped-def]
        combine = e.add if sign > 0 else e.sub
        target.store(combine(target.load(i), source.load(j)), i)

    return _step(emit, target, i, source, j, sign)


@intrinsic(prefer_literal=True)
def scale_row(typing, target, i, source, j):  # type: ignore[no-untyped-def]
    """target[i] *= source[j]."""

    def emit(e, target, i, source, j) -> None:  # type: ignore[no-untyped-def]
        target.store(e.mul(target.load(i), source.load(j)), i)

    return _step(emit, target, i, source, j)


@intrinsic(prefer_literal=True)
def split_row(typing, table, row, other, source, slot):  # type: ignore[no-untyped-def]
    """table[other] <- table[row] - source[slot]; table[row] <- table[row] + source[slot]."""

    def emit(e, table, row, other, source, slot) -> None:  # type: ignore[no-untyped-def]
        value, change = table.load(row), source.load(slot)
        table.store(e.sub(value, change), other)
        table.store(e.add(value, change), row)

    return _step(emit, table, row, other, source, slot)


@intrinsic
def parity(typing, mask):  # type: ignore[no-untyped-def]
    """-1 (all bits) if an odd number of bits of ``mask`` are set, else 0."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        odd = builder.and_(builder.ctpop(args[0]), ir.Constant(_INT, 1))
        return builder.neg(odd)

    return types.int64(types.int64), codegen


# Minimax polynomials of sine and cosine on [-pi/4, pi/4] (the coefficients of fdlibm's kernels), and pi/2 in
# three parts, so that the reduced argument is exact to one rounding for any angle a circuit meets.
_SINE = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
         2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)  # fmt: skip
_COSINE = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
           -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)  # fmt: skip
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def _polynomial(e: _Emit, z: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    total = e.splat(z.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = e.fma(total, z, e.splat(z.type, coefficient))
    return total


def _sine_cosine(e: _Emit, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    b, vector = e.builder, x.type
    name = f"llvm.rint.v{vector.count}f64"
    rint = cgutils.get_or_insert_function(b.module, ir.FunctionType(vector, [vector]), name)
    turns = b.call(rint, [e.mul(x, e.splat(vector, 2 / np.pi))])
    for piece in _HALF_PI:
        # Without reassociation: the three subtractions must stay in this order.
        x = b.fsub(x, b.fmul(turns, ir.Constant(vector, [piece] * vector.count), flags=("contract",)), flags=("contract",))
    z = e.mul(x, x)
    sine = e.fma(e.mul(e.mul(z, x), _polynomial(e, z, _SINE)), e.splat(vector, 1.0), x)
    cosine = e.fma(e.mul(z, z), _polynomial(e, z, _COSINE), e.fnma(z, e.splat(vector, 0.5), e.splat(vector, 1.0)))
    whole = ir.VectorType(_INT, vector.count)
    quadrant = b.fptosi(turns, whole)
    bit = [b.and_(quadrant, ir.Constant(whole, [v] * vector.count)) for v in (1, 2)]
    zero = ir.Constant(whole, [0] * vector.count)
    swap, flip = b.icmp_signed("!=", bit[0], zero), b.icmp_signed("!=", bit[1], zero)
    sine, cosine = b.select(swap, cosine, sine), b.select(swap, sine, cosine)
    flip_cosine = b.xor(swap, flip)
    return b.select(flip, b.fneg(sine), sine), b.select(flip_cosine, b.fneg(cosine), cosine)


@intrinsic(prefer_literal=True)
def half_angle_row(typing, cosine, sine, tangent, angles, slot):  # type: ignore[no-untyped-def]
    """Cosine, sine and tangent of angles/2 (double), stored in the precision of the state."""

    def emit(e, cosine, sine, tangent, angles, slot) -> None:  # type: ignore[no-untyped-def]
        half = e.mul(angles.load(slot), e.splat(angles.type, 0.5))
        s, c = _sine_cosine(e, half)
        t = e.builder.fdiv(s, c)
        for rows, value in ((cosine, c), (sine, s), (tangent, t)):
            rows.store(value if rows.type == angles.type else e.builder.fptrunc(value, rows.type), slot)

    return _step(emit, cosine, sine, tangent, angles, slot)
