"""What the peers that are torch modules have in common."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from _protocol import Runner, Task

# As the environment says, not THREADS: a worker of `Sharded` has one thread.
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class TorchRunner(Runner):
    """Runs a differentiable function of the weights, `values(weights)` of shape (samples, M).

    Results come to the CPU, so that a call ends when the device has done its work.
    """

    def __init__(self, task: Task, values: Callable[[torch.Tensor], torch.Tensor], device: str = "cpu") -> None:
        self._values = values
        self._weights = torch.tensor(task.weights.astype(task.real), device=device, requires_grad=True)
        self._cotangent = torch.tensor(task.cotangent.astype(task.real), device=device)

    def forward(self) -> np.ndarray:
        with torch.no_grad():
            return self._values(self._weights).cpu().numpy()

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values = self._values(self._weights)
        return values.detach().cpu().numpy(), self._gradient(values)

    def pullback(self) -> Callable[[], np.ndarray]:
        values = self._values(self._weights)
        return lambda: self._gradient(values)

    def _gradient(self, values: torch.Tensor) -> np.ndarray:
        (gradient,) = torch.autograd.grad(values, self._weights, self._cotangent.to(values.dtype))
        return gradient.cpu().numpy()


def torch_angles(task: Task, device: str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
    """Function from weights, (K,), to all angles of the circuit, (samples, angles), in torch."""
    const = torch.tensor(task.const.astype(task.real), device=device)
    factors = torch.tensor(task.input_factors.astype(task.real), device=device)
    weight_of = torch.tensor(task.weight_of, device=device)
    one = torch.ones(1, dtype=const.dtype, device=device)
    return lambda weights: const + factors * torch.cat([weights, one])[weight_of]
