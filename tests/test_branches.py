"""Sampled branches of dynamic circuits: every branch against deferred measurement, averages within their error."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch
from circuit_cases import random_observables
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.circuit.classical import expr
from test_dynamic import CASES, T

import qtm
from qtm._circuit.branching import Measurement, branching, every_step
from qtm._circuit.observables import coerce_observables
from qtm._engines import memory
from qtm._engines.branches.engine import BranchEngine, Branches, Residuals
from qtm._engines.branches.rows import Split
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._errors import CircuitError, OutOfMemory, ParameterError, UnsupportedError


def nested() -> QuantumCircuit:
    """Conditions, a switch and a reset inside each other and inside a loop, on bits of two registers."""
    a, b = ClassicalRegister(2, "a"), ClassicalRegister(1, "b")
    circuit = QuantumCircuit(QuantumRegister(2, "p"), QuantumRegister(1, "q"), a, b)
    circuit.ry(T[0], 0)
    with circuit.for_loop(range(2)) as turn:
        circuit.cry(T[1] + turn, 0, 1)
        circuit.measure(1, a[0])
        with circuit.if_test((a[0], 1)) as else_:
            circuit.reset(1)
            circuit.rx(T[2], 2)
            circuit.measure(2, b[0])
            with circuit.switch(expr.lift(a)) as case:
                with case(3):
                    circuit.ry(T[3], 0)
                with case(case.DEFAULT):
                    circuit.rzz(T[4], 0, 2)
        with else_:
            circuit.h(0)
    with circuit.if_test((b, 1)):
        circuit.measure(0, a[1])
    circuit.rx(T[5], 0)
    return circuit


def preparations() -> QuantumCircuit:
    """Amplitudes at the start, after a measurement of another qubit, and by gates under a condition."""
    features = pytest.importorskip("qiskit_machine_learning.circuit.library").raw_feature_vector(2)
    circuit = QuantumCircuit(3, 1)
    circuit.compose(features, [0], inplace=True)
    circuit.measure(0, 0)
    circuit.prepare_state([0.6, 0.8j], 1)
    with circuit.if_test((0, 1)):
        circuit.prepare_state([0.8, -0.6], 2)
        circuit.ry(T[0], 1)
    circuit.cx(1, 2)
    circuit.rx(T[1], 0)
    return circuit


def never_measured() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.ry(T[0], 0)
    circuit.cx(0, 1)
    with circuit.if_test((0, 0)):
        circuit.rx(T[1], 1)
    return circuit


EVERY = (*CASES, nested, preparations, never_measured)
each_case = pytest.mark.parametrize("build", EVERY, ids=lambda build: build.__name__)


def values_of(circuit: QuantumCircuit) -> torch.Tensor:
    drawn = np.random.default_rng(5).uniform(0.3, 2.8, circuit.num_parameters)
    return torch.tensor(drawn, requires_grad=True)


def simulation(circuit: QuantumCircuit, method: object, dtype: str = "complex128", **options: object) -> Simulation:
    observables = coerce_observables(random_observables(2, circuit.num_qubits), circuit.num_qubits)
    kind = Options(dtype, 1, method=method, **options)  # type: ignore[arg-type]
    return Simulation(circuit, list(circuit.parameters), Expectation(observables), kind)


def result(made: Simulation, weights: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Values (observables,), and the derivatives (parameters,) of their sum."""
    angles, prepared = made.torch_arguments(None, weights, 1)
    with torch.no_grad():
        values, kept = made.engine.forward(angles, prepared, keep=True)
        found = made.engine.vjp(angles, prepared, torch.ones_like(values), kept, by_prepared=True)
    return values[0].numpy(), pulled(weights, angles, prepared, *found)


def pulled(weights, angles, prepared, by_angles, by_prepared) -> np.ndarray:
    """Derivatives (parameters,) from those by angles and by prepared amplitudes."""
    outputs = [
        (t, g) for t, g in zip((angles, *prepared), (by_angles, *(by_prepared or ())), strict=True) if t.requires_grad
    ]
    total = torch.autograd.grad([t for t, _ in outputs], weights, [g for _, g in outputs], True, allow_unused=True)[0]
    return np.zeros(len(weights)) if total is None else total.numpy()


def every_branch(made: Simulation, weights: torch.Tensor) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """The probability of every branch, its values, and the derivatives that are averaged, without a baseline."""
    engine = made.engine
    assert isinstance(engine, BranchEngine)
    angles, prepared = made.torch_arguments(None, weights, 1)
    seen = set()
    for drawn in product((0.0, 1 - 2.0**-53), repeat=engine.measurements):
        with torch.no_grad():
            walk = engine._walk(angles, prepared, np.arange(1), np.array(drawn)[:, None], keep=True)
            splits = [item for item in walk.tape if isinstance(item, Split)]
            outcomes = tuple(int(split.outcome[0]) for split in splits)
            if outcomes in seen:  # the numbers differ for a measurement that is not made
                continue
            seen.add(outcomes)
            values = walk.values()
            by_angles = np.zeros(angles.shape)
            by_prepared = [torch.zeros_like(p) for p in prepared]
            walk.differentiate(np.ones_like(values), np.zeros(1), by_angles, by_prepared)
        chance = float(np.prod([split.scale[0] ** -2 for split in splits]))
        yield (
            chance,
            values[0] + engine.constants,
            pulled(weights, angles, prepared, torch.from_numpy(by_angles), by_prepared),
        )


