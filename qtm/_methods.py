"""Methods of differentiation by name: how a module gets its values and their derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseEstimatorV2
from torch import Tensor

from qtm._autograd import Method
from qtm._engine import Options
from qtm._errors import ParameterError
from qtm._observables import coerce_observables
from qtm._simulation import Simulation


@dataclass(frozen=True)
class MethodSettings:
    """What a module was asked for."""

    circuit: QuantumCircuit
    parameters: tuple[Parameter, ...]
    observables: Any
    estimator: BaseEstimatorV2 | None
    gradient: str | tuple[str, Mapping[str, Any]]
    threads_forward: int
    threads_backward: int
    executor: Executor | None
    pass_manager: BasePassManager | None

    def with_threads(self, forward: int, backward: int) -> MethodSettings:
        return replace(self, threads_forward=forward, threads_backward=backward)


class ReverseSweep:
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

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        return None if self.forward.initial is None else self.forward.initial.torch(inputs, weights)

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        # States can only be handed to a reverse sweep that deals the batch in the same way.
        values, kept = self.forward.engine.values(angles, initial, keep=keep and self.backward is self.forward)
        if not np.isfinite(values).all():
            self._refuse(angles)
        return values, kept

    def _refuse(self, angles: np.ndarray) -> None:
        for sample, number in np.argwhere(~np.isfinite(angles)):
            expression = self.forward.program.angles[number]
            raise ParameterError(
                f"the angle {expression} is {angles[sample, number]} in sample {sample}: "
                "an input or a trainable parameter in it is NaN or infinite, or it is not defined there"
            )
        raise ParameterError("an amplitude of the initial state is not finite: all inputs must be finite and not all zero")

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        engine = self.backward.engine
        return engine.vjp(angles, cotangent, initial, kept=memo, initial_gradient=by_initial)


METHODS: dict[str, Callable[..., Method]] = {"reverse": ReverseSweep}


def _is_exact(estimator: BaseEstimatorV2) -> bool:
    from qtm.primitives import FastEstimator

    return isinstance(estimator, FastEstimator)


def make_method(settings: MethodSettings, dtype: str) -> Method:
    """The method that the settings name, computing in ``dtype``.

    Raises:
        ParameterError: the gradient is unknown, or does not go with the estimator.
    """
    name, options = settings.gradient if isinstance(settings.gradient, tuple) else (settings.gradient, {})
    if name not in METHODS:
        raise ParameterError(f"unknown gradient {name!r}; use one of {', '.join(METHODS)}")
    if name == "reverse" and settings.estimator is not None and not _is_exact(settings.estimator):
        raise ParameterError(
            f"gradient='reverse' needs the state vector, which {type(settings.estimator).__name__} does not give; "
            "use gradient='param-shift' or 'spsa'"
        )
    return METHODS[name](settings, dtype, **options)
