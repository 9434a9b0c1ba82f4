"""One way in: exact, noisy and real backends by name, for connections and for noisy estimators."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import ansatz
from mock_runtime import MockService, manila
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_aer.noise import NoiseModel

from qtm import QuantumModule, hardware, noisy_estimator
from qtm._errors import ParameterError, QtmError


def values(estimator: Any, backend: Any) -> np.ndarray:
    isa = generate_preset_pass_manager(1, backend=backend, seed_transpiler=1).run(ansatz())
    observables = [SparsePauliOp(pauli).apply_layout(isa.layout) for pauli in ("ZZ", "XI")]
    return np.asarray(estimator.run([(isa, observables, [0.3, 0.8, -0.4])]).result()[0].data.evs)


def test_a_name_is_the_backend_that_has_it() -> None:
    named = noisy_estimator("fake_manila")
    np.testing.assert_array_equal(values(named, named.backend), values(noisy_estimator(manila()), manila()))


def test_the_simulator_by_name_is_exact_and_warns_of_nothing() -> None:
    circuit = ansatz()
    exact = QuantumModule(circuit, None, circuit.parameters, observables=["ZZ", "XI"],
                          variational_params_initial=[0.3, 0.8, -0.4])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = noisy_estimator("aer")
    np.testing.assert_allclose(values(named, named.backend), exact().detach().numpy(), atol=1e-6)


@pytest.mark.slow
def test_a_wide_fake_device_by_name() -> None:
    named = noisy_estimator("fake_torino")
    assert np.abs(values(named, named.backend)).max() < 1


def errors(model: NoiseModel) -> list[dict[str, Any]]:
    """The errors of a model, without the ids that Aer makes up."""
    return [{name: value for name, value in error.items() if name != "id"} for error in model.to_dict()["errors"]]


def test_the_noise_of_a_device_is_its_calibration_and_no_job_is_sent(tmp_path: Path) -> None:
    service = MockService(tmp_path / "service")
    named = noisy_estimator("ibm_mock", service=service)
    assert errors(named.noise_model) == errors(NoiseModel.from_backend(manila()))
    np.testing.assert_array_equal(values(named, named.backend), values(noisy_estimator(manila()), manila()))
    assert not service.submitted() and not {"usage", "jobs", "result"} & set(service.asked)


@pytest.mark.slow
def test_a_model_moves_by_one_argument(tmp_path: Path) -> None:
    """The same lines train without noise, with noise, and on the device; the gradient is the same up to noise."""
    service, found, circuit = MockService(tmp_path / "service"), {}, ansatz()
    for name in ("aer", "fake_manila", "ibm_mock"):
        settings: dict[str, Any] = {"service": service} if name == "ibm_mock" else {}
        settings |= {"shots": 4096, "seed_simulator": 1, "seed_transpiler": 1, "options": {"resilience_level": 0}}
        with hardware.connect(name, **settings) as device:
            model = QuantumModule(
                circuit, None, circuit.parameters, variational_params_initial=[0.3, 0.8, -0.4], gradient="auto",
                estimator=device.estimator, pass_manager=device.pass_manager,
            )  # fmt: skip
            model().sum().backward()
        assert isinstance(model.variational.grad, torch.Tensor)
        found[name] = model.variational.grad.numpy()
    exact = QuantumModule(circuit, None, circuit.parameters, variational_params_initial=[0.3, 0.8, -0.4])
    exact().sum().backward()
    assert isinstance(exact.variational.grad, torch.Tensor)
    bounds = {"aer": 5 / np.sqrt(4096), "fake_manila": 0.25, "ibm_mock": 0.25}
    for name, bound in bounds.items():
        np.testing.assert_allclose(found[name], exact.variational.grad.numpy(), atol=bound)
    assert len(service.submitted()) == 2


def test_what_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ParameterError, match=r"noise must be .* the name of a backend, not 'manila'; give 'ibm_torino'"
    ):
        noisy_estimator("manila")
    with pytest.raises(QtmError, match="there is no local backend 'fake_moon'; there are: aer, fake_"):
        noisy_estimator("fake_moon")
    with pytest.raises(QtmError, match="there is no backend 'ibm_moon'.*there are: ibm_mock"):
        noisy_estimator("ibm_moon", service=MockService(tmp_path / "service"))
