"""What a run on a device combines: mitigation, resume, forecasts, recalibration, sessions, dry runs, watches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_cases import ansatz, on_mock
from mock_runtime import MockBackend, MockService
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import InstructionProperties
from test_mitigation_resume import OPTIONS, STACKS, Killed, mitigated

from qtm import MitigatedSampler, QuantumModule, SamplerQNN, hardware
from qtm._errors import BudgetExceeded
from qtm._hardware import device_primitive
from qtm._primitives.job_usage import Usage
from qtm.mitigation import MITIGATION_METHODS, MitigatedEstimator

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_primitive, "SETTLE_SECONDS", 0.0)


# Forecasts of a training ------------------------------------------------------------------------------


def rounded(usage: Usage) -> Usage:
    """Sums of seconds depend on their order in the last bit."""
    return replace(usage, seconds=round(usage.seconds, 9))


@pytest.mark.parametrize("stack", STACKS, ids="+".join)
@pytest.mark.parametrize("dry", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.thinned(7)
def test_the_forecast_of_a_training_is_what_it_uses(stack: tuple[str, ...], dry: bool) -> None:
    """Three steps with every mitigation, from the first: calibrations once, random circuits in order."""
    circuit = ansatz()
    tried = {"real-time-cdr": {"n_training_samples": 4, "min_iterations": 20, "threshold": 1e9}}
    with hardware.connect("fake_manila", shots=64, seed_simulator=1, seed_transpiler=1, dry_run=dry) as device:
        estimator: Any = device.estimator
        for name in stack:
            estimator = MitigatedEstimator(estimator, name, **tried.get(name, OPTIONS[name]))
        model = QuantumModule(
            circuit, None, circuit.parameters, estimator=estimator, pass_manager=device.pass_manager, gradient="auto"
        )
        forecast = model.estimate_usage(1, steps=3)
        assert forecast == model.estimate_usage(1, steps=3) and device.usage == Usage()
        for _ in range(3):
            model().sum().backward()
        assert rounded(device.usage) == rounded(model.usage) == rounded(forecast)
        assert forecast.jobs >= 6 and forecast.executions > 6 * 64


def test_every_method_is_forecast() -> None:
    assert {name for stack in STACKS for name in stack} == MITIGATION_METHODS.keys()


@pytest.mark.slow
def test_the_budget_of_a_forecast_is_enough_and_one_execution_less_is_not() -> None:
    """What `check` allows is what the run is allowed, mitigation and all."""
    circuit = ansatz()

    def trained(limit: int) -> int:
        with hardware.connect("fake_manila", shots=64, seed_simulator=1, max_executions=limit) as device:
            model = QuantumModule(
                circuit, None, circuit.parameters, estimator=mitigated(device.estimator, ("rem",)),
                pass_manager=device.pass_manager, gradient="auto",
            )  # fmt: skip
            forecast = model.estimate_usage(1, steps=2)
            device.check(forecast)
            for _ in range(2):
                model().sum().backward()
            return forecast.executions

    enough = trained(10**6)
    assert trained(enough) == enough
    with pytest.raises(BudgetExceeded, match=f"max_executions={enough - 1}"):
        trained(enough - 1)


# Sessions and budgets ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wall_clock_of_a_session_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is billed while it waits: its seconds count before each submission, and after a resume."""
    import qiskit_ibm_runtime

    clock = [10.0]

    class Session(qiskit_ibm_runtime.Batch):  # type: ignore[misc]
        session_id = "session-1"

        def __init__(self, backend: Any = None, max_time: Any = None) -> None:
            super().__init__(backend=backend)

        def usage(self) -> float:
            return clock[0]

        def close(self) -> None:
            pass

    monkeypatch.setattr(qiskit_ibm_runtime, "Session", Session)
    service, journal = MockService(tmp_path / "service"), tmp_path / "run.journal"

    def run(device: hardware.Connection, angle: float) -> Any:
        isa = device.pass_manager.run(ansatz())
        return device.estimator.run([(isa, "Z" * isa.num_qubits, np.full(3, angle))]).result()

    with on_mock(service, mode="session", max_seconds=60, journal=journal) as device:
        run(device, 0.1)
        clock[0] = 59.0
        with pytest.raises(BudgetExceeded, match=r"max_seconds=60 .*59.0 s"):
            run(device, 0.2)
        assert len(service.submitted()) == 1
    with hardware.resume(journal, service=service) as device:
        run(device, 0.1)
        with pytest.raises(BudgetExceeded, match=r"59.0 s"):
            run(device, 0.2)
    with hardware.resume(journal, service=service, max_seconds=100, mode="batch") as device:
        run(device, 0.1)
        run(device, 0.2)
    assert len(service.submitted()) == 2


