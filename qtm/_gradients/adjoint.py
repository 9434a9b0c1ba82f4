"""Adjoint differentiation: exact values and derivatives from an engine of qtm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qtm._circuit.expressions import check_angles
from qtm._circuit.observables import coerce_observables
from qtm._engines.engine import Plan
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError
from qtm._gradients.settings import MethodSettings
from qtm._primitives.job_usage import Usage


class EngineMethod:
    """Values and vector-Jacobian products of a compiled simulation."""

    def __init__(self, simulation: Simulation, num_outputs: int) -> None:
        self.simulation, self.num_outputs = simulation, num_outputs

    def differentiating(self, by: tuple[bool, ...]) -> EngineMethod:
        return self

    @property
    def usage(self) -> Usage:
        return Usage()

    def preview(self, batch: int) -> Usage:
        return Usage()

    def plan(self, batch: int) -> Plan:
        return self.simulation.plan(batch)

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        return self.simulation.torch_arguments(inputs, weights, batch)

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        values, residuals = self.simulation.engine.forward(angles, prepared, keep=keep)
        if not torch.isfinite(values).all():
            self._refuse(angles)
        return values, residuals

    def _refuse(self, angles: Tensor) -> None:
        check_angles(angles.detach().cpu().numpy(), self.simulation.flat.angles)
        raise ParameterError(
            "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
        )

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return self.simulation.engine.vjp(angles, prepared, cotangent, residuals, by_prepared=by_prepared)


def adjoint_method(settings: MethodSettings, dtype: str) -> EngineMethod:
    """Exact expectation values and their derivatives from the engine that the settings name."""
    observables = coerce_observables(settings.observables, settings.circuit.num_qubits)
    options = Options(
        dtype,
        settings.threads_forward,
        settings.executor,
        backward_threads=settings.threads_backward,
        method=settings.method,
    )
    simulation = Simulation(settings.circuit, settings.parameters, Expectation(observables), options)
    return EngineMethod(simulation, len(observables))
