"""Samples of a kernel as tensors, and the errors for unusable ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qtm._errors import ParameterError, ShapeError
from qtm._torch.inputs import dense_tensor


def as_samples(values: Any, features: int, argument: str) -> Tensor:
    """Samples (samples, features); a sample (features,) is one row.

    Raises:
        ShapeError: another number of features, or of axes.
        DtypeError: they are not real numbers.
        ParameterError: a value is NaN or infinite.
    """
    tensor = dense_tensor(values)
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim != 2 or tensor.shape[1] != features:
        raise ShapeError(
            f"{argument} has shape {tuple(tensor.shape)}; the feature map has {features} features: expected (samples, "
            f"{features})"
        )
    if not torch.isfinite(tensor.detach()).all():
        row = int((~torch.isfinite(tensor.detach())).any(1).nonzero()[0])
        raise ParameterError(f"{argument} has a NaN or infinite value in sample {row}; features are angles in radians")
    return tensor


def same_samples(left: Tensor, right: Tensor) -> bool:
    """Whether both are the same samples in the same order."""
    return left.shape == right.shape and bool(torch.equal(left, right))
