"""Inputs of a module as tensors, and the errors for unusable ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from qtm._arguments import shown
from qtm._errors import DtypeError, ShapeError

_REAL = frozenset(
    {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8}
    | {torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64}
)
_SPARSE = frozenset({torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})


def dense_tensor(inputs: Any) -> Tensor:
    """Inputs as a dense tensor of real numbers, of any shape; sparse tensors are converted.

    Raises:
        DtypeError: they are not real numbers, or a nested, quantized or otherwise unsupported tensor.
        ShapeError: they are ragged.
    """
    tensor = as_numbers(inputs, "inputs")
    if tensor.layout in _SPARSE:
        tensor = tensor.to_dense()
    if tensor.dtype not in _REAL or tensor.layout is not torch.strided or tensor.is_nested:
        raise _unusual(tensor)
    return tensor


def real_tensor(inputs: Any, width: int) -> Tensor:
    """Inputs as a dense tensor of real numbers (..., width).

    Raises:
        DtypeError: they are not real numbers, or not a dense tensor.
        ShapeError: they are ragged, or their last axis has another length.
    """
    tensor = inputs if isinstance(inputs, Tensor) else as_numbers(inputs, f"inputs (..., {width})")
    if tensor.dtype not in _REAL or tensor.layout is not torch.strided or tensor.is_nested:
        raise _unusual(tensor)
    if tensor.ndim == 0 or tensor.shape[-1] != width:
        raise ShapeError(f"inputs have shape {tuple(tensor.shape)}; expected (..., {width})")
    return tensor


@overload
def same_dtype(inputs: Tensor, sets: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]: ...


@overload
def same_dtype(inputs: Tensor | None, sets: Sequence[Tensor]) -> tuple[Tensor | None, Sequence[Tensor]]: ...


def same_dtype(inputs: Tensor | None, sets: Sequence[Tensor]) -> tuple[Tensor | None, Sequence[Tensor]]:
    """Inputs and parameter sets in one dtype: that of the sets, or of real inputs if the sets are empty."""
    dtype = sets[0].dtype
    if len(sets) == 1 and (inputs is None or inputs.dtype is dtype):
        return inputs, sets
    for one in sets:
        if one.dtype is not dtype:
            dtype = torch.promote_types(dtype, one.dtype)
    if inputs is not None and inputs.is_floating_point() and not any(one.numel() for one in sets):
        dtype = inputs.dtype
    if inputs is not None and inputs.dtype is not dtype:
        inputs = inputs.to(dtype)
    return inputs, [one if one.dtype is dtype else one.to(dtype) for one in sets]


def as_numbers(values: Any, argument: str) -> Tensor:
    """Numbers in any form that torch reads, as a tensor.

    Raises:
        DtypeError: they are not numbers.
        ShapeError: lists in them have different lengths.
    """
    if isinstance(values, np.ndarray) and not values.flags.writeable:  # torch warns of them; joblib's are
        values = values.copy()
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        if "at dim" in str(error):  # ragged lists: "expected sequence of length 2 at dim 1 (got 1)"
            problem = f"{argument} must be rows of equal length, not {shown(values)} ({error}); pad them"
            raise ShapeError(problem) from error
        problem = f"{argument} must be real numbers, not {shown(values)} ({error}); give a tensor, an array or a list"
        raise DtypeError(problem) from error


def _unusual(tensor: Tensor) -> DtypeError:
    """The error for a tensor of an unsupported layout or dtype."""
    if tensor.is_nested:
        found, advice = "a nested tensor", "pad it with torch.nested.to_padded_tensor, or call the module on each part"
    elif tensor.layout is not torch.strided:
        found, advice = f"of layout {tensor.layout}", "call .to_dense()"
    elif tensor.is_complex():
        return DtypeError(f"inputs have dtype {tensor.dtype}; angles must be real (radians): give .real or .angle()")
    elif tensor.is_quantized:
        found, advice = f"quantized ({tensor.dtype})", "call .dequantize()"
    else:
        found, advice = f"of dtype {tensor.dtype}", "convert it with .double()"
    return DtypeError(f"inputs must be a dense tensor of real numbers, not {found}; {advice}")
