"""Encodings and ansaetze: what each claims of itself, checked with Qiskit, and how parts are stacked."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import n_local, qaoa_ansatz, zz_feature_map
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector

import qtm
from qtm import circuits
from qtm._parts.ansaetze import ENTANGLERS
from qtm._parts.entanglement import PATTERNS, entangled_pairs
from qtm.circuits import (
    ENTANGLEMENT_PATTERNS,
    ModelCircuit,
    Part,
    alternating_operator_ansatz,
    amplitude_encoding,
    angle_encoding,
    brick_ansatz,
    generator_ansatz,
    hamming_weight_ansatz,
    hardware_efficient_ansatz,
    iqp_encoding,
    pauli_encoding,
    phase_encoding,
    stack,
    strongly_entangling_ansatz,
)

RING = SparsePauliOp.from_sparse_list([("ZZ", [q, (q + 1) % 3], 1.0) for q in range(3)], num_qubits=3)
MIXER = SparsePauliOp(["XII", "IXI", "IIX"])

# model, (features, variational, scaling)
MODELS: dict[str, tuple[ModelCircuit, tuple[int, int, int]]] = {
    "angle": (angle_encoding(3), (3, 0, 0)),
    "angle_axes": (angle_encoding(3, "xzy", hadamards=True), (3, 0, 0)),
    "angle_scaled": (angle_encoding(3, "yz", scaling=True), (3, 0, 6)),
    "phase": (phase_encoding(3), (3, 0, 0)),
    "phase_scaled": (phase_encoding(3, scaling=True), (3, 0, 3)),
    "iqp": (iqp_encoding(3, 2), (3, 0, 0)),
    "pauli": (pauli_encoding(3), (3, 0, 0)),
    "amplitude": (amplitude_encoding(5), (5, 0, 0)),
    "hardware_efficient": (hardware_efficient_ansatz(3, 2), (0, 12, 0)),
    "hardware_efficient_final": (hardware_efficient_ansatz(3, 2, "x", final_rotations=True), (0, 9, 0)),
    "brick": (brick_ansatz(5, 2), (0, 16, 0)),
    "strongly_entangling": (strongly_entangling_ansatz(3, 2), (0, 18, 0)),
    "hamming_weight": (hamming_weight_ansatz(4, 2, weight=1), (0, 6, 0)),
    "qaoa": (alternating_operator_ansatz(RING, 2), (0, 4, 0)),
    "qaoa_mixer": (alternating_operator_ansatz(RING, 2, MIXER), (0, 4, 0)),
    "generators": (generator_ansatz([MIXER, RING], 3), (0, 6, 0)),
}
each_model = pytest.mark.parametrize("name", MODELS)


def bound(model: ModelCircuit, values: np.ndarray) -> QuantumCircuit:
    parameters = [*model.encoding_params, *model.trainable_params]
    return model.circuit.assign_parameters(dict(zip(parameters, values, strict=True)))


def draw(model: ModelCircuit, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, len(model.circuit.parameters))


@each_model
def test_roles_of_the_parameters(name: str) -> None:
    model, sizes = MODELS[name]
    assert tuple(map(len, model[1:])) == sizes
    assert {*model.encoding_params, *model.trainable_params} == set(model.circuit.parameters)


@each_model
def test_values_and_gradients_are_those_of_qiskit(name: str) -> None:
    """Every part as a module: expectation values of Qiskit, gradients by features and weights of differences."""
    model = MODELS[name][0]
    module = qtm.QuantumModule(model.circuit, model.encoding_params, model.trainable_params).double()
    features, point = len(model.encoding_params), draw(model)
    observables = [SparsePauliOp.from_sparse_list([("Z", [q], 1)], model.circuit.num_qubits) for q in range(3)]

    def values(at: np.ndarray) -> np.ndarray:
        return Statevector(bound(model, at)).data

    def outputs(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"variational": weights}, (inputs,) if features else ())

    state = Statevector(values(point))
    expected = [state.expectation_value(o).real for o in observables]
    inputs, weights = (torch.tensor(part, requires_grad=True) for part in np.split(point, [features]))
    np.testing.assert_allclose(outputs(inputs, weights)[:3].detach(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(outputs, (inputs, weights))


# --- entanglement -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["linear", "reverse_linear", "circular", "pairwise", "full", "sca"])
@pytest.mark.parametrize("num_qubits", [2, 3, 4, 5])
def test_patterns_are_those_of_qiskit(pattern: str, num_qubits: int) -> None:
    reference = n_local(num_qubits, [], "cx", entanglement=pattern, reps=4, skip_final_rotation_layer=True)
    pairs = [tuple(reference.find_bit(q).index for q in gate.qubits) for gate in reference.data]
    assert [p for layer in range(4) for p in entangled_pairs(pattern, num_qubits, layer)] == pairs


def test_the_other_patterns() -> None:
    assert set(ENTANGLEMENT_PATTERNS) == set(PATTERNS)
    assert entangled_pairs("ring", 4) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert entangled_pairs("ring", 2) == [(0, 1)]
    assert entangled_pairs("star", 4) == [(0, 1), (0, 2), (0, 3)]
    assert entangled_pairs("none", 4) == []
    assert entangled_pairs(lambda layer: [(layer, layer + 1)], 4, 2) == [(2, 3)]
    assert entangled_pairs([(2, 0)], 3) == [(2, 0)]


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_every_entangler(entangler: str) -> None:
    model = hardware_efficient_ansatz(3, 2, "y", "ring", entangler)
    assert model.circuit.count_ops()[entangler] == 6
    assert len(model.variational_params) == 6 + 6 * ENTANGLERS[entangler]


@pytest.mark.parametrize("pattern", ENTANGLEMENT_PATTERNS)
def test_every_pattern_has_a_circuit_on_one_qubit_and_more(pattern: str) -> None:
    for num_qubits in (1, 2, 5):
        assert len(hardware_efficient_ansatz(num_qubits, 2, "y", pattern).variational_params) == 2 * num_qubits


# --- what the parts claim ---------------------------------------------------------------------------------------


def test_pauli_encoding_is_qiskits_feature_map() -> None:
    model, reference = pauli_encoding(3), zz_feature_map(3)
    x = np.array([0.3, -1.2, 2.0])
    assert Statevector(bound(model, x)).equiv(Statevector(reference.assign_parameters(x)))


def test_iqp_is_diagonal_between_hadamards() -> None:
    x = np.array([0.3, -1.2, 2.0])
    expected = QuantumCircuit(3)
    expected.h(range(3))
    z = [1 - 2 * ((np.arange(8) >> q) & 1) for q in range(3)]
    phases = sum(x[q] * z[q] for q in range(3)) + sum(x[a] * x[b] * z[a] * z[b] for a, b in [(0, 1), (0, 2), (1, 2)])
    state = np.exp(-0.5j * phases) * Statevector(expected).data
    np.testing.assert_allclose(Statevector(bound(iqp_encoding(3), x)).data, state, atol=1e-12)


def test_amplitudes_are_the_normalised_features() -> None:
    x = np.array([1.0, -2.0, 0.5, 3.0, 0.1])
    state = Statevector(bound(amplitude_encoding(5, 4), x)).data
    np.testing.assert_allclose(state, np.pad(x, (0, 11)) / np.linalg.norm(x), atol=1e-12)


def test_amplitudes_of_a_sample_without_norm_are_refused() -> None:
    with pytest.raises(qtm.CircuitError, match="norm of the amplitudes is 0"):
        Statevector(bound(amplitude_encoding(4), np.zeros(4)))
    with pytest.raises(qtm.CircuitError, match=r"x\[0\].*no value yet"):
        Statevector(amplitude_encoding(4).circuit)


@pytest.mark.parametrize("pattern", ["pairwise", "linear", "full"])
def test_hamming_weight_is_kept(pattern: str) -> None:
    n = 4
    number = SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(n)], n).to_matrix()
    model = hamming_weight_ansatz(n, 3, entanglement=pattern)
    unitary = Operator(bound(model, draw(model))).data
    np.testing.assert_allclose(number @ unitary, unitary @ number, atol=1e-12)
    np.testing.assert_allclose(unitary.imag, 0, atol=1e-12)
    for weight in range(n + 1):
        started = hamming_weight_ansatz(n, 3, weight, pattern)
        probabilities = Statevector(bound(started, draw(started))).probabilities_dict(decimals=12)
        assert {key.count("1") for key in probabilities} == {weight}


def test_qaoa_angles_are_gamma_and_beta_by_layer() -> None:
    model, reference = alternating_operator_ansatz(RING, 2), qaoa_ansatz(RING, reps=2)
    gamma, beta = [0.3, 0.5], [-0.7, 1.1]
    expected = reference.assign_parameters(
        {p: (gamma if p.vector.name == "γ" else beta)[p.index] for p in reference.parameters}
    )
    state = Statevector(bound(model, np.array([gamma[0], beta[0], gamma[1], beta[1]])))
    np.testing.assert_allclose(state.data, Statevector(expected).data, atol=1e-12)


def test_the_mixer_of_qaoa_is_x_everywhere() -> None:
    point = np.array([0.3, -0.7, 0.5, 1.1])
    states = [Statevector(bound(alternating_operator_ansatz(RING, 2, mixer), point)) for mixer in (None, MIXER)]
    assert states[0].equiv(states[1])


def test_generators_are_exponentiated_exactly() -> None:
    from scipy.linalg import expm

    model = generator_ansatz([MIXER, RING])
    expected = expm(-0.4j * RING.to_matrix()) @ expm(-0.9j * MIXER.to_matrix())
    np.testing.assert_allclose(Operator(bound(model, np.array([0.9, 0.4]))).data, expected, atol=1e-12)


def test_brick_light_cones() -> None:
    """Z in the middle of a chain depends on 2 + 2 * layers qubits at most."""
    layers, n = 2, 10
    model = brick_ansatz(n, layers, "y")
    module = qtm.QuantumModule(
        model.circuit, None, model.trainable_params, observables=[SparsePauliOp("I" * 5 + "Z" + "I" * 4)]
    )
    module().backward()
    gradient = module.variational.grad.abs()
    gates = [g for g in model.circuit.data if g.operation.name == "ry"]
    seen = {model.circuit.find_bit(g.qubits[0]).index for g, by in zip(gates, gradient, strict=True) if by > 1e-6}
    assert seen <= set(range(4 - 2 * (layers - 1), 6 + 2 * (layers - 1))) and len(seen) > 2


def gradient_variance(model: ModelCircuit, observable: SparsePauliOp, samples: int = 200) -> float:
    """Variance of the derivative by the angle in the middle of the circuit, over uniform angles."""
    module = qtm.QuantumModule(model.circuit, None, model.trainable_params, observables=[observable]).double()
    generator = torch.Generator().manual_seed(3)
    middle = module.num_trainable_parameters // 2
    derivatives = []
    for _ in range(samples):
        with torch.no_grad():
            module.variational.uniform_(0, 4 * np.pi, generator=generator)
        (gradient,) = torch.autograd.grad(module().sum(), module.variational)
        derivatives.append(gradient[middle].item())
    return float(np.var(derivatives))


@pytest.mark.slow
def test_gradients_vanish_where_they_are_said_to_and_not_where_not() -> None:
    """From 6 to 10 qubits: deep hardware-efficient circuits lose a factor of 2 per qubit, 16; weight 1 about 4."""
    deep, kept = [], []
    for n in (6, 10):
        z = SparsePauliOp.from_sparse_list([("Z", [n // 2], 1.0)], n)
        deep.append(gradient_variance(hardware_efficient_ansatz(n, 6 * n), z))
        kept.append(gradient_variance(hamming_weight_ansatz(n, 2 * n, weight=1), z))
    assert deep[0] / deep[1] > 8, deep
    assert kept[0] / kept[1] < 6, kept


# --- stacking ---------------------------------------------------------------------------------------------------


def test_a_stack_is_its_parts_in_order() -> None:
    encoding, ansatz = angle_encoding(3, "yz", scaling=True), hardware_efficient_ansatz(3)
    stacked = stack([encoding, ansatz, encoding, ansatz])
    assert {name: len(s) for name, s in stacked.parameter_sets.items()} == {
        "scaling_0": 6, "variational_0": 6, "scaling_1": 6, "variational_1": 6,
    }  # fmt: skip
    rng = np.random.default_rng(5)
    x = rng.normal(size=3)
    sets = {name: rng.normal(size=len(s)) for name, s in stacked.parameter_sets.items()}
    expected = QuantumCircuit(3)
    for layer in (0, 1):
        expected.compose(bound(encoding, np.concatenate([x, sets[f"scaling_{layer}"]])), inplace=True)
        expected.compose(bound(ansatz, sets[f"variational_{layer}"]), inplace=True)
    values = dict(zip(stacked.encoding_params, x, strict=True))
    for name, params in stacked.parameter_sets.items():
        values.update(zip(params, sets[name], strict=True))
    state = Statevector(stacked.circuit.assign_parameters(values))
    np.testing.assert_allclose(state.data, Statevector(expected).data, atol=1e-12)


def test_parts_of_one_name_share_their_weights() -> None:
    block = Part(hardware_efficient_ansatz(2, axes="y"), name="block")
    module = qtm.QuantumModule.from_parts([block, block], seed_init=0).double()
    assert [name for name, _ in module.named_parameters()] == ["block"] and module.num_trainable_parameters == 2
    angles = module.block.detach().numpy()
    once = bound(hardware_efficient_ansatz(2, axes="y"), angles)
    state = Statevector(once.compose(once))
    expected = [state.expectation_value(SparsePauliOp(z)).real for z in ("IZ", "ZI")]
    np.testing.assert_allclose(module().detach(), expected, atol=1e-12)


def test_features_and_qubits_of_a_part() -> None:
    parts = [
        Part(angle_encoding(2, "x"), features=[3, 0], qubits=[2, 1]),
        Part(angle_encoding(2, "x"), features=[1, 2]),
    ]
    module = qtm.QuantumModule.from_parts(parts).double()
    x = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    # Qubit 2 by x[3], qubit 1 by x[0] and x[2], qubit 0 by x[1].
    torch.testing.assert_close(module(x), torch.cos(torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64)))


def test_qiskit_circuits_are_parts() -> None:
    circuit = n_local(2, "ry", "cx", reps=1)
    module = qtm.QuantumModule.from_parts([angle_encoding(2), circuit])
    assert module.input_size == 2 and module.num_trainable_parameters == 4


def test_initial_values_by_name() -> None:
    parts = [angle_encoding(2, scaling=True), Part(brick_ansatz(2), name="bricks")]
    module = qtm.QuantumModule.from_parts(parts, variational_params_initial={"bricks": ("constant", {"val": 0.5})})
    assert module.scaling.tolist() == [1.0, 1.0] and set(module.bricks.tolist()) == {0.5}


def test_a_stack_of_encodings_has_no_weights() -> None:
    module = qtm.QuantumModule.from_parts([angle_encoding(2), phase_encoding(2)])
    assert module.num_trainable_parameters == 0 and module(torch.zeros(3, 2)).shape == (3, 2)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: stack([]), qtm.CircuitError, "no parts"),
        (lambda: stack(["angle"]), qtm.CircuitError, "str is not a part"),
        (lambda: stack([Part(angle_encoding(2), features=[0, 2])]), qtm.ParameterError, r"reads the features \[1\]"),
        (lambda: stack([Part(angle_encoding(2), features=[0])]), qtm.ParameterError, "each of 2 encoding"),
        (lambda: stack([Part(angle_encoding(2), qubits=[1, 1])]), qtm.CircuitError, "each of 2 qubits"),
        (lambda: stack([Part(brick_ansatz(2), name="x")]), qtm.ParameterError, "'x' is reserved for the features"),
        (
            lambda: stack([Part(brick_ansatz(2), name="a"), Part(brick_ansatz(2, axes="y"), name="a")]),
            qtm.ParameterError,
            "have 4 and 2",
        ),
        (
            lambda: qtm.QuantumModule.from_parts([brick_ansatz(2)], variational_params_initial={"w": "normal"}),
            qtm.ParameterError,
            r"no parameter sets \['w'\]",
        ),
        (lambda: angle_encoding(2, "yq"), qtm.CircuitError, "axes are 'yq'"),
        (lambda: angle_encoding(0), qtm.CircuitError, "num_qubits is 0"),
        (lambda: iqp_encoding(2, entanglement="rign"), qtm.CircuitError, "unknown entanglement 'rign'"),
        (lambda: iqp_encoding(2, entanglement=[(0, 2)]), qtm.CircuitError, r"\(0, 2\) is not a pair"),
        (lambda: amplitude_encoding(5, 2), qtm.CircuitError, "5 features do not fit the 4 amplitudes"),
        (lambda: hardware_efficient_ansatz(2, entangler="cxx"), qtm.CircuitError, "unknown entangler 'cxx'"),
        (lambda: hamming_weight_ansatz(2, weight=3), qtm.CircuitError, "weight is 3"),
        (lambda: alternating_operator_ansatz("ZZ"), qtm.ObservableError, "not str"),
        (lambda: generator_ansatz([]), qtm.CircuitError, "no generators"),
        (lambda: generator_ansatz([SparsePauliOp(["X", "Z"])]), qtm.ObservableError, "do not commute"),
        (lambda: generator_ansatz([SparsePauliOp(["X"], [1j])]), qtm.ObservableError, "complex"),
        (lambda: generator_ansatz([SparsePauliOp("X"), SparsePauliOp("XX")]), qtm.ObservableError, "1 and 2 qubits"),
    ],
)
def test_what_is_refused(build: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build()


@pytest.mark.parametrize("name", sorted(circuits.__all__))
def test_examples_of_the_docstrings(name: str) -> None:
    thing = getattr(circuits, name)
    if callable(thing):
        module = importlib.import_module(thing.__module__)
        finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
        tests = finder.find(thing, name, module=module, globs=dict(vars(module)))
        assert thing in (ModelCircuit, circuits.StackedCircuit) or any(test.examples for test in tests), "no example"
        assert all(runner.run(test).failed == 0 for test in tests)
