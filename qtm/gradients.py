"""Gradients: an estimator gradient for qiskit-algorithms, and the interface for gradient methods of your own.

A gradient method of a module is a class in `GRADIENT_METHODS`, selected by its name as ``gradient=``. Derive it from
`PointMethod`, give it a `Rule`, and add it to the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparseObservable
from qiskit.quantum_info.operators.base_operator import BaseOperator
from qiskit_algorithms.gradients import BaseEstimatorGradient, DerivativeType, EstimatorGradientResult

from qtm._arguments import check_type, refused, shown
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.observables import NAMED, Observable, coerce_observables
from qtm._circuit.pauli_program import flattened
from qtm._engines.outputs import Expectation
from qtm._engines.registry import Method
from qtm._engines.simulation import Simulation, check_finite
from qtm._engines.simulation_cache import Simulations
from qtm._errors import DtypeError, ParameterError, QtmError, ShapeError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.estimator_methods import PointMethod
from qtm._gradients.gradient_rules import Rule
from qtm._gradients.jacobian import doubled_simulation, imaginary, jacobian
from qtm._gradients.methods import GRADIENT_METHODS
from qtm._primitives.finished_job import FinishedJob
from qtm.primitives import FastEstimator

__all__ = ["GRADIENT_METHODS", "FastReverseEstimatorGradient", "PointMethod", "Rule"]

_ONE_OPERATOR = (BaseOperator, SparseObservable, Observable, Mapping, str)


class FastReverseEstimatorGradient(BaseEstimatorGradient):
    """Exact gradients by one reverse sweep: a drop-in estimator gradient for qiskit-algorithms.

    Supports every parameterised gate and state preparation. Points with equal circuits and observables form one
    batch. An entry of ``observables`` may be a list; its gradient has the shape (observables, parameters).

    Args:
        derivative_type: ``REAL`` is the derivative of <O>, that is 2 Re <psi|O|d psi>; ``IMAG`` is
            2 Im <psi|O|d psi> and ``COMPLEX`` is both, with global phases left out: each gate counts as its
            product of Pauli rotations (``p`` as ``rz``), as in qiskit-algorithms. Names work as well: "real".
        dtype: ``"complex128"``, or ``"complex64"`` for twice the speed and about seven digits.
        num_threads: number of threads; 0 means all cores.
        executor: a ``concurrent.futures.Executor`` that evaluates the batch instead of threads.
        method: simulation method: see `QuantumModule`.

    Raises:
        DtypeError: ``dtype`` is not supported.
        ParameterError: ``derivative_type``, ``num_threads``, ``executor`` or ``method`` is unusable.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> circuit = real_amplitudes(2, reps=1)
        >>> job = FastReverseEstimatorGradient().run([circuit], [["ZZ", "XX", "IZ"]], [[0.1, 0.2, 0.3, 0.4]])
        >>> job.result().gradients[0].shape
        (3, 4)
    """

    def __init__(
        self,
        derivative_type: DerivativeType = DerivativeType.REAL,
        *,
        dtype: Any = "complex128",
        num_threads: int = 0,
        executor: Executor | None = None,
        method: Method = "auto",
    ) -> None:
        estimator = FastEstimator(dtype=dtype, num_threads=num_threads, executor=executor, method=method)
        super().__init__(estimator, derivative_type=_derivative_type(derivative_type))
        self._simulations = Simulations(estimator.options)

    @BaseEstimatorGradient.derivative_type.setter
    def derivative_type(self, derivative_type: DerivativeType) -> None:
        """Set the derivative type of subsequent calls of `run`."""
        self._derivative_type = _derivative_type(derivative_type)

    def run(
        self,
        circuits: Sequence[QuantumCircuit] | QuantumCircuit,
        observables: Sequence[Any] | BaseOperator,
        parameter_values: Sequence[Sequence[float]] | np.ndarray,
        parameters: Sequence[Sequence[Parameter] | None] | None = None,
        **options: Any,
    ) -> FinishedJob[EstimatorGradientResult]:
        """Compute the gradient of every point ``(circuits[i], observables[i], parameter_values[i])``.

        Args:
            circuits: the circuits.
            observables: for each circuit, an observable in any form that Qiskit accepts, or a list of them.
            parameter_values: for each circuit, the values (parameters,) of its parameters, in radians.
            parameters: for each circuit, the parameters of the derivatives, in order; None means all.
            options: options of an estimator, such as ``precision``; ignored, because the gradients are exact.

        Returns:
            A job whose result has ``gradients``: for each point an array (parameters,) or (observables, parameters).

        Raises:
            ValueError: lengths do not match, an observable does not fit, or a circuit lacks a parameter.
            CircuitError: (from the job's ``result``) a circuit cannot be simulated.
            ParameterError: (from the job's ``result``) a parameter value is NaN or infinite.
        """
        circuits = [circuits] if isinstance(circuits, QuantumCircuit) else _listed("circuits", circuits)
        for circuit in circuits:
            check_type(circuit, "circuits", QuantumCircuit, "circuits", "give a list of qiskit.QuantumCircuit")
        entries = [observables] if isinstance(observables, _ONE_OPERATOR) else _listed("observables", observables)
        values = _numbers(parameter_values)
        _check_lengths(len(circuits), observables=entries, parameter_values=values)
        chosen = [None] * len(circuits) if parameters is None else _listed("parameters", parameters)
        _check_lengths(len(circuits), parameters=chosen)
        chosen = [None if own is None else _listed("parameters", own) for own in chosen]
        known = {i: tuple(c.parameters) for i, c in {id(c): c for c in circuits}.items()}
        wanted = [known[id(c)] if p is None else p for c, p in zip(circuits, chosen, strict=True)]
        _check_points(circuits, known, values, wanted)
        return FinishedJob(self._run, circuits, _read(circuits, entries), values, wanted)

    def _run(
        self,
        circuits: Sequence[QuantumCircuit],
        observables: Sequence[Any],
        parameter_values: Any,
        parameters: Sequence[Sequence[Parameter]],
        **options: Any,
    ) -> EstimatorGradientResult:
        gradients: list[Any] = [None] * len(circuits)
        for (flat, operators), points in _batches(circuits, observables).items():
            values = np.array([parameter_values[i] for i in points], float)  # (points, parameters)
            circuit = circuits[points[0]]
            several = operators if isinstance(operators, tuple) else (operators,)
            total = self._derivative(circuit, flat, several, values)
            place = {p: k for k, p in enumerate(circuit.parameters)}
            chosen = {id(parameters[i]): parameters[i] for i in points}
            columns = {i: [place[p] for p in own] for i, own in chosen.items()}
            for i, gradient in zip(points, total, strict=True):
                rows = gradient[:, columns[id(parameters[i])]]
                gradients[i] = rows if isinstance(operators, tuple) else rows[0]
        metadata = [{"parameters": chosen} for chosen in parameters]
        return EstimatorGradientResult(gradients=gradients, metadata=metadata, precision=0.0)

    def _derivative(
        self, circuit: QuantumCircuit, flat: FlatCircuit, operators: tuple[Observable, ...], values: np.ndarray
    ) -> np.ndarray:
        """Derivatives (points, observables, parameters) of the chosen type at the points (points, parameters)."""
        make = partial(Simulation, circuit, circuit.parameters, Expectation(operators))
        simulation = self._simulations.find((flat, operators), make)
        method = EngineMethod(simulation, len(operators))
        if self._derivative_type == DerivativeType.REAL:
            total = jacobian(method, values)
        else:
            double = partial(doubled_simulation, circuit, operators)
            doubled = self._simulations.find((flat, operators, "doubled"), double)
            total = imaginary(method, EngineMethod(doubled, len(operators)), values)
            if self._derivative_type == DerivativeType.COMPLEX:
                total = jacobian(method, values) + 1j * total
        check_finite(total, values, simulation.parameters)
        return total


def _derivative_type(given: Any) -> DerivativeType:
    if isinstance(given, DerivativeType):
        return given
    if isinstance(given, str) and given.lower() in {t.value for t in DerivativeType}:
        return DerivativeType(given.lower())
    raise ParameterError(
        f"derivative_type is {given!r}; use DerivativeType.REAL, IMAG or COMPLEX, or 'real', 'imag' or 'complex'"
    )


def _listed(argument: str, given: Any) -> list[Any]:
    if isinstance(given, Iterable) and not isinstance(given, str):
        return given if isinstance(given, list) else list(given)
    raise refused(argument, "a list with one entry per circuit", given, "wrap a single entry in a list")


def _numbers(values: Any) -> Sequence[np.ndarray]:
    """Values of each circuit's parameters (parameters,)."""
    try:
        return [np.asarray(own, dtype=float) for own in _listed("parameter_values", values)]
    except (TypeError, ValueError) as error:
        if isinstance(error, QtmError):
            raise
        raise DtypeError(
            f"parameter_values must be real numbers, not {shown(values)} ({error}); give one list per circuit"
        ) from error


def _check_lengths(expected: int, **arguments: Any) -> None:
    for name, argument in arguments.items():
        if len(argument) != expected:
            raise ShapeError(f"{name} has {len(argument)} entries for {expected} circuits; give one for each circuit")


def _check_points(
    circuits: Sequence[QuantumCircuit],
    known: dict[int, tuple[Parameter, ...]],
    values: Any,
    wanted: Sequence[Sequence[Parameter]],
) -> None:
    checked = set()
    for i, circuit in enumerate(circuits):
        parameters = known[id(circuit)]
        if not parameters:
            raise ParameterError(f"circuit {i}, {circuit.name!r}, has no parameters to differentiate")
        if values[i].shape != (len(parameters),):
            raise ShapeError(f"circuit {i} has {len(parameters)} parameters and was given {values[i].size} values")
        if (key := (id(circuit), id(wanted[i]))) not in checked:
            checked.add(key)
            if unknown := [p.name for p in wanted[i] if p not in parameters]:
                raise ParameterError(f"the parameters {unknown} are not in circuit {i}, {circuit.name!r}")


def _read(circuits: Sequence[QuantumCircuit], entries: Sequence[Any]) -> list[Any]:
    """Each entry as an `Observable`, or as a tuple of them if it is a list."""
    known: dict[tuple[int, int], Any] = {}
    for circuit, entry in zip(circuits, entries, strict=True):
        key = id(entry), circuit.num_qubits
        if key not in known:
            read = coerce_observables(entry, circuit.num_qubits)
            one = isinstance(entry, _ONE_OPERATOR) and not (isinstance(entry, str) and entry in NAMED)
            known[key] = read[0] if one else read
    return [known[id(entry), circuit.num_qubits] for circuit, entry in zip(circuits, entries, strict=True)]


def _batches(
    circuits: Sequence[QuantumCircuit], observables: Sequence[Any]
) -> dict[tuple[FlatCircuit, Any], list[int]]:
    """Points grouped by equal circuits and equal observables."""
    same: dict[tuple[int, int], list[int]] = {}
    for i, pair in enumerate(zip(circuits, observables, strict=True)):
        same.setdefault((id(pair[0]), id(pair[1])), []).append(i)
    batches: dict[tuple[FlatCircuit, Any], list[int]] = {}
    for points in same.values():
        key = flattened(circuits[points[0]]), observables[points[0]]
        batches.setdefault(key, []).extend(points)
    return batches
