"""Jacobians: derivatives with respect to gate angles from a gradient method, chained by torch to parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import PauliEvolutionGate, StatePreparation
from qiskit.quantum_info import Pauli

from qtm._circuit.flatten import flatten
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.observables import Observable
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.method import GradientMethod
from qtm._gradients.primitive_method import ShiftMethod

# Rows of one-hot cotangents that are differentiated together.
_ROWS = 4096


def jacobian(method: GradientMethod, rows: np.ndarray) -> np.ndarray:
    """Derivatives (batch, outputs, parameters) at parameter values (batch, parameters).

    The parameters are those that the method takes as inputs. A simulator sweeps for each output; a primitive runs
    all points of all outputs at once.
    """
    count = method.num_outputs
    if isinstance(method, ShiftMethod):
        return _by_shifts(method, rows)
    step = max(_ROWS // max(count, 1), 1)
    parts = [_jacobian(method, rows[i : i + step], count) for i in range(0, len(rows), step)]
    return np.concatenate(parts) if parts else np.zeros((0, count, rows.shape[1]))


def _jacobian(method: GradientMethod, rows: np.ndarray, count: int) -> np.ndarray:
    one_hot = np.tile(np.eye(count), (len(rows), 1))

    def pull(angles: Any, prepared: Any) -> list[Any]:
        at = [p.detach() for p in prepared]
        by_prepared = any(p.requires_grad for p in prepared)
        by_angles, by_amplitudes = method.vjp(angles.detach(), at, angles.new_tensor(one_hot), None, by_prepared)
        return [by_angles, *(by_amplitudes or at)]

    return _chained(method, np.repeat(rows, count, axis=0), pull).reshape(len(rows), count, -1)


def _by_shifts(method: ShiftMethod, rows: np.ndarray) -> np.ndarray:
    count = method.num_outputs

    def pull(angles: Any, prepared: Any) -> list[Any]:
        return [angles.new_tensor(method.derivatives(angles[::count]).reshape(len(angles), -1))]

    return _chained(method, np.repeat(rows, count, axis=0), pull).reshape(len(rows), count, -1)


def _chained(method: GradientMethod, rows: np.ndarray, pull: Callable[[Any, Any], list[Any]]) -> np.ndarray:
    """Derivatives (rows, parameters) from those of the angles and of each prepared tensor, given by ``pull``."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        inputs = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        angles, prepared = method.arguments(inputs, inputs.new_zeros(0), len(rows))
        # No value depends on a parameter that occurs only in a global phase.
        pairs = [(o, c) for o, c in zip((angles, *prepared), pull(angles, prepared), strict=False) if o.requires_grad]
        if not pairs:
            return np.zeros_like(rows)
        outputs, cotangents = zip(*pairs, strict=True)
        return torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)[0].numpy()


def imaginary(method: EngineMethod, doubled: EngineMethod, rows: np.ndarray) -> np.ndarray:
    """2 Im <psi|O|d psi>, (points, observables, parameters): minus the derivatives of the second angles."""
    angles, count = method.simulation.numpy_angles(rows), method.num_outputs  # (points, angles)
    both = np.concatenate([angles, np.zeros_like(angles)], 1)
    by_angles = -jacobian(doubled, both)[..., angles.shape[1] :].reshape(len(rows) * count, -1)

    def pull(angles: Any, prepared: Any) -> list[Any]:
        return [angles.new_tensor(by_angles)]

    return _chained(method, np.repeat(rows, count, axis=0), pull).reshape(len(rows), count, -1)


def doubled_simulation(circuit: QuantumCircuit, operators: tuple[Observable, ...], options: Options) -> Simulation:
    """A simulation whose derivatives with respect to its second angles, at 0, are -2 Im <psi|O|d psi>.

    One more qubit starts in |+>, every rotation exp(-i a/2 P) is followed by exp(-i s/2 P Z) with the Z of
    that qubit, and O times its Y is measured. As <+|Y|-> = i, the derivative with respect to s is Re <psi|O P'|psi>,
    where P' is P conjugated to the end of the circuit; and 2 Im <psi|O (-i/2) P'|psi> is minus that.
    """
    flat, extra = flatten(circuit), circuit.num_qubits
    first, second = ParameterVector("a", len(flat.angles)), ParameterVector("s", len(flat.angles))
    doubled = QuantumCircuit(extra + 1)
    doubled.h(extra)
    for preparation in flat.initial:
        if preparation.normalize or any(not isinstance(a, complex) for a in preparation.amplitudes):
            raise CircuitError(
                f"circuit {circuit.name!r} prepares amplitudes that are parameters, which have only a REAL "
                "derivative here; choose DerivativeType.REAL"
            )
        doubled.append(StatePreparation(list(preparation.amplitudes)), preparation.qubits)
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            getattr(doubled, operation.name)(*operation.qubits)
        else:
            assert isinstance(operation, PauliRotation)  # a circuit without noise has no channels
            _append_twice(doubled, operation, first, second)
    bit = np.uint64(1 << extra)
    with_y = tuple(Observable(extra + 1, o.coeffs, o.x | bit, o.z | bit, (o.k + 1) % 4) for o in operators)
    return Simulation(doubled, [*first, *second], Expectation(with_y), options)


def _append_twice(circuit: QuantumCircuit, rotation: PauliRotation, first: Any, second: Any) -> None:
    angle = rotation.offset + sum(coefficient * first[k] for k, coefficient in rotation.terms)
    label = rotation.pauli[::-1]
    circuit.append(PauliEvolutionGate(Pauli(label), angle / 2), rotation.qubits)
    if rotation.terms:
        angle = sum(coefficient * second[k] for k, coefficient in rotation.terms)
        last = circuit.num_qubits - 1
        circuit.append(PauliEvolutionGate(Pauli("Z" + label), angle / 2), (*rotation.qubits, last))
