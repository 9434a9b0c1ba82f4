"""The engine behind `noisy_estimator`: qtm's density matrix gives Aer's numbers, and Aer runs what it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import Pauli
from test_noise_option import AerSimulator, aer_noise, ansatz

from qtm._noisy.estimator import NoisyEstimator
from qtm.noise import depolarizing_noise, local_pauli_noise, noisy_estimator

MODELS = {
    "pauli": lambda: local_pauli_noise({"X": 0.01, "Z": 0.02}),
    "depolarizing and readout": lambda: _with_readout(depolarizing_noise(0.01, 0.03)),
    "free of noise": lambda: aer_noise.NoiseModel(),
}


def _with_readout(model):
    model.add_all_qubit_readout_error([[0.97, 0.03], [0.06, 0.94]])
    return model


@pytest.mark.parametrize("name", MODELS)
def test_qtm_and_aer_give_the_same_numbers(name, monkeypatch):
    """Exact values to rounding, and the same shots for the same seed."""
    circuit, values = ansatz(3), np.random.default_rng(1).uniform(-3, 3, (2, 4, 12))
    observables = [["ZIX"], [{"YYY": 0.5, "IIZ": -1.0}], [{"0+I": 1.0}]]
    found = []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(NoisyEstimator, "_gate_noise", lambda self: None)
        for shots in (None, 500):
            estimator = noisy_estimator(MODELS[name](), shots, "density_matrix", seed=3)
            result = estimator.run([(circuit, np.array(observables)[:, :, None], values)]).result()[0]
            assert result.metadata["simulator"] == ("qtm" if own else "qiskit-aer")
            found.append(result.data)
    for mine, aers in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(mine.evs, aers.evs, atol=1e-9)
        np.testing.assert_allclose(mine.stds, aers.stds, atol=1e-9)


def test_aer_runs_circuits_that_qtm_does_not():
    """Errors that qtm's density matrix does not have, and circuits with instructions of Aer's own."""
    odd = aer_noise.kraus_error([np.diag([1, 1, 1, 0.6]), np.diag([0, 0, 0, 0.8])])
    model = aer_noise.NoiseModel(basis_gates=["ry", "rz", "cx"])
    model.add_all_qubit_quantum_error(odd, ["cx"])
    circuit, values = ansatz(2), np.linspace(0, 1, 8)
    result = noisy_estimator(model).run([(circuit, "ZZ", values)]).result()[0]
    assert result.metadata["simulator"] == "qiskit-aer"
    bound = circuit.assign_parameters(values)
    bound.save_density_matrix()
    state = AerSimulator(method="density_matrix", noise_model=model).run(bound).result().data()["density_matrix"]
    assert abs(result.data.evs - state.expectation_value(Pauli("ZZ")).real) < 1e-12


def test_a_wide_circuit_with_small_cones_fits():
    """Sixty qubits, of which an observable sees two: no density matrix of them all."""
    circuit = QuantumCircuit(60)
    for q in range(0, 60, 2):
        circuit.ry(0.3, q)
        circuit.cx(q, q + 1)
    value = noisy_estimator(local_pauli_noise(0.01)).run([(circuit, "I" * 58 + "ZZ")]).result()[0].data.evs
    small = QuantumCircuit(2)
    small.ry(0.3, 0)
    small.cx(0, 1)
    wanted = noisy_estimator(local_pauli_noise(0.01)).run([(small, "ZZ")]).result()[0].data.evs
    assert abs(value - wanted) < 1e-12
