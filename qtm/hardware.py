"""Training on IBM devices: connections, a job journal that survives the process, budgets, calibration.

A run on a device starts with `connect`; after an interruption it continues with `resume`::

    with hardware.connect("ibm_torino", journal="run.journal", shots=4096, max_seconds=600) as device:
        model = QuantumModule(..., estimator=device.estimator, pass_manager=device.pass_manager,
                              gradient="param-shift")
        start = device.checkpoint.load(model=model, optimizer=optimizer)
        for step in range(start, 100):
            ...
            device.checkpoint.save(step + 1, model=model, optimizer=optimizer)

Without an account, the same script runs on a fake device: ``connect("fake_torino", ...)``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPubLike
from qiskit.providers import BackendV2

from qtm._arguments import (
    check_type,
    checked_int,
)
from qtm._errors import ParameterError, QtmError, require
from qtm._hardware.backends import check_given, checked_kind, class_name, find_backend, open_service, refresh
from qtm._hardware.budget import Budget
from qtm._hardware.calibration import CalibrationWatch, Drift, stop, warn
from qtm._hardware.checkpoint import Checkpoint
from qtm._hardware.device_estimator import DeviceEstimator
from qtm._hardware.device_job import DeviceJob
from qtm._hardware.device_sampler import DeviceSampler
from qtm._hardware.job_splitting import Limits
from qtm._hardware.journal import Journal, run_tag
from qtm._hardware.pass_manager import DevicePassManager
from qtm._hardware.protocols import RandomizedBenchmarking, ReadoutAssignment
from qtm._hardware.runtime import EXTRA, Retry
from qtm._hardware.settings import MODES, Settings
from qtm._primitives.aer_circuits import binding_backend
from qtm._primitives.job_usage import Usage

__all__ = [
    "CalibrationWatch", "Checkpoint", "Connection", "DeviceEstimator", "DeviceJob", "DeviceSampler", "Drift",
    "RandomizedBenchmarking", "ReadoutAssignment", "Settings", "Usage", "connect", "find", "resume", "stop", "warn",
]  # fmt: skip

logger = logging.getLogger("qtm")

_WHICH = "give 'ibm_torino', 'fake_manila' or 'aer', say, or None for the least busy device"
# The service's error messages for an account whose plan has no sessions.
_NO_SESSIONS = ("1352", "not authorized to run a session")

# Settings that a resumed run may change, as results do not depend on them.
_FREE = frozenset({"mode", "max_executions", "max_seconds", "max_depth", "retries", "backoff"})


def connect(
    backend: str | BackendV2 | None = None,
    mode: str = "auto",
    *,
    journal: str | Path | None = None,
    min_qubits: int | None = None,
    service: Any = None,
    **options: Any,
) -> Connection:
    """Connect to an IBM Quantum device, or to a simulated one.

    Uses the account saved by qiskit-ibm-runtime, or the token in ``QISKIT_IBM_TOKEN``.

    Args:
        backend: The name of a device; "aer" for a noiseless simulator or the name of a fake device such as
            "fake_torino", neither of which needs an account; a backend object (fake devices and AerSimulator run
            locally, a backend of another provider runs its own jobs); None for the least busy device.
        mode: "auto", "session", "batch" or "job"; see `Settings`.
        journal: Path of the job journal. None keeps the journal in memory, and the run cannot be resumed.
        min_qubits: Minimum number of qubits of the least busy device.
        service: A ``QiskitRuntimeService`` to use instead of opening one.
        **options: All other options; `Settings` lists them with their defaults: estimator, shots,
            precision, options, optimization_level, seed_transpiler, use_fractional_gates, max_seconds, ...

    Raises:
        QtmError: There is no account or no such backend, or the journal already holds a run.
        ParameterError: An option is unknown or has an unusable value.
        MissingPackage: qiskit-ibm-runtime is not installed.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> bell = QuantumCircuit(2)
        >>> _ = bell.h(0), bell.cx(0, 1)
        >>> with hardware.connect("fake_manila", shots=1024, seed_simulator=7) as device:
        ...     isa = device.pass_manager.run(bell)
        ...     zz = SparsePauliOp("ZZ").apply_layout(isa.layout)
        ...     value = device.estimator.run([(isa, zz)]).result()[0].data.evs
        >>> bool(value > 0.85), device.usage.jobs
        (True, 1)
    """
    if backend is not None:
        check_type(backend, "backend", (str, BackendV2), "the name of a device or a BackendV2", _WHICH)
    if min_qubits is not None:
        checked_int(min_qubits, "min_qubits", "give the qubits that the circuit needs", least=1)
    if journal is not None:
        check_type(journal, "journal", (str, os.PathLike), "the path of a file", "give None to keep no journal")
    if journal is not None and Path(journal).exists():
        raise QtmError(
            f"the journal {str(journal)!r} already holds a run; continue it with hardware.resume(...), or name "
            "another file"
        )
    known = [f.name for f in dataclasses.fields(Settings) if f.name not in ("backend", "mode")]
    if unknown := sorted(set(options) - set(known)):
        raise ParameterError(f"connect has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    given = options.get("options") or {}
    check_type(given, "options", Mapping, "a mapping of options", "give {'resilience_level': 1}, say")
    options["options"] = dict(given)
    if options.get("seed_transpiler") is None:
        options["seed_transpiler"] = secrets.randbits(31)
    settings = Settings("", mode, **options)  # checked before a service is asked
    if settings.dry_run and journal is not None:
        raise ParameterError("a dry run has no results to resume from; leave journal= out, or dry_run=True")
    device, service = find_backend(backend, service, settings, min_qubits)
    kind = checked_kind(settings.estimator, device, service)
    settings = dataclasses.replace(settings, backend=device.name, estimator=kind)
    return _connected(device, service, settings, journal, class_name(backend))


def resume(journal: str | Path, backend: BackendV2 | None = None, *, service: Any = None, **changes: Any) -> Connection:
    """Continue the run of a journal after its process has ended, with the same settings.

    Finished jobs are read from the journal or fetched by their id, running jobs are awaited, and a job that the
    service accepted just before the process died is found by its tag: nothing is submitted twice. Restore the
    model from ``connection.checkpoint`` and continue the training.

    Args:
        journal: The path that was passed to ``connect``.
        backend: The backend object, if the run was given one that cannot be found by name.
        service: A ``QiskitRuntimeService`` to use instead of opening one.
        **changes: New values of settings that do not affect results: mode, max_executions, max_seconds,
            max_depth, retries, backoff.

    Raises:
        QtmError: The journal does not exist, another process is using it, or the backend differs.
        ParameterError: A setting that affects results would change.
    """
    check_type(journal, "journal", (str, os.PathLike), "the path of a journal", "give the file given to connect")
    if backend is not None:
        check_type(backend, "backend", BackendV2, "a BackendV2", "leave it out to find the device by its name")
    if not Path(journal).exists():
        raise QtmError(f"there is no journal {str(journal)!r}; start it with hardware.connect(journal=...)")
    if wrong := sorted(changes.keys() - _FREE):
        raise ParameterError(f"a resumed run cannot change {wrong}; it may change {', '.join(sorted(_FREE))}")
    stored = Journal(journal)
    try:
        settings = _stored_settings(stored, changes)
        check_given(stored.setting("backend_class"), backend, settings.backend)
        device, service = find_backend(backend or settings.backend, service, settings, None)
        if device.name != settings.backend:
            raise QtmError(f"the run in {str(journal)!r} is on {settings.backend}, not on {device.name}")
        return Connection(device, service, settings, stored)
    except BaseException:
        stored.close()
        raise


def find(run: str | Path, *, service: Any = None, instance: str | None = None) -> list[Any]:
    """List the jobs of a run at the service, from any machine, even if its journal is lost.

    Args:
        run: Path of the journal, or the id of the run, ``connection.journal.run_id``.
        service: A ``QiskitRuntimeService`` to use instead of opening one.
        instance: The instance (CRN or name) of the account.

    Returns:
        The runtime jobs, latest first; ``job.result()`` fetches a result.

    Raises:
        QtmError: The account cannot be opened, or the journal is damaged.
    """
    if Path(run).exists():
        journal = Journal(run)
        run_id = journal.run_id
        journal.close()
    else:
        run_id = str(run)
    service = service or open_service(instance)
    return list(Retry()("listing the jobs of the run", lambda _: service.jobs(limit=None, job_tags=[run_tag(run_id)])))


def _stored_settings(journal: Journal, changes: Mapping[str, Any]) -> Settings:
    values = journal.setting("settings")
    if values is None:
        raise QtmError(f"{str(journal.path)!r} ended before it was set up; delete it and connect again")
    settings = dataclasses.replace(Settings(**values), **changes)
    journal.set_setting("settings", dataclasses.asdict(settings))
    return settings


def _connected(
    device: BackendV2, service: Any, settings: Settings, path: str | Path | None, given: str | None
) -> Connection:
    journal: Journal | None = None
    try:
        journal = Journal(path)
        connection = Connection(device, service, settings, journal)
        journal.set_setting("settings", dataclasses.asdict(settings))
        journal.set_setting("backend_class", given)
        return connection
    except BaseException:
        if journal is not None:
            journal.close()
        if path is not None:  # it did not exist before, and nothing was submitted
            Path(path).unlink(missing_ok=True)
        raise


class Connection:
    """An open connection to a device. Use it as a context manager, so that its session is closed.

    Attributes:
        backend: The backend.
        estimator: The estimator (a ``BaseEstimatorV2``) for modules, gradients and plain Qiskit.
        sampler: The sampler (a ``BaseSamplerV2``) for `SamplerQNN` and plain Qiskit, with the same session, journal
            and budget.
        pass_manager: Transpiles circuits for the backend with ``run(circuit)``.
        journal: The jobs of the run; ``journal.jobs()`` lists them.
        checkpoint: A `Checkpoint` next to the journal (its name with ``.pt``); None without a journal file.
        settings: The `Settings` of the connection.
    """

    def __init__(self, backend: BackendV2, service: Any, settings: Settings, journal: Journal) -> None:
        self.backend, self.settings, self.journal = binding_backend(backend), settings, journal
        self._mode: Any = None
        self.pass_manager = DevicePassManager(backend, settings.optimization_level, settings.seed_transpiler, journal)
        circuits = settings.max_circuits_per_job or getattr(backend, "max_circuits", None)
        shared: dict[str, Any] = {
            "seed": settings.seed_simulator,
            "limits": Limits(circuits=circuits, depth=settings.max_depth),
            "budget": Budget(settings.max_executions, settings.max_seconds),
            "retry": Retry(settings.retries, settings.backoff),
            "dry_run": settings.dry_run,
        }
        where, opened = (backend, service, settings.estimator), (self._open_mode, journal)
        self.estimator = DeviceEstimator(*where, settings.runtime_options(), *opened, **shared)
        self.sampler = DeviceSampler(*where, settings.sampler_options(), *opened, **shared)
        self.checkpoint = None
        if journal.path is not None:
            self.checkpoint = Checkpoint(journal.path.with_name(journal.path.name + ".pt"), journal)

    def _open_mode(self) -> Any:
        name = MODES[self.settings.mode]
        if self._mode is not None:  # the estimator and the sampler share it
            return self._mode
        if name is None or self.settings.estimator == "backend":
            return self.backend
        runtime = require("qiskit_ibm_runtime", EXTRA)
        if name == "Session":
            self._mode = self._open_session(runtime)
        self._mode = self._mode or runtime.Batch(backend=self.backend)
        return self._mode

    def _open_session(self, runtime: Any) -> Any:
        """A session; None if the account's plan has no sessions and the mode is "auto"."""
        seconds = self.settings.max_seconds
        try:
            return runtime.Session(backend=self.backend, max_time=None if seconds is None else math.ceil(seconds))
        except Exception as error:
            if not any(text in str(error) for text in _NO_SESSIONS):
                raise
            if self.settings.mode != "auto":
                raise QtmError(
                    "the account's plan has no sessions, and nothing was submitted; "
                    f'hardware.resume(journal, mode="batch") continues without one ({error})'
                ) from error
            logger.warning("the account's plan has no sessions; jobs are submitted as a batch")
            return None

    @property
    def usage(self) -> Usage:
        """Usage of the run so far, in all its processes."""
        return self.journal.usage()

    def estimate_usage(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> Usage:
        """Forecast the usage of running the PUBs, without submitting anything.

        Seconds are a rule of thumb: 2 s per job, and per execution the duration of the circuit plus 250
        microseconds.
        """
        return self.estimator.estimate_usage(pubs, precision=precision)

    def check(self, forecast: Usage) -> None:
        """Compare a forecast with the rest of the budget and of the account's plan; nothing is submitted.

        A whole training is forecast by ``model.estimate_usage(batch, steps=...)``.

        Args:
            forecast: The usage to come.

        Raises:
            BudgetExceeded: It exceeds the rest of ``max_seconds`` or ``max_executions``, or of the plan
                (``usage_remaining_seconds`` of the service).

        Example:
            >>> from qiskit.circuit.library import real_amplitudes
            >>> with hardware.connect("fake_manila", max_seconds=60) as device:
            ...     ansatz = real_amplitudes(2, reps=1)
            ...     settings = {"estimator": device.estimator, "pass_manager": device.pass_manager}
            ...     model = QuantumModule(ansatz, None, ansatz.parameters, gradient="auto", **settings)
            ...     device.check(model.estimate_usage(1, steps=20))
            Traceback (most recent call last):
            ...
            qtm._errors.BudgetExceeded: max_seconds=60 would be exceeded: used so far 0 jobs, ...
        """
        self.estimator.check(forecast)

    def recalibrate(self) -> None:
        """Fetch the backend's latest calibration and use it from the next submission on.

        Modules transpile their circuits again (which is logged), and error mitigation measures its maps and readout
        factors again.
        """
        refresh(self.backend)
        self.pass_manager.next_epoch()
        self.journal.forget()

    def close(self) -> None:
        """Close the session and the journal. Submitted jobs keep running, and a resumed run fetches them."""
        try:
            if self._mode is not None:
                self._close_mode()
        finally:
            self._mode = None
            self.journal.close()

    def _close_mode(self) -> None:
        """Close the session or batch; a run that is complete does not fail because the service is out of reach."""
        retry = Retry(self.settings.retries, self.settings.backoff)
        try:
            retry("closing the session", lambda _: self._mode.close())
            self.estimator.note_session()
            self.sampler.note_session()
        except (QiskitError, OSError) as error:
            logger.warning(
                "the %s %s could not be closed (%s: %s); close it at quantum.cloud.ibm.com, or it ends after its "
                "maximum time", type(self._mode).__name__.lower(), getattr(self._mode, "session_id", "?"),
                type(error).__name__, error,
            )  # fmt: skip

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a connection holds an open account and cannot be pickled; connect in each process")

    def __repr__(self) -> str:
        return f"<Connection to {self.backend.name}, mode {self.settings.mode!r}>"
