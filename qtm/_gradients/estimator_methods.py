"""Gradient methods on any estimator: parameter shift and SPSA."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BaseEstimatorV2
from torch import Tensor

from qtm._arguments import checked_int, checked_number, checked_seed
from qtm._circuit.observables import coerce_observables
from qtm._circuit.shift_template import template
from qtm._engines.outputs import Probabilities
from qtm._errors import ParameterError
from qtm._gradients.gradient_rules import Rule, Spsa, balanced_epsilon
from qtm._gradients.primitive_method import PrimitiveMethod, ShiftMethod
from qtm._gradients.settings import MethodSettings
from qtm._primitives.aer_circuits import noisy_gates
from qtm._primitives.estimator_runner import EstimatorRunner
from qtm._primitives.primitive_runner import PrimitiveRunner
from qtm._primitives.sampler_runner import SamplerRunner


class ParameterShiftMethod(ShiftMethod):
    """Exact derivatives with respect to gate angles, on an estimator or a sampler."""

    def __init__(
        self, settings: MethodSettings, *, precision: float | None = None, max_points: int | None = None
    ) -> None:
        made = template(settings.circuit, noisy_gates(settings.primitive))
        runner = _runner(settings, made.circuit, made.slots, precision, max_points)
        super().__init__(made, settings.parameters, runner, settings.group_sizes)


class PointMethod(PrimitiveMethod):
    """Derivatives with respect to a circuit's parameters, from an estimator's values at the points of a rule.

    Base class of gradient methods. A subclass defines two methods: ``points_per_sample()``, the number of points, and
    ``rule(at)``, the `Rule` at parameter values ``at`` (batch, parameters) in radians. ``self.wanted``, (parameters,)
    bool, marks the parameters whose derivatives are requested. The keyword-only arguments of its constructor are its
    options.

    Args:
        settings: the configuration of the module, passed on to this class.
        precision: standard deviation requested from the estimator; None for the estimator's default.
        max_points: maximum number of points in one job; None for no limit.
    """

    def __init__(
        self, settings: MethodSettings, *, precision: float | None = None, max_points: int | None = None
    ) -> None:
        circuit = settings.circuit.remove_final_measurements(inplace=False)
        runner = _runner(settings, circuit, settings.parameters, precision, max_points)
        super().__init__(runner, settings.parameters, settings.group_sizes)

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        """Parameter values (batch, parameters): the inputs, then the weights."""
        rows = weights.expand(batch, -1)
        return rows if inputs is None else torch.cat([inputs, rows], dim=1)

    def _depends_on(self, parameters: np.ndarray) -> np.ndarray:
        return np.isin(np.arange(len(self._labels)), parameters)


class SpsaMethod(PointMethod):
    """Estimated derivatives by the circuit's parameters.

    The signs follow torch's random state; with a ``seed``, only the seed and the values, so that a resumed run draws
    the same signs as the interrupted one.
    """

    def __init__(
        self,
        settings: MethodSettings,
        *,
        repeats: int = 1,
        epsilon: float | None = None,
        seed: int | None = None,
        precision: float | None = None,
        max_points: int | None = None,
    ) -> None:
        repeats = checked_int(repeats, "repeats", "give the directions to average over", least=1)
        if epsilon is not None:
            epsilon = checked_number(epsilon, "epsilon", "give a distance in radians, such as 0.1", above=0)
        if seed is not None:
            seed = checked_seed(seed, "seed")
        super().__init__(settings, precision=precision, max_points=max_points)
        self._repeats, self._epsilon, self._seed = repeats, epsilon, seed

    def points_per_sample(self) -> int:
        return 2 * self._repeats if self.wanted.any() else 0

    def rule(self, at: np.ndarray) -> Rule:
        epsilon = self._epsilon or balanced_epsilon(self.evaluation.noise, int(self.wanted.sum()))
        return Spsa.draw(self._rng(at), len(at), self._repeats, self.wanted, epsilon)

    def _rng(self, at: np.ndarray) -> np.random.Generator:
        if self._seed is None:
            return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        content = sha256(repr(self._seed).encode() + at.tobytes()).digest()
        return np.random.default_rng(int.from_bytes(content, "little"))


def _runner(
    settings: MethodSettings,
    circuit: QuantumCircuit,
    coordinates: Sequence[Parameter],
    precision: float | None,
    max_points: int | None,
) -> PrimitiveRunner:
    if settings.sampler is not None:
        return _sampler_runner(settings, circuit, coordinates, precision, max_points)
    estimator: Any = _exact_estimator(settings) if settings.estimator is None else settings.estimator
    return EstimatorRunner(
        estimator,
        circuit,
        coordinates,
        coerce_observables(settings.observables, settings.circuit.num_qubits),
        pass_manager=settings.pass_manager,
        precision=precision,
        max_points=max_points,
    )


def _sampler_runner(
    settings: MethodSettings,
    circuit: QuantumCircuit,
    coordinates: Sequence[Parameter],
    precision: float | None,
    max_points: int | None,
) -> SamplerRunner:
    """Probabilities (points, 2**qubits) of the qubits of the output, from shots."""
    if precision is not None:
        raise ParameterError("precision= is an option for estimators; a sampler has a number of shots of its own")
    assert isinstance(settings.output, Probabilities) and settings.sampler is not None
    qubits = settings.output.qubits
    measured, size = circuit.copy(), 1 << len(qubits)
    measured.add_register(ClassicalRegister(len(qubits), "meas"))
    measured.measure(qubits, measured.clbits[-len(qubits) :])
    return SamplerRunner(
        settings.sampler, measured, coordinates, size, partial(_probabilities, size),
        pass_manager=settings.pass_manager, max_points=max_points,
    )  # fmt: skip


def _probabilities(size: int, outcomes: Sequence[int], shares: np.ndarray) -> np.ndarray:
    """Probabilities of all outcomes (points, size) from those of some (points, outcomes)."""
    found = np.zeros((len(shares), size))
    found[:, list(outcomes)] = shares
    return found


def _exact_estimator(settings: MethodSettings) -> BaseEstimatorV2:
    from qtm.primitives import FastEstimator

    return FastEstimator(num_threads=settings.threads_forward, executor=settings.executor)
