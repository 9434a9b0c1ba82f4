"""Sine, cosine and tangent of half angles in vectors, and the exact reduction of large angles."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qtm._engines.statevector.kernels.simd import INT, Emit, Rows, lanes, step

# Minimax polynomials of sine and cosine on [-pi/4, pi/4] (the coefficients of fdlibm's kernels), and pi/2 in
# three parts, so that the reduced argument is exact to one rounding for any angle a circuit meets.
_SINE = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
         2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)  # fmt: skip
_COSINE = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
           -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)  # fmt: skip
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def _polynomial(e: Emit, z: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    total = e.splat(z.type, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = e.fma(total, z, e.splat(z.type, coefficient))
    return total


def _reduced(e: Emit, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x minus the nearest multiple of pi/2, and that multiple."""
    vector = x.type
    turns = e.call(f"llvm.rint.v{vector.count}f64", vector, e.mul(x, e.splat(vector, 2 / np.pi)))
    for piece in _HALF_PI:
        # Without reassociation: the three subtractions must stay in this order.
        x = e.builder.fsub(x, e.builder.fmul(turns, e.splat(vector, piece), flags=("contract",)), flags=("contract",))
    return x, turns


def _sine_cosine(e: Emit, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    x, turns = _reduced(e, x)
    z = e.mul(x, x)
    sine = e.fma(e.mul(z, x), _polynomial(e, z, _SINE), x)
    one = e.splat(x.type, 1.0)
    cosine = e.fma(e.mul(z, z), _polynomial(e, z, _COSINE), e.fnma(z, e.splat(x.type, 0.5), one))
    whole = ir.VectorType(INT, x.type.count)
    quadrant = e.builder.fptosi(turns, whole)
    zero = ir.Constant(whole, [0] * whole.count)
    bits = [e.builder.and_(quadrant, ir.Constant(whole, [v] * whole.count)) for v in (1, 2)]
    swap, flip = (e.builder.icmp_signed("!=", bit, zero) for bit in bits)
    sine, cosine = e.builder.select(swap, cosine, sine), e.builder.select(swap, sine, cosine)
    negative_sine, negative_cosine = e.builder.fneg(sine), e.builder.fneg(cosine)
    return (
        e.builder.select(flip, negative_sine, sine),
        e.builder.select(e.builder.xor(swap, flip), negative_cosine, cosine),
    )


_FOUR_PI = (4 * np.pi, 4 * 1.2246467991473532e-16)  # their sum is 4 pi to 107 bits


@intrinsic
def reduced_product(typing, coefficient, angle):
    """``coefficient * angle`` modulo 4 pi, with one rounding at the end however large the product is (to 2**50)."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        real = ir.DoubleType()

        def call(name: str, *args: ir.Value) -> ir.Value:
            kind = ir.FunctionType(real, [real] * len(args))
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

        # Flags of their own keep numba from allowing reassociation, which would cancel the errors away.
        exact = ("contract",)
        product = builder.fmul(*values, flags=exact)
        error = call("llvm.fma.f64", *values, builder.fneg(product))
        turns = call("llvm.rint.f64", builder.fmul(product, real(-1 / _FOUR_PI[0]), flags=exact))
        for part in _FOUR_PI:
            product = call("llvm.fma.f64", turns, real(part), product)
        return builder.fadd(product, error, flags=exact)

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def add_terms(typing, target, slot, coefficient, angles, first, column, stride, bound, scale):
    """target[slot] += coefficient * angles[first + lane * stride, column] on every lane; returns whether it did so.

    It does not where one of these terms exceeds ``bound``. Lanes beyond the last row of ``angles`` repeat that row.
    There are as many lanes as in the row ``scale``.
    """
    count = lanes(str(scale.dtype))
    numbers = [types.int64, types.float64, angles, types.int64, types.int64, types.int64, types.float64]

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> Any:
        slot, coefficient, array, first, column, stride, bound = values[1:-1]
        b, e, table = builder, Emit(builder, count), context.make_array(sig.args[3])(context, builder, array)
        target = Rows(e, sig.args[0], context.make_array(sig.args[0])(context, b, values[0]).data)
        height, width = cgutils.unpack_tuple(b, table.shape, 2)
        last, angle = b.sub(height, e.constant(1)), ir.Constant(target.type, ir.Undefined)
        for lane in range(count):
            row = e.plus(first, b.mul(stride, e.constant(lane)))
            row = b.select(b.icmp_signed("<", row, last), row, last)
            value = b.load(b.gep(table.data, [b.add(b.mul(row, width), column)]))
            value = value if value.type == ir.DoubleType() else b.fpext(value, ir.DoubleType())
            angle = b.insert_element(angle, value, ir.Constant(ir.IntType(32), lane))
        term = e.mul(angle, e.spread(coefficient, target.type))
        magnitude = e.call(f"llvm.fabs.v{count}f64", term.type, term)
        # NaN exceeds nothing: it becomes the sum.
        large = b.bitcast(b.fcmp_ordered(">", magnitude, e.spread(bound, target.type)), ir.IntType(count))
        small = b.icmp_unsigned("==", large, large.type(0))
        with b.if_then(small):
            target.store(e.add(target.load(slot), term), slot)
        return small

    return types.boolean(target, *numbers, scale), codegen


@intrinsic(prefer_literal=True)
def half_angle_rows(typing, cosine, sine, tangent, angles, count):
    """Cosine, sine and tangent of angles/2 (double), stored in the precision of the state."""

    def emit(e: Emit, cosine: Rows, sine: Rows, tangent: Rows, angles: Rows, count: Any) -> None:
        with e.loop(count) as loop:
            half = e.mul(angles.load(loop.index), e.splat(angles.type, 0.5))
            s, c = _sine_cosine(e, half)
            for rows, value in ((cosine, c), (sine, s), (tangent, e.builder.fdiv(s, c))):
                same = rows.type == angles.type
                rows.store(value if same else e.builder.fptrunc(value, rows.type), loop.index)

    return step(emit, cosine, sine, tangent, angles, count)
