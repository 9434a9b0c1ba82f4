"""Circuits rewritten so that Qiskit Aer binds all of their parameters.

Aer 0.18 and before ignores the values that a controlled gate is bound to by a PUB, or by ``parameter_binds``
(qiskit-aer issues 2323, 2391 and 2403): it looks for the parameters of a `ControlledGate` in the wrong place. A plain
`Gate` of the same name, parameters and label runs the same code of Aer with the same noise, and is bound. So controlled
gates are replaced, not decomposed: Aer runs the same gates as for the bound circuit. Gates that a simulation method
lacks are decomposed; their noise remains one channel, on an identity gate with their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from qiskit.circuit import (
    AnnotatedOperation,
    CircuitInstruction,
    ControlledGate,
    Gate,
    Operation,
    ParameterExpression,
    QuantumCircuit,
    Qubit,
)
from qiskit.circuit.library import UnitaryGate, XGate
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qtm._circuit.modifiers import expansion_of
from qtm._errors import CircuitError, require
from qtm._primitives.ideal_primitives import noise_of

# The label of gates for which no noise model has an error.
_NOISELESS = "qtm.noiseless"

# Estimators of these packages bind every gate, or pass circuits to primitives that do.
_BINDING = {"qiskit", "qiskit_machine_learning", "qtm"}


def circuit_for(primitive: Any, circuit: QuantumCircuit, is_isa: bool = False) -> QuantumCircuit:
    """The circuit in a form that ``primitive`` binds; the circuit itself if nothing has to be rewritten.

    A user's own estimator may wrap Aer. For it, parametrised controlled gates are replaced by their definitions, unless
    the circuit is in the instructions of a device (``is_isa``).

    Raises:
        CircuitError: the noise model has an error for a gate whose values cannot be bound.
    """
    aer = _aer_primitive(primitive)
    if aer is not None:
        return bindable(circuit, aer._backend, aer.options.run_options)
    if _root(primitive) in _BINDING and not _varies_angles(primitive):
        return circuit
    simulator = _simulator_of_runtime(primitive)
    if is_isa and simulator is None:
        return circuit
    noise = None if simulator is None else simulator.options.noise_model
    return _Writer(None, _noisy(noise)).written(circuit)


def _root(thing: Any) -> str:
    return type(thing).__module__.split(".")[0]


def _is_of_aer(thing: Any) -> bool:
    return any(kind.__module__.startswith("qiskit_aer.") for kind in type(thing).__mro__)


def _aer_primitive(primitive: Any) -> Any:
    """The Aer primitive that receives the circuits of ``primitive`` unchanged: itself, or one that it wraps."""
    if _is_of_aer(primitive):
        return primitive
    if _root(primitive) in _BINDING:  # its wrappers call this function themselves
        return None
    inner = [value for value in vars(primitive).values() if isinstance(value, BaseEstimatorV2 | BaseSamplerV2)]
    return next((aer for aer in map(_aer_primitive, inner) if aer is not None), None)


def _varies_angles(primitive: Any) -> bool:
    """Whether Clifford data regression uses the circuit: rotations have more Clifford angles than controlled gates."""
    return getattr(primitive, "method_name", None) in {"cdr", "real-time-cdr"}


def _simulator_of_runtime(primitive: Any) -> Any:
    """The `AerSimulator` on which an estimator of qiskit-ibm-runtime runs locally, if it does."""
    backend = getattr(primitive, "_backend", None)
    return backend if _is_of_aer(backend) else None


def noisy_gates(primitive: Any) -> frozenset[str]:
    """Names and labels of the gates for which the noise of a primitive, or of one that it wraps, has errors."""
    own = noise_of(primitive)
    if own is not None:
        return frozenset(own.noisy)
    if not isinstance(primitive, BaseEstimatorV2 | BaseSamplerV2):
        return frozenset()
    aer = [part for part in (primitive, *vars(primitive).values()) if _is_of_aer(part)]
    models = [getattr(getattr(part, "options", None), "noise_model", None) for part in aer]
    models += [(getattr(getattr(part, "options", None), "run_options", None) or {}).get("noise_model") for part in aer]
    models.append(getattr(primitive, "noise_model", None))  # of `noisy_estimator`
    found = [_noisy(model) for model in models]
    inner = [part for part in vars(primitive).values() if isinstance(part, BaseEstimatorV2 | BaseSamplerV2)]
    return frozenset().union(*found, *map(noisy_gates, inner))


def pubs_for(primitive: Any, pubs: Iterable[EstimatorPub]) -> list[EstimatorPub]:
    """PUBs with their circuits as ``primitive`` binds them."""
    return [_with_circuit(pub, circuit_for(primitive, pub.circuit)) for pub in pubs]


def _with_circuit(pub: EstimatorPub, circuit: QuantumCircuit) -> EstimatorPub:
    if circuit is pub.circuit:
        return pub
    return EstimatorPub(circuit, pub.observables, pub.parameter_values, pub.precision, validate=False)


def binding_backend(backend: Any) -> Any:
    """A copy of an `AerSimulator` whose ``run`` binds every gate; any other backend unchanged."""
    if not _is_of_aer(backend):
        return backend
    other = copy(backend)
    other.__class__ = _binding_class(type(backend))  # type: ignore[arg-type]
    return other


@cache
def _binding_class(kind: Any) -> Any:
    def run(self: Any, circuits: Any, parameter_binds: Any = None, **options: Any) -> Any:
        circuits = [circuits] if isinstance(circuits, QuantumCircuit) else circuits
        return kind.run(self, [bindable(c, self, options) for c in circuits], parameter_binds, **options)

    return type(kind.__name__, (kind,), {"run": run, "__module__": kind.__module__})


def bindable(circuit: QuantumCircuit, simulator: Any, run_options: Mapping[str, Any]) -> QuantumCircuit:
    """The circuit in a form that ``simulator``, an `AerSimulator`, binds; itself if nothing has to be rewritten.

    Parametrised controlled gates that the simulation method supports become plain gates of the same name. Unsupported
    gates are replaced by their definitions, followed by the errors that the noise model has for the gate.
    """
    method = run_options.get("method") or simulator.options.method or "automatic"
    noise = run_options.get("noise_model") or simulator.options.noise_model
    return _Writer(_gates_of(method), _noisy(noise)).written(circuit)


@cache
def _gates_of(method: str) -> frozenset[str]:
    """The instructions that a simulation method of Aer supports."""
    return frozenset(require("qiskit_aer", extra="aer").AerSimulator(method=method).configuration().basis_gates)


def _noisy(noise: Any) -> frozenset[str]:
    return frozenset(noise.noise_instructions) if noise is not None else frozenset()


@dataclass(frozen=True)
class _Writer:
    """Rewrites circuits for a simulator with a set of supported gates, and a set of noisy ones.

    If ``known`` is None, everything except parametrised controlled gates is supported.
    """

    known: frozenset[str] | None
    noisy: frozenset[str]

    def written(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """The circuit, rewritten where necessary."""
        if not any(map(self._changes, circuit.data)):
            return circuit
        out = circuit.copy_empty_like()
        for item in circuit.data:
            self._append(out, item)
        return out

    def _changes(self, item: CircuitInstruction) -> bool:
        if item.is_control_flow():
            return any(self._changes(inner) for block in item.operation.blocks for inner in block.data)
        return _is_unbound_controlled(item) or not self._knows(item)

    def _knows(self, item: CircuitInstruction) -> bool:
        if self.known is None:
            return not _is_unbound_controlled(item)
        return closed_name(item) in self.known or _definition(item) is None  # Aer reports unsupported gates

    def _append(self, out: QuantumCircuit, item: CircuitInstruction) -> None:
        if not self._changes(item):
            out.append(item)
        elif item.is_control_flow():
            blocks = [self.written(block) for block in item.operation.blocks]
            out.append(item.replace(operation=item.operation.replace_blocks(blocks)))
        elif self._knows(item):
            self._append_plain(out, item.operation, item.qubits)
        else:
            self._append_definition(out, item)

    def _append_plain(self, out: QuantumCircuit, gate: ControlledGate, qubits: Sequence[Qubit]) -> None:
        """A controlled gate as a plain one, between the X gates that Aer itself inserts for open controls."""
        plain = Gate(gate.name.split("_o")[0], gate.num_qubits, list(gate.params), gate.label)
        opened = [qubits[i] for i in range(gate.num_ctrl_qubits) if not gate.ctrl_state >> i & 1]
        flips = [CircuitInstruction(XGate(label=gate.label), [qubit]) for qubit in opened]
        for item in (*flips, CircuitInstruction(plain, qubits), *flips):
            out.append(item)

    def _append_definition(self, out: QuantumCircuit, item: CircuitInstruction) -> None:
        """The definition of an instruction; an error of the instruction replaces those of its definition."""
        error = next((name for name in (item.label, closed_name(item)) if name in self.noisy), None)
        if error is not None and self.known is None:
            raise CircuitError(
                f"the noise model has an error for {error!r}, and the values of that gate cannot be bound here; bind "
                "the circuit, or run it on an estimator of qiskit-aer or on noisy_estimator"
            )
        inner = (self if error is None else replace(self, noisy=frozenset())).written(_definition(item))
        place = dict(zip((*inner.qubits, *inner.clbits), (*item.qubits, *item.clbits), strict=True))
        out.global_phase += inner.global_phase
        for part in inner.data:
            qubits, clbits = ([place[bit] for bit in bits] for bits in (part.qubits, part.clbits))
            operation = part.operation if error is None else _labelled(part.operation, _NOISELESS)
            out.append(CircuitInstruction(operation, qubits, clbits))
        if error is not None:
            out.append(UnitaryGate(np.eye(2 ** len(item.qubits)), error), item.qubits)


def _definition(item: CircuitInstruction) -> QuantumCircuit | None:
    operation = item.operation
    return expansion_of(operation) if isinstance(operation, AnnotatedOperation) else operation.definition


def _labelled(operation: Operation, label: str) -> Operation:
    """A copy of a gate with a label; Aer looks up errors by label first, then by name."""
    if not isinstance(operation, Gate):
        return operation
    copied = operation.to_mutable()
    copied.label = label
    return copied


def closed_name(item: CircuitInstruction) -> str:
    """The name without the suffix of open controls: ``cp`` of ``cp_o0``."""
    return item.name.split("_o")[0] if item.is_controlled_gate() else item.name


def _is_unbound_controlled(item: CircuitInstruction) -> bool:
    if not item.is_controlled_gate():
        return False
    return any(isinstance(p, ParameterExpression) and p.parameters for p in item.params)
