"""The global phase of a circuit as a function of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qiskit.circuit import Parameter

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.expressions import compile_angles
from qtm._circuit.flatten import GlobalPhase

if TYPE_CHECKING:
    from torch import Tensor


class PhaseMap:
    """A global phase in the order of the parameters."""

    def __init__(self, phase: GlobalPhase, parameters: Sequence[Parameter]) -> None:
        self.offset = phase.offset
        self.coefficients = np.array([coefficient for coefficient, _ in phase.terms])  # (terms,)
        expressions = [expression for _, expression in phase.terms]
        self.map: AngleMap | None = compile_angles(expressions, parameters) if expressions else None

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Angles (batch or 1, 1) in radians, at parameter values (batch, parameters)."""
        if self.map is None:
            return np.full((1, 1), self.offset)
        total: np.ndarray = self.map.numpy(values) @ self.coefficients[:, None] + self.offset
        return total

    def times(self, states: Tensor, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """States (batch, amplitudes) times exp(i phase), differentiable by inputs and weights too."""
        import torch

        if self.map is None:
            turn = complex(np.exp(1j * self.offset))
            return states if turn == 1 else states * turn
        angles = self.map.torch(inputs, weights)
        total = angles @ torch.as_tensor(self.coefficients, dtype=angles.dtype) + self.offset
        return states * torch.complex(total.cos(), total.sin())[:, None]
