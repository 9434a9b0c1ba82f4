"""Modules whose outputs are probabilities from a sampler: values, gradients, devices, mitigation, refusals."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, z_feature_map

from qtm import FastEstimator, FastSampler, MitigatedSampler, QuantumModule, SamplerQNN, hardware, local_pauli_noise
from qtm._errors import ParameterError, QtmError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")

SHOTS = 8000
FEATURES, ANSATZ = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
CIRCUIT = FEATURES.compose(ANSATZ)
INPUTS = torch.tensor([[0.3, 0.4], [1.0, 0.2], [2.0, -1.0]])
OUTPUTS: dict[str, Any] = {
    "all": "probabilities",
    "exchanged": ("probabilities", {"qubits": [1, 0]}),
    "one": ("probabilities", {"qubits": [1]}),
}


def module(outputs: Any = "probabilities", circuit: QuantumCircuit = CIRCUIT, **settings: Any) -> QuantumModule:
    settings = {"seed_init": 1} | settings
    return QuantumModule(circuit, FEATURES.parameters, ANSATZ.parameters, outputs=outputs, **settings)


def values_and_slopes(made: QuantumModule) -> list[torch.Tensor]:
    """Outputs, and derivatives by inputs and weights of the sum of their squares."""
    inputs = INPUTS.clone().requires_grad_()
    values = made(inputs)
    values.square().sum().backward()
    assert inputs.grad is not None and made.variational.grad is not None
    return [values.detach(), inputs.grad, made.variational.grad]


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("name", "mitigated", "transpiled"), [("all", False, True), ("exchanged", True, True), ("one", False, False)]
)
def test_values_and_gradients_are_those_of_the_simulator(name: str, mitigated: bool, transpiled: bool) -> None:
    with hardware.connect("aer", shots=SHOTS, seed_simulator=1) as device:
        sampler: Any = MitigatedSampler(device.sampler) if mitigated else device.sampler
        passes = {"pass_manager": device.pass_manager} if transpiled else {}
        circuit = CIRCUIT if transpiled else CIRCUIT.decompose()
        made = module(OUTPUTS[name], circuit, sampler=sampler, gradient="auto", **passes)
        forecast = made.estimate_usage(INPUTS.clone().requires_grad_())
        found = values_and_slopes(made)
        assert made.usage == forecast == device.usage and device.usage.jobs == 2
    for part, expected in zip(found, values_and_slopes(module(OUTPUTS[name])), strict=True):
        torch.testing.assert_close(part, expected, atol=8 / np.sqrt(SHOTS), rtol=0)


@pytest.mark.slow
def test_on_a_device_the_layout_is_followed_and_readout_is_mitigated() -> None:
    errors = {}
    with hardware.connect("fake_manila", shots=SHOTS, seed_simulator=1, seed_transpiler=1) as device:
        for name, sampler in {"raw": device.sampler, "mitigated": MitigatedSampler(device.sampler)}.items():
            made = module(sampler=sampler, pass_manager=device.pass_manager, gradient="auto")
            errors[name] = (made(INPUTS) - module()(INPUTS)).abs().max().item()
    assert errors["mitigated"] < 0.6 * errors["raw"] < 0.1


@pytest.mark.slow
def test_the_values_are_those_of_the_network_on_the_same_device() -> None:
    with hardware.connect("fake_manila", shots=SHOTS, seed_simulator=1, seed_transpiler=1) as device:
        settings: dict[str, Any] = {"sampler": device.sampler, "pass_manager": device.pass_manager}
        made = module(gradient="auto", **settings)
        network = SamplerQNN(
            circuit=CIRCUIT, input_params=FEATURES.parameters, weight_params=ANSATZ.parameters, **settings
        )
        expected = network.forward(INPUTS.numpy(), made.variational.detach().numpy())
        forecast = network.estimate_usage(len(INPUTS))
        used = network.usage
        network.backward(INPUTS.numpy(), made.variational.detach().numpy())
        assert forecast == network.usage and network.usage.jobs == 2 * used.jobs
        np.testing.assert_allclose(made(INPUTS).detach().numpy(), expected, atol=8 / np.sqrt(SHOTS))


def test_spsa_copies_and_pickles() -> None:
    made = module(sampler=FastSampler(seed=1, default_shots=100), gradient=("spsa", {"seed": 1, "repeats": 2}))
    values_and_slopes(made)
    assert made.usage.circuits == 3 + 3 * 4
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other(INPUTS).shape == (3, 4)


@pytest.mark.slow
def test_a_module_follows_a_recalibration(caplog: Any) -> None:
    with hardware.connect("fake_manila", shots=100, seed_simulator=1) as device:
        made = module(sampler=device.sampler, pass_manager=device.pass_manager, gradient="auto")
        made(INPUTS)
        device.recalibrate()
        with caplog.at_level(logging.INFO, "qtm"):
            made(INPUTS)
    assert "was transpiled again" in caplog.text


def test_a_dry_run_counts_and_is_exact_within_its_shots() -> None:
    with hardware.connect("fake_manila", shots=SHOTS, seed_simulator=1, dry_run=True) as device:
        made = module(sampler=device.sampler, pass_manager=device.pass_manager, gradient="auto")
        forecast = made.estimate_usage(len(INPUTS), steps=2)
        for _ in range(2):
            values = made(INPUTS)
            values.sum().backward()
        assert device.usage == forecast
    torch.testing.assert_close(values, module()(INPUTS), atol=5 / np.sqrt(SHOTS), rtol=0)


BAD: dict[str, tuple[dict[str, Any], type[QtmError], str]] = {
    "no sampler": ({"sampler": 3}, ParameterError, "sampler must be None or a BaseSamplerV2"),
    "expectation": ({"outputs": "expectation"}, ParameterError, "give outputs='probabilities' with sampler="),
    "state": ({"outputs": "state"}, ParameterError, "a sampler gives probabilities"),
    "reverse": ({"gradient": "reverse"}, ParameterError, "needs the state vector, which FastSampler does not expose"),
    "estimator": ({"estimator": FastEstimator()}, ParameterError, "estimator= and sampler= are mutually exclusive"),
    "noise": ({"noise": local_pauli_noise(0.01)}, ParameterError, "FastSampler has noise of its own"),
    "precision": ({"gradient": ("param-shift", {"precision": 0.1})}, ParameterError, "precision= is an option for est"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    settings, error, message = BAD[name]
    with pytest.raises(error, match=message):
        module(**({"outputs": "probabilities", "sampler": FastSampler(), "gradient": "auto"} | settings))


def test_samples_come_from_the_sampler_itself() -> None:
    with pytest.raises(UnsupportedError, match="this module runs on a FastSampler"):
        module(sampler=FastSampler(), gradient="auto").sample(INPUTS)
