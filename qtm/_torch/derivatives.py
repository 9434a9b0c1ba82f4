"""The autograd functions between gate angles and outputs: values, first and second derivatives.

`Outputs` maps gate angles (batch, angles) and prepared amplitudes (batch or 1, amplitudes) to outputs (batch, outputs).
Ordinary torch computes angles from inputs and weights; a `GradientMethod` gives derivatives with respect to angles.
With f the outputs, c a cotangent and v a tangent,

    Pullback: c, a -> J(a)' c        Pushforward: v, a -> J(a) v        Curvature: c, v, a -> d/de J(a + e v)' c

are each other's derivatives: the derivative of the pullback with respect to a along v is the curvature, and with
respect to c along w it is J' w. A third derivative raises an error; it is never silently zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qtm._errors import UnsupportedError
from qtm._gradients.method import GradientMethod

_THIRD = (
    "qtm computes first and second derivatives, not third ones; take the gradient of what was already "
    "differentiated twice without create_graph=True, or rewrite a loss of second derivatives as one of first ones "
    "(u'' = f as the system u' = p, p' = f)"
)


class Residuals:
    """Passes the residuals of the forward pass to the first backward pass; later ones recompute them."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: Any = None

    def take(self) -> Any:
        """Return the content and drop it."""
        content, self.content = self.content, None
        return content


