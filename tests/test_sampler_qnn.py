"""SamplerQNN: probabilities, interpretations, registers, layouts; against Statevector and qiskit-machine-learning."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from network_cases import Case, amplitude_case, differences, pass_manager, random_case
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import BackendSamplerV2, StatevectorSampler
from qiskit.providers.fake_provider import GenericBackendV2

from qtm._errors import CircuitError, MissingPackage, QtmError, ShapeError
from qtm.connectors import SamplerQNN
from qtm.primitives import FastSampler

WEIGHTS = [0.3, -1.1, 0.7, 2.0]
X = np.array([[0.2, 1.4], [-0.5, 0.9], [2.2, -1.3]])

Interpret = Callable[[int], Any]


def parity(outcome: int) -> int:
    return outcome.bit_count() % 2


def in_pairs(outcome: int) -> tuple[int, int]:
    return outcome % 2, outcome // 2


def as_array(outcome: int) -> np.ndarray:
    return np.array([parity(outcome), 2 * parity(outcome)])


# interpret, output_shape as given, output_shape as an attribute
INTERPRETS: list[tuple[Interpret | None, Any, tuple[int, ...]]] = [
    (None, None, (8,)),
    (parity, 2, (2,)),
    (parity, np.int64(3), (3,)),
    (in_pairs, (2, 4), (2, 4)),
    (as_array, (2, 3), (2, 3)),
    (lambda outcome: 7 - outcome, 8, (8,)),
]


def expected(case: Case, x: Any, w: Any, interpret: Interpret | None, shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros((len(x), *shape))
    for row, probabilities in zip(out, case.probabilities(x, w), strict=True):
        for outcome, p in enumerate(probabilities):
            key = outcome if interpret is None else interpret(outcome)
            row[tuple(np.atleast_1d(key))] += p
    return out


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("interpret", "given", "shape"), INTERPRETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_derivatives(seed: int, interpret: Interpret | None, given: Any, shape: tuple[int, ...]) -> None:
    """Inputs too where the output has several axes: qiskit-machine-learning's connector raises there."""
    case = random_case(seed)
    qnn = SamplerQNN(**case.arguments(), interpret=interpret, output_shape=given, input_gradients=True)
    assert qnn.output_shape == shape
    values = qnn.forward(X, WEIGHTS)
    assert values.dtype == np.float64
    assert values == pytest.approx(expected(case, X, WEIGHTS, interpret, shape), abs=1e-10)
    by_x, by_w = qnn.backward(X, WEIGHTS)
    at_x = differences(lambda v: expected(case, [v], WEIGHTS, interpret, shape)[0], X[0])
    at_w = differences(lambda v: expected(case, X[:1], v, interpret, shape)[0], np.array(WEIGHTS))
    assert by_x.shape == (3, *shape, 2) and by_w.shape == (3, *shape, 4)
    assert by_x[0] == pytest.approx(at_x, abs=1e-8)
    assert by_w[0] == pytest.approx(at_w, abs=1e-8)


@pytest.mark.parametrize(("interpret", "given", "shape"), INTERPRETS[:5])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.slow
def test_agrees_with_qiskit_machine_learning(
    measured: bool, interpret: Interpret | None, given: Any, shape: tuple[int, ...]
) -> None:
    theirs = pytest.importorskip("qiskit_machine_learning.neural_networks")
    case = random_case(20)
    if measured:
        case.circuit.measure_all()
    arguments = {**case.arguments(), "interpret": interpret, "output_shape": given, "input_gradients": True}
    ours, peer = SamplerQNN(**arguments), theirs.SamplerQNN(**arguments)
    assert ours.output_shape == peer.output_shape == shape
    assert ours.forward(X, WEIGHTS) == pytest.approx(peer.forward(X, WEIGHTS), abs=1e-10)
    for found, other in zip(ours.backward(X, WEIGHTS), peer.backward(X, WEIGHTS), strict=True):
        assert found == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 3, 2), (0, 2), (3, 0, 2)])
@pytest.mark.parametrize("input_gradients", [False, True])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.thinned(5)
def test_shapes(shape: tuple[int, ...], input_gradients: bool, exact: bool) -> None:
    qnn = SamplerQNN(
        **random_case(1).arguments(),
        sampler=None if exact else StatevectorSampler(default_shots=10),
        interpret=in_pairs,
        output_shape=(2, 4),
        input_gradients=input_gradients,
    )
    lead = shape[:-1] or (1,)
    assert qnn.forward(np.ones(shape), WEIGHTS).shape == (*lead, 2, 4)
    by_x, by_w = qnn.backward(np.ones(shape), WEIGHTS)
    assert by_w.shape == (*lead, 2, 4, 4)
    assert by_x.shape == (*lead, 2, 4, 2) if input_gradients else by_x is None


