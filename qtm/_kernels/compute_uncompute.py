"""Squared overlaps of states on any sampler: prepare one state, uncompute the other, and count zeros.

``|<phi(y)|phi(x)>|^2`` is the probability of measuring 0 on all qubits after U(x) and the inverse of U(y) (Havlicek et
al., Nature 567, 209 (2019)). A pair of samples is one point of one circuit, whose gate angles are free parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.exceptions import CircuitError as QiskitCircuitError
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseSamplerV2
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from torch import Tensor

from qtm._circuit.expressions import check_angles, compile_angles
from qtm._circuit.shift_template import template
from qtm._errors import CircuitError
from qtm._gradients.gradient_rules import ParameterShift
from qtm._gradients.method import FirstDerivatives
from qtm._hardware.job_splitting import Limits
from qtm._kernels.progress import Tick, no_tick
from qtm._primitives.job_usage import Usage
from qtm._primitives.primitive_runner import PrimitiveRunner, epoch_of, logger, transpiled

_SHOTS = 4096  # the default of IBM's service, if neither the kernel nor the sampler specifies shots


def overlap_circuit(
    feature_map: QuantumCircuit, features: Sequence[Parameter], weights: Sequence[Parameter]
) -> tuple[QuantumCircuit, list[Parameter]]:
    """The circuit U(x), then the inverse of U(y), and its parameters: x, y, weights.

    Raises:
        CircuitError: the feature map has no inverse.
    """
    map_ = feature_map.remove_final_measurements(inplace=False)
    x, y = ParameterVector("x left", len(features)), ParameterVector("x right", len(features))
    try:
        left, right = (map_.assign_parameters(dict(zip(features, new, strict=True))) for new in (x, y))
        circuit = left.compose(right.inverse())
    except QiskitCircuitError as error:
        raise CircuitError(
            f"feature map {feature_map.name!r} has no inverse ({error}), which a sampler needs; use gates only, or the "
            "exact simulator"
        ) from error
    return circuit, [*x, *y, *weights]


def shots_of(sampler: Any, shots: int | None) -> int:
    """Shots of a point: as requested, or the sampler's default."""
    options = getattr(sampler, "options", None)
    for found in (shots, getattr(sampler, "default_shots", None), getattr(options, "default_shots", None)):
        if isinstance(found, int | np.integer) and found > 0:
            return int(found)
    return _SHOTS


