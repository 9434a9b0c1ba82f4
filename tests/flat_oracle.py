"""The oracle of test_gates.py and test_flatten.py: ``qiskit.quantum_info``, slow and plain."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

from qtm._circuit.flatten import FlatCircuit, flatten
from qtm._circuit.gates import Clifford, Primitive
from qtm._circuit.shift_template import template


def matrix(primitive: Primitive, angles: list[float], num_qubits: int) -> np.ndarray:
    if isinstance(primitive, Clifford):
        circuit = QuantumCircuit(num_qubits)
        getattr(circuit, primitive.name)(*primitive.qubits)
        return Operator(circuit).data
    angle = primitive.offset + sum(c * angles[k] for k, c in primitive.terms)
    term = (primitive.pauli, list(primitive.qubits), 1.0)
    pauli = SparsePauliOp.from_sparse_list([term], num_qubits).to_matrix()
    return np.cos(angle / 2) * np.eye(2**num_qubits) - 1j * np.sin(angle / 2) * pauli


def unitary(primitives: tuple[Primitive, ...], angles: list[float], num_qubits: int) -> np.ndarray:
    result = np.eye(2**num_qubits, dtype=complex)
    for primitive in primitives:
        result = matrix(primitive, angles, num_qubits) @ result
    return result


def number(expression: object, values: dict[Parameter, float]) -> complex:
    """The value of an expression, or of what is a number already."""
    if not isinstance(expression, ParameterExpression):
        return complex(expression)
    return complex(expression.bind({p: values[p] for p in expression.parameters}))


def state(flat: FlatCircuit, values: dict[Parameter, float]) -> np.ndarray:
    """The final state of a flat circuit (2**n,), global phase and all."""
    psi = Statevector.from_int(0, 2**flat.num_qubits)
    for preparation in flat.initial:
        vector = np.array([number(a, values) for a in preparation.amplitudes])
        if preparation.normalize:
            vector = vector / np.linalg.norm(vector)
        column = np.eye(len(vector), dtype=complex)
        column[:, 0] = vector
        psi = psi.evolve(Operator(column), list(preparation.qubits))
    angles = [number(a, values).real for a in flat.angles]
    data = psi.data
    for primitive in flat.operations:
        data = matrix(primitive, angles, flat.num_qubits) @ data
    phase = flat.phase.offset + sum(c * angles[k] for k, c in flat.phase.angles)
    phase += sum(c * number(e, values).real for c, e in flat.phase.expressions)
    return np.exp(1j * phase) * data


def assert_same_state(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-10) -> None:
    """Equal up to a global phase."""
    phase = np.vdot(actual, expected)
    assert abs(phase) == pytest.approx(1, abs=tolerance)
    np.testing.assert_allclose(actual * phase / abs(phase), expected, atol=tolerance)


def random_values(circuit: QuantumCircuit, seed: int = 7) -> dict[Parameter, float]:
    rng = np.random.default_rng(seed)
    return {p: float(rng.uniform(-np.pi, np.pi)) for p in circuit.parameters}


def scrambled(circuit: QuantumCircuit, seed: int = 3) -> QuantumCircuit:
    """The circuit after rotations that leave no symmetry for an error to hide in."""
    rng = np.random.default_rng(seed)
    before = QuantumCircuit(*circuit.qregs, *circuit.cregs)
    for qubit in before.qubits:
        before.u(*rng.uniform(-3, 3, 3), qubit)
    return before.compose(circuit)


def without_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    copy = circuit.copy_empty_like()
    copy.data = [instruction for instruction in circuit.data if instruction.name != "measure"]
    return copy


def check(circuit: QuantumCircuit, *, scramble: bool = True, with_template: bool = True) -> FlatCircuit:
    """Flat circuit and template give Qiskit's state, at random parameter values."""
    if scramble:
        circuit = scrambled(circuit)
    values = random_values(circuit)
    expected = Statevector(without_measurements(circuit.assign_parameters(values))).data
    flat = flatten(circuit)
    assert flat.parameters == tuple(circuit.parameters)
    np.testing.assert_allclose(state(flat, values), expected, atol=1e-10)
    if with_template:
        check_template(circuit, flat, values, expected)
    return flat


def check_template(circuit, flat, values, expected) -> None:
    made = template(circuit)
    assert made.angles == flat.angles
    assert made.shifts == flat.shifts
    assert set(made.circuit.parameters) == set(made.slots)
    assert list(made.circuit.qubits) == list(circuit.qubits)
    numbers = [float(a.bind({p: values[p] for p in a.parameters})) for a in made.angles]
    bound = made.circuit.assign_parameters(dict(zip(made.slots, numbers, strict=True)))
    assert_same_state(Statevector(bound).data, expected)


def one(operation, num_qubits: int | None = None, qubits: list[int] | None = None) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits or operation.num_qubits)
    circuit.append(operation, qubits or range(operation.num_qubits))
    return circuit


def derivative(f, x: float) -> float:
    """Central difference of fourth order."""
    h = 1e-3
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)
