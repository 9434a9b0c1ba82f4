"""FastReverseEstimatorGradient against finite differences and against qiskit-algorithms' own gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import pi
from typing import Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterVector
from qiskit.circuit.library import (
    PauliEvolutionGate,
    QAOAAnsatz,
    efficient_su2,
    get_standard_gate_name_mapping,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp, Statevector, random_statevector
from qiskit_algorithms.gradients import (
    DerivativeType,
    LinCombEstimatorGradient,
    ParamShiftEstimatorGradient,
    ReverseEstimatorGradient,
)

from qtm import _errors
from qtm.gradients import FastReverseEstimatorGradient

H2 = SparsePauliOp(
    ["II", "IZ", "ZI", "ZZ", "XX"], [-1.052373245772859, 0.39793742, -0.39793742, -0.01128010, 0.18093119]
)
STEP = 1e-5


def gradients(circuits: Any, observables: Any, values: Any, parameters: Any = None, **options: Any) -> list[np.ndarray]:
    """By the gradient under test, on one or more points."""
    return FastReverseEstimatorGradient(**options).run(circuits, observables, values, parameters).result().gradients


def state(circuit: QuantumCircuit, values: np.ndarray) -> np.ndarray:
    return Statevector(circuit.assign_parameters(values)).data


def differences(function: Callable[[np.ndarray], Any], values: np.ndarray) -> np.ndarray:
    """Central differences of a function, by each parameter: (..., parameters)."""
    steps = STEP * np.eye(len(values))
    return np.stack([(function(values + s) - function(values - s)) / (2 * STEP) for s in steps], -1)


def by_differences(circuit: QuantumCircuit, operator: SparsePauliOp, values: np.ndarray) -> np.ndarray:
    return differences(lambda v: Statevector(state(circuit, v)).expectation_value(operator).real, values)


def dressed(num_qubits: int, gate: Gate, qubits: list[int]) -> QuantumCircuit:
    """A gate between others that make all its angles visible."""
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.u(0.3 + q, 0.5 * q - 1, 0.8, q)
    circuit.append(gate, qubits)
    for q in range(num_qubits):
        circuit.u(1.1 - q, 0.4, 0.9 * q, q)
    return circuit


PARAMETERISED = {n: g for n, g in get_standard_gate_name_mapping().items() if g.params and n != "delay"}


def test_the_table_of_gates_is_not_empty() -> None:
    assert {"rx", "p", "u", "cp", "crx", "cu", "rzz", "xx_plus_yy", "u3", "r"} <= PARAMETERISED.keys()


@pytest.mark.parametrize("name", PARAMETERISED)
def test_every_parameterised_gate(name: str) -> None:
    gate = PARAMETERISED[name].to_mutable()
    gate.params = list(ParameterVector("t", len(gate.params)))
    circuit = dressed(max(gate.num_qubits, 2), gate, list(range(gate.num_qubits)))
    operator = SparsePauliOp(["XY", "ZI", "IX", "YZ"], [0.7, -1.0, 0.4, 0.9])
    operator = SparsePauliOp("I" * (circuit.num_qubits - 2)).tensor(operator)
    values = np.random.default_rng(len(name)).uniform(-pi, pi, circuit.num_parameters)
    found = gradients(circuit, operator, [values])[0]
    np.testing.assert_allclose(found, by_differences(circuit, operator, values), atol=1e-8)


def shared_parameters() -> QuantumCircuit:
    x, y = Parameter("ξ"), Parameter("a10")
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.rx(x, 0)
    circuit.crx(2 * x + y, 0, 1)
    circuit.cp(x * y, 0, 1)
    circuit.ry(x, 1)
    return circuit


def nonlinear() -> QuantumCircuit:
    x, y = Parameter("x"), Parameter("y")
    circuit = QuantumCircuit(2)
    circuit.ry(x.sin() * y, 0)
    circuit.rxx((x**2).exp() / 3, 0, 1)
    circuit.rz(y / (1 + x * x), 1)
    circuit.rx(0.4, [0, 1])
    return circuit


def evolution() -> QuantumCircuit:
    t = ParameterVector("t", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, 0)
    circuit.append(PauliEvolutionGate(SparsePauliOp(["XX", "YY"], [0.5, 0.7]), t[0]), [0, 1])
    circuit.append(PauliEvolutionGate(Pauli("ZX"), t[1]), [0, 1])
    return circuit


def with_global_phase() -> QuantumCircuit:
    circuit = shared_parameters()
    circuit.global_phase = Parameter("phase") / 2
    return circuit


def features() -> QuantumCircuit:
    return zz_feature_map(2, reps=1).compose(real_amplitudes(2, reps=1))


def measured() -> QuantumCircuit:
    return real_amplitudes(2, reps=1).measure_all(inplace=False)


def qaoa() -> QuantumCircuit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return QAOAAnsatz(SparsePauliOp(["ZZ", "IZ"], [1.0, 0.3]), reps=2).decompose()


CIRCUITS = [shared_parameters, nonlinear, evolution, with_global_phase, features, qaoa]
each_circuit = pytest.mark.parametrize("make", CIRCUITS, ids=lambda f: f.__name__)
OPERATOR = SparsePauliOp(["XX", "ZI", "IY", "YZ", "II"], [0.7, -1.0, 0.4, 0.9, 3.0])


@each_circuit
def test_expressions_and_library_circuits(make: Callable[[], QuantumCircuit], rng: np.random.Generator) -> None:
    circuit = make()
    values = rng.uniform(0.2, 1.4, (3, circuit.num_parameters))
    found = gradients([circuit] * 3, [OPERATOR] * 3, values)
    for gradient, row in zip(found, values, strict=True):
        assert gradient.shape == (circuit.num_parameters,) and gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, by_differences(circuit, OPERATOR, row), atol=1e-8)


def test_final_measurements_are_ignored() -> None:
    values = [[0.1, 0.2, 0.3, 0.4]]
    np.testing.assert_array_equal(
        gradients(measured(), H2, values)[0], gradients(real_amplitudes(2, reps=1), H2, values)[0]
    )


def test_amplitudes_that_are_parameters(rng: np.random.Generator) -> None:
    library = pytest.importorskip("qiskit_machine_learning.circuit.library")
    feature_map = library.raw_feature_vector(4)
    circuit = QuantumCircuit(2)
    circuit.compose(feature_map, inplace=True)
    circuit.compose(shared_parameters(), inplace=True)
    values = rng.uniform(0.2, 1.2, circuit.num_parameters)
    names = [p.name for p in circuit.parameters]
    ansatz = shared_parameters()

    def value(row: np.ndarray) -> float:
        by_name = dict(zip(names, row, strict=True))
        vector = np.array([v for n, v in by_name.items() if n not in {p.name for p in ansatz.parameters}])
        start = Statevector(vector / np.linalg.norm(vector))
        bound = ansatz.assign_parameters({p: by_name[p.name] for p in ansatz.parameters})
        return start.evolve(bound).expectation_value(OPERATOR).real

    (single,) = gradients(circuit, OPERATOR, [values])
    np.testing.assert_allclose(single, differences(value, values), atol=1e-8)
    (both,) = gradients([circuit], [[OPERATOR, "ZZ"]], [values], dtype="complex64")
    np.testing.assert_allclose(both[0], single, atol=1e-5)
    for kind in (DerivativeType.IMAG, DerivativeType.COMPLEX):
        with pytest.raises(_errors.CircuitError, match=r"amplitudes that are parameters.*DerivativeType\.REAL"):
            gradients(circuit, OPERATOR, [values], derivative_type=kind)


def test_a_parameter_that_only_prepares() -> None:
    library = pytest.importorskip("qiskit_machine_learning.circuit.library")
    circuit = QuantumCircuit(1)
    feature_map = library.raw_feature_vector(2)
    circuit.compose(feature_map, inplace=True)
    a, b = 0.6, 1.1
    # <Z> = (a^2 - b^2) / (a^2 + b^2)
    expected = np.array([4 * a * b * b, -4 * a * a * b]) / (a * a + b * b) ** 2
    np.testing.assert_allclose(gradients(circuit, Pauli("Z"), [[a, b]])[0], expected, atol=1e-12)


def test_a_parameter_that_nothing_depends_on() -> None:
    circuit = QuantumCircuit(1, global_phase=Parameter("phase"))
    circuit.h(0)
    for kind in (DerivativeType.REAL, DerivativeType.IMAG):
        np.testing.assert_array_equal(gradients(circuit, Pauli("X"), [[0.3]], derivative_type=kind), [[0.0]])


# --- Beside qiskit-algorithms -------------------------------------------------------------------------------


def own_gates() -> QuantumCircuit:
    """What all of qiskit-algorithms' gradients take."""
    t = ParameterVector("t", 5)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.rx(t[0], 0)
    circuit.rzz(t[1] * 2, 0, 1)
    circuit.ry(t[2] + t[0], 1)
    circuit.cx(0, 1)
    circuit.p(t[3], 0)
    circuit.u(t[4], t[1], 0.4, 1)
    circuit.rxx(t[3], 0, 1)
    return circuit


