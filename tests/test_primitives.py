"""FastEstimator beside Qiskit's StatevectorEstimator: the same PUBs, seeds, numbers, metadata and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import efficient_su2, n_local, real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp, Statevector

from qtm import _errors, primitives
from qtm._engines.simulation import Simulation
from qtm.primitives import FastEstimator

H2 = SparsePauliOp(
    ["II", "IZ", "ZI", "ZZ", "XX"], [-1.052373245772859, 0.39793742, -0.39793742, -0.01128010, 0.18093119]
)
CIRCUIT = efficient_su2(3, reps=1)  # 12 parameters
VALUES = np.random.default_rng(5).uniform(-3, 3, (4, 2, 12))
OPERATORS = [
    "ZZZ",
    SparsePauliOp(["XYI", "IIZ", "ZXY"], [0.5, -1.2, 2.0]),
    Pauli("IXI"),
    {"YYY": 1.5, "III": -2},
]
PLAIN = QuantumCircuit(2)
PLAIN.h(0)
PLAIN.cx(0, 1)
PLAIN.ry(0.3, 0)


def named(circuit: QuantumCircuit, values: np.ndarray) -> dict[str, np.ndarray]:
    return {p.name: values[..., k] for k, p in enumerate(circuit.parameters)}


# Every form of a PUB: what runs on both estimators.
PUBS: dict[str, Any] = {
    "no parameters": (PLAIN, "ZZ"),
    "no parameters, observables": (PLAIN, ["ZZ", "XX", "IY"]),
    "empty values": (PLAIN, ["ZZ"], []),
    "one set": (CIRCUIT, "ZZZ", VALUES[0, 0]),
    "a list of floats": (CIRCUIT, [OPERATORS[1]], VALUES[0, 0].tolist()),
    "sets of shape (4, 2)": (CIRCUIT, "ZZZ", VALUES),
    "outer product": (CIRCUIT, [[o] for o in OPERATORS], VALUES[:, 0]),
    "zipped": (CIRCUIT, OPERATORS, VALUES[:, 0]),
    "three axes": (CIRCUIT, np.array(OPERATORS, object).reshape(2, 1, 2), VALUES[:, :1]),
    "broadcast both ways": (CIRCUIT, [[OPERATORS[0], OPERATORS[1]]], VALUES[:, :1]),
    "the same observable often": (CIRCUIT, ["ZZZ", "XXX", "ZZZ", "ZZZ"], VALUES[:, 0]),
    "no sets": (CIRCUIT, "ZZZ", VALUES[:0]),
    "a dict of parameters": (CIRCUIT, "XXX", dict(zip(CIRCUIT.parameters, VALUES[0, 0], strict=True))),
    "a dict of names": (CIRCUIT, "XXX", named(CIRCUIT, VALUES)),
    "a dict of vectors": (CIRCUIT, "XXX", {tuple(CIRCUIT.parameters[::-1]): VALUES[..., ::-1]}),
    "a bindings array": (CIRCUIT, "XXX", BindingsArray({tuple(CIRCUIT.parameters): VALUES})),
    "an observables array": (CIRCUIT, ObservablesArray([[o] for o in OPERATORS]), VALUES[:, 0]),
    "a Pauli list": (PLAIN, PauliList(["XX", "ZZ", "YI"])),
    "a sparse observable": (PLAIN, SparseObservable.from_list([("XX", 1.0), ("ZI", 0.25)])),
    "own precision": (CIRCUIT, "ZZZ", VALUES, 0.25),
    "own precision of zero": (CIRCUIT, "ZZZ", VALUES, 0.0),
    "precision, no values": (PLAIN, ["ZZ", "XI"], None, 0.1),
    "an EstimatorPub": EstimatorPub.coerce((CIRCUIT, "ZZZ", VALUES)),
    "an EstimatorPub with precision": EstimatorPub.coerce((CIRCUIT, "ZZZ", VALUES), 0.5),
}
each_pub = pytest.mark.parametrize("pub", PUBS.values(), ids=PUBS)


def evs(estimator: Any, *pubs: Any, **options: Any) -> list[np.ndarray]:
    return [result.data.evs for result in estimator.run(pubs, **options).result()]


@pytest.mark.thinned(5)
@each_pub
@pytest.mark.parametrize("precision", [None, 0.125])
@pytest.mark.parametrize("seed", [0, 17])
def test_the_same_numbers_as_statevector_estimator(pub: Any, precision: float | None, seed: int) -> None:
    job = FastEstimator(seed=seed).run([pub], precision=precision)
    result, expected = job.result(), StatevectorEstimator(seed=seed).run([pub], precision=precision).result()
    ours, theirs = result[0].data, expected[0].data
    assert type(ours.evs) is np.ndarray and ours.evs.dtype == theirs.evs.dtype == np.float64
    assert ours.shape == theirs.shape and ours.evs.shape == theirs.evs.shape
    np.testing.assert_allclose(ours.evs, theirs.evs, atol=1e-12)
    assert result.metadata == expected.metadata
    assert result[0].metadata == expected[0].metadata
    np.testing.assert_array_equal(ours.stds, np.full(theirs.shape, result[0].metadata["target_precision"]))


def test_a_generator_as_seed_advances_from_pub_to_pub() -> None:
    pubs = [(CIRCUIT, "ZZZ", VALUES), (CIRCUIT, OPERATORS, VALUES[:, 0])]
    ours = FastEstimator(seed=np.random.default_rng(3), default_precision=0.5)
    theirs = StatevectorEstimator(seed=np.random.default_rng(3), default_precision=0.5)
    for _ in range(2):
        for a, b in zip(evs(ours, *pubs), evs(theirs, *pubs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_noise_without_a_seed_differs_and_has_the_precision() -> None:
    estimator = FastEstimator(default_precision=0.5)
    many = np.tile(VALUES[0, 0], (4000, 1))
    (first,), (second,) = evs(estimator, (CIRCUIT, "ZZZ", many)), evs(estimator, (CIRCUIT, "ZZZ", many))
    assert not np.array_equal(first, second)
    assert np.std(first) == pytest.approx(0.5, rel=0.1)


def test_properties() -> None:
    estimator = FastEstimator(default_precision=0.25, seed=7, dtype=np.complex64, num_threads=2)
    assert (estimator.default_precision, estimator.seed) == (0.25, 7)
    assert (estimator.options.dtype, estimator.options.num_threads) == ("complex64", 2)
    assert FastEstimator().default_precision == StatevectorEstimator().default_precision == 0.0


def test_circuit_metadata_and_many_pubs() -> None:
    circuit = PLAIN.copy()
    circuit.metadata = {"name": "bell"}
    result = FastEstimator().run([(circuit, "ZZ"), (PLAIN, "XX")]).result()
    assert [r.metadata["circuit_metadata"] for r in result] == [{"name": "bell"}, PLAIN.metadata]
    assert list(FastEstimator().run([]).result()) == []


def test_final_measurements_are_ignored() -> None:
    measured = CIRCUIT.copy()
    measured.measure_all()
    np.testing.assert_array_equal(*evs(FastEstimator(), (measured, "ZXZ", VALUES), (CIRCUIT, "ZXZ", VALUES)))


@pytest.mark.parametrize("label", ["01+", "-rl", "ZX0"])
def test_projectors(label: str) -> None:
    bound = Statevector(CIRCUIT.assign_parameters(VALUES[0, 0]))
    expected = bound.expectation_value(SparsePauliOp.from_sparse_observable(SparseObservable(label).as_paulis()))
    assert evs(FastEstimator(), (CIRCUIT, label, VALUES[0, 0]))[0] == pytest.approx(expected.real, abs=1e-12)


def test_a_transpiled_circuit_with_layout() -> None:
    isa = transpile(CIRCUIT, coupling_map=[[4, 2], [2, 0], [0, 1], [1, 3]], initial_layout=[3, 0, 4], seed_transpiler=1)
    operator = OPERATORS[1].apply_layout(isa.layout)
    ours, theirs = (evs(e, (isa, operator, VALUES))[0] for e in (FastEstimator(), StatevectorEstimator()))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(ours, evs(FastEstimator(), (CIRCUIT, OPERATORS[1], VALUES))[0], atol=1e-12)


SHAPES = [((2, 3), (4, 1, 1)), ((6,), (1,)), ((3, 2), (2,)), ((6, 1), (5,)), ((6,), ()), ((6,), (2, 6))]


def random_pub(rng: np.random.Generator) -> Any:
    """A random circuit, random operators, and shapes that broadcast."""
    n = int(rng.integers(1, 5))
    circuit = n_local(n, ["rx", "p"], "crz" if n > 1 else [], reps=int(rng.integers(0, 3)))
    labels = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(3)]
    shape, sets = SHAPES[rng.integers(len(SHAPES))]
    operators = np.empty(shape, object)
    for place in np.ndindex(shape):
        operators[place] = SparsePauliOp(rng.permutation(labels).tolist(), rng.normal(size=3))
    return circuit, operators, rng.normal(size=(*sets, circuit.num_parameters))


@pytest.mark.parametrize("seed", range(12))
def test_random_pubs(seed: int) -> None:
    pub = random_pub(np.random.default_rng(seed))
    ours = FastEstimator(seed=seed, default_precision=0.01).run([pub]).result()[0].data.evs
    theirs = StatevectorEstimator(seed=seed, default_precision=0.01).run([pub]).result()[0].data.evs
    np.testing.assert_allclose(ours, theirs, atol=1e-11)


# --- Errors -------------------------------------------------------------------------------------------------


BAD_PUBS: dict[str, Any] = {
    "a bare circuit": PLAIN,
    "too short": (PLAIN,),
    "too long": (PLAIN, "ZZ", [], 0.1, 3),
    "too narrow": (PLAIN, "Z"),
    "too wide": (PLAIN, ["ZZZ"]),
    "mixed widths": (PLAIN, ["ZZ", "Z"]),
    "not Hermitian": (PLAIN, SparsePauliOp(["ZZ"], [1j])),
    "no operator": (PLAIN, "AB"),
    "a sum that is zero": (PLAIN, SparsePauliOp(["ZZ", "ZZ"], [1, -1])),
    "too few values": (CIRCUIT, "ZZZ", VALUES[..., :-1]),
    "no values": (CIRCUIT, "ZZZ"),
    "values for none": (PLAIN, "ZZ", [0.1]),
    "not broadcastable": (CIRCUIT, ["ZZZ", "XXX", "YYY"], VALUES[:, 0]),
    "negative precision": (PLAIN, "ZZ", None, -0.1),
}


@pytest.mark.parametrize("pub", BAD_PUBS.values(), ids=BAD_PUBS)
@pytest.mark.parametrize("make", [StatevectorEstimator, FastEstimator])
def test_the_same_value_errors(pub: Any, make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the messages are Qiskit's)
        make().run([pub])


@pytest.mark.parametrize("precision", [-1.0, "high"])
def test_a_bad_precision(precision: Any) -> None:
    kind = TypeError if precision == "high" else ValueError
    for make in (StatevectorEstimator, FastEstimator):
        with pytest.raises(kind, match="precision"):
            make().run([(PLAIN, "ZZ")], precision=precision)


def test_an_unknown_parameter_name() -> None:
    values = named(CIRCUIT, VALUES) | {"nobody": VALUES[..., 0]}
    del values[CIRCUIT.parameters[0].name]
    with pytest.raises(ValueError, match="nobody"):
        FastEstimator().run([(CIRCUIT, "ZZZ", values)]).result()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    values = VALUES.reshape(8, 12).copy()
    values[5, 2] = bad
    with pytest.raises(_errors.ParameterError, match=rf"{CIRCUIT.parameters[2].name[0]}.* is {bad} in sample 5"):
        FastEstimator().run([(CIRCUIT, "ZZZ", values)]).result()


def test_a_while_loop_is_refused() -> None:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.while_loop((circuit.clbits[0], 1)):
        circuit.x(1)
    with pytest.raises(_errors.CircuitError, match="'while_loop' is not simulated"):
        FastEstimator().run([(circuit, "ZZ")]).result()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dtype": "float64"}, _errors.DtypeError, "'float64' is not supported; use one of complex128"),
        ({"dtype": "nonsense"}, _errors.DtypeError, "nonsense"),
        ({"dtype": None}, _errors.DtypeError, "None is not supported"),
        ({"num_threads": -1}, _errors.ParameterError, "num_threads"),
        ({"num_threads": 1.5}, _errors.ParameterError, "num_threads"),
        ({"executor": 4}, _errors.ParameterError, "executor must be .*have its interface, not 4; give"),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FastEstimator(**options)
    assert issubclass(kind, ValueError | TypeError)


def test_everything_is_by_keyword() -> None:
    with pytest.raises(TypeError, match="positional"):
        FastEstimator(0.1)


# --- What is computed how often -----------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(parameter sets, observables) of every simulation that runs."""
    seen: list[tuple[int, int]] = []
    original = Simulation.values

    def values(self: Simulation, rows: np.ndarray) -> np.ndarray:
        seen.append((len(rows), len(self.engine.output.observables)))
        return original(self, rows)

    monkeypatch.setattr(Simulation, "values", values)
    return seen


