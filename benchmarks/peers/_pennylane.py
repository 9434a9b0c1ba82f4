"""The neutral circuit in PennyLane's operations and observables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _protocol import Gate, Term

GATES = {"h": "Hadamard", "cx": "CNOT", "cz": "CZ", "rx": "RX", "ry": "RY", "rz": "RZ"}


def operation(qml: Any, gate: Gate) -> tuple[Callable[..., Any], int | None]:
    """What makes the operation, from its angle if it has one, and the place of that angle."""
    make = getattr(qml, GATES[gate.name])
    if gate.angle is None:
        return (lambda: make(wires=gate.qubits)), None
    return (lambda angle: make(angle, wires=gate.qubits)), gate.angle


def observable(qml: Any, terms: list[Term]) -> Any:
    words = [[getattr(qml, pauli)(qubit) for pauli, qubit in word] for _, word in terms]
    products = [qml.prod(*word) if len(word) > 1 else word[0] for word in words]
    if len(terms) == 1 and terms[0][0] == 1.0:
        return products[0]
    return qml.Hamiltonian([coefficient for coefficient, _ in terms], products)
