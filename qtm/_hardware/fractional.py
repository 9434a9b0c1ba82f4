"""RZZ angles within the range of devices with fractional gates: [0, pi/2]."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import numpy as np
from qiskit.circuit import CircuitInstruction, Parameter, ParameterExpression, QuantumCircuit
from qiskit.circuit.library import RXGate, RZGate, RZZGate
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qtm._circuit.expressions import compile_angles
from qtm._errors import CircuitError
from qtm._hardware.job_splitting import with_circuit

# An angle outside of the range by less than this is rounding; the service has the same tolerance.
_SLACK = 1e-10

Pub = TypeVar("Pub", EstimatorPub, SamplerPub)


def fold_rzz(pub: Pub) -> Pub:
    """Return a PUB with the same values whose RZZ angles are in [0, pi/2], for every parameter set.

    Up to a phase, ``RZZ(a + pi) = RZZ(a) Z Z`` and ``RZZ(-a) = X RZZ(a) X`` with X on one qubit. So every
    gate becomes RZ(z) on both qubits, RX(x), RZZ(b), RX(x) on the first one, with z and x of 0 or pi and b in the
    range. Where parameter sets differ in z or x, these are parameters too, so a PUB stays one PUB.
    """
    found = [k for k, item in enumerate(pub.circuit.data) if item.operation.name == "rzz"]
    values = np.asarray(pub.parameter_values.as_array(pub.circuit.parameters), dtype=float)  # (..., parameters)
    expressions = [pub.circuit.data[k].operation.params[0] for k in found]
    angles = np.asarray(compile_angles(expressions, pub.circuit.parameters).numpy(values))  # (..., gates)
    if not found or ((angles >= 0) & (angles <= math.pi / 2 + _SLACK)).all():
        return pub
    return _Folded(pub, values).with_gates(found, angles)


def folded_angles(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles of RZ (0 or pi), RX (0 or pi) and RZZ (in [0, pi/2]) in place of RZZ by ``angles``, in radians."""
    turns = np.floor(angles / math.pi)
    rest = angles - math.pi * turns  # in [0, pi], pi by rounding
    flipped = rest > math.pi / 2  # RZZ(r) = RZZ(r - pi) Z Z = X RZZ(pi - r) X Z Z
    rzz = np.clip(np.where(flipped, math.pi - rest, rest), 0.0, math.pi / 2)
    return math.pi * ((turns + flipped) % 2), math.pi * flipped, rzz


class _Folded:
    """Rewrites a PUB gate by gate."""

    def __init__(self, pub: Any, values: np.ndarray) -> None:
        self.pub, self.shape = pub, values.shape[:-1]
        self.circuit = pub.circuit.copy_empty_like()
        self.circuit.global_phase = 0
        self.columns = dict(zip(pub.circuit.parameters, np.moveaxis(values, -1, 0), strict=True))
        self.taken = {parameter.name for parameter in pub.circuit.parameters}

    def with_gates(self, positions: Iterable[int], angles: np.ndarray) -> Any:
        """The PUB whose instructions at ``positions`` are RZZ by ``angles`` (..., gates)."""
        by_position = dict(zip(positions, np.moveaxis(angles, -1, 0), strict=True))
        for position, item in enumerate(self.pub.circuit.data):
            if position in by_position:
                self.fold(item, position, by_position[position])
            else:
                self.circuit.append(item)
        return self._pub()

    def fold(self, item: CircuitInstruction, position: int, angles: np.ndarray) -> None:
        """Append the gates of one RZZ by ``angles`` (...)."""
        z, x, rzz = folded_angles(angles)
        if z.any():
            turn = RZGate(self.angle(f"rzz_{position}_z", z))
            self.circuit.append(turn, [item.qubits[0]])
            self.circuit.append(turn, [item.qubits[1]])
        flip = RXGate(self.angle(f"rzz_{position}_x", x)) if x.any() else None
        if flip is not None:
            self.circuit.append(flip, [item.qubits[0]])
        self.circuit.append(RZZGate(self.angle(f"rzz_{position}", rzz)), item.qubits)
        if flip is not None:
            self.circuit.append(flip, [item.qubits[0]])

    def angle(self, name: str, values: np.ndarray) -> float | ParameterExpression:
        """The angle that all parameter sets share, or a parameter with the values (...)."""
        if (values == values.ravel()[0]).all():
            return float(values.ravel()[0])
        while name in self.taken:
            name += "_"
        parameter = Parameter(name)
        self.columns[parameter] = values
        self.taken.add(name)
        return parameter

    def _pub(self) -> Any:
        used = self.circuit.parameters
        columns = [np.broadcast_to(self.columns[parameter], self.shape) for parameter in used]
        data = {tuple(used): np.stack(columns, axis=-1)} if columns else {}
        return with_circuit(self.pub, self.circuit, BindingsArray(data, shape=self.shape))