PEERS: dict[str, Callable[[DerivativeType], Any]] = {
    "reverse": ReverseEstimatorGradient,
    "linear combination": lambda kind: LinCombEstimatorGradient(StatevectorEstimator(), derivative_type=kind),
}


@pytest.mark.parametrize("kind", DerivativeType)
@pytest.mark.parametrize("peer", PEERS)
def test_the_same_as_a_peer(peer: str, kind: DerivativeType, rng: np.random.Generator) -> None:
    circuits = [own_gates(), real_amplitudes(2, reps=1), own_gates()]
    values = [rng.normal(size=c.num_parameters) for c in circuits]
    wanted = [None, circuits[1].parameters[2:], [circuits[2].parameters[k] for k in (3, 0)]]
    ours = FastReverseEstimatorGradient(kind).run(circuits, [OPERATOR, H2, OPERATOR], values, wanted).result()
    theirs = PEERS[peer](kind).run(circuits, [OPERATOR, H2, OPERATOR], values, wanted).result()
    for a, b in zip(ours.gradients, theirs.gradients, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-10)
    assert [list(m["parameters"]) for m in ours.metadata] == [list(m["parameters"]) for m in theirs.metadata]
    assert type(ours) is type(theirs)


def test_the_same_as_parameter_shift(rng: np.random.Generator) -> None:
    circuit = efficient_su2(3, reps=1)
    operator = SparsePauliOp(["XYZ", "ZZI"], [0.3, 1.0])
    values = rng.normal(size=(2, 12))
    peer = ParamShiftEstimatorGradient(StatevectorEstimator()).run([circuit] * 2, [operator] * 2, values).result()
    np.testing.assert_allclose(gradients([circuit] * 2, [operator] * 2, values), peer.gradients, atol=1e-10)


