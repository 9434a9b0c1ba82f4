"""Jobs on devices: what passes, what fails, what a resumed run finds; on the mock of the paid service."""

from __future__ import annotations

from functools import cache

import mock_runtime
import numpy as np
import pytest
import requests
from device_cases import MANILA, POINTS, UNMITIGATED, ansatz, on_mock, pub_for
from mock_runtime import MockJob, MockService, with_nan, wrong_shape
from qiskit.transpiler import InstructionProperties
from qiskit_ibm_runtime.exceptions import IBMRuntimeError
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qtm import hardware
from qtm._errors import JobError, ParameterError, QtmError
from qtm._hardware import device_primitive as _jobs
from qtm._hardware.journal import Journal
from qtm._primitives.job_usage import Usage

pytestmark = pytest.mark.filterwarnings("ignore:.*no effect in local testing mode")


@pytest.fixture
def service(tmp_path):
    return MockService(tmp_path / "service")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(_jobs, "SETTLE_SECONDS", 0.0)


# Failures ------------------------------------------------------------------------------------------


def http_error(status):
    """An error as the runtime raises it: the status only in the context."""
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError

    try:
        try:
            raise RequestsApiError("answer of the server", status)
        except RequestsApiError as error:
            raise IBMRuntimeError(f"Failed to run program: {error}") from None
    except IBMRuntimeError as error:
        return error


PASSING = [ConnectionResetError("reset"), requests.ConnectionError("gone"), http_error(503), http_error(-1)]


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("moment", ["submit", "answer", "result", "jobs"])
@pytest.mark.thinned(10)
def test_transient_failures_are_retried_and_nothing_is_submitted_twice(service, fault, moment):
    service.faults = {moment: [fault], "answer": [fault]}  # the answer that is lost: the job was accepted
    with on_mock(service) as device:
        job = device.estimator.run([pub_for(device, POINTS)])
        assert np.isfinite(job.result()[0].data.evs).all()
        assert job.job_ids() == [record["id"] for record in service.submitted()]


@pytest.mark.slow
def test_retries_are_bounded_and_the_run_can_go_on(service, tmp_path):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal, retries=2) as device:
        service.faults = {"answer": [ConnectionError("lost")] * 3, "jobs": [ConnectionError("lost")] * 2}
        pub = pub_for(device, POINTS)
        with pytest.raises(JobError, match="could not be reached.*ConnectionError.*resume"):
            device.estimator.run([pub])
    with hardware.resume(journal, service=service) as device:  # accepted, but its id was never learned
        device.estimator.run([pub]).result()
    assert len(service.submitted()) == 1


def test_a_refusal_is_final_and_leaves_no_job(service):
    with on_mock(service) as device:
        service.faults = {"submit": [http_error(400)]}
        with pytest.raises(JobError, match="refused the job of PUB 0.*answer of the server"):
            device.estimator.run([pub_for(device, POINTS)])
        assert device.usage == Usage() and device.journal.jobs() == []


def test_a_failed_job_is_named_and_a_resumed_run_submits_it_anew(service, tmp_path):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal) as device:
        pub = pub_for(device, POINTS)
        service.failing_jobs = True
        job = device.estimator.run([pub])
        with pytest.raises(JobError, match=f"job {job.job_id()} on ibm_mock failed.*on fire"):
            job.result()
        with pytest.raises(JobError, match=job.job_id()):  # asked again, it says the same
            job.result()
    service.failing_jobs = False
    with hardware.resume(journal, service=service) as device:
        device.estimator.run([pub]).result()
        assert [row["state"] for row in device.journal.jobs()] == ["failed", "done"]
        assert device.usage.jobs == 2
    assert len(service.submitted()) == 2


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_shape, r"shape \(99,\).*expected \(4, 3\)"),
        (with_nan, "12 NaN"),
        (lambda result: [], "0 entries for 1 PUBs"),
        (lambda result: None, "no expectation values"),
    ],
)
def test_unusable_results_are_refused_by_job_id(service, spoil, message):
    service.spoil = spoil
    with on_mock(service) as device:
        job = device.estimator.run([pub_for(device, POINTS)])
        with pytest.raises(JobError, match=f"job {job.job_id()}.*{message}"):
            job.result()


@pytest.mark.slow
def test_a_run_that_fails_midway_keeps_what_was_paid_for(service, tmp_path):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal, max_circuits_per_job=2) as device:
        pub = pub_for(device, POINTS)
        device.checkpoint.save(7, note="before")
        service.faults = {"submit": []}
        send = service._run
        service._run = lambda *a, **k: send(*a, **k) if len(service.submitted()) < 2 else 1 / 0
        with pytest.raises(JobError, match="ZeroDivisionError"):
            device.estimator.run([pub])
        service._run = send
    with hardware.resume(journal, service=service) as device:
        assert device.checkpoint.load() == 7
        values = device.estimator.run([pub]).result()[0].data.evs
        assert values.shape == (4, 3) and device.usage.jobs == 4
    assert len(service.submitted()) == 4


@pytest.mark.slow
def test_after_closing_the_usage_can_be_read_and_nothing_submitted(service):
    with on_mock(service) as device:
        pub = pub_for(device, POINTS)
        job = device.estimator.run([pub])
        values = job.result()[0].data.evs
    device.close()
    np.testing.assert_array_equal(job.result()[0].data.evs, values)
    assert device.usage.jobs == len(device.journal.jobs()) == 1
    with pytest.raises(QtmError, match="the connection is closed"):
        device.estimator.run([pub])
    assert len(service.submitted()) == 1


