"""The gradient protocol: values and vector-Jacobian products behind the one autograd function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from qtm._primitives.job_usage import Usage


class GradientMethod(Protocol):
    """Values and their derivatives by whatever `arguments` returns (gate angles; for SPSA the parameters).

    Tensors in, tensors out, on one device. A method may have an attribute ``fused``, a `FusedMethod` that computes
    ``forward(*arguments(...))`` and its derivatives in one step; it is used wherever first derivatives are enough.
    """

    num_outputs: int

    def differentiating(self, by: tuple[bool, ...]) -> GradientMethod:
        """A method that need not differentiate by the inputs, or a trainable set, where ``by`` says False."""

    @property
    def usage(self) -> Usage:
        """What was asked of an estimator."""

    def preview(self, batch: int) -> Usage:
        """What the values of a batch and their derivative would use of an execution service."""

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        """What is differentiated, as ordinary differentiable torch: angles (batch, angles) and prepared amplitudes.

        There is one complex tensor (batch or 1, 2**qubits) for each state preparation of the circuit.
        """

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        """Values (batch, outputs), and residuals for the derivative where ``keep`` asks for them."""

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent (batch, outputs) back to the angles and, ``by_prepared``, to the prepared amplitudes."""
