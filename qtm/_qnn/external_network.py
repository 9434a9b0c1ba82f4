"""Networks that qtm cannot simulate as a `GradientMethod`, through their `forward` and `backward`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtm._gradients.method import FirstDerivatives, GradientMethod
from qtm._primitives.job_usage import Usage


class ExternalNetwork(FirstDerivatives):
    """Outputs (batch, outputs) and derivatives from the network's own `forward` and `backward`.

    Derivatives are with respect to the inputs and weights themselves, concatenated.
    """

    def __init__(self, network: Any, by_inputs: bool = True) -> None:
        self.network, self.by_inputs = network, by_inputs
        self.num_inputs, self.num_outputs = network.num_inputs, prod(network.output_shape)

    def differentiating(self, by: tuple[bool, ...]) -> GradientMethod:
        return self if by[0] == self.by_inputs else ExternalNetwork(self.network, by[0])

    @property
    def usage(self) -> Usage:
        return Usage()

    def preview(self, batch: int, steps: int = 1) -> Usage:
        return Usage()  # unknown, as the network runs its own jobs

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        rows = weights.expand(batch, -1)
        return rows if inputs is None else torch.cat([inputs, rows], dim=1), ()

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        out = np.zeros((len(angles), self.num_outputs))
        for rows, inputs, weights in self._calls(angles.detach().numpy()):
            out[rows] = _dense(self.network.forward(inputs, weights)).reshape(-1, out.shape[1])
        return torch.from_numpy(out).to(angles.dtype), None

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        out, weight = np.zeros(angles.shape), cotangent.detach().numpy()
        for rows, inputs, weights in self._calls(angles.detach().numpy()):
            by_inputs, by_weights = self._backward(inputs, weights)
            for found, columns in (
                (by_inputs, slice(0, self.num_inputs)),
                (by_weights, slice(self.num_inputs, None)),
            ):
                if found is not None:
                    found = _dense(found).reshape(*weight[rows].shape, -1)
                    out[rows, columns] = np.einsum("bm,bmk->bk", weight[rows], found)
        return torch.from_numpy(out).to(angles.dtype), None

    def _calls(self, angles: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Rows of equal weights (under `torch.vmap` they differ), with their inputs and weights."""
        inputs, weights = np.split(angles.astype(float), [self.num_inputs], axis=1)
        if len(angles) and (weights == weights[0]).all():
            groups: list[np.ndarray] = [np.arange(len(angles))]
        else:
            number = np.unique(weights, axis=0, return_inverse=True)[1].reshape(-1)
            groups = [np.flatnonzero(number == i) for i in range(number.max(initial=-1) + 1)]
        return [(rows, self._inputs(inputs[rows]), weights[rows[0]]) for rows in groups]

    def _inputs(self, inputs: np.ndarray) -> np.ndarray | None:
        return inputs if self.num_inputs or len(inputs) != 1 else None

    def _backward(self, inputs: np.ndarray | None, weights: np.ndarray) -> tuple[Any, Any]:
        before = self.network.input_gradients
        self.network.input_gradients = before or (self.by_inputs and bool(self.num_inputs))
        try:
            found = self.network.backward(inputs, weights)
        finally:
            self.network.input_gradients = before
        if found[0] is None and self.by_inputs and self.num_inputs:
            raise RuntimeError(
                f"the inputs of {type(self.network).__name__} require a gradient, and its backward() gives none for "
                "them; detach the inputs, or use a network that can be simulated exactly"
            )
        return found


def _dense(array: Any) -> np.ndarray:
    return array.todense() if hasattr(array, "todense") else np.asarray(array)