@pytest.mark.thinned(3)
@each_case
def test_the_sum_over_all_branches_is_exact(build: Callable[[], QuantumCircuit]) -> None:
    circuit = build()
    weights = values_of(circuit)
    exact = simulation(circuit, "statevector")
    values, gradient = result(exact, weights)
    found = list(every_branch(simulation(circuit, "branches"), weights))
    assert sum(chance for chance, _, _ in found) == pytest.approx(1)
    np.testing.assert_allclose(sum(p * v for p, v, _ in found), values, atol=1e-10)
    np.testing.assert_allclose(sum(p * g for p, _, g in found), gradient, atol=1e-9)


@pytest.mark.thinned(14)
@each_case
@pytest.mark.parametrize("count", [2, 40])
def test_averages_and_derivatives_are_unbiased(build: Callable[[], QuantumCircuit], count: int) -> None:
    """The mean over many runs is within five of its standard deviations, as the runs themselves show them."""
    circuit = build()
    weights, runs = values_of(circuit), 150
    exact = result(simulation(circuit, "statevector"), weights)
    torch.manual_seed(0)
    made = simulation(circuit, Branches(count))
    found = [result(made, weights) for _ in range(runs)]
    for part, expected in enumerate(exact):
        rows = np.array([row[part] for row in found])
        deviation = rows.std(0, ddof=1) / np.sqrt(runs)
        assert (deviation < 1).all()
        assert (np.abs(rows.mean(0) - expected) <= 5 * deviation + 1e-9).all()


@pytest.mark.slow
def test_the_baseline_lowers_the_variance() -> None:
    circuit = nested()
    weights = values_of(circuit)
    torch.manual_seed(0)
    made = simulation(circuit, Branches(16))
    with_it = np.var([result(made, weights)[1] for _ in range(150)], 0)
    made.engine._baseline = np.zeros_like  # type: ignore[method-assign, union-attr]
    without = np.var([result(made, weights)[1] for _ in range(150)], 0)
    assert with_it.sum() < 0.8 * without.sum()


def test_trajectories_that_share_outcomes_share_a_state() -> None:
    circuit = nested()
    made = simulation(circuit, Branches(2000, seed=0)).engine
    assert isinstance(made, BranchEngine)
    angles = torch.zeros(3, made.circuit.angles.__len__(), dtype=torch.float64)
    uniform = np.random.default_rng(0).random((made.measurements, 6000))
    walk = made._walk(angles + 0.5, [], np.arange(6000), uniform)
    assert len(walk.rows.states) <= 3 * 2**made.measurements
    norms = np.linalg.norm(walk.rows.states, axis=1)
    np.testing.assert_allclose(norms, 1)


@pytest.mark.thinned(4)
@each_case
def test_parts_that_fit_the_memory_give_the_same(build, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = build()
    weights = values_of(circuit)
    whole = result(simulation(circuit, Branches(10, seed=1)), weights)
    monkeypatch.setattr(memory, "SMALL", 0)
    size = 16 << circuit.num_qubits
    small = simulation(circuit, Branches(10, seed=1), memory=60 * size)
    engine = small.engine
    assert isinstance(engine, BranchEngine)
    assert len(engine._parts(1, engine._saved)) > 1 or not engine.measurements
    for found, expected in zip(result(small, weights), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    with pytest.raises(OutOfMemory, match="states of one trajectory"):
        result(simulation(circuit, Branches(10), memory=size), weights)


def test_samples_of_a_batch_are_independent_of_each_other() -> None:
    circuit = nested()
    module = qtm.QuantumModule(
        circuit,
        circuit.parameters[:2],
        circuit.parameters[2:],
        method=("branches", {"count": 4000, "seed": 3}),
        seed_init=0,
    ).double()
    exact = qtm.QuantumModule(circuit, circuit.parameters[:2], circuit.parameters[2:], seed_init=0).double()
    inputs = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2)
    torch.testing.assert_close(module(inputs), exact(inputs), atol=5 / np.sqrt(4000), rtol=0)
    leaves = [inputs.clone().requires_grad_() for _ in range(2)]
    for each, leaf in zip((module, exact), leaves, strict=True):
        each(leaf).sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, atol=0.4, rtol=0)
    assert module(torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 3)


