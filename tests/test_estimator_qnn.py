"""EstimatorQNN: values, derivatives, shapes, layouts; against Statevector and qiskit-machine-learning."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from network_cases import Case, amplitude_case, differences, pass_manager, random_case
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp

from qtm import QuantumModule, local_pauli_noise, noisy_estimator
from qtm._errors import JobError, ObservableError, ParameterError, QtmError, ShapeError
from qtm.connectors import EstimatorQNN
from qtm.gradients import FastReverseEstimatorGradient
from qtm.primitives import FastEstimator

WEIGHTS = [0.3, -1.1, 0.7, 2.0]
X = np.array([[0.2, 1.4], [-0.5, 0.9], [2.2, -1.3]])


def peer() -> Any:
    return pytest.importorskip("qiskit_machine_learning.neural_networks")


@pytest.mark.thinned(3)
@pytest.mark.parametrize("seed", range(6))
def test_values_and_derivatives_of_random_circuits(seed: int) -> None:
    case = random_case(seed)
    operators = ["ZIZ", "XYI", "IIY"]
    qnn = EstimatorQNN(**case.arguments(), observables=operators, input_gradients=True)
    assert qnn.forward(X, WEIGHTS) == pytest.approx(case.expectations(X, WEIGHTS, operators), abs=1e-10)
    by_x, by_w = qnn.backward(X, WEIGHTS)
    for sample, (row, found_x, found_w) in enumerate(zip(X, by_x, by_w, strict=True)):
        at_x = differences(lambda v: case.expectations([v], WEIGHTS, operators)[0], row)
        at_w = differences(lambda v, row=row: case.expectations([row], v, operators)[0], np.array(WEIGHTS))
        assert found_x == pytest.approx(at_x, abs=1e-8), sample
        assert found_w == pytest.approx(at_w, abs=1e-8), sample


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_agrees_with_qiskit_machine_learning(seed: int) -> None:
    case = random_case(seed + 50)
    operators = [SparsePauliOp(["ZZI", "IXI"], [0.5, -2]), SparsePauliOp("YIZ")]
    arguments = {**case.arguments(), "observables": operators, "input_gradients": True}
    ours, theirs = EstimatorQNN(**arguments), peer().EstimatorQNN(**arguments)
    assert ours.forward(X, WEIGHTS) == pytest.approx(theirs.forward(X, WEIGHTS), abs=1e-10)
    mine = ours.backward(X, WEIGHTS)
    # Their parameter shift refuses nothing here, but needs its own gates: compared where it is exact.
    for found, expected in zip(mine, theirs.backward(X, WEIGHTS), strict=True):
        assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 3, 2), (2, 1, 3, 2), (0, 2), (3, 0, 2)])
@pytest.mark.parametrize("input_gradients", [False, True])
def test_shapes_and_dtype(shape: tuple[int, ...], input_gradients: bool) -> None:
    case = random_case(1)
    qnn = EstimatorQNN(**case.arguments(), observables=["ZZZ", "XII"], input_gradients=input_gradients)
    lead = shape[:-1] or (1,)
    values = qnn.forward(np.ones(shape), WEIGHTS)
    assert values.shape == (*lead, 2) and values.dtype == np.float64
    by_x, by_w = qnn.backward(np.ones(shape), WEIGHTS)
    assert by_w.shape == (*lead, 2, 4) and by_w.dtype == np.float64
    assert by_x.shape == (*lead, 2, 2) if input_gradients else by_x is None


@pytest.mark.parametrize("data", [0.7, [0.7], [[0.7]], [[[0.7], [0.7]]]])
def test_a_single_number_is_a_batch_of_one(data: Any) -> None:
    x, w = Parameter("x"), Parameter("w")
    circuit = QuantumCircuit(1)
    circuit.rx(x, 0)
    circuit.ry(w, 0)
    qnn = EstimatorQNN(circuit=circuit, input_params=[x], weight_params=[w])
    expected = np.full((*np.shape(data)[:-1], 1) if np.ndim(data) > 1 else (1, 1), np.cos(0.7) * np.cos(0.2))
    assert qnn.forward(data, 0.2) == pytest.approx(expected)


def _roles(with_inputs: bool, with_weights: bool) -> Case:
    case = random_case(3)
    values = dict(zip(case.inputs, X[0], strict=True)) if not with_inputs else {}
    values |= dict(zip(case.weights, WEIGHTS, strict=True)) if not with_weights else {}
    return Case(
        case.circuit.assign_parameters(values),
        case.inputs if with_inputs else [],
        case.weights if with_weights else [],
    )


@pytest.mark.parametrize(("with_inputs", "with_weights"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize("input_gradients", [False, True])
def test_no_inputs_or_no_weights(with_inputs: bool, with_weights: bool, input_gradients: bool) -> None:
    case = _roles(with_inputs, with_weights)
    data, weights = (X[0] if with_inputs else None), (WEIGHTS if with_weights else None)
    qnn = EstimatorQNN(**case.arguments(), observables="ZZZ", input_gradients=input_gradients)
    expected = random_case(3).expectations(X[:1], WEIGHTS, ["ZZZ"])
    assert qnn.forward(data, weights) == pytest.approx(expected, abs=1e-12)
    by_x, by_w = qnn.backward(data, weights)
    assert (by_x is None) == (not with_inputs or not input_gradients)
    assert (by_w is None) == (not with_weights)


def test_parameters_are_bound_in_the_order_given() -> None:
    case = random_case(4)
    order = [2, 0, 3, 1]
    weights = [case.weights[k] for k in order]
    ours = EstimatorQNN(circuit=case.circuit, input_params=case.inputs[::-1], weight_params=weights)
    moved = ours.forward(X[:, ::-1], np.array(WEIGHTS)[order])
    assert moved == pytest.approx(case.expectations(X, WEIGHTS, ["ZZZ"]), abs=1e-12)


@pytest.mark.parametrize(
    "observable", ["XZI", Pauli("XZI"), SparsePauliOp("XZI"), SparseObservable("XZI"), {"XZI": 1.0}]
)
@pytest.mark.parametrize("in_list", [False, True])
def test_observables_in_every_form(observable: Any, in_list: bool) -> None:
    case = random_case(5)
    given = [observable] if in_list else observable
    qnn = EstimatorQNN(**case.arguments(), observables=given)
    assert qnn.output_shape == (1,)
    assert qnn.observables == ([observable] if in_list else (observable,))
    assert qnn.forward(X, WEIGHTS) == pytest.approx(case.expectations(X, WEIGHTS, ["XZI"]), abs=1e-12)


def test_attributes_and_setters() -> None:
    case = random_case(6)
    qnn = EstimatorQNN(**case.arguments())
    assert qnn.circuit == case.circuit and qnn.num_virtual_qubits == 3
    assert qnn.input_params == case.inputs and qnn.weight_params == case.weights
    assert (qnn.num_inputs, qnn.num_weights, qnn.output_shape, qnn.sparse) == (2, 4, (1,), False)
    assert qnn.observables == (SparsePauliOp("ZZZ"),)
    assert qnn.default_precision == 0.015625 and isinstance(qnn.estimator, FastEstimator)
    assert not qnn.input_gradients and qnn.backward(X, WEIGHTS)[0] is None
    qnn.input_gradients = True
    assert qnn.input_gradients and qnn.backward(X, WEIGHTS)[0].shape == (3, 1, 2)
    qnn.input_params.clear()
    assert qnn.num_inputs == 2


def test_it_is_a_network_of_qiskit_machine_learning() -> None:
    theirs = peer()
    qnn = EstimatorQNN(**random_case(1).arguments())
    assert isinstance(qnn, theirs.NeuralNetwork) and isinstance(qnn, theirs.EstimatorQNN)
    assert not isinstance(qnn, theirs.SamplerQNN)


# ---------------------------------------------------------------- layouts

LAYOUTS = [(3, (2, 0, 1)), (5, (4, 2, 3)), (5, (0, 1, 2))]


@pytest.mark.parametrize(("width", "layout"), LAYOUTS)
@pytest.mark.parametrize("observables", [None, ["XIZ", "IYI"]])
def test_pass_manager_moves_observables_along(width: int, layout: tuple[int, ...], observables: Any) -> None:
    """With default observables theirs gives other numbers here, and with own ones an error."""
    case = random_case(7)
    qnn = EstimatorQNN(
        **case.arguments(), observables=observables, pass_manager=pass_manager(width, layout), input_gradients=True
    )
    assert qnn.circuit.num_qubits == width and qnn.num_virtual_qubits == 3
    plain = EstimatorQNN(**case.arguments(), observables=observables, input_gradients=True)
    expected = case.expectations(X, WEIGHTS, observables or ["ZZZ"])
    assert qnn.forward(X, WEIGHTS) == pytest.approx(expected, abs=1e-10)
    for found, without in zip(qnn.backward(X, WEIGHTS), plain.backward(X, WEIGHTS), strict=True):
        assert found == pytest.approx(without, abs=1e-9)


@pytest.mark.parametrize(("width", "layout"), LAYOUTS)
@pytest.mark.parametrize("kind", ["default", "virtual", "physical"])
def test_isa_circuits(width: int, layout: tuple[int, ...], kind: str) -> None:
    case = random_case(8)
    isa = pass_manager(width, layout).run(case.circuit)
    operators = [SparsePauliOp("XIZ"), SparsePauliOp("IYI")]
    given = {
        "default": None,
        "virtual": operators,
        "physical": [o.apply_layout(isa.layout) for o in operators],
    }[kind]
    if kind == "virtual" and width == 3:  # as wide as the device: taken as placed, as in qiskit-machine-learning
        given = [o.apply_layout(isa.layout) for o in operators]
    qnn = EstimatorQNN(**Case(isa, case.inputs, case.weights).arguments(), observables=given)
    expected = case.expectations(X, WEIGHTS, ["ZZZ"] if given is None else ["XIZ", "IYI"])
    assert qnn.forward(X, WEIGHTS) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("observables", [None, ["XIZ", "IYI"]])
@pytest.mark.slow
def test_noisy_precision_on_an_isa_circuit(observables: Any) -> None:
    """The same placement on the way through an estimator: an estimator asked for little noise."""
    case = random_case(7)
    qnn = EstimatorQNN(
        **case.arguments(),
        estimator=StatevectorEstimator(seed=1),
        default_precision=1e-6,
        observables=observables,
        pass_manager=pass_manager(5, (4, 2, 3)),
        input_gradients=True,
    )
    assert not qnn.is_exact
    exact = EstimatorQNN(**case.arguments(), observables=observables, input_gradients=True)
    values = qnn.forward(X, WEIGHTS)
    assert values == pytest.approx(exact.forward(X, WEIGHTS), abs=1e-5)
    assert (values != exact.forward(X, WEIGHTS)).all()
    for found, expected in zip(qnn.backward(X, WEIGHTS), exact.backward(X, WEIGHTS), strict=True):
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_wide_device_costs_only_the_qubits_in_use() -> None:
    case = random_case(2)
    line = [[i, i + 1] for i in range(79)] + [[i + 1, i] for i in range(79)]
    isa = transpile(
        case.circuit, coupling_map=line, initial_layout=[10, 11, 12], basis_gates=["rz", "sx", "cz"], seed_transpiler=1
    )
    assert isa.num_qubits == 80
    operators = [SparsePauliOp("XIZ").apply_layout(isa.layout)]
    for observables, labels in ((None, ["ZZZ"]), (operators, ["XIZ"])):
        qnn = EstimatorQNN(**Case(isa, case.inputs, case.weights).arguments(), observables=observables)
        assert qnn.forward(X, WEIGHTS) == pytest.approx(case.expectations(X, WEIGHTS, labels), abs=1e-9)


# ---------------------------------------------------------------- estimators and gradients


class Recording(StatevectorEstimator):
    """Remembers what precision it was asked for."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.precisions: list[float | None] = []

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        self.precisions.append(precision)
        return super().run(pubs, precision=precision)