@pytest.mark.slow
def test_a_resumed_local_run_counts_a_lost_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that holds exactly the run is enough for the run that was interrupted, too."""
    journal, circuit = tmp_path / "run.journal", ansatz()

    def run(device: hardware.Connection) -> Any:
        isa = device.pass_manager.run(circuit)
        job = device.estimator.run([(isa, "Z" * isa.num_qubits, np.ones(3))])
        if not device.journal.jobs()[0]["state"] == "done" and died:
            raise Killed
        return job.result()

    died = [True]
    with hardware.connect("fake_manila", shots=100, max_executions=100, journal=journal,
                          options={"resilience_level": 0}) as device, pytest.raises(Killed):  # fmt: skip
        run(device)
    died.clear()
    with hardware.resume(journal) as device:
        run(device)
        assert device.usage.jobs == 1 and device.usage.executions == 100


# Runs that are found again ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_found_from_another_machine_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id without the journal, by the path with it; jobs of the estimator and the sampler, and no others."""
    service, journal = MockService(tmp_path / "service"), tmp_path / "run.journal"
    circuit = ansatz()
    measured = ansatz()
    measured.measure_all()
    with on_mock(service) as other:  # another run of the account
        other.estimator.run([(other.pass_manager.run(circuit), "ZIIII", np.ones(3))]).result()
    send = service._run

    def run(*arguments: Any, **settings: Any) -> Any:
        send(*arguments, **settings)
        raise Killed

    with on_mock(service, journal=journal) as device:
        isa = device.pass_manager.run(circuit)
        device.sampler.run([(device.pass_manager.run(measured), np.ones(3))]).result()
        monkeypatch.setattr(service, "_run", run)
        with pytest.raises(Killed):
            device.estimator.run([(isa, "ZIIII", np.ones(3))])
        run_id = device.journal.run_id
    expected = [record["id"] for record in service.submitted()[1:]]
    for name in (run_id, journal, str(journal)):
        jobs = hardware.find(name, service=MockService(tmp_path / "service"))
        assert [job.job_id() for job in jobs] == expected


# Calibration watch x early stop x resume --------------------------------------------------------------


@pytest.mark.slow
def test_a_watch_goes_on_after_a_resume_and_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline is that of the run's first step, not of the process; measurements come from the journal."""
    from test_calibration import Drifting

    journal = tmp_path / "run.journal"

    def run(steps: int, kill: bool) -> tuple[int, list[Any], Usage]:
        backend = Drifting()
        backend.worsen(0.02, 2e-4)
        settings: dict[str, Any] = {"seed_simulator": 3, "seed_transpiler": 1}
        if journal.exists():
            opened = hardware.resume(journal, backend)
        else:
            opened = hardware.connect(backend, journal=journal, **settings)
        with opened as device:
            watch = hardware.CalibrationWatch(
                device.backend, [0, 1], every=2, on_drift=hardware.stop,
                protocols=[hardware.ReadoutAssignment(2000)], sampler=device.sampler,
            )  # fmt: skip
            step = device.checkpoint.load(watch=watch)
            while step < steps and not watch.should_stop:
                if step == 4:
                    backend.worsen(0.15, 2e-4)
                watch(step, loss=1 / (1 + step))
                step += 1
                if kill and step == steps:
                    raise Killed
                device.checkpoint.save(step, watch=watch)
            return step, watch.record, device.usage

    with pytest.raises(Killed):
        run(3, kill=True)  # measured at steps 0 and 2; dies before the checkpoint of step 3
    step, record, usage = run(8, kill=False)
    assert step == 5  # stopped by what it measured at step 4
    assert usage.jobs == 3 and {row["step"] for row in record} == {0, 2, 4}
    found = {
        row["step"]: row["value"] for row in record if row["quantity"] == "assignment_error" and row["qubits"] == [0]
    }
    assert found[0] == pytest.approx(0.02, abs=0.012) and found[4] == pytest.approx(0.15, abs=0.03)


@pytest.mark.slow
def test_a_drift_renews_maps_circuits_and_readout_of_everything_on_the_device(caplog: Any) -> None:
    """`on_drift` recalibrates: modules, networks and kernels transpile again, and mitigation measures again."""
    with hardware.connect("fake_manila", shots=128, seed_simulator=1, options={"resilience_level": 0}) as device:
        circuit = real_amplitudes(2, reps=1)
        estimator, sampler = MitigatedEstimator(device.estimator, "rem"), MitigatedSampler(device.sampler)
        shared: dict[str, Any] = {"pass_manager": device.pass_manager}
        model = QuantumModule(circuit, None, circuit.parameters, estimator=estimator, gradient="auto", **shared)
        network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters, sampler=sampler, **shared)
        weights = [0.1, 0.2, 0.3, 0.4]

        def circuits() -> int:
            before = device.usage.circuits
            model()
            network.forward(None, weights)
            return device.usage.circuits - before

        first, usual = circuits(), circuits()
        caplog.set_level("INFO", "qtm")
        device.recalibrate()
        again = circuits()
        assert first == again > usual
        assert caplog.text.count("was transpiled again") == 2
        assert network.usage.jobs == 3  # what was used before the recalibration still counts


