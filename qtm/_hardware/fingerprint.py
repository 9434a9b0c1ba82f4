"""A SHA-256 of everything that determines the result of a job, the same in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    CircuitInstruction,
    ClassicalRegister,
    Clbit,
    ControlFlowOp,
    Delay,
    ForLoopOp,
    Operation,
    Parameter,
    ParameterExpression,
    Store,
    SwitchCaseOp,
)
from qiskit.circuit.classical import expr
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparseObservable

_EXPRESSION_FIELDS = ("op", "left", "right", "operand", "target", "index", "value", "type")


def job_content(pubs: Iterable[EstimatorPub | SamplerPub], setting: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of ``pubs`` and of the ``setting`` (backend, options, seeds) they run in."""
    parts = [json.dumps(setting, sort_keys=True, default=_option).encode()]
    parts += [piece for pub in pubs for piece in _pub_bytes(pub)]
    return digest(parts)


def circuit_content(circuit: QuantumCircuit) -> str:
    """Return the SHA-256 (hex) of the structure of ``circuit``.

    Not of its QPY bytes: those hold the random UUIDs of its parameters, which differ between processes.
    """
    return digest([_circuit_bytes(circuit)])


def _option(value: Any) -> Any:
    """Options that are objects, such as noise models (layers and their noise), by their contents."""
    if hasattr(value, "to_sparse_list"):
        return [[pauli, list(qubits), rate] for pauli, qubits, rate in value.to_sparse_list()]
    if isinstance(value, CircuitInstruction):
        blocks = getattr(value.operation, "blocks", ())
        return [value.operation.name, len(value.qubits), [circuit_content(block) for block in blocks]]
    return repr(value)


def digest(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 (hex) of byte strings and of their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _pub_bytes(pub: EstimatorPub | SamplerPub) -> list[bytes]:
    values = pub.parameter_values.as_array(pub.circuit.parameters)  # (..., parameters)
    if isinstance(pub, SamplerPub):
        registers = [[r.name, [pub.circuit.find_bit(bit).index for bit in r]] for r in pub.circuit.cregs]
        return [
            _circuit_bytes(pub.circuit),
            repr(values.shape).encode(),
            np.ascontiguousarray(values, dtype="<f8").tobytes(),
            json.dumps([registers, pub.shots]).encode(),
        ]
    observables = [sorted(terms.items()) for terms in pub.observables.ravel().tolist()]
    return [
        _circuit_bytes(pub.circuit),
        repr(values.shape).encode(),
        np.ascontiguousarray(values, dtype="<f8").tobytes(),
        json.dumps([pub.observables.shape, observables, pub.precision]).encode(),
    ]


def _circuit_bytes(circuit: QuantumCircuit) -> bytes:
    """Instructions on qubit and parameter *indices*: names that Qiskit generates do not count."""
    index = {parameter: position for position, parameter in enumerate(circuit.parameters)}
    return json.dumps(_structure(circuit, index)).encode()


def _structure(circuit: QuantumCircuit, index: Mapping[Parameter, int]) -> list[Any]:
    bits = {bit: position for position, bit in enumerate([*circuit.qubits, *circuit.clbits])}
    instructions = [
        [_operation(item.operation, index, bits), [bits[b] for b in (*item.qubits, *item.clbits)]]
        for item in circuit.data
    ]
    phase = _value(circuit.global_phase, index)
    return [circuit.num_qubits, circuit.num_clbits, phase, instructions]


def _operation(operation: Operation, index: Mapping[Parameter, int], bits: Mapping[Any, int]) -> list[Any]:
    if isinstance(operation, AnnotatedOperation):
        return ["annotated", [repr(m) for m in operation.modifiers], _operation(operation.base_op, index, bits)]
    if isinstance(operation, ForLoopOp) and operation.params[1] is not None:
        index = {**index, operation.params[1]: -1 - len(index)}  # its name counts the loops that a process made
    given = getattr(operation, "params", ())  # of a Store they are its classical parts, whose repr has random ids
    params = [_value(param, index) for param in given if not isinstance(param, expr.Expr)]
    extra = [getattr(operation, "ctrl_state", None), operation.unit if isinstance(operation, Delay) else None]
    if isinstance(operation, ControlFlowOp | Store):
        return [type(operation).__name__, params, _classical_parts(operation, bits)]
    if isinstance(operation, PauliEvolutionGate):
        extra.append(_evolved(operation))
    standard = getattr(operation, "_standard_gate", None) is not None
    definition = None if standard else getattr(operation, "definition", None)
    if definition is None:
        matrix = [] if standard or not hasattr(operation, "__array__") else [_value(operation.to_matrix(), index)]
        return [operation.name, params, *extra, *matrix]
    inner = {**index, **_missing(definition, index)}
    return [type(operation).__name__, params, *extra, _structure(definition, inner)]


def _evolved(operation: PauliEvolutionGate) -> list[Any]:
    """The operator itself: the definition may have been made before the operator was changed."""
    operators = operation.operator if isinstance(operation.operator, list) else [operation.operator]
    sums = [o if isinstance(o, SparseObservable) else SparseObservable(o) for o in operators]
    return [[o.num_qubits, [[p, q, repr(complex(c))] for p, q, c in o.to_sparse_list()]] for o in sums]


def _classical_parts(operation: ControlFlowOp | Store, bits: Mapping[Any, int]) -> list[Any]:
    """Classical inputs of an instruction: conditions, targets, cases, stored values."""
    names = ("condition", "target", "lvalue", "rvalue", "duration", "annotations")
    parts = [[name, _classical(getattr(operation, name, None), bits)] for name in names]
    cases = operation.cases_specifier() if isinstance(operation, SwitchCaseOp) else ()
    return [*parts, [[repr(label) for label in labels] for labels, _ in cases]]


def _classical(value: Any, bits: Mapping[Any, int]) -> Any:
    """A classical expression by the indices of its bits; their names and objects differ between processes."""
    if isinstance(value, Clbit):
        return ["bit", bits[value]]
    if isinstance(value, ClassicalRegister):
        return ["register", [bits[bit] for bit in value]]
    if isinstance(value, tuple | list):
        return [_classical(item, bits) for item in value]
    if not isinstance(value, expr.Expr):
        return [type(value).__name__, repr(value)]
    if isinstance(value, expr.Var) and isinstance(value.var, Clbit | ClassicalRegister):
        return _classical(value.var, bits)
    if isinstance(value, expr.Var):
        return ["variable", value.name, repr(value.type)]
    fields = [[name, _classical(getattr(value, name), bits)] for name in _EXPRESSION_FIELDS if hasattr(value, name)]
    return [type(value).__name__, fields]


def _missing(circuit: QuantumCircuit, index: Mapping[Parameter, int]) -> dict[Parameter, int]:
    return {p: -1 - position for position, p in enumerate(circuit.parameters) if p not in index}


def _value(value: Any, index: Mapping[Parameter, int]) -> Any:
    if isinstance(value, Parameter):
        return ["parameter", index[value]]
    if isinstance(value, ParameterExpression):
        inner = {p: Parameter(f"_{-index[p]}") for p in value.parameters if index[p] < 0}  # named by their process
        names = sorted((inner.get(parameter, parameter).name, index[parameter]) for parameter in value.parameters)
        return ["expression", str(value.subs(inner)), names]
    if isinstance(value, QuantumCircuit):
        return ["circuit", _structure(value, {**index, **_missing(value, index)})]
    if isinstance(value, np.ndarray):
        return ["array", value.shape, value.dtype.str, hashlib.sha256(value.tobytes()).hexdigest()]
    return [type(value).__name__, repr(value)]
