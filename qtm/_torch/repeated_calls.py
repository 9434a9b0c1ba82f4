"""Calls of a module like an earlier one, which need not be checked again.

On a small circuit the checks of a call take as long as its simulation. They depend on the kind of a call alone: the
dtypes, layouts and devices of its tensors, and whether they require a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qtm._gradients.fused import FusedMethod
from qtm._gradients.method import GradientMethod
from qtm._torch.autograd import apply_fused
from qtm._torch.derivatives import may_be_differentiated


class RepeatedCalls:
    """Methods that compute calls of a known kind, with inputs (batch, inputs), from the tensors as they are.

    Args:
        width: number of inputs.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._known: dict[tuple[Any, ...], tuple[GradientMethod, FusedMethod, bool]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Methods hold compiled plans and buffers; they are known again after the next call.
        return RepeatedCalls, (self._width,)

    def forget(self) -> None:
        """Check all kinds of calls again."""
        self._known.clear()

    def values(self, inputs: Any, sets: Sequence[Tensor]) -> Tensor | None:
        """Outputs (batch, outputs), or None if no such call was remembered."""
        if type(inputs) is not Tensor or not _is_eager():
            return None
        known = self._known.get(_kind(inputs, sets))
        if known is None:
            return None
        rows, width = inputs.shape
        if width != self._width:
            return None
        method, fused, is_differentiable = known
        if is_differentiable and torch.is_grad_enabled():
            return apply_fused(method, rows, inputs, *sets)
        return fused.forward(inputs, sets, rows, False)[0]

    def remember(self, inputs: Any, sets: Sequence[Tensor], method: GradientMethod) -> None:
        """Note that ``method`` computed this call, if it can compute others of this kind from their tensors alone."""
        fused = getattr(method, "fused", None)
        if fused is None or type(inputs) is not Tensor or inputs.ndim != 2 or not _is_eager():
            return
        if any(t.dtype is not inputs.dtype or not t.is_cpu for t in (inputs, *sets)):
            return
        by_any = inputs.requires_grad or any(s.requires_grad and s.numel() for s in sets)
        self._known[_kind(inputs, sets)] = method, fused, by_any


def _kind(inputs: Tensor, sets: Sequence[Tensor]) -> tuple[Any, ...]:
    lead = sets[0]
    kind: tuple[Any, ...] = (
        inputs.dtype, inputs.layout, inputs.is_nested, inputs.ndim, inputs.is_cpu, inputs.requires_grad, lead.dtype,
        lead.is_cpu, lead.requires_grad,
    )  # fmt: skip
    for one in sets[1:]:
        kind = (*kind, one.dtype, one.is_cpu, one.requires_grad)
    return kind


def _is_eager() -> bool:
    """Whether torch neither compiles, traces nor transforms the call, nor pushes tangents forward."""
    return not (torch.compiler.is_compiling() or torch._C._is_tracing() or may_be_differentiated())