def without_phases(circuit: QuantumCircuit, values: np.ndarray) -> np.ndarray:
    """The state, each gate as a product of Pauli rotations, for gates whose determinant is not 1."""
    bound = circuit.assign_parameters(values)
    phase = bound.global_phase
    for instruction in bound.data:
        matrix = instruction.operation.to_matrix()
        phase += np.angle(np.linalg.det(matrix)) / len(matrix)
    return np.exp(-1j * phase) * Statevector(bound).data


@pytest.mark.parametrize("make", [shared_parameters, nonlinear, features, own_gates], ids=lambda f: f.__name__)
def test_complex_derivatives(make: Callable[[], QuantumCircuit], rng: np.random.Generator) -> None:
    """2 <psi|O|d psi>, by differences of the state with its phase made continuous."""
    circuit = make()
    values = rng.uniform(0.2, 0.6, circuit.num_parameters)
    center = without_phases(circuit, values)

    def moved(row: np.ndarray) -> np.ndarray:
        psi = without_phases(circuit, row)
        # A determinant's angle is known up to a full turn: one of its roots is the state close to the center.
        roots = psi * np.exp(2j * pi * np.arange(16) / 16)[:, None]
        return roots[np.argmin(np.linalg.norm(roots - center, axis=1))]

    expected = 2 * (center.conj() @ OPERATOR.to_matrix()) @ differences(moved, values)
    for kind, part in zip(DerivativeType, (expected.real, expected.imag, expected), strict=True):
        (found,) = gradients(circuit, OPERATOR, [values], derivative_type=kind)
        np.testing.assert_allclose(found, part, atol=1e-8, err_msg=str(kind))