def test_backward_asks_for_the_precision_of_forward() -> None:
    """In qiskit-machine-learning the gradient takes whatever its estimator does by default."""
    estimator = Recording()
    qnn = EstimatorQNN(**random_case(1).arguments(), estimator=estimator, default_precision=0.05)
    qnn.forward(X, WEIGHTS)
    qnn.backward(X, WEIGHTS)
    assert estimator.precisions == [0.05, 0.05]


@pytest.mark.slow
def test_a_device_follows_the_shift_rule() -> None:
    case = random_case(9)
    backend = GenericBackendV2(3, seed=5, noise_info=False)
    estimator = BackendEstimatorV2(backend=backend, options={"seed_simulator": 4})
    passes = pass_manager(3, (1, 0, 2))
    qnn = EstimatorQNN(
        **case.arguments(), estimator=estimator, default_precision=0.01, pass_manager=passes, input_gradients=True
    )
    exact = EstimatorQNN(**case.arguments(), input_gradients=True)
    assert not qnn.is_exact
    assert qnn.forward(X[:1], WEIGHTS) == pytest.approx(exact.forward(X[:1], WEIGHTS), abs=0.06)
    for found, expected in zip(qnn.backward(X[:1], WEIGHTS), exact.backward(X[:1], WEIGHTS), strict=True):
        assert found == pytest.approx(expected, abs=0.3)
        assert (found != expected).any()


