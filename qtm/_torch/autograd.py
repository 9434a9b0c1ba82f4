"""The one `torch.autograd.Function` of qtm, and what a method of differentiation has to offer it.

The function maps gate angles (batch, angles) to expectation values (batch, observables). How angles come from
inputs and weights is ordinary torch; how values are differentiated by angles is the business of a `GradientMethod`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qtm._errors import DtypeError, UnsupportedError
from qtm._gradients.method import GradientMethod
from qtm._torch.fused import Fused

_NUMPY_OF = {torch.float32: "complex64", torch.float64: "complex128"}


class _Residuals:
    """Carries what the forward pass kept to the first backward pass; later ones recompute it."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: Any = None

    def take(self) -> Any:
        content, self.content = self.content, None
        return content


def apply_directly(function: type[torch.autograd.Function], *args: Any) -> Any:
    """``function.apply`` outside of transforms, without the binding of arguments that takes 10 us a call.

    That step of `torch.autograd.Function.apply` only fills in defaults, and these functions have none. Holds for
    torch 2.4 to 2.13.
    """
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]


class _Outputs(torch.autograd.Function):
    """Outputs (batch, outputs) of angles (batch, angles) and prepared amplitudes (batch or 1, amplitudes)."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        return super().apply(*args) if _in_transform() else apply_directly(cls, *args)

    @staticmethod
    def forward(method: GradientMethod, residuals: _Residuals, angles: Tensor, *prepared: Tensor) -> Tensor:
        values, residuals.content = method.forward(angles, prepared, True)
        return values

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.method, ctx.residuals, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        by_prepared = any(ctx.needs_input_grad[3:])
        arguments = ctx.method, ctx.residuals, by_prepared, cotangents[0], *ctx.saved_tensors
        # Only where a further derivative may be asked for need this one be seen by autograd.
        pull = _Pullback.apply if torch.is_grad_enabled() or _in_transform() else _Pullback.forward
        found = pull(*arguments)
        return None, None, *found, *[None] * (len(ctx.needs_input_grad) - 2 - len(found))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise UnsupportedError(
            "qtm computes derivatives in reverse mode only, and forward-mode differentiation was asked for "
            "(torch.func.jvp, jacfwd, forward_ad); use torch.func.vjp, jacrev or backward()"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, method: GradientMethod, residuals: _Residuals, *tensors: Tensor) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[2:], tensors)
        return folded.unfold(_Outputs.apply(method, _Residuals(), *folded.tensors)), 0


class _Pullback(torch.autograd.Function):
    """The vector-Jacobian product of `_Outputs`; its own derivative is refused, never silently zero."""

    @staticmethod
    def forward(
        method: GradientMethod,
        residuals: _Residuals,
        by_prepared: bool,
        cotangent: Tensor,
        angles: Tensor,
        *prepared: Tensor,
    ) -> tuple[Tensor, ...]:
        at, weights = angles.detach(), cotangent if cotangent.is_complex() else cotangent.to(angles.dtype)
        by_angles, by_amplitudes = method.vjp(at, prepared, weights, residuals.take(), by_prepared)
        return (by_angles,) if by_amplitudes is None else (by_angles, *by_amplitudes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(
            "qtm computes first derivatives only: the gradient of an expectation value cannot be differentiated "
            "again. Call backward() without create_graph=True, or differentiate it numerically"
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, method: GradientMethod, residuals: Any, by_prepared: bool, *tensors: Tensor
    ) -> Any:
        folded = FoldedBatch(info.batch_size, in_dims[3:], tensors)
        found = _Pullback.apply(method, _Residuals(), by_prepared, *folded.tensors)
        by_angles, *by_amplitudes = [folded.unfold(gradient) for gradient in found]
        # Amplitudes that serve a whole batch got a gradient for each of its rows.
        shared = folded.shared[2:]
        summed = [g.sum(1, keepdim=True) if one else g for g, one in zip(by_amplitudes, shared, strict=False)]
        return (by_angles, *summed), (0,) * len(found)


class FoldedBatch:
    """A dimension of `torch.vmap` folded into the batch: tensors (rows, numbers) behind ``dims``.

    ``shared`` says of each tensor whether one row serves all rows of the first tensor.
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


