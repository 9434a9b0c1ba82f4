"""Adjoint differentiation: exact values and derivatives from an engine of qtm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qtm._circuit.expressions import check_angles
from qtm._circuit.observables import Observable, coerce_observables
from qtm._engines.engine import Plan
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError
from qtm._gradients.settings import MethodSettings
from qtm._primitives.ideal_primitives import noise_of
from qtm._primitives.job_usage import Usage
from qtm.primitives import FastEstimator, shots_for


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
        check_angles(angles.detach().cpu().numpy(), self.simulation.flat.angles)
        values, residuals = self.simulation.engine.forward(angles, prepared, keep=keep)
        if not torch.isfinite(values).all():
            raise ParameterError(
                "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
            )
        return values, residuals

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return self.simulation.engine.vjp(angles, prepared, cotangent, residuals, by_prepared=by_prepared)


class IdealEstimatorMethod(EngineMethod):
    """The values of a `FastEstimator`, in its dtype and with its noise; derivatives are exact."""

    def __init__(self, simulation: Simulation, num_outputs: int, estimator: FastEstimator) -> None:
        super().__init__(simulation, num_outputs)
        self._estimator = estimator
        self._real = torch.float32 if estimator.options.dtype == "complex64" else torch.float64

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        at, given = angles.to(self._real), self._cast(prepared)
        values, residuals = super().forward(at, given, keep)
        if precision := self._estimator.default_precision:
            rng = np.random.default_rng(self._estimator.seed)  # as `FastEstimator` itself draws it
            if self._estimator.sampling == "fixed":
                values = torch.from_numpy(np.asarray(rng.normal(values.numpy(), precision)))
            else:
                shots = self.simulation.shots(self._estimator.sampling)
                values = torch.from_numpy(shots.estimates(at.detach(), given, shots_for(precision), rng)[0])
        return values.to(angles.dtype), residuals

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        arguments = angles.to(self._real), self._cast(prepared), cotangent.to(self._real)
        by_angles, by_amplitudes = super().vjp(*arguments, residuals, by_prepared)
        if by_amplitudes is not None:
            by_amplitudes = tuple(b.to(p.dtype) for b, p in zip(by_amplitudes, prepared, strict=True))
        return by_angles.to(angles.dtype), by_amplitudes

    def _cast(self, prepared: Sequence[Tensor]) -> list[Tensor]:
        kind = torch.complex64 if self._real == torch.float32 else torch.complex128
        return [p.to(kind) for p in prepared]


def _laid_out(observable: Observable, circuit: QuantumCircuit) -> SparsePauliOp:
    """An observable on the physical qubits of a transpiled circuit."""
    labels = observable.labels() or ["I" * observable.num_qubits]
    coefficients = observable.coeffs if observable.num_terms else [0.0]
    return SparsePauliOp(labels, coefficients).apply_layout(circuit.layout, circuit.num_qubits)


def adjoint_method(settings: MethodSettings, dtype: str) -> EngineMethod:
    """Exact expectation values and their derivatives from the engine that the settings name."""
    circuit = settings.circuit
    observables = coerce_observables(settings.observables, circuit.num_qubits)
    own = settings.estimator if isinstance(settings.estimator, FastEstimator) else None
    options = _options(settings, dtype, own)
    if options.noise is not None and settings.pass_manager is not None:
        circuit = settings.pass_manager.run(circuit)
        observables = coerce_observables([_laid_out(o, circuit) for o in observables], circuit.num_qubits)
    simulation = Simulation(circuit, settings.parameters, Expectation(observables), options)
    if own is None:
        return EngineMethod(simulation, len(observables))
    return IdealEstimatorMethod(simulation, len(observables), own)


def _options(settings: MethodSettings, dtype: str, own: FastEstimator | None) -> Options:
    """What the module was given and, where its estimator is a `FastEstimator`, the options of that one."""
    noise = noise_of(settings.estimator) if settings.noise is None else settings.noise
    options = Options(
        dtype,
        settings.threads_forward,
        settings.executor,
        backward_threads=settings.threads_backward,
        method=settings.method,
        noise=noise,
    )
    if own is None:
        return options
    given = own.options
    return replace(
        options,
        dtype=given.dtype,
        num_threads=options.num_threads or given.num_threads,
        backward_threads=options.backward_threads or given.num_threads,
        executor=options.executor or given.executor,
        method=given.method if settings.method == "auto" else settings.method,
    )
