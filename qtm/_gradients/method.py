"""The gradient protocol: values and vector-Jacobian products behind the one autograd function."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from qtm._primitives.job_usage import Usage


class GradientMethod(Protocol):
    """Values and their derivatives by whatever `angles` returns (gate angles; for SPSA the parameters)."""

    def differentiating(self, by: tuple[bool, ...]) -> GradientMethod:
        """A method that need not differentiate by the inputs, or a trainable set, where ``by`` says False."""

    @property
    def usage(self) -> Usage:
        """What was asked of an estimator."""

    def preview(self, batch: int) -> Usage:
        """What the values of a batch and their derivative would use of an execution service."""

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        """What is differentiated, (batch, angles), as ordinary differentiable torch."""

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        """Rows of an initial state that depends on the parameters, (batch or 1, rows), or None."""

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        """Values (batch, observables), and a memo for the derivative where ``keep`` asks for one."""

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Derivative of ``sum(cotangent * values)`` by the angles and, ``by_initial``, by the initial rows."""
