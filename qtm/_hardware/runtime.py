"""IBM Runtime: its estimators and samplers, their cost, and which errors are transient."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.providers import BackendV2

from qtm._errors import ParameterError, require
from qtm._primitives.job_usage import Usage, measured_circuits

logger = logging.getLogger("qtm")
T = TypeVar("T")

EXTRA = "hardware"

# Rule of thumb for the quantum time of a job, if the service reports none (guide "Workload
# usage", quantum.cloud.ibm.com/docs/guides/estimate-job-run-time): a fixed part, and for every execution
# the circuit plus the delay between two of them.
SECONDS_PER_JOB = 2.0
REPETITION_DELAY = 250e-6  # seconds, the default of IBM's devices
DEFAULT_PRECISION = 0.015625  # of both estimators of the runtime: 4096 shots

# HTTP status codes worth a retry; -1 is the runtime's code for a broken connection.
_TRANSIENT_STATUS = frozenset({-1, 408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 524})

_LEVELS = {  # resilience level -> (twirled gates, twirled readout, readout calibration, extrapolation)
    0: (False, False, False, False),
    1: (False, True, True, False),
    2: (True, True, True, True),
}


@dataclass(frozen=True)
class Kind:
    """One of the runtime's estimators.

    Attributes:
        module: Where its class is.
        name: Its class.
        mitigates_locally: Its local testing mode twirls, calibrates and extrapolates like the service.
    """

    module: str
    name: str
    mitigates_locally: bool


KINDS = {
    "executor": Kind("qiskit_ibm_runtime.executor_estimator", "Estimator", True),
    "v2": Kind("qiskit_ibm_runtime", "EstimatorV2", False),
    "backend": Kind("qiskit.primitives", "BackendEstimatorV2", False),
}


def make_estimator(kind: str, mode: Any, options: Any) -> BaseEstimatorV2:
    """Return an estimator of the runtime; ``options`` are a dict, or the options of another one.

    Raises:
        ParameterError: An option is unknown to the runtime, or its value is invalid.
        MissingPackage: qiskit-ibm-runtime is not installed.
    """
    require("qiskit_ibm_runtime", EXTRA)
    estimator = getattr(require(KINDS[kind].module, EXTRA), KINDS[kind].name)
    try:
        with warnings.catch_warnings():
            # `Settings` documents that "v2" is deprecated
            warnings.filterwarnings("ignore", "The EstimatorV2 class is deprecated", DeprecationWarning)
            if kind == "backend":
                return estimator(backend=mode, options=dict(options if isinstance(options, Mapping) else vars(options)))
            return estimator(mode=mode, options=options)
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise ParameterError(
            f"estimator={kind!r} rejects the options {options}: {error}; its options are listed in {KINDS[kind].module}"
        ) from error


_SAMPLERS = {
    "executor": ("qiskit_ibm_runtime.executor_sampler", "Sampler"),
    "v2": ("qiskit_ibm_runtime", "SamplerV2"),
    "backend": ("qiskit.primitives", "BackendSamplerV2"),
}


def make_sampler(kind: str, mode: Any, options: Any) -> Any:
    """Return the sampler of the same kind as an estimator; raises as `make_estimator`."""
    require("qiskit_ibm_runtime", EXTRA)
    module, name = _SAMPLERS[kind]
    sampler = getattr(require(module, EXTRA), name)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The SamplerV2 class is deprecated", DeprecationWarning)
            if kind == "backend":
                return sampler(backend=mode, options=dict(options if isinstance(options, Mapping) else vars(options)))
            return sampler(mode=mode, options=options)
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise ParameterError(f"the sampler {kind!r} rejects the options {options}: {error}; see {module}") from error


def kind_for(backend: BackendV2) -> str:
    """Return the estimator that runs on a backend: the executor on IBM's devices and on simulators.

    A backend of another provider runs circuits itself, through Qiskit's ``BackendEstimatorV2``.
    """
    own = [cls for cls in type(backend).__mro__ if cls.__module__ != "qiskit.providers.backend"]
    roots = {cls.__module__.split(".")[0] for cls in own}
    return "executor" if roots & {"qiskit_ibm_runtime", "qiskit_aer", "qiskit"} else "backend"


def plain_options(options: Any) -> dict[str, Any]:
    """Return the options that determine results: not the tags, logs and time limits of the environment."""
    dump = getattr(options, "model_dump", None)
    values = dump() if dump is not None else _fields(options)
    return {key: value for key, value in values.items() if key not in ("environment", "max_execution_time")}


def _fields(options: Any) -> dict[str, Any]:
    """Options of the older estimator: nested dataclasses, whose unset values have no copy."""
    values = {name: getattr(options, name) for name in getattr(options, "__dataclass_fields__", {})}
    return {n: _fields(v) if hasattr(v, "__dataclass_fields__") else v for n, v in values.items()}


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default


def shots_of(pub: EstimatorPub, options: Mapping[str, Any]) -> int:
    """Return the shots of one circuit of a PUB: from its precision, else from the defaults."""
    if pub.precision is None and _number(options.get("default_shots"), 0) > 0:
        return int(options["default_shots"])
    precision = pub.precision or _number(options.get("default_precision"), DEFAULT_PRECISION)
    return math.ceil(1 / precision**2)


@dataclass(frozen=True)
class CostModel:
    """Usage of one job of PUBs, with the options at the time of the call.

    Counts follow the runtime: twirling splits the shots among randomizations, zero-noise extrapolation runs
    every circuit once per noise factor, readout mitigation adds one calibration circuit per job. The number of
    randomizations of probabilistic error cancellation depends on the noise: it is taken from the job that the executor
    would send; for the older estimator, which learns the noise at the service, it is the maximum that its options
    allow.
    """

    backend: BackendV2
    kind: str
    mitigates: bool

    def __call__(self, pubs: Sequence[EstimatorPub], runtime_options: Any) -> Usage:
        if not pubs:
            return Usage()
        options = plain_options(runtime_options)
        usage = self._without_cancellation(pubs, options)
        if not self.mitigates or not _said(options.get("resilience", {}), "pec_mitigation", False):
            return usage
        if self.kind == "executor":
            executions = _prepared_executions(pubs, runtime_options, self.backend)
        else:
            overhead = _number(options["resilience"].get("pec", {}).get("max_overhead"), 100)
            executions = math.ceil(usage.executions * overhead)
        per_execution = (usage.seconds - SECONDS_PER_JOB) / max(1, usage.executions)
        seconds = SECONDS_PER_JOB + executions * per_execution
        return replace(usage, executions=executions, seconds=seconds)

    def _without_cancellation(self, pubs: Sequence[EstimatorPub], options: Mapping[str, Any]) -> Usage:
        factors, twirled, calibrated = self._mitigation(options)
        circuits, executions, seconds = 0, 0, SECONDS_PER_JOB
        for pub in pubs:
            randomizations, shots = _dealt(shots_of(pub, options), options, twirled)
            count = measured_circuits(pub) * factors
            circuits += count
            executions += count * randomizations * shots
            seconds += count * randomizations * shots * (REPETITION_DELAY + duration_of(pub.circuit, self.backend))
        if calibrated:
            randomizations, shots = _dealt(shots_of(pubs[0], options), options, twirled)
            asked = options["resilience"].get("measure_noise_learning", {}).get("num_randomizations", "auto")
            executions += int(_number(asked, randomizations)) * shots
        return Usage(1, len(pubs), circuits, executions, seconds)

    def _mitigation(self, options: Mapping[str, Any]) -> tuple[int, bool, bool]:
        """Return the number of noise factors, whether shots are twirled, whether readout is calibrated."""
        if not self.mitigates:
            return 1, False, False
        level = _LEVELS[int(_number(options.get("resilience_level"), 1))]
        resilience, twirling = options.get("resilience", {}), options.get("twirling", {})
        gates = _said(twirling, "enable_gates", level[0])
        readout = _said(twirling, "enable_measure", level[1])
        calibrated = _said(resilience, "measure_mitigation", level[2])
        extrapolated = _said(resilience, "zne_mitigation", level[3])
        noise_factors = resilience.get("zne", {}).get("noise_factors", "auto")
        factors = len(noise_factors) if isinstance(noise_factors, (list, tuple)) else 3
        amplified = extrapolated and resilience.get("zne", {}).get("amplifier") == "pea"
        random = gates or readout or calibrated or amplified or _said(resilience, "pec_mitigation", False)
        return factors if extrapolated else 1, random, calibrated


def duration_of(circuit: QuantumCircuit, backend: BackendV2) -> float:
    """Seconds of one execution; 0 where the target has no durations (a simulator)."""
    try:
        return float(circuit.estimate_duration(backend.target, "s"))
    except QiskitError as error:
        logger.debug("no duration for %s: %s", circuit.name, error)
        return 0.0


def _prepared_executions(pubs: Sequence[EstimatorPub], options: Any, backend: BackendV2) -> int:
    prepare = require("qiskit_ibm_runtime.executor_estimator.prepare", EXTRA).prepare
    program, _ = prepare(pubs, options, backend=backend)
    return sum(item.size() for item in program.items) * int(program.shots)


def _said(options: Mapping[str, Any], name: str, default: bool) -> bool:
    value = options.get(name)
    return value if isinstance(value, bool) else default


def _dealt(shots: int, options: Mapping[str, Any], twirled: bool) -> tuple[int, int]:
    """Return (randomizations, shots of each), in the way the runtime splits shots."""
    if not twirled:
        return 1, shots
    twirling = options.get("twirling", {})
    randomizations = _number(twirling.get("num_randomizations"), 0)
    each = _number(twirling.get("shots_per_randomization"), 0)
    if not each:
        each = math.ceil(shots / randomizations) if randomizations else max(64, math.ceil(shots / 32))
    return int(randomizations or math.ceil(shots / each)), int(each)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may help: a broken connection, a time-out, a busy or restarting server.

    The runtime wraps the server's responses in errors without the status, so the chain of causes is searched for it.
    """
    seen: BaseException | None = error
    while seen is not None:
        status = _http_status(seen)
        if status is not None:
            return status in _TRANSIENT_STATUS
        if isinstance(seen, (ConnectionError, TimeoutError)) or _is_network_error(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


# The service's error while the plan allows no further pending job (qiskit-ibm-runtime issue 1124).
_QUEUE_IS_FULL = ("3458", "pending jobs")


def is_queue_full(error: BaseException) -> bool:
    """Return whether the service rejected a job because the account has too many pending jobs."""
    return any(text in str(error) for text in _QUEUE_IS_FULL)


def _http_status(error: BaseException) -> int | None:
    """The HTTP status of an error: an attribute in IBM's and httpx's errors, in a dictionary in botocore's."""
    response = getattr(error, "response", None)
    answer = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, Mapping) else None
    found = (getattr(error, "status_code", None), getattr(response, "status_code", None), answer)
    return next((status for status in found if isinstance(status, int)), None)


