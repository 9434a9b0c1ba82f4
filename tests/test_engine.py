"""The contract of the engine, over every dtype, lane kind, thread count and executor, against Qiskit."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from math import acos, pi

import numpy as np
import pytest
from array_simulation import ArraySimulation as Simulation
from circuit_cases import differences, expectation_values, random_observables, states
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import StatePreparation
from qiskit.quantum_info import SparsePauliOp, Statevector

from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.statevector import tiling
from qtm._errors import DtypeError, OutOfMemory

LANES = {  # a name, and the fields of Options that force it
    "samples": {"lane_kind": "sample"},
    "amplitudes": {"lane_kind": "amplitude"},
}
DTYPES = {"complex128": 1e-12, "complex64": 5e-5}  # with the error allowed
CONFIGS = list(product(DTYPES, LANES, (1, 2), ("threads", "processes")))
BATCHES = (1, 7, 8, 9, 17, 48)
N = 5  # qubits; single precision has up to 16 lanes, and amplitude lanes need more rows than one


@pytest.fixture(autouse=True)
def _threads_for_any_work(monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_A_THREAD", 0)


@pytest.fixture(scope="module")
def processes():
    # Forked after kernels and threads have run, as in a DataLoader worker.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool


def ansatz(layers: int, gates: tuple[str, ...] = ("ry", "rz", "rx"), num_qubits: int = N) -> QuantumCircuit:
    angles = iter(ParameterVector("t", layers * len(gates) * num_qubits))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for gate in gates:
            for qubit in range(num_qubits):
                getattr(circuit, gate)(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
        circuit.rzz(0.4, 0, num_qubits - 1) if "rz" in gates else None
    return circuit


class Case:
    """A circuit whose angles are its parameters, with Qiskit's answers for a batch of 48."""

    def __init__(self, circuit: QuantumCircuit, observables: list[SparsePauliOp], values: np.ndarray) -> None:
        self.circuit, self.parameters = circuit, list(circuit.parameters)
        self.observables, self.values = observables, values  # (batch, parameters)
        self.coerced = coerce_observables(observables, circuit.num_qubits)
        self.expected = expectation_values(circuit, self.parameters, values, observables)
        self.cotangent = np.random.default_rng(5).normal(size=self.expected.shape)
        self.exact = self.simulation(lane_kind="sample", num_threads=1)
        self.jacobian = differences(lambda a: self.exact.values(a), values[:8])

    def simulation(self, observables: bool = True, **options) -> Simulation:
        measured = self.coerced if observables else None
        return Simulation(self.circuit, self.parameters, measured, Options(**options))


@pytest.fixture(scope="module")
def case():
    circuit = ansatz(2)
    values = np.random.default_rng(1).uniform(-pi, pi, (48, circuit.num_parameters))
    return Case(circuit, random_observables(3, N), values)


@pytest.fixture(scope="module")
def real_case():
    circuit = ansatz(3, ("ry",))
    values = np.random.default_rng(2).uniform(-pi, pi, (48, circuit.num_parameters))
    return Case(circuit, random_observables(4, N), values)


@pytest.fixture(params=["complex", "real"])
def any_case(request, case, real_case):
    return case if request.param == "complex" else real_case


@pytest.fixture(params=CONFIGS, ids=lambda c: "-".join(map(str, c)))
def config(request, processes):
    """Options for one place in the contract, and the error allowed there."""
    dtype, lanes, threads, where = request.param
    executor = processes if where == "processes" else None
    return {"dtype": dtype, "num_threads": threads, "executor": executor, **LANES[lanes]}, DTYPES[dtype]


def as_dtype(simulation: Simulation, array: np.ndarray) -> np.ndarray:
    return array.astype(simulation.engine.real)


# The contract


def test_values(any_case, config):
    options, error = config
    simulation = any_case.simulation(**options)
    for batch in BATCHES:
        values = simulation.values(as_dtype(simulation, any_case.values[:batch]))
        assert values.dtype == simulation.engine.real
        np.testing.assert_allclose(values, any_case.expected[:batch], atol=error, rtol=0)


