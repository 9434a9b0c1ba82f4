"""Sparse linear maps between the columns of tensors; a kernel sums the entries in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.schedule import compressed

Rows = Sequence[Sequence[tuple[int, float]]]


class SparseMap:
    """Rows of (column of the values, coefficient), one for each column of the result, on one device."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self.columns, self.longest, self.device = len(rows), max(map(len, rows), default=0), device
        self.start, self.source, self.coefficient = (torch.from_numpy(array).to(device) for array in compressed(rows))

    def sums(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """The result (samples, columns) of values (samples, width)."""
        result = torch.empty(len(values), self.columns, dtype=dtype, device=self.device)
        launch.launch_elements(
            launch.kernels().weighted_sums, result.numel(), self.device, values.contiguous(), self.start, self.source,
            self.coefficient, result, len(values), values.shape[1], self.columns, self.longest,
        )  # fmt: skip
        return result
