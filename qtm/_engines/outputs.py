"""Outputs of engines, as data."""

from __future__ import annotations

from dataclasses import dataclass

from qtm._circuit.observables import Observable


@dataclass(frozen=True, slots=True)
class Expectation:
    """Expectation values of observables on the qubits of the circuit: real, (batch, observables)."""

    observables: tuple[Observable, ...]


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Probabilities of the outcomes of qubits: real, (batch, 2**len(qubits)); bit j of an outcome is ``qubits[j]``."""

    qubits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The final state: complex, (batch, 2**qubits), as `qiskit.quantum_info.Statevector` orders it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Bit strings drawn from the outcomes of qubits: see `Engine.sample`."""

    qubits: tuple[int, ...]


Output = Expectation | Probabilities | State | Samples