class ZerosRunner(PrimitiveRunner):
    """The fraction of all-zero outcomes, for one circuit at many points, from any ``BaseSamplerV2``.

    Args:
        sampler: runs the jobs.
        circuit: with measurements of all qubits into the register ``meas``.
        parameters: parameters to which the coordinates of a point are bound, in this order.
        shots: shots of a point; None for the sampler's default.
        max_points: maximum number of points in a job; also limited by the executions that a job may have.
        pass_manager: transpiles the circuit, once, in the constructor.
    """

    def __init__(
        self,
        sampler: BaseSamplerV2,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        *,
        shots: int | None,
        max_points: int | None,
        pass_manager: BasePassManager | None,
    ) -> None:
        limit = Limits().executions
        assert limit is not None
        most = max(limit // shots_of(sampler, shots), 1)
        super().__init__(sampler, parameters, max_points=most if max_points is None else min(max_points, most))
        self.shots = shots
        self.tick: Tick = no_tick
        self._source, self._pass_manager = circuit, pass_manager
        self._lay_out()

    def _lay_out(self) -> None:
        self._epoch = epoch_of(self._pass_manager)
        self._take(_transpiled(self._source, self._pass_manager), is_isa=self._pass_manager is not None)

    def _refresh(self) -> None:
        if self._epoch != epoch_of(self._pass_manager):
            self._lay_out()
            logger.info("the device was recalibrated: circuit %s was transpiled again", self._source.name)

    def __getstate__(self) -> dict[str, Any]:
        # Qiskit's preset pass managers do not pickle, and this one has done its work.
        return {**self.__dict__, "_pass_manager": None, "_epoch": 0}

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def noise(self) -> float:
        return 0.5 / math.sqrt(shots_of(self.primitive, self.shots))

    def _pubs(self, rows: np.ndarray) -> list[SamplerPub]:
        bindings = BindingsArray({self._bound: rows} if self._bound else {}, shape=(len(rows),))
        return [SamplerPub(self.circuit, bindings, self.shots)]

    def _run(self, pubs: list[SamplerPub]) -> Any:
        return self.primitive.run(pubs)

    def _usage_of(self, pubs: list[SamplerPub]) -> Usage:
        if hasattr(self.primitive, "estimate_usage"):  # a service that reports its limits and its usage
            return self.primitive.estimate_usage(pubs)
        circuits = sum(pub.parameter_values.size for pub in pubs)
        return Usage(1, len(pubs), circuits, circuits * shots_of(self.primitive, self.shots))

    def _read(self, results: Any, pubs: list[SamplerPub]) -> tuple[np.ndarray, str | None]:
        try:
            bits = np.asarray(results[0].data.meas.array)  # (points, shots, bytes)
        except (TypeError, AttributeError, IndexError) as error:
            return np.empty(0), f"it has no bits of the register 'meas' ({error})"
        points = pubs[0].parameter_values.size
        if bits.ndim != 3 or len(bits) != points or not bits.shape[1]:
            return np.empty(0), f"its bits have shape {bits.shape}; expected ({points}, shots, bytes)"
        if hasattr(results[0], "quasi_probability"):  # of a mitigated sampler
            return results[0].quasi_probability(0, "meas")[:, None], None
        return (~bits.any(-1)).mean(-1)[:, None], None

    def _collect(self, job: Any, pubs: list[SamplerPub]) -> np.ndarray:
        values = super()._collect(job, pubs)
        self.tick(len(values))
        return values


def _transpiled(circuit: QuantumCircuit, pass_manager: BasePassManager | None) -> QuantumCircuit:
    if pass_manager is None:
        return circuit
    found = transpiled(circuit, pass_manager)
    found.global_phase = 0  # it may contain parameters, which would need values
    return found


class SampledOverlap(FirstDerivatives):
    """Squared overlaps of pairs as a gradient method: values from a sampler, derivatives by parameter shifts.

    Inputs (pairs, 2 * features) are the two samples of each pair, concatenated.
    """

    num_outputs = 1

    def __init__(
        self,
        feature_map: QuantumCircuit,
        features: Sequence[Parameter],
        weights: Sequence[Parameter],
        make_runner: Callable[[QuantumCircuit, Sequence[Parameter]], ZerosRunner],
    ) -> None:
        circuit, parameters = overlap_circuit(feature_map, features, weights)
        made = template(circuit)
        measured = made.circuit.copy()
        measured.measure_all()
        self.runner = make_runner(measured, made.slots)
        self._map, self._shifts, self._labels = compile_angles(made.angles, parameters), made.shifts, made.angles
        self._groups = [range(2 * len(features)), range(2 * len(features), len(parameters))]
        self._wanted = np.ones(len(made.angles), dtype=bool)  # (angles,)

    def differentiating(self, by: tuple[bool, ...]) -> SampledOverlap:
        """The same, with shifts only of angles that depend on the inputs or weights selected by ``by``."""
        view = object.__new__(SampledOverlap)
        view.__dict__ = dict(self.__dict__)
        chosen = [k for group, wanted in zip(self._groups, by, strict=True) if wanted for k in group]
        view._wanted = self._map.depends_on(chosen)
        return view

    @property
    def usage(self) -> Usage:
        """Usage of the sampler."""
        return self.runner.usage

    def preview(self, batch: int, steps: int = 1) -> Usage:
        """Forecast usage for training steps: values of a number of pairs and their derivative."""
        return (self.runner.preview(batch) + self.runner.preview(batch * self._rule.count)) * steps

    def arguments(self, inputs: Tensor | None, weights: Tensor, batch: int) -> tuple[Tensor, Sequence[Tensor]]:
        """Gate angles (pairs, angles)."""
        return self._map.torch(inputs, weights, batch), ()

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        """Squared overlaps (pairs, 1)."""
        at = angles.detach().contiguous().numpy()
        check_angles(at, self._labels)
        return torch.from_numpy(self.runner.values(at).astype(at.dtype)), None

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Derivatives (pairs, angles), from the values at shifted angles."""
        at = angles.detach().contiguous().numpy().astype(float)
        rule = self._rule
        gradient = rule.combine(self.runner.values(rule.points(at)), cotangent.detach().numpy().astype(float))
        return torch.from_numpy(gradient).to(angles.dtype), None

    @property
    def _rule(self) -> ParameterShift:
        return ParameterShift(self._shifts, self._wanted)