def test_complex_derivatives_after_a_fixed_preparation(rng: np.random.Generator) -> None:
    circuit = QuantumCircuit(2)
    circuit.initialize(random_statevector(4, seed=3).data)
    circuit.compose(own_gates(), inplace=True)
    values = rng.normal(size=5)
    gates = own_gates()
    start = QuantumCircuit(2)
    start.prepare_state(random_statevector(4, seed=3))
    theirs = ReverseEstimatorGradient(DerivativeType.COMPLEX).run(
        [start.decompose(reps=9).compose(gates)], [OPERATOR], [values]
    )
    (ours,) = gradients(circuit, OPERATOR, [values], derivative_type=DerivativeType.COMPLEX)
    np.testing.assert_allclose(ours, theirs.result().gradients[0], atol=1e-8)


def test_derivative_type_can_be_set(rng: np.random.Generator) -> None:
    gradient = FastReverseEstimatorGradient()
    assert gradient.derivative_type == DerivativeType.REAL
    point = ([own_gates()], [OPERATOR], [rng.normal(size=5)])
    real = gradient.run(*point).result().gradients[0]
    gradient.derivative_type = DerivativeType.COMPLEX
    both = gradient.run(*point).result().gradients[0]
    gradient.derivative_type = DerivativeType.IMAG
    imaginary = gradient.run(*point).result().gradients[0]
    np.testing.assert_allclose(both, real + 1j * imaginary, atol=1e-13)
    assert np.abs(imaginary).max() > 0.01


# --- Several observables, batches, selections ---------------------------------------------------------------


@pytest.mark.parametrize("kind", DerivativeType)
def test_several_observables_at_once(kind: DerivativeType, rng: np.random.Generator) -> None:
    circuit, operators = own_gates(), [OPERATOR, H2, Pauli("XY"), "ZZ", {"XX": 0.5}, SparseObservable("YI")]
    values = rng.normal(size=(3, 5))
    several = gradients([circuit] * 3, [operators, operators[:1], "individualZ"], values, derivative_type=kind)
    assert [g.shape for g in several] == [(6, 5), (1, 5), (2, 5)]
    for k, operator in enumerate(operators):
        (single,) = gradients([circuit], [operator], values[:1], derivative_type=kind)
        assert single.shape == (5,)
        np.testing.assert_allclose(several[0][k], single, atol=1e-12)
    np.testing.assert_allclose(
        several[2][1], gradients(circuit, Pauli("ZI"), values[2:], derivative_type=kind)[0], atol=1e-12
    )


def test_points_of_equal_circuits_and_observables_are_one_sweep(sweeps: list[int], rng: np.random.Generator) -> None:
    circuits = [own_gates(), real_amplitudes(2, reps=1), *(own_gates() for _ in range(3))]
    # Parameters of other objects with equal names are others: copies share them.
    circuits[2:] = [circuits[0].copy() for _ in range(3)]
    operators = [
        OPERATOR,
        OPERATOR,
        OPERATOR.copy(),
        [H2, "ZZ"],
        SparsePauliOp(OPERATOR.paulis, OPERATOR.coeffs),
    ]
    values = [rng.normal(size=c.num_parameters) for c in circuits]
    found = gradients(circuits, operators, values)
    assert sorted(sweeps) == [1, 2, 3]
    for circuit, operator, row, gradient in zip(circuits, operators, values, found, strict=True):
        single = operator if isinstance(operator, SparsePauliOp) else operator[0]
        first = gradient if isinstance(operator, SparsePauliOp) else gradient[0]
        np.testing.assert_allclose(first, by_differences(circuit, single, row), atol=1e-8)


def test_a_point_in_a_loop_is_lowered_once(rng: np.random.Generator) -> None:
    gradient, circuit = FastReverseEstimatorGradient(), own_gates()
    for row in rng.normal(size=(4, 5)):
        found = gradient.run([circuit.copy()], [OPERATOR.copy()], [row]).result().gradients[0]
        np.testing.assert_allclose(found, by_differences(circuit, OPERATOR, row), atol=1e-8)
    assert len(gradient._simulations._known) == 1


def test_parameters_in_the_requested_order(rng: np.random.Generator) -> None:
    circuit, values = own_gates(), rng.normal(size=5)
    (all_of_them,) = gradients(circuit, OPERATOR, [values])
    chosen = [circuit.parameters[k] for k in (4, 1)]
    result = (
        FastReverseEstimatorGradient().run([circuit] * 3, [OPERATOR] * 3, [values] * 3, [chosen, None, []]).result()
    )
    np.testing.assert_array_equal(result.gradients[0], all_of_them[[4, 1]])
    np.testing.assert_array_equal(result.gradients[1], all_of_them)
    assert result.gradients[2].shape == (0,)
    assert [list(m["parameters"]) for m in result.metadata] == [chosen, list(circuit.parameters), []]
    assert result.precision == 0.0