def _gradients() -> dict[str, Any]:
    from qiskit_algorithms.gradients import FiniteDiffEstimatorGradient, ParamShiftEstimatorGradient

    return {
        "reverse": FastReverseEstimatorGradient(),
        "shift": ParamShiftEstimatorGradient(StatevectorEstimator()),
        "differences": FiniteDiffEstimatorGradient(StatevectorEstimator(), epsilon=1e-4),
    }


@pytest.mark.parametrize("name", ["reverse", "shift", "differences"])
@pytest.mark.parametrize("input_gradients", [False, True])
def test_a_given_gradient_is_used(name: str, input_gradients: bool) -> None:
    """On an estimator that is not exact, every gradient; on an exact one, all but the exact gradients."""
    features, ansatz = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    case = Case(features.compose(ansatz), list(features.parameters), list(ansatz.parameters))
    gradient = _gradients()[name]
    calls = []
    run = gradient.run
    gradient.run = lambda *args, **kwargs: calls.append(1) or run(*args, **kwargs)
    exact = EstimatorQNN(**case.arguments(), observables=["ZX", "YI"], input_gradients=input_gradients)
    for estimator, expect_call in ((StatevectorEstimator(default_precision=0.5), True), (None, name == "differences")):
        calls.clear()
        qnn = EstimatorQNN(
            **case.arguments(),
            estimator=estimator,
            observables=["ZX", "YI"],
            gradient=gradient,
            input_gradients=input_gradients,
        )
        for found, expected in zip(qnn.backward(X, WEIGHTS), exact.backward(X, WEIGHTS), strict=True):
            assert (found is None) == (expected is None)
            assert found is None or found == pytest.approx(expected, abs=1e-4)
        assert bool(calls) is expect_call


