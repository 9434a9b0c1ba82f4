"""Jobs of other providers: in the journal with the provider's ids, fetched after a crash, tried again, never lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import ansatz, on_mock
from mock_runtime import MockService
from qiskit.providers import BackendV2, Options
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from test_mitigation_resume import Killed

from qtm import hardware
from qtm._errors import BudgetExceeded, JobError, ParameterError, QtmError
from qtm._hardware.runtime import is_transient


class CloudJob:
    """A job of the provider; its result is computed when it is asked for."""

    def __init__(self, cloud: Cloud, number: int) -> None:
        self._cloud, self._number = cloud, number

    def job_id(self) -> str:
        return f"task-{self._number}"

    def result(self) -> Any:
        self._cloud.fail_if("result")
        circuits, options = self._cloud.taken[self._number]
        return AerSimulator().run(circuits, **options).result()

    def cancel(self) -> None:
        self._cloud.cancelled.append(self.job_id())


class Cloud:
    """What the provider keeps while processes come and go."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.faults: dict[str, list[BaseException]] = {}

    def fail_if(self, moment: str) -> None:
        if self.faults.get(moment):
            raise self.faults[moment].pop(0)


class CloudBackend(BackendV2):
    """A device of a provider that is not IBM, as its client shows it."""

    service = "not a service of IBM"

    def __init__(self, cloud: Cloud, max_circuits: int | None = None) -> None:
        super().__init__(name="cloud")
        self.cloud, self._max_circuits = cloud, max_circuits

    @property
    def target(self) -> Any:
        return GenericBackendV2(3, coupling_map=[[0, 1], [1, 2]], noise_info=False, seed=1).target

    @property
    def max_circuits(self) -> int | None:
        return self._max_circuits

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: Any, **options: Any) -> CloudJob:
        assert None not in options.values()
        self.cloud.fail_if("submit")
        self.cloud.taken.append((run_input, options))
        self.cloud.fail_if("answer")
        return CloudJob(self.cloud, len(self.cloud.taken) - 1)


class FetchingBackend(CloudBackend):
    """A device whose client fetches jobs by their ids."""

    def retrieve_job(self, job_id: str) -> CloudJob:
        self.cloud.fail_if("fetch")
        return CloudJob(self.cloud, int(job_id.removeprefix("task-")))


# With max_circuits_per_job above what the backend takes at once, a job of the run is several of the provider's.
SETTINGS: dict[str, Any] = {
    "shots": 500, "seed_simulator": 3, "seed_transpiler": 1, "backoff": 0.0, "max_circuits_per_job": 6,
}  # fmt: skip


def values(device: hardware.Connection, number: int = 0) -> np.ndarray:
    """Expectation values (3, 2) from one job: six circuits."""
    isa = device.pass_manager.run(ansatz())
    observables = [SparsePauliOp(pauli).apply_layout(isa.layout) for pauli in ("ZZ", "XX")]
    points = np.random.default_rng(number).uniform(-3, 3, (3, 1, 3))
    return np.asarray(device.estimator.run([(isa, observables, points)]).result()[0].data.evs)


def shots(device: hardware.Connection, number: int = 0) -> np.ndarray:
    measured = ansatz()
    measured.measure_all()
    points = np.random.default_rng(number).uniform(-3, 3, (3, 3))
    return np.asarray(device.sampler.run([(device.pass_manager.run(measured), points)]).result()[0].data.meas.array)


RUNS = {"estimator": values, "sampler": shots}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("max_circuits", [None, 2])
def test_a_running_job_is_fetched_by_its_id(name: str, max_circuits: int | None, tmp_path: Path, caplog: Any) -> None:
    run, journal, whole = RUNS[name], tmp_path / "run.journal", Cloud()
    with hardware.connect(FetchingBackend(whole, max_circuits), **SETTINGS) as device:
        expected, used = [run(device, 0), run(device, 1)], device.usage
    cloud = Cloud()
    cloud.faults["result"] = [Killed()]
    with hardware.connect(FetchingBackend(cloud, max_circuits), journal=journal, **SETTINGS) as device:
        with pytest.raises(Killed):
            run(device, 0)
        (row,) = device.journal.jobs()
        assert row["job_id"].startswith("task-0") and row["state"] == "submitted"
    paid = device.usage
    with (
        caplog.at_level(logging.INFO, "qtm"),
        hardware.resume(journal, FetchingBackend(cloud, max_circuits), max_executions=used.executions) as device,
    ):
        found = [run(device, 0), run(device, 1)]
        assert device.usage == used and used.executions == 2 * paid.executions
    np.testing.assert_array_equal(found, expected)
    assert len(cloud.taken) == len(whole.taken)
    assert "job task-0 is at cloud; it is not submitted again" in caplog.text