def test_cancelling_reaches_the_service(service):
    with on_mock(service) as device:
        job = device.estimator.run([pub_for(device, POINTS)])
        assert job.status().name == "QUEUED" and not job.in_final_state()
        job.cancel()
        assert f"cancel {job.job_id()}" in service.asked


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING", "CANCELLED", "ERROR", "an unknown one"])
def test_the_state_of_a_job_is_that_at_the_service(service, status, monkeypatch):
    monkeypatch.setattr(MockJob, "status", lambda self: status)
    with on_mock(service) as device:
        job = device.estimator.run([pub_for(device, POINTS)])
        assert job.status().name == (status if status.isupper() else "QUEUED")
        assert (job.running(), job.cancelled()) == (status == "RUNNING", status == "CANCELLED")
        assert not job.done() and job.in_final_state() == (status in ("CANCELLED", "ERROR"))
        job.cancel()
        assert (f"cancel {job.job_id()}" in service.asked) != job.in_final_state()


def test_a_finished_job_is_not_cancelled_and_its_unknown_usage_is_estimated(service, monkeypatch, caplog):
    """The result is there: that the service does not say what it charged is no reason to lose it."""

    def unreachable(self):
        raise ConnectionError("no route")

    monkeypatch.setattr(MockJob, "usage", unreachable)
    with on_mock(service, retries=0) as device:
        job = device.estimator.run([pub_for(device, POINTS)])
        estimated = device.usage.seconds
        assert job.result()[0].data.evs.shape == (4, 3)
        assert job.done() and job.in_final_state() and not job.running() and not job.cancelled()
        job.cancel()
        assert device.usage.seconds == estimated > 0
    assert not any(asked.startswith("cancel") for asked in service.asked)
    assert f"no usage for job {job.job_id()}: ConnectionError" in caplog.text


# Resuming ------------------------------------------------------------------------------------------


def test_local_jobs_are_answered_from_the_journal(tmp_path):
    journal = tmp_path / "run.journal"

    def run(device):
        pub = pub_for(device, POINTS)
        return [device.estimator.run([pub]).result()[0].data.evs for _ in range(2)]

    with hardware.connect(
        "fake_manila", journal=journal, shots=128, options=UNMITIGATED
    ) as device:  # no seed: results are chance
        first, ids = run(device), [row["job_id"] for row in device.journal.jobs()]
    with hardware.resume(journal) as device:
        np.testing.assert_array_equal(run(device), first)
        assert [row["job_id"] for row in device.journal.jobs()] == ids


def test_an_unfetched_job_is_fetched_by_its_id(service, tmp_path):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal) as device:
        pub = pub_for(device, POINTS)
        job_id = device.estimator.run([pub]).job_id()
    with hardware.resume(journal, service=service) as device:
        assert device.estimator.run([pub]).result()[0].data.evs.shape == (4, 3)
    assert f"job {job_id}" in service.asked and len(service.submitted()) == 1


@pytest.mark.slow
def test_a_run_that_does_not_repeat_itself_gets_an_error(service, tmp_path, caplog):
    journal = tmp_path / "run.journal"
    with on_mock(service, journal=journal) as device:
        device.estimator.run([pub_for(device, POINTS)]).result()
    with hardware.resume(journal, service=service) as device:
        device.estimator.run([pub_for(device, POINTS + 0.1)]).result()
    assert "does not repeat itself" in caplog.text


@pytest.mark.slow
def test_a_journal_is_continued_on_purpose_only(tmp_path, service):
    journal = tmp_path / "run.journal"
    with pytest.raises(QtmError, match="no journal.*connect"):
        hardware.resume(journal)
    with on_mock(service, journal=journal):
        with pytest.raises(QtmError, match="already holds a run.*resume"):
            on_mock(service, journal=journal)
        with pytest.raises(QtmError, match="another process is using it"):
            hardware.resume(journal, service=service)
    with pytest.raises(ParameterError, match=r"cannot change \['shots'\]"):
        hardware.resume(journal, service=service, shots=1)
    with pytest.raises(QtmError, match="is on ibm_mock, not on fake_manila"):
        hardware.resume(journal, MANILA)
    (tmp_path / "text").write_text("not a journal, " * 100)
    with pytest.raises(QtmError, match="not a job journal"):
        Journal(tmp_path / "text")


def test_a_resumed_run_keeps_its_layout_until_it_is_recalibrated(service, tmp_path, monkeypatch):
    """A device that is calibrated anew would be laid out anew, and every job would be another one."""
    # A device of its own: its calibration is changed, and the mock's is one for all tests.
    monkeypatch.setattr(mock_runtime, "manila", cache(FakeManilaV2))
    journal = tmp_path / "run.journal"

    def layout(circuit):
        return circuit.layout.final_index_layout()

    with on_mock(service, journal=journal, seed_transpiler=None, optimization_level=3) as device:
        first = device.pass_manager.run(ansatz())
    with hardware.resume(journal, service=service) as device:
        target = device.backend.target
        for pair in target["cx"]:
            error = 0.9 if set(pair) & set(layout(first)) else 1e-4
            target.update_instruction_properties("cx", pair, InstructionProperties(4e-7, error))
        again = device.pass_manager.run(ansatz())
        assert layout(again) == layout(first)
        device.recalibrate()
        assert service.asked == ["refresh"]
        assert not set(layout(device.pass_manager.run(ansatz()))) & set(layout(first))


def test_circuits_keep_the_parameters_of_the_caller():
    circuit = ansatz()
    with hardware.connect(MANILA) as device:
        isa = device.pass_manager.run([circuit, circuit])[1]
    assert list(isa.parameters) == list(circuit.parameters)
    assert isa.num_qubits == 5 and isa.layout is not None and isa.name == "ansatz"
