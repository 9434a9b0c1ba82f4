"""QuantumModule and HybridModule: values, parameter sets, properties, shapes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_cases import expectation_values, random_circuit, random_observables
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import Initialize, real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparsePauliOp

from qtm import HybridModule, QuantumModule
from qtm._errors import (
    CircuitError,
    DtypeError,
    ObservableError,
    OutOfMemory,
    ParameterError,
    ShapeError,
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
    ids=str,
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
def test_whatever_torch_reads_is_an_input(inputs):
    made = module()
    expected = made(torch.as_tensor(np.asarray(inputs), dtype=torch.float32))
    torch.testing.assert_close(made(inputs), expected)


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
    ids=str,
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


# HybridModule


def hybrid(**options) -> HybridModule:
    features, ansatz = z_feature_map(3), real_amplitudes(3, reps=1)
    return HybridModule(
        features.compose(ansatz), features.parameters, ansatz.parameters, 5, 4, **{"seed_init": 0, **options}
    )


def test_hybrid_is_linear_quantum_linear():
    made, inputs = hybrid(), torch.randn(6, 5)
    first, last = list(made.pre_parameters_), list(made.post_parameters_)
    hidden = torch.nn.functional.linear(inputs, *first)
    expected = torch.nn.functional.linear(made.quantum_module(hidden), *last)
    torch.testing.assert_close(made(inputs), expected)
    assert made(inputs[0]).shape == (4,) and made(torch.zeros(2, 3, 5)).shape == (2, 3, 4)
    assert made(torch.zeros(0, 5)).shape == (0, 4)


def test_hybrid_properties():
    made = hybrid()
    assert (made.input_size, made.output_size) == (5, 4)
    assert made.num_trainable_parameters_quantum == 6
    assert made.num_trainable_parameters_classical == 5 * 3 + 3 + 3 * 4 + 4
    assert made.num_trainable_parameters == sum(p.numel() for p in made.parameters())
    assert made.quantum_parameters_ == made.quantum_module.variational_
    assert (made.quantum_module.input_size, made.quantum_module.output_size) == (3, 3)


def test_hybrid_seed_covers_all_parts():
    before = torch.get_rng_state()
    first, second = hybrid(), hybrid()
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.pre_parameters_[0], hybrid(seed_init=1).pre_parameters_[0])


def test_hybrid_gradients_by_everything():
    made = hybrid().double()
    parameters = dict(made.named_parameters())

    def run(inputs, *values):
        return torch.func.functional_call(made, dict(zip(parameters, values, strict=True)), (inputs,))

    inputs = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (inputs, *parameters.values()))


def test_hybrid_learns():
    made, inputs = hybrid(), torch.randn(40, 5)
    targets = (inputs.sum(1) > 0).long()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(made(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_hybrid_refuses():
    with pytest.raises(ShapeError, match=r"shape \(2, 7\); expected \(\.\.\., 5\)"):
        hybrid()(torch.zeros(2, 7))
    with pytest.raises(TypeError, match="observables"):
        hybrid(observables=["ZZZ"])
    with pytest.raises(DtypeError, match="complex64"):
        hybrid()(torch.zeros(2, 5) * 1j)


# Bad input: the message names the thing and the way out

Y = Parameter("stranger")
BAD_PARAMETERS = {
    "unknown": (lambda: QuantumModule(circuit(), [*X, Y], [W, V]), r"not in the circuit: stranger; .*v\[0\]"),
    "missing": (lambda: QuantumModule(circuit(), X, W), r"neither in .*: v\[0\], v\[1\]; bind them or list them"),
    "in both lists": (lambda: QuantumModule(circuit(), X, [*W, *V, X[0]]), r"more than once: x\[0\]"),
    "in two sets": (lambda: QuantumModule(circuit(), X, [W, [*V, W[1]]]), r"more than once: w\[1\]"),
    "equal name": (lambda: QuantumModule(circuit(), ParameterVector("x", 2), [W, V]), r"not in the circuit: x\[0\]"),
    "not a list": (lambda: QuantumModule(circuit(), X[0], [W, V]), r"encoding_params must be a list.*x\[0\]"),
    "text": (lambda: QuantumModule(circuit(), X, "weights"), r"variational_params must be a list.*'weights'"),
    "an expression": (lambda: QuantumModule(circuit(), X, [2 * W[0], *V]), r"must be a list|not a circuit parameter"),
    "number of names": (lambda: two_sets(variational_params_names=["a"]), "must be 2 different names"),
    "equal names": (lambda: two_sets(variational_params_names=["a", "a"]), "must be 2 different names"),
    "no identifier": (lambda: module(variational_params_names="a b"), "'a b' cannot name"),
    "reserved": (lambda: module(variational_params_names="variational_"), "cannot name"),
    "taken": (lambda: module(variational_params_names="circuit"), "'circuit' is taken"),
    "taken by torch": (lambda: module(variational_params_names="training"), "'training' is taken"),
    "initialiser": (lambda: module(variational_params_initial="xavier"), "'xavier'.* constant, uniform, normal"),
    "argument": (lambda: module(variational_params_initial=("normal", {"sigma": 1})), "takes no sigma; .* mean, std"),
    "initialisers": (lambda: two_sets(variational_params_initial=["normal"] * 3), "3 initialisers for 2"),
    "number": (lambda: module(variational_params_initial=3.0), "cannot start from 3.0"),
    "width": (lambda: module(variational_params_initial=[1.0, 2.0]), r"\(2,\) initial values .*expected \(5,\)"),
    "not finite": (lambda: module(variational_params_initial=[np.nan] * 5), "'variational' must be finite"),
    "threads": (lambda: module(num_threads_forward=-1), "num_threads must be 0"),
    "threads backward": (lambda: module(num_threads_backward=1.5), "num_threads must be 0"),
    "gradient": (lambda: module(gradient="adjoint"), "unknown gradient 'adjoint'; use one of reverse"),
    "estimator": (
        lambda: module(estimator=StatevectorEstimator()),
        "StatevectorEstimator does not give; use gradient=.param-shift",
    ),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters(name):
    build, message = BAD_PARAMETERS[name]
    with pytest.raises(ParameterError, match=message):
        build()


BAD_OBSERVABLES = {
    "width": (["ZZZ"], "acts on 3 qubits and the circuit has 2"),
    "not Hermitian": ([SparsePauliOp(["ZZ", "XX"], [1, 1j])], "not Hermitian: term 'XX'"),
    "phase": ([Pauli("iZZ")], "not Hermitian"),
    "empty": ([], "empty"),
    "letters": (["ZQ"], "'ZQ' is no observable"),
    "type": ([3], "int is no observable"),
    "nan": ([SparsePauliOp(["ZZ"], [np.nan])], "NaN"),
}


@pytest.mark.parametrize("name", BAD_OBSERVABLES)
def test_bad_observables(name):
    observables, message = BAD_OBSERVABLES[name]
    with pytest.raises(ObservableError, match=message):
        module(observables=observables)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "2 encoding parameters: call the module with inputs"),
        (torch.zeros(4, 3), r"shape \(4, 3\); expected \(\.\.\., 2\)"),
        (torch.zeros(2, 1), r"shape \(2, 1\); expected"),
        (torch.zeros(()), r"shape \(\); expected"),
        (torch.zeros(0), r"shape \(0,\); expected"),
    ],
    ids=str,
)
def test_bad_shapes(inputs, message):
    with pytest.raises(ShapeError, match=message):
        module()(inputs)
    if inputs is not None:
        with pytest.raises(ShapeError, match=r"expected \(\.\.\., 0\)"):
            vqe()(torch.zeros(3, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_are_not_finite(bad, dtype):
    made, inputs = module().to(dtype), torch.zeros(20, 2, dtype=dtype)
    inputs[17, 1] = bad
    with pytest.raises(ParameterError, match=r"angle x\[1\] is -?(nan|inf) in sample 17: .*NaN or infinite"):
        made(inputs)
    with torch.no_grad():
        made.variational[2] = bad
    with pytest.raises(ParameterError, match=r"angle w\[2\] is -?(nan|inf) in sample 0"):
        made(torch.zeros(1, 2, dtype=dtype))


def test_an_expression_outside_its_domain():
    made = QuantumCircuit(1)
    made.ry(X[0].log(), 0)
    with pytest.raises(ParameterError, match=r"angle log\(x\[0\]\) is nan in sample 1.*not defined there"):
        QuantumModule(made, [X[0]], [])(torch.tensor([[1.0], [-1.0]]))


def test_complex_inputs():
    with pytest.raises(DtypeError, match="complex64; angles must be real"):
        module()(torch.ones(1, 2) * 1j)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(dtype):
    with pytest.raises(DtypeError, match=f"{dtype} is not supported; use float32 or float64"):
        module().to(dtype)(torch.zeros(1, 2))


def test_other_devices():
    with pytest.raises(DtypeError, match=r"inputs are on meta; .*\.cpu\(\)"):
        module()(torch.zeros(1, 2, device="meta"))
    with pytest.raises(DtypeError, match=r"weights are on meta; .*\.cpu\(\)"):
        module().to("meta")(torch.zeros(1, 2))


def test_no_circuit():
    with pytest.raises(CircuitError, match="str is no circuit; give a qiskit.QuantumCircuit"):
        QuantumModule("circuit", X, W)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: (c.measure(0, 0), c.x(0)), r"instruction 6 .*'measure'.*mid-circuit.*EstimatorV2"),
        (lambda c: (c.reset(1), c.x(1)), r"instruction 6 .*'reset'.*EstimatorV2"),
    ],
)
def test_what_only_a_sampling_estimator_runs(spoil, message):
    from qiskit import ClassicalRegister

    made = circuit()
    made.add_register(ClassicalRegister(2))
    spoil(made)
    with pytest.raises(CircuitError, match=message):
        QuantumModule(made, X, [W, V])


def test_more_qubits_than_memory():
    n = 45
    made, angles = QuantumCircuit(n), ParameterVector("t", n)
    for qubit in range(n):
        made.ry(angles[qubit], qubit)
    for qubit in range(n - 1):
        made.cx(qubit, qubit + 1)
    with pytest.raises(OutOfMemory, match=r"45 qubits need \d+\.\d+ GiB"):
        QuantumModule(made, None, angles, observables=["Z" + "I" * (n - 1)])()


def test_final_measurements_are_ignored():
    measured = circuit()
    measured.measure_all()
    inputs = torch.randn(3, 2)
    torch.testing.assert_close(QuantumModule(measured, X, [W, V], seed_init=0)(inputs), two_sets()(inputs))
