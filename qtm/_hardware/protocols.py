"""Calibration protocols: circuits that measure the current errors of the qubits in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.primitives import BitArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import Clifford, random_clifford
from scipy.optimize import curve_fit

from qtm._arguments import checked_int, checked_seed, refused

# (quantity, qubits) -> value; the quantities are rows of the table in `qtm._hardware.calibration`.
Measured = dict[tuple[str, tuple[int, ...]], float]


class CalibrationProtocol(Protocol):
    """A measurement for `CalibrationWatch`, in addition to the published calibration."""

    def measure(self, sampler: Any, backend: BackendV2, qubits: Sequence[int]) -> Measured:
        """Run circuits on physical qubits, as one job, and return the measured errors."""
        ...


@dataclass(frozen=True)
class ReadoutAssignment:
    """The readout error of every qubit: the mean of reading 1 for a prepared 0 and 0 for a prepared 1.

    Two circuits prepare all qubits in 0 and in 1, so readout crosstalk is included.

    Args:
        shots: Shots of each circuit.
    """

    shots: int = 1024

    def __post_init__(self) -> None:
        checked_int(self.shots, "shots", "give a count of at least 1", least=1)

    def measure(self, sampler: Any, backend: BackendV2, qubits: Sequence[int]) -> Measured:
        """Return the quantity "assignment_error" of every qubit."""
        circuits = []
        for flipped in (False, True):
            circuit = QuantumCircuit(len(qubits))
            if flipped:
                circuit.x(range(len(qubits)))
            circuit.measure_all()
            circuits.append(_on_device(circuit, backend, qubits))
        zero, one = _ones(sampler, circuits, self.shots)
        return {("assignment_error", (q,)): float(z + 1 - o) / 2 for q, z, o in zip(qubits, zero, one, strict=True)}


@dataclass(frozen=True)
class RandomizedBenchmarking:
    """The error of a Clifford gate on every qubit, all qubits at once.

    Random sequences that end with their inverse: the probability of reading 0 decays as ``A p**m + 1/2`` with the
    length m, and the error of a gate is (1 - p)/2 (Magesan, Gambetta, Emerson, Phys. Rev. Lett. 106, 180504 (2011)).

    Args:
        lengths: Numbers of Clifford gates of the sequences, at least two different ones.
        samples: Number of random sequences of each length.
        shots: Shots of each sequence.
        seed: Seed of the sequences; they are the same every time, so changes of the values come from the device.
    """

    lengths: Sequence[int] = (1, 16, 64, 128)
    samples: int = 5
    shots: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "shots"):
            checked_int(getattr(self, name), name, "give a count of at least 1", least=1)
        checked_seed(self.seed, "seed")
        if len(set(self.lengths)) < 2 or min(self.lengths) < 1:
            raise refused("lengths", "two or more different lengths", self.lengths, "give (1, 16, 64), say")

    def measure(self, sampler: Any, backend: BackendV2, qubits: Sequence[int]) -> Measured:
        """Return the quantity "clifford_error" of every qubit."""
        rng = np.random.default_rng(self.seed)
        lengths = np.repeat(self.lengths, self.samples)
        sequences = [_sequence(len(qubits), int(length), rng) for length in lengths]
        ones = _ones(sampler, [_on_device(circuit, backend, qubits) for circuit in sequences], self.shots)
        return {
            ("clifford_error", (qubit,)): _error_of_a_gate(lengths, 1 - ones[:, place])
            for place, qubit in enumerate(qubits)
        }


def _sequence(num_qubits: int, length: int, rng: np.random.Generator) -> QuantumCircuit:
    """Random Clifford gates on every qubit, and their inverse; barriers keep them apart."""
    circuit = QuantumCircuit(num_qubits)
    whole = [Clifford(QuantumCircuit(1)) for _ in range(num_qubits)]
    for _ in range(length):
        for qubit in range(num_qubits):
            gate = random_clifford(1, seed=rng)
            circuit.compose(gate.to_circuit(), [qubit], inplace=True)
            whole[qubit] = whole[qubit].compose(gate)
        circuit.barrier()
    for qubit in range(num_qubits):
        circuit.compose(whole[qubit].adjoint().to_circuit(), [qubit], inplace=True)
    circuit.measure_all()
    return circuit


def _error_of_a_gate(lengths: np.ndarray, survival: np.ndarray) -> float:
    """(1 - p)/2 of ``A p**m + 1/2`` fitted to the probabilities of reading 0."""

    def decay(length: np.ndarray, amplitude: float, p: float) -> np.ndarray:
        return amplitude * p**length + 0.5

    (_, p), _ = curve_fit(decay, lengths, survival, p0=(0.5, 0.99), bounds=((0, 0), (1, 1)))
    return float(1 - p) / 2


def _on_device(circuit: QuantumCircuit, backend: BackendV2, qubits: Sequence[int]) -> QuantumCircuit:
    """The circuit in the device's gates, on these physical qubits."""
    return transpile(circuit, backend, initial_layout=list(qubits), optimization_level=1, seed_transpiler=0)


def _ones(sampler: Any, circuits: Iterable[QuantumCircuit], shots: int) -> np.ndarray:
    """The fraction of ones (circuits, qubits), from one job."""
    results = sampler.run([(circuit,) for circuit in circuits], shots=shots).result()
    return np.array([_share(part.data.meas) for part in results])


def _share(bits: BitArray) -> np.ndarray:
    return bits.to_bool_array(order="little").mean(axis=0)
