"""Circuits too wide for one state: bricks of RY, RZ and CX, simulated by causal cones."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

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


def xxz(num_qubits: int, anisotropy: float = 0.5) -> SparsePauliOp:
    """The XXZ chain: XX + YY + anisotropy ZZ on every bond."""
    bonds = [(p, [q, q + 1], c) for q in range(num_qubits - 1) for p, c in (("XX", 1), ("YY", 1), ("ZZ", anisotropy))]
    return SparsePauliOp.from_sparse_list(bonds, num_qubits)
