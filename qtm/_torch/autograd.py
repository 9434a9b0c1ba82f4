"""The one `torch.autograd.Function` of qtm, and what a method of differentiation has to offer it.

The function maps gate angles (batch, angles) to expectation values (batch, observables). How angles come from
inputs and weights is ordinary torch; how values are differentiated by angles is the business of a `GradientMethod`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._errors import DtypeError, UnsupportedError
from qtm._gradients.method import GradientMethod

_NUMPY_OF = {torch.float32: "complex64", torch.float64: "complex128"}


class _Memo:
    """Carries what the forward pass kept to the first backward pass; later ones recompute it."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content: Any = None

    def take(self) -> Any:
        content, self.content = self.content, None
        return content


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().contiguous().numpy()


class _Expectation(torch.autograd.Function):
    @classmethod
    def apply(cls, *args: Any) -> Any:
        if _in_transform():
            return super().apply(*args)
        # Past torch's look at the signature, made anew at every call for the defaults that `forward` lacks: 10 us.
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]

    @staticmethod
    def forward(angles: Tensor, initial: Tensor | None, method: GradientMethod, memo: _Memo) -> Tensor:
        values, memo.content = method.values(_array(angles), _array(initial), True)  # type: ignore[arg-type]
        return torch.from_numpy(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        angles, initial, ctx.method, ctx.memo = inputs
        ctx.save_for_backward(angles, initial)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        angles, initial = ctx.saved_tensors
        arguments = cotangents[0], angles, initial, ctx.method, ctx.memo, ctx.needs_input_grad[1]
        # Only where a further derivative may be asked for need this one be seen by autograd.
        pull = _Pullback.apply if torch.is_grad_enabled() or _in_transform() else _Pullback.forward
        by_angles, by_initial = pull(*arguments)
        return by_angles, by_initial, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise UnsupportedError(
            "qtm computes derivatives in reverse mode only, and forward-mode differentiation was asked for "
            "(torch.func.jvp, jacfwd, forward_ad); use torch.func.vjp, jacrev or backward()"
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, angles: Tensor, initial: Tensor | None, method: GradientMethod, memo: _Memo
    ) -> Any:
        flat = _Flat(info.batch_size)
        result = _Expectation.apply(*flat.fold(in_dims[:2], angles, initial), method, _Memo())
        return flat.unfold(result), 0


class _Pullback(torch.autograd.Function):
    """The vector-Jacobian product of `_Expectation`; its own derivative is refused, never silently zero."""

    @staticmethod
    def forward(
        cotangent: Tensor, angles: Tensor, initial: Tensor | None, method: GradientMethod, memo: _Memo, by_initial: bool
    ) -> tuple[Tensor, Tensor | None]:
        arrays: list[Any] = [_array(tensor) for tensor in (angles, cotangent.to(angles.dtype), initial)]
        by_angles, by_rows = method.vjp(arrays[0], arrays[1], arrays[2], memo.take(), by_initial)
        return torch.from_numpy(by_angles), None if by_rows is None else _rows_gradient(by_rows, initial)

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
    def vmap(info: Any, in_dims: tuple, cotangent: Tensor, angles: Tensor, initial: Any, *rest: Any) -> Any:
        method, _, by_initial = rest
        flat = _Flat(info.batch_size)
        folded = flat.fold(in_dims[:3], cotangent, angles, initial)
        by_angles, by_rows = _Pullback.apply(*folded, method, _Memo(), by_initial)
        if by_rows is None:
            return (flat.unfold(by_angles), None), (0, None)
        by_rows, shared = flat.unfold(by_rows), flat._whole(in_dims[2], initial).shape[1] == 1
        return (flat.unfold(by_angles), by_rows.sum(1, keepdim=True) if shared else by_rows), (0, 0)


def _rows_gradient(by_rows: np.ndarray, initial: Tensor | None) -> Tensor:
    """Gradient in the shape of the initial rows: summed where one row serves the whole batch."""
    gradient = torch.from_numpy(by_rows)
    assert initial is not None
    return gradient if len(initial) == len(gradient) else gradient.sum(0, keepdim=True)


class _Flat:
    """Folds a dimension of `torch.vmap` into the batch, and back."""

    def __init__(self, size: int) -> None:
        self.size = size

    def fold(self, dims: tuple, first: Tensor, *more: Tensor | None) -> list[Tensor | None]:
        """Tensors (rows, numbers) behind ``dims``; one row serves all rows of the first tensor."""
        whole = [None if t is None else self._whole(d, t) for d, t in zip(dims, (first, *more), strict=True)]
        rows = whole[0].shape[1]  # type: ignore[union-attr]
        return [None if t is None else t.expand(-1, rows, -1).reshape(self.size * rows, t.shape[-1]) for t in whole]

    def _whole(self, dim: int | None, tensor: Tensor) -> Tensor:
        return tensor.expand(self.size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

    def unfold(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(self.size, len(tensor) // self.size, tensor.shape[-1])


def dtype_of(weights: Tensor, inputs: Tensor | None) -> torch.dtype:
    """The dtype to compute in: that of the weights, or of the inputs where there are no weights.

    Raises:
        DtypeError: it is neither float32 nor float64, or a tensor is not on the CPU.
    """
    lead = inputs if weights.numel() == 0 and inputs is not None else weights
    if lead.dtype not in _NUMPY_OF:
        raise DtypeError(f"{lead.dtype} is not supported; use float32 or float64, for example module.double()")
    for tensor, name in ((weights, "weights"), (inputs, "inputs")):
        if tensor is not None and tensor.device.type != "cpu":
            raise DtypeError(f"the {name} are on {tensor.device}; qtm computes on the CPU: move them with .cpu()")
    return lead.dtype


def complex_name(dtype: torch.dtype) -> str:
    """``"complex64"`` or ``"complex128"``, the precision that goes with a real torch dtype."""
    return _NUMPY_OF[dtype]


def expectation_values(
    method: GradientMethod, inputs: Tensor | None, weights: Tensor, batch: int, by: tuple[bool, ...]
) -> Tensor:
    """Expectation values (batch, observables) of inputs (batch, inputs) and weights (weights,), differentiably.

    ``by``: whether the inputs, and then each trainable set, require a gradient.
    """
    if torch.compiler.is_compiling():
        # Made here, because importing torch's compiler takes longer than importing torch.
        return torch.compiler.disable(_values)(method, inputs, weights, batch, by)
    return _values(method, inputs, weights, batch, by)


def _values(method: GradientMethod, inputs: Tensor | None, weights: Tensor, batch: int, by: tuple[bool, ...]) -> Tensor:
    if not _in_transform():  # whose tensors do not say whether they require a gradient
        method = method.differentiating(by)
    angles = method.angles(inputs, weights, batch)
    initial = method.initial(inputs, weights)
    if angles.requires_grad or (initial is not None and initial.requires_grad) or _may_be_differentiated():
        return _Expectation.apply(angles, initial, method, _Memo())
    return torch.from_numpy(method.values(_array(angles), _array(initial), False)[0])  # type: ignore[arg-type]


def _may_be_differentiated() -> bool:
    """Whether tensors may be differentiated that do not require a gradient: in a transform, or in forward mode."""
    return _in_transform() or torch.autograd.forward_ad._current_level >= 0


def _in_transform() -> bool:
    """Whether a `torch.func` transform is active: its tensors have no storage to compute on."""
    return torch._C._are_functorch_transforms_active()
