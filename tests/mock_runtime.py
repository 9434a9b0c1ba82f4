"""A stand-in for the paid service, at its network boundary.

It takes what the runtime's own client would send, keeps every job in a folder (so that it outlives the
process that submitted it, as the service does), computes results with the runtime's local executor, and
records what it was asked. It can be told to fail, or to kill the process, at a given moment.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from functools import cache
from pathlib import Path

import numpy as np
from qiskit.primitives import DataBin, PrimitiveResult, PubResult
from qiskit_ibm_runtime import IBMBackend
from qiskit_ibm_runtime.exceptions import RuntimeJobFailureError, RuntimeJobNotFound
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.fake_provider.local_runtime_job import LocalRuntimeJob
from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

CONVERTER = QUANTUM_PROGRAM_PARAMS_CONVERTERS["v2.0"]


@cache
def manila():
    """One for all: making it, and its noise model, takes longer than a job."""
    return FakeManilaV2()


class MockBackend(IBMBackend):
    """A device of the mock service: FakeManila's data under another name."""

    def __init__(self, service):
        self._fake = manila()
        super().__init__(self._fake.configuration(), service, api_client=None)
        self.name = "ibm_mock"

    def properties(self, refresh=False, datetime=None):
        return self._fake.properties()

    @property
    def target(self):
        return self._fake.target

    def refresh(self):
        self.service.asked.append("refresh")


class MockJob:
    """A job of the mock service."""

    def __init__(self, service, record):
        self._service, self._record = service, record

    def job_id(self):
        return self._record["id"]

    @property
    def tags(self):
        return self._record["tags"]

    def status(self):
        return "QUEUED"

    def usage(self):
        return 3.5

    def cancel(self):
        self._service.asked.append(f"cancel {self.job_id()}")

    def result(self):
        self._service.asked.append("result")
        self._service.kill_if("waiting")
        self._service.fail_if("result")
        if self._service.failing_jobs:
            raise RuntimeJobFailureError("Unable to retrieve job result. 1517: the device is on fire")
        program, _ = CONVERTER.decoder(CONVERTER.model(**self._record["inputs"]))
        for item in program.items:
            if hasattr(item, "samplex"):  # circuits that are not randomized have none
                item.samplex.finalize()
        fake = self._service.backend("ibm_mock")._fake
        job = LocalRuntimeJob(
            run_quantum_program, fake, "executor", program, None, options=SimulatorOptions(seed_simulator=11)
        )
        job._submit()
        return self._service.spoil(job.result())


class MockService:
    """The service: ``folder`` holds its jobs."""

    is_local = False
    channel = "ibm_quantum_platform"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.asked: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.failing_jobs = False
        self.plan: dict[str, float] = {"usage_consumed_seconds": 20}  # without a limit
        self.spoil = lambda result: result
        # "accepted 3": die when the third job of this process has been accepted; or "asked 3", "waiting 3"
        self.kill = os.environ.get("MOCK_KILL", "").split()

    def kill_if(self, moment):
        if self.kill and self.kill[0] == moment:
            self.kill[1] = str(int(self.kill[1]) - 1)
            if self.kill[1] == "0":
                os.kill(os.getpid(), signal.SIGKILL)

    def fail_if(self, moment):
        if self.faults.get(moment):
            raise self.faults[moment].pop(0)

    def backend(self, name, **_):
        if name != "ibm_mock":
            raise LookupError("No backend matches the criteria.")
        return MockBackend(self)

    def backends(self):
        return [MockBackend(self)]

    def least_busy(self, min_num_qubits=None, **_):
        self.asked.append(f"least_busy {min_num_qubits}")
        return MockBackend(self)

    def usage(self):
        self.asked.append("usage")
        self.fail_if("usage")
        return self.plan

    def _run(self, program_id, options, inputs, **_):
        self.kill_if("asked")
        self.fail_if("submit")
        options = options if isinstance(options, dict) else vars(options)
        record = {
            "id": f"job-{uuid.uuid4().hex[:8]}",
            "tags": options["job_tags"],
            "max_execution_time": options.get("max_execution_time"),
            "program": program_id,
            "inputs": inputs,
        }
        (self.folder / f"{len(self.submitted()):04d}.json").write_text(json.dumps(record))
        self.kill_if("accepted")
        self.fail_if("answer")
        return MockJob(self, record)

    def submitted(self):
        """Every job ever accepted, in order."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]

    def job(self, job_id):
        self.asked.append(f"job {job_id}")
        for record in self.submitted():
            if record["id"] == job_id:
                return MockJob(self, record)
        raise RuntimeJobNotFound(f"Job not found: {job_id}")

    def jobs(self, limit=10, job_tags=None, **_):
        self.asked.append("jobs")
        self.fail_if("jobs")
        found = [r for r in self.submitted() if set(job_tags or ()) <= set(r["tags"])]
        return [MockJob(self, record) for record in found[:limit]]


def wrong_shape(result):
    """The result with one value too many."""
    return PrimitiveResult([PubResult(DataBin(evs=np.zeros(99), stds=np.zeros(99), shape=(99,))) for _ in result])


def with_nan(result):
    """The result with a NaN among its expectation values."""
    evs = [np.full(part.data.evs.shape, np.nan) for part in result]
    return PrimitiveResult(
        [PubResult(DataBin(evs=e, stds=p.data.stds, shape=e.shape)) for e, p in zip(evs, result, strict=True)]
    )
