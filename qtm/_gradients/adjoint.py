"""Adjoint differentiation: exact values and derivatives from an engine of qtm."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from qtm._circuit.expressions import check_angles
from qtm._circuit.observables import coerce_observables
from qtm._engines.options import Options, real_dtype
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError
from qtm._gradients.settings import MethodSettings
from qtm._primitives.job_usage import Usage
from qtm.primitives import FastEstimator


class AdjointMethod:
    """Exact values and derivatives from qtm's own simulator (DESIGN 4)."""

    def __init__(self, settings: MethodSettings, dtype: str) -> None:
        observables = coerce_observables(settings.observables, settings.circuit.num_qubits)
        self._own = settings.estimator if isinstance(settings.estimator, FastEstimator) else None
        options = _options(settings, dtype, settings.threads_forward)
        self._real = real_dtype(options.dtype)
        self.forward = Simulation(settings.circuit, settings.parameters, observables, options)
        backward = _options(settings, dtype, settings.threads_backward)
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
        # States can only be handed to a reverse sweep that deals the batch in the same way.
        at, start = (None if x is None else x.astype(self._real, copy=False) for x in (angles, initial))
        values, kept = self.forward.engine.values(at, start, keep=keep and self.backward is self.forward)
        if not np.isfinite(values).all():
            self._refuse(angles)
        if self._own is not None and self._own.default_precision:
            rng = np.random.default_rng(self._own.seed)  # as `FastEstimator` itself draws it
            values = np.asarray(rng.normal(values, self._own.default_precision))
        return values.astype(angles.dtype, copy=False), kept

    def _refuse(self, angles: np.ndarray) -> None:
        check_angles(angles, self.forward.program.angles)
        raise ParameterError(
            "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
        )

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        engine = self.backward.engine
        dtype, real = angles.dtype, self._real
        start = None if initial is None else initial.astype(real, copy=False)
        by_angles, by_start = engine.vjp(
            angles.astype(real, copy=False),
            cotangent.astype(real, copy=False),
            start,
            kept=memo,
            initial_gradient=by_initial,
        )
        return by_angles.astype(dtype, copy=False), None if by_start is None else by_start.astype(dtype, copy=False)


def _options(settings: MethodSettings, dtype: str, num_threads: int) -> Options:
    """What the module was given and, where its estimator is a `FastEstimator`, the options of that one."""
    if not isinstance(settings.estimator, FastEstimator):
        return Options(dtype, num_threads, settings.executor)
    own = settings.estimator.options
    return Options(own.dtype, num_threads or own.num_threads, settings.executor or own.executor)
