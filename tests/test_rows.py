"""What reads or writes rows of a state by number, in both kinds of lanes: states, outcomes, prepared amplitudes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector

import qtm
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities, State
from qtm._engines.simulation import Simulation
from qtm._engines.statevector.schedule import schedule
from qtm.circuits import amplitude_encoding

N = 8  # rows of more bits than decide on the set of the cache
CIRCUIT = efficient_su2(N, reps=1, entanglement="pairwise")
LABELS = ["ZIIIIIIX", "IYXIIZII", "Z" * N]
QUBITS = (6, 0, 3)
each_lanes = pytest.mark.parametrize("lane_kind", ["sample", "amplitude"])
each_batch = pytest.mark.parametrize("batch", [1, 9])


def points(circuit: QuantumCircuit, batch: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-3, 3, (batch, circuit.num_parameters))


def outputs_of(circuit: QuantumCircuit, output, lane_kind: str, values: np.ndarray) -> np.ndarray:
    return Simulation(circuit, list(circuit.parameters), output, Options(lane_kind=lane_kind)).values(values)


@each_lanes
@each_batch
def test_states_outcomes_and_values_agree_with_qiskit(lane_kind, batch):
    values = points(CIRCUIT, batch)
    states = [Statevector(CIRCUIT.assign_parameters(v)) for v in values]
    observables = [SparsePauliOp(label) for label in LABELS]
    expected = {
        State(): [s.data for s in states],
        Probabilities(QUBITS): [s.probabilities(QUBITS) for s in states],
        Expectation(coerce_observables(LABELS, N)): [
            [s.expectation_value(o).real for o in observables] for s in states
        ],
    }
    for output, wanted in expected.items():
        np.testing.assert_allclose(outputs_of(CIRCUIT, output, lane_kind, values), np.array(wanted), atol=1e-9)


@each_lanes
@each_batch
def test_prepared_amplitudes_agree_with_qiskit(lane_kind, batch):
    encoding, ansatz = amplitude_encoding(1 << N), real_amplitudes(N, reps=1)
    circuit = encoding.circuit.compose(ansatz)
    parameters = [*encoding.encoding_params, *ansatz.parameters]
    rng = np.random.default_rng(6)
    features, weights = rng.normal(size=(batch, 1 << N)), rng.uniform(-3, 3, ansatz.num_parameters)
    values = np.concatenate([features, np.broadcast_to(weights, (batch, len(weights)))], 1)
    rotation = ansatz.assign_parameters(weights)
    states = [Statevector(row / np.linalg.norm(row)).evolve(rotation) for row in features]
    observables = [SparsePauliOp(label) for label in LABELS]
    expected = {
        State(): [s.data for s in states],
        Probabilities(QUBITS): [s.probabilities(QUBITS) for s in states],
        Expectation(coerce_observables(LABELS, N)): [
            [s.expectation_value(o).real for o in observables] for s in states
        ],
    }
    for output, wanted in expected.items():
        made = Simulation(circuit, parameters, output, Options(lane_kind=lane_kind))
        np.testing.assert_allclose(made.values(values), np.array(wanted), atol=1e-9)


def test_rows_have_the_same_numbers_in_both_kinds_of_lanes():
    prepared = amplitude_encoding(1 << N).circuit.compose(CIRCUIT)
    whole = Expectation(coerce_observables(LABELS, N))
    for circuit, output in ((CIRCUIT, State()), (CIRCUIT, Probabilities(QUBITS)), (prepared, whole)):
        engine = Simulation(circuit, list(circuit.parameters), output, Options()).engine
        for cone in engine.cones:
            assert schedule(cone.program, 0).basis == schedule(cone.program, 3).basis


def test_derivatives_of_states_and_outcomes_agree_with_finite_differences():
    for outputs in ("state", ("probabilities", {"qubits": list(QUBITS)})):
        model = qtm.QuantumModule(CIRCUIT, None, CIRCUIT.parameters, outputs=outputs, seed_init=2).double()
        target = torch.randn(model.output_size, dtype=model().dtype, generator=torch.Generator().manual_seed(1))

        def loss(weights, model=model, target=target):
            return (torch.func.functional_call(model, {"variational": weights}, ()) - target).abs().square().sum()

        weights = model.variational.detach()
        (gradient,) = torch.autograd.grad(loss(model.variational), [model.variational])
        along = torch.randn(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        slope = (loss(weights + 1e-5 * along) - loss(weights - 1e-5 * along)) / 2e-5
        torch.testing.assert_close(gradient @ along, slope.detach(), atol=1e-7, rtol=0)
