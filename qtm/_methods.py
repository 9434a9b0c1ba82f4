"""Methods of differentiation by name: how a module gets its values and their derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from inspect import signature
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2
from torch import Tensor

from qtm._autograd import Method
from qtm._engine import Options
from qtm._errors import ParameterError
from qtm._evaluation import Evaluation
from qtm._expressions import compile_angles
from qtm._flatten import template
from qtm._observables import coerce_observables
from qtm._parallel import resolve_threads
from qtm._shifts import ParameterShift, Rule, Spsa, balanced_epsilon
from qtm._simulation import Simulation
from qtm._usage import Usage


@dataclass(frozen=True)
class MethodSettings:
    """What a module was asked for. Immutable, so that copies share it; an executor is not pickled with it."""

    circuit: QuantumCircuit
    parameters: tuple[Parameter, ...]
    observables: Any
    estimator: BaseEstimatorV2 | None
    gradient: str | tuple[str, Mapping[str, Any]]
    threads_forward: int
    threads_backward: int
    executor: Executor | None
    pass_manager: BasePassManager | None
    group_sizes: tuple[int, ...] = ()  # encoding parameters, then those of every trainable set
    # Methods that run on an estimator: prepared, and transpiled, once for all dtypes and copies of a module.
    on_estimator: dict[str, EstimatorMethod] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        resolve_threads(self.threads_forward)
        resolve_threads(self.threads_backward)

    def with_threads(self, forward: int, backward: int) -> MethodSettings:
        return replace(self, threads_forward=forward, threads_backward=backward, on_estimator=self._kept())

    def _kept(self) -> dict[str, EstimatorMethod]:
        # The exact estimator that stands for None has threads and an executor of its own.
        return {} if self.estimator is None else self.on_estimator

    @property
    def usage(self) -> Usage:
        """What was asked of the estimator."""
        return sum((method.evaluation.usage for method in self.on_estimator.values()), Usage())

    def __deepcopy__(self, memo: dict[int, Any]) -> MethodSettings:
        return self

    def __getstate__(self) -> dict[str, Any]:
        kept = self._kept()
        # Qiskit's preset pass managers do not pickle, and this one has done its work where something was prepared.
        passes = None if kept else self.pass_manager
        return {**self.__dict__, "executor": None, "on_estimator": kept, "pass_manager": passes}


class ReverseSweep:
    """Exact values and derivatives from qtm's own simulator (DESIGN 4)."""

    def __init__(self, settings: MethodSettings, dtype: str) -> None:
        observables = coerce_observables(settings.observables, settings.circuit.num_qubits)
        options = Options(dtype, settings.threads_forward, settings.executor)
        self.forward = Simulation(settings.circuit, settings.parameters, observables, options)
        backward = Options(dtype, settings.threads_backward, settings.executor)
        same = settings.threads_forward == settings.threads_backward
        self.backward = self.forward if same else self.forward.with_options(backward)
        self.num_observables = len(observables)
        self.parameters = settings.parameters

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        return self.forward.angles.torch(inputs, weights, batch)

    def differentiating(self, by: tuple[bool, ...]) -> ReverseSweep:
        return self

    def preview(self, batch: int) -> Usage:
        return Usage()

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        return None if self.forward.initial is None else self.forward.initial.torch(inputs, weights)

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        # States can only be handed to a reverse sweep that deals the batch in the same way.
        values, kept = self.forward.engine.values(angles, initial, keep=keep and self.backward is self.forward)
        if not np.isfinite(values).all():
            self._refuse(angles)
        return values, kept

    def _refuse(self, angles: np.ndarray) -> None:
        check_angles(angles, self.forward.program.angles)
        raise ParameterError(
            "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
        )

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        engine = self.backward.engine
        return engine.vjp(angles, cotangent, initial, kept=memo, initial_gradient=by_initial)


class EstimatorMethod(ABC):
    """Values from an estimator, and derivatives from its values at points that a rule asks for.

    Its subclasses say what a point is and which rule there is.
    """

    def __init__(
        self,
        settings: MethodSettings,
        circuit: QuantumCircuit,
        coordinates: Sequence[Parameter],
        labels: Sequence[ParameterExpression],
        options: Mapping[str, Any],
    ) -> None:
        observables = coerce_observables(settings.observables, settings.circuit.num_qubits)
        estimator = _exact_estimator(settings) if settings.estimator is None else settings.estimator
        if not isinstance(estimator, BaseEstimatorV2):
            raise ParameterError(f"estimator must be None or a BaseEstimatorV2, not {type(estimator).__name__}")
        self.evaluation = Evaluation(
            estimator, circuit, coordinates, observables, pass_manager=settings.pass_manager, **options
        )
        self.num_observables, self.parameters = len(observables), settings.parameters
        self._labels, self._group_sizes = tuple(labels), settings.group_sizes
        self._wanted = np.ones(len(labels), dtype=bool)  # (coordinates,)
        self._views: dict[tuple[bool, ...], EstimatorMethod] = {}

    def differentiating(self, by: tuple[bool, ...]) -> EstimatorMethod:
        """The same method, which spends no points on what does not depend on these groups of parameters."""
        if by not in self._views:
            view = copy(self)
            view._wanted = self._depends_on(np.flatnonzero(np.repeat(by, self._group_sizes)))
            self._views[by] = view
        return self._views[by]

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        return None

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        check_angles(angles, self._labels)
        return self.evaluation.values(angles).astype(angles.dtype), None

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        at = angles.astype(float)
        rule = self._rule(at)
        gradient = rule.combine(self.evaluation.values(rule.points(at)), cotangent.astype(float))
        return gradient.astype(angles.dtype), None

    def preview(self, batch: int) -> Usage:
        """What the values of a batch and their derivative would use."""
        return self.evaluation.preview(batch) + self.evaluation.preview(batch * self._points_per_sample())

    @abstractmethod
    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        """Coordinates of the points, (batch, coordinates), as ordinary differentiable torch."""

    @abstractmethod
    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        """Which coordinates depend on any of the parameters with these numbers: (coordinates,) bool."""

    @abstractmethod
    def _points_per_sample(self) -> int:
        """How many points the derivative needs."""

    @abstractmethod
    def _rule(self, at: np.ndarray) -> Rule:
        """How to differentiate at ``at`` (batch, coordinates)."""


