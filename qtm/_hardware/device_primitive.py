"""Base of a connection's estimator and sampler: a primitive of the runtime with checks, a budget and a journal."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from qiskit.exceptions import QiskitError
from qiskit.primitives import PrimitiveResult
from qiskit.providers import BackendV2

from qtm._errors import JobError, QtmError
from qtm._hardware.budget import LONGEST_JOB, Budget, PlanLimit
from qtm._hardware.device_job import DeviceJob, Part
from qtm._hardware.fingerprint import job_content
from qtm._hardware.fractional import folded_and_checked, with_shared_parameters
from qtm._hardware.job_splitting import Limits, Piece, check_circuits, split
from qtm._hardware.journal import DONE, FAILED, INTENT, Entry, Journal, Kept
from qtm._hardware.provider_backend import ProviderTasks, RecordedBackend, can_fetch, run_recorded
from qtm._hardware.runtime import Retry, is_transient, plain_options
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")

# A job accepted by the service may take a moment to show up in its list.
SETTLE_SECONDS = 10.0

# Errors of the service for jobs that will never have a result.
_JOB_FAILURES = frozenset({"RuntimeJobFailureError", "RuntimeJobMaxTimeoutError", "RuntimeInvalidStateError"})


class DevicePrimitive(ABC):
    """A primitive on a device: checks, splits, budgets and journals what it submits.

    A subclass defines its PUBs and results; its ``name`` is part of the content hash of its jobs.
    """

    name: ClassVar[str]

    def __init__(
        self,
        backend: BackendV2,
        service: Any,
        kind: str,
        options: dict[str, Any],
        open_mode: Callable[[], Any],
        journal: Journal,
        *,
        seed: int | None = None,
        limits: Limits,
        budget: Budget,
        retry: Retry,
        dry_run: bool = False,
    ) -> None:
        self.backend, self.journal, self.limits, self.budget = backend, journal, limits, budget
        self._service, self._kind, self._open_mode, self._retry = service, kind, open_mode, retry
        self._runtime: Any = self._made(backend, options)
        self._seed, self._lock, self._opened = seed, threading.RLock(), False
        self._simulated = bool(getattr(service, "is_local", False))
        self._local, self._dry_run = dry_run or self._simulated, dry_run
        self._plan = None if self._simulated else PlanLimit(service, retry)

    @abstractmethod
    def _made(self, mode: Any, options: Any) -> Any:
        """Return the runtime's primitive for a session, a batch or a backend."""

    @abstractmethod
    def _cost(self, pubs: Sequence[Any], options: Any) -> Usage:
        """Return the usage of a job of these PUBs."""

    @abstractmethod
    def _exact_job(self, pubs: list[Any]) -> Any:
        """Return a job with exact values, for dry runs."""

    @abstractmethod
    def _on_used_qubits(self, pubs: list[Any]) -> tuple[list[Any], BackendV2]:
        """Return the PUBs without idle qubits and the matching part of the backend, for local mode."""

    @abstractmethod
    def pack(self, result: PrimitiveResult) -> bytes:
        """Serialize a result."""

    @abstractmethod
    def unpack(self, stored: bytes) -> PrimitiveResult:
        """Deserialize a result."""

    @abstractmethod
    def problem_with(self, result: Any, pubs: list[Any]) -> str | None:
        """Return what is wrong with a result of these PUBs, or None."""

    @abstractmethod
    def join(self, pubs: Sequence[Any], jobs: Iterable[tuple[list[Piece], PrimitiveResult]]) -> PrimitiveResult:
        """Return the results of jobs in the order and the shapes of the PUBs."""

    @property
    def options(self) -> Any:
        """Options of the runtime's primitive; changes apply from the next submission."""
        return self._runtime.options

    @property
    def usage(self) -> Usage:
        """Usage of the run so far, in all its processes."""
        return self.journal.usage()

    def note_session(self) -> None:
        """Record the wall-clock time of the session, which is billed; asks the service."""
        mode = self._runtime.mode if self._opened else None
        session_id = getattr(mode, "session_id", None)
        if mode is not None and session_id is not None:
            seconds = self._retry("asking for the time of the session", lambda _: mode.usage())
            self.journal.set_setting(f"session:{session_id}", float(seconds or 0.0))

    def check(self, usage: Usage) -> None:
        """Compare a forecast with the rest of the budget and of the account's plan.

        Raises:
            BudgetExceeded: The forecast exceeds it.
        """
        self.budget.check(self._used(), usage)
        if self._plan is not None:
            self._plan.check(usage)

    def keep_state(self, name: str, part: Kept) -> None:
        """Save the state of a part of the run, such as a mitigation method, in checkpoints."""
        self.journal.keep(name, part)

    def _folded(self, pubs: list[Any]) -> list[Any]:
        """PUBs with RZZ angles folded into the range of IBM's devices; other providers have other ranges."""
        if self._kind == "backend":
            return pubs
        folded = folded_and_checked(pubs, self.backend.target.operation_names)
        return [with_shared_parameters(pub) for pub in folded] if self._kind == "executor" else folded

    def _submitted(self, pubs: list[Any]) -> DeviceJob:
        check_circuits(pubs, self.backend, self.limits)
        with self._lock:
            jobs = self._split(pubs)
            contents = [self._content(pieces) for pieces in jobs]
            self._check_first(self._to_pay(jobs, contents))
            return DeviceJob(self, pubs, [self._start(*job) for job in zip(jobs, contents, strict=True)])

    def _estimated(self, pubs: list[Any]) -> Usage:
        return sum((self._usage_of(pieces) for pieces in self._split(pubs)), Usage())

    def _split(self, pubs: list[Any]) -> list[list[Piece]]:
        return split(pubs, self.limits, lambda part: self._cost(part, self.options))

    def _usage_of(self, pieces: list[Piece]) -> Usage:
        return self._cost([piece.pub for piece in pieces], self.options)

    def _content(self, pieces: list[Piece]) -> str:
        setting = {
            "backend": self.backend.name,
            self.name: self._kind,
            "seed": self._seed,
            "options": plain_options(self.options),
        }
        return job_content((piece.pub for piece in pieces), setting)

    def _check_first(self, asked: Usage) -> None:
        """Check the plan before the first submission of a process only: each check costs a request."""
        if asked.jobs and not self._opened:
            self.check(asked)
        else:
            self.budget.check(self._used(), asked)

    def _used(self) -> Usage:
        if self.budget.seconds is not None:
            self.note_session()
        return self.journal.usage()

    def _to_pay(self, jobs: list[list[Piece]], contents: list[str]) -> Usage:
        """Usage of the jobs that are not in the journal yet."""
        ahead: Counter[str] = Counter()
        total = Usage()
        for pieces, content in zip(jobs, contents, strict=True):
            entry = self.journal.peek(content, ahead[content])
            ahead[content] += 1
            if entry is None or not self._is_paid(entry):
                total += self._usage_of(pieces)
        return total

    def _is_paid(self, entry: Entry) -> bool:
        """Whether a job is paid for: its usage is in the journal, or no further submission is needed."""
        if entry.state == FAILED:
            return False
        if entry.state == DONE or not self._local:
            return True
        return self._can_fetch(entry) if self._kind == "backend" else entry.job_id is not None

    def _can_fetch(self, entry: Entry) -> bool:
        """Whether the backend of another provider can fetch the job of an interrupted process."""
        return bool(self._kind == "backend" and can_fetch(self.backend) and ProviderTasks(self.journal, entry).ids)

    def _start(self, pieces: list[Piece], content: str) -> Part:
        """Return the job of these pieces: from the journal, from the service, or newly submitted."""
        occurrence, position = self.journal.advance(content)
        entry = self.journal.latest(content, occurrence)
        if entry is not None and self._local and entry.state not in (DONE, FAILED):
            if self._can_fetch(entry):
                return self._submit(pieces, entry, recovered=False)
            self._give_up(entry)
            entry = None
        if entry is None or entry.state == FAILED:
            entry = self.journal.intend(content, occurrence, position, self._usage_of(pieces))
            return self._submit(pieces, entry, recovered=False)
        if entry.state == INTENT:
            return self._submit(pieces, entry, recovered=True)
        logger.info("job %s is in the journal (%s); it is not submitted again", entry.job_id, entry.state)
        return Part(pieces, entry, None)

    def _give_up(self, entry: Entry) -> None:
        """Discard an attempt that was lost with its process; simulations cost nothing."""
        tasks = ProviderTasks(self.journal, entry).ids
        if not tasks:
            self.journal.withdraw(entry)
            return
        ids = ",".join(tasks)
        logger.warning("%s cannot fetch job %s of an earlier process; it is submitted again", self.backend.name, ids)
        self.journal.submitted(entry, ids)  # it was paid for, so it counts
        self.journal.failed(entry, "the process ended before the result was read")

    def _submit(self, pieces: list[Piece], entry: Entry, recovered: bool) -> Part:
        """Submit a job; if an earlier attempt may have arrived, look for it at the service first."""

        def attempt(number: int) -> Any:
            found = self._find(entry, settle=recovered) if recovered or number else None
            return found if found is not None else self._send(pieces, entry)

        try:
            job = self._retry("submitting a job", attempt)
        except Exception as error:
            raise self._not_submitted(pieces, entry, error) from error
        self.journal.submitted(entry, job.job_id())
        logger.info("submitted job %s to %s: %s", job.job_id(), self.backend.name, self._usage_of(pieces))
        entry = self.journal.latest(entry.content, entry.occurrence) or entry
        return Part(pieces, entry, job)

    def _not_submitted(self, pieces: list[Piece], entry: Entry, error: Exception) -> QtmError:
        names = ", ".join(str(piece.index) for piece in pieces[:5])
        if is_transient(error) and self._kind == "backend":
            return JobError(
                f"{self.backend.name} could not be reached to submit PUB {names} ({_text(error)}); "
                "hardware.resume(journal, backend) submits it again: make sure that it did not arrive"
            )
        if is_transient(error):  # keep the intent: the job may have arrived
            return JobError(
                f"the service could not be reached to submit PUB {names} ({_text(error)}); "
                "hardware.resume(journal) continues the run and submits nothing twice"
            )
        self.journal.withdraw(entry)
        return JobError(f"{self.backend.name} refused the job of PUB {names}: {_text(error)}")

    def _find(self, entry: Entry, settle: bool) -> Any:
        """Return the job that carries the tag of this entry at the service, or None."""
        if self._local:
            return None
        tag, age = self.journal.tag(entry), time.time() - entry.created
        jobs = self._service.jobs(limit=1, job_tags=[tag])
        if not jobs and settle and age < SETTLE_SECONDS:
            time.sleep(SETTLE_SECONDS - age)
            jobs = self._service.jobs(limit=1, job_tags=[tag])
        return jobs[0] if jobs else None

    def _send(self, pieces: list[Piece], entry: Entry) -> Any:
        pubs = [piece.pub for piece in pieces]
        if self._dry_run:
            return self._exact_job(pubs)
        if self._kind == "backend":
            return self._on_its_own(pubs, entry)
        if self._local:
            pubs, part = self._on_used_qubits(pubs)
            if part is not self.backend:
                with self._tagged(entry):
                    return self._made(part, self.options).run(pubs)
        if not self._opened:  # open a session only when needed: a replayed run may not need one
            self._runtime = self._made(self._open_mode(), self.options)
            self._opened = True
        with self._tagged(entry):
            return self._runtime.run(pubs)

    def _on_its_own(self, pubs: list[Any], entry: Entry) -> Any:
        """Submit to a backend that runs circuits itself; its thread gets a copy of the options."""
        options = plain_options(self.options)
        if self._seed is not None:
            options["seed_simulator"] = job_seed(self._seed, entry.content, entry.occurrence)
        tasks = ProviderTasks(self.journal, entry)
        backend = RecordedBackend(self.backend, tasks, self._retry)
        return run_recorded(self._made(backend, options), pubs, backend, tasks)

    @contextmanager
    def _tagged(self, entry: Entry) -> Iterator[None]:
        """Give the next job its tag and, in local mode, its own seed, which a resumed run repeats."""
        environment, simulator = self.options.environment, self.options.simulator
        tags, seed, longest = environment.job_tags, simulator.seed_simulator, self.options.max_execution_time
        environment.job_tags = [
            *(tags if isinstance(tags, list) else []),
            self.journal.tag(entry),
            self.journal.run_tag,
        ]
        if self._seed is not None:
            simulator.seed_simulator = job_seed(self._seed, entry.content, entry.occurrence)
        if self.budget.seconds is not None and not isinstance(longest, int) and not self._local:
            left = self.budget.seconds - self.journal.usage().seconds
            self.options.max_execution_time = min(max(math.ceil(left), 1), LONGEST_JOB)
        try:
            yield
        finally:
            environment.job_tags, simulator.seed_simulator = tags, seed
            self.options.max_execution_time = longest

    def collect(self, part: Part) -> PrimitiveResult:
        """Return the checked result of one job, from the journal if it is there; wait if it is running."""
        entry = self.journal.latest(part.entry.content, part.entry.occurrence) or part.entry
        if entry.state == DONE and entry.result is not None:
            return self.unpack(entry.result)
        if entry.state == FAILED:
            raise JobError(f"job {entry.job_id} failed: {entry.error}")
        job, result = self._await(part)
        if (problem := self.problem_with(result, [piece.pub for piece in part.pieces])) is not None:
            self.journal.failed(entry, problem)
            raise JobError(f"job {entry.job_id} on {self.backend.name} gave an unusable result: {problem}")
        stored = self.pack(result)
        self.journal.done(entry, stored, self._seconds_charged(job))
        return self.unpack(stored)

    def _await(self, part: Part) -> tuple[Any, Any]:
        def attempt(number: int) -> tuple[Any, Any]:
            job = self.handle(part)
            return job, job.result()

        retry = self._retry if self._kind != "backend" else Retry(0)  # a `PatientJob` has tried again already
        try:
            return retry(f"waiting for job {part.entry.job_id}", attempt)
        except Exception as error:
            raise self._no_result(part.entry, error) from error

    def handle(self, part: Part) -> Any:
        """Return the runtime's job of this part, fetched by its id if another process submitted it."""
        if part.job is None:
            part.job = self._service.job(part.entry.job_id)
        return part.job

    def _no_result(self, entry: Entry, error: Exception) -> JobError:
        what = _text(error)
        can_wait = is_transient(error) and self._can_fetch(entry)
        if (self._local and not can_wait) or type(error).__name__ in _JOB_FAILURES:
            self.journal.failed(entry, what)
            return JobError(f"job {entry.job_id} on {self.backend.name} failed: {what}")
        return JobError(
            f"the result of job {entry.job_id} on {self.backend.name} could not be fetched: {what}; the job "
            "is in the journal, and hardware.resume(journal) fetches it without submitting it again"
        )

    def _seconds_charged(self, job: Any) -> float | None:
        """Seconds that the service charged; None (the estimate stays) in local mode and while they are unknown."""
        if self._local:
            return None
        try:
            return float(self._retry("asking for the usage of a job", lambda _: job.usage())) or None
        except (QiskitError, OSError) as error:  # the result is available, which matters more
            logger.warning("no usage for job %s: %s", job.job_id(), type(error).__name__)
            return None

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # copies of a model share the connection, with one budget and one journal

    def __reduce__(self) -> Any:
        raise TypeError(
            "a primitive on a device holds an open account and cannot be pickled; save state_dict() instead of "
            "the whole model, and connect (or hardware.resume) in the process that loads it"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind!r} on {self.backend.name}>"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def job_seed(seed: int, content: str, occurrence: int) -> int:
    """Return the simulator's seed for one job: jobs differ, a repeated run repeats (31 bits)."""
    name = f"{seed}:{content}:{occurrence}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") & 0x7FFFFFFF