@pytest.mark.thinned(2)
@pytest.mark.parametrize("exact", [True, False])
def test_no_inputs_no_weights_or_neither(exact: bool) -> None:
    case = random_case(3)
    sampler = None if exact else FastSampler(default_shots=20_000, seed=1)
    parameters, values = [*case.inputs, *case.weights], [*X[0], *WEIGHTS]
    bound = case.circuit.assign_parameters(dict(zip(parameters, values, strict=True)))
    want = pytest.approx(case.probabilities(X[:1], WEIGHTS), abs=1e-10 if exact else 0.02)
    for circuit, inputs, weights in (
        (case.circuit, None, parameters),
        (case.circuit, parameters, None),
        (bound, None, None),
    ):
        qnn = SamplerQNN(
            circuit=circuit, input_params=inputs, weight_params=weights, sampler=sampler, input_gradients=True
        )
        data, fixed = values if inputs else None, values if weights else None
        assert qnn.forward(data, fixed) == want
        by_x, by_w = qnn.backward(data, fixed)
        assert (by_x is not None, by_w is not None) == (bool(inputs), bool(weights))


def test_attributes_and_setters(caplog: pytest.LogCaptureFixture) -> None:
    case = random_case(6)
    qnn = SamplerQNN(**case.arguments())
    assert qnn.circuit == case.circuit and qnn.num_virtual_qubits == 3
    assert (qnn.num_inputs, qnn.num_weights, qnn.output_shape, qnn.sparse) == (2, 4, (8,), False)
    assert isinstance(qnn.sampler, FastSampler) and qnn.interpret(5) == 5
    qnn.set_interpret(parity, 2)
    assert qnn.interpret is parity and qnn.output_shape == (2,)
    assert qnn.forward(X, WEIGHTS) == pytest.approx(expected(case, X, WEIGHTS, parity, (2,)), abs=1e-12)
    with caplog.at_level(logging.WARNING, "qtm"):
        qnn.set_interpret(None, 5)
    assert "no effect" in caplog.text and qnn.output_shape == (8,)


def test_it_is_a_network_of_qiskit_machine_learning() -> None:
    theirs = pytest.importorskip("qiskit_machine_learning.neural_networks")
    qnn = SamplerQNN(**random_case(1).arguments())
    assert isinstance(qnn, theirs.NeuralNetwork) and isinstance(qnn, theirs.SamplerQNN)


# ---------------------------------------------------------------- registers and layouts


def measured(case: Case, *registers: tuple[str, list[int]]) -> Case:
    """The case with a register for each name, into whose bits the qubits listed are measured."""
    circuit = case.circuit.copy()
    for name, qubits in registers:
        register = ClassicalRegister(len(qubits), name)
        circuit.add_register(register)
        circuit.measure(qubits, register)
    return Case(circuit, case.inputs, case.weights)


# registers, and for each bit of the outcome the qubit that it shows
REGISTERS: list[tuple[list[tuple[str, list[int]]], list[int]]] = [
    ([("meas", [0, 1, 2])], [0, 1, 2]),
    ([("c", [0, 1, 2])], [0, 1, 2]),
    ([("c", [2, 0, 1])], [2, 0, 1]),
    ([("a", [1]), ("b", [2, 0])], [1, 2, 0]),
    ([("only", [2])], [2]),
]


def shown(case: Case, bits: list[int]) -> np.ndarray:
    out = np.zeros((len(X), 8))
    for outcome in range(8):
        out[:, sum((outcome >> q & 1) << j for j, q in enumerate(bits))] += case.probabilities(X, WEIGHTS)[:, outcome]
    return out


@pytest.mark.parametrize(("registers", "bits"), REGISTERS)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("transpiled", [None, (3, (2, 0, 1)), (5, (4, 2, 3))])
@pytest.mark.parametrize("by", ["user", "network"])
@pytest.mark.thinned(29)
def test_registers_and_layouts(registers: Any, bits: list[int], exact: bool, transpiled: Any, by: str) -> None:
    """The batch averaged (a register not called meas), wrong bits (measured, then transpiled): not here."""
    case = random_case(12)
    used = measured(case, *registers)
    passes = None if transpiled is None else pass_manager(*transpiled)
    if passes is None and by == "network":
        return
    arguments = used.arguments()
    if passes is not None and by == "user":
        arguments["circuit"], passes = passes.run(used.circuit), None
    sampler = None if exact else StatevectorSampler(default_shots=20_000, seed=5)
    qnn = SamplerQNN(**arguments, sampler=sampler, pass_manager=passes)
    want = shown(case, bits)
    assert qnn.output_shape == (8,)
    assert qnn.forward(X, WEIGHTS) == pytest.approx(want, abs=1e-10 if exact else 0.02)
    if exact:
        slope = differences(lambda w: qnn.forward(X, w), np.array(WEIGHTS))
        assert qnn.backward(X, WEIGHTS)[1] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("when", ["never", "after"])