def dtype_of(sets: Sequence[Tensor], inputs: Tensor | None) -> torch.dtype:
    """The dtype to compute in: that of the parameter sets, or of the inputs where the sets are empty.

    Raises:
        DtypeError: it is neither float32 nor float64, or a tensor is not on the CPU.
    """
    lead = inputs if inputs is not None and not any(s.numel() for s in sets) else sets[0]
    if lead.dtype not in _NUMPY_OF:
        raise DtypeError(f"{lead.dtype} is not supported; use float32 or float64, for example module.double()")
    for name, tensors in (("weights", sets), ("inputs", () if inputs is None else (inputs,))):
        for tensor in tensors:
            if not tensor.is_cpu:
                raise DtypeError(f"the {name} are on {tensor.device}; qtm computes on the CPU: move them with .cpu()")
    return lead.dtype


def complex_name(dtype: torch.dtype) -> str:
    """``"complex64"`` or ``"complex128"``, the precision that goes with a real torch dtype.

    Raises:
        DtypeError: it is neither float32 nor float64.
    """
    if dtype not in _NUMPY_OF:
        raise DtypeError(
            f"{dtype} is not supported; use float32 or float64, as with torch.set_default_dtype(torch.float32)"
        )
    return _NUMPY_OF[dtype]


def expectation_values(
    method: GradientMethod, inputs: Tensor | None, sets: Sequence[Tensor], batch: int, by: tuple[bool, ...]
) -> Tensor:
    """Expectation values (batch, observables) of inputs (batch, inputs) and parameter sets, differentiably.

    The inputs and all sets, each (parameters,), have one dtype. ``by``: whether the inputs, and then each set,
    require a gradient.
    """
    if torch._C._is_tracing():
        raise UnsupportedError(
            "torch.jit.trace records operations of torch, and a simulation is none: it would be replayed with the "
            "values of the traced call. Use torch.compile, or torch.save for a file"
        )
    if torch.compiler.is_compiling():
        # Made here, because importing torch's compiler takes longer than importing torch.
        return torch.compiler.disable(_values)(method, inputs, sets, batch, by)
    return _values(method, inputs, sets, batch, by)


def _values(
    method: GradientMethod, inputs: Tensor | None, sets: Sequence[Tensor], batch: int, by: tuple[bool, ...]
) -> Tensor:
    if _in_transform():  # whose tensors do not say whether they require a gradient
        return _by_angles(method, inputs, sets, batch)
    method = method.differentiating(by)
    fused = getattr(method, "fused", None)
    if fused is None or torch.autograd.forward_ad._current_level >= 0:
        return _by_angles(method, inputs, sets, batch)
    if torch.is_grad_enabled() and (by[0] or any(one.requires_grad and one.numel() for one in sets)):
        return apply_directly(Fused, fused, partial(_by_angles, method, batch=batch), batch, inputs, *sets)
    return fused.forward(inputs, sets, batch, False)[0]


def _by_angles(method: GradientMethod, inputs: Tensor | None, sets: Sequence[Tensor], batch: int) -> Tensor:
    """The general way: torch computes the angles, and with them whatever derivative is asked for."""
    angles, prepared = method.arguments(inputs, sets[0] if len(sets) == 1 else torch.cat(tuple(sets)), batch)
    if _may_be_differentiated() or angles.requires_grad or any(p.requires_grad for p in prepared):
        return _Outputs.apply(method, _Residuals(), angles, *prepared)
    return method.forward(angles, prepared, False)[0]


def _may_be_differentiated() -> bool:
    """Whether tensors may be differentiated that do not require a gradient: in a transform, or in forward mode."""
    return _in_transform() or torch.autograd.forward_ad._current_level >= 0


def _in_transform() -> bool:
    """Whether a `torch.func` transform is active: its tensors have no storage to compute on."""
    return torch._C._are_functorch_transforms_active()
