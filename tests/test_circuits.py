"""The papers' circuits: parameter counts as published, structure, states of hand-built references."""

from __future__ import annotations

import doctest
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, Parameter
from qiskit.quantum_info import Statevector

from qtm import circuits
from qtm._errors import CircuitError
from qtm.circuits import (
    ModelCircuit,
    hardware_efficient_circuit,
    incremental_uploading_circuit,
    policy_circuit,
    reuploading_circuit,
)

SEED = 20240
CX, CZ, RX, RY, RZ = "cx", "cz", "rx", "ry", "rz"

# model, (features, variational, scaling), gate counts beyond the Hadamards
COUNTS = [
    (reuploading_circuit(12, 3), (12, 96, 72), {"h": 12, CX: 36, RY: 84, RZ: 84}),
    (reuploading_circuit(12, 3, input_scaling=False), (12, 96, 0), {"h": 12, CX: 36, RY: 84, RZ: 84}),
    (reuploading_circuit(1, 2), (1, 6, 4), {"h": 1, RY: 5, RZ: 5}),
    (reuploading_circuit(2, 2), (2, 12, 8), {"h": 2, CX: 2, RY: 10, RZ: 10}),
    (policy_circuit(), (4, 16, 8), {"h": 4, CZ: 6, RY: 12, RZ: 12}),
    (incremental_uploading_circuit(), (100, 220, 0), {"h": 10, CX: 100, RX: 100, RY: 110, RZ: 110}),
    (incremental_uploading_circuit(3, 2, 4), (4, 18, 0), {"h": 3, CX: 6, RX: 4, RY: 9, RZ: 9}),
    (hardware_efficient_circuit(5, 3), (0, 30, 0), {CX: 15, RY: 15, RZ: 15}),
]


@pytest.mark.parametrize(("model", "sizes", "gates"), COUNTS)
def test_counts(model: ModelCircuit, sizes: tuple[int, int, int], gates: dict[str, int]) -> None:
    assert tuple(len(params) for params in model[1:]) == sizes
    assert dict(model.circuit.count_ops()) == gates


@pytest.mark.parametrize(("model", "sizes", "gates"), COUNTS)
def test_every_listed_parameter_is_in_the_circuit_and_no_other(
    model: ModelCircuit, sizes: tuple[int, int, int], gates: dict[str, int]
) -> None:
    listed = [*model.encoding_params, *model.trainable_params]
    assert len(listed) == sum(sizes) == len(set(listed))
    assert set(listed) == set(model.circuit.parameters)


@pytest.mark.parametrize(("model", "sizes", "gates"), COUNTS)
def test_each_weight_belongs_to_one_gate_and_angles_come_in_circuit_order(
    model: ModelCircuit, sizes: tuple[int, int, int], gates: dict[str, int]
) -> None:
    used = [parameter for gate in model.circuit.data for parameter in _parameters(gate)]
    uses = Counter(used)
    assert all(uses[weight] == 1 for weight in model.trainable_params)
    for params in (model.variational_params, model.scaling_params):
        assert [parameter for parameter in used if parameter in set(params)] == list(params)


def test_papers_weight_counts() -> None:
    assert len(reuploading_circuit(12, 3).trainable_params) == 168
    assert len(incremental_uploading_circuit(10, 10, 100).trainable_params) == 220


def test_reuploading_state_is_the_papers_circuit() -> None:
    n, depth = 3, 2
    model = reuploading_circuit(n, depth)
    x, theta, scale = _draw(model)
    expected = QuantumCircuit(n)
    for q in range(n):
        expected.h(q)
    for layer in range(depth):
        for q in range(n):
            expected.rz(theta[2 * n * layer + 2 * q], q)
            expected.ry(theta[2 * n * layer + 2 * q + 1], q)
        for control, target in [(0, 1), (1, 2), (2, 0)]:
            expected.cx(control, target)
        for q in range(n):
            expected.ry(scale[2 * n * layer + 2 * q] * x[q], q)
            expected.rz(scale[2 * n * layer + 2 * q + 1] * x[q], q)
    for q in range(n):
        expected.rz(theta[2 * n * depth + 2 * q], q)
        expected.ry(theta[2 * n * depth + 2 * q + 1], q)
    _assert_same_state(model, (x, theta, scale), expected)


