"""Fig. 9 of [2]: the ground state of a 50-qubit XXZ ring, trained as a matrix product state.

[2] M. Robbiati et al., Qiboml: towards the orchestration of quantum-classical machine learning (2025), section III-E:
three layers of RY, RZ and CX, Adam at 0.01, 100 epochs, ten starts, bonds of 32 or a cutoff of 1e-10.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import acos, pi
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qtm._errors import ParameterError
from qtm.modules import QuantumModule

DELTA, LAYERS, RATE = 0.5, 3, 0.01
TRUNCATIONS: dict[str, dict[str, Any]] = {"max_bond 32": {"max_bond": 32}, "cutoff 1e-10": {"cutoff": 1e-10}}


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


def dimerized(num_qubits: int, layers: int = 1) -> QuantumCircuit:
    """Singlets on every second bond, then layers of XX, YY and ZZ rotations on the odd and the even bonds.

    At angles of zero the energy is that of the singlets, 17% above the ground state of the long chain.
    """
    angles = iter(ParameterVector("t", 3 * (num_qubits - 1) * layers))
    circuit = QuantumCircuit(num_qubits)
    for q in range(0, num_qubits - 1, 2):
        circuit.x([q, q + 1])
        circuit.h(q)
        circuit.cx(q, q + 1)
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


@dataclass(frozen=True)
class Training:
    """One training: relative error of the energy at every evaluation; the median time of one in seconds."""

    truncation: str
    ansatz: str
    seed: int
    errors: tuple[float, ...]
    step_seconds: float


ANSATZE = {"hardware-efficient": hardware_efficient, "dimerized": dimerized, "staircase": staircase}
_STARTS: dict[str, Any] = {
    "hardware-efficient": "uniform",
    "dimerized": ("normal", {"std": 0.01}),
    "staircase": ("normal", {"std": 0.3}),
}
OPTIMIZERS = ("adam", "l-bfgs")
_ITERATIONS = 10  # of L-BFGS, before there is something to show


def train(
    num_qubits: int, ansatz: str, truncation: str, epochs: int, seed: int, rate: float = RATE, optimizer: str = "adam"
) -> Iterator[Training]:
    """Train; yields what there is so far, after every epoch of Adam, or after some iterations of L-BFGS.

    An epoch is one evaluation of the energy and its derivatives.
    """
    circuit, exact = ANSATZE[ansatz](num_qubits), ring_energy(num_qubits)
    module = QuantumModule(
        circuit, None, list(circuit.parameters), variational_params_initial=_STARTS[ansatz], seed_init=seed,
        observables=[xxz(num_qubits)],
        method=("matrix_product_state", {**TRUNCATIONS[truncation], "tolerance": 1.0}),
    ).double()  # fmt: skip
    errors: list[float] = []
    seconds: list[float] = []

    def evaluate() -> torch.Tensor:
        began = time.perf_counter()
        energy = module()[0]
        module.zero_grad()
        energy.backward()
        seconds.append(time.perf_counter() - began)
        errors.append((energy.item() - exact) / abs(exact))
        return energy

    steps: torch.optim.Optimizer
    if optimizer == "adam":
        steps = torch.optim.Adam(module.parameters(), lr=rate)
    else:
        steps = torch.optim.LBFGS(
            module.parameters(), max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
        )
    while len(errors) < epochs:
        steps.step(evaluate)
        yield Training(truncation, ansatz, seed, tuple(errors), statistics.median(seconds))
