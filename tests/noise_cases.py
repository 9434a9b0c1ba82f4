"""Random circuits with channels, and their exact values from ``qiskit.quantum_info.DensityMatrix``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from circuit_cases import random_circuit
from flat_oracle import matrix
from qiskit.quantum_info import PTM, DensityMatrix, Operator, SuperOp

from qtm._circuit.channels import CHANNELS, Channel, pauli_transfer_matrix
from qtm._circuit.flatten import FlatCircuit, flatten

# Where Qiskit's I, X, Y, Z stand in the numbering of qtm: I, X, Z, Y.
_OWN = np.array([0, 1, 3, 2])
# Strengths for a test of every row, away from special values.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "bit_flip": (0.11,),
    "phase_flip": (0.07,),
    "bit_phase_flip": (0.05,),
    "pauli": (0.01, 0.05, 0.1),
    "two_qubit_pauli": tuple(0.003 * j for j in range(1, 16)),
    "depolarizing": (0.13,),
    "two_qubit_depolarizing": (0.2,),
    "amplitude_damping": (0.2, 0.1),
    "phase_damping": (0.15,),
    "thermal_relaxation": (0.2, 0.3, 0.05),
    "reset": (0.1, 0.04),
    "factors": (0.8, 0.7, 0.75, 0.1),
    "two_qubit_factors": (*(0.97 - 0.01 * j for j in range(15)), 0.02, 0.03),
}


def qiskit_order(own: np.ndarray) -> np.ndarray:
    """A transfer matrix of qtm in the order of `qiskit.quantum_info.PTM`."""
    places = _OWN if len(own) == 4 else np.array([_OWN[j >> 2] << 2 | _OWN[j & 3] for j in range(16)])
    return own[np.ix_(places, places)]


def strengths(channel: Channel, angles: list[float]) -> list[float]:
    return [angles[s] if isinstance(s, int) else s for s in channel.strengths]


def final_state(flat: FlatCircuit, angles: list[float], start: DensityMatrix | None = None) -> DensityMatrix:
    """The density matrix after a flat circuit."""
    state = DensityMatrix.from_label("0" * flat.num_qubits) if start is None else start
    for operation in flat.operations:
        if isinstance(operation, Channel):
            own = pauli_transfer_matrix(operation.name, strengths(operation, angles))
            state = state.evolve(SuperOp(PTM(qiskit_order(own))), qargs=list(operation.qubits))
        else:
            state = state.evolve(Operator(matrix(operation, angles, flat.num_qubits)))
    return state


def noisy(seed: int, num_qubits: int, num_gates: int, names: list[str] | None = None) -> FlatCircuit:
    """A random circuit with a random channel after about every second primitive."""
    flat = flatten(random_circuit(seed, num_qubits, num_gates))
    rng = np.random.default_rng(seed)
    names = [n for n in names or CHANNELS if CHANNELS[n].num_qubits <= num_qubits]
    operations: list = []
    for operation in flat.operations:
        operations.append(operation)
        if rng.random() < 0.5:
            name = names[rng.integers(len(names))]
            qubits = rng.choice(num_qubits, CHANNELS[name].num_qubits, replace=False)
            operations.append(Channel(name, tuple(map(int, qubits)), STRENGTHS[name]))
    return replace(flat, operations=tuple(operations))
