"""Products of the Fubini-Study metric of a module's states with directions in its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qtm._arguments import check_type
from qtm._engines.options import Options
from qtm._engines.outputs import State
from qtm._engines.simulation import Simulation
from qtm._errors import ShapeError, UnsupportedError
from qtm._torch.autograd import complex_name, dtype_of
from qtm._torch.inputs import real_tensor
from qtm.modules import QuantumModule

_DENSE = 64  # up to this many parameters, one batch of all tangents is faster than sequential products


class StateGeometry:
    """The metric ``g_kl = Re(<d_k psi|d_l psi> - <d_k psi|psi><psi|d_l psi>)`` of the parameter sets of a module.

    The metric is that of the ideal states of the module's circuit, even if its values come from an estimator or have
    noise.

    Raises:
        ParameterError: ``module`` is not a `QuantumModule`.
    """

    def __init__(self, module: QuantumModule) -> None:
        check_type(module, "module", QuantumModule, "a QuantumModule", "give the module whose parameters are trained")
        self.module = module
        self._simulations: dict[str, Simulation] = {}
        self._linear: dict[str, Tensor | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_simulations": {}, "_linear": {}}

    def prepare(self) -> None:
        """Compile the circuit now, not in the first step.

        Raises:
            UnsupportedError: its states are too large, or trained parameters are amplitudes.
        """
        sets = [s.detach() for s in self.module.variational_]
        if self.module.input_size == 0:
            self.at(None)
        else:
            self._simulation(complex_name(dtype_of(sets, None)))

    def at(self, inputs: Tensor | None) -> Products:
        """Products with the mean metric over the inputs (..., input_size), at the module's parameters.

        Raises:
            ShapeError: inputs are missing, or have another number of features.
        """
        sets = [s.detach() for s in self.module.variational_]
        size = self.module.input_size
        if inputs is None:
            if size:
                raise ShapeError(
                    f"the metric of a circuit with {size} encoding parameters needs inputs: call the module before "
                    "step(), or give step(inputs=...)"
                )
            rows = None
        else:
            rows = real_tensor(inputs, size).detach().reshape(-1, size).to(sets[0].dtype)
            if not len(rows):
                raise ShapeError("the mean metric of no inputs is not defined; give at least one")
        simulation = self._simulation(complex_name(dtype_of(sets, rows)))
        if rows is not None:
            return AutogradProducts(simulation, rows, sets, len(rows))
        key = simulation.dtype
        if key not in self._linear:
            self._linear[key] = constant_jacobian(simulation, sets)
        slopes = self._linear[key]
        return (
            AutogradProducts(simulation, None, sets, 1) if slopes is None else LinearProducts(simulation, sets, slopes)
        )

    def _simulation(self, dtype: str) -> Simulation:
        if dtype not in self._simulations:
            module = self.module
            options = Options(
                dtype,
                module.num_threads_forward,
                backward_threads=module.num_threads_backward,
                method="statevector",
            )
            parameters = [*module.encoding_parameters, *(p for s in module.variational_parameters for p in s)]
            self._simulations[dtype] = Simulation(module.circuit, parameters, State(), options)
        return self._simulations[dtype]


class Products(ABC):
    """Products of the mean metric with directions, at one point.

    Angles are functions of the parameters, A their Jacobian: the product is the mean of A^T g A v over the batch.
    """

    @abstractmethod
    def __call__(self, direction: Tensor) -> Tensor:
        """The product (parameters,) with a direction (parameters,)."""

    def matrix(self) -> Tensor | None:
        """The metric (parameters, parameters) if it is cheap, from one batch of all tangents; otherwise None."""
        return None


class AutogradProducts(Products):
    """Products for angles that are arbitrary functions of the parameters, differentiated by torch."""

    def __init__(self, simulation: Simulation, inputs: Tensor | None, sets: Sequence[Tensor], batch: int) -> None:
        self._engine, self._batch = simulation.engine, batch
        with torch.inference_mode(False), torch.enable_grad():
            self._weights = torch.cat([s.clone() for s in sets]).requires_grad_()
            self._angles, prepared = simulation.torch_arguments(inputs, self._weights, batch)
            if any(p.requires_grad for p in prepared):
                raise UnsupportedError(
                    "amplitudes that are trained have no metric here; load trained parameters through gate angles"
                )
            self._prepared = prepared
            # A^T u as a function of u, whose derivative along v is A v.
            self._dual = torch.zeros_like(self._angles, requires_grad=True)
            self._pulled = self._pull(self._dual, create_graph=True)

    def __call__(self, direction: Tensor) -> Tensor:
        if self._pulled is None:
            return torch.zeros_like(direction)
        product = self._engine.metric_product(self._angles.detach(), self._prepared, self.tangent(direction))
        found = self._pull(product / self._batch, create_graph=False)
        assert found is not None
        return found

    def tangent(self, direction: Tensor) -> Tensor:
        """The change (batch, angles) of the angles along a direction."""
        assert self._pulled is not None
        return torch.autograd.grad(self._pulled, self._dual, direction, retain_graph=True)[0].contiguous()

    @property
    def is_linear(self) -> bool:
        """Whether the Jacobian of the angles is constant."""
        if self._pulled is None:
            return False
        with torch.enable_grad():
            second = torch.autograd.grad(self._pulled.sum(), self._weights, allow_unused=True, retain_graph=True)[0]
        return second is None

    def _pull(self, cotangent: Tensor, *, create_graph: bool) -> Tensor | None:
        if not self._angles.requires_grad:
            return None
        return torch.autograd.grad(
            self._angles, self._weights, cotangent, create_graph=create_graph, retain_graph=True
        )[0]


def constant_jacobian(simulation: Simulation, sets: Sequence[Tensor]) -> Tensor | None:
    """The Jacobian (angles, parameters) of a circuit without inputs and with linear angles; otherwise None."""
    products = AutogradProducts(simulation, None, sets, 1)
    if not products.is_linear:
        return None
    columns = torch.eye(sum(s.numel() for s in sets), dtype=sets[0].dtype)
    return torch.stack([products.tangent(column)[0] for column in columns], dim=1)


class LinearProducts(Products):
    """Products for angles that are linear functions of the parameters, with Jacobian (angles, parameters)."""

    def __init__(self, simulation: Simulation, sets: Sequence[Tensor], jacobian: Tensor) -> None:
        self._engine, self._jacobian = simulation.engine, jacobian
        with torch.no_grad():
            self._angles, self._prepared = simulation.torch_arguments(None, torch.cat(list(sets)), 1)

    def __call__(self, direction: Tensor) -> Tensor:
        tangent = (self._jacobian @ direction)[None]
        return self._engine.metric_product(self._angles, self._prepared, tangent)[0] @ self._jacobian

    def matrix(self) -> Tensor | None:
        count = self._jacobian.shape[1]
        if count > _DENSE:
            return None
        angles = self._angles.expand(count, -1).contiguous()
        moved = self._engine.jvp(angles, self._prepared, self._jacobian.T.contiguous())  # (parameters, amplitudes)
        state = self._engine.forward(self._angles, self._prepared)[0][0]
        berry = moved @ state.conj()
        metric: Tensor = (moved @ moved.mH).real - torch.outer(berry, berry.conj()).real
        return metric


def metric_tensor(module: QuantumModule, inputs: Any = None) -> Tensor:
    """The Fubini-Study metric of a module's states with respect to all of its trained parameters.

    ``g_kl = Re(<d_k psi|d_l psi> - <d_k psi|psi><psi|d_l psi>)``, the real part of the quantum geometric tensor and a
    quarter of the quantum Fisher information (Stokes et al., Quantum 4, 269 (2020)), at the module's parameters. The
    dense matrix takes one product for each parameter; `NaturalGradient` does not need it.

    Args:
        module: a `QuantumModule`.
        inputs: (..., input_size), over which the metric is averaged; None if the circuit has none.

    Returns:
        A real symmetric tensor (parameters, parameters), in the order of ``module.variational_``.

    Raises:
        ParameterError: ``module`` is not a `QuantumModule`.
        ShapeError: inputs are missing, or have another number of features.
        UnsupportedError: trained parameters are amplitudes.

    Example:
        >>> from qiskit.circuit.library import real_amplitudes
        >>> from qtm import QuantumModule
        >>> from qtm.optim import metric_tensor
        >>> ansatz = real_amplitudes(2, reps=1)
        >>> module = QuantumModule(ansatz, None, ansatz.parameters, seed_init=0).double()
        >>> round(metric_tensor(module)[0, 0].item(), 6)
        0.25
    """
    products = StateGeometry(module).at(None if inputs is None else torch.as_tensor(inputs))
    count = module.num_trainable_parameters
    columns = torch.eye(count, dtype=module.variational_[0].dtype)
    found = torch.stack([products(column) for column in columns]) if count else columns
    return (found + found.T) / 2
