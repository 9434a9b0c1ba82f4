"""State preparations at the start of a circuit as amplitudes that depend on the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

from qtm._angles import AngleMap
from qtm._basis import combinations
from qtm._expressions import compile_angles
from qtm._flatten import Preparation

if TYPE_CHECKING:
    from torch import Tensor


class _Amplitudes:
    """Amplitudes of one preparation."""

    def __init__(self, preparation: Preparation, parameters: Sequence[Parameter]) -> None:
        self.normalize = preparation.normalize
        symbolic = [isinstance(a, ParameterExpression) for a in preparation.amplitudes]
        numbers = [0j if s else complex(a) for a, s in zip(preparation.amplitudes, symbolic, strict=True)]
        self.constant = np.array(numbers)  # (amplitudes,)
        real = [a if s else 0.0 for a, s in zip(preparation.amplitudes, symbolic, strict=True)]
        self.map: AngleMap | None = compile_angles(real, parameters) if any(symbolic) else None

    def numpy(self, values: np.ndarray) -> np.ndarray:
        amplitudes = self.constant[None] if self.map is None else self.map.numpy(values) + self.constant
        if self.normalize:
            amplitudes = amplitudes / np.linalg.norm(amplitudes, axis=-1, keepdims=True)
        return amplitudes

    def torch(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        import torch

        kind = torch.complex64 if weights.dtype == torch.float32 else torch.complex128
        amplitudes = torch.as_tensor(self.constant, dtype=kind)[None]
        if self.map is not None:
            amplitudes = self.map.torch(inputs, weights) + amplitudes
        if self.normalize:
            amplitudes = amplitudes / torch.linalg.vector_norm(amplitudes, dim=-1, keepdim=True)
        return amplitudes


class InitialState:
    """The state a circuit starts from, as the rows of the kernels: (batch or 1, rows * 2).

    ``basis`` names the amplitudes behind the bits of a row, as in `qtm._schedule.Schedule`.
    """

    def __init__(
        self, preparations: Sequence[Preparation], parameters: Sequence[Parameter], basis: Sequence[int]
    ) -> None:
        self.parts = [_Amplitudes(p, parameters) for p in preparations]
        amplitude = combinations(basis)  # (rows,)
        prepared = 0
        self.places = []
        for preparation in preparations:
            place = np.zeros_like(amplitude)
            for bit, qubit in enumerate(preparation.qubits):
                place |= (amplitude >> qubit & 1) << bit
                prepared |= 1 << qubit
            self.places.append(place)
        self.support = (amplitude & ~prepared) == 0  # (rows,): the other qubits start in 0

    @property
    def is_constant(self) -> bool:
        """Whether no amplitude depends on a parameter."""
        return all(part.map is None for part in self.parts)

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Rows for parameter values (batch, parameters)."""
        total: Any = self.support.astype(complex)[None]
        for part, place in zip(self.parts, self.places, strict=True):
            total = total * part.numpy(values)[:, place]
        return np.ascontiguousarray(total).view(np.float64)

    def torch(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """The same for torch, differentiable by inputs (batch, inputs) and weights (weights,)."""
        import torch

        total: Any = torch.as_tensor(self.support)[None]
        for part, place in zip(self.parts, self.places, strict=True):
            total = total * part.torch(inputs, weights)[:, torch.as_tensor(place)]
        return torch.view_as_real(total.contiguous()).flatten(1)