def test_unmeasured_before_transpiling(exact: bool, when: str) -> None:
    """Outcomes are those of the user's qubits, wherever they are, and not of idle ones."""
    case = random_case(13)
    isa = pass_manager(5, (4, 2, 3)).run(case.circuit)
    if when == "after":
        isa.measure_all()
    sampler = None if exact else StatevectorSampler(default_shots=20_000, seed=5)
    qnn = SamplerQNN(**Case(isa, case.inputs, case.weights).arguments(), sampler=sampler)
    assert qnn.num_virtual_qubits == 3 and qnn.output_shape == (8,)
    want = case.probabilities(X, WEIGHTS)
    assert qnn.forward(X, WEIGHTS) == pytest.approx(want, abs=1e-10 if exact else 0.02)


@pytest.mark.parametrize("registers", [True, False])
def test_loose_bits(registers: bool) -> None:
    """Circuits of several registers, or of bits in none."""
    case = random_case(2)
    circuit = QuantumCircuit(QuantumRegister(1, "u"), QuantumRegister(2, "v"))
    if not registers:
        circuit = QuantumCircuit(list(QuantumCircuit(3).qubits))
    circuit.compose(case.circuit, circuit.qubits, inplace=True)
    for sampler in (None, StatevectorSampler(default_shots=20_000, seed=5)):
        qnn = SamplerQNN(circuit=circuit, input_params=case.inputs, weight_params=case.weights, sampler=sampler)
        assert qnn.forward(X, WEIGHTS) == pytest.approx(case.probabilities(X, WEIGHTS), abs=0.02)


# ---------------------------------------------------------------- samplers and gradients


@pytest.mark.slow
def test_shots_in_forward_and_backward() -> None:
    case = random_case(14)
    sampler = FastSampler(default_shots=50_000, seed=3)
    arguments = {**case.arguments(), "interpret": parity, "output_shape": 2, "input_gradients": True}
    noisy, exact = SamplerQNN(**arguments, sampler=sampler), SamplerQNN(**arguments)
    assert exact.is_exact and not noisy.is_exact
    values = noisy.forward(X, WEIGHTS)
    assert values == pytest.approx(exact.forward(X, WEIGHTS), abs=0.01)
    assert (values * 50_000).round(6) % 1 == pytest.approx(0)  # frequencies of shots
    for found, other in zip(noisy.backward(X, WEIGHTS), exact.backward(X, WEIGHTS), strict=True):
        assert found == pytest.approx(other, abs=0.06) and (found != other).any()


@pytest.mark.slow
def test_a_device() -> None:
    case = random_case(15)
    backend = GenericBackendV2(5, seed=5, noise_info=False)
    sampler = BackendSamplerV2(backend=backend, options={"default_shots": 20_000, "seed_simulator": 3})
    qnn = SamplerQNN(**case.arguments(), sampler=sampler, pass_manager=pass_manager(5, (1, 3, 2)))
    assert qnn.forward(X[:2], WEIGHTS) == pytest.approx(case.probabilities(X[:2], WEIGHTS), abs=0.02)
    exact = SamplerQNN(**case.arguments())
    assert qnn.backward(X[:1], WEIGHTS)[1] == pytest.approx(exact.backward(X[:1], WEIGHTS)[1], abs=0.06)


@pytest.mark.parametrize("input_gradients", [True, False])
@pytest.mark.parametrize("interpret", [None, parity])
def test_a_given_gradient(interpret: Interpret | None, input_gradients: bool) -> None:
    """Used where the sampler is not exact; where it is, only if the gradient is an estimate."""
    gradients = pytest.importorskip("qiskit_machine_learning.gradients")
    ideal = pytest.importorskip("qiskit_machine_learning.primitives").QMLSampler()
    features, ansatz = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    arguments = {
        **Case(features.compose(ansatz), list(features.parameters), list(ansatz.parameters)).arguments(),
        "interpret": interpret,
        "output_shape": None if interpret is None else 2,
        "input_gradients": input_gradients,
    }
    exact = SamplerQNN(**arguments).backward(X, WEIGHTS)
    shots = StatevectorSampler(default_shots=10, seed=1)
    shift, spsa = gradients.ParamShiftSamplerGradient(ideal), gradients.SPSASamplerGradient(ideal, 0.1)
    for sampler, gradient, same in ((shots, shift, True), (None, shift, True), (None, spsa, False)):
        found = SamplerQNN(**arguments, sampler=sampler, gradient=gradient).backward(X, WEIGHTS)
        for mine, other in zip(found, exact, strict=True):
            assert (mine is None) == (other is None)
            if mine is not None:
                assert mine.shape == other.shape and bool(abs(mine - other).max() < 1e-9) == same


