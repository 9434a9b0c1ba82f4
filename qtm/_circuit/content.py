"""The current content of a circuit as a key: circuits of equal content are lowered once.

Objects that a circuit holds may be changed in place after it was used, so a key holds values and never identities.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    Barrier,
    CircuitInstruction,
    Delay,
    Gate,
    Instruction,
    Measure,
    Operation,
    ParameterExpression,
)
from qiskit.circuit.library import Initialize, PauliEvolutionGate, StatePreparation, UnitaryGate
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp


class _UnknownError(Exception):
    """An object of unknown content."""


def content_of(circuit: QuantumCircuit) -> Any:
    """A hashable key, equal exactly for circuits of equal content; None if the content is unknown."""
    try:
        return _circuit(circuit)
    except _UnknownError:
        return None


def _circuit(circuit: QuantumCircuit) -> tuple[Any, ...]:
    index = {bit: i for i, bit in enumerate(circuit.qubits)}
    rows = []
    for instruction in circuit.data:
        qubits = tuple([index[q] for q in instruction.qubits])
        rows.append((*_instruction(instruction), qubits, len(instruction.clbits)))
    return circuit.num_qubits, tuple(circuit.parameters), circuit.global_phase, tuple(rows)


def _instruction(instruction: CircuitInstruction) -> tuple[Any, ...]:
    if instruction.is_standard_gate():
        return instruction.name, _values(instruction.params)
    return _operation(instruction.operation), ()


def _values(values: Any) -> tuple[Any, ...]:
    return tuple([_value(value) for value in values])


def _value(value: Any) -> Any:
    # Expressions first: they have their own rules for comparison with numbers.
    if isinstance(value, ParameterExpression | str):
        return value
    if isinstance(value, int | float | complex | np.number):
        return complex(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape, value.dtype.str, value.tobytes()
    raise _UnknownError


@singledispatch
def _operation(operation: Operation) -> tuple[Any, ...]:
    # The content of other classes is unknown.
    if type(operation) in (Gate, Instruction) and isinstance(operation.definition, QuantumCircuit):
        return "definition", operation.name, _circuit(operation.definition)
    raise _UnknownError


@_operation.register(Barrier)
@_operation.register(Measure)
@_operation.register(Delay)
@_operation.register(UnitaryGate)
@_operation.register(StatePreparation)
@_operation.register(Initialize)
def _(operation: Instruction) -> tuple[Any, ...]:
    known = (Barrier, Measure, Delay, UnitaryGate, StatePreparation, Initialize)
    if type(operation) not in known:
        raise _UnknownError
    return type(operation).__name__, operation.name, _values(operation.params)


@_operation.register
def _(operation: AnnotatedOperation) -> tuple[Any, ...]:
    base = operation.base_op
    standard = getattr(base, "_standard_gate", None)
    inner = (base.name, _values(base.params)) if standard is not None else _operation(base)
    return "annotated", tuple(map(repr, operation.modifiers)), inner


@_operation.register
def _(operation: PauliEvolutionGate) -> tuple[Any, ...]:
    if type(operation) is not PauliEvolutionGate:
        raise _UnknownError
    operators = operation.operator if isinstance(operation.operator, list) else [operation.operator]
    return "evolution", tuple(map(_operator, operators)), _values(operation.params)


def _operator(operator: Any) -> tuple[Any, ...]:
    if isinstance(operator, SparsePauliOp):
        return _values((operator.paulis.x, operator.paulis.z, operator.paulis.phase, operator.coeffs))
    if isinstance(operator, Pauli):
        return (operator.to_label(),)
    if isinstance(operator, SparseObservable):
        arrays = operator.coeffs, operator.bit_terms, operator.indices, operator.boundaries
        return operator.num_qubits, *_values(map(np.array, arrays))
    raise _UnknownError
