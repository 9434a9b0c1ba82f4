"""Gradient methods on any estimator: parameter shift and SPSA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from qiskit.primitives import BaseEstimatorV2
from torch import Tensor

from qtm._arguments import checked_int, checked_number, checked_seed
from qtm._circuit.expressions import check_angles, compile_angles
from qtm._circuit.observables import coerce_observables
from qtm._circuit.shift_template import template
from qtm._gradients.gradient_rules import ParameterShift, Rule, Spsa, balanced_epsilon
from qtm._gradients.settings import MethodSettings
from qtm._primitives.estimator_runner import EstimatorRunner
from qtm._primitives.job_usage import Usage


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
        self.evaluation = EstimatorRunner(
            estimator, circuit, coordinates, observables, pass_manager=settings.pass_manager, **options
        )
        self.num_outputs = len(observables)
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

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        return self.angles(inputs, weights, batch), ()

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        at = _array(angles)
        check_angles(at, self._labels)
        return torch.from_numpy(self.evaluation.values(at).astype(at.dtype)), None

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        at = _array(angles).astype(float)
        rule = self._rule(at)
        gradient = rule.combine(self.evaluation.values(rule.points(at)), _array(cotangent).astype(float))
        return torch.from_numpy(gradient).to(angles.dtype), None

    @property
    def usage(self) -> Usage:
        """What the estimator was asked for."""
        return self.evaluation.usage

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
        repeats = checked_int(repeats, "repeats", "give the directions to average over", least=1)
        if epsilon is not None:
            epsilon = checked_number(epsilon, "epsilon", "give a distance in radians, such as 0.1", above=0)
        if seed is not None:
            seed = checked_seed(seed, "seed")
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


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _exact_estimator(settings: MethodSettings) -> BaseEstimatorV2:
    from qtm.primitives import FastEstimator

    return FastEstimator(num_threads=settings.threads_forward, executor=settings.executor)
