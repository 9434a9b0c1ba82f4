"""NumPy arrays as tensors on the devices where they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DeviceArray:
    """An array that is copied to each device once, because the CPU waits for a copy. Its tensors are read-only."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._tensors: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def tensor(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The array in a dtype, on a device."""
        found = self._tensors.get((dtype, device))
        if found is None:
            import torch

            # Created under inference_mode it would be unusable in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                found = torch.as_tensor(self.array, dtype=dtype, device=device)
            self._tensors[dtype, device] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tensors": {}}