def test_unscaled_inputs_are_scales_of_one() -> None:
    scaled, plain = reuploading_circuit(3, 2), reuploading_circuit(3, 2, input_scaling=False)
    x, theta, scale = _draw(scaled)
    expected = _bind(scaled, (x, theta, np.ones_like(scale)))
    _assert_same_state(plain, (x, theta, scale[:0]), expected)


def test_policy_differs_from_reuploading_by_its_entangler_only() -> None:
    policy, ring = policy_circuit(), reuploading_circuit(4, 1)

    def rotations(model: ModelCircuit) -> list[str]:
        return [str(gate.operation) for gate in model.circuit.data if gate.operation.num_qubits == 1]

    pairs = [_indices(policy.circuit, gate) for gate in policy.circuit.data if len(gate.qubits) == 2]
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert rotations(policy) == rotations(ring)


def test_incremental_uploading_spreads_features_over_layers() -> None:
    model = incremental_uploading_circuit(3, 2, 5)
    encoded = [
        (_indices(model.circuit, gate)[0], gate.operation.params[0])
        for gate in model.circuit.data
        if gate.operation.name == "rx"
    ]
    assert encoded == [(q, model.encoding_params[i]) for i, q in enumerate([0, 1, 2, 0, 1])]


def test_hardware_efficient_state() -> None:
    n, layers = 3, 2
    model = hardware_efficient_circuit(n, layers)
    x, theta, scale = _draw(model)
    expected = QuantumCircuit(n)
    for layer in range(layers):
        for q in range(n):
            expected.ry(theta[2 * n * layer + 2 * q], q)
            expected.rz(theta[2 * n * layer + 2 * q + 1], q)
        for control, target in [(0, 1), (1, 2), (2, 0)]:
            expected.cx(control, target)
    _assert_same_state(model, (x, theta, scale), expected)


@pytest.mark.parametrize(
    ("build", "sizes", "words"),
    [
        (reuploading_circuit, (0, 3), "num_qubits is 0"),
        (reuploading_circuit, (3, 0), "depth is 0"),
        (policy_circuit, (4, -1), "depth is -1"),
        (incremental_uploading_circuit, (2, 2, 0), "num_features is 0"),
        (incremental_uploading_circuit, (2, 2, 5), "take at most 4"),
        (hardware_efficient_circuit, (3, 0), "layers is 0"),
    ],
)
def test_unusable_sizes_are_refused(build: Callable[..., ModelCircuit], sizes: tuple[int, ...], words: str) -> None:
    with pytest.raises(CircuitError, match=words):
        build(*sizes)


def test_examples_of_the_docstrings() -> None:
    result = doctest.testmod(circuits)
    assert result.attempted > 0
    assert result.failed == 0


def _indices(circuit: QuantumCircuit, gate: CircuitInstruction) -> tuple[int, ...]:
    return tuple(circuit.find_bit(qubit).index for qubit in gate.qubits)


def _parameters(gate: CircuitInstruction) -> list[Parameter]:
    return [parameter for angle in gate.operation.params for parameter in angle.parameters]


def _draw(model: ModelCircuit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    x, theta, scale = (rng.uniform(-np.pi, np.pi, len(params)) for params in model[1:])
    return x, theta, scale


def _bind(model: ModelCircuit, values: tuple[np.ndarray, ...]) -> QuantumCircuit:
    bound = {params: list(value) for params, value in zip(model[1:], values, strict=True) if len(params)}
    return model.circuit.assign_parameters(bound)


def _assert_same_state(model: ModelCircuit, values: tuple[np.ndarray, ...], expected: QuantumCircuit) -> None:
    state, reference = Statevector(_bind(model, values)), Statevector(expected)
    np.testing.assert_allclose(state.data, reference.data, atol=1e-14)