@pytest.mark.parametrize(
    ("pub", "expected"),
    [
        ((CIRCUIT, [[o] for o in OPERATORS], VALUES[:, 0]), (4, 4)),
        ((CIRCUIT, ["ZZZ", "XXX", "ZZZ", "ZZZ"], VALUES[0, 0]), (1, 2)),
        ((CIRCUIT, "ZZZ", VALUES), (8, 1)),
    ],
)
def test_each_parameter_set_is_evolved_once(calls: list[tuple[int, int]], pub: Any, expected: tuple[int, int]) -> None:
    FastEstimator().run([pub]).result()
    assert calls == [expected]


@pytest.mark.slow
def test_zipped_sets_and_observables_do_not_explode(
    calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every set once, and far fewer values than sets times observables."""
    monkeypatch.setattr(primitives, "_CHEAP", 1 << 8)
    rng = np.random.default_rng(0)
    circuit, count = real_amplitudes(2, reps=1), 300
    operators = [SparsePauliOp(["ZZ", "XX"], c) for c in rng.normal(size=(count, 2))]
    values = rng.normal(size=(count, 4))
    ours, theirs = (evs(e, (circuit, operators, values))[0] for e in (FastEstimator(), StatevectorEstimator()))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert sum(sets for sets, _ in calls) == count
    assert sum(sets * observables for sets, observables in calls) <= 32 * count < count**2
    assert len(calls) < count


def test_sets_that_want_the_same_observables_run_together(
    calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primitives, "_CHEAP", 0)
    operators = np.array(["ZZZ", "XXX", "IYI", "ZII", "IXX", "YYY"], object).reshape(1, 2, 3)
    values = np.random.default_rng(1).normal(size=(5, 1, 3, 12))
    pub = (CIRCUIT, operators, values)
    ours, theirs = (evs(e, pub)[0] for e in (FastEstimator(), StatevectorEstimator()))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert calls == [(5, 2)] * 3


def test_a_pub_in_a_loop_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def make(*arguments: Any) -> Simulation:
        made.append(arguments)
        return Simulation(*arguments)

    monkeypatch.setattr(primitives, "Simulation", make)
    estimator = FastEstimator()
    for row in VALUES[:, 0]:
        copied = CIRCUIT.copy()  # equal circuits are one
        (value,) = evs(estimator, (copied, SparsePauliOp(["ZZZ", "XII"], [1, 2]), row))
        (expected,) = evs(StatevectorEstimator(), (CIRCUIT, SparsePauliOp(["ZZZ", "XII"], [1, 2]), row))
        assert value == pytest.approx(expected, abs=1e-12)
    assert len(made) == 1


def test_a_circuit_changed_in_place_is_another() -> None:
    estimator, circuit = FastEstimator(), QuantumCircuit(1)
    assert evs(estimator, (circuit, "Z"))[0] == pytest.approx(1)
    circuit.x(0)
    assert evs(estimator, (circuit, "Z"))[0] == pytest.approx(-1)
    assert evs(estimator, (circuit, SparsePauliOp("Z", 2.0)))[0] == pytest.approx(-2)


def test_many_circuits_pass_through_the_cache() -> None:
    estimator = FastEstimator()
    for repeat in range(2):
        for k in range(70):
            circuit = QuantumCircuit(1)
            circuit.ry(k / 10, 0)
            assert evs(estimator, (circuit, "Z"))[0] == pytest.approx(np.cos(k / 10)), (repeat, k)
    assert len(estimator._simulations._known) == 64
