"""Outputs of one circuit at many points, from any primitive, in jobs that are counted and checked."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager

from qtm._arguments import checked_int
from qtm._errors import CircuitError, JobError, QtmError
from qtm._primitives.aer_circuits import circuit_for
from qtm._primitives.job_usage import Usage

logger = logging.getLogger("qtm")


class PrimitiveRunner(ABC):
    """Outputs of one circuit at many points, from one primitive.

    All points of a call are parameter bindings of one PUB, so a call is one job. A subclass sets its circuit with
    `_take`.

    Args:
        primitive: runs the jobs.
        parameters: parameters to which the coordinates of a point are bound, in this order.
        max_points: maximum number of points in one job; None for no limit.

    Raises:
        ParameterError: ``max_points`` is unusable.
    """

    def __init__(self, primitive: Any, parameters: Sequence[Parameter], *, max_points: int | None = None) -> None:
        if max_points is not None:
            max_points = checked_int(max_points, "max_points", "give the parameter sets that a job may hold", least=1)
        self.primitive, self.max_points = primitive, max_points
        self._parameters = tuple(parameters)
        self.usage = Usage()

    def _take(self, circuit: QuantumCircuit, is_isa: bool) -> None:
        """Set the circuit, rewritten only where Aer would not bind it.

        ``is_isa``: whether it is already in the instructions of a device.
        """
        self.circuit = circuit_for(self.primitive, circuit, is_isa)
        # Transpiling may remove a parameter that nothing depends on; primitives reject values for it.
        used = set(self.circuit.parameters)
        self._columns = [k for k, parameter in enumerate(self._parameters) if parameter in used]
        self._bound = tuple(self._parameters[k] for k in self._columns)

    @abstractmethod
    def _refresh(self) -> None:
        """Called before each use, to follow a recalibration."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs of a point."""

    @property
    @abstractmethod
    def noise(self) -> float:
        """Standard deviation of an output; 0 if the primitive is exact."""

    @abstractmethod
    def _pubs(self, rows: np.ndarray) -> list[Any]:
        """PUBs of one job, for values (points, bound parameters)."""

    @abstractmethod
    def _run(self, pubs: list[Any]) -> Any:
        """The job of these PUBs."""

    @abstractmethod
    def _read(self, results: Any, pubs: list[Any]) -> tuple[np.ndarray, str | None]:
        """Outputs (points, outputs) of a job's result, and what is wrong with them, or None."""

    @abstractmethod
    def _usage_of(self, pubs: list[Any]) -> Usage:
        """Usage of a job of these PUBs."""

    def values(self, points: np.ndarray) -> np.ndarray:
        """Outputs (..., outputs) at points (..., coordinates), in radians.

        A circuit that depends on none of the coordinates is run at a single point.

        Raises:
            JobError: the primitive failed or returned an unusable result; names the job.
        """
        self._refresh()
        shape = (*points.shape[:-1], self.num_outputs)
        flat = points.reshape(math.prod(points.shape[:-1]), len(self._parameters)).astype(float, copy=False)
        wanted = list(self._jobs(flat))
        jobs: list[Any] = []
        for pubs in wanted:
            jobs.append(self._submit(pubs, jobs))
        parts = [self._collect(job, pubs) for job, pubs in zip(jobs, wanted, strict=True)]
        if not parts:
            return np.zeros(shape)
        found = np.concatenate(parts)  # (points, outputs)
        return found.reshape(shape) if self._bound else np.broadcast_to(found[0], shape).copy()

    def forecast(self) -> AbstractContextManager[None]:
        """Context in which successive previews forecast successive jobs, as mitigation methods draw random numbers."""
        return self.primitive.forecast() if hasattr(self.primitive, "forecast") else nullcontext()

    def forecast_state(self) -> Any:
        """State that determines the next preview within `forecast`; None if all are equal."""
        return self.primitive.state_dict() if hasattr(self.primitive, "forecast") else None

    def preview(self, points: int) -> Usage:
        """Forecast the usage of ``values`` at this many points; nothing is submitted."""
        self._refresh()
        jobs = self._jobs(np.zeros((points, len(self._parameters))))
        return sum((self._usage_of(pubs) for pubs in jobs), Usage())

    def _jobs(self, points: np.ndarray) -> Iterator[list[Any]]:
        points = points if self._bound else points[:1]
        step = self.max_points or max(len(points), 1)
        for start in range(0, len(points), step):
            yield self._pubs(points[start : start + step, self._columns])

    def _submit(self, pubs: list[Any], before: Sequence[Any]) -> Any:
        usage = self._usage_of(pubs)
        try:
            job = self._run(pubs)
        except QtmError:  # its message is complete: a budget, a circuit that does not fit
            raise
        except Exception as error:
            sent = f"; submitted before it: job {', '.join(map(_job_id, before))}" if before else ""
            raise JobError(f"{self._name} rejected the job ({usage}): {text_of(error)}{sent}") from error
        self.usage += usage
        logger.info("job %s on %s: %s; so far %s", _job_id(job), self._name, usage, self.usage)
        return job

    def _collect(self, job: Any, pubs: list[Any]) -> np.ndarray:
        """Checked outputs (points, outputs) of one job."""
        try:
            results = job.result()
        except QtmError:
            raise
        except Exception as error:
            raise JobError(
                f"job {_job_id(job)} on {self._name} failed: {text_of(error)}. Circuits are sent as they are "
                "where no pass_manager= transpiles them for the backend"
            ) from error
        values, problem = self._read(results, pubs)
        if problem is not None:
            raise JobError(f"job {_job_id(job)} on {self._name} gave an unusable result: {problem}")
        return values

    @property
    def _name(self) -> str:
        return type(self.primitive).__name__


def epoch_of(pass_manager: Any) -> int:
    """Number of recalibrations, if the pass manager is that of a device."""
    return int(getattr(pass_manager, "epoch", 0))


def transpiled(circuit: QuantumCircuit, pass_manager: BasePassManager) -> QuantumCircuit:
    """Transpile a circuit.

    Raises:
        CircuitError: the pass manager cannot transpile it.
    """
    try:
        return pass_manager.run(circuit)
    except QtmError:
        raise
    except Exception as error:
        raise CircuitError(f"the pass manager cannot transpile circuit {circuit.name!r}: {text_of(error)}") from error


def _job_id(job: Any) -> str:
    return str(job.job_id()) if hasattr(job, "job_id") else "without an id"


def text_of(error: Exception) -> str:
    """The class and the message of an error."""
    return f"{type(error).__name__}: {error}"