_HTTP_CLIENTS = frozenset({"requests", "urllib3", "httpx", "botocore"})
_NETWORK_ERRORS = frozenset(
    {"ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError", "TransportError", "HTTPClientError"}
)


def _is_network_error(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.split(".")[0] in _HTTP_CLIENTS}
    return bool(names & _NETWORK_ERRORS)


@dataclass(frozen=True)
class Retry:
    """Retries after transient failures, with exponential backoff.

    Attributes:
        times: Attempts after the first.
        backoff: Seconds before the first retry; doubled for each one after it, at most 60.
    """

    times: int = 5
    backoff: float = 1.0

    def __call__(self, what: str, action: Callable[[int], T]) -> T:
        """Return ``action(attempt)``; an error that is not transient, or the last one, is raised.

        While the account's queue of pending jobs is full it waits, however long that takes.
        """
        failures = waits = 0
        while True:
            try:
                return action(failures + waits)
            except Exception as error:
                full = is_queue_full(error)
                if not full and (failures == self.times or not is_transient(error)):
                    raise
                wait = min(60.0, self.backoff * 2 ** (waits if full else failures))
                why = "as many jobs are pending as the plan allows" if full else type(error).__name__
                logger.warning("%s: %s; trying again in %.1f s", what, why, wait)
                waits, failures = waits + full, failures + (not full)
                time.sleep(wait)
