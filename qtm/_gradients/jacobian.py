"""Derivatives of expectation values by parameters: the engine's by gate angles, chained by torch."""

from __future__ import annotations

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
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError


def jacobian(simulation: Simulation, values: np.ndarray) -> np.ndarray:
    """Derivatives (points, observables, parameters) of expectation values, at values (points, parameters)."""
    count = simulation.engine.num_observables
    repeated = np.repeat(values, count, axis=0)
    one_hot = np.tile(np.eye(count), (len(values), 1))
    angles, start = simulation.numpy_angles(repeated), simulation.initial_rows(repeated)
    symbolic = simulation.initial is not None and not simulation.initial.is_constant
    by_angles, by_initial = simulation.engine.vjp(angles, one_hot, start, initial_gradient=symbolic)
    return _chain(simulation, repeated, by_angles, by_initial).reshape(len(values), count, -1)


def _chain(
    simulation: Simulation, values: np.ndarray, by_angles: np.ndarray, by_initial: np.ndarray | None = None
) -> np.ndarray:
    """Derivatives by parameters (rows, parameters) from those by gate angles and by the initial state."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        inputs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        parts = [(simulation.angles.torch(inputs, inputs.new_zeros(0)), by_angles)]
        if by_initial is not None and simulation.initial is not None:
            parts.append((simulation.initial.torch(inputs, inputs.new_zeros(0)), by_initial))
        # Nothing depends on a parameter that is only in a global phase.
        parts = [(output, cotangent) for output, cotangent in parts if output.requires_grad]
        if not parts:
            return np.zeros_like(values)
        cotangents = [torch.as_tensor(cotangent, dtype=torch.float64) for _, cotangent in parts]
        return torch.autograd.grad([output for output, _ in parts], inputs, cotangents)[0].numpy()


def imaginary(simulation: Simulation, doubled: Simulation, values: np.ndarray) -> np.ndarray:
    """2 Im <psi|O|d psi>, (points, observables, parameters): minus the derivatives by the second angles."""
    angles = simulation.numpy_angles(values)  # (points, angles)
    by_angles = -jacobian(doubled, np.concatenate([angles, np.zeros_like(angles)], 1))[..., angles.shape[1] :]
    points, count, _ = by_angles.shape
    rows = _chain(simulation, np.repeat(values, count, axis=0), by_angles.reshape(points * count, angles.shape[1]))
    return rows.reshape(points, count, -1)


def doubled_simulation(circuit: QuantumCircuit, operators: tuple[Observable, ...], options: Options) -> Simulation:
    """A simulation whose derivatives by its second angles, at 0, are -2 Im <psi|O|d psi>.

    One more qubit starts in |+>, every rotation exp(-i a/2 P) is followed by exp(-i s/2 P Z) with the Z of
    that qubit, and O times its Y is measured. As <+|Y|-> = i, the derivative by s is Re <psi|O P'|psi>, where
    P' is P seen from the end of the circuit; and 2 Im <psi|O (-i/2) P'|psi> is minus that.
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
            _append_twice(doubled, operation, first, second)
    bit = np.uint64(1 << extra)
    with_y = tuple(Observable(extra + 1, o.coeffs, o.x | bit, o.z | bit, (o.k + 1) % 4) for o in operators)
    return Simulation(doubled, [*first, *second], with_y, options)


def _append_twice(circuit: QuantumCircuit, rotation: PauliRotation, first: Any, second: Any) -> None:
    angle = rotation.offset + sum(coefficient * first[k] for k, coefficient in rotation.terms)
    label = rotation.pauli[::-1]
    circuit.append(PauliEvolutionGate(Pauli(label), angle / 2), rotation.qubits)
    if rotation.terms:
        angle = sum(coefficient * second[k] for k, coefficient in rotation.terms)
        last = circuit.num_qubits - 1
        circuit.append(PauliEvolutionGate(Pauli("Z" + label), angle / 2), (*rotation.qubits, last))