def test_no_points() -> None:
    assert gradients([], [], []) == []


def test_options_of_an_estimator_are_accepted() -> None:
    job = FastReverseEstimatorGradient().run([own_gates()], [OPERATOR], [[0.1] * 5], precision=0.5, shots=10)
    np.testing.assert_array_equal(job.result().gradients, gradients([own_gates()], [OPERATOR], [[0.1] * 5]))


# --- Errors -------------------------------------------------------------------------------------------------


C = real_amplitudes(2, reps=1)
GOOD = [0.1, 0.2, 0.3, 0.4]
BAD_CALLS: dict[str, tuple[tuple[Any, ...], str]] = {
    "fewer values than circuits": (
        ([C, C], [H2, H2], [GOOD]),
        "parameter_values has 1 entries for 2 circuits",
    ),
    "fewer observables": (([C, C], [H2], [GOOD, GOOD]), "observables has 1 entries for 2 circuits"),
    "fewer lists of parameters": (([C, C], [H2, H2], [GOOD, GOOD], [None]), "parameters has 1 entries for 2"),
    "no parameters": (([QuantumCircuit(2)], [H2], [[]]), "circuit 0.*has no parameters"),
    "too few values": (([C], [H2], [GOOD[:3]]), "circuit 0 has 4 parameters and was given 3 values"),
    "a foreign parameter": (([C], [H2], [GOOD], [[Parameter("z")]]), r"\['z'\] are not in circuit 0"),
    "an observable too wide": (
        ([C], [SparsePauliOp("ZZZ")], [GOOD]),
        "acts on 3 qubits and the circuit has 2",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_the_same_value_errors(call: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the messages are theirs)
        ReverseEstimatorGradient().run(*call)
    with pytest.raises(ValueError, match=message):
        FastReverseEstimatorGradient().run(*call)


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        ([], "empty"),
        (SparsePauliOp("ZZ", 1j), "not Hermitian"),
        (["ZZ", "Z"], "acts on 1 qubits"),
        (3.5, "not an observable"),
    ],
)
def test_bad_observables(observable: Any, message: str) -> None:
    with pytest.raises(_errors.ObservableError, match=message):
        FastReverseEstimatorGradient().run([C], [observable], [GOOD])


def test_values_that_are_not_finite() -> None:
    with pytest.raises(_errors.ParameterError, match="is nan in sample 1"):
        gradients([C, C], [H2, H2], [GOOD, [0.1, np.nan, 0.1, 0.1]])


def test_what_cannot_be_simulated() -> None:
    circuit = C.copy()
    circuit.add_register(ClassicalRegister(1))
    with circuit.while_loop((circuit.clbits[0], 0)):
        circuit.x(0)
        circuit.measure(0, 0)
    with pytest.raises(_errors.CircuitError, match="while_loop"):
        gradients(circuit, H2, [GOOD])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"dtype": "float32"}, _errors.DtypeError),
        ({"num_threads": -1}, _errors.ParameterError),
        ({"executor": "pool"}, _errors.ParameterError),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        FastReverseEstimatorGradient(**options)


@pytest.mark.parametrize("kind", list(DerivativeType))
def test_a_derivative_type_by_name(kind: DerivativeType) -> None:
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    by_name = FastReverseEstimatorGradient(kind.value)
    assert by_name.derivative_type is kind
    found = [g.run([circuit], ["Z"], [[0.3]]).result().gradients for g in (by_name, FastReverseEstimatorGradient(kind))]
    assert np.array_equal(*found)


@pytest.mark.parametrize("wrong", ["reall", "", None, 1])
def test_an_unknown_derivative_type_is_refused(wrong: Any) -> None:
    with pytest.raises(_errors.ParameterError, match="DerivativeType"):
        FastReverseEstimatorGradient(wrong)
    with pytest.raises(_errors.ParameterError, match="DerivativeType"):
        FastReverseEstimatorGradient().derivative_type = wrong
