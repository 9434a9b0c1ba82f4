"""Sampling noise of shots: its mean, variance and correlations against the operators' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import DensityMatrix, SparsePauliOp
from test_noise_option import ansatz, values_of

import qtm
from qtm.noise import depolarizing_noise, noisy_estimator

SHOTS = 200
OBSERVABLES = [
    SparsePauliOp(["ZII", "ZZI", "IIZ"], [1.0, -0.5, 0.3]),
    SparsePauliOp(["XXI", "ZIZ", "III"], [0.7, 0.4, 2.0]),
    SparsePauliOp(["YYX"]),
]
SAMPLING = ["gaussian", "multinomial"]


def exact_variances(circuit: QuantumCircuit) -> np.ndarray:
    """Of one shot of each basis: from the groups that commute qubit by qubit."""
    state = DensityMatrix(circuit)
    found = []
    for observable in OBSERVABLES:
        parts = observable.group_commuting(qubit_wise=True)
        found.append(sum((state.expectation_value(p @ p) - state.expectation_value(p) ** 2).real for p in parts))
    return np.array(found)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.slow
def test_mean_and_variance_are_those_of_shots(sampling: str) -> None:
    circuit = ansatz(3).assign_parameters(values_of(ansatz(3)))
    estimator = qtm.FastEstimator(shots=SHOTS, sampling=sampling, seed=np.random.default_rng(0))
    repeats = 4000
    result = estimator.run([(circuit, OBSERVABLES)] * repeats).result()
    evs, stds = (np.array([getattr(part.data, name) for part in result]) for name in ("evs", "stds"))
    wanted = np.sqrt(exact_variances(circuit) / SHOTS)
    exact = [DensityMatrix(circuit).expectation_value(o).real for o in OBSERVABLES]
    np.testing.assert_array_less(np.abs(evs.mean(0) - exact), 5 * wanted / np.sqrt(repeats))
    np.testing.assert_allclose(evs.std(0), wanted, rtol=5 / np.sqrt(2 * repeats))
    if sampling == "gaussian":
        np.testing.assert_allclose(stds[0], wanted, rtol=1e-9)
    else:
        np.testing.assert_allclose(stds.mean(0), wanted, rtol=0.02)  # estimated from 200 outcomes
    assert result[0].metadata["shots"] == SHOTS


@pytest.mark.slow
def test_observables_of_one_basis_share_their_outcomes() -> None:
    """The product of what Z0 and Z1 read is what Z0 Z1 reads, so that their noise is correlated."""
    circuit = ansatz(2).assign_parameters(values_of(ansatz(2)))
    estimator = qtm.FastEstimator(shots=SHOTS, sampling="multinomial", seed=np.random.default_rng(1))
    evs = np.array([p.data.evs for p in estimator.run([(circuit, ["IZ", "ZZ"])] * 3000).result()])
    state = DensityMatrix(circuit)
    z, zz, product = (state.expectation_value(SparsePauliOp(p)).real for p in ("IZ", "ZZ", "ZI"))
    found = np.cov(evs.T)[0, 1]
    assert abs(found - (product - z * zz) / SHOTS) < 5 / (SHOTS * np.sqrt(3000))
    # Each value is that of a whole number of outcomes.
    np.testing.assert_allclose(evs * SHOTS / 2, np.round(evs * SHOTS / 2), atol=1e-9)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.slow
def test_shots_on_noise_with_readout_errors(sampling: str) -> None:
    model = depolarizing_noise(0.01, 0.03)
    model.add_all_qubit_readout_error([[0.95, 0.05], [0.1, 0.9]])
    circuit = ansatz(3).assign_parameters(values_of(ansatz(3)))
    pub = (circuit, [["ZIZ", "YYX", "XII"]])
    estimator = qtm.FastEstimator(shots=1000, sampling=sampling, noise=model, seed=np.random.default_rng(2))
    evs = np.array([p.data.evs for p in estimator.run([pub] * 1000).result()])
    exact = noisy_estimator(model).run([pub]).result()[0].data.evs
    np.testing.assert_array_less(np.abs(evs.mean(0) - exact), 5 / np.sqrt(1000 * 1000))
    # The outcomes are +1 and -1, and so their variance is known.
    np.testing.assert_allclose(evs.var(0), (1 - exact**2) / 1000, rtol=5 * np.sqrt(2 / 1000))


@pytest.mark.parametrize("sampling", SAMPLING)
def test_pubs_broadcast_as_without_shots(sampling: str) -> None:
    circuit, rng = ansatz(2), np.random.default_rng(4)
    pub = (circuit, [["ZZ"], ["XI"], [{"00": 1.0}]], rng.normal(size=(4, 8)))
    exact = qtm.FastEstimator().run([pub]).result()[0].data.evs
    noisy = qtm.FastEstimator(shots=10**6, sampling=sampling, seed=3).run([pub]).result()[0].data
    assert noisy.evs.shape == noisy.stds.shape == exact.shape == (3, 4)
    assert 0 < np.abs(noisy.evs - exact).max() < 5e-3
    again = qtm.FastEstimator(sampling=sampling, seed=3).run([pub], precision=1e-3).result()[0].data
    np.testing.assert_array_equal(again.evs, noisy.evs)
    np.testing.assert_allclose(qtm.FastEstimator(sampling=sampling).run([pub]).result()[0].data.evs, exact)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_a_module_has_the_values_of_its_estimator_and_exact_gradients(sampling: str) -> None:
    circuit = ansatz(2)
    options = {"shots": 100, "sampling": sampling, "seed": 5, "noise": depolarizing_noise(0.02)}

    def module(**given: Any) -> qtm.QuantumModule:
        return qtm.QuantumModule(circuit, None, circuit.parameters, observables=["ZZ", "XI"], seed_init=0, **given)

    noisy, exact = module(estimator=qtm.FastEstimator(**options)).double(), module(noise=options["noise"]).double()
    values = noisy.variational.detach().numpy()
    wanted = qtm.FastEstimator(**options).run([(circuit, ["ZZ", "XI"], values)]).result()[0].data.evs
    np.testing.assert_allclose(noisy().detach(), wanted, atol=1e-12)
    assert (noisy() - exact()).abs().max() > 1e-4
    for each in (noisy, exact):
        each().sum().backward()
    torch.testing.assert_close(noisy.variational.grad, exact.variational.grad)


def test_many_qubits_are_drawn_shot_by_shot() -> None:
    circuit = QuantumCircuit(20)
    circuit.ry(0.4, range(20))
    evs = qtm.FastEstimator(shots=4000, sampling="multinomial", seed=1).run([(circuit, ["Z" * 20, "Z" + "I" * 19])])
    exact = [np.cos(0.4) ** 20, np.cos(0.4)]
    np.testing.assert_allclose(evs.result()[0].data.evs, exact, atol=5 / np.sqrt(4000))


def test_a_constant_has_no_noise() -> None:
    for sampling in SAMPLING:
        data = qtm.FastEstimator(shots=10, sampling=sampling).run([(QuantumCircuit(1), [{"I": 2.5}])]).result()[0].data
        assert data.evs == 2.5 and data.stds == 0


def test_what_is_refused() -> None:
    with pytest.raises(qtm.ParameterError, match="mutually exclusive"):
        qtm.FastEstimator(shots=10, default_precision=0.1)
    with pytest.raises(qtm.ParameterError, match="shots"):
        qtm.FastEstimator(shots=0)
    with pytest.raises(qtm.ParameterError, match="sampling"):
        qtm.FastEstimator(shots=10, sampling="binomial")
