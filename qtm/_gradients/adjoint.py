"""Adjoint differentiation: exact values and derivatives from an engine of qtm."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from qtm._circuit.expressions import check_angles
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError
from qtm._gradients.settings import MethodSettings
from qtm._primitives.job_usage import Usage


class AdjointMethod:
    """Exact values and derivatives from qtm's own simulator (DESIGN 4)."""

    def __init__(self, settings: MethodSettings, dtype: str) -> None:
        observables = coerce_observables(settings.observables, settings.circuit.num_qubits)
        options = Options(dtype, settings.threads_forward, settings.executor)
        self.forward = Simulation(settings.circuit, settings.parameters, observables, options)
        backward = Options(dtype, settings.threads_backward, settings.executor)
        same = settings.threads_forward == settings.threads_backward
        self.backward = self.forward if same else self.forward.with_options(backward)
        self.num_observables = len(observables)
        self.parameters = settings.parameters

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        return self.forward.angles.torch(inputs, weights, batch)

    def differentiating(self, by: tuple[bool, ...]) -> AdjointMethod:
        return self

    @property
    def usage(self) -> Usage:
        return Usage()

    def preview(self, batch: int) -> Usage:
        return Usage()

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        return None if self.forward.initial is None else self.forward.initial.torch(inputs, weights)

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        check_angles(angles, self.forward.program.angles)
        # States can only be handed to a reverse sweep that deals the batch in the same way.
        values, kept = self.forward.engine.values(angles, initial, keep=keep and self.backward is self.forward)
        if not np.isfinite(values).all():
            raise ParameterError(
                "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
            )
        return values, kept

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        engine = self.backward.engine
        return engine.vjp(angles, cotangent, initial, kept=memo, initial_gradient=by_initial)