def test_seeds_and_pickles() -> None:
    circuit = nested()
    weights = values_of(circuit)
    fixed = simulation(circuit, Branches(8, seed=1))
    first = result(fixed, weights)
    np.testing.assert_array_equal(result(fixed, weights)[0], first[0])
    angles, prepared = fixed.torch_arguments(None, weights, 1)
    copied = pickle.loads(pickle.dumps(fixed.engine)).forward(angles.detach(), prepared)[0][0].numpy()
    np.testing.assert_allclose(copied, first[0])
    torch.manual_seed(4)
    free = simulation(circuit, "branches")
    one, two = result(free, weights)[0], result(free, weights)[0]
    assert np.abs(one - two).max() > 1e-3
    torch.manual_seed(4)
    np.testing.assert_array_equal(result(free, weights)[0], one)
    single = result(simulation(circuit, Branches(8, seed=1), "complex64"), weights.detach().float().requires_grad_())
    for found, expected in zip(single, first, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_what_deferred_measurement_cannot_hold() -> None:
    def long(count: int) -> QuantumCircuit:
        circuit = QuantumCircuit(2, 1)
        t = Parameter("t")
        with circuit.for_loop(range(count)):
            circuit.ry(t, 0)
            circuit.ry(t, 1)
            circuit.cx(0, 1)
            circuit.measure(1, 0)
            with circuit.if_test((0, 1)):
                circuit.rx(t, 0)
        return circuit

    with pytest.raises(OutOfMemory, match=r"adds 20 qubits to the 2 of the circuit.*method=\"branches\""):
        simulation(long(20), "statevector", memory=1 << 25)
    with pytest.raises(UnsupportedError, match=r"adds 90 qubits.*method=\"branches\""):
        simulation(long(90), "auto")
    made = simulation(long(90), Branches(200, seed=0))
    plan = made.plan(1)
    assert plan.method == "branches" and plan.states == ((2.0, 200),)
    assert "200 sampled branches" in str(plan) and "not exact" in str(plan)
    assert np.isfinite(result(made, values_of(long(1)))[1]).all()
    short = simulation(long(6), Branches(20_000, seed=0)), simulation(long(6), "auto")
    values, exact = (result(each, values_of(long(1)))[0] for each in short)
    np.testing.assert_allclose(values, exact, atol=5 * 2 / np.sqrt(20_000))


def test_what_is_refused() -> None:
    circuit = nested()
    module = qtm.QuantumModule
    with pytest.raises(ParameterError, match="its options are count, seed$"):
        module(circuit, None, circuit.parameters, method=("branches", {"shots": 3}))
    with pytest.raises(UnsupportedError, match="simulates no noise; use method='density_matrix'$"):
        module(circuit, None, circuit.parameters, method="branches", noise=qtm.noise.depolarizing_noise(0.1))
    with pytest.raises(UnsupportedError, match="gives no Probabilities, only expectation values"):
        module(circuit, None, circuit.parameters, method="branches", outputs="probabilities")
    with pytest.raises(ParameterError, match="count must be"):
        Branches(0)
    with pytest.raises(ParameterError, match="seed must be"):
        Branches(seed=-1)
    late = QuantumCircuit(2, 1)
    late.h(0)
    late.measure(0, 0)
    late.initialize([0.6, 0.8], 0)
    with pytest.raises(CircuitError, match="used before"):
        branching(late)
    late = QuantumCircuit(1, 1)
    late.h(0)
    late.measure(0, 0)
    with late.if_test((0, 1)):
        late.initialize([0.6, 0.8], 0)
    with pytest.raises(CircuitError, match="under a condition"):
        branching(late)


def test_measurements_are_numbered_in_order() -> None:
    steps = branching(nested()).steps
    numbers = [step.number for step in every_step(steps) if isinstance(step, Measurement)]
    assert numbers == list(range(len(numbers))) and len(numbers) == 7


def test_an_estimator_takes_it() -> None:
    circuit = nested()
    at = values_of(circuit).detach().numpy()
    observable = "ZIX"
    exact = qtm.FastEstimator().run([(circuit, observable, at)]).result()[0].data.evs
    sampled = qtm.FastEstimator(method=Branches(10_000, seed=0)).run([(circuit, observable, at)]).result()[0].data.evs
    assert float(sampled) == pytest.approx(float(exact), abs=5 / 100)


def test_residuals_are_those_of_the_call() -> None:
    """A reverse sweep follows the trajectories of its forward pass."""
    circuit = nested()
    made = simulation(circuit, Branches(3))
    angles, prepared = made.torch_arguments(None, values_of(circuit), 1)
    angles = angles.detach()
    values, kept = made.engine.forward(angles, prepared, keep=True)
    assert isinstance(kept, Residuals) and kept.uniform.shape == (7, 3)
    again = [made.engine.vjp(angles, prepared, torch.ones_like(values), kept)[0] for _ in range(2)]
    torch.testing.assert_close(*again)
