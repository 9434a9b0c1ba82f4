"""Outputs of one circuit on any sampler, from its shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.passmanager import BasePassManager
from qiskit.primitives import BaseSamplerV2, BitArray
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qtm._primitives.job_usage import Usage
from qtm._primitives.primitive_runner import PrimitiveRunner, epoch_of, logger, transpiled

# Attributes in which samplers keep their number of shots; the first that is set counts.
_SHOTS = (attrgetter("options.default_shots"), attrgetter("default_shots"))
_DEFAULT_SHOTS = 1024  # of Qiskit's samplers and of Aer's


def shots_of_sampler(sampler: Any) -> int:
    """Return the number of shots of PUBs that specify none."""
    for find in _SHOTS:
        try:
            shots = find(sampler)
        except AttributeError:
            continue
        if isinstance(shots, int) and shots > 0:
            return shots
    return _DEFAULT_SHOTS


class SamplerRunner(PrimitiveRunner):
    """Outputs of one circuit at many points, from any ``BaseSamplerV2``. A call is one job, of one PUB.

    Args:
        sampler: runs the jobs.
        circuit: measured into a register ``meas``.
        parameters: parameters to which the coordinates of a point are bound, in this order.
        num_outputs: outputs of a point.
        read: computes outputs (points, outputs) from outcomes and their relative frequencies (points, outcomes).
        is_isa: whether the circuit is already in the instructions of a device.
        pass_manager: transpiles the circuit, and again when its device was recalibrated.
        max_points: maximum number of points in one job; None for no limit.
    """

    def __init__(
        self,
        sampler: BaseSamplerV2,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        num_outputs: int,
        read: Callable[[Sequence[int], np.ndarray], np.ndarray],
        *,
        is_isa: bool = False,
        pass_manager: BasePassManager | None = None,
        max_points: int | None = None,
    ) -> None:
        super().__init__(sampler, parameters, max_points=max_points)
        self._num_outputs, self._outputs_of = num_outputs, read
        self._source, self._is_isa, self._pass_manager = circuit, is_isa, pass_manager
        self._lay_out()

    def _lay_out(self) -> None:
        self._epoch = epoch_of(self._pass_manager)
        if self._pass_manager is None:
            self._take(self._source, self._is_isa)
            return
        found = transpiled(self._source, self._pass_manager).copy()
        found.global_phase = 0  # it may contain parameters, which would need values
        self._take(found, is_isa=True)

    def _refresh(self) -> None:
        if self._epoch != epoch_of(self._pass_manager):
            self._lay_out()
            logger.info("the device was recalibrated: circuit %s was transpiled again", self._source.name)

    def __getstate__(self) -> dict[str, Any]:
        # Qiskit's preset pass managers do not pickle, and this one has done its work.
        return {**self.__dict__, "_pass_manager": None, "_epoch": 0}

    @property
    def num_outputs(self) -> int:
        return self._num_outputs

    @property
    def noise(self) -> float:
        return 1 / math.sqrt(shots_of_sampler(self.primitive))

    def _pubs(self, rows: np.ndarray) -> list[SamplerPub]:
        bindings = BindingsArray({self._bound: rows} if self._bound else {}, shape=(len(rows),))
        return [SamplerPub(self.circuit, bindings)]

    def _run(self, pubs: list[SamplerPub]) -> Any:
        return self.primitive.run(pubs)

    def _usage_of(self, pubs: list[SamplerPub]) -> Usage:
        if hasattr(self.primitive, "estimate_usage"):  # a service that reports its limits and its usage
            return self.primitive.estimate_usage(pubs)
        circuits = sum(pub.parameter_values.size for pub in pubs)
        return Usage(jobs=1, pubs=len(pubs), circuits=circuits, executions=circuits * shots_of_sampler(self.primitive))

    def _read(self, results: Any, pubs: list[SamplerPub]) -> tuple[np.ndarray, str | None]:
        try:
            shots = results[0].data.meas
        except (TypeError, AttributeError, IndexError) as error:
            return np.empty(0), f"it has no shots of the register 'meas' ({error})"
        if shots.shape != pubs[0].shape:
            return np.empty(0), f"its shots have shape {shots.shape}, expected {pubs[0].shape}: (points,)"
        if hasattr(results[0], "quasi_probabilities"):  # of a mitigated sampler
            quasi = results[0].quasi_probabilities("meas")
            return self._outputs_of(range(quasi.shape[-1]), quasi), None
        parts = [self._outputs_of(*_shares(shots[i])) for i in range(len(shots.array))]
        return np.concatenate(parts) if parts else np.zeros((0, self._num_outputs)), None


def _shares(shots: BitArray) -> tuple[list[int], np.ndarray]:
    """Outcomes of one point, and their relative frequencies (1, outcomes)."""
    rows, counts = np.unique(shots.array, axis=0, return_counts=True)  # (distinct, bytes), the lowest last
    return [int.from_bytes(row.tobytes()) for row in rows], counts[None] / shots.num_shots