def test_an_estimated_gradient_stays_one() -> None:
    """A gradient that is only an estimate is not replaced by the exact one."""
    from qiskit_algorithms.gradients import SPSAEstimatorGradient

    case = random_case(2)
    spsa = SPSAEstimatorGradient(StatevectorEstimator(), epsilon=0.1, seed=1)
    noisy = EstimatorQNN(**case.arguments(), gradient=spsa).backward(X, WEIGHTS)[1]
    exact = EstimatorQNN(**case.arguments()).backward(X, WEIGHTS)[1]
    assert noisy.shape == exact.shape and abs(noisy - exact).max() > 1e-3


# ---------------------------------------------------------------- amplitude encoding


def test_amplitude_encoding() -> None:
    """Features as amplitudes: qiskit-machine-learning cannot differentiate these (its issue 880)."""
    case, state_of = amplitude_case()
    qnn = EstimatorQNN(**case.arguments(), observables=["ZZ", "XI"], input_gradients=True)

    def expected(x: np.ndarray, w: Any) -> np.ndarray:
        state = state_of(x, w)
        return np.array([state.expectation_value(SparsePauliOp(o)).real for o in ("ZZ", "XI")])

    x = np.array([0.5, -1.0, 2.0, 0.25])
    assert qnn.forward(x, WEIGHTS)[0] == pytest.approx(expected(x, WEIGHTS), abs=1e-12)
    by_x, by_w = qnn.backward(x, WEIGHTS)
    assert by_x[0] == pytest.approx(differences(lambda v: expected(v, WEIGHTS), x), abs=1e-8)
    assert by_w[0] == pytest.approx(differences(lambda v: expected(x, v), np.array(WEIGHTS)), abs=1e-8)