def direct_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` outside of transforms, without the binding of arguments that takes 10 us a call.

    That step of `torch.autograd.Function.apply` only fills in defaults, and these functions have none. Holds for
    torch 2.4 to 2.13.
    """
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def in_transform() -> bool:
    """Whether a `torch.func` transform is active, whose tensors have no storage to compute on."""
    return torch._C._are_functorch_transforms_active()


def may_be_differentiated() -> bool:
    """Whether tensors that do not require a gradient may still be differentiated: in a transform or in forward mode."""
    return in_transform() or torch.autograd.forward_ad._current_level >= 0


def untraced(compute: Callable[..., Any], *arguments: Any) -> Any:
    """Run a method hidden from torch's compiler, which would trace NumPy's views as tensors of other sizes.

    The compiler also traces Python code that runs between two graphs, such as the derivatives of a transform.
    """
    compiler = sys.modules.get("torch._dynamo")  # never import it here: that takes longer than importing torch
    return compute(*arguments) if compiler is None else compiler.disable(compute)(*arguments)


def _step(function: type[torch.autograd.Function]) -> Any:
    """How a derivative calls a function: through autograd only if a further derivative may be needed."""
    seen = torch.is_grad_enabled() or may_be_differentiated()
    return function.apply if seen else function.forward


class Outputs(torch.autograd.Function):
    """Outputs (batch, outputs) of angles (batch, angles) and prepared amplitudes (batch or 1, amplitudes)."""

    @staticmethod
    def forward(method: GradientMethod, residuals: Residuals, angles: Tensor, *prepared: Tensor) -> Tensor:
        values, residuals.content = untraced(method.forward, angles, prepared, True)
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.method, ctx.residuals, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        by_prepared = any(ctx.needs_input_grad[3:])
        found = _step(Pullback)(ctx.method, ctx.residuals, by_prepared, cotangents[0], *ctx.saved_tensors)
        return None, None, *found, *[None] * (len(ctx.needs_input_grad) - 2 - len(found))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        point = ctx.saved_tensors
        moving, *prepared = _filled(tangents[2:], point)
        return Pushforward.apply(ctx.method, moving, *point, *prepared)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: GradientMethod, residuals: Residuals, *tensors: Tensor) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[2:], tensors)
        return folded.unfold(Outputs.apply(method, Residuals(), *folded.tensors)), 0


class Pullback(torch.autograd.Function):
    """The vector-Jacobian product of `Outputs`: derivatives by the angles and, ``by_prepared``, by the amplitudes."""

    @staticmethod
    def forward(
        method: GradientMethod,
        residuals: Residuals,
        by_prepared: bool,
        cotangent: Tensor,
        angles: Tensor,
        *prepared: Tensor,
    ) -> tuple[Tensor, ...]:
        by_angles, by_amplitudes = untraced(
            method.vjp, angles.detach(), prepared, _weights(cotangent, angles), residuals.take(), by_prepared
        )
        return (by_angles,) if by_amplitudes is None else (by_angles, *by_amplitudes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.method, _, ctx.by_prepared, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        cotangent, *point = ctx.saved_tensors
        moving, *prepared = cotangents
        if not ctx.by_prepared:
            prepared = [torch.zeros_like(p) for p in point[1:]]
        by_cotangent = by_point = None
        if ctx.needs_input_grad[3]:
            by_cotangent = _step(Pushforward)(ctx.method, moving, *point, *prepared)
        if any(ctx.needs_input_grad[4:]):
            by_prepared = any(ctx.needs_input_grad[5:])
            by_point = _step(Curvature)(ctx.method, by_prepared, cotangent, moving, *point, *prepared)
        found = by_point or ()
        return None, None, None, by_cotangent, *found, *[None] * (len(point) - len(found))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        cotangent, *point = ctx.saved_tensors
        moving, *prepared = _filled(tangents[4:], point)
        found = Curvature.apply(ctx.method, ctx.by_prepared, cotangent, moving, *point, *prepared)
        if tangents[3] is None:
            return found
        linear = Pullback.apply(ctx.method, Residuals(), ctx.by_prepared, tangents[3], *point)
        return tuple(a + b for a, b in zip(found, linear, strict=True))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, method: GradientMethod, residuals: Any, by_prepared: bool, *tensors: Tensor
    ) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[3:], tensors)
        found = Pullback.apply(method, Residuals(), by_prepared, *folded.tensors)
        return folded.unfold_gradients(found, 2), (0,) * len(found)


class Pushforward(torch.autograd.Function):
    """The Jacobian-vector product of `Outputs`; after the point come the tangents of the prepared amplitudes."""

    @staticmethod
    def forward(method: GradientMethod, tangent: Tensor, angles: Tensor, *rest: Tensor) -> Tensor:
        prepared, moving = _halves(rest)
        pushed: Tensor = untraced(method.jvp, angles.detach(), prepared, tangent, moving)
        return pushed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.method, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        tangent, angles, *rest = ctx.saved_tensors
        prepared, moving = _halves(rest)
        count, by = len(prepared), ctx.needs_input_grad
        by_tangent = by_moving = by_point = None
        if by[1] or any(by[3 + count :]):
            arguments = Residuals(), any(by[3 + count :]), cotangents[0], angles, *prepared
            by_tangent, *by_moving = _step(Pullback)(ctx.method, *arguments)
        if any(by[2 : 3 + count]):
            by_prepared = any(by[3 : 3 + count])
            by_point = _step(Curvature)(ctx.method, by_prepared, cotangents[0], tangent, angles, *prepared, *moving)
        by_angles, *by_amplitudes = by_point or (None,)
        return None, by_tangent, by_angles, *_padded(by_amplitudes, count), *_padded(by_moving, count)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """J(a) of the tangent's tangent, and the second derivative of every output along both tangents."""
        tangent, angles, *rest = ctx.saved_tensors
        prepared, moving = _halves(rest)
        by_tangent, *others = _filled(tangents[1:], (tangent, angles, *rest))
        along, (prepared_along, moving_along) = others[0], _halves(others[1:])
        linear = Pushforward.apply(ctx.method, by_tangent, angles, *prepared, *moving_along)
        second = _bilinear(ctx.method, linear, (tangent, *moving), (along, *prepared_along), angles, prepared)
        return linear + second

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: GradientMethod, *tensors: Tensor) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[1:], tensors)
        return folded.unfold(Pushforward.apply(method, *folded.tensors)), 0


class Curvature(torch.autograd.Function):
    """The derivative of `Pullback` along a tangent, at a fixed cotangent: a Hessian-vector product."""

    @staticmethod
    def forward(
        method: GradientMethod, by_prepared: bool, cotangent: Tensor, tangent: Tensor, angles: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        prepared, moving = _halves(rest)
        by_angles, by_amplitudes = untraced(
            method.second, angles.detach(), prepared, _weights(cotangent, angles), tangent, moving, by_prepared
        )
        return (by_angles,) if by_amplitudes is None else (by_angles, *by_amplitudes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.method, ctx.by_prepared, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """With respect to the cotangent and the tangent, in which it is linear."""
        cotangent, tangent, angles, *rest = ctx.saved_tensors
        prepared, moving = _halves(rest)
        count, by = len(prepared), ctx.needs_input_grad
        if _any_wanted(ctx, range(2, 3 + count)):
            raise UnsupportedError(_THIRD)
        along, *prepared_along = cotangents
        if not ctx.by_prepared:
            prepared_along = [torch.zeros_like(p) for p in prepared]
        by_cotangent = by_tangent = by_moving = None
        if by[2]:
            arguments = (tangent, *moving), (along, *prepared_along), angles, prepared
            by_cotangent = _bilinear(ctx.method, cotangent, *arguments)
        if by[3] or any(by[5 + count :]):
            by_prepared = any(by[5 + count :])
            by_tangent, *by_moving = _step(Curvature)(
                ctx.method, by_prepared, cotangent, along, angles, *prepared, *prepared_along
            )
        return None, None, by_cotangent, by_tangent, *[None] * (1 + count), *_padded(by_moving, count)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Along the cotangent and the tangent, in which it is linear."""
        cotangent, tangent, angles, *rest = ctx.saved_tensors
        prepared, moving = _halves(rest)
        count = len(prepared)
        if any(t is not None for t in tangents[4 : 5 + count]):
            raise UnsupportedError(_THIRD)
        along, *prepared_along = _filled((tangents[3], *tangents[5 + count :]), (tangent, *moving))
        found = Curvature.apply(ctx.method, ctx.by_prepared, cotangent, along, angles, *prepared, *prepared_along)
        if tangents[2] is None:
            return found
        more = Curvature.apply(ctx.method, ctx.by_prepared, tangents[2], tangent, angles, *prepared, *moving)
        return tuple(a + b for a, b in zip(found, more, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: GradientMethod, by_prepared: bool, *tensors: Tensor) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[2:], tensors)
        found = Curvature.apply(method, by_prepared, *folded.tensors)
        return folded.unfold_gradients(found, 3), (0,) * len(found)


def _weights(cotangent: Tensor, angles: Tensor) -> Tensor:
    """A cotangent in the dtype that methods expect; a complex one already has it."""
    return cotangent if cotangent.is_complex() else cotangent.to(angles.dtype)


def _filled(tangents: Sequence[Tensor | None], point: Sequence[Tensor]) -> list[Tensor]:
    """Tangents, with zeros for None."""
    return [torch.zeros_like(p) if t is None else t for t, p in zip(tangents, point, strict=True)]


def _halves(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Split into prepared amplitudes and their tangents, equally many."""
    count = len(tensors) // 2
    return list(tensors[:count]), list(tensors[count:])


def _padded(found: Sequence[Any] | None, count: int) -> list[Any]:
    return list(found) if found else [None] * count


def _any_wanted(ctx: Any, places: Sequence[int]) -> bool:
    """Whether the backward pass continues to any of the arguments at these positions."""
    functions = getattr(ctx, "next_functions", None)
    if functions is None:  # in a transform: all are needed
        return any(ctx.needs_input_grad[2 + place] for place in places)
    return any(node is not None and _is_visited(node) for node, _ in (functions[place] for place in places))


def _is_visited(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # a leaf: torch does not tell whether it is an input of `torch.autograd.grad`
        return True


def _bilinear(
    method: GradientMethod,
    outputs: Tensor,
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    angles: Tensor,
    prepared: Sequence[Tensor],
) -> Tensor:
    """The second derivatives of the outputs, shaped like ``outputs``, along two tangents of angles and amplitudes."""
    tangent, *moving = first
    columns = []
    for unit in _units(outputs):
        gradient = Curvature.apply(method, bool(prepared), unit, tangent, angles, *prepared, *moving)
        columns.append(sum((g.conj() * t).real.sum(1) for g, t in zip(gradient, second, strict=True)))
    return _assembled(columns, outputs)


def _units(outputs: Tensor) -> list[Tensor]:
    """One cotangent for each real number of an output row: its real part and, where it is complex, the imaginary."""
    units = []
    for column in range(outputs.shape[1]):
        unit = torch.zeros_like(outputs)
        unit[:, column] = 1
        units += [unit, 1j * unit] if outputs.is_complex() else [unit]
    return units


def _assembled(columns: Sequence[Any], outputs: Tensor) -> Tensor:
    """The derivatives for `_units` as a tensor like the outputs."""
    if not columns:
        return torch.zeros_like(outputs)
    stacked = torch.stack(list(columns), 1)
    return torch.complex(stacked[:, ::2], stacked[:, 1::2]) if outputs.is_complex() else stacked


class FoldedBatch:
    """A dimension of `torch.vmap` folded into the batch; ``dims``: its place in each tensor (rows, numbers).

    ``shared`` marks tensors whose single row serves all rows of the first tensor.
    """

    def __init__(self, size: int, dims: tuple[int | None, ...], tensors: Sequence[Tensor]) -> None:
        self.size = size
        whole = [
            t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for dim, t in zip(dims, tensors, strict=True)
        ]
        rows = whole[0].shape[1]
        self.shared = [t.shape[1] == 1 for t in whole]
        self.tensors = [t.expand(-1, rows, -1).reshape(size * rows, t.shape[-1]) for t in whole]

    def unfold(self, tensor: Tensor) -> Tensor:
        """A result (size * rows, numbers) as (size, rows, numbers)."""
        return tensor.reshape(self.size, len(tensor) // self.size, tensor.shape[-1])

    def unfold_gradients(self, found: Sequence[Tensor], first: int) -> tuple[Tensor, ...]:
        """Derivatives by the angles and by prepared amplitudes, whose first tensor is number ``first``, unfolded."""
        by_angles, *by_amplitudes = [self.unfold(gradient) for gradient in found]
        # Amplitudes shared by a batch received a gradient for each of its rows.
        shared = self.shared[first:]
        summed = [g.sum(1, keepdim=True) if one else g for g, one in zip(by_amplitudes, shared, strict=False)]
        return by_angles, *summed
