"""Local mode on wide devices: circuits and backends without the idle qubits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, QuantumRegister
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.providers import BackendV2, Options
from qiskit.transpiler import Target

from qtm._errors import require

# Devices with at most this many qubits are simulated in full.
_NARROW = 8


class PartOfBackend(BackendV2):
    """Some qubits of a backend, with their instructions, errors and durations; for local mode only."""

    def __init__(self, backend: BackendV2, qubits: Sequence[int]) -> None:
        super().__init__(name=backend.name)
        self._target = target_on(backend.target, qubits)
        self._simulator: Any = None

    @property
    def target(self) -> Target:
        """The target of the chosen qubits, numbered from 0."""
        return self._target

    @property
    def max_circuits(self) -> None:
        """No limit."""
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: Any, **options: Any) -> Any:
        """Simulate circuits with the noise of the target."""
        if self._simulator is None:
            self._simulator = require("qiskit_aer", extra="aer").AerSimulator.from_backend(self)
        return self._simulator.run(run_input, **options)


def target_on(target: Target, qubits: Sequence[int]) -> Target:
    """Return the target with these qubits only, numbered from 0."""
    place = {qubit: number for number, qubit in enumerate(qubits)}
    known = target.qubit_properties
    part = Target(
        num_qubits=len(place), dt=target.dt, granularity=target.granularity,
        qubit_properties=[known[qubit] for qubit in qubits] if known else None,
    )  # fmt: skip
    for name in target.operation_names:
        operation, table = target.operation_from_name(name), target[name]
        if table is None or None in table:  # on any qubits, such as control flow
            part.add_instruction(operation, name=name)
            continue
        kept = {tuple(place[q] for q in qs): entry for qs, entry in table.items() if place.keys() >= set(qs)}
        if kept:
            part.add_instruction(operation, kept, name=name)
    return part


def on_used_qubits(pubs: Sequence[EstimatorPub], backend: BackendV2) -> tuple[list[EstimatorPub], BackendV2]:
    """Return the PUBs and the backend without qubits on which no PUB has a gate or an observable.

    Idle qubits have no effect on expectation values, and each of them doubles the simulated state.
    """
    used = _qubits_to_keep([_used(pub) for pub in pubs], backend)
    return (list(pubs), backend) if used is None else ([_moved(p, used) for p in pubs], PartOfBackend(backend, used))


def sampled_on_used_qubits(pubs: Sequence[SamplerPub], backend: BackendV2) -> tuple[list[SamplerPub], BackendV2]:
    """Return the PUBs and the backend without qubits on which no PUB has a gate or a measurement."""
    used = _qubits_to_keep([_touched(pub.circuit) for pub in pubs], backend)
    if used is None:
        return list(pubs), backend
    moved = [SamplerPub(_moved_circuit(p.circuit, used), p.parameter_values, p.shots, validate=False) for p in pubs]
    return moved, PartOfBackend(backend, used)


def _qubits_to_keep(used: Sequence[set[int]], backend: BackendV2) -> list[int] | None:
    """The qubits in use, or None if the whole backend is simulated."""
    if backend.coupling_map is None:  # a simulator, which removes idle qubits itself
        return None
    found = sorted(set().union(*used) or {0})
    return None if (backend.num_qubits or 0) <= _NARROW or len(found) == backend.num_qubits else found


def _touched(circuit: QuantumCircuit) -> set[int]:
    index = {qubit: number for number, qubit in enumerate(circuit.qubits)}
    return {index[q] for item in circuit.data if item.operation.name != "barrier" for q in item.qubits}


def _used(pub: EstimatorPub) -> set[int]:
    gates = _touched(pub.circuit)
    labels = {label for observable in pub.observables.ravel().tolist() for label in observable}
    return gates | {len(label) - 1 - i for label in labels for i, letter in enumerate(label) if letter != "I"}


def _moved_circuit(whole: QuantumCircuit, used: Sequence[int]) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(len(used), "q"), name=whole.name, metadata=whole.metadata)
    circuit.add_bits(whole.clbits)
    for register in whole.cregs:
        circuit.add_register(register)
    place = {whole.qubits[qubit]: number for number, qubit in enumerate(used)}
    for item in whole.data:
        qubits = [place[q] for q in item.qubits if q in place]  # a barrier may be on idle qubits as well
        if item.operation.name == "barrier":
            circuit.barrier(qubits)
        else:
            circuit.append(item.operation, qubits, item.clbits)
    return circuit


def _moved(pub: EstimatorPub, used: Sequence[int]) -> EstimatorPub:
    circuit = _moved_circuit(pub.circuit, used)
    observables = np.empty(pub.observables.shape, dtype=object)
    for index in np.ndindex(observables.shape):
        observables[index] = {_picked(label, used): weight for label, weight in pub.observables[index].items()}
    return EstimatorPub(circuit, ObservablesArray(observables), pub.parameter_values, pub.precision, validate=False)


def _picked(label: str, qubits: Sequence[int]) -> str:
    return "".join(label[len(label) - 1 - qubit] for qubit in reversed(qubits))
