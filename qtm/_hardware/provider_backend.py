"""Backends of other providers: the journal has the ids of their jobs, and a resumed run fetches these jobs."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.primitives import BasePrimitiveJob, PrimitiveResult
from qiskit.providers import BackendV2, JobStatus, Options
from qiskit.providers.jobstatus import JOB_FINAL_STATES
from qiskit.transpiler import Target

from qtm._errors import JobError
from qtm._hardware.fingerprint import circuit_content, digest
from qtm._hardware.journal import Entry, Journal
from qtm._hardware.runtime import Retry
from qtm._locks import fork_safe_lock

logger = logging.getLogger("qtm")


class ProviderTasks:
    """The provider's jobs of one job of a run: their ids in the journal, in the order of submission."""

    def __init__(self, journal: Journal, entry: Entry) -> None:
        self._journal, self._name = journal, f"tasks:{journal.tag(entry)}"

    @property
    def ids(self) -> list[str]:
        """The provider's ids."""
        return [task for _, task in self._rows()]

    def find(self, place: int, content: str) -> str | None:
        """Return the id of the job that was submitted at this place with this content, or None."""
        rows = self._rows()
        return rows[place][1] if place < len(rows) and rows[place][0] == content else None

    def add(self, place: int, content: str, task: str) -> None:
        """Record a job that the provider accepted."""
        self._journal.set_setting(self._name, [*self._rows()[:place], [content, task]])

    def _rows(self) -> list[list[str]]:
        return self._journal.setting(self._name) or []


class RecordedBackend(BackendV2):
    """A backend whose jobs are written into the journal, for Qiskit's primitives on backends.

    A job that an interrupted process submitted is fetched by its id, with the backend's ``retrieve_job``.

    Attributes:
        error: The exception of the first submission, if it failed.
        submitted: Set after the first submission.
        jobs: The provider's jobs.
    """

    def __init__(self, backend: BackendV2, tasks: ProviderTasks, retry: Retry) -> None:
        super().__init__(name=backend.name)
        self._backend, self._tasks, self._retry, self._place = backend, tasks, retry, 0
        self.error: Exception | None = None
        self.submitted = threading.Event()
        self.jobs: list[Any] = []
        # Jobs are submitted in a thread of the primitive.
        self._cancelled, self._lock = threading.Event(), fork_safe_lock()

    @property
    def target(self) -> Target:
        """The target of the backend."""
        return self._backend.target

    @property
    def max_circuits(self) -> int | None:
        """The maximum number of circuits in one job."""
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
            if self._cancelled.is_set():
                raise JobError(f"the job on {self.name} was cancelled before all of its circuits were submitted")
            job = self._fetched(place, content) or self._submitted(circuits, asked, place, content)
        except Exception as error:
            self.error = None if self.jobs else error
            raise
        finally:
            self.submitted.set()
        with self._lock:
            self.jobs.append(job)
            late = self._cancelled.is_set()
        if late:
            job.cancel()
        return PatientJob(job, self._retry)

    def cancel(self) -> None:
        """Cancel the provider's jobs, and submit no more."""
        with self._lock:
            self._cancelled.set()
            jobs = list(self.jobs)
        for job in jobs:
            job.cancel()

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
    """A provider's job that retries the request for its result after a transient failure."""

    def __init__(self, job: Any, retry: Retry) -> None:
        self._job, self._retry = job, retry

    def result(self) -> Any:
        """Wait for the result."""
        return self._retry(f"waiting for job {self._job.job_id()}", lambda _: self._job.result())


class ProviderJob(BasePrimitiveJob[PrimitiveResult, JobStatus]):
    """The job of a primitive on a recorded backend; its id is that of the provider's jobs, joined by commas."""

    def __init__(self, inner: BasePrimitiveJob[PrimitiveResult, JobStatus], backend: RecordedBackend, ids: str) -> None:
        super().__init__(ids or inner.job_id())
        self._inner, self._backend, self._cancelled = inner, backend, False

    def result(self) -> PrimitiveResult:
        """Wait for the result."""
        return self._inner.result()

    def status(self) -> JobStatus:
        """Return the status; a cancelled job has no result, which the primitive reports as an error."""
        status = self._inner.status()
        return JobStatus.CANCELLED if self._cancelled and status is JobStatus.ERROR else status

    def done(self) -> bool:
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        return self.status() in JOB_FINAL_STATES

    def cancel(self) -> None:
        """Cancel the provider's jobs; after an error too, as it may be the error of one of several jobs."""
        status = self.status()
        if status not in (JobStatus.DONE, JobStatus.CANCELLED):
            self._cancelled = status is not JobStatus.ERROR
            self._backend.cancel()


def run_recorded(primitive: Any, pubs: list[Any], backend: RecordedBackend, tasks: ProviderTasks) -> ProviderJob:
    """Run PUBs with a primitive on a recorded backend; returns when the backend has accepted the first job.

    Raises:
        Exception: The backend's own, if it rejected the first job.
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
