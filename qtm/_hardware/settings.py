"""Options of a connection to a device, checked before any service is contacted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from qtm._arguments import (
    check_type,
    checked_choice,
    checked_flag,
    checked_int,
    checked_number,
    checked_options,
    checked_seed,
)
from qtm._errors import ParameterError
from qtm._hardware.runtime import KINDS
from qtm._primitives.job_usage import precision_of

# Mode -> the runtime's class that groups the jobs.
MODES = {"auto": "Session", "session": "Session", "batch": "Batch", "job": None}

# Options of the runtime that its estimators and samplers share.
_OF_BOTH = ("dynamical_decoupling", "twirling", "execution", "environment", "max_execution_time", "simulator")

# Checks of options that are not None.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("shots", "max_executions", "max_depth", "max_circuits_per_job"), partial(
        checked_int, advice="give a count of at least 1, or None", least=1)),
    "retries": partial(checked_int, advice="give the number of retries; 0 for none"),
    "precision": partial(checked_number, advice="give the standard deviation to reach", above=0),
    **dict.fromkeys(("max_seconds", "backoff"), partial(checked_number, advice="give seconds", least=0)),
    "optimization_level": partial(checked_int, advice="give a level of Qiskit's pass managers", most=3),
    **dict.fromkeys(("seed_transpiler", "seed_simulator"), checked_seed),
    **dict.fromkeys(("use_fractional_gates", "dry_run"), checked_flag),
    "instance": partial(
        check_type, kinds=str, expected="the name or CRN of an instance", advice="give None for the account's own"),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Options of a connection, for ``connect(backend, **options)``; the journal stores them, without secrets.

    Attributes:
        backend: Name of the device.
        mode: "session" (queues once, billed by wall-clock time), "batch", "job" (each job queues), or "auto": a
            session if the account's plan has sessions, else a batch, which is logged.
        estimator: "auto" for "executor" on IBM's devices and on simulators, and "backend" on the devices of other
            providers. "executor" is the client-side estimator of the runtime (readout mitigation, zero-noise
            extrapolation, twirling, dynamical decoupling), "v2" the older one (deprecated since 0.50); "backend" is
            Qiskit's ``BackendEstimatorV2``, which runs circuits on the backend directly. Ids of the provider's jobs are
            in the journal; a resumed run fetches them with the backend's ``retrieve_job``, and submits them again if
            the backend has no such method.
        shots: Shots per circuit, unless a PUB specifies a precision.
        precision: Target standard deviation, instead of shots.
        options: Options of the runtime's estimator, e.g. ``{"resilience_level": 2, "dynamical_decoupling":
            {"enable": True}}``.
        optimization_level: Optimization level of the pass manager, 0 to 3.
        seed_transpiler: Seed of the pass manager; if None, it is drawn and kept in the journal.
        seed_simulator: Seed of local mode; each job derives its own seed from it.
        use_fractional_gates: Transpile to RX and RZZ of any angle, if the device has them. RZZ angles are folded
            into [0, pi/2], the range of the device, for every parameter set.
        instance: The instance (CRN or name) of the account.
        max_executions: Budget of circuit executions for the whole run (see `Usage`).
        max_seconds: Budget of quantum seconds for the whole run; a session, and every job, ends after as many seconds
            as are left of it.
        max_depth: Maximum depth of a circuit; deeper circuits raise an error.
        max_circuits_per_job: Maximum number of circuits in a job; larger submissions are split. None: the limit
            of the backend.
        retries: Number of retries after a transient failure (network, busy server).
        backoff: Seconds before the first retry; doubled for each one after it.
        dry_run: Submit nothing: circuits, limits and budgets are checked, the usage that would result is counted in
            `usage`, and values are exact ones from qtm's simulator. The script runs as it would on the device, at no
            cost.
    """

    backend: str
    mode: str = "auto"
    estimator: str = "auto"
    shots: int | None = None
    precision: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    optimization_level: int = 1
    seed_transpiler: int | None = None
    seed_simulator: int | None = None
    use_fractional_gates: bool = False
    instance: str | None = None
    max_executions: int | None = None
    max_seconds: float | None = None
    max_depth: int | None = None
    max_circuits_per_job: int | None = None
    retries: int = 5
    backoff: float = 1.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        checked_choice(self.mode, "mode", MODES)
        checked_choice(self.estimator, "estimator", ("auto", *KINDS))
        checked_options(vars(self), {f.name: f.default for f in fields(self)}, _CHECKS)
        if self.shots is not None and self.precision is not None:
            raise ParameterError("shots= and precision= are mutually exclusive: give one of them")
        try:
            json.dumps(self.options)
        except TypeError as error:
            raise ParameterError(
                f"options= must be plain values, so that a run can be resumed ({error}); set objects on "
                "connection.estimator.options instead"
            ) from error

    def sampler_options(self) -> dict[str, Any]:
        """Return the options of the sampler: shots, and what both primitives have."""
        shared = {name: self.options[name] for name in _OF_BOTH if name in self.options}
        shots = self.shots or (None if self.precision is None else math.ceil(self.precision**-2))
        if self.estimator == "backend":
            shared = {}
        return shared if shots is None else shared | {"default_shots": shots}

    def runtime_options(self) -> dict[str, Any]:
        """Return the options of the estimator."""
        if self.estimator == "backend" and self.shots is not None:
            return dict(self.options) | {"default_precision": precision_of(self.shots)}
        named: dict[str, Any] = {"default_shots": self.shots, "default_precision": self.precision}
        return dict(self.options) | {name: value for name, value in named.items() if value is not None}
