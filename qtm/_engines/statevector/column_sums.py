"""Sums of columns by destination, and their adjoint."""

from __future__ import annotations

import numpy as np


class ColumnSums:
    """Adds column i of an array (batch, columns) to column ``target[i]`` of one (batch, size)."""

    def __init__(
        self,
        target: np.ndarray,  # (columns,) int64
        size: int,
    ) -> None:
        self.target, self.size = target, size
        self._order = np.argsort(target, kind="stable")
        self._used, self._starts = np.unique(target[self._order], return_index=True)
        self._is_permutation = len(self._used) == len(target)

    def add_up(self, columns: np.ndarray) -> np.ndarray:
        """The sums (batch, size); zero for destinations without columns."""
        sums = np.zeros((len(columns), self.size), columns.dtype)
        if self._is_permutation:
            sums[:, self.target] = columns
        elif len(columns):
            sums[:, self._used] = np.add.reduceat(columns.take(self._order, axis=1), self._starts, axis=1)
        return sums

    def pull_back(self, cotangent: np.ndarray) -> np.ndarray:
        """The cotangent (batch, columns) of the columns from the cotangent (batch, size) of the sums."""
        return np.ascontiguousarray(cotangent.take(self.target, axis=1))
