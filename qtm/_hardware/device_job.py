"""The job that a primitive on a device returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qiskit.primitives import BasePrimitiveJob, PrimitiveResult
from qiskit.providers import JobStatus

from qtm._hardware.job_splitting import Piece
from qtm._hardware.journal import DONE, FAILED, Entry, Journal


@dataclass
class Part:
    """One job of the service: the pieces it holds, its journal entry, its handle if there is one."""

    pieces: list[Piece]
    entry: Entry
    job: Any


class Collector(Protocol):
    """The primitive that submitted a job."""

    journal: Journal

    def collect(self, part: Part) -> PrimitiveResult: ...

    def handle(self, part: Part) -> Any: ...

    def join(self, pubs: Sequence[Any], jobs: Sequence[tuple[list[Piece], PrimitiveResult]]) -> PrimitiveResult: ...


class DeviceJob(BasePrimitiveJob[PrimitiveResult, JobStatus]):
    """The jobs of one ``run``, as one job."""

    def __init__(self, primitive: Collector, pubs: Sequence[Any], parts: Sequence[Part]) -> None:
        super().__init__(",".join(part.entry.job_id or "?" for part in parts))
        self._primitive, self._pubs, self._parts = primitive, pubs, parts
        self._joined: PrimitiveResult | None = None

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs at the service."""
        return [part.entry.job_id or "?" for part in self._parts]

    def result(self) -> PrimitiveResult:
        """Wait for all jobs and return their results in the order and the shapes of the PUBs.

        Raises:
            JobError: A job failed, or its result has the wrong shape or NaN; the message names its id.
        """
        if self._joined is None:
            results = [(part.pieces, self._primitive.collect(part)) for part in self._parts]
            self._joined = self._primitive.join(self._pubs, results)
        return self._joined

    def status(self) -> JobStatus:
        """Return the state of the least advanced job."""
        states = {self._state(part) for part in self._parts}
        order = (JobStatus.ERROR, JobStatus.CANCELLED, JobStatus.QUEUED, JobStatus.RUNNING)
        return next((state for state in order if state in states), JobStatus.DONE)

    def _state(self, part: Part) -> JobStatus:
        entry = self._primitive.journal.latest(part.entry.content, part.entry.occurrence)
        known = {DONE: JobStatus.DONE, FAILED: JobStatus.ERROR}
        if entry is not None and entry.state in known:
            return known[entry.state]
        status = self._primitive.handle(part).status()
        name = status.name if isinstance(status, JobStatus) else str(status)
        return JobStatus.__members__.get(name, JobStatus.QUEUED)

    def done(self) -> bool:
        return self.status() is JobStatus.DONE

    def running(self) -> bool:
        return self.status() is JobStatus.RUNNING

    def cancelled(self) -> bool:
        return self.status() is JobStatus.CANCELLED

    def in_final_state(self) -> bool:
        return self.status() in (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.ERROR)

    def cancel(self) -> None:
        """Cancel the jobs that are not finished."""
        for part in self._parts:
            if self._state(part) not in (JobStatus.DONE, JobStatus.ERROR, JobStatus.CANCELLED):
                self._primitive.handle(part).cancel()