def test_vjp(any_case, config):
    options, error = config
    simulation = any_case.simulation(**options)
    cotangent = any_case.cotangent
    expected = np.einsum("bm,bmk->bk", cotangent[:8], any_case.jacobian)
    exact = any_case.exact.engine.vjp(any_case.exact.numpy_angles(any_case.values), cotangent)[0]
    np.testing.assert_allclose(exact[:8], expected, atol=1e-9)
    for batch in BATCHES:
        angles = as_dtype(simulation, any_case.values[:batch])
        gradient, rest = simulation.engine.vjp(angles, as_dtype(simulation, cotangent[:batch]))
        assert rest is None and gradient.dtype == simulation.engine.real
        np.testing.assert_allclose(gradient, exact[:batch], atol=10 * error, rtol=0)


def test_jacobian(any_case, config):
    options, error = config
    simulation = any_case.simulation(**options)
    for batch in (1, 7, 8):
        jacobian = simulation.engine.jacobian(as_dtype(simulation, any_case.values[:batch]))
        np.testing.assert_allclose(jacobian, any_case.jacobian[:batch], atol=max(1e-9, 10 * error), rtol=0)


def test_kept_states_agree_with_recomputed_ones(any_case, config):
    options, error = config
    engine = any_case.simulation(**options).engine
    for batch in (1, 9, 48):
        angles, cotangent = (a[:batch].astype(engine.real) for a in (any_case.values, any_case.cotangent))
        values, kept = engine.values(angles, keep=True)
        assert (kept is None) == (options["executor"] is not None)
        recomputed = engine.vjp(angles, cotangent)[0]
        np.testing.assert_allclose(engine.vjp(angles, cotangent, kept=kept)[0], recomputed, atol=error, rtol=0)
        np.testing.assert_array_equal(engine.values(angles)[0], values)


@pytest.mark.parametrize("memory", [1, 3 * 2**N * 16 * 8])
def test_any_memory_budget_gives_the_same(any_case, config, memory):
    options, error = config
    engine = any_case.simulation(**options, memory=memory).engine
    reference = any_case.simulation(**options).engine
    angles, cotangent = (a.astype(engine.real) for a in (any_case.values, any_case.cotangent))
    pairs = (
        (engine.values(angles)[0], reference.values(angles)[0]),
        (engine.vjp(angles, cotangent)[0], reference.vjp(angles, cotangent)[0]),
        (engine.jacobian(angles[:9]), reference.jacobian(angles[:9])),
        (engine.probabilities(angles), reference.probabilities(angles)),
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=error, rtol=0)


def test_states_beyond_the_budget_are_not_kept(case):
    roomy = case.simulation(num_threads=1).engine
    assert roomy.values(case.values, keep=True)[1] is not None
    assert roomy.values(case.values, keep=False)[1] is None


@pytest.mark.thinned(3)
def test_probabilities(any_case, config):
    options, error = config
    simulation = any_case.simulation(observables=False, **options)
    found = states(any_case.circuit, any_case.parameters, any_case.values[:17])
    for batch in (1, 7, 17):
        probabilities = simulation.values(as_dtype(simulation, any_case.values[:batch]))
        expected = [state.probabilities() for state in found[:batch]]
        np.testing.assert_allclose(probabilities, expected, atol=error, rtol=0)


def test_probabilities_vjp(any_case, config):
    options, error = config
    engine = any_case.simulation(observables=False, **options).engine
    exact = any_case.simulation(observables=False, lane_kind="sample", num_threads=1).engine
    angles = any_case.values[:9]
    cotangent = np.random.default_rng(1).normal(size=exact.probabilities(angles).shape)
    slopes = differences(exact.probabilities, angles)
    expected = np.einsum("br,brk->bk", cotangent, slopes)
    for batch in (1, 9):
        # Amplitudes are numbered alike in all lane kinds, or `basis` would not do for both.
        pair = engine.probabilities_vjp(angles[:batch].astype(engine.real), cotangent[:batch].astype(engine.real))
        np.testing.assert_allclose(pair[0], expected[:batch], atol=max(1e-9, 10 * error), rtol=0)
        assert pair[1] is None


