"""The XXZ ring of Fig. 9 of [2], its ground-state energy, and circuits that approximate its ground state.

[2] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025), section III-E.
"""

from __future__ import annotations

from math import acos, pi

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qtm._errors import ParameterError

DELTA, LAYERS = 0.5, 3


def xxz(num_qubits: int, *, ring: bool = True) -> SparsePauliOp:
    """H = sum of XX + YY + DELTA ZZ over neighbours."""
    bonds = [(q, (q + 1) % num_qubits) for q in range(num_qubits if ring else num_qubits - 1)]
    weights = (("XX", 1.0), ("YY", 1.0), ("ZZ", DELTA))
    return SparsePauliOp.from_sparse_list([(p, list(b), w) for b in bonds for p, w in weights], num_qubits)


def hardware_efficient(num_qubits: int, layers: int = LAYERS) -> QuantumCircuit:
    """Layers of RY and RZ on every qubit and a chain of CX."""
    angles = iter(ParameterVector("t", 2 * num_qubits * layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for q in range(num_qubits):
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in range(num_qubits - 1):
            circuit.cx(q, q + 1)
    return circuit


def qiboml(num_qubits: int, layers: int = LAYERS) -> QuantumCircuit:
    """The `HardwareEfficient` circuit of Qiboml: RY and RZ on every qubit, then CX.

    Its CX follow the chain from the first qubit to the last but one; one more goes from the last qubit to the first.
    Here the qubits are numbered from the last one on, so that all CX act on neighbours; the ring looks the same.
    """
    angles = iter(ParameterVector("t", 2 * num_qubits * layers))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for q in range(num_qubits):
            circuit.ry(next(angles), q)
            circuit.rz(next(angles), q)
        for q in (*range(1, num_qubits - 1), 0):
            circuit.cx(q, q + 1)
    return circuit


def dimer_ring(num_qubits: int, layers: int = LAYERS) -> QuantumCircuit:
    """Singlets on every second bond, then layers of XX, YY and ZZ rotations on the odd and the even bonds of the ring.

    All rotations of one kind in one half of a layer share their angle. The energy per qubit is therefore the same on
    every ring of at least ``4 * layers + 4`` qubits: angles found on a small ring serve a large one.
    """
    angles = iter(ParameterVector("t", 6 * layers))
    circuit = QuantumCircuit(num_qubits)
    _singlets(circuit)
    for _ in range(layers):
        for first in (1, 0):
            shared = [next(angles) for _ in "xyz"]
            for q in range(first, num_qubits, 2):
                for gate, angle in zip((circuit.rxx, circuit.ryy, circuit.rzz), shared, strict=True):
                    gate(angle, q, (q + 1) % num_qubits)
    return circuit


def _singlets(circuit: QuantumCircuit) -> None:
    """Qubits 2k and 2k + 1 to (|01> - |10>) / sqrt(2), up to a sign."""
    for q in range(0, circuit.num_qubits - 1, 2):
        circuit.x([q, q + 1])
        circuit.h(q)
        circuit.cx(q, q + 1)


def dimerized(num_qubits: int, layers: int = 1) -> QuantumCircuit:
    """Singlets on every second bond, then layers of XX, YY and ZZ rotations on the odd and the even bonds.

    At angles of zero the energy is that of the singlets, 17% above the ground state of the long chain.
    """
    angles = iter(ParameterVector("t", 3 * (num_qubits - 1) * layers))
    circuit = QuantumCircuit(num_qubits)
    _singlets(circuit)
    for _ in range(layers):
        for first in (1, 0):
            for q in range(first, num_qubits - 1, 2):
                circuit.rxx(next(angles), q, q + 1)
                circuit.ryy(next(angles), q, q + 1)
                circuit.rzz(next(angles), q, q + 1)
    return circuit


def staircase(num_qubits: int, layers: int = 2) -> QuantumCircuit:
    """Every second qubit in 1, then layers of RZ and of XX, YY and ZZ rotations, from one end to the other.

    One layer can prepare matrix product states of bond dimension 2, two layers some of those of 4.
    """
    angles = iter(ParameterVector("t", 5 * (num_qubits - 1) * layers))
    circuit = QuantumCircuit(num_qubits)
    circuit.x(range(1, num_qubits, 2))
    for _ in range(layers):
        for q in range(num_qubits - 1):
            circuit.rz(next(angles), q)
            circuit.rz(next(angles), q + 1)
            circuit.rxx(next(angles), q, q + 1)
            circuit.ryy(next(angles), q, q + 1)
            circuit.rzz(next(angles), q, q + 1)
    return circuit


def ring_energy(num_qubits: int) -> float:
    """Ground-state energy of `xxz` on a ring of an even number of qubits, by the Bethe ansatz.

    C. N. Yang and C. P. Yang, Phys. Rev. 150, 321 (1966): roots x_j with
    N t(x_j, 1) = 2 pi I_j + sum_k t(x_j - x_k, 2),
    where t(x, n) = 2 arctan(tanh(x) / tan(n g / 2)) and DELTA = cos g.

    Raises:
        ParameterError: the number of qubits is odd.
    """
    if num_qubits % 2:
        raise ParameterError(f"the ground state of a ring of {num_qubits} qubits is not this one; use an even number")
    gamma, count = acos(DELTA), num_qubits // 2
    quantum_numbers = np.arange(count) - (count - 1) / 2

    def phase(x: np.ndarray, n: int) -> np.ndarray:
        return 2 * np.arctan(np.tanh(x) / np.tan(n * gamma / 2))

    roots = np.zeros(count)
    for _ in range(5000):
        total = 2 * pi * quantum_numbers + phase(roots[:, None] - roots[None, :], 2).sum(1)
        new = np.arctanh(np.tan(total / (2 * num_qubits)) * np.tan(gamma / 2))
        if np.abs(new - roots).max() < 1e-14:
            break
        roots = 0.5 * (roots + new)
    energies = np.sin(gamma) ** 2 / (np.cosh(2 * roots) - np.cos(gamma))
    return float(num_qubits * DELTA - 4 * energies.sum())
