"""The gradient protocol: values and vector-Jacobian products for the autograd functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from qtm._errors import UnsupportedError
from qtm._primitives.job_usage import Usage


class GradientMethod(Protocol):
    """Values and their derivatives with respect to `arguments` (gate angles; for SPSA the parameters).

    Tensors in, tensors out, on one device. A method may have an attribute ``fused``, a `FusedMethod` that computes
    ``forward(*arguments(...))`` and its derivatives in one step; it is used where first derivatives are enough.
    """

    num_outputs: int

    def differentiating(self, by: tuple[bool, ...]) -> GradientMethod:
        """A method that may skip the derivatives by the inputs, or by a trainable set, where ``by`` is False."""

    @property
    def usage(self) -> Usage:
        """Usage of the estimator."""

    def preview(self, batch: int, steps: int = 1) -> Usage:
        """Forecast usage of an execution service for training steps: values of a batch and their derivative."""

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        """The independent variables of the derivatives, computed in torch: angles (batch, angles), amplitudes.

        There is one complex tensor (batch or 1, 2**qubits) for each state preparation of the circuit.
        """

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        """Values (batch, outputs), and residuals for the derivative if ``keep``."""

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent (batch, outputs) back to the angles and, ``by_prepared``, to the prepared amplitudes."""

    def jvp(
        self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor, prepared_tangents: Sequence[Tensor]
    ) -> Tensor:
        """Push tangents of the angles and of the prepared amplitudes forward to the outputs: (batch, outputs)."""

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor],
        by_prepared: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The derivative of `vjp` at a fixed cotangent along the tangents."""


class FirstDerivatives:
    """Base of methods with first derivatives in reverse mode only: all others raise an error."""

    def jvp(
        self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor, prepared_tangents: Sequence[Tensor]
    ) -> Tensor:
        raise UnsupportedError(
            f"{type(self).__name__} gives derivatives in reverse mode only, and forward mode was requested "
            "(torch.func.jvp, jacfwd, forward_ad); use torch.func.vjp, jacrev or backward(), or qtm's own simulator"
        )

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor],
        by_prepared: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        raise UnsupportedError(
            f"{type(self).__name__} gives first derivatives only, and a second one was requested; call backward() "
            "without create_graph=True, or use qtm's own simulator with gradient='reverse'"
        )
