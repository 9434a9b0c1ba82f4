"""State preparations at the start of a circuit as amplitudes that depend on the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.circuit import Parameter

from qtm._circuit.flatten import Preparation
from qtm._circuit.gf2 import combinations
from qtm._circuit.state_preparation import _Amplitudes

if TYPE_CHECKING:
    from torch import Tensor


class InitialState:
    """The state a circuit starts from, as the rows of the kernels: (batch or 1, rows * 2).

    ``basis`` names the amplitudes behind the bits of a row, as in `qtm._engines.statevector.schedule.Schedule`.
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
