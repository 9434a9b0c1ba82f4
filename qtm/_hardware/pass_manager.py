"""A pass manager that returns the transpiled circuits of the interrupted run to a resumed one."""

from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

from qiskit import QuantumCircuit, qpy
from qiskit.circuit import Parameter
from qiskit.transpiler import PassManager, generate_preset_pass_manager

from qtm._errors import QtmError
from qtm._hardware.fingerprint import circuit_content
from qtm._hardware.journal import Journal


class DevicePassManager:
    """Transpiles circuits for a backend, each once per run.

    A device is calibrated every day, and a layout chosen by error rates changes with it. Transpiled circuits
    are therefore stored in the journal of the run, and transpiled again only after
    `Connection.recalibrate`.
    """

    def __init__(self, backend: Any, optimization_level: int, seed: int | None, journal: Journal) -> None:
        self._backend, self._level, self._seed, self._journal = backend, optimization_level, seed, journal
        self._passes: PassManager | None = None

    def run(self, circuits: QuantumCircuit | list[QuantumCircuit]) -> Any:
        """Return the circuits in the basis and on the qubits of the backend; parameters stay as they are."""
        if isinstance(circuits, QuantumCircuit):
            return self._one(circuits)
        return [self._one(circuit) for circuit in circuits]

    @property
    def epoch(self) -> int:
        """Number of recalibrations of the run; modules transpile again when it changes."""
        return self._journal.epoch

    def next_epoch(self) -> None:
        """Start an epoch, in which all circuits are transpiled again."""
        self._journal.epoch, self._passes = self._journal.epoch + 1, None

    def _one(self, circuit: QuantumCircuit) -> QuantumCircuit:
        names = ",".join(parameter.name for parameter in circuit.parameters)
        source = f"{self._journal.epoch}:{self._level}:{self._seed}:{circuit_content(circuit)}:{names}"
        stored = self._journal.isa(source)
        if stored is None:
            stored = _write(self._preset().run(circuit))
            self._journal.set_isa(source, stored)
        return _with_parameters_of(circuit, _read(stored))

    def _preset(self) -> PassManager:
        if self._passes is None:
            self._passes = generate_preset_pass_manager(self._level, backend=self._backend, seed_transpiler=self._seed)
        return self._passes


def _write(circuit: QuantumCircuit) -> bytes:
    file = io.BytesIO()
    qpy.dump(circuit, file)
    return file.getvalue()


def _read(data: bytes) -> QuantumCircuit:
    try:
        return qpy.load(io.BytesIO(data))[0]
    except Exception as error:  # Qiskit raises a dozen error types for bytes that it cannot read
        raise QtmError(
            f"a transpiled circuit in the journal cannot be read ({type(error).__name__}: {error}); continue the run "
            "with the version of Qiskit that began it, or begin a run with another file"
        ) from error


def _with_parameters_of(source: QuantumCircuit, circuit: QuantumCircuit) -> QuantumCircuit:
    """Replace the parameters of the process that wrote the circuit by those of this process."""
    mine = {parameter.name: parameter for parameter in source.parameters}
    other = {p: Parameter(uuid4().hex) for p in circuit.parameters}
    # In two steps: Qiskit replaces one parameter at a time, and reports a conflict of names for a global phase that
    # contains some of the new parameters and some of the old ones.
    apart = circuit.assign_parameters(other)
    named = apart.assign_parameters({apart_one: mine[p.name] for p, apart_one in other.items()})
    named.name, named.metadata = source.name, source.metadata
    return named
