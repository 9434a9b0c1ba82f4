"""The autograd function of the hot path: values from inputs and parameter sets, without torch operations in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, from_numpy

from qtm._gradients.fused import Residuals as FusedResiduals
from qtm._gradients.method import GradientMethod
from qtm._torch.derivatives import Pullback, Residuals, direct_apply


class Fused(torch.autograd.Function):
    """Values (batch, outputs) of inputs (batch, inputs), or None, and parameter sets, each (parameters,)."""

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
        if kept is None:  # taken by an earlier backward pass
            kept = ctx.fused.forward(inputs, sets, ctx.batch, True)[1]
        by = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            found = _apply_gradient(ctx.method, ctx.batch, kept, by[0], cotangent, inputs, *sets)
            return None, None, *[gradient if wanted else None for gradient, wanted in zip(found, by, strict=True)]
        by_inputs, by_sets = ctx.fused.vjp(kept, cotangent, by[0], sets)
        return None, None, by_inputs, *by_sets


class _FusedGradient(torch.autograd.Function):
    """The derivatives of `Fused` by inputs (None where they are not wanted) and sets, where these are differentiated.

    With a(x) the angles of the parameters x, J their Jacobian, g the derivatives by the angles, and v a cotangent of
    the derivatives J' g: what is pulled back is <J v, g>. Its derivative by the cotangent of the values is the
    Jacobian-vector product of the values along J v; and that by x is the derivative of J' g along v, with that of g
    along J v.
    """

    @staticmethod
    def forward(
        ctx: Any,
        method: GradientMethod,
        batch: int,
        kept: FusedResiduals,
        by_inputs: bool,
        cotangent: Tensor,
        inputs: Tensor | None,
        *sets: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.method, ctx.fused, ctx.batch, ctx.by_inputs = method, method.fused, batch, by_inputs  # type: ignore[attr-defined]
        ctx.kept, ctx.by_angles = kept, ctx.fused.by_angles(kept, cotangent)
        ctx.save_for_backward(cotangent, inputs, *sets)
        rows, found = ctx.fused.pull_back(kept, ctx.by_angles, by_inputs, sets)
        return rows, *(found if len(found) == 1 else [f.clone() for f in found])  # no views of one tensor

    @staticmethod
    def backward(ctx: Any, *moving: Tensor) -> Any:
        cotangent, inputs, *sets = ctx.saved_tensors
        rows = moving[0] if ctx.by_inputs else None
        if torch.is_grad_enabled():
            return None, None, None, None, *_differentiable(ctx, [cotangent, inputs, *sets], [rows, *moving[1:]])
        by_cotangent, by_inputs, *by_sets = ctx.needs_input_grad[4:]
        along = ctx.fused.push_forward(ctx.kept, rows, moving[1:])
        angles, direction = from_numpy(ctx.kept.angles), from_numpy(along.angles)
        pushed = ctx.method.jvp(angles, (), direction, ()) if by_cotangent else None
        found: Sequence[Any] = [None] * (1 + len(sets))
        if by_inputs or any(by_sets):
            second, _ = ctx.method.second(angles, (), cotangent, direction, (), False)
            by_rows, columns = ctx.fused.pull_back_tangent(ctx.kept, along, ctx.by_angles, second, by_inputs, sets)
            found = by_rows, *columns
        return None, None, None, None, pushed, *found


_apply_gradient = direct_apply(_FusedGradient)


def _differentiable(ctx: Any, tensors: list[Any], moving: list[Tensor | None]) -> list[Tensor | None]:
    """What `_FusedGradient.backward` returns, for ``tensors``, as a function of them that torch differentiates."""
    # Through nodes of their own: of the given ones, one may be a function of another.
    own: list[Any] = [None if t is None else t.view_as(t) for t in tensors]
    cotangent, inputs, *sets = own
    angles, _ = ctx.method.arguments(inputs, sets[0] if len(sets) == 1 else torch.cat(sets), ctx.batch)
    (by_angles,) = Pullback.apply(ctx.method, Residuals(), False, cotangent, angles)
    moved = [(t, m) for t, m in zip(own[1:], moving, strict=True) if m is not None and t.requires_grad]
    gradients = _gradients([angles], [t for t, _ in moved], [by_angles])
    used = [(g, m) for g, (_, m) in zip(gradients, moved, strict=True) if g is not None]
    by = ctx.needs_input_grad[4:]
    needed = [t for t, wanted in zip(own, by, strict=True) if wanted]
    found = iter(_gradients([g for g, _ in used], needed, [m for _, m in used]))
    return [next(found) if wanted else None for wanted in by]


def _gradients(outputs: list[Tensor], tensors: list[Tensor], cotangents: list[Tensor]) -> Sequence[Tensor | None]:
    return torch.autograd.grad(outputs, tensors, cotangents, create_graph=True, allow_unused=True)