def test_amplitude_encoding() -> None:
    case, state_of = amplitude_case()
    qnn = SamplerQNN(**case.arguments(), input_gradients=True)

    def want(x: np.ndarray, w: Any) -> np.ndarray:
        return state_of(x, w).probabilities()

    x = np.array([0.5, -1.0, 2.0, 0.25])
    by_x, by_w = qnn.backward(x, WEIGHTS)
    assert qnn.forward(x, WEIGHTS)[0] == pytest.approx(want(x, WEIGHTS), abs=1e-12)
    assert by_x[0] == pytest.approx(differences(lambda v: want(v, WEIGHTS), x), abs=1e-8)
    assert by_w[0] == pytest.approx(differences(lambda v: want(x, v), np.array(WEIGHTS)), abs=1e-8)


# ---------------------------------------------------------------- sparse arrays, copies, refusals


@pytest.mark.parametrize(("interpret", "given", "shape"), INTERPRETS[:5])
def test_sparse_arrays(interpret: Interpret | None, given: Any, shape: tuple[int, ...]) -> None:
    sparse = pytest.importorskip("sparse")
    arguments = {
        **random_case(1).arguments(),
        "interpret": interpret,
        "output_shape": given,
        "input_gradients": True,
    }
    qnn, dense = SamplerQNN(**arguments, sparse=True), SamplerQNN(**arguments)
    assert qnn.sparse and qnn.output_shape == shape
    found = [qnn.forward(X, WEIGHTS), *qnn.backward(X, WEIGHTS)]
    for mine, other in zip(found, [dense.forward(X, WEIGHTS), *dense.backward(X, WEIGHTS)], strict=True):
        assert isinstance(mine, sparse.SparseArray) and mine.shape == other.shape
        assert mine.todense() == pytest.approx(other, abs=1e-12)


def test_sparse_arrays_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sparse", None)
    with pytest.raises(MissingPackage, match="sparse"):
        SamplerQNN(**random_case(1).arguments(), sparse=True).forward(X, WEIGHTS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda qnn: pickle.loads(pickle.dumps(qnn))])
def test_copies(copied: Any) -> None:
    qnn = SamplerQNN(**random_case(1).arguments(), interpret=parity, output_shape=2)
    values = qnn.forward(X, WEIGHTS)
    assert (copied(qnn).forward(X, WEIGHTS) == values).all()


def test_outcomes_that_never_happen_may_be_outside() -> None:
    """Qubit 1 stays 0: what interpret says of outcomes where it is 1 does not matter; where it does, it is named."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.ry(0.0, 1)
    interpret = lambda outcome: outcome * 10 if outcome > 1 else outcome  # noqa: E731
    assert SamplerQNN(circuit=circuit, interpret=interpret, output_shape=2).forward(None, None) == pytest.approx(0.5)
    circuit.x(1)
    for sampler in (None, StatevectorSampler(default_shots=10, seed=1)):
        qnn = SamplerQNN(circuit=circuit, interpret=interpret, output_shape=2, sampler=sampler)
        with pytest.raises(ShapeError, match=r"outcome [23] is interpreted as [23]0"):
            qnn.forward(None, None)


def _refused() -> dict[str, tuple[type[Exception], str, Any]]:
    case = random_case(1)
    bits = QuantumCircuit(1, 1)
    make = lambda **change: SamplerQNN(**{**case.arguments(), **change})  # noqa: E731
    return {
        "no output_shape": (ShapeError, "requires output_shape", lambda: make(interpret=parity)),
        "empty output": (ShapeError, "at least 1", lambda: make(interpret=parity, output_shape=(2, 0))),
        "negative output": (ShapeError, "at least 1", lambda: make(interpret=parity, output_shape=-2)),
        "indices": (
            ShapeError, "needs 2 indices",
            lambda: make(interpret=parity, output_shape=(2, 2)).forward(X, WEIGHTS),
        ),
        "bits without measurement": (CircuitError, "measures nothing", lambda: SamplerQNN(circuit=bits)),
        "width of the input": (ShapeError, r"shape \(3,\)", lambda: make().forward([1, 2, 3], WEIGHTS)),
    }  # fmt: skip


@pytest.mark.parametrize("what", _refused())
def test_refusals(what: str) -> None:
    error, text, act = _refused()[what]
    with pytest.raises(error, match=text) as caught:
        act()
    assert isinstance(caught.value, QtmError)
