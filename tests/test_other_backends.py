"""Backends of other providers: the backend itself runs the circuits, behind journal, budget and resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import ansatz
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.providers import BackendV2, Options
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qtm import QuantumModule, hardware
from qtm._errors import BudgetExceeded, JobError, ParameterError
from qtm._hardware.runtime import kind_for
from qtm._primitives.job_usage import precision_of


class VendorBackend(BackendV2):
    """A device of a provider that is not IBM; it counts what it is asked to run."""

    def __init__(self) -> None:
        super().__init__(name="vendor")
        self.asked: list[int] = []
        self.broken = False

    @property
    def target(self) -> Any:
        return GenericBackendV2(3, coupling_map=[[0, 1], [1, 2]], noise_info=False, seed=1).target

    @property
    def max_circuits(self) -> None:
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options(shots=1024)

    def run(self, run_input: Any, **options: Any) -> Any:
        if self.broken:
            raise RuntimeError("the laser is off")
        self.asked.append(len(run_input))
        return AerSimulator().run(run_input, **options)


def pub_on(device: hardware.Connection) -> Any:
    isa = device.pass_manager.run(ansatz())
    return isa, [SparsePauliOp("ZZ").apply_layout(isa.layout)], [[[0.3, 0.8, -0.4]], [[1.0, 0.2, 0.5]]]


EXPECTED = [(ansatz(), ["ZZ"], [[[0.3, 0.8, -0.4]], [[1.0, 0.2, 0.5]]])]


@pytest.mark.parametrize(
    ("backend", "kind"),
    [(VendorBackend(), "backend"), (GenericBackendV2(2), "executor"), (AerSimulator(), "executor"),
     (FakeManilaV2(), "executor")],
)  # fmt: skip
def test_other_backends_run_themselves(backend: BackendV2, kind: str) -> None:
    assert kind_for(backend) == kind


def test_the_backend_is_called_and_a_resumed_run_is_answered_from_the_journal(tmp_path: Path) -> None:
    backend, journal = VendorBackend(), tmp_path / "run.journal"
    with hardware.connect(backend, shots=4096, seed_simulator=3, seed_transpiler=1, journal=journal) as device:
        forecast = device.estimate_usage([pub_on(device)])
        found = device.estimator.run([pub_on(device)]).result()[0].data.evs
        assert forecast.executions == 2 * 4096 and device.usage == forecast
    assert backend.asked == [2]
    np.testing.assert_allclose(found, StatevectorEstimator().run(EXPECTED).result()[0].data.evs, atol=0.1)
    with hardware.resume(journal, backend, max_executions=9000) as device:
        np.testing.assert_array_equal(device.estimator.run([pub_on(device)]).result()[0].data.evs, found)
        assert backend.asked == [2]
        with pytest.raises(BudgetExceeded):
            device.estimator.run([pub_on(device)])


def test_the_backend_itself_is_sampled() -> None:
    vendor, circuit = VendorBackend(), ansatz()
    circuit.measure_all()
    with hardware.connect(vendor, shots=2000, seed_simulator=4) as device:
        isa = device.pass_manager.run(circuit)
        bits = device.sampler.run([(isa, [[0.3, 0.8, -0.4], [1.0, 0.2, 0.5]])]).result()[0].data.meas
    assert vendor.asked and bits.shape == (2,) and bits.num_shots == 2000
    exact = StatevectorEstimator().run(EXPECTED).result()[0].data.evs[:, 0]
    np.testing.assert_allclose(bits.expectation_values("ZZ"), exact, atol=5 / np.sqrt(2000))


def test_jobs_of_a_seeded_run_differ_and_repeat() -> None:
    def values() -> list[Any]:
        with hardware.connect(VendorBackend(), shots=200, seed_simulator=3, seed_transpiler=1) as device:
            return [device.estimator.run([pub_on(device)]).result()[0].data.evs.tolist() for _ in range(2)]

    first = values()
    assert first[0] != first[1] and values() == first


def test_a_failing_backend_is_named() -> None:
    backend = VendorBackend()
    backend.broken = True
    with hardware.connect(backend) as device:
        with pytest.raises(JobError, match="vendor refused the job.*the laser is off"):
            device.estimator.run([pub_on(device)])
        assert device.usage.jobs == 0


def test_options_of_ibm_are_refused() -> None:
    with pytest.raises(ParameterError, match="'backend' rejects the options"):
        hardware.connect(VendorBackend(), options={"resilience_level": 1})


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    "backend", [VendorBackend, AerSimulator, lambda: GenericBackendV2(3, noise_info=False, seed=1)]
)
def test_a_model_trains_on_the_backend_itself(backend: Any) -> None:
    circuit = real_amplitudes(2, reps=1)
    with hardware.connect(backend(), estimator="backend", shots=20_000, seed_simulator=1, seed_transpiler=1) as device:
        settings = {"seed_init": 2, "gradient": "auto"}
        model = QuantumModule(
            circuit, None, circuit.parameters, estimator=device.estimator, pass_manager=device.pass_manager, **settings
        )
        model().sum().backward()
        exact = QuantumModule(circuit, None, circuit.parameters, **settings)
        exact().sum().backward()
    torch.testing.assert_close(model.variational.grad, exact.variational.grad, atol=0.06, rtol=0)


@pytest.mark.parametrize("shots", [1000, 4000, 30, 4096, 999_983])
def test_the_backend_runs_the_shots_that_were_asked_for(shots: int) -> None:
    """Qiskit rounds 1 / precision**2 up, which made 1001 of 1000."""
    assert math.ceil(1 / precision_of(shots) ** 2) == shots
    with hardware.connect(VendorBackend(), shots=shots, seed_transpiler=1) as device:
        assert device.estimate_usage([pub_on(device)]).executions == 2 * shots
        if shots < 5000:
            result = device.estimator.run([pub_on(device)]).result()[0]
            assert result.metadata["shots"] == shots
