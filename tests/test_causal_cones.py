"""Causal cones: wide circuits are exact, idle qubits cost nothing, equal cones share one schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_cases import UNITARY, differences, expectation_values, random_circuit, random_observables
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import StatePreparation, efficient_su2
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import CouplingMap

import qtm
from qtm._bench.matrix_product_states import xxz
from qtm._bench.wide import brick
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities
from qtm._engines.simulation import Simulation
from qtm._engines.statevector import cone_groups, engine

LINE = 156  # qubits of a device


@pytest.fixture
def every_cone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split where it does not pay too, so that small circuits can be checked."""
    monkeypatch.setattr(engine, "known_cones", cone_groups.cones_of)  # past the cache
    monkeypatch.setattr(cone_groups, "_SPLIT_BITS", 0)
    monkeypatch.setattr(cone_groups, "_WORTH_MERGING", 0.0)
    monkeypatch.setattr(cone_groups._Grouping, "_one_is_cheaper", lambda *_: False)
    original = cone_groups._Grouping.__init__
    monkeypatch.setattr(
        cone_groups._Grouping,
        "__init__",
        lambda self, program, strings, stop_early: original(self, program, strings, False),
    )


def simulated(circuit: QuantumCircuit, observables, **options) -> Simulation:
    output = Expectation(coerce_observables(observables, circuit.num_qubits))
    return Simulation(circuit, list(circuit.parameters), output, Options(num_threads=1, **options))


def agrees(circuit: QuantumCircuit, observables, batch: int = 3, error: float = 1e-10) -> Simulation:
    simulation = simulated(circuit, observables)
    at = np.random.default_rng(1).uniform(-3, 3, (batch, circuit.num_parameters))
    expected = expectation_values(circuit, list(circuit.parameters), at, observables)
    np.testing.assert_allclose(simulation.values(at), expected, atol=error)
    angles, prepared = simulation.arguments(at)
    if angles.shape[1] and not prepared:
        cotangent = torch.from_numpy(np.random.default_rng(2).normal(size=expected.shape))
        slopes = differences(lambda a: simulation.engine.forward(torch.from_numpy(a), [])[0].numpy(), angles.numpy())
        found, _ = simulation.engine.vjp(angles, prepared, cotangent)
        np.testing.assert_allclose(found, np.einsum("bm,bmk->bk", cotangent, slopes), atol=1e-7)
    return simulation


@pytest.mark.usefixtures("every_cone_alone")
@pytest.mark.parametrize("seed", range(12))
def test_random_circuits_in_cones(seed):
    """Any gates, strings that see everything, something or nothing, several observables that share strings."""
    num_qubits = 3 + seed % 3
    circuit = random_circuit(1000 + seed, num_qubits, 8, UNITARY)
    agrees(circuit, random_observables(seed, num_qubits), batch=2)


@pytest.mark.usefixtures("every_cone_alone")
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.thinned(2)
def test_bricks_in_cones(dtype):
    circuit = brick(8, 2)
    simulation = agrees(circuit, [xxz(8, ring=False), SparsePauliOp.from_sparse_list([("Z", [3], 2.0)], 8)])
    assert len(simulation.engine.cones) > 3
    single = simulated(circuit, [xxz(8, ring=False)], dtype=dtype)
    at = np.random.default_rng(1).uniform(-3, 3, (17, circuit.num_parameters))
    expected = expectation_values(circuit, list(circuit.parameters), at, [xxz(8, ring=False)])
    np.testing.assert_allclose(single.values(at), expected, atol=1e-10 if dtype == "complex128" else 1e-4)


@pytest.mark.usefixtures("every_cone_alone")
@pytest.mark.parametrize("seed", range(4))
def test_prepared_amplitudes_in_cones(seed):
    """Two preparations with parameters: cones that see both, one, or none of them, and their derivatives."""
    rng = np.random.default_rng(seed)
    weights = ParameterVector("w", 6)
    circuit = QuantumCircuit(6)
    for qubits in ([0, 1], [4, 2]):
        amplitudes = rng.normal(size=4) + 1j * rng.normal(size=4)
        circuit.append(StatePreparation(amplitudes / np.linalg.norm(amplitudes)), qubits)
    for qubit, weight in enumerate(weights):
        circuit.ry(weight, qubit)
    circuit.cx(1, 3)
    circuit.cx(2, 5)
    labels = ["IIIIIZ", "IIIIXX", "IIZIII", "ZIIYII", "IZZIII", "IIXIIY"]
    simulation = agrees(circuit, [SparsePauliOp(labels, rng.normal(size=6)), SparsePauliOp("ZZZZZZ")])
    angles, prepared = simulation.arguments(rng.uniform(-1, 1, (2, 6)))
    leaves = [p.clone().requires_grad_() for p in prepared]
    cotangent = torch.from_numpy(rng.normal(size=(2, 2)))
    _, by_prepared = simulation.engine.vjp(angles, prepared, cotangent, by_prepared=True)
    for number, (leaf, found) in enumerate(zip(leaves, by_prepared, strict=True)):
        for index in range(leaf.shape[1]):
            for step in (1e-6, 1e-6j):
                moved = [[p.clone() for p in prepared] for _ in range(2)]
                for sign, amplitudes in zip((1, -1), moved, strict=True):
                    amplitudes[number][0, index] += sign * step
                up, down = (simulation.engine.forward(angles, amplitudes)[0] for amplitudes in moved)
                slope = ((up - down) * cotangent).sum() / 2e-6
                part = found[0, index].real if step == 1e-6 else found[0, index].imag
                assert part.item() == pytest.approx(slope.item(), abs=1e-6)


