"""Amazon Braket's local simulator, as the backend of any provider: values, gradients, journal, resumed runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import POINTS, exact, pub_for
from qiskit.circuit.library import real_amplitudes

from qtm import QuantumKernel, QuantumModule, SamplerQNN, hardware
from qtm.mitigation import MitigatedEstimator

braket = pytest.importorskip(
    "qiskit_braket_provider",
    reason="qiskit-braket-provider is not installed; it needs an environment of its own (docs/hardware.md)",
)

SETTINGS: dict[str, Any] = {"shots": 4000, "seed_transpiler": 1}


class Counting(braket.BraketLocalBackend):  # type: ignore[misc]
    """The local simulator, which counts its tasks."""

    tasks = 0

    def run(self, *arguments: Any, **options: Any) -> Any:
        Counting.tasks += 1
        return super().run(*arguments, **options)


@pytest.fixture(autouse=True)
def no_tasks() -> None:
    Counting.tasks = 0


def test_values_journal_and_resume(tmp_path: Path) -> None:
    journal = tmp_path / "run.journal"
    with hardware.connect(Counting(), journal=journal, **SETTINGS) as device:
        assert device.settings.estimator == "backend"
        pub = pub_for(device, POINTS)
        forecast = device.estimate_usage([pub])
        found = device.estimator.run([pub]).result()[0].data.evs
        assert device.usage == forecast and Counting.tasks == 1
    np.testing.assert_allclose(found, exact(POINTS), atol=5 / np.sqrt(4000))
    with hardware.resume(journal, Counting()) as device:
        np.testing.assert_array_equal(device.estimator.run([pub_for(device, POINTS)]).result()[0].data.evs, found)
        assert device.usage == forecast and Counting.tasks == 1


@pytest.mark.parametrize("mitigated", [False, True])
def test_a_model_trains_by_parameter_shift(mitigated: bool) -> None:
    circuit = real_amplitudes(2, reps=1)
    settings: dict[str, Any] = {"seed_init": 2, "gradient": "auto"}
    with hardware.connect(Counting(), **SETTINGS) as device:
        estimator: Any = MitigatedEstimator(device.estimator, "rem") if mitigated else device.estimator
        settings_here = settings | {"estimator": estimator, "pass_manager": device.pass_manager}
        model = QuantumModule(circuit, None, circuit.parameters, **settings_here)
        forecast = model.estimate_usage(1)
        model().sum().backward()
        assert Counting.tasks == 2 and device.usage == forecast
    reference = QuantumModule(circuit, None, circuit.parameters, **settings)
    reference().sum().backward()
    torch.testing.assert_close(model.variational.grad, reference.variational.grad, atol=0.1, rtol=0)


def test_networks_and_kernels_sample_it() -> None:
    circuit = real_amplitudes(2, reps=1)
    weights, samples = [0.3, 0.7, -0.4, 1.1], np.random.default_rng(0).uniform(0, 2, (3, 4))
    with hardware.connect(Counting(), **SETTINGS) as device:
        shared: dict[str, Any] = {"sampler": device.sampler, "pass_manager": device.pass_manager}
        network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters, **shared)
        probabilities, matrix = network.forward(None, weights), QuantumKernel(circuit, **shared).evaluate(samples)
    expected = SamplerQNN(circuit=circuit, weight_params=circuit.parameters).forward(None, weights)
    np.testing.assert_allclose(probabilities, expected, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(matrix, QuantumKernel(circuit).evaluate(samples), atol=5 / np.sqrt(4000))
