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

from qtm._circuit.expressions import LARGEST_ANGLE, check_angles
from qtm._circuit.observables import Observable, coerce_observables
from qtm._engines.engine import Plan
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities, Samples, State
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError, UnsupportedError
from qtm._gradients.fused import FusedMethod
from qtm._gradients.settings import MethodSettings
from qtm._primitives.ideal_primitives import noise_of
from qtm._primitives.job_usage import Usage
from qtm.primitives import FastEstimator, shots_for


class EngineMethod:
    """Values and vector-Jacobian products of a compiled simulation."""

    def __init__(self, simulation: Simulation, num_outputs: int) -> None:
        self.simulation, self.num_outputs = simulation, num_outputs
        self.fused: FusedMethod | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether equal calls give equal values: nothing is drawn at random."""
        return self.simulation.is_exact

    def differentiating(self, by: tuple[bool, ...]) -> EngineMethod:
        return self

    @property
    def usage(self) -> Usage:
        return Usage()

    def preview(self, batch: int, steps: int = 1) -> Usage:
        return Usage()

    def plan(self, batch: int) -> Plan:
        return self.simulation.plan(batch)

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        return self.simulation.torch_arguments(inputs, weights, batch)

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        self._check_angles(angles.detach())
        values, residuals = self.simulation.engine.forward(angles, prepared, keep=keep)
        # Finite angles give finite values.
        if prepared and self._is_checked(values) and not self._are_finite(values):
            raise ParameterError(
                "an amplitude of the initial state is not finite: all inputs must be finite and not all zero"
            )
        return values, residuals

    def _check_angles(self, angles: Tensor) -> None:
        """Raise an error for invalid angles. On a GPU, the CPU waits for one number of the angles."""
        if angles.is_cpu or (self._is_checked(angles) and not bool((angles.abs() <= LARGEST_ANGLE).all())):
            check_angles(angles.cpu().numpy(), self.simulation.flat.angles)

    def _is_checked(self, tensor: Tensor) -> bool:
        """Whether the CPU checks angles: on a GPU it does not wait for an engine that gives NaN instead."""
        return tensor.is_cpu or torch.is_anomaly_enabled() or not self.simulation.engine.gives_nan

    def _are_finite(self, values: Tensor) -> bool:
        return bool(torch.isfinite(values).all())

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return self.simulation.engine.vjp(angles, prepared, cotangent, residuals, by_prepared=by_prepared)

    def jvp(
        self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor, prepared_tangents: Sequence[Tensor]
    ) -> Tensor:
        return self.simulation.engine.jvp(angles, prepared, tangent, prepared_tangents)

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor],
        by_prepared: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        arguments = angles, prepared, cotangent, tangent, prepared_tangents
        return self.simulation.engine.second(*arguments, by_prepared=by_prepared)


class IdealEstimatorMethod(EngineMethod):
    """The values of a `FastEstimator`, in its dtype and with its noise; derivatives are exact."""

    def __init__(self, simulation: Simulation, num_outputs: int, estimator: FastEstimator) -> None:
        super().__init__(simulation, num_outputs)
        self._estimator = estimator
        self._real = torch.float32 if estimator.options.dtype == "complex64" else torch.float64

    @property
    def is_repeatable(self) -> bool:
        return super().is_repeatable and not self._estimator.default_precision

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        at, given = angles.to(self._real), self._cast(prepared)
        values, residuals = super().forward(at, given, keep)
        if precision := self._estimator.default_precision:
            rng = np.random.default_rng(self._estimator.seed)  # the same draw as in `FastEstimator`
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

    def jvp(
        self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor, prepared_tangents: Sequence[Tensor]
    ) -> Tensor:
        point = angles.to(self._real), self._cast(prepared)
        found = super().jvp(*point, tangent.to(self._real), self._cast(prepared_tangents))
        return found.to(angles.dtype)

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor],
        by_prepared: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        point = angles.to(self._real), self._cast(prepared), cotangent.to(self._real)
        along = tangent.to(self._real), self._cast(prepared_tangents)
        by_angles, by_amplitudes = super().second(*point, *along, by_prepared)
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


class StateMethod(EngineMethod):
    """States, including the global phase, which may depend on the parameters."""

    def _are_finite(self, values: Tensor) -> bool:
        # Test a sum, because testing each of many complex numbers takes as long as a sweep; amplitudes do not overflow.
        return bool(torch.isfinite(torch.view_as_real(values).sum()))

    def with_phase(self, states: Tensor, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor:
        """The states (batch, amplitudes) of the circuit from those of its gates."""
        return self.simulation.with_phase(states, inputs, sets)


def adjoint_method(settings: MethodSettings, dtype: str) -> EngineMethod:
    """Exact outputs and their derivatives from the engine in the settings."""
    if settings.output is not None:
        return _other_output(settings, settings.output, dtype)
    circuit = settings.circuit
    observables = coerce_observables(settings.observables, circuit.num_qubits)
    own = settings.estimator if isinstance(settings.estimator, FastEstimator) else None
    options = _options(settings, dtype, own)
    if options.noise is not None and settings.pass_manager is not None:
        circuit = settings.pass_manager.run(circuit)
        observables = coerce_observables([_laid_out(o, circuit) for o in observables], circuit.num_qubits)
    simulation = Simulation(circuit, settings.parameters, Expectation(observables), options)
    if own is None or (own.options.dtype == dtype and not own.default_precision):
        method = EngineMethod(simulation, len(observables))
        method.fused = _fused(settings, simulation)
        return method
    return IdealEstimatorMethod(simulation, len(observables), own)


def _other_output(settings: MethodSettings, output: Probabilities | State, dtype: str) -> EngineMethod:
    """Probabilities or states."""
    simulation = simulation_of(settings, output, dtype)
    if isinstance(output, State):
        method: EngineMethod = StateMethod(simulation, 1 << settings.circuit.num_qubits)
    else:
        method = EngineMethod(simulation, 1 << len(output.qubits))
    method.fused = _fused(settings, simulation)
    return method


def _fused(settings: MethodSettings, simulation: Simulation) -> FusedMethod | None:
    """The fused path to values, on the CPU only."""
    return FusedMethod.of(simulation) if settings.device == "cpu" else None


def simulation_of(settings: MethodSettings, output: Probabilities | Samples | State, dtype: str) -> Simulation:
    """The simulation of an output of the settings' circuit.

    Raises:
        UnsupportedError: an estimator replaces the simulator and gives expectation values only.
    """
    own = settings.estimator if isinstance(settings.estimator, FastEstimator) else None
    if settings.sampler is not None:
        raise UnsupportedError(
            f"{type(output).__name__.lower()} come from qtm's own simulator, and this module runs on a "
            f"{type(settings.sampler).__name__}; run the circuit on the sampler itself"
        )
    if settings.estimator is not None and (own is None or own.default_precision):
        raise UnsupportedError(
            f"{type(output).__name__.lower()} come from qtm's own simulator, and {type(settings.estimator).__name__}"
            f"{' with a default_precision' if own else ''} gives expectation values; leave estimator= out"
        )
    options, circuit = replace(_options(settings, dtype, own), dtype=dtype), settings.circuit
    if options.noise is not None and settings.pass_manager is not None:
        circuit = settings.pass_manager.run(circuit)
        if circuit.layout is not None and not isinstance(output, State):
            places = circuit.layout.final_index_layout()
            output = replace(output, qubits=tuple(places[q] for q in output.qubits))
    return Simulation(circuit, settings.parameters, output, options)


def _options(settings: MethodSettings, dtype: str, own: FastEstimator | None) -> Options:
    """Options of the module, or of its estimator if that is a `FastEstimator`."""
    noise = noise_of(settings.estimator) if settings.noise is None else settings.noise
    options = Options(
        dtype,
        settings.threads_forward,
        settings.executor,
        backward_threads=settings.threads_backward,
        method=settings.method,
        noise=noise,
        device=settings.device,
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
