"""Quantum kernels through a device's sampler: values within the noise of their shots, noise of the device, resume."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import on_mock
from mock_runtime import MockService, manila
from qiskit import QuantumCircuit
from qiskit.circuit.library import zz_feature_map
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from test_mitigation_resume import Killed

from qtm import MitigatedSampler, QuantumKernel, hardware
from qtm._errors import BudgetExceeded
from qtm._hardware import device_primitive
from qtm._kernels.compute_uncompute import SampledOverlap

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")

SHOTS = 4000
MAP = zz_feature_map(2, reps=1)
X, Y = np.random.default_rng(0).uniform(0, 2, (3, 2)), np.random.default_rng(1).uniform(0, 2, (2, 2))
SETTINGS: dict[str, Any] = {"shots": SHOTS, "seed_simulator": 2, "seed_transpiler": 1}


def kernel_on(device: hardware.Connection, sampler: Any = None, **options: Any) -> QuantumKernel:
    sampler = device.sampler if sampler is None else sampler
    return QuantumKernel(MAP, sampler=sampler, pass_manager=device.pass_manager, enforce_psd=False, **options)


def bound(exact: np.ndarray, shots: int) -> np.ndarray:
    """Five standard deviations of a share of the shots, and one shot."""
    return 5 * np.sqrt(exact * (1 - exact) / shots) + 1 / shots


@pytest.mark.thinned(3)
@pytest.mark.parametrize("kind", ["executor", "v2", "backend"])
@pytest.mark.parametrize("columns", [None, Y])
def test_without_noise_entries_are_fidelities_within_their_shots(kind: str, columns: Any) -> None:
    exact = QuantumKernel(MAP).evaluate(X, columns)
    with hardware.connect(AerSimulator(), estimator=kind, **SETTINGS) as device:
        kernel = kernel_on(device)
        forecast = kernel.estimate_usage(len(X), None if columns is None else len(columns))
        found = kernel.evaluate(X, columns)
        assert device.usage == forecast == kernel.usage
        assert device.usage.circuits == (3 if columns is None else 6) and device.usage.jobs == 1
    assert (np.abs(found - exact) <= bound(exact, SHOTS)).all()


def noisy_fidelity(method: SampledOverlap, x: np.ndarray, y: np.ndarray) -> float:
    """P(00) of the circuit that was run, from Aer's density matrix and the confusion matrices of the device."""
    noise, runner = NoiseModel.from_backend(manila()), method.runner
    angles, _ = method.arguments(torch.tensor(np.concatenate([x, y]))[None], torch.zeros(0, dtype=torch.double), 1)
    isa = runner.circuit.assign_parameters(dict(zip(runner._bound, angles[0, runner._columns].tolist(), strict=True)))
    qubits = [isa.find_bit(item.qubits[0]).index for item in isa.data if item.operation.name == "measure"]
    bare = isa.remove_final_measurements(inplace=False)
    bare.save_density_matrix(qubits)
    simulator = AerSimulator(method="density_matrix", noise_model=noise)
    state = simulator.run(bare).result().data()["density_matrix"]
    chances = np.real(np.diag(np.asarray(state)))
    confusion = [np.array(noise._local_readout_errors[(q,)].probabilities).T for q in qubits]
    reads = [math.prod(matrix[0, outcome >> k & 1] for k, matrix in enumerate(confusion)) for outcome in range(4)]
    return float(chances @ reads)