def folded_and_checked(pubs: list[Pub], names: Iterable[str]) -> list[Pub]:
    """Return the PUBs for a target with these instructions: RZZ angles folded if possible.

    Raises:
        CircuitError: An angle is outside of [0, pi/2] and cannot be folded.
    """
    if "rzz" not in names:
        return pubs
    folded = [fold_rzz(pub) if takes_folded(pub.circuit, names) else pub for pub in pubs]
    for index, pub in enumerate(folded):
        check_rzz(index, pub)
    return folded


def with_shared_parameters(pub: Pub) -> Pub:
    """Return a PUB whose parameters are the same objects for the same names, in all circuits of the process.

    The executor (samplomatic 0.21) remembers every box of two-qubit gates for the life of the process. It mistakes
    boxes whose parameters have the same names, but are not the same objects, for hash collisions, and fails after 13 of
    them: a training with parametrized RZZ gates ended after a few steps.
    """
    if not any(_entangles_by_parameter(item) for item in pub.circuit.data):
        return pub
    old = list(pub.circuit.parameters)
    new = [_shared_parameter(parameter.name) for parameter in old]
    circuit = pub.circuit.assign_parameters(dict(zip(old, new, strict=True)))
    values = pub.parameter_values.as_array(old)  # (..., parameters)
    return with_circuit(pub, circuit, BindingsArray({tuple(new): values}, shape=values.shape[:-1]))


def _entangles_by_parameter(item: CircuitInstruction) -> bool:
    return len(item.qubits) > 1 and any(getattr(value, "parameters", None) for value in item.operation.params)


@cache
def _shared_parameter(name: str) -> Parameter:
    return Parameter(name)


def _rzz_gates(circuit: QuantumCircuit) -> list[CircuitInstruction]:
    return [item for item in circuit.data if item.operation.name == "rzz"]


def takes_folded(circuit: QuantumCircuit, names: Iterable[str]) -> bool:
    """Whether a circuit has RZZ gates and a target with these instructions can fold them."""
    return "rzz" in circuit.count_ops() and {"rz", "rx", "rzz"} <= set(names)


def check_rzz(index: int, pub: EstimatorPub | SamplerPub) -> None:
    """Reject RZZ angles outside of [0, pi/2], which devices with fractional gates do not support.

    Raises:
        CircuitError: an angle is outside; the message names its gate, its qubits and its parameter set.
    """
    found = _rzz_gates(pub.circuit)
    if not found or not pub.parameter_values.size:
        return
    expressions = [item.operation.params[0] for item in found]
    values = np.asarray(pub.parameter_values.as_array(pub.circuit.parameters), dtype=float)  # (..., parameters)
    angles = np.asarray(compile_angles(expressions, pub.circuit.parameters).numpy(values))  # (..., gates)
    angles = np.broadcast_to(angles, (*values.shape[:-1], len(found))).reshape(-1, len(found))
    for row, gate in np.argwhere((angles < -_SLACK) | (angles > math.pi / 2 + _SLACK)):
        qubits = [pub.circuit.find_bit(q).index for q in found[gate].qubits]
        raise CircuitError(
            f"PUB {index}: rzz({expressions[gate]}) on qubits {qubits} has the angle {angles[row, gate]:.6g} in "
            f"parameter set {row}; the device takes 0 to pi/2, and has no rx and rz to fold it with. Transpile with "
            "connection.pass_manager, or keep the angle in that range"
        )
