"""State preparations as amplitudes that depend on the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

from qtm._circuit.angle_map import AngleMap
from qtm._circuit.device_array import DeviceArray
from qtm._circuit.expressions import compile_angles
from qtm._circuit.flatten import Preparation

if TYPE_CHECKING:
    from torch import Tensor


class PreparedAmplitudes:
    """Amplitudes of one preparation."""

    def __init__(self, preparation: Preparation, parameters: Sequence[Parameter]) -> None:
        self.normalize = preparation.normalize
        symbolic = [isinstance(a, ParameterExpression) for a in preparation.amplitudes]
        numbers = [0j if s else complex(a) for a, s in zip(preparation.amplitudes, symbolic, strict=True)]
        self.constant = np.array(numbers)  # (amplitudes,)
        self._constant = DeviceArray(self.constant)
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
        amplitudes = self._constant.tensor(kind, weights.device)[None]
        if self.map is not None:
            amplitudes = self.map.torch(inputs, weights) + amplitudes
        if self.normalize:
            amplitudes = amplitudes / torch.linalg.vector_norm(amplitudes, dim=-1, keepdim=True)
        return amplitudes
