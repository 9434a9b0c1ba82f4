"""Conditions on classical bits: clbits, registers and Qiskit's classical expressions, as truth tables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from qiskit.circuit import ClassicalRegister, Clbit
from qiskit.circuit.classical import expr

from qtm._errors import CircuitError

# All assignments of the bits are enumerated.
MAX_BITS = 10
Bits = Mapping[Clbit, int]

_BINARY: dict[str, Callable[[int, int], int]] = {
    "BIT_AND": operator.and_,
    "BIT_OR": operator.or_,
    "BIT_XOR": operator.xor,
    "LOGIC_AND": lambda a, b: int(bool(a) and bool(b)),
    "LOGIC_OR": lambda a, b: int(bool(a) or bool(b)),
    "EQUAL": lambda a, b: int(a == b),
    "NOT_EQUAL": lambda a, b: int(a != b),
    "LESS": lambda a, b: int(a < b),
    "LESS_EQUAL": lambda a, b: int(a <= b),
    "GREATER": lambda a, b: int(a > b),
    "GREATER_EQUAL": lambda a, b: int(a >= b),
    "SHIFT_LEFT": operator.lshift,
    "SHIFT_RIGHT": operator.rshift,
    "ADD": operator.add,
    "SUB": operator.sub,
    "MUL": operator.mul,
}


def bits_of(target: Any) -> tuple[Clbit, ...]:
    """The bits that a clbit, register or expression reads.

    Raises:
        CircuitError: it reads a classical variable, or more than 10 bits.
    """
    found: dict[Clbit, None] = {}
    for variable in expr.iter_vars(target) if isinstance(target, expr.Expr) else [target]:
        variable = getattr(variable, "var", variable)
        if isinstance(variable, Clbit):
            found[variable] = None
        elif isinstance(variable, ClassicalRegister):
            found.update(dict.fromkeys(variable))
        else:
            raise CircuitError("classical variables are not simulated; use bits of a classical register")
    if len(found) > MAX_BITS:
        raise CircuitError(f"a condition on {len(found)} bits is not simulated; at most {MAX_BITS} are")
    return tuple(found)


def value_of(target: Any, bits: Bits) -> int:
    """The value of a clbit, register or expression."""
    if isinstance(target, Clbit):
        return bits[target]
    if isinstance(target, ClassicalRegister):
        return sum(bits[bit] << place for place, bit in enumerate(target))
    if isinstance(target, expr.Var):
        return value_of(target.var, bits)
    if isinstance(target, expr.Value):
        return int(target.value)
    if isinstance(target, expr.Cast):
        return _fitted(value_of(target.operand, bits), target.type)
    if isinstance(target, expr.Index):
        return value_of(target.target, bits) >> value_of(target.index, bits) & 1
    if isinstance(target, expr.Unary):
        value = value_of(target.operand, bits)
        return int(not value) if target.op.name == "LOGIC_NOT" else _fitted(~value, target.type)
    if isinstance(target, expr.Binary) and target.op.name in _BINARY:
        value = _BINARY[target.op.name](value_of(target.left, bits), value_of(target.right, bits))
        return _fitted(value, target.type)
    raise CircuitError(f"the classical expression {target!r} is not simulated")


def _fitted(value: int, kind: Any) -> int:
    width = getattr(kind, "width", None)
    return int(bool(value)) if width is None else value & (1 << width) - 1


def assignments(target: Any, wanted: Callable[[int], bool]) -> tuple[tuple[Clbit, ...], list[int]]:
    """The bits of a target, and their values (bit j for ``bits[j]``) for which the target has a wanted value."""
    bits = bits_of(target)
    found = []
    for values in product((0, 1), repeat=len(bits)):
        assigned = dict(zip(bits, values, strict=True))
        if wanted(value_of(target, assigned)):
            found.append(sum(value << place for place, value in enumerate(values)))
    return bits, found
