"""The trainings of Fig. 9: energies, circuits and starts against independent computations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from qtm import bench
from qtm._bench import ground_states
from qtm._bench.compare import disagreement
from qtm._bench.matrix_product_states import dimer_ring, hardware_efficient, qiboml, ring_energy, xxz
from qtm._bench.process_memory import peak_mib
from qtm._errors import ParameterError, QtmError
from qtm.modules import QuantumModule


def energy(circuit: QuantumCircuit, values: np.ndarray) -> float:
    """Of the XXZ ring, by Qiskit's state vector."""
    state = Statevector(circuit.assign_parameters(values))
    return float(state.expectation_value(xxz(circuit.num_qubits)).real)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("num_qubits", [4, 6, 8, 10])
def test_the_ground_state_energy_is_that_of_diagonalisation(num_qubits: int) -> None:
    lowest = np.linalg.eigvalsh(xxz(num_qubits).to_matrix(sparse=False))[0]
    assert ring_energy(num_qubits) == pytest.approx(lowest, abs=1e-9)


def test_an_odd_ring_is_refused() -> None:
    with pytest.raises(ParameterError, match="even"):
        ring_energy(5)


def test_the_circuit_of_qiboml_is_that_of_the_package_on_renumbered_qubits() -> None:
    n, rng = 6, np.random.default_rng(0)
    values = rng.uniform(0, np.pi, (3, n, 2))
    published = QuantumCircuit(n)
    for layer in values:
        for q, (y, z) in enumerate(layer):
            published.ry(y, q)
            published.rz(z, q)
        for q in range(n - 2):
            published.cx(q, q + 1)
        published.cx(n - 1, 0)
    rolled = np.roll(values, 1, axis=1).ravel()  # the last qubit comes first
    assert energy(qiboml(n), rolled) == pytest.approx(energy(published, np.empty(0)), abs=1e-12)


def test_the_energy_per_qubit_of_the_dimers_does_not_depend_on_the_ring() -> None:
    values = np.random.default_rng(1).normal(size=6)
    small, large = (energy(dimer_ring(n, layers=1), values) / n for n in (8, 12))
    assert small == pytest.approx(large, abs=1e-12)


@pytest.mark.thinned(5)
@pytest.mark.parametrize("ansatz", list(ground_states.ANSATZE))
@pytest.mark.parametrize("truncation", list(ground_states.TRUNCATIONS))
def test_every_ansatz_is_trained_and_its_last_energy_checked(ansatz: str, truncation: str) -> None:
    *_, (training,) = ground_states.train(6, ansatz, truncation, 3, [0], optimizer="l-bfgs")
    assert len(training.errors) >= 3 or training.pretraining  # a start that is a minimum has nothing left to do
    assert min(training.errors) == pytest.approx(training.checked_error, abs=1e-9)
    assert -1e-9 < training.checked_error < training.errors[0] + 1e-9


def test_starts_in_one_batch_go_as_each_would_alone() -> None:
    n, rate, seeds = 6, 0.1, (0, 3)
    *_, together = ground_states.train(n, "hardware-efficient", "max_bond 32", 4, seeds, rate)
    for training in together:
        circuit = hardware_efficient(n)
        alone = QuantumModule(
            circuit, None, list(circuit.parameters), seed_init=training.seed, observables=[xxz(n)], method="statevector"
        ).double()
        adam = torch.optim.Adam(alone.parameters(), lr=rate)
        for error in training.errors:
            value = alone()[0]
            assert error == pytest.approx((value.item() - ring_energy(n)) / abs(ring_energy(n)), abs=1e-7)
            adam.zero_grad()
            value.backward()
            adam.step()


@pytest.mark.slow
def test_the_start_on_a_small_ring_is_within_two_percent() -> None:
    exact = ring_energy(50) / 50
    ansatz = ground_states.ANSATZE["dimer-ring"]
    start = 0.1 * torch.randn(18, generator=torch.Generator().manual_seed(0))
    weights, errors = ground_states._pretrained(ansatz, 16, start, exact)
    value = energy(dimer_ring(16), weights.numpy())
    assert (value / 16 - exact) / abs(exact) == pytest.approx(min(errors), abs=1e-6)
    assert min(errors) < 0.02 < errors[0]


def test_the_command_saves_trainings_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = tmp_path / "mps.json", tmp_path / "mps.png"
    assert bench.main(["mps", "--quick", "--json", str(path), "--plot", str(picture)]) == 0
    trainings = json.loads(path.read_text(encoding="utf-8"))["trainings"]
    assert [t["truncation"] for t in trainings] == list(ground_states.TRUNCATIONS)
    assert all(len(t["errors"]) == 2 and t["checked_error"] is not None for t in trainings)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "median error of 1 start " in capsys.readouterr().out


def test_derivatives_by_some_weights_are_compared_where_they_are() -> None:
    ours = np.ones((1, 1)), np.array([1.0, 2.0, 3.0])
    theirs = {"values": [[1.0]], "gradient": [float("nan"), 2.0, float("nan")], "exact_gradient": True}
    assert disagreement(ours, theirs, "double") is not None
    assert disagreement(ours, {**theirs, "measured_weights": [1]}, "double") is None
    wrong = {**theirs, "gradient": [float("nan"), 2.1, float("nan")], "measured_weights": [1]}
    assert disagreement(ours, wrong, "double") == "gradient are off by 1.0e-01"


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    assert 50 < peak_mib("mps-step", 4, 1, 1) < 4096
    with pytest.raises(QtmError, match="measuring memory failed: .*nonesuch"):
        peak_mib("nonesuch", 4, 1, 1)
