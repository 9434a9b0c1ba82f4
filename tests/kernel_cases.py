"""Feature maps and their kernel matrices from ``qiskit.quantum_info``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from circuit_cases import random_circuit
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import pauli_feature_map, real_amplitudes, z_feature_map, zz_feature_map
from qiskit.quantum_info import DensityMatrix, Statevector, partial_trace


def trained_map(qubits: int = 3) -> tuple[QuantumCircuit, list[Parameter]]:
    """A feature map with trained angles before and after the features, and a trained factor."""
    x, angles, scale = ParameterVector("x", qubits), ParameterVector("a", 2 * qubits), Parameter("s")
    circuit = QuantumCircuit(qubits)
    for q in range(qubits):
        circuit.ry(angles[q], q)
        circuit.rx(scale * x[q], q)
    for q in range(qubits - 1):
        circuit.cx(q, q + 1)
    for q in range(qubits):
        circuit.rz(x[q] * x[(q + 1) % qubits], q)
        circuit.ry(angles[qubits + q], q)
    circuit.cz(0, qubits - 1)
    for q in range(qubits):
        circuit.rx(x[q], q)
    return circuit, [*angles, scale]


FEATURE_MAPS = {
    "zz": zz_feature_map(3),
    "z": z_feature_map(2, reps=1),
    "pauli": pauli_feature_map(3, reps=1, paulis=["X", "YZ", "ZZ"]),
    "real": real_amplitudes(3, reps=1),
    "one qubit": z_feature_map(1),
    "expressions": random_circuit(3, 4, 25),
}


def states(circuit: QuantumCircuit, rows: np.ndarray, fixed: Mapping[Parameter, float] | None = None) -> np.ndarray:
    """Qiskit's states (rows, 2**qubits) of samples, with trained parameters ``fixed``."""
    fixed = fixed or {}
    free = [p for p in circuit.parameters if p not in fixed]
    bound = [circuit.assign_parameters({**fixed, **dict(zip(free, row, strict=True))}) for row in rows]
    return np.array([Statevector(one).data for one in bound]).reshape(len(rows), 2**circuit.num_qubits)


def fidelity_matrix(
    circuit: QuantumCircuit, x: np.ndarray, y: np.ndarray, fixed: Mapping[Parameter, float] | None = None
) -> np.ndarray:
    """Squared overlaps (rows, columns)."""
    return np.abs(states(circuit, x, fixed).conj() @ states(circuit, y, fixed).T) ** 2


def projected_matrix(circuit: QuantumCircuit, x: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
    """``exp(-gamma * sum over qubits of |rho_k(x) - rho_k(y)|^2)`` from partial traces."""

    def reduced(rows: np.ndarray) -> np.ndarray:  # (rows, qubits, 2, 2)
        every = range(circuit.num_qubits)
        wholes = [DensityMatrix(Statevector(state)) for state in states(circuit, rows)]
        return np.array([[partial_trace(w, [q for q in every if q != k]).data for k in every] for w in wholes])

    distances = np.abs(reduced(x)[:, None] - reduced(y)[None]) ** 2
    return np.exp(-gamma * distances.sum((2, 3, 4)))
