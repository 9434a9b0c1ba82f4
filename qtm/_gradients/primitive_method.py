"""Values from a primitive, and derivatives from its values at other points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from qiskit.circuit import Parameter, ParameterExpression
from torch import Tensor

from qtm._circuit.expressions import check_angles, compile_angles
from qtm._circuit.shift_template import Template
from qtm._gradients.gradient_rules import ParameterShift, Rule
from qtm._gradients.method import FirstDerivatives
from qtm._primitives.job_usage import Usage
from qtm._primitives.primitive_runner import PrimitiveRunner


class PrimitiveMethod(FirstDerivatives, ABC):
    """Values from a primitive, and derivatives from its values at the points of a rule.

    Subclasses define the points and the rule. ``wanted`` (coordinates,) bool marks the coordinates whose derivatives
    are requested.

    Args:
        evaluation: computes the values.
        labels: the expression of every coordinate of a point.
        group_sizes: numbers of parameters of the inputs and of each trainable set.
        differences: computes the values whose differences are taken; None for ``evaluation``.
    """

    def __init__(
        self,
        evaluation: PrimitiveRunner,
        labels: Sequence[ParameterExpression],
        group_sizes: Sequence[int],
        differences: PrimitiveRunner | None = None,
    ) -> None:
        self.evaluation, self._differences = evaluation, differences or evaluation
        self.num_outputs = evaluation.num_outputs
        self._labels, self._group_sizes = tuple(labels), tuple(group_sizes)
        self.wanted = np.ones(len(labels), dtype=bool)  # (coordinates,)
        self._views: dict[tuple[bool, ...], PrimitiveMethod] = {}

    def differentiating(self, by: tuple[bool, ...]) -> PrimitiveMethod:
        """The same method, restricted to coordinates that depend on these groups of parameters."""
        if by not in self._views:
            view = copy(self)
            view.wanted = self._depends_on(np.flatnonzero(np.repeat(by, self._group_sizes)))
            self._views[by] = view
        return self._views[by]

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        return self.angles(inputs, weights, batch), ()

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        at = self._checked(angles)
        return torch.from_numpy(self.evaluation.values(at).astype(at.dtype)), None

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        at = self._checked(angles).astype(float)
        rule = self.rule(at)
        gradient = rule.combine(self._differences.values(rule.points(at)), _array(cotangent).astype(float))
        return torch.from_numpy(gradient).to(angles.dtype), None

    @property
    def usage(self) -> Usage:
        """Usage of the primitive."""
        if self._differences is self.evaluation:
            return self.evaluation.usage
        return self.evaluation.usage + self._differences.usage

    def preview(self, batch: int, steps: int = 1) -> Usage:
        """Forecast usage for training steps: values of a batch and their derivative."""
        total, points = Usage(), batch * self.points_per_sample()
        with self.evaluation.forecast():
            for step in range(steps):
                before = self.evaluation.forecast_state()
                usage = self.evaluation.preview(batch) + self._differences.preview(points)
                if self.evaluation.forecast_state() == before:  # and so are all later ones
                    return total + usage * (steps - step)
                total += usage
        return total

    def _checked(self, angles: Tensor) -> np.ndarray:
        at = _array(angles)
        check_angles(at, self._labels)
        return at

    @abstractmethod
    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        """Coordinates of the points, (batch, coordinates), computed in differentiable torch."""

    @abstractmethod
    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        """Which coordinates depend on any of the parameters with these numbers: (coordinates,) bool."""

    @abstractmethod
    def points_per_sample(self) -> int:
        """Points per sample that the derivative needs."""

    @abstractmethod
    def rule(self, at: np.ndarray) -> Rule:
        """The rule that differentiates at ``at`` (batch, coordinates)."""


class ShiftMethod(PrimitiveMethod):
    """Exact derivatives with respect to gate angles, each with its own parameter in a template of the circuit.

    Args:
        made: the template, which ``evaluation`` runs at values of its slots.
        parameters: of the circuit, in the order of inputs and weights.
        evaluation: computes the values.
        group_sizes: numbers of parameters of the inputs and of each trainable set.
        differences: computes the values whose differences are taken; None for ``evaluation``.
    """

    def __init__(
        self,
        made: Template,
        parameters: Sequence[Parameter],
        evaluation: PrimitiveRunner,
        group_sizes: Sequence[int],
        differences: PrimitiveRunner | None = None,
    ) -> None:
        super().__init__(evaluation, made.angles, group_sizes, differences)
        self._map, self._shifts = compile_angles(made.angles, parameters), made.shifts

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        return self._map.torch(inputs, weights, batch)

    def derivatives(self, angles: Tensor) -> np.ndarray:
        """Derivatives (batch, outputs, angles) of all outputs at once, from one evaluation of every point."""
        at = self._checked(angles).astype(float)
        shift = ParameterShift(self._shifts, self.wanted)
        values = self._differences.values(shift.points(at))  # (batch, count, outputs)
        each = values.transpose(0, 2, 1).reshape(-1, shift.count, 1)  # outputs as samples of one value each
        return shift.combine(each, np.ones((len(each), 1))).reshape(len(at), self.num_outputs, -1)

    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        return self._map.depends_on(parameters.tolist())

    def points_per_sample(self) -> int:
        return ParameterShift(self._shifts, self.wanted).count

    def rule(self, at: np.ndarray) -> Rule:
        return ParameterShift(self._shifts, self.wanted)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