@pytest.mark.slow
def test_on_a_fake_device_entries_have_its_noise() -> None:
    with hardware.connect("fake_manila", **SETTINGS) as device:
        kernel = kernel_on(device)
        found = kernel.evaluate(X)
        assert kernel._sampled is not None
        method = kernel._sampled._method
        expected = np.array([noisy_fidelity(method, X[i], X[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
    exact = QuantumKernel(MAP).evaluate(X)[np.triu_indices(3, 1)]
    entries = found[np.triu_indices(3, 1)]
    assert (np.abs(entries - expected) <= bound(expected, SHOTS)).all()
    assert np.abs(entries - exact).max() > 0.02  # the noise is there


@pytest.mark.slow
def test_readout_mitigation_removes_the_readout_error_from_a_kernel() -> None:
    samples = np.array([[0.3, 0.2], [0.3, 0.2]])  # equal: the entry is 1 without noise
    with hardware.connect("fake_manila", **SETTINGS) as device:
        options: dict[str, Any] = {"evaluate_duplicates": "all"}
        raw = kernel_on(device, **options).evaluate(samples)
        mitigated = kernel_on(device, MitigatedSampler(device.sampler), **options).evaluate(samples)
    assert (1 - mitigated).mean() < 0.7 * (1 - raw).mean()


@pytest.mark.slow
def test_on_a_wide_device_only_the_qubits_in_use_are_simulated() -> None:
    with hardware.connect("fake_torino", **(SETTINGS | {"shots": 500})) as device:
        found = kernel_on(device).evaluate(X)
    assert found.shape == (3, 3) and (np.diag(found) == 1).all() and np.isfinite(found).all()


@pytest.mark.slow
def test_a_kernel_is_differentiated_on_a_device() -> None:
    def slopes(kernel: QuantumKernel) -> torch.Tensor:
        x = torch.tensor(X[:2], requires_grad=True)
        kernel(x, torch.tensor(Y)).sum().backward()
        assert x.grad is not None
        return x.grad

    with hardware.connect("aer", **(SETTINGS | {"shots": 20_000})) as device:
        found = slopes(kernel_on(device))
    torch.testing.assert_close(found, slopes(QuantumKernel(MAP)), atol=0.08, rtol=0)


@pytest.mark.slow
def test_a_killed_kernel_matrix_is_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)
    service, journal = MockService(tmp_path / "service"), tmp_path / "run.journal"
    with on_mock(MockService(tmp_path / "whole")) as device:
        expected = kernel_on(device, max_circuits_per_job=1).evaluate(X)
    send, left = service._run, [2]

    def run(*arguments: Any, **settings: Any) -> Any:
        job = send(*arguments, **settings)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return job

    monkeypatch.setattr(service, "_run", run)
    with on_mock(service, journal=journal) as device, pytest.raises(Killed):
        kernel_on(device, max_circuits_per_job=1).evaluate(X)
    assert len(service.submitted()) == 2
    for _ in range(2):  # and once more: everything comes from the journal
        with hardware.resume(journal, service=service) as device:
            np.testing.assert_array_equal(kernel_on(device, max_circuits_per_job=1).evaluate(X), expected)
    assert len(service.submitted()) == 3


@pytest.mark.slow
def test_a_kernel_follows_a_recalibration(caplog: Any) -> None:
    with hardware.connect("fake_manila", **SETTINGS) as device:
        kernel = kernel_on(device)
        assert kernel._sampled is not None
        runner = kernel._sampled._method.runner
        before = runner.circuit
        device.recalibrate()
        with caplog.at_level(logging.INFO, "qtm"):
            kernel.evaluate(X)
        assert runner.circuit is not before and "was transpiled again" in caplog.text


def test_the_budget_and_the_dry_run_hold_for_kernels(tmp_path: Path) -> None:
    service = MockService(tmp_path / "service")
    with on_mock(service, max_executions=100) as device, pytest.raises(BudgetExceeded, match="Nothing was submitted"):
        kernel_on(device).evaluate(X)
    with on_mock(service, dry_run=True) as device:
        kernel = kernel_on(device)
        forecast, found = kernel.estimate_usage(len(X)), kernel.evaluate(X)
        assert device.usage == forecast
    exact = QuantumKernel(MAP).evaluate(X)
    assert (np.abs(found - exact) <= bound(exact, 64)).all() and not service.submitted()


def test_measured_feature_maps_lose_their_measurements() -> None:
    measured: QuantumCircuit = MAP.copy()
    measured.measure_all()
    with hardware.connect("aer", **SETTINGS) as device:
        kernel = QuantumKernel(measured, sampler=device.sampler, pass_manager=device.pass_manager, enforce_psd=False)
        exact = QuantumKernel(MAP).evaluate(X)
        assert (np.abs(kernel.evaluate(X) - exact) <= bound(exact, SHOTS)).all()