def test_a_process_that_dies_between_two_jobs_submits_the_rest(tmp_path: Path) -> None:
    journal, cloud = tmp_path / "run.journal", Cloud()
    cloud.faults["answer"] = []
    with hardware.connect(FetchingBackend(Cloud(), 2), **SETTINGS) as device:
        expected = values(device)
    with hardware.connect(FetchingBackend(cloud, 2), journal=journal, **SETTINGS) as device:
        submit, count = cloud.fail_if, [0]

        def fail_if(moment: str) -> None:
            count[0] += moment == "submit"
            if count[0] == 3:
                raise Killed
            submit(moment)

        cloud.fail_if = fail_if  # type: ignore[method-assign]
        with pytest.raises(Killed):
            values(device)
        cloud.fail_if = submit  # type: ignore[method-assign]
    assert len(cloud.taken) == 2
    with hardware.resume(journal, FetchingBackend(cloud, 2)) as device:
        np.testing.assert_array_equal(values(device), expected)
    assert len(cloud.taken) == 3


def test_without_retrieve_job_a_lost_job_is_paid_again_and_said(tmp_path: Path, caplog: Any) -> None:
    journal, cloud = tmp_path / "run.journal", Cloud()
    cloud.faults["result"] = [Killed()]
    with hardware.connect(CloudBackend(cloud), journal=journal, **SETTINGS) as device, pytest.raises(Killed):
        values(device)
    once = device.usage.executions
    with hardware.resume(journal, CloudBackend(cloud), max_executions=once) as device, pytest.raises(BudgetExceeded):
        values(device)
    with hardware.resume(journal, CloudBackend(cloud), max_executions=2 * once) as device:
        with caplog.at_level(logging.WARNING, "qtm"):
            values(device)
        assert device.usage.executions == 2 * once
        assert [row["state"] for row in device.journal.jobs()] == ["failed", "done"]
    assert len(cloud.taken) == 2
    assert "cloud cannot fetch job task-0 of an earlier process; it is submitted again" in caplog.text


def test_what_passes_is_tried_again_and_nothing_is_submitted_twice() -> None:
    cloud = Cloud()
    cloud.faults = {"submit": [ConnectionError("reset")] * 2, "result": [TimeoutError("slow")] * 2}
    with hardware.connect(FetchingBackend(cloud, 2), **SETTINGS) as device:
        values(device)
    assert len(cloud.taken) == 3 and not any(cloud.faults.values())


def test_a_result_that_cannot_be_fetched_is_fetched_by_the_resumed_run(tmp_path: Path) -> None:
    journal, cloud = tmp_path / "run.journal", Cloud()
    cloud.faults["result"] = [ConnectionError("down")] * 3
    settings = SETTINGS | {"retries": 2}
    message = r"task-0 on cloud could not be fetched.*resume\(journal\) fetches it"
    with (
        hardware.connect(FetchingBackend(cloud), journal=journal, **settings) as device,
        pytest.raises(JobError, match=message),
    ):
        values(device)
    with hardware.resume(journal, FetchingBackend(cloud)) as device:
        values(device)
    assert len(cloud.taken) == 1


def test_a_provider_out_of_reach_is_named(tmp_path: Path) -> None:
    cloud = Cloud()
    cloud.faults["submit"] = [ConnectionError("down")] * 3
    with hardware.connect(FetchingBackend(cloud), **(SETTINGS | {"retries": 2})) as device:
        with pytest.raises(JobError, match="cloud could not be reached.*make sure that it did not arrive"):
            values(device)
        assert device.usage.jobs == 0


def test_a_refused_job_leaves_nothing() -> None:
    cloud = Cloud()
    cloud.faults["submit"] = [ValueError("too many shots")]
    with hardware.connect(FetchingBackend(cloud), **SETTINGS) as device:
        with pytest.raises(JobError, match="cloud refused the job of PUB 0: ValueError: too many shots"):
            values(device)
        assert device.usage.jobs == 0 and device.journal.jobs() == []


def test_cancelling_reaches_the_provider() -> None:
    cloud = Cloud()
    cloud.faults["result"] = [Killed()]
    with hardware.connect(FetchingBackend(cloud), **SETTINGS) as device:
        isa = device.pass_manager.run(ansatz())
        job = device.estimator.run([(isa, "ZII", np.ones(3))])
        assert job.job_ids() == ["task-0"]
        device.estimator.handle(job._parts[0]).cancel()
    assert cloud.cancelled == ["task-0"]


class HeldCloud(Cloud):
    """A provider that keeps results back until they are released, and has none for a cancelled job."""

    def __init__(self) -> None:
        super().__init__()
        self.released, self.asked = threading.Event(), list[str]()

    def fail_if(self, moment: str) -> None:
        self.asked.append(moment)
        if moment == "result":
            assert self.released.wait(60)
            if self.cancelled:
                raise ValueError("the job was cancelled")
        super().fail_if(moment)


