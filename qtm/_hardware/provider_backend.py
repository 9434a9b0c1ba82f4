"""Backends of other providers: what they are asked to run is in the journal, and is fetched again where they can."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.primitives import BasePrimitiveJob, PrimitiveResult
from qiskit.providers import BackendV2, JobStatus, Options
from qiskit.transpiler import Target

from qtm._hardware.fingerprint import circuit_content, digest
from qtm._hardware.journal import Entry, Journal
from qtm._hardware.runtime import Retry

logger = logging.getLogger("qtm")


class ProviderTasks:
    """Jobs that the provider took for one job of a run: its own ids, in the journal, in the order of submission."""

    def __init__(self, journal: Journal, entry: Entry) -> None:
        self._journal, self._name = journal, f"tasks:{journal.tag(entry)}"

    @property
    def ids(self) -> list[str]:
        """The provider's ids."""
        return [task for _, task in self._rows()]

    def find(self, place: int, content: str) -> str | None:
        """Return the id of the job that was submitted in this place with this content, or None."""
        rows = self._rows()
        return rows[place][1] if place < len(rows) and rows[place][0] == content else None

    def add(self, place: int, content: str, task: str) -> None:
        """Write that the provider took a job."""
        self._journal.set_setting(self._name, [*self._rows()[:place], [content, task]])

    def _rows(self) -> list[list[str]]:
        return self._journal.setting(self._name) or []


class RecordedBackend(BackendV2):
    """A backend whose jobs are written into the journal, for Qiskit's primitives on backends.

    A job that an interrupted process submitted is fetched by its id, with the backend's ``retrieve_job``.

    Attributes:
        error: What the first submission raised, if it did.
        submitted: Set after the first submission.
    """

    def __init__(self, backend: BackendV2, tasks: ProviderTasks, retry: Retry) -> None:
        super().__init__(name=backend.name)
        self._backend, self._tasks, self._retry, self._place = backend, tasks, retry, 0
        self.error: Exception | None = None
        self.submitted = threading.Event()
        self.jobs: list[Any] = []

    @property
    def target(self) -> Target:
        """The target of the backend."""
        return self._backend.target

    @property
    def max_circuits(self) -> int | None:
        """Circuits that the backend takes in one job."""
        return self._backend.max_circuits

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: QuantumCircuit | Sequence[QuantumCircuit], **options: Any) -> Any:
        """Fetch the job of these circuits if the journal has it; submit it otherwise."""
        circuits = [run_input] if isinstance(run_input, QuantumCircuit) else list(run_input)
        asked = {name: value for name, value in options.items() if value is not None}  # no seed is not a seed of None
        content = digest([*map(_content, circuits), json.dumps(asked, sort_keys=True, default=repr).encode()])
        place, self._place = self._place, self._place + 1
        try:
            job = self._fetched(place, content) or self._submitted(circuits, asked, place, content)
        except Exception as error:
            self.error = None if self.jobs else error
            raise
        finally:
            self.submitted.set()
        self.jobs.append(job)
        return PatientJob(job, self._retry)

    def _fetched(self, place: int, content: str) -> Any:
        task = self._tasks.find(place, content) if can_fetch(self._backend) else None
        if task is None:
            return None
        logger.info("job %s is at %s; it is not submitted again", task, self.name)
        return self._retry(f"fetching job {task}", lambda _: self._backend.retrieve_job(task))

    def _submitted(self, circuits: list[QuantumCircuit], options: dict[str, Any], place: int, content: str) -> Any:
        if place:
            job = self._retry("submitting a job", lambda _: self._backend.run(circuits, **options))
        else:  # the primitive tries the first one again itself
            job = self._backend.run(circuits, **options)
        self._tasks.add(place, content, str(job.job_id()))
        return job


class PatientJob:
    """A provider's job, whose result is asked for again after a transient failure."""

    def __init__(self, job: Any, retry: Retry) -> None:
        self._job, self._retry = job, retry

    def result(self) -> Any:
        """Wait for the result."""
        return self._retry(f"waiting for job {self._job.job_id()}", lambda _: self._job.result())


class ProviderJob(BasePrimitiveJob[PrimitiveResult, JobStatus]):
    """The job of a primitive on a recorded backend; its id is that of the provider's jobs, joined by commas."""

    def __init__(self, inner: BasePrimitiveJob[PrimitiveResult, JobStatus], backend: RecordedBackend, ids: str) -> None:
        super().__init__(ids or inner.job_id())
        self._inner, self._backend = inner, backend

    def result(self) -> PrimitiveResult:
        """Wait for the result."""
        return self._inner.result()

    def status(self) -> JobStatus:
        """Return the status."""
        return self._inner.status()

    def done(self) -> bool:
        return self._inner.done()

    def running(self) -> bool:
        return self._inner.running()

    def cancelled(self) -> bool:
        return self._inner.cancelled()

    def in_final_state(self) -> bool:
        return self._inner.in_final_state()

    def cancel(self) -> None:
        """Cancel the provider's jobs."""
        for job in self._backend.jobs:
            job.cancel()


def run_recorded(primitive: Any, pubs: list[Any], backend: RecordedBackend, tasks: ProviderTasks) -> ProviderJob:
    """Run PUBs with a primitive on a recorded backend; returns as soon as the backend has taken its first job.

    Raises:
        Exception: What the backend raised when it refused its first job.
    """
    job = primitive.run(pubs)
    while not backend.submitted.wait(0.05) and not job.in_final_state():
        pass
    if backend.error is not None:
        raise backend.error
    return ProviderJob(job, backend, ",".join(tasks.ids))


def can_fetch(backend: Any) -> bool:
    """Return whether a backend can fetch a job by its id."""
    return callable(getattr(backend, "retrieve_job", None))


def _content(circuit: QuantumCircuit) -> bytes:
    return circuit_content(circuit).encode()
