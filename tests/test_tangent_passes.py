"""Derivatives along a direction where rotations and phases share a pass, beside shifts of Qiskit's values."""

from __future__ import annotations

from functools import cache
from itertools import product
from math import pi

import numpy as np
import pytest
from array_simulation import ArraySimulation
from circuit_cases import expectation_values, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.statevector.cone_tangents import ConeTangents, Point
from qtm._engines.statevector.kernels.recipe import GROUPS, KIND, PHASE, PLACE, ROTATE, SECOND_COUNT
from qtm._errors import OutOfMemory

QUBITS, BATCH = 7, 2
TOLERANCE = {"complex128": (1e-12, 1e-8), "complex64": (2e-5, 1e-4)}  # of values and of their derivatives
LANES = ("sample", "amplitude")
ANGLES = {  # cosines are divided out: so small, their product would underflow after some passes, or within one
    "random": lambda rng, shape: rng.uniform(-pi, pi, shape),
    "nearly half turns": lambda rng, shape: np.full(shape, pi - 1e-7),
    "half turns": lambda rng, shape: np.full(shape, pi),
    "some half turns": lambda rng, shape: rng.choice([pi, -pi, 0.3, 0.0, 1.1], shape),
}


def layered() -> QuantumCircuit:
    """Layers of rotations and phases, of which there are few in one layer, and many in the next."""
    angles = iter(ParameterVector("t", 6 * QUBITS + 1))
    circuit = QuantumCircuit(QUBITS)
    for turned, pairs in ((range(QUBITS), 0), ((1, 4), 0), (range(QUBITS), QUBITS - 1)):
        for qubit in range(QUBITS):
            circuit.ry(next(angles), qubit)
        for qubit in turned:
            circuit.rz(next(angles), qubit)
        for qubit in range(pairs):
            circuit.rzz(next(angles), qubit, qubit + 1)
        for qubit in range(QUBITS - 1):
            circuit.cx(qubit, qubit + 1)
    for qubit in range(QUBITS):
        circuit.ry(0.4, qubit)
    return circuit


def simulation(dtype: str, lanes: str) -> ArraySimulation:
    circuit = layered()
    measured = coerce_observables(random_observables(1, QUBITS, 2), QUBITS)
    return ArraySimulation(
        circuit, list(circuit.parameters), measured, Options(num_threads=1, dtype=dtype, lane_kind=lanes)
    )


@cache
def expected(name: str, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """Angles and direction (batch, angles), cotangent (batch, observables); and what they must lead to, from Qiskit.

    Jacobians are parameter shifts. The derivative of one along the direction is a central difference of fourth order.
    """
    circuit, rng = layered(), np.random.default_rng(7)
    observables, parameters = random_observables(1, QUBITS, 2), list(circuit.parameters)
    count = len(parameters)
    angles = ANGLES[name](rng, (BATCH, count)).astype(dtype).astype(float)
    direction = rng.normal(size=angles.shape).astype(dtype).astype(float)
    cotangent = rng.normal(size=(BATCH, 2)).astype(dtype).astype(float)
    shifts = pi / 2 * np.concatenate([np.eye(count), -np.eye(count)])

    def jacobian(at: np.ndarray) -> np.ndarray:
        """(batch, observables, angles)."""
        moved = (at[:, None, :] + shifts).reshape(-1, count)
        up, down = np.split(expectation_values(circuit, parameters, moved, observables).reshape(BATCH, -1, 2), 2, 1)
        return (up - down).swapaxes(1, 2) / 2

    slopes = np.einsum("boa,ba->bo", jacobian(angles), direction)
    step = 1e-3
    moved = [jacobian(angles + k * step * direction) for k in (-2, -1, 1, 2)]
    second = np.tensordot([1, -8, 8, -1], moved, 1) / (12 * step)
    return angles, direction, cotangent, slopes, np.einsum("boa,bo->ba", second, cotangent)


@pytest.mark.parametrize(("dtype", "lanes"), list(product(TOLERANCE, LANES)))
def test_rotations_and_phases_with_and_without_a_second_table_share_a_pass(dtype, lanes):
    """Otherwise the next test would be easy."""
    ops = simulation(dtype, lanes).engine.sweeps(BATCH).recipe.ops
    shared = [i for i, op in enumerate(ops) if op[KIND] == PHASE and 0 < op[PLACE] < op[GROUPS] - 1]
    assert {op[SECOND_COUNT] > 0 for op in ops[shared]} == {False, True}
    assert all(ops[i - 1, KIND] == ops[i + 1, KIND] == ROTATE for i in shared)
    of_pass = [i - ops[i, PLACE] for i in shared]
    assert len(set(of_pass)) < len(of_pass)  # and several phases do


@pytest.mark.parametrize("name", ANGLES)
@pytest.mark.parametrize(("dtype", "lanes"), list(product(TOLERANCE, LANES)))
@pytest.mark.thinned(5)
def test_derivatives_along_a_direction_agree_with_qiskit(dtype, lanes, name):
    engine = simulation(dtype, lanes).engine
    *arguments, slopes, second = expected(name, np.dtype(engine.real))
    angles, direction, cotangent = (a.astype(engine.real) for a in arguments)
    tangents, point, (first_order, second_order) = ConeTangents(engine), Point(angles, direction), TOLERANCE[dtype]
    np.testing.assert_allclose(tangents.values(point), slopes, atol=first_order)
    np.testing.assert_allclose(tangents.values_second(point, cotangent, False).by_angles, second, atol=second_order)


def test_as_little_memory_as_four_states_take():
    """However many samples there are. The value is the product of all cosines."""
    size, parameters = 21, ParameterVector("t", 21)
    circuit = QuantumCircuit(size)
    for qubit in range(size):
        circuit.ry(parameters[qubit], qubit)
    for qubit in range(size - 1):
        circuit.cx(qubit, qubit + 1)
    measured = coerce_observables(["Z" + "I" * (size - 1)], size)
    angles = np.repeat([[-0.2], [0.1], [0.3]], size, 1)

    def product(states: float) -> np.ndarray:
        options = Options(num_threads=2, lane_kind="amplitude", memory=int(states * 2**size * 8))
        engine = ArraySimulation(circuit, list(parameters), measured, options).engine
        point = Point(angles, np.ones_like(angles))
        return ConeTangents(engine).values_second(point, np.ones((3, 1)), False).by_angles

    cos, sin = np.cos(angles), np.sin(angles)
    expected = (size - 1) * cos ** (size - 2) * sin**2 - cos**size
    np.testing.assert_allclose(product(4.5), expected, rtol=1e-10)
    with pytest.raises(OutOfMemory, match=r"21 qubits need 0.06 GiB for 4 states, and 0.05 GiB may be used"):
        product(3.5)