def test_probabilities_are_numbered_by_the_basis(any_case, config):
    options, error = config
    engine = any_case.simulation(observables=False, **options).engine
    exact = any_case.simulation(observables=False, lane_kind="sample", num_threads=1).engine
    assert engine.basis == exact.basis
    found = engine.probabilities(any_case.values[:9].astype(engine.real))
    np.testing.assert_allclose(found, exact.probabilities(any_case.values[:9]), atol=error, rtol=0)


# Initial states


def prepared(layers: int = 1) -> tuple[QuantumCircuit, list[SparsePauliOp], np.ndarray]:
    rest = ansatz(layers)
    circuit = QuantumCircuit(N)
    rng = np.random.default_rng(3)
    vector = rng.normal(size=4) + 1j * rng.normal(size=4)
    circuit.append(StatePreparation(vector / np.linalg.norm(vector)), [3, 1])
    circuit.compose(rest, inplace=True)
    return circuit, random_observables(1, N), rng.uniform(-pi, pi, (17, circuit.num_parameters))


@pytest.mark.thinned(3)
def test_prepared_states(config):
    options, error = config
    circuit, observables, values = prepared()
    simulation = Simulation(circuit, list(circuit.parameters), coerce_observables(observables, N), Options(**options))
    expected = expectation_values(circuit, list(circuit.parameters), values, observables)
    for batch in (1, 9, 17):
        found = simulation.values(as_dtype(simulation, values[:batch]))
        np.testing.assert_allclose(found, expected[:batch], atol=error, rtol=0)


