"""The autograd function of the hot path: from inputs and parameter sets to values, with nothing of torch in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qtm._gradients.fused import FusedMethod


class Fused(torch.autograd.Function):
    """Values (batch, outputs) of inputs (batch, inputs), or None, and parameter sets, each (parameters,).

    First derivatives only. Where a derivative is itself to be differentiated (``create_graph=True``), ``by_angles``
    computes the values once more by the general way, whose derivatives are differentiable.
    """

    @staticmethod
    def forward(
        ctx: Any,
        method: FusedMethod,
        by_angles: Callable[..., Tensor],
        batch: int,
        inputs: Tensor | None,
        *sets: Tensor,
    ) -> Tensor:
        values, ctx.kept = method.forward(inputs, sets, batch, True)
        ctx.method, ctx.by_angles, ctx.batch = method, by_angles, batch
        ctx.save_for_backward(inputs, *sets)
        return values

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        inputs, *sets = ctx.saved_tensors  # raises if one of them was changed since
        if torch.is_grad_enabled():
            return None, None, None, *_differentiable(ctx, inputs, sets, cotangent)
        kept, ctx.kept = ctx.kept, None
        if kept is None:  # used by an earlier backward pass
            kept = ctx.method.forward(inputs, sets, ctx.batch, True)[1]
        by_inputs, by_sets = ctx.method.vjp(kept, cotangent, ctx.needs_input_grad[3], [s.numel() for s in sets])
        return None, None, None, by_inputs, *by_sets


def _differentiable(ctx: Any, inputs: Tensor | None, sets: list[Tensor], cotangent: Tensor) -> list[Tensor | None]:
    """Derivatives by inputs and sets as functions of them and of the cotangent."""
    needed = [
        tensor if wanted else None for tensor, wanted in zip([inputs, *sets], ctx.needs_input_grad[3:], strict=True)
    ]
    values = ctx.by_angles(inputs, sets)
    wanted = [tensor for tensor in needed if tensor is not None]
    gradients = iter(torch.autograd.grad(values, wanted, cotangent, create_graph=True, allow_unused=True))
    return [None if tensor is None else next(gradients) for tensor in needed]
