"""The metric of a module's weights: the real part of the quantum geometric tensor, as products with vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qtm._engines.simulation import Simulation
from qtm._errors import ShapeError, UnsupportedError


class Metric:
    """The metric at some inputs and weights, averaged over the inputs; no matrix is made.

    With |psi> the state at an input, and derivatives by the weights w,

        g_ij = mean of Re(<d_i psi|d_j psi> - <d_i psi|psi><psi|d_j psi>)

    (Stokes et al., Quantum 4, 269 (2020), equation 9). The quantum Fisher information is 4 g. A product takes about as
    long as a gradient.
    """

    def __init__(self, simulation: Simulation, inputs: Tensor | None, sets: Sequence[Tensor], batch: int) -> None:
        self._engine, self._batch = simulation.engine, max(batch, 1)
        with torch.enable_grad():
            self._weights = torch.cat([s.detach() for s in sets]).requires_grad_()
            rows = None if inputs is None else inputs.detach()
            self._angles, prepared = simulation.torch_arguments(rows, self._weights, batch)
            if any(p.requires_grad for p in prepared):
                raise UnsupportedError(
                    "the metric by weights that are amplitudes of an initial state is not computed; prepare the state "
                    "by gates, or train these weights by another optimizer"
                )
            self._prepared = [p.detach() for p in prepared]
            # Pulling back is linear in the cotangent u: its derivative by u pushes forward.
            self._cotangent = torch.zeros_like(self._angles, requires_grad=True)
            self._pulled = self._pull_back(self._cotangent, create_graph=True)

    @property
    def num_parameters(self) -> int:
        """Number of weights, of all parameter sets one after another."""
        return self._weights.numel()

    def product(self, vector: Tensor) -> Tensor:
        """The metric times a vector (parameters,) over all parameter sets in order.

        Raises:
            ShapeError: the vector has another length.
        """
        if vector.shape != self._weights.shape:
            raise ShapeError(f"the vector has shape {tuple(vector.shape)}; expected ({self.num_parameters},)")
        if not self._pulled.requires_grad:  # no angle depends on a weight
            return torch.zeros_like(self._weights)
        own = vector.detach().to(self._weights.dtype)
        (direction,) = torch.autograd.grad(self._pulled, self._cotangent, own, retain_graph=True)
        found = self._engine.metric_product(self._angles.detach(), self._prepared, direction)
        return self._pull_back(found.to(direction.dtype)) / self._batch

    def matrix(self) -> Tensor:
        """The metric (parameters, parameters), by a product with every unit vector."""
        units = torch.eye(self.num_parameters, dtype=self._weights.dtype)
        rows = [self.product(unit) for unit in units]
        return torch.stack(rows) if rows else units

    def _pull_back(self, cotangent: Tensor, create_graph: bool = False) -> Tensor:
        if not self._angles.requires_grad:
            return torch.zeros_like(self._weights)
        (found,) = torch.autograd.grad(
            self._angles, self._weights, cotangent, create_graph=create_graph, retain_graph=True
        )
        return found