def states(job: Any) -> tuple[str, bool, bool, bool, bool]:
    return job.status().name, job.running(), job.done(), job.cancelled(), job.in_final_state()


RUNNING = ("RUNNING", True, False, False, False)
ENDS = {
    "DONE": ("DONE", False, True, False, True),
    "ERROR": ("ERROR", False, False, False, True),
    "CANCELLED": ("CANCELLED", False, False, True, True),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_state_of_a_providers_job(end: str) -> None:
    cloud = HeldCloud()
    cloud.faults["result"] = [ValueError("the laser is off")] if end == "ERROR" else []
    with hardware.connect(CloudBackend(cloud, 2), **SETTINGS) as device:
        run = device.estimator.run([(device.pass_manager.run(ansatz()), [["ZII"], ["XII"], ["YII"]], np.ones(3))])
        job = device.estimator.handle(run._parts[0])
        wait_for(lambda: "result" in cloud.asked)  # three bases, two circuits in a job: two jobs are submitted
        assert states(job) == states(run) == RUNNING
        if end == "CANCELLED":
            run.cancel()
            assert cloud.cancelled == ["task-0", "task-1"]
        cloud.released.set()
        wait_for(job.in_final_state)
        assert states(job) == states(run) == ENDS[end]
        job.cancel()  # after an error, other jobs of the provider may be running
        assert cloud.cancelled == ([] if end == "DONE" else ["task-0", "task-1"])
        assert states(job) == ENDS[end]
        if end == "DONE":
            assert run.result()[0].data.evs.shape == (3, 1) and job.result()[0].data.evs.shape == (3, 1)
            assert states(run) == ENDS["DONE"]
        else:
            with pytest.raises(JobError, match="task-0"):
                run.result()
    assert cloud.asked.count("submit") == len(cloud.taken) == 2


@pytest.mark.parametrize("moment", ["submit", "answer"])
def test_a_cancelled_job_submits_no_more_circuits(moment: str) -> None:
    """The user cancels while the second of three jobs is on its way: it is cancelled too, and the third is not sent."""
    cloud, cancelled, count = HeldCloud(), threading.Event(), [0]
    fail = cloud.fail_if

    def wait_at_the_second(at: str) -> None:
        count[0] += at == moment
        if at == moment and count[0] == 2:
            assert cancelled.wait(60)
        fail(at)

    cloud.fail_if = wait_at_the_second  # type: ignore[method-assign]
    cloud.released.set()
    with hardware.connect(CloudBackend(cloud, 1), **SETTINGS) as device:
        run = device.estimator.run([(device.pass_manager.run(ansatz()), [["ZII"], ["XII"], ["YII"]], np.ones(3))])
        job = device.estimator.handle(run._parts[0])
        wait_for(lambda: count[0] == 2)
        job.cancel()
        cancelled.set()
        wait_for(job.in_final_state)
        assert states(job) == ENDS["CANCELLED"]
        with pytest.raises(JobError, match="was cancelled before all of its circuits were submitted"):
            run.result()
    assert cloud.cancelled == ["task-0", "task-1"] and len(cloud.taken) == 2


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


OBJECTS = {
    "a provider's": lambda: CloudBackend(Cloud()),
    "a noisy simulator": lambda: AerSimulator.from_backend(FakeManilaV2()),
    "generic": lambda: GenericBackendV2(2, seed=1),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_run_on_an_object_needs_the_object_again(name: str, tmp_path: Path) -> None:
    journal = tmp_path / "run.journal"
    hardware.connect(OBJECTS[name](), journal=journal).close()
    with pytest.raises(QtmError, match=r"was given as a .*; give it again: hardware.resume\(journal, backend\)"):
        hardware.resume(journal)
    hardware.resume(journal, OBJECTS[name]()).close()


def test_a_fake_device_is_found_by_its_name(tmp_path: Path) -> None:
    hardware.connect(FakeManilaV2(), journal=tmp_path / "run.journal").close()
    hardware.resume(tmp_path / "run.journal").close()


def test_devices_of_ibm_do_not_run_circuits_themselves(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="ibm_mock does not have; leave estimator out"):
        on_mock(MockService(tmp_path / "service"), estimator="backend")


def http(status: int) -> Exception:
    error = RuntimeError("botocore")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    return error


EndpointConnectionError = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
ConnectionOfBotocore = type("ConnectionError", (Exception,), {"__module__": "botocore.exceptions"})


@pytest.mark.parametrize(
    ("error", "expected"),
    [(http(503), True), (http(429), True), (http(400), False), (ConnectionOfBotocore(), True),
     (EndpointConnectionError(), False), (ValueError(), False)],
)  # fmt: skip
def test_clients_of_other_providers_say_what_passes(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected
