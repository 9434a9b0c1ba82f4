"""A circuit and its observables on any estimator: points in, values out, one job of one PUB for them all."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ControlledGate, Operation, Parameter, ParameterExpression
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers import BindingsArray, ObservablesArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp

from qtm._circuit.observables import Observable
from qtm._errors import CircuitError, JobError, ObservableError, ParameterError, QtmError
from qtm._locks import cached_property
from qtm._primitives.job_usage import Usage, measured_circuits

logger = logging.getLogger("qtm")

# Where estimators keep the noise that they run with, the first that is set: Runtime's and Aer's options,
# Qiskit's reference primitives, qtm.noise.
_NOISE_SETTINGS: tuple[tuple[Callable[[Any], Any], Callable[[float], float]], ...] = (
    (attrgetter("options.default_shots"), lambda shots: 1 / math.sqrt(shots)),
    (attrgetter("options.default_precision"), float),
    (attrgetter("default_precision"), float),
    (attrgetter("shots"), lambda shots: 1 / math.sqrt(shots)),
)


def shot_noise(estimator: Any) -> float:
    """Standard deviation that an estimator aims at where a run names no precision; 0 where it is exact."""
    for find, as_precision in _NOISE_SETTINGS:
        try:
            setting = find(estimator)
        except AttributeError:
            continue
        if isinstance(setting, int | float) and setting > 0:
            return as_precision(setting)
    inner = getattr(estimator, "estimator", None)  # a wrapper, such as a mitigated estimator
    return shot_noise(inner) if isinstance(inner, BaseEstimatorV2) else 0.0


class EstimatorRunner:
    """Expectation values of one circuit at many points, from any ``BaseEstimatorV2``.

    All points of a call are parameter bindings (points, 1) of one PUB against observables (observables,), so
    a call is one job whatever their number.

    Args:
        estimator: what runs the job.
        circuit: without measurements.
        parameters: what the coordinates of a point are bound to, in this order.
        observables: on the qubits of ``circuit``.
        pass_manager: transpiles the circuit, here and once; the observables follow its layout.
        precision: standard deviation to ask the estimator for; None for its own default.
        max_points: points of a job, where the service or the memory has a limit; more points are more jobs.

    Raises:
        CircuitError: the pass manager cannot transpile the circuit.
        ObservableError: an observable is zero.
        ParameterError: ``precision`` or ``max_points`` is unusable.
    """

    def __init__(
        self,
        estimator: BaseEstimatorV2,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        observables: Sequence[Observable],
        *,
        pass_manager: BasePassManager | None = None,
        precision: float | None = None,
        max_points: int | None = None,
    ) -> None:
        _check_options(precision, max_points)
        self.estimator, self.precision, self.max_points = estimator, precision, max_points
        laid_out = _transpiled(circuit, pass_manager) if pass_manager is not None else None
        self.observables = ObservablesArray([_operator(o, laid_out) for o in observables])
        circuit = circuit if laid_out is None else laid_out
        # What is in the instructions of a device stays in them.
        self.circuit = _bindable(circuit) if laid_out is None or _runs_on_aer(estimator) else circuit
        # Transpiling may remove a parameter that nothing depends on; estimators refuse to be told its value.
        used = set(self.circuit.parameters)
        self._columns = [k for k, parameter in enumerate(parameters) if parameter in used]
        self._bound = tuple(parameters[k] for k in self._columns)
        self._num_coordinates = len(parameters)
        self.usage = Usage()

    @property
    def noise(self) -> float:
        """Standard deviation of a value; 0 where the estimator is exact."""
        return shot_noise(self.estimator) if self.precision is None else self.precision

    def values(self, points: np.ndarray) -> np.ndarray:
        """Values (..., observables) at points (..., coordinates), in radians.

        A circuit that depends on none of the coordinates is run at one point, for all.

        Raises:
            JobError: the estimator failed, or its result is not what it was asked for; names the job.
        """
        shape = (*points.shape[:-1], self.observables.size)
        flat = points.reshape(math.prod(points.shape[:-1]), self._num_coordinates).astype(float, copy=False)
        pubs = list(self._pubs(flat))
        jobs: list[Any] = []
        for pub in pubs:
            jobs.append(self._submit(pub, jobs))
        parts = [self._collect(job, pub) for job, pub in zip(jobs, pubs, strict=True)]
        if not parts:
            return np.zeros(shape)
        found = np.concatenate(parts)  # (points, observables)
        return found.reshape(shape) if self._bound else np.broadcast_to(found[0], shape).copy()

    def preview(self, points: int) -> Usage:
        """What ``values`` of so many points would use; nothing is submitted."""
        pubs = self._pubs(np.zeros((points, self._num_coordinates)))
        return sum((self._usage_of(pub) for pub in pubs), Usage())

    def _pubs(self, points: np.ndarray) -> Iterator[EstimatorPub]:
        points = points if self._bound else points[:1]
        step = self.max_points or max(len(points), 1)
        for start in range(0, len(points), step):
            rows = points[start : start + step, None, :][:, :, self._columns]  # (points, 1, bound)
            bindings = BindingsArray({self._bound: rows} if self._bound else {}, shape=(len(rows), 1))
            yield EstimatorPub(self.circuit, self.observables, bindings)

    def _submit(self, pub: EstimatorPub, before: Sequence[Any]) -> Any:
        usage = self._usage_of(pub)
        options = {} if self.precision is None else {"precision": self.precision}
        try:
            job = self.estimator.run([pub], **options)
        except QtmError:  # says what went wrong already: a budget, a circuit that does not fit
            raise
        except Exception as error:
            sent = f"; submitted before it: job {', '.join(map(_job_id, before))}" if before else ""
            raise JobError(f"{self._name} did not take the job ({usage}): {_text(error)}{sent}") from error
        self.usage += usage
        logger.info("job %s on %s: %s; so far %s", _job_id(job), self._name, usage, self.usage)
        return job

    def _collect(self, job: Any, pub: EstimatorPub) -> np.ndarray:
        """Checked values (points, observables) of one job."""
        try:
            results = job.result()
        except QtmError:
            raise
        except Exception as error:
            raise JobError(
                f"job {_job_id(job)} on {self._name} failed: {_text(error)}. Circuits are sent as they are "
                "where no pass_manager= transpiles them for the estimator's backend"
            ) from error
        values, problem = _read(results, pub.shape)
        if problem is not None:
            raise JobError(f"job {_job_id(job)} on {self._name} gave an unusable result: {problem}")
        return values

    def _usage_of(self, pub: EstimatorPub) -> Usage:
        if hasattr(self.estimator, "estimate_usage"):  # a service that knows its limits and its prices
            return self.estimator.estimate_usage([pub], precision=self.precision)
        circuits = pub.parameter_values.size * self._bases
        shots = math.ceil(1 / self.noise**2 - 1e-6) if self.noise else 1  # the square is off by rounding
        return Usage(jobs=1, pubs=1, circuits=circuits, executions=circuits * shots)

    @cached_property
    def _bases(self) -> int:
        """Measurement bases that the observables need."""
        return measured_circuits(next(self._pubs(np.zeros((1, self._num_coordinates)))))

    @property
    def _name(self) -> str:
        return type(self.estimator).__name__


def _check_options(precision: float | None, max_points: int | None) -> None:
    if precision is not None and not 0 <= precision < math.inf:
        raise ParameterError(f"precision={precision}; expected a standard deviation, 0 for exact values where possible")
    if max_points is not None and max_points < 1:
        raise ParameterError(f"max_points={max_points}; a job holds at least 1 point")


def _transpiled(circuit: QuantumCircuit, pass_manager: BasePassManager) -> QuantumCircuit:
    try:
        return pass_manager.run(circuit)
    except QtmError:
        raise
    except Exception as error:
        raise CircuitError(f"the pass manager cannot transpile circuit {circuit.name!r}: {_text(error)}") from error


def _runs_on_aer(estimator: Any) -> bool:
    own = any(kind.__module__.startswith("qiskit_aer.") for kind in type(estimator).__mro__)
    inner = getattr(estimator, "estimator", None)
    return own or (isinstance(inner, BaseEstimatorV2) and _runs_on_aer(inner))


def _bindable(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit with its parametrised controlled gates written as gates without controls.

    Aer 0.18 and before ignores the values that controlled gates are bound to by a PUB, and silently returns
    something else (qiskit-aer issues 2323, 2391 and 2403).
    """
    while controlled := {item.name for item in circuit.data if _is_unbound_controlled(item.operation)}:
        circuit = circuit.decompose(list(controlled))
    return circuit


