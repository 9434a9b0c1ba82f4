"""QuantumModule and HybridModule: values, parameter sets, properties, shapes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_cases import expectation_values, random_circuit, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import Initialize, real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparsePauliOp

from qtm import EstimatorQNN, QuantumModule, TorchConnector
from qtm._errors import (
    ParameterError,
)

X, W, V = ParameterVector("x", 2), ParameterVector("w", 3), ParameterVector("v", 2)


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(2, name="mine")
    made.ry(X[0] * W[0], 0)
    made.rx(X[1], 1)
    made.cx(0, 1)
    made.rz(W[1] + V[0], 1)
    made.ry(W[2], 0)
    made.crx(V[1], 1, 0)
    return made


def module(**options) -> QuantumModule:
    return QuantumModule(circuit(), X, [*W, *V], **{"seed_init": 0, **options})


def two_sets(**options) -> QuantumModule:
    return QuantumModule(circuit(), X, [W, V], **{"seed_init": 0, **options})


def oracle(made: QuantumModule, inputs: torch.Tensor, observables) -> np.ndarray:
    parameters = [*made.encoding_parameters, *(p for s in made.variational_parameters for p in s)]
    weights = np.concatenate([p.detach().numpy() for p in made.variational_]).astype(float)
    rows = inputs.detach().reshape(inputs.shape[:-1].numel(), made.input_size).numpy().astype(float)
    values = np.concatenate([rows, np.tile(weights, (len(rows), 1))], axis=1)
    return expectation_values(made.circuit, parameters, values, observables)


# Values


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_are_expectation_values(dtype, error):
    inputs = torch.randn(7, 2, dtype=dtype)
    made = module().to(dtype)
    values = made(inputs)
    assert values.dtype == dtype and values.shape == (7, 2)
    np.testing.assert_allclose(values.detach(), oracle(made, inputs, [Pauli("IZ"), Pauli("ZI")]), atol=error)


@pytest.mark.parametrize("seed", range(10))
def test_random_circuits_with_awkward_names(seed):
    """Parameters are bound in the order given, whatever their names."""
    random = random_circuit(seed, 3, 15)
    order = list(random.parameters)
    rng = np.random.default_rng(seed)
    order = [order[i] for i in rng.permutation(len(order))]
    first, second = sorted(rng.integers(0, len(order), 2))
    observables = random_observables(seed, 3)
    made = QuantumModule(
        random, order[:first], [order[first:second], order[second:]], observables=observables, seed_init=seed
    ).double()
    inputs = torch.rand(3, first, dtype=torch.float64)
    np.testing.assert_allclose(made(inputs).detach(), oracle(made, inputs, observables), atol=1e-10)


def test_order_is_what_the_user_gave():
    names = ["a10", "a9", "β", "A"]
    parameters = [Parameter(name) for name in names]
    made = QuantumCircuit(4)
    for qubit, parameter in enumerate(parameters):
        made.ry(parameter, qubit)
    weights = QuantumModule(made, None, parameters, variational_params_initial=[0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(weights().detach(), torch.cos(torch.tensor([0.1, 0.2, 0.3, 0.4])))
    inputs = QuantumModule(made, parameters[::-1], [])
    torch.testing.assert_close(inputs(torch.tensor([0.4, 0.3, 0.2, 0.1])), weights().detach())


@pytest.mark.parametrize(
    ("observables", "expected"),
    [
        ("individualZ", [Pauli("IZ"), Pauli("ZI")]),
        ("tensoredZ", [Pauli("ZZ")]),
        (["XY"], [Pauli("XY")]),
        ("YX", [Pauli("YX")]),
        ([SparsePauliOp(["XX", "ZZ"], [0.5, 2]), Pauli("-YI"), {"ZI": 3.0}], None),
        (["II", SparsePauliOp("ZZ", 0.0)], [Pauli("II"), SparsePauliOp("ZZ", 0.0)]),
    ],
)
def test_observables(observables, expected):
    if expected is None:
        expected = [SparsePauliOp(["XX", "ZZ"], [0.5, 2]), Pauli("-YI"), SparsePauliOp("ZI", 3.0)]
    made, inputs = module(observables=observables).double(), torch.randn(3, 2)
    assert made.output_size == len(expected)
    np.testing.assert_allclose(made(inputs).detach(), oracle(made, inputs.double(), expected), atol=1e-12)


# Shapes


@pytest.mark.parametrize("shape", [(2,), (5, 2), (1, 2), (3, 4, 2), (2, 1, 3, 2), (0, 2), (3, 0, 2), (0, 0, 2)])
def test_any_leading_shape(shape):
    made, inputs = module(), torch.randn(shape)
    values = made(inputs)
    assert values.shape == (*shape[:-1], 2)
    rows = made(inputs.reshape(inputs.shape[:-1].numel(), 2))
    torch.testing.assert_close(values.reshape(rows.shape), rows)


def test_an_empty_batch_has_zero_gradients():
    made, inputs = module(), torch.zeros(0, 2, requires_grad=True)
    made(inputs).sum().backward()
    assert inputs.grad.shape == (0, 2)
    assert not made.variational.grad.any()


def vqe() -> QuantumModule:
    ansatz = real_amplitudes(3, reps=1)
    return QuantumModule(ansatz, None, ansatz.parameters, observables=["ZZI", "IXX"], seed_init=1)


def test_without_inputs():
    made = vqe().double()
    assert made.input_size == 0
    values = made()
    assert values.shape == (2,)
    np.testing.assert_allclose(values.detach(), oracle(made, torch.zeros(1, 0), [Pauli("ZZI"), Pauli("IXX")])[0])
    for shape in ((0,), (4, 0), (2, 3, 0), (0, 0)):
        assert made(torch.zeros(shape, dtype=torch.float64)).shape == (*shape[:-1], 2)
    torch.testing.assert_close(made(torch.zeros(4, 0, dtype=torch.float64)), values.expand(4, 2))


def test_vqe_finds_the_ground_state():
    energy = SparsePauliOp(["ZZ", "XI", "IX"], [1.0, 0.6, 0.6])
    ansatz = real_amplitudes(2, reps=2)
    made = QuantumModule(ansatz, [], ansatz.parameters, observables=energy, seed_init=3).double()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = made().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(np.linalg.eigvalsh(energy.to_matrix())[0], abs=1e-4)


@pytest.mark.parametrize(
    "inputs", [[[0.1, 0.2]], np.array([[0.1, 0.2]]), np.array([[1, 2]]), torch.tensor([[1, 2]]), torch.ones(1, 2) > 0]
)
def test_every_form_that_torch_reads_is_an_input(inputs):
    made = module()
    expected = made(torch.as_tensor(np.asarray(inputs), dtype=torch.float32))
    torch.testing.assert_close(made(inputs), expected)


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_are_inputs():
    """Those that joblib maps from a file are; torch warns of them, as it could write to what it shares."""
    inputs = np.array([[0.1, 0.2]])
    expected = module()(inputs.copy())
    inputs.flags.writeable = False
    for made in (
        module(),
        TorchConnector(EstimatorQNN(circuit=circuit(), input_params=list(X), weight_params=[*W, *V])),
    ):
        assert made(inputs).shape[0] == 1
    torch.testing.assert_close(module()(inputs), expected)


def test_strided_and_shared_inputs():
    made = module()
    wide = torch.randn(6, 5)
    for inputs in (wide[:, 1:3], wide[::2, ::3], wide[:, :2].t().contiguous().t(), wide[:1, :2].expand(6, 2)):
        torch.testing.assert_close(made(inputs), made(inputs.clone(memory_format=torch.contiguous_format)))


def test_a_module_without_weights_follows_its_inputs():
    made = QuantumCircuit(2)
    made.rx(X[0], 0)
    made.rx(X[1], 1)
    encoder = QuantumModule(made, X, [])
    assert encoder.num_trainable_parameters == 0
    for dtype in (torch.float32, torch.float64):
        values = encoder(torch.ones(3, 2, dtype=dtype))
        torch.testing.assert_close(values, torch.cos(torch.ones(3, 2, dtype=dtype)))


def test_constant_circuits_and_one_qubit():
    assert QuantumModule(QuantumCircuit(3), None, [])().tolist() == [1.0, 1.0, 1.0]
    flipped = QuantumCircuit(1)
    flipped.x(0)
    assert QuantumModule(flipped, None, [])(torch.zeros(4, 0)).tolist() == [[-1.0]] * 4


# Initial states that depend on inputs


def amplitude_encoding() -> QuantumCircuit:
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(4)
    return features.compose(real_amplitudes(2, reps=1))


def test_amplitude_encoding():
    encoded = amplitude_encoding()
    features = [p for p in encoded.parameters if p.name.startswith("x")]
    weights = [p for p in encoded.parameters if not p.name.startswith("x")]
    made = QuantumModule(encoded, features, weights, seed_init=0).double()
    inputs = torch.rand(3, 4, dtype=torch.float64) + 0.1
    for row, values in zip(inputs, made(inputs), strict=True):
        prepared = QuantumCircuit(2)
        prepared.append(Initialize((row / row.norm()).tolist()), [0, 1])
        ansatz = real_amplitudes(2, reps=1)
        prepared.compose(ansatz.assign_parameters(made.variational.detach().numpy()), inplace=True)
        job = StatevectorEstimator().run([(prepared.decompose(), [Pauli("IZ"), Pauli("ZI")])])
        np.testing.assert_allclose(values.detach(), job.result()[0].data.evs, atol=1e-10)
    with pytest.raises(ParameterError, match="finite and not all zero"):
        made(torch.zeros(1, 4, dtype=torch.float64))


# Parameter sets, names, initial values


def test_names():
    assert [n for n, _ in module().named_parameters()] == ["variational"]
    assert [n for n, _ in two_sets().named_parameters()] == ["variational_0", "variational_1"]
    assert [n for n, _ in two_sets(variational_params_names="θ").named_parameters()] == ["θ_0", "θ_1"]
    assert [n for n, _ in module(variational_params_names="theta").named_parameters()] == ["theta"]
    named = two_sets(variational_params_names=["theta", "lam"])
    assert named.theta.shape == (3,) and named.lam.shape == (2,)
    assert named.variational_[0] is named.theta and named.variational_[1] is named.lam


def test_one_set_or_several_give_the_same():
    inputs = torch.randn(4, 2)
    one = module(variational_params_initial=[0.1, 0.2, 0.3, 0.4, 0.5])
    several = two_sets(variational_params_initial=[[0.1, 0.2, 0.3], torch.tensor([0.4, 0.5])])
    torch.testing.assert_close(one(inputs), several(inputs))


def test_properties():
    made = two_sets(num_threads_forward=1, num_threads_backward=2)
    assert (made.input_size, made.output_size, made.num_trainable_parameters) == (2, 2, 5)
    assert made.encoding_parameters == tuple(X)
    assert made.variational_parameters == (tuple(W), tuple(V))
    assert made.circuit == circuit()
    assert (made.num_threads_forward, made.num_threads_backward) == (1, 2)
    made.set_num_threads_forward(2)
    made.set_num_threads_backward(0)
    assert (made.num_threads_forward, made.num_threads_backward) == (2, 0)
    text = repr(made)
    for part in ("num_qubits=2", "input_size=2", "output_size=2", "variational_0: 3", "variational_1: 2", "reverse"):
        assert part in text


@pytest.mark.parametrize(
    ("initial", "check"),
    [
        ("constant", lambda v: (v == 1).all()),
        (("constant", {"val": -2.5}), lambda v: (v == -2.5).all()),
        ("uniform", lambda v: (v >= 0).all() and (v < 6.2832).all() and v.max() > 4 and v.min() < 2),
        (("uniform", {"a": -1, "b": 1}), lambda v: (v.abs() < 1).all() and v.min() < 0 < v.max()),
        (("uniform", {"b": 0.1}), lambda v: (v < 0.1).all() and (v >= 0).all()),
        ("normal", lambda v: 0.7 < v.std() < 1.3 and v.mean().abs() < 0.3),
        (("normal", {"mean": 5.0, "std": 0.1}), lambda v: (v - 5).abs().max() < 0.6),
    ],
)
def test_initialisers(initial, check):
    ansatz = real_amplitudes(5, reps=19)
    made = QuantumModule(ansatz, None, ansatz.parameters, variational_params_initial=initial, seed_init=0)
    values = made.variational.detach()
    assert values.shape == (100,) and values.dtype == torch.get_default_dtype()
    assert check(values)


def test_each_set_has_an_initialiser_of_its_own():
    made = two_sets(variational_params_initial=["constant", ("constant", {"val": 3.0})])
    assert made.variational_0.tolist() == [1.0] * 3 and made.variational_1.tolist() == [3.0] * 2
    made = two_sets(variational_params_initial=[np.arange(3), "constant"])
    assert made.variational_0.tolist() == [0.0, 1.0, 2.0] and made.variational_1.tolist() == [1.0] * 2


def test_explicit_values_are_copied():
    values = torch.zeros(5, requires_grad=True)
    made = module(variational_params_initial=values)
    made.variational.data.fill_(1.0)
    assert not values.any() and made.variational.is_leaf


def test_a_seed_decides_the_values_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = module(seed_init=1), module(seed_init=1), module(seed_init=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.variational, second.variational)
    assert not torch.equal(first.variational, other.variational)
    torch.manual_seed(5)
    drawn = module(seed_init=None)
    torch.manual_seed(5)
    assert torch.equal(drawn.variational, module(seed_init=None).variational)
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_circuit_changed_afterwards_leaves_the_module_alone():
    mine = circuit()
    made = QuantumModule(mine, X, [W, V], seed_init=0)
    inputs = torch.randn(3, 2)
    expected = made(inputs)
    mine.x(0)
    mine.rx(Parameter("new"), 0)
    made.set_num_threads_forward(1)  # methods are made again
    torch.testing.assert_close(made(inputs), expected)
    torch.testing.assert_close(made.double()(inputs).float(), expected)