# ---------------------------------------------------------------- copies and refusals


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda qnn: pickle.loads(pickle.dumps(qnn))])
def test_copies(copied: Any) -> None:
    qnn = EstimatorQNN(**random_case(1).arguments(), observables="XZY")
    values = qnn.forward(X, WEIGHTS)
    assert (copied(qnn).forward(X, WEIGHTS) == values).all()


def _refused() -> dict[str, tuple[type[Exception], str, Any]]:
    case = random_case(1)
    make = lambda **change: EstimatorQNN(**{**case.arguments(), **change})  # noqa: E731
    return {
        "width of the input": (ShapeError, r"shape \(3,\)", lambda: make().forward([1, 2, 3], WEIGHTS)),
        "no input": (ShapeError, "None", lambda: make().forward(None, WEIGHTS)),
        "number of weights": (ShapeError, "3 weights", lambda: make().forward(X, WEIGHTS[:3])),
        "no weights": (ShapeError, "0 weights", lambda: make().backward(X, None)),
        "nan": (ParameterError, "nan", lambda: make().forward(X * np.nan, WEIGHTS)),
        "missing": (ParameterError, "neither", lambda: make(weight_params=case.weights[:-1])),
        "twice": (ParameterError, "more than once", lambda: make(input_params=case.weights[:2])),
        "unknown": (ParameterError, "not in the circuit: q", lambda: make(input_params=[*case.inputs, Parameter("q")])),
        "width of the observable": (ObservableError, "2 qubits", lambda: make(observables="ZZ")),
        "not Hermitian": (ObservableError, "Hermitian", lambda: make(observables=SparsePauliOp("XYZ", 1j))),
    }


@pytest.mark.parametrize("what", _refused())
def test_refusals(what: str) -> None:
    error, text, act = _refused()[what]
    with pytest.raises(error, match=text):
        act()


def test_errors_are_those_of_qiskit_machine_learning_too() -> None:
    package = pytest.importorskip("qiskit_machine_learning")
    qnn = EstimatorQNN(**random_case(1).arguments())
    with pytest.raises(package.QiskitMachineLearningError, match=r"shape \(1, 3\)") as caught:
        qnn.forward(np.ones((1, 3)), WEIGHTS)
    assert isinstance(caught.value, QtmError) and isinstance(caught.value, ValueError)


def test_a_failing_job_says_so() -> None:
    class Failing(StatevectorEstimator):
        def _run(self, pubs: Any) -> Any:
            raise OSError("the line is down")

    qnn = EstimatorQNN(**random_case(1).arguments(), estimator=Failing())
    with pytest.raises(JobError, match="OSError: the line is down"):
        qnn.forward(X, WEIGHTS)


def test_usage_is_that_of_a_module() -> None:
    """Both shift the same angles: as many points for the derivative, and as many circuits."""
    case = random_case(2)
    arguments = case.arguments()
    noise = local_pauli_noise(0.01)
    qnn = EstimatorQNN(**arguments, estimator=noisy_estimator(noise), default_precision=0.0, input_gradients=True)
    qnn.forward(X, WEIGHTS)
    qnn.backward(X, WEIGHTS)
    model = QuantumModule(
        arguments["circuit"],
        arguments["input_params"],
        arguments["weight_params"],
        observables="tensoredZ",
        estimator=noisy_estimator(noise),
        gradient="param-shift",
        encoding_gradients_flag=True,
    ).double()
    model(torch.tensor(X, requires_grad=True)).sum().backward()
    assert qnn.usage == model.usage
    assert qnn.usage.jobs == 2


def test_nonfinite_values_are_named_on_any_estimator() -> None:
    qnn = EstimatorQNN(**random_case(2).arguments(), estimator=noisy_estimator(local_pauli_noise(0.01)))
    bad = np.full_like(X, np.nan)
    for ask in (qnn.forward, qnn.backward):
        with pytest.raises(ParameterError, match="nan"):
            ask(bad, WEIGHTS)