def _is_unbound_controlled(operation: Operation) -> bool:
    return isinstance(operation, ControlledGate) and any(isinstance(p, ParameterExpression) for p in operation.params)


def _operator(observable: Observable, laid_out: QuantumCircuit | None) -> SparsePauliOp:
    if not observable.num_terms:
        raise ObservableError("an observable is zero, which estimators refuse; leave it out, or give it a term")
    operator = SparsePauliOp(observable.labels(), observable.coeffs)
    # Qiskit's own layout, as devices have more qubits than the masks of an Observable have bits.
    return operator if laid_out is None else operator.apply_layout(laid_out.layout, laid_out.num_qubits)


def _read(results: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, str | None]:
    """Values of a one-PUB result, and what is wrong with them, if anything."""
    try:
        values = [np.asarray(part.data.evs, dtype=float) for part in results]
    except (TypeError, AttributeError, ValueError) as error:
        return np.empty(0), f"it has no real expectation values ({error})"
    if len(values) != 1:
        return np.empty(0), f"it has {len(values)} entries for 1 PUB"
    if values[0].shape != shape:
        return values[0], f"its values have shape {values[0].shape}, expected {shape}: (points, observables)"
    if bad := int((~np.isfinite(values[0])).sum()):
        return values[0], f"{bad} of its {values[0].size} expectation values are NaN or infinite"
    return values[0], None


def _job_id(job: Any) -> str:
    return str(job.job_id()) if hasattr(job, "job_id") else "without an id"


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
