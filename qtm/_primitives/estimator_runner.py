"""Expectation values of one circuit at many points, from any estimator, in one job of one PUB."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp

from qtm._arguments import checked_precision
from qtm._circuit.observables import Observable
from qtm._errors import ObservableError
from qtm._locks import cached_property
from qtm._primitives.job_usage import Usage, measured_circuits, simulated_usage
from qtm._primitives.primitive_runner import PrimitiveRunner, epoch_of, logger, transpiled

# Attributes in which estimators keep their precision; the first that is set counts: Runtime's and Aer's options,
# Qiskit's reference primitives, qtm.noise.
_NOISE_SETTINGS: tuple[tuple[Callable[[Any], Any], Callable[[float], float]], ...] = (
    (attrgetter("options.default_shots"), lambda shots: 1 / math.sqrt(shots)),
    (attrgetter("options.default_precision"), float),
    (attrgetter("default_precision"), float),
    (attrgetter("shots"), lambda shots: 1 / math.sqrt(shots)),
)


def shot_noise(estimator: Any) -> float:
    """Standard deviation that an estimator targets if a run specifies no precision; 0 if it is exact."""
    for find, as_precision in _NOISE_SETTINGS:
        try:
            setting = find(estimator)
        except AttributeError:
            continue
        if isinstance(setting, int | float) and setting > 0:
            return as_precision(setting)
    inner = getattr(estimator, "estimator", None)  # a wrapper, such as a mitigated estimator
    return shot_noise(inner) if isinstance(inner, BaseEstimatorV2) else 0.0


class EstimatorRunner(PrimitiveRunner):
    """Expectation values of one circuit at many points, from any ``BaseEstimatorV2``.

    A call is one job, of one PUB: bindings (points, 1) against observables (observables,).

    Args:
        estimator: runs the jobs.
        circuit: without measurements.
        parameters: parameters to which the coordinates of a point are bound, in this order.
        observables: on the qubits of ``circuit``.
        pass_manager: transpiles the circuit, here and once; the observables follow its layout.
        precision: standard deviation requested from the estimator; None for its default.
        max_points: maximum number of points in one job; None for no limit.
        pub_per: one PUB per "job" (all points), per "point" or per "observable". A simulator with
            a seed gives the same noise to every PUB, so that with "point" it cancels in differences.
        is_isa: whether the circuit is already in the instructions of a device.

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
        observables: Sequence[Observable | SparsePauliOp],
        *,
        pass_manager: BasePassManager | None = None,
        precision: float | None = None,
        max_points: int | None = None,
        pub_per: Literal["job", "point", "observable"] = "job",
        is_isa: bool = False,
    ) -> None:
        if precision is not None:
            precision = checked_precision(precision, "precision")
        super().__init__(estimator, parameters, max_points=max_points)
        self.precision, self._pub_per, self._is_isa = precision, pub_per, is_isa
        self._source, self._wanted, self._pass_manager = circuit, tuple(observables), pass_manager
        self._lay_out()

    def _lay_out(self) -> None:
        """Transpile the circuit, and lay the observables out on its qubits."""
        self._epoch = epoch_of(self._pass_manager)
        laid_out = transpiled(self._source, self._pass_manager) if self._pass_manager is not None else None
        self.observables = ObservablesArray([_operator(o, laid_out) for o in self._wanted])
        # A copy, as a pass manager may return its argument. Its global phase has no effect on expectation
        # values, and parameters that only the phase contains would need values.
        circuit = (self._source if laid_out is None else laid_out).copy()
        circuit.global_phase = 0
        self._take(circuit, is_isa=self._is_isa or laid_out is not None)
        self.__dict__.pop("_bases", None)

    def _refresh(self) -> None:
        if self._epoch != epoch_of(self._pass_manager):
            self._lay_out()
            logger.info("the device was recalibrated: circuit %s was transpiled again", self._source.name)

    def __getstate__(self) -> dict[str, Any]:
        # Qiskit's preset pass managers do not pickle, and this one has done its work.
        return {**self.__dict__, "_pass_manager": None, "_epoch": 0}

    @property
    def num_outputs(self) -> int:
        return self.observables.size

    @property
    def noise(self) -> float:
        return shot_noise(self.primitive) if self.precision is None else self.precision

    def _pubs(self, rows: np.ndarray) -> list[EstimatorPub]:
        if self._pub_per == "point":
            return [self._pub(row, (), self.observables) for row in rows]
        values, shape = rows[:, None, :], (len(rows), 1)
        parts = self.observables.reshape(-1, 1) if self._pub_per == "observable" else [self.observables]
        return [self._pub(values, shape, part) for part in parts]

    def _pub(self, values: np.ndarray, shape: tuple[int, ...], observables: ObservablesArray) -> EstimatorPub:
        bindings = BindingsArray({self._bound: values} if self._bound else {}, shape=shape)
        return EstimatorPub(self.circuit, observables, bindings)

    def _run(self, pubs: list[EstimatorPub]) -> Any:
        options = {} if self.precision is None else {"precision": self.precision}
        return self.primitive.run(pubs, **options)

    def _usage_of(self, pubs: list[EstimatorPub]) -> Usage:
        if hasattr(self.primitive, "estimate_usage"):  # a service that reports its limits and its usage
            return self.primitive.estimate_usage(pubs, precision=self.precision)
        different = pubs[:1] if self._pub_per == "observable" else pubs  # in their parameter values
        circuits = sum(pub.parameter_values.size for pub in different) * self._bases
        return replace(simulated_usage(circuits, self.noise), pubs=len(pubs))

    @cached_property
    def _bases(self) -> int:
        """Number of circuits per point: the measurement bases of the observables of its PUBs."""
        return sum(map(measured_circuits, self._pubs(np.zeros((1, len(self._bound))))))

    def _read(self, results: Any, pubs: list[EstimatorPub]) -> tuple[np.ndarray, str | None]:
        try:
            values = [np.asarray(part.data.evs, dtype=float) for part in results]
        except (TypeError, AttributeError, ValueError) as error:
            return np.empty(0), f"it has no real expectation values ({error})"
        if len(values) != len(pubs):
            return np.empty(0), f"it has {len(values)} entries for {len(pubs)} PUB{'s' * (len(pubs) > 1)}"
        for value, pub in zip(values, pubs, strict=True):
            if value.shape != pub.shape:
                return value, f"its values have shape {value.shape}, expected {pub.shape}: (points, observables)"
            if bad := int((~np.isfinite(value)).sum()):
                return value, f"{bad} of its {value.size} expectation values are NaN or infinite"
        if self._pub_per == "observable":
            return np.concatenate(values, axis=1), None
        return np.concatenate([value.reshape(-1, self.num_outputs) for value in values]), None


def _operator(observable: Observable | SparsePauliOp, laid_out: QuantumCircuit | None) -> SparsePauliOp:
    if isinstance(observable, SparsePauliOp):
        return observable
    if not observable.num_terms:
        raise ObservableError("an observable is zero, and estimators reject it; leave it out")
    operator = SparsePauliOp(observable.labels(), observable.coeffs)
    # Qiskit's own layout, as devices have more qubits than the masks of an Observable have bits.
    return operator if laid_out is None else operator.apply_layout(laid_out.layout, laid_out.num_qubits)
