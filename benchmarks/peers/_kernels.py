"""Kernels as tasks of the protocol: the values of a task are the matrix of its samples with themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _protocol import Runner


class KernelRunner(Runner):
    """A function that computes the matrix (samples, samples)."""

    def __init__(self, matrix: Callable[[], np.ndarray]) -> None:
        self._matrix = matrix

    def forward(self) -> np.ndarray:
        return np.asarray(self._matrix(), float)

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        return self.forward(), np.zeros(0)
