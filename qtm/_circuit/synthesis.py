"""Circuits that equal a unitary matrix to rounding, global phase and all.

Qiskit's own synthesis of two qubits replaces a matrix near a special class by that class where the fidelity is above
1 - 1e-9, which changes angles by up to 5e-5. Here nothing is rounded to a class.
"""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import Pauli
from qiskit.synthesis.two_qubit import TwoQubitWeylDecomposition

from qtm._errors import CircuitError

# `scipy.linalg` is imported where it is used: it takes a third of the import time of qtm.

# Accepted rounding of a user's matrix: the tolerance of Qiskit's UnitaryGate.
_UNITARY_TOLERANCE = 1e-6


def synthesize(matrix: np.ndarray) -> QuantumCircuit:
    """A circuit of one-qubit gates and Pauli rotations for a unitary (2**n, 2**n), equal to about 1e-14.

    Raises:
        CircuitError: the matrix is not unitary.
    """
    matrix = np.asarray(matrix, dtype=complex)
    if not np.isfinite(matrix).all():
        raise CircuitError("its matrix is not unitary: it has an entry that is NaN or infinite")
    left, scales, right = np.linalg.svd(matrix)
    if not np.all(np.abs(scales - 1) < _UNITARY_TOLERANCE):
        raise CircuitError(f"its matrix is not unitary: its singular values go from {scales[-1]} to {scales[0]}")
    num_qubits = len(left).bit_length() - 1
    circuit = QuantumCircuit(num_qubits)
    if num_qubits:
        _append(circuit, left @ right, num_qubits)
    else:
        circuit.global_phase = float(np.angle(left @ right).item())
    return circuit


def _append(circuit: QuantumCircuit, matrix: np.ndarray, num_qubits: int) -> None:
    """Append a unitary on the first qubits."""
    if num_qubits == 1:
        _append_one(circuit, matrix, 0)
    elif num_qubits == 2:
        _append_two(circuit, matrix)
    else:
        _append_many(circuit, matrix, num_qubits - 1)


def _append_one(circuit: QuantumCircuit, matrix: np.ndarray, qubit: int) -> None:
    """U(theta, phi, lambda); each phase is that of a product with an entry that is not small."""
    (a, b), (c, d) = matrix.tolist()
    theta = 2 * np.arctan2(abs(c), abs(a))
    phi = np.angle(c * a.conjugate())
    lam = np.angle(d * a.conjugate()) - phi if abs(a) >= abs(c) else phi - np.angle(-c * b.conjugate())
    circuit.u(float(theta), float(phi), float(lam), qubit)
    reference = a if abs(a) >= abs(c) else c * np.exp(-1j * phi)
    circuit.global_phase += float(np.angle(reference))


def _append_two(circuit: QuantumCircuit, matrix: np.ndarray) -> None:
    """Cartan's decomposition: Zhang et al., Phys. Rev. A 67, 042313 (2003); without a fidelity, so not specialized."""
    weyl = TwoQubitWeylDecomposition(matrix, fidelity=None)
    _append_one(circuit, weyl.K2r, 0)
    _append_one(circuit, weyl.K2l, 1)
    circuit.rxx(-2 * weyl.a, 0, 1)
    circuit.ryy(-2 * weyl.b, 0, 1)
    circuit.rzz(-2 * weyl.c, 0, 1)
    _append_one(circuit, weyl.K1r, 0)
    _append_one(circuit, weyl.K1l, 1)
    circuit.global_phase += weyl.global_phase


def _append_many(circuit: QuantumCircuit, matrix: np.ndarray, top: int) -> None:
    """Cosine-sine decomposition by qubit ``top``: Shende et al., IEEE Trans. CAD 25, 1000 (2006), theorem 10."""
    half = 1 << top
    if not (matrix[:half, half:].any() or matrix[half:, :half].any()):
        _append_multiplexed(circuit, matrix[:half, :half], matrix[half:, half:], top)
        return
    from scipy.linalg import cossin

    (u0, u1), angles, (v0, v1) = cossin(matrix, half, half, separate=True)
    _append_multiplexed(circuit, v0, v1, top)
    _append_rotations(circuit, "Y", 2 * angles, top)
    _append_multiplexed(circuit, u0, u1, top)


def _append_multiplexed(circuit: QuantumCircuit, if_zero: np.ndarray, if_one: np.ndarray, top: int) -> None:
    """One of two unitaries on the qubits below ``top``, selected by that qubit (theorem 12 there)."""
    if np.array_equal(if_zero, if_one):
        _append(circuit, if_zero, top)
        return
    from scipy.linalg import schur

    triangle, vectors = schur(if_zero @ if_one.conj().T, output="complex")  # diagonal, because it is normal
    roots = np.angle(np.diagonal(triangle)) / 2
    _append(circuit, np.exp(1j * roots)[:, None] * (vectors.conj().T @ if_one), top)
    _append_rotations(circuit, "Z", -2 * roots, top)
    _append(circuit, vectors, top)


def _append_rotations(circuit: QuantumCircuit, axis: str, angles: np.ndarray, top: int) -> None:
    """Rotations of qubit ``top`` by angles (2**top,), one for each state of the qubits below it."""
    for subset, angle in enumerate(walsh_hadamard(angles)):
        if angle:
            label = axis + "".join("Z" if subset >> q & 1 else "I" for q in reversed(range(top)))
            qubits = [q for q in range(top + 1) if q == top or subset >> q & 1]
            circuit.append(PauliEvolutionGate(Pauli(label.replace("I", "")), float(angle) / 2), qubits)


def walsh_hadamard(values: np.ndarray) -> np.ndarray:
    """Coefficients (2**n,) of the Z strings in a diagonal (2**n,): bit q of an index says whether Z is on qubit q."""
    coefficients = np.array(values)
    step = 1
    while step < len(coefficients):
        pairs = coefficients.reshape(-1, 2, step)
        coefficients = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        step *= 2
    return coefficients / len(coefficients)