class ParameterShiftMethod(EstimatorMethod):
    """Exact derivatives by gate angles, each with a parameter of its own in a template of the circuit."""

    def __init__(
        self, settings: MethodSettings, *, precision: float | None = None, max_points: int | None = None
    ) -> None:
        made = template(settings.circuit)
        options = {"precision": precision, "max_points": max_points}
        super().__init__(settings, made.circuit, made.slots, made.angles, options)
        self._map, self._shifts = compile_angles(made.angles, settings.parameters), made.shifts

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        return self._map.torch(inputs, weights, batch)

    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        return self._map.depends_on(parameters.tolist())

    def _points_per_sample(self) -> int:
        return ParameterShift(self._shifts, self._wanted).count

    def _rule(self, at: np.ndarray) -> Rule:
        return ParameterShift(self._shifts, self._wanted)


class SpsaMethod(EstimatorMethod):
    """Estimated derivatives by the circuit's parameters.

    The signs follow torch's random state; with a ``seed``, the seed and the values alone, so that a
    resumed run draws what the interrupted one drew.
    """

    def __init__(
        self,
        settings: MethodSettings,
        *,
        repeats: int = 1,
        epsilon: float | None = None,
        seed: int | None = None,
        precision: float | None = None,
        max_points: int | None = None,
    ) -> None:
        if repeats < 1 or (epsilon is not None and not 0 < epsilon < np.inf):
            raise ParameterError(f"repeats={repeats}, epsilon={epsilon}; expected at least 1, and radians above 0")
        circuit = settings.circuit.remove_final_measurements(inplace=False)
        options = {"precision": precision, "max_points": max_points}
        super().__init__(settings, circuit, settings.parameters, settings.parameters, options)
        self._repeats, self._epsilon, self._seed = repeats, epsilon, seed

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        rows = weights.expand(batch, -1)
        return rows if inputs is None else torch.cat([inputs, rows], dim=1)

    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        return np.isin(np.arange(len(self._labels)), parameters)

    def _points_per_sample(self) -> int:
        return 2 * self._repeats if self._wanted.any() else 0

    def _rule(self, at: np.ndarray) -> Rule:
        epsilon = self._epsilon or balanced_epsilon(self.evaluation.noise, int(self._wanted.sum()))
        return Spsa.draw(self._rng(at), len(at), self._repeats, self._wanted, epsilon)

    def _rng(self, at: np.ndarray) -> np.random.Generator:
        if self._seed is None:
            return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        content = sha256(repr(self._seed).encode() + at.tobytes()).digest()
        return np.random.default_rng(int.from_bytes(content, "little"))


def _exact_estimator(settings: MethodSettings) -> BaseEstimatorV2:
    from qtm.primitives import FastEstimator

    return FastEstimator(num_threads=settings.threads_forward, executor=settings.executor)


def check_angles(angles: np.ndarray, labels: Sequence[ParameterExpression]) -> None:
    """Refuse angles (batch, angles) that are not finite, by the expression that they come from.

    Raises:
        ParameterError: an angle is NaN or infinite.
    """
    for sample, number in np.argwhere(~np.isfinite(angles)):
        raise ParameterError(
            f"the angle {labels[number]} is {angles[sample, number]} in sample {sample}: "
            "an input or a trainable parameter in it is NaN or infinite, or it is not defined there"
        )


_ON_ESTIMATORS: dict[str, Callable[..., EstimatorMethod]] = {
    "param-shift": ParameterShiftMethod,
    "spsa": SpsaMethod,
}
METHODS: dict[str, Callable[..., Method]] = {"reverse": ReverseSweep, **_ON_ESTIMATORS}


def _is_exact(estimator: BaseEstimatorV2) -> bool:
    from qtm.primitives import FastEstimator

    return isinstance(estimator, FastEstimator)


def make_method(settings: MethodSettings, dtype: str) -> Method:
    """The method that the settings name, computing in ``dtype``.

    Raises:
        ParameterError: the gradient is unknown, or does not go with the estimator.
    """
    name, options = settings.gradient if isinstance(settings.gradient, tuple) else (settings.gradient, {})
    if name not in METHODS:
        raise ParameterError(f"unknown gradient {name!r}; use one of {', '.join(METHODS)}")
    if name == "reverse" and settings.estimator is not None and not _is_exact(settings.estimator):
        raise ParameterError(
            f"gradient='reverse' needs the state vector, which {type(settings.estimator).__name__} does not give; "
            "use gradient='param-shift' or 'spsa'"
        )
    _check_options(name, options)
    if name == "reverse":
        return ReverseSweep(settings, dtype)
    if name not in settings.on_estimator:
        settings.on_estimator[name] = _ON_ESTIMATORS[name](settings, **options)
    return settings.on_estimator[name]


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = [p.name for p in signature(METHODS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise ParameterError(
            f"gradient {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(known) or 'none'}"
        )
