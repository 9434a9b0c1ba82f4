"""HybridModule, and bad input to either module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparsePauliOp
from test_modules import V, W, X, circuit, module, two_sets, vqe

from qtm import HybridModule, QuantumModule
from qtm._errors import (
    CircuitError,
    DtypeError,
    ObservableError,
    OutOfMemory,
    ParameterError,
    ShapeError,
)

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
    with pytest.raises(ParameterError, match="observables"):
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
    "not a list": (lambda: QuantumModule(circuit(), X[0], [W, V]), r"list.*ParameterVectorElement; give"),
    "text": (lambda: QuantumModule(circuit(), X, "weights"), r"variational_params must be a list.*'weights'"),
    "an expression": (lambda: QuantumModule(circuit(), X, [2 * W[0], *V]), r"must be a list|not a circuit parameter"),
    "number of names": (lambda: two_sets(variational_params_names=["a"]), "must be 2 different names"),
    "equal names": (lambda: two_sets(variational_params_names=["a", "a"]), "must be 2 different names"),
    "no identifier": (lambda: module(variational_params_names="a b"), "'a b' cannot name"),
    "reserved": (lambda: module(variational_params_names="variational_"), "cannot name"),
    "taken": (lambda: module(variational_params_names="circuit"), "'circuit' clashes"),
    "taken by torch": (lambda: module(variational_params_names="training"), "'training' clashes"),
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
        "StatevectorEstimator does not expose; use gradient=.param-shift",
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
    "letters": (["ZQ"], "'ZQ' is not an observable"),
    "type": ([3], "int is not an observable"),
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
    with pytest.raises(CircuitError, match="circuit must be a QuantumCircuit, not .*; give a qiskit.QuantumCircuit"):
        QuantumModule("circuit", X, W)


def test_a_while_loop_is_refused():
    from qiskit import ClassicalRegister

    made = circuit()
    made.add_register(ClassicalRegister(2))
    made.measure(0, 0)
    with made.while_loop((made.clbits[0], 1)):
        made.x(0)
    with pytest.raises(CircuitError, match="'while_loop' is not simulated"):
        QuantumModule(made, X, [W, V])


def test_more_qubits_than_memory():
    n = 45
    made, angles = QuantumCircuit(n), ParameterVector("t", n)
    for qubit in range(n):
        made.ry(angles[qubit], qubit)
    for qubit in range(n - 1):
        made.cx(qubit, qubit + 1)
    with pytest.raises(OutOfMemory, match=r"45 qubits need \d+\.\d+ GiB"):
        QuantumModule(made, None, angles, observables=["Z" + "I" * (n - 1)], method="statevector")()
    # One qubit of a chain that turns once is little entangled: left to choose, another method does it.
    found = QuantumModule(made, None, angles, observables=["Z" + "I" * (n - 1)])
    assert found.plan().method == "matrix_product_state" and torch.isfinite(found())


def test_final_measurements_are_ignored():
    measured = circuit()
    measured.measure_all()
    inputs = torch.randn(3, 2)
    torch.testing.assert_close(QuantumModule(measured, X, [W, V], seed_init=0)(inputs), two_sets()(inputs))