@pytest.mark.slow
def test_a_model_and_its_features_resume_after_a_dry_run(tmp_path: Path) -> None:
    """The script of a dry run is the script of the run: same forecast, same usage."""
    features, trained = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    used = []
    for dry in (True, False):
        with hardware.connect("fake_manila", shots=64, seed_simulator=1, seed_transpiler=1, dry_run=dry) as device:
            model = QuantumModule(
                features.compose(trained), features.parameters, trained.parameters, gradient="auto", seed_init=0,
                estimator=MitigatedEstimator(device.estimator, "zne", seed=1, fold="gates"),
                pass_manager=device.pass_manager,
            )  # fmt: skip
            forecast = model.estimate_usage(2, steps=2)
            for _ in range(2):
                model(torch.ones(2, 2)).sum().backward()
            assert device.usage.executions == forecast.executions
            used.append(device.usage)
    assert used[0] == used[1]


# A calibration that changes, and a service out of reach ---------------------------------------------------


@pytest.mark.slow
def test_error_cancellation_keeps_the_noise_of_its_run_and_renews_it_on_request(tmp_path: Path) -> None:
    """The noise of a backend changes from day to day: a resumed run goes on with the one that it began with."""
    journal, circuit = tmp_path / "run.journal", ansatz()
    gates = {"x": 2e-3, "sx": 2e-3}

    def worse(factor: float) -> GenericBackendV2:
        backend = GenericBackendV2(2, ["rz", "sx", "x", "cx"], coupling_map=[[0, 1], [1, 0]], seed=3)
        for name, error in gates.items():
            for qubit in range(2):
                backend.target.update_instruction_properties(
                    name, (qubit,), InstructionProperties(duration=3e-8, error=factor * error)
                )
        return backend

    def channels(backend: GenericBackendV2, recalibrate: bool = False) -> Any:
        settings: dict[str, Any] = {"shots": 64, "seed_simulator": 1, "seed_transpiler": 1}
        if journal.exists():
            opened = hardware.resume(journal, backend)
        else:
            opened = hardware.connect(backend, journal=journal, **settings)
        with opened as device:
            estimator = MitigatedEstimator(device.estimator, "pec", noise=device.backend, num_samples=5, seed=1)
            if recalibrate:
                device.recalibrate()
            isa = device.pass_manager.run(circuit)
            job = estimator.run([(isa, SparsePauliOp("ZZ").apply_layout(isa.layout), np.ones(3))])
            return job.result()[0].metadata["gamma"], device.usage.jobs

    gamma, _ = channels(worse(1))
    assert channels(worse(10)) == (gamma, 1)
    assert channels(worse(10), recalibrate=True)[0] > 1.01 * gamma


@pytest.mark.slow
def test_a_service_out_of_reach_at_the_end_does_not_spoil_a_run(tmp_path: Path, caplog: Any) -> None:
    service = MockService(tmp_path / "service")
    with on_mock(service, journal=tmp_path / "run.journal", retries=1) as device:
        isa = device.pass_manager.run(ansatz())
        device.estimator.run([(isa, "Z" * isa.num_qubits, np.ones(3))]).result()
        closed: list[int] = []

        class Mode:
            session_id = "session-7"

            def close(self) -> None:
                closed.append(1)
                raise ConnectionError("down")

        device._mode = Mode()
    assert len(closed) == 2 and device.usage.jobs == 1
    assert "session-7 could not be closed (ConnectionError: down); close it at quantum.cloud.ibm.com" in caplog.text


def test_what_is_asked_besides_jobs_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of a run's jobs, and the calibration: one broken connection ends neither."""
    monkeypatch.setattr("qtm._hardware.runtime.time.sleep", lambda seconds: None)
    service = MockService(tmp_path / "service")
    service.faults["jobs"] = [ConnectionError("reset")]
    assert hardware.find("a run", service=service) == [] and service.asked.count("jobs") == 2
    failures = [ConnectionError("reset")]
    refresh = MockBackend.refresh

    def refreshed(backend: MockBackend) -> None:
        if failures:
            raise failures.pop()
        refresh(backend)

    monkeypatch.setattr(MockBackend, "refresh", refreshed)
    with on_mock(service) as device:
        device.recalibrate()
    assert service.asked.count("refresh") == 1 and not failures
