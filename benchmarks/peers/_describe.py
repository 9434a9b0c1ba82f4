"""Translate a Qiskit circuit into the neutral description that peers take (see _protocol.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import SparsePauliOp


def describe(
    circuit: QuantumCircuit,
    inputs: Sequence[Parameter],
    weights: Sequence[Parameter],
    observables: Sequence[SparsePauliOp],
) -> dict[str, Any]:
    """Neutral description of a circuit whose angles are `const + scale * input * weight`.

    Args:
        circuit: Circuit of the gates that `_protocol.GATES` lists; barriers are left out.
        inputs: Parameters of the inputs, in the order of their columns.
        weights: Trainable parameters, in the order of the weights.
        observables: Observables with real coefficients.

    Raises:
        ValueError: An angle is not of that form.
    """
    places = {parameter: ("input", place) for place, parameter in enumerate(inputs)}
    places |= {parameter: ("weight", place) for place, parameter in enumerate(weights)}
    gates = []
    for instruction in circuit.data:
        gate = instruction.operation
        if gate.name == "barrier":
            continue
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        angle = _angle(gate.params[0], places) if gate.params else None
        gates.append([gate.name, qubits, angle])
    terms = [[_term(*term) for term in observable.to_sparse_list()] for observable in observables]
    return {"num_qubits": circuit.num_qubits, "gates": gates, "observables": terms}


def _term(word: str, qubits: Sequence[int], coefficient: complex) -> list[Any]:
    return [float(coefficient.real), [[pauli, int(qubit)] for pauli, qubit in zip(word, qubits, strict=True)]]


def _angle(expression: ParameterExpression | float, places: dict[Parameter, tuple[str, int]]) -> dict[str, Any]:
    """`const + scale * input * weight` of an angle, found by evaluating it, and checked at one more point."""
    parameters = list(expression.parameters) if isinstance(expression, ParameterExpression) else []
    roles = dict(places[parameter] for parameter in parameters)

    def at(value: float) -> float:
        return float(expression.bind(dict.fromkeys(parameters, value))) if parameters else float(expression)

    const = at(0.0)
    scale = at(1.0) - const
    degree = len(parameters)
    if len(roles) != degree or abs(at(2.0) - const - scale * 2.0**degree) > 1e-12:
        raise ValueError(f"angle {expression} is not const + scale * input * weight")
    return {"const": const, "scale": scale, "input": roles.get("input"), "weight": roles.get("weight")}