def test_gradient_by_the_initial_state(config):
    options, error = config
    circuit, observables, values = prepared()
    measured = coerce_observables(observables, N)
    exact = Simulation(circuit, list(circuit.parameters), measured, Options(num_threads=1)).engine
    engine = Simulation(circuit, list(circuit.parameters), measured, Options(**options)).engine
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(9, 2 ** (N + 1))) / 6
    angles, cotangent = values[:9], rng.normal(size=(9, len(observables)))
    by_rows = differences(lambda r: exact.values(np.tile(angles, (len(r) // 9, 1)), r)[0], rows)
    expected = np.einsum("bm,bmr->br", cotangent, by_rows)
    numbers = [a.astype(engine.real) for a in (angles, cotangent, rows)]
    gradient, by_initial = engine.vjp(*numbers, initial_gradient=True)
    np.testing.assert_allclose(by_initial, expected, atol=max(1e-8, 10 * error), rtol=0)
    alone = [engine.vjp(*(a[i : i + 1] for a in numbers), initial_gradient=True) for i in range(9)]
    np.testing.assert_allclose(gradient, np.concatenate([a for a, _ in alone]), atol=error)
    np.testing.assert_allclose(by_initial, np.concatenate([r for _, r in alone]), atol=10 * error)


def test_gradient_of_probabilities_by_the_initial_state(config):
    options, error = config
    circuit, _, values = prepared()
    exact = Simulation(circuit, list(circuit.parameters), None, Options(num_threads=1)).engine
    engine = Simulation(circuit, list(circuit.parameters), None, Options(**options)).engine
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(3, 2 ** (N + 1))) / 6
    angles, cotangent = values[:3], rng.normal(size=(3, 2**N))
    by_rows = differences(lambda r: exact.probabilities(np.tile(angles, (len(r) // 3, 1)), r), rows)
    expected = np.einsum("bm,bmr->br", cotangent, by_rows)
    numbers = [a.astype(engine.real) for a in (angles, cotangent, rows)]
    _, by_initial = engine.probabilities_vjp(*numbers, initial_gradient=True)
    np.testing.assert_allclose(by_initial, expected, atol=max(1e-8, 10 * error), rtol=0)


def test_one_initial_state_serves_the_batch(config):
    options, error = config
    circuit, observables, values = prepared()
    engine = Simulation(
        circuit, list(circuit.parameters), coerce_observables(observables, N), Options(**options)
    ).engine
    row = np.random.default_rng(4).normal(size=(1, 2 ** (N + 1))).astype(engine.real) / 6
    angles = values[:9].astype(engine.real)
    cotangent = np.ones((9, len(observables)), engine.real)
    repeated = np.repeat(row, 9, 0)
    one, many = engine.values(angles, row)[0], engine.values(angles, repeated)[0]
    np.testing.assert_allclose(one, many, atol=error)
    one, many = (engine.vjp(angles, cotangent, r, initial_gradient=True) for r in (row, repeated))
    np.testing.assert_allclose(one[0], many[0], atol=error)
    np.testing.assert_allclose(one[1], many[1], atol=error)
    np.testing.assert_allclose(engine.jacobian(angles, row), engine.jacobian(angles, repeated), atol=error)


def test_empty_batch(case, config):
    options, _ = config
    engine = case.simulation(**options).engine
    angles, outputs = np.zeros((0, case.values.shape[1]), engine.real), len(case.observables)
    assert engine.values(angles)[0].shape == (0, outputs)
    gradient, by_initial = engine.vjp(angles, np.zeros((0, outputs), engine.real), initial_gradient=True)
    assert gradient.shape == angles.shape and len(by_initial) == 0
    assert engine.probabilities(angles).shape[0] == 0
    gradient, by_initial = engine.probabilities_vjp(angles, engine.probabilities(angles), initial_gradient=True)
    assert gradient.shape == angles.shape and len(by_initial) == 0


# Several threads on one state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.thinned(11)
def test_a_team_of_threads(any_case, dtype, threads, monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_A_TEAM", 0)
    options = {"dtype": dtype, "num_threads": threads, "lane_kind": "amplitude"}
    engine, error = any_case.simulation(**options).engine, DTYPES[dtype]
    unmeasured = any_case.simulation(observables=False, **options).engine
    exact = any_case.simulation(observables=False, lane_kind="sample", num_threads=1).engine
    for batch in range(1, threads + 1):
        angles, cotangent = (a[:batch].astype(engine.real) for a in (any_case.values, any_case.cotangent))
        values, kept = engine.values(angles, keep=True)
        np.testing.assert_allclose(values, any_case.expected[:batch], atol=error, rtol=0)
        expected = np.einsum("bm,bmk->bk", any_case.cotangent[:batch], any_case.jacobian[:batch])
        for states_or_none in (kept, None):
            gradient = engine.vjp(angles, cotangent, kept=states_or_none)[0]
            np.testing.assert_allclose(gradient, expected, atol=max(1e-9, 10 * error), rtol=0)
        found, wanted = unmeasured.probabilities(angles), exact.probabilities(any_case.values[:batch])
        np.testing.assert_allclose(found, wanted, atol=error, rtol=0)
        by_outcomes = (
            e.probabilities_vjp(a, wanted)[0] for e, a in ((unmeasured, angles), (exact, angles.astype(float)))
        )
        np.testing.assert_allclose(*by_outcomes, atol=10 * error, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_team_of_threads_with_initial_states(dtype, monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_A_TEAM", 0)
    circuit, observables, values = prepared()
    measured, parameters = coerce_observables(observables, N), list(circuit.parameters)
    rows = np.random.default_rng(4).normal(size=(2, 2 ** (N + 1))) / 6
    results = []
    for threads in (1, 3):
        engine = Simulation(circuit, parameters, measured, Options(dtype, threads, lane_kind="amplitude")).engine
        numbers = [a.astype(engine.real) for a in (values[:2], np.ones((2, len(observables))), rows)]
        results.append((*engine.vjp(*numbers, initial_gradient=True), engine.values(numbers[0], numbers[2])[0]))
    for one, team in zip(*results, strict=True):
        np.testing.assert_allclose(team, one, atol=10 * DTYPES[dtype], rtol=0)


@pytest.mark.slow
@pytest.mark.thinned(9)
@pytest.mark.parametrize("name", ["pi", "closer to pi", "above 0.01", "below 0.01", "0"])
def test_a_team_of_threads_at_half_turns(name, monkeypatch):
    monkeypatch.setattr(tiling, "WORTH_A_TEAM", 0)
    circuit = ansatz(40, ("ry", "rx"), 6)
    parameters, measured = list(circuit.parameters), coerce_observables(random_observables(1, 6), 6)
    angles = np.full((1, len(parameters)), SPECIAL[name])
    for dtype in DTYPES:
        results = []
        for threads in (1, 3):
            engine = Simulation(circuit, parameters, measured, Options(dtype, threads, lane_kind="amplitude")).engine
            numbers = [a.astype(engine.real) for a in (angles, np.ones((1, len(measured))))]
            results.append((engine.values(numbers[0])[0], engine.vjp(*numbers)[0]))
        for one, team in zip(*results, strict=True):
            np.testing.assert_allclose(team, one, atol=100 * DTYPES[dtype], rtol=0)


def test_jacobian_of_an_empty_batch(case):
    engine = case.simulation().engine
    assert engine.jacobian(np.zeros((0, 30))).shape == (0, len(case.observables), 30)


# Half turns: the kernels divide cosines out, and switch to full rotations near half turns

SWITCH = {"complex128": 1e-6, "complex64": 1e-2}  # cosines around which they switch
SPECIAL = {
    "0": 0.0,
    "pi": pi,
    "-pi": -pi,
    "3 pi": 3 * pi,
    "2 pi": 2 * pi,
    "pi/2": pi / 2,
    "-3 pi/2": -1.5 * pi,
    "nearly pi": pi - 1e-3,
    "closer to pi": pi - 1e-7,
    "beyond pi": pi + 1e-9,
    "huge": 1e6,
    **{f"above {c}": 2 * acos(1.01 * c) for c in SWITCH.values()},
    **{f"below {c}": 2 * acos(0.99 * c) for c in SWITCH.values()},
}
# At 1e6 radians the sum of a few angles is known to about 1e-9, in single precision only to 0.1.
EXACTNESS = {"complex128": 1e-8, "complex64": 3e-4}


def special_case(gates: tuple[str, ...], layers: int, values: np.ndarray) -> None:
    circuit = ansatz(layers, gates)
    parameters, observables = list(circuit.parameters), random_observables(layers, N)
    measured = coerce_observables(observables, N)
    exact = Simulation(circuit, parameters, measured, Options(num_threads=1, lane_kind="sample"))
    for dtype, lanes in product(DTYPES, LANES):
        simulation = Simulation(circuit, parameters, measured, Options(dtype, 1, **LANES[lanes]))
        engine = simulation.engine
        rounded = values.astype(engine.real)
        expected = expectation_values(circuit, parameters, rounded.astype(float), observables)
        found, kept = engine.values(rounded, keep=True)
        np.testing.assert_allclose(found, expected, atol=EXACTNESS[dtype], rtol=0, err_msg=f"{dtype} {lanes}")
        cotangent = np.ones_like(found)
        gradient = engine.vjp(rounded, cotangent, kept=kept)[0]
        if dtype == "complex128":
            some = rounded[:1]
            slopes = differences(exact.values, some).sum(1) if some.size < 40 else None
            if slopes is not None:
                np.testing.assert_allclose(gradient[:1], slopes, atol=1e-5, rtol=0)
        reference = exact.engine.vjp(rounded.astype(float), cotangent.astype(float))[0]
        np.testing.assert_allclose(gradient, reference, atol=20 * EXACTNESS[dtype], rtol=0)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("gates", [("ry",), ("rx", "rz")])
@pytest.mark.parametrize("name", SPECIAL)
def test_all_angles_alike(name, gates):
    special_case(gates, 3, np.full((3, 3 * N * len(gates)), SPECIAL[name]))


@pytest.mark.parametrize("gates", [("ry",), ("rx", "rz")])
def test_all_sorts_of_angles_in_one_tile(gates, rng):
    angles = [a for name, a in SPECIAL.items() if name != "huge"]
    special_case(gates, 4, rng.choice(angles, (17, 4 * N * len(gates))))


@pytest.mark.parametrize("name", ["random", "pi", "above 0.01", "above 1e-06", "0"])
@pytest.mark.slow
def test_two_hundred_layers_without_diagonals(name, rng):
    """Nothing but rotations by tangents: the scale of the state has to be brought back in time."""
    shape = (3, 200 * N)
    special_case(("ry",), 200, rng.uniform(-pi, pi, shape) if name == "random" else np.full(shape, SPECIAL[name]))


def test_one_sample_that_is_not_finite_leaves_the_others_alone(case, config):
    options, error = config
    engine = case.simulation(**options).engine
    angles = case.values[:9].astype(engine.real)
    angles[4, 3] = np.nan
    values = engine.values(angles)[0]
    others = np.arange(9) != 4
    assert np.isnan(values[4]).any()
    np.testing.assert_allclose(values[others], case.expected[:9][others], atol=error, rtol=0)


# Size


def test_fourteen_qubits():
    n, rng = 14, np.random.default_rng(0)
    circuit = ansatz(1, ("ry", "rz"), n)
    circuit.compose(ansatz(1, ("rx",), n).assign_parameters(rng.uniform(-3, 3, n)), inplace=True)
    values = rng.uniform(-pi, pi, (2, circuit.num_parameters))
    observables = random_observables(1, n, 2)
    parameters, measured = list(circuit.parameters), coerce_observables(observables, n)
    expected = expectation_values(circuit, parameters, values, observables)
    gradients = []
    for lanes in LANES.values():
        simulation = Simulation(circuit, parameters, measured, Options(num_threads=2, **lanes))
        np.testing.assert_allclose(simulation.values(values), expected, atol=1e-11)
        gradients.append(simulation.engine.vjp(values, np.ones_like(expected))[0])
    np.testing.assert_allclose(*gradients, atol=1e-11)
    slope = differences(lambda a: simulation.values(np.c_[a, np.tile(values[:1, 1:], (len(a), 1))]), values[:1, :1])
    np.testing.assert_allclose(gradients[0][0, 0], slope.sum(), atol=1e-8)


@pytest.mark.slow
def test_eighteen_qubits_of_one_state():
    n, rng = 18, np.random.default_rng(0)
    circuit = ansatz(1, ("ry", "rz", "rx"), n)
    values = rng.uniform(-pi, pi, (1, circuit.num_parameters))
    observables = [SparsePauliOp.from_sparse_list([("XYZ", [0, 9, 17], 1.0), ("ZZ", [3, 4], 0.5)], n)]
    simulation = Simulation(circuit, list(circuit.parameters), coerce_observables(observables, n), Options())
    state = Statevector(circuit.assign_parameters(values[0]))
    assert simulation.values(values)[0, 0] == pytest.approx(state.expectation_value(observables[0]).real, abs=1e-11)


def chain(num_qubits: int, **options) -> Simulation:
    """Z on the last qubit sees every one of them."""
    circuit, angle = QuantumCircuit(num_qubits), Parameter("t")
    for qubit in range(num_qubits):
        circuit.ry(angle, qubit)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    measured = coerce_observables(["Z" + "I" * (num_qubits - 1)], num_qubits)
    return Simulation(circuit, [angle], measured, Options(**options))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_too_little_memory_says_how_much_is_needed(lanes, dtype):
    simulation = chain(22, dtype=dtype, memory=1 << 20, method="statevector", **LANES[lanes])
    with pytest.raises(OutOfMemory, match=r"22 qubits need \d+\.\d+ GiB .* use fewer qubits"):
        simulation.values(np.zeros((1, 1)))


def test_far_too_many_qubits_are_refused_before_anything_is_allocated():
    with pytest.raises(OutOfMemory, match=r"45 qubits need \d+\.\d+ GiB .* use fewer qubits"):
        chain(45, method="statevector").values(np.zeros((1, 1)))


def test_the_light_cone_decides_how_much_memory_is_needed():
    circuit, angle = QuantumCircuit(60), Parameter("t")
    for qubit in range(60):
        circuit.ry(angle, qubit)
    circuit.cx(0, 59)
    measured = coerce_observables(["Z" + "I" * 59, "I" * 59 + "Z"], 60)
    values = Simulation(circuit, [angle], measured, Options(memory=1 << 20)).values(np.array([[0.7]]))
    np.testing.assert_allclose(values, [[np.cos(0.7) ** 2, np.cos(0.7)]], atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "complex256", "half", np.float32, None])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DtypeError, match="not supported; use one of complex128, complex64"):
        Simulation(QuantumCircuit(1), [], None, Options(dtype))
