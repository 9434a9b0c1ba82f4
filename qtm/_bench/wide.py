"""Circuits too wide for one state: bricks of RY, RZ and CX, simulated by causal cones."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

LAYERS = 4


def brick(num_qubits: int, layers: int = LAYERS) -> QuantumCircuit:
    """Layers of RY and RZ on every qubit, and of CX on every other pair in turn."""
    angles = iter(ParameterVector("t", 2 * num_qubits * layers))
    circuit = QuantumCircuit(num_qubits)
    for layer in range(layers):
        for gate in ("ry", "rz"):
            for qubit in range(num_qubits):
                getattr(circuit, gate)(next(angles), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cx(qubit, qubit + 1)
    return circuit
