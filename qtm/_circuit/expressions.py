"""Qiskit's parameter expressions, read into an `AngleMap`.

A sum of monomials (a bare parameter, ``2*x``, ``w*x + b``, ``x**2``) becomes one row of the map, exactly; any
other expression (``sin(x)*w``, ``exp(-t)``, ``(pi - x)*(pi - y)``) a short program on such rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Complex
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.circuit.parameterexpression import OpCode

from qtm._circuit.angle_map import (
    OPERATORS,
    AngleMap,
    PostfixProgram,
    Step,
    gives_complex,
    is_complex,
    takes_complex_values,
)
from qtm._errors import ParameterError

# {indices of the parameters of a monomial, sorted, with repetition: its coefficient}.
Polynomial = dict[tuple[int, ...], complex]
# The form of an expression, or of a part of one, while it is read.
Value = Polynomial | list[Step]

_BINARY: dict[Any, str] = {
    OpCode.ADD: "add", OpCode.SUB: "sub", OpCode.MUL: "mul", OpCode.DIV: "truediv", OpCode.POW: "pow",
}  # fmt: skip
_REFLECTED: dict[Any, str] = {OpCode.RSUB: "sub", OpCode.RDIV: "truediv", OpCode.RPOW: "pow"}
_UNARY: dict[Any, str] = {
    OpCode.SIN: "sin", OpCode.COS: "cos", OpCode.TAN: "tan", OpCode.ASIN: "arcsin", OpCode.ACOS: "arccos",
    OpCode.ATAN: "arctan", OpCode.EXP: "exp", OpCode.LOG: "log", OpCode.ABS: "abs", OpCode.SIGN: "sign",
    OpCode.CONJ: "conj",
}  # fmt: skip
# Functions with complex values outside of an interval.
_COMPLEX_OUTSIDE = {"log", "arcsin", "arccos"}
# Each degree is one more gather for all the monomials; rarer powers are left to the programs.
_MAX_DEGREE = 4
# An imaginary part this small relative to the real one is rounding.
_IMAGINARY_TOLERANCE = 1e-12
# Radians. Above it neighbouring doubles are more than 1/64 apart: such a number is a time stamp or an overflow.
LARGEST_ANGLE = 2.0**46


def _constant(number: complex) -> Polynomial:
    return {(): number} if number else {}


def _is_constant(value: Value) -> bool:
    return isinstance(value, dict) and not (value.keys() - {()})


def _add(left: Polynomial, right: Polynomial, sign: int = 1) -> Polynomial:
    # In place, so that a sum of n terms is read in O(n).
    for monomial, coefficient in right.items():
        total = left.get(monomial, 0) + sign * coefficient
        if total:
            left[monomial] = total
        else:
            left.pop(monomial, None)
    return left


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial | None:
    if len(left) > 1 and len(right) > 1:
        return None  # expanding a product of sums would cost terms and precision
    product = {tuple(sorted(m + n)): a * b for m, a in left.items() for n, b in right.items()}
    return product if all(len(m) <= _MAX_DEGREE for m in product) else None


def _divide(left: Polynomial, right: Polynomial) -> Polynomial | None:
    if not right or not _is_constant(right):
        return None
    return {monomial: coefficient / right[()] for monomial, coefficient in left.items()}


def _power(base: Polynomial, exponent: Polynomial) -> Polynomial | None:
    power = exponent.get((), 0.0)
    if not _is_constant(exponent) or len(base) != 1 or power.imag or not float(power.real).is_integer():
        return None
    ((monomial, coefficient),) = base.items()
    if power.real < 1 or not 1 <= len(monomial) * power.real <= _MAX_DEGREE:
        return None
    return {tuple(sorted(monomial * int(power.real))): coefficient ** int(power.real)}


_POLYNOMIAL: dict[str, Callable[[Polynomial, Polynomial], Polynomial | None]] = {
    "add": _add,
    "sub": lambda left, right: _add(left, right, -1),
    "mul": _multiply,
    "truediv": _divide,
    "pow": _power,
}


def _number(value: Any) -> complex:
    number = complex(value)
    return number if number.imag else number.real


def _steps(value: Value) -> list[Step]:
    """The value as a program; a complex polynomial becomes ``real row + 1j * imaginary row``."""
    if isinstance(value, list):
        return value
    if _is_constant(value):
        return [("const", value.get((), 0.0))]
    real, imaginary = (
        tuple(sorted((m, getattr(c, part)) for m, c in value.items() if getattr(c, part))) for part in ("real", "imag")
    )
    rotated = [("const", 1j), ("row", imaginary), ("mul", None)] if imaginary else []
    if not real:
        return rotated
    return [("row", real), *rotated, ("add", None)] if rotated else [("row", real)]


def _fold(name: str, *constants: Polynomial) -> Polynomial:
    numbers = [complex(constant.get((), 0.0)) for constant in constants]
    function = OPERATORS.get(name) or getattr(np, name)
    with np.errstate(all="ignore"):
        return _constant(_number(complex(function(*map(np.complex128, numbers)))))


def _binary(name: str, left: Value, right: Value) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        polynomial = _POLYNOMIAL[name](left, right)
        if polynomial is not None:
            return polynomial
        if _is_constant(left) and _is_constant(right):
            return _fold(name, left, right)
    program = _steps(left)
    program.extend(_steps(right))
    program.append((name, None))
    return program


def _unary(name: str, value: Value) -> Any:
    steps = _steps(value)
    if name == "sign" and gives_complex(steps):
        raise _ComplexSignError
    if _is_constant(value):
        return _fold(name, value)  # type: ignore[arg-type]
    return [*(_with_complex_values(steps) if name == "abs" else steps), (name, None)]


def _with_complex_values(program: list[Step]) -> list[Step]:
    """The program with complex powers and logarithms of negative numbers: their absolute values are real."""
    if ("sign", None) in program:  # defined for real numbers only
        return program
    steps: list[Step] = []
    for step, previous in zip(program, [None, *program], strict=False):
        exponent = previous[1] if previous is not None and previous[0] == "const" else None
        if step[0] == "pow" and (exponent is None or complex(exponent) != round(complex(exponent).real)):
            # base ** exponent: a complex exponent makes the operation complex, and its value is the same.
            steps += [("const", 0j), ("add", None)]
        if step[0] in _COMPLEX_OUTSIDE:
            steps += [("const", 0j), ("add", None)]
        steps.append(step)
    return steps


def _operand(value: Any, index: dict[Parameter, int]) -> Value:
    if isinstance(value, Parameter):
        return {(index[value],): 1.0}
    if isinstance(value, ParameterExpression):
        return _read(value, index)
    return _constant(_number(value))


def _read(expression: ParameterExpression, index: dict[Parameter, int]) -> Value:
    # Qiskit's record of operations, from which its QPY format and sympify() are derived. sympify() itself is unusable:
    # in Qiskit 2.6 it fails on 2**a and gives a for the derivative of a*b with respect to a.
    stack: list[Value] = []
    for step in expression._qpy_replay:
        if step.op in _UNARY:
            stack.append(_unary(_UNARY[step.op], stack.pop() if step.lhs is None else _operand(step.lhs, index)))
            continue
        # An operand that is not recorded is an earlier result, the right one the latest: Qiskit 2.3 records a - sin(b)
        # as (SUB, a, None), later versions as (RSUB, None, a).
        right = stack.pop() if step.rhs is None else _operand(step.rhs, index)
        left = stack.pop() if step.lhs is None else _operand(step.lhs, index)
        if step.op in _REFLECTED:
            left, right = right, left
        elif step.op not in _BINARY:
            raise ParameterError(f"the operation {step.op} of the expression {expression} is not supported")
        stack.append(_binary(_BINARY.get(step.op) or _REFLECTED[step.op], left, right))
    return stack.pop() if stack else _without_record(expression, index)


def _without_record(expression: ParameterExpression, index: dict[Parameter, int]) -> Value:
    """Before Qiskit 2.4 an expression that reduces to one parameter, or to a number, has an empty record."""
    for parameter in expression.parameters:
        if parameter.name == str(expression):  # names are unique within an expression
            return {(index[parameter],): 1.0}
    return _constant(_number(expression.bind(dict.fromkeys(expression.parameters, 0.0)).numeric()))


def _output(value: Value, label: object) -> PostfixProgram:
    if isinstance(value, list):
        if not all(np.isfinite(number) for kind, number in value if kind == "const"):
            raise ParameterError(f"angle {label} is not finite; check the numbers in the expression")
        return tuple(value)
    for coefficient in value.values():
        if not (math.isfinite(coefficient.real) and math.isfinite(coefficient.imag)):
            raise ParameterError(f"angle {label} is not finite; check the numbers in the expression")
        if abs(coefficient.imag) > _IMAGINARY_TOLERANCE * abs(coefficient):
            raise ParameterError(f"angle {label} is complex; an angle must be real (radians)")
    return (("row", tuple(sorted((m, float(c.real)) for m, c in value.items()))),)


def _check_parameters(parameters: Sequence[Parameter]) -> dict[Parameter, int]:
    index: dict[Parameter, int] = {}
    for position, parameter in enumerate(parameters):
        if index.setdefault(parameter, position) != position:
            raise ParameterError(
                f"parameter {parameter.name!r} is listed twice, at positions {index[parameter]} and {position}"
            )
    return index


def _check_known(expressions: Sequence[Any], index: dict[Parameter, int]) -> None:
    unknown = {
        parameter.name
        for expression in expressions
        if isinstance(expression, ParameterExpression)
        for parameter in expression.parameters
        if parameter not in index
    }
    if unknown:
        raise ParameterError(
            f"the circuit uses parameters that are not in the given list: {', '.join(sorted(unknown))}; "
            "add them to the inputs or to the weights, or assign them values"
        )


def _check_real(angle_map: AngleMap, labels: Sequence[Any]) -> None:
    """Raise an error for programs with complex constants whose value is complex at (fixed, generic) sample points."""
    points = np.random.default_rng(7).uniform(0.1, 0.9, (4, angle_map.num_parameters))  # (points, parameters)
    for program, label in zip(angle_map.programs, labels, strict=True):
        if is_complex(program) and takes_complex_values(program, points):
            raise ParameterError(f"angle {label} is complex; an angle must be real (radians)")


class _ComplexSignError(Exception):
    """Qiskit's sign of a complex number is not the number over its absolute value, nor is it documented."""


