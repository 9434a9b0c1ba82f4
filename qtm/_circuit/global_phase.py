"""The part of a global phase that occurs in no gate angle, as a function of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qiskit.circuit import Parameter

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.device_array import DeviceArray
from qtm._circuit.expressions import compile_angles
from qtm._circuit.flatten import GlobalPhase

if TYPE_CHECKING:
    from torch import Tensor


class PhaseMap:
    """The expressions of a global phase, in the order of the parameters."""

    def __init__(self, phase: GlobalPhase, parameters: Sequence[Parameter]) -> None:
        self.coefficients = np.array([coefficient for coefficient, _ in phase.expressions])  # (expressions,)
        self._coefficients = DeviceArray(self.coefficients)
        expressions = [expression for _, expression in phase.expressions]
        self.map: AngleMap | None = compile_angles(expressions, parameters) if expressions else None

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Angles (batch or 1, 1) in radians, at parameter values (batch, parameters)."""
        if self.map is None:
            return np.zeros((1, 1))
        total: np.ndarray = self.map.numpy(values) @ self.coefficients[:, None]
        return total

    def times(self, states: Tensor, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """States (batch, amplitudes) times exp(i phase), differentiable in inputs and parameter sets."""
        import torch

        if self.map is None:
            return states
        angles = self.map.torch(inputs, sets[0] if len(sets) == 1 else torch.cat(tuple(sets)))
        coefficients = self._coefficients.tensor(angles.dtype, angles.device)
        total = (angles * coefficients).sum(-1)  # not a matrix product, which autocast computes in half precision
        return states * torch.complex(total.cos(), total.sin())[:, None]
