"""Qubits of a network in the user's circuit, in the transpiled one, and in the simulated one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.passmanager import BasePassManager
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit.observables import NAMED, Observable, coerce_observables
from qtm._errors import CircuitError
from qtm._primitives.readout import Readout

# Instructions that leave a qubit unchanged.
_IDLE = {"barrier", "delay", "measure", "id"}


@dataclass(frozen=True)
class Placement:
    """The circuit that runs on the device, and the equivalent one to simulate, each with its own qubits.

    ``physical[v]`` is the qubit of ``run`` that holds the user's qubit v at the end; ``simulated[v]`` likewise.
    """

    run: QuantumCircuit
    simulate: QuantumCircuit
    physical: tuple[int, ...]
    simulated: tuple[int, ...]
    transpiled_here: bool

    @classmethod
    def of(cls, circuit: QuantumCircuit, pass_manager: BasePassManager | None) -> Placement:
        """Place a circuit, which is transpiled if a pass manager is given and it has no layout yet."""
        if circuit.layout is not None or pass_manager is None:
            physical = _final_qubits(circuit)
            return cls(circuit, circuit, physical, physical, False)
        run = pass_manager.run(circuit)
        return cls(run, circuit, _final_qubits(run), tuple(range(circuit.num_qubits)), True)

    @property
    def is_isa(self) -> bool:
        """Whether ``run`` was transpiled for a device."""
        return self.run.layout is not None

    @property
    def num_virtual(self) -> int:
        """The number of qubits of the user's circuit."""
        return len(self.physical)

    def operators(self, given: Any) -> tuple[list[SparsePauliOp], list[SparsePauliOp]]:
        """Observables on the qubits of ``run``, and of ``simulate``.

        Given observables are on the user's qubits, or on the physical ones if the circuit came with a layout.

        Raises:
            ObservableError: one fits neither, or is not Hermitian.
        """
        if _width(given) == self.run.num_qubits and not self.transpiled_here:
            placed = _operators(given, self.run.num_qubits)
            return placed, placed
        virtual = _operators(given, self.num_virtual)
        on_run = [o.apply_layout(list(self.physical), self.run.num_qubits) for o in virtual]
        return on_run, [o.apply_layout(list(self.simulated), self.simulate.num_qubits) for o in virtual]

    def default_observable(self) -> SparsePauliOp:
        """Z on all of the user's qubits, as an operator on the qubits of ``run``."""
        terms = [("Z" * self.num_virtual, list(self.physical), 1)]
        return SparsePauliOp.from_sparse_list(terms, num_qubits=self.run.num_qubits)

    def bits(self, circuit: QuantumCircuit) -> tuple[int | None, ...]:
        """For each bit of an outcome the qubit of ``circuit`` (``run`` or ``simulate``) that it reads.

        An outcome consists of the classical bits, in the order of the circuit; without measurements, of the user's
        qubits; and if every physical qubit was measured, of the user's qubits among them.
        """
        own = self.physical if circuit is self.run else self.simulated
        if not circuit.clbits:
            return own
        readout = Readout.of(circuit)
        reads = {clbit: readout.qubits[place] for clbit, place in readout.clbits.items()}
        if not reads:
            raise CircuitError(
                f"circuit {circuit.name!r} has classical bits and measures nothing into them; "
                "measure its qubits, or make it without classical bits and all qubits are measured"
            )
        if circuit.num_qubits > self.num_virtual and circuit.num_clbits == circuit.num_qubits:
            return tuple(q if q in reads.values() else None for q in own)
        return tuple(reads.get(clbit) for clbit in range(circuit.num_clbits))


def _final_qubits(circuit: QuantumCircuit) -> tuple[int, ...]:
    if circuit.layout is None:
        return tuple(range(circuit.num_qubits))
    return tuple(circuit.layout.final_index_layout(filter_ancillas=True))


def _width(given: Any) -> int | None:
    """The number of qubits of the (first) observable, if it is known before reading it."""
    while isinstance(given, list | tuple) and given:
        given = given[0]
    if isinstance(given, str):
        return None if given in NAMED else len(given)
    if isinstance(given, dict) and given:
        return _width(next(iter(given)))
    return getattr(given, "num_qubits", None)


def without_idle_qubits(circuit: QuantumCircuit, needed: Iterable[int]) -> tuple[QuantumCircuit, dict[int, int]]:
    """The circuit on its active qubits and the required ones, and their new indices."""
    index = {qubit: i for i, qubit in enumerate(circuit.qubits)}
    kept = set(needed)
    for instruction in circuit.data:
        if instruction.name not in _IDLE:
            kept.update(index[q] for q in instruction.qubits)
    number = {q: i for i, q in enumerate(sorted(kept))}
    if len(number) == circuit.num_qubits:
        return circuit, number
    small = QuantumCircuit(len(number), global_phase=circuit.global_phase, name=circuit.name)
    small.add_bits(circuit.clbits)
    for instruction in circuit.data:
        qubits = [number.get(index[q]) for q in instruction.qubits]
        if None not in qubits:
            small.append(instruction.operation, qubits, instruction.clbits)
    return small, number


def without_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit on the same qubits, without classical bits and final measurements."""
    bare = QuantumCircuit(circuit.qubits, global_phase=circuit.global_phase, name=circuit.name)
    for register in circuit.qregs:
        bare.add_register(register)
    for instruction in circuit.data:
        if not instruction.clbits:
            bare.append(instruction)
    return bare


def restricted(operator: SparsePauliOp, number: dict[int, int]) -> SparsePauliOp:
    """The operator on the kept qubits; it must not act on others."""
    kept = sorted(number, reverse=True)
    labels = ["".join(label[-1 - q] for q in kept) for label in operator.paulis.to_labels()]
    return SparsePauliOp(labels, operator.coeffs)


def support(operators: Iterable[SparsePauliOp]) -> set[int]:
    """The qubits that any of the operators acts on."""
    return {int(q) for o in operators for q in np.flatnonzero((o.paulis.x | o.paulis.z).any(axis=0))}


def _operators(given: Any, num_qubits: int) -> list[SparsePauliOp]:
    """Observables in a form that every estimator accepts."""
    return [_operator(o) for o in coerce_observables(given, num_qubits)]


def _operator(observable: Observable) -> SparsePauliOp:
    labels = observable.labels()
    return SparsePauliOp(labels, observable.coeffs) if labels else SparsePauliOp("I" * observable.num_qubits, 0)
