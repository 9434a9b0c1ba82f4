"""The autograd function of the hot path: values from inputs and parameter sets, without torch operations in between."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qtm._gradients.fused import Residuals as FusedResiduals
from qtm._gradients.method import GradientMethod
from qtm._torch.derivatives import Pullback, Residuals


class Fused(torch.autograd.Function):
    """Values (batch, outputs) of inputs (batch, inputs), or None, and parameter sets, each (parameters,).

    If a derivative is itself differentiated (``create_graph=True``), torch recomputes the angles, and their derivative
    is a `Pullback` of the kept states.
    """

    @staticmethod
    def forward(ctx: Any, method: GradientMethod, batch: int, inputs: Tensor | None, *sets: Tensor) -> Tensor:
        ctx.method, ctx.fused, ctx.batch = method, method.fused, batch  # type: ignore[attr-defined]
        values, ctx.kept = ctx.fused.forward(inputs, sets, batch, True)
        ctx.save_for_backward(inputs, *sets)
        return values

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        inputs, *sets = ctx.saved_tensors  # raises if one of them was modified in place
        kept, ctx.kept = ctx.kept, None
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, inputs, sets, kept, cotangent)
        if kept is None:  # taken by an earlier backward pass
            kept = ctx.fused.forward(inputs, sets, ctx.batch, True)[1]
        by_inputs, by_sets = ctx.fused.vjp(kept, cotangent, ctx.needs_input_grad[2], sets)
        return None, None, by_inputs, *by_sets


def _differentiable(
    ctx: Any, inputs: Tensor | None, sets: list[Tensor], kept: FusedResiduals | None, cotangent: Tensor
) -> list[Tensor | None]:
    """Derivatives with respect to inputs and sets, as functions of them and of the cotangent."""
    residuals = Residuals()
    residuals.content = None if kept is None else kept.of_engine()
    angles, _ = ctx.method.arguments(inputs, sets[0] if len(sets) == 1 else torch.cat(sets), ctx.batch)
    (by_angles,) = Pullback.apply(ctx.method, residuals, False, cotangent, angles)
    needed = [
        tensor if wanted else None for tensor, wanted in zip([inputs, *sets], ctx.needs_input_grad[2:], strict=True)
    ]
    wanted = [tensor for tensor in needed if tensor is not None]
    gradients = iter(torch.autograd.grad(angles, wanted, by_angles, create_graph=True, allow_unused=True))
    return [None if tensor is None else next(gradients) for tensor in needed]