def test_equal_cones_share_a_schedule_and_wide_circuits_are_exact():
    circuit = brick(60, 3)
    simulation = simulated(circuit, [xxz(60, ring=False)])
    assert len(simulation.engine.arrays.batches) < 10 < len(simulation.engine.cones)
    at = np.random.default_rng(0).uniform(-3, 3, (1, circuit.num_parameters))
    # The middle bond of the long brick against a short one, cut out so that its cone fits.
    left, width = 24, 12
    names = [
        f"t[{2 * 60 * layer + gate * 60 + q}]"
        for layer in range(3)
        for gate in (0, 1)
        for q in range(left, left + width)
    ]
    values = dict(zip((p.name for p in circuit.parameters), at[0], strict=True))
    short = brick(width, 3)
    by_vector = {p.index: name for p, name in zip(sorted(short.parameters, key=lambda p: p.index), names, strict=True)}
    bond = SparsePauliOp.from_sparse_list([("XX", [5, 6], 1.0), ("ZZ", [5, 6], 0.3)], width)
    row = np.array([[values[by_vector[p.index]] for p in short.parameters]])
    expected = expectation_values(short, list(short.parameters), row, [bond])
    far = SparsePauliOp.from_sparse_list([("XX", [left + 5, left + 6], 1.0), ("ZZ", [left + 5, left + 6], 0.3)], 60)
    np.testing.assert_allclose(simulated(circuit, [far]).values(at), expected, atol=1e-10)


def on_the_line(circuit: QuantumCircuit) -> QuantumCircuit:
    """A circuit of five qubits in the middle of a device."""
    line = CouplingMap.from_line(LINE)
    return transpile(
        circuit, coupling_map=line, basis_gates=["rz", "sx", "x", "cz"], initial_layout=[70, 71, 72, 73, 74],
        optimization_level=0,
    )  # fmt: skip


def test_a_laid_out_circuit_through_every_estimator():
    circuit = efficient_su2(5, reps=1)
    physical, observable = on_the_line(circuit), SparsePauliOp(["ZZIII", "IXYIZ", "IIIIX"], [0.5, 1.0, -2.0])
    wide = observable.apply_layout(physical.layout)
    at = np.random.default_rng(0).uniform(-3, 3, (3, circuit.num_parameters))
    expected = StatevectorEstimator().run([(circuit, observable, at)]).result()[0].data.evs
    found = qtm.FastEstimator().run([(physical, wide, at)]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, atol=1e-10)
    module = qtm.QuantumModule(physical, physical.parameters, [], observables=[wide]).double()
    np.testing.assert_allclose(module(torch.from_numpy(at))[:, 0].detach(), expected, atol=1e-10)
    assert module.plan().states == ((5.0, 1),)
    network = qtm.EstimatorQNN(circuit=physical, observables=[wide], input_params=list(physical.parameters))
    np.testing.assert_allclose(network.forward(at, [])[:, 0], expected, atol=1e-10)
    exact = qtm.FastReverseEstimatorGradient().run([circuit], [observable], [at[0]]).result().gradients[0]
    gradient = qtm.FastReverseEstimatorGradient().run([physical], [wide], [at[0]]).result().gradients[0]
    np.testing.assert_allclose(gradient, exact, atol=1e-9)


def test_a_laid_out_circuit_through_every_sampler():
    circuit = efficient_su2(5, reps=1)
    circuit.measure_all()
    measured = on_the_line(circuit)
    at = np.random.default_rng(0).uniform(-3, 3, circuit.num_parameters)
    theirs = StatevectorSampler(seed=3).run([(circuit, at)], shots=500).result()[0].data.meas.get_counts()
    ours = qtm.FastSampler(seed=3).run([(measured, at)], shots=500).result()[0].data.meas.get_counts()
    assert ours == theirs
    network = qtm.SamplerQNN(circuit=measured, input_params=list(measured.parameters))
    exact = qtm.FastSampler().probabilities(circuit, at)
    np.testing.assert_allclose(network.forward(at, [])[0], exact, atol=1e-10)


def test_probabilities_of_chosen_qubits_of_a_wide_circuit():
    circuit = brick(100, 2)
    simulation = Simulation(circuit, list(circuit.parameters), Probabilities((51, 50)), Options(num_threads=1))
    at = np.random.default_rng(0).uniform(-3, 3, (2, circuit.num_parameters))
    labels = [("", [], 1.0), ("Z", [51], 1.0), ("Z", [50], 1.0), ("ZZ", [50, 51], 1.0)]
    operators = [SparsePauliOp.from_sparse_list([term], 100) for term in labels]
    z = simulated(circuit, operators).values(at)
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # of outcomes, by string
    np.testing.assert_allclose(simulation.values(at), z @ signs / 4, atol=1e-10)


def test_a_cone_too_wide_is_refused_with_its_bits():
    circuit = QuantumCircuit(80)
    angles = ParameterVector("a", 160)
    for layer in range(2):
        for qubit in range(80):
            circuit.ry(angles[80 * layer + qubit], qubit)
        for a in range(79):
            circuit.cx(a, a + 1)
    observable = SparsePauliOp.from_sparse_list([("Z", [79], 1.0)], 80)
    with pytest.raises(
        qtm.UnsupportedError, match=r"'statevector' needs 2\^\d+ amplitudes, because the observables depend on"
    ):
        qtm.QuantumModule(circuit, None, circuit.parameters, observables=[observable], method="statevector")
