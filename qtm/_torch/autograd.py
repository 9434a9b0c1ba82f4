"""The map from inputs and parameter sets to outputs, on the cheapest path that supports the requested derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from qtm._errors import DtypeError, UnsupportedError
from qtm._gradients.method import GradientMethod
from qtm._torch.derivatives import Outputs, Residuals, direct_apply, in_transform, may_be_differentiated, untraced
from qtm._torch.fused import Fused

_NUMPY_OF = {torch.float32: "complex64", torch.float64: "complex128"}
_DEVICES = ("cpu", "cuda")
apply_fused, _apply_outputs = direct_apply(Fused), direct_apply(Outputs)


def dtype_of(sets: Sequence[Tensor], inputs: Tensor | None) -> torch.dtype:
    """The dtype of a computation on the CPU: that of the parameter sets, or of the inputs if the sets are empty.

    Raises:
        DtypeError: it is neither float32 nor float64, or a tensor is not on the CPU.
    """
    dtype, device = dtype_and_device(sets, inputs)
    if device != "cpu":
        raise DtypeError(f"tensors are on {device}, and this computes on the CPU: move them with .cpu()")
    return dtype


def dtype_and_device(sets: Sequence[Tensor], inputs: Tensor | None) -> tuple[torch.dtype, str]:
    """The dtype of a computation, see `dtype_of`, and the type of the device of all tensors.

    Raises:
        DtypeError: the dtype is neither float32 nor float64, a device is neither a CPU nor a GPU that torch calls
            ``cuda``, or the tensors are on several devices.
    """
    lead = sets[0]
    if not lead.numel() and inputs is not None and not any(s.numel() for s in sets):
        lead = inputs
    if lead.dtype not in _NUMPY_OF:
        raise DtypeError(f"{lead.dtype} is not supported; use float32 or float64, for example module.double()")
    if inputs is None or inputs.is_cpu:
        for one in sets:  # not by all(...), which takes half a microsecond
            if not one.is_cpu:
                break
        else:
            return lead.dtype, "cpu"
    return lead.dtype, common_device([one.device for one in sets], None if inputs is None else inputs.device)


def common_device(sets: Sequence[torch.device], inputs: torch.device | None) -> str:
    """The type of the device of parameter sets and inputs.

    Raises:
        DtypeError: qtm does not support the device, or there are several.
    """
    placed = [("weights", device) for device in sets] + ([] if inputs is None else [("inputs", inputs)])
    for name, device in placed:
        if device.type not in _DEVICES:
            raise DtypeError(
                f"the {name} are on {device}; qtm computes on the CPU and on GPUs that torch calls cuda: move them "
                "with .cpu() or .cuda()"
            )
    (_, first), *others = placed
    for name, device in others:
        if device != first:
            raise DtypeError(
                f"the {name} are on {device}, and the weights on {first}; move the module or its inputs with "
                f".to({str(first)!r})"
            )
    return first.type


def complex_name(dtype: torch.dtype) -> str:
    """``"complex64"`` or ``"complex128"``, the complex dtype of the same precision as a real torch dtype.

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
    """Expectation values (batch, observables) of inputs (batch, inputs) and parameter sets, differentiable.

    The inputs and all sets, each (parameters,), have one dtype. ``by``: whether the inputs, and then each set,
    require a gradient and are not empty.
    """
    if torch._C._is_tracing():
        raise UnsupportedError(
            "torch.jit.trace records operations of torch, and a simulation is not one: it would be replayed with the "
            "values of the traced call. Use torch.compile, or torch.save for a file"
        )
    if torch.compiler.is_compiling():
        # Created here, because importing torch's compiler takes longer than importing torch.
        return torch.compiler.disable(_values)(method, inputs, sets, batch, by)
    return _values(method, inputs, sets, batch, by)


def _values(
    method: GradientMethod, inputs: Tensor | None, sets: Sequence[Tensor], batch: int, by: tuple[bool, ...]
) -> Tensor:
    if in_transform():  # its tensors do not tell whether they require a gradient
        return _by_angles(method, inputs, sets, batch)
    method = method.differentiating(by)
    fused = getattr(method, "fused", None)
    if fused is None or forward_ad._current_level >= 0:
        return _by_angles(method, inputs, sets, batch)
    if True in by and torch.is_grad_enabled():
        return apply_fused(method, batch, inputs, *sets)
    return fused.forward(inputs, sets, batch, False)[0]


def _by_angles(method: GradientMethod, inputs: Tensor | None, sets: Sequence[Tensor], batch: int) -> Tensor:
    """The general path: torch computes the angles, so that every supported derivative works."""
    angles, prepared = method.arguments(inputs, sets[0] if len(sets) == 1 else torch.cat(tuple(sets)), batch)
    if may_be_differentiated() or angles.requires_grad or any(p.requires_grad for p in prepared):
        apply = Outputs.apply if in_transform() else _apply_outputs
        return apply(method, Residuals(), angles, *prepared)
    values: Tensor = untraced(method.forward, angles, prepared, False)[0]
    return values
