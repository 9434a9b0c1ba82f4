"""The estimator of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from qiskit.primitives import BaseEstimatorV2, PrimitiveResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.providers import BackendV2

from qtm._hardware.device_job import DeviceJob
from qtm._hardware.device_primitive import DevicePrimitive
from qtm._hardware.job_splitting import Piece, coerce_pubs, join
from qtm._hardware.local_mode import on_used_qubits
from qtm._hardware.result_codec import pack, problem_with, unpack
from qtm._hardware.runtime import KINDS, CostModel, make_estimator
from qtm._primitives.job_usage import Usage
from qtm.primitives import FastEstimator


class DeviceEstimator(DevicePrimitive, BaseEstimatorV2):
    """An estimator on a device: checks, splits, budgets and journals what it submits.

    Created by `hardware.connect`. Its ``options`` are those of the runtime's estimator.
    """

    name: ClassVar[str] = "estimator"

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> DeviceJob:
        """Submit PUBs; jobs that the journal already holds are not submitted again.

        Args:
            pubs: (circuit, observables, parameter values, precision) each, transpiled for the backend.
            precision: Standard deviation for PUBs that specify none; None: the default of the options.

        Raises:
            CircuitError: A PUB cannot run on this backend.
            ParameterError: A parameter value is not finite.
            BudgetExceeded: The submission would exceed the budget, or the rest of the plan; nothing was submitted.
            JobError: The service refused a job, or could not be reached.
        """
        return self._submitted(self._coerced(pubs, precision))

    def estimate_usage(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> Usage:
        """Forecast the usage of ``run``, without submitting anything (see `Usage` for how it counts)."""
        return self._estimated(self._coerced(pubs, precision))

    def _coerced(self, pubs: Iterable[EstimatorPubLike], precision: float | None) -> list[EstimatorPub]:
        return self._folded(coerce_pubs(pubs, precision))

    def _made(self, mode: Any, options: Any) -> Any:
        return make_estimator(self._kind, mode, options)

    def _cost(self, pubs: Sequence[Any], options: Any) -> Usage:
        mitigates = KINDS[self._kind].mitigates_locally or not self._simulated
        return CostModel(self.backend, self._kind, mitigates)(pubs, options)

    def _exact_job(self, pubs: list[Any]) -> Any:
        pubs, _ = on_used_qubits(pubs, self.backend)
        return FastEstimator().run([(pub.circuit, pub.observables, pub.parameter_values) for pub in pubs])

    def _on_used_qubits(self, pubs: list[Any]) -> tuple[list[Any], BackendV2]:
        return on_used_qubits(pubs, self.backend)

    def pack(self, result: PrimitiveResult) -> bytes:
        return pack(result)

    def unpack(self, stored: bytes) -> PrimitiveResult:
        return unpack(stored)

    def problem_with(self, result: Any, pubs: list[Any]) -> str | None:
        return problem_with(result, [pub.shape for pub in pubs])

    def join(self, pubs: Sequence[Any], jobs: Iterable[tuple[list[Piece], PrimitiveResult]]) -> PrimitiveResult:
        return join(pubs, jobs)