def _program(expression: Any, index: dict[Parameter, int]) -> PostfixProgram:
    try:
        return _output(_operand(expression, index), expression)
    except _ComplexSignError:
        raise ParameterError(
            f"angle {expression} takes the sign of a complex number, which has more than one definition; "
            "divide the number by its absolute value"
        ) from None


def compile_angles(expressions: Sequence[ParameterExpression | complex], parameters: Sequence[Parameter]) -> AngleMap:
    """Compile expressions to one map from the values of ``parameters``, in the order given, to angles.

    Parameters are distinguished by identity, as in Qiskit, and never by name. A constant is a number or an
    expression without parameters.

    Raises:
        ParameterError: a parameter is listed twice or missing, or an angle is complex, infinite or not a number.

    Example:
        >>> from qiskit.circuit import Parameter
        >>> x, w = Parameter("x"), Parameter("w")
        >>> compile_angles([x, 2 * w * x, w.sin()], [x, w]).numpy(np.array([3.0, 0.5]))
        array([3.        , 3.        , 0.47942554])
    """
    index = _check_parameters(parameters)
    _check_known(expressions, index)
    for expression in expressions:
        if not isinstance(expression, ParameterExpression | Complex):
            raise ParameterError(f"angle {expression!r} is neither a number nor a Qiskit ParameterExpression")
    programs = tuple(_program(e, index) for e in expressions)
    angle_map = AngleMap(len(index), programs)
    if any(map(is_complex, programs)):
        _check_real(angle_map, expressions)
    return angle_map


def check_angles(angles: np.ndarray, labels: Sequence[ParameterExpression]) -> None:
    """Raise an error for angles (batch, angles) that are not finite or too large, naming their expressions.

    Raises:
        ParameterError: an angle is NaN, infinite, or beyond `LARGEST_ANGLE`.
    """
    if np.vdot(angles, angles) <= LARGEST_ANGLE:  # the cheapest complete check; False for NaN
        return
    for sample, number in np.argwhere(~np.isfinite(angles)):
        raise ParameterError(
            f"the angle {labels[number]} is {angles[sample, number]} in sample {sample}: "
            "an input or a trainable parameter in it is NaN or infinite, or it is not defined there"
        )
    for sample, number in np.argwhere(np.abs(angles) > LARGEST_ANGLE):
        raise ParameterError(
            f"the angle {labels[number]} is {angles[sample, number]:.6g} radians in sample {sample}; beyond "
            f"{LARGEST_ANGLE:.3g} double precision no longer resolves angles. "
            "Subtract a reference value first, or scale its parameters down"
        )
