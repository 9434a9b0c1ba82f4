"""The map from inputs and parameter sets to values in compiled code, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from qtm._circuit.expressions import LARGEST_ANGLE, check_angles
from qtm._engines.engine import ArrayBatch
from qtm._engines.monomial_angles import MonomialAngles
from qtm._engines.simulation import Simulation

_KEPT = 64  # number of batch sizes whose fast path is cached


class Residuals(NamedTuple):
    """Residuals of a forward pass for one `FusedMethod.vjp`."""

    angle_map: MonomialAngles
    inputs: np.ndarray | None  # (batch, inputs)
    weights: np.ndarray  # (weights,), of all sets
    scaled: np.ndarray  # (terms,), see `MonomialAngles.angles`
    angles: np.ndarray  # (batch, angles)
    batch: ArrayBatch | None  # owner of the states; None: the engine
    states: Any  # residuals of either


class Moving(NamedTuple):
    """Tangents of what the residuals hold."""

    inputs: np.ndarray | None  # (batch, inputs); None: they are still
    weights: np.ndarray  # (weights,)
    scaled: np.ndarray  # (terms,)
    angles: np.ndarray  # (batch, angles)


class FusedMethod:
    """Values and derivatives with respect to inputs and parameter sets, if all angles are sums of monomials of them.

    It computes what the angle map of torch and `EngineMethod` compute one after the other, and takes no prepared
    amplitudes. Of second derivatives it has what concerns the angle map.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._maps: dict[int, MonomialAngles] = {}
        self._plans: dict[tuple[int, int], tuple[MonomialAngles, ArrayBatch | None]] = {}

    @staticmethod
    def of(simulation: Simulation) -> FusedMethod | None:
        """The method for a simulation, or None if its angles are not sums of monomials, or inputs are amplitudes."""
        fits = MonomialAngles.fits(simulation.angles) and not simulation.preparations
        return FusedMethod(simulation) if fits else None

    def forward(
        self, inputs: Tensor | None, sets: Sequence[Tensor], batch: int, keep: bool
    ) -> tuple[Tensor, Residuals]:
        """Values (batch, outputs) of inputs (batch, inputs) and parameter sets, each (parameters,).

        Raises:
            ParameterError: an angle is not finite, or too large.
        """
        rows = None if inputs is None else _array(inputs)
        weights = _joined(sets)
        size = 0 if rows is None else rows.shape[1], batch
        angle_map, small = self._plans.get(size) or self._plan(*size)
        angles, scaled, squares = angle_map.angles(rows, weights, batch)
        if not squares <= LARGEST_ANGLE:  # also if it is NaN
            check_angles(angles, self._simulation.flat.angles)
        if small is None:
            values, states = self._simulation.engine.forward(from_numpy(angles), (), keep=keep)
        else:
            found, states = small.forward(angles, keep)
            values = from_numpy(found)
        return values, Residuals(angle_map, rows, weights, scaled, angles, small, states)

    def vjp(
        self, residuals: Residuals, cotangent: Tensor, by_inputs: bool, sets: Sequence[Tensor]
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Derivatives by the inputs (batch, inputs), if requested, and by each set; cotangent (batch, outputs)."""
        return self.pull_back(residuals, self.by_angles(residuals, cotangent), by_inputs, sets)

    def by_angles(self, residuals: Residuals, cotangent: Tensor) -> np.ndarray:
        """Derivatives by the angles (batch, angles); consumes the states."""
        if residuals.batch is not None:
            return residuals.batch.vjp(residuals.angles, _array(cotangent), residuals.states)
        angles = from_numpy(residuals.angles)
        return _array(self._simulation.engine.vjp(angles, (), cotangent, residuals.states)[0])

    def pull_back(
        self, residuals: Residuals, by_angles: np.ndarray, by_inputs: bool, sets: Sequence[Tensor]
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Derivatives by the inputs (batch, inputs), if requested, and by each set from those by the angles."""
        angle_map, inputs, weights, scaled, *_ = residuals
        return _by_parameters(*angle_map.pull_back(inputs, weights, scaled, by_angles, by_inputs), by_inputs, sets)

    def push_forward(self, residuals: Residuals, inputs: Tensor | None, sets: Sequence[Tensor]) -> Moving:
        """The tangents of the angles where inputs, unless None, and sets have these."""
        angle_map, rows, weights, scaled, angles, *_ = residuals
        along = None if inputs is None else _array(inputs), _joined(sets)
        return Moving(*along, *angle_map.push_forward(rows, weights, scaled, along, len(angles)))

    def pull_back_tangent(
        self,
        residuals: Residuals,
        moving: Moving,
        by_angles: np.ndarray,
        second: Tensor,
        by_inputs: bool,
        sets: Sequence[Tensor],
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        """The tangents of what `pull_back` gives, where the derivatives by the angles have the tangents ``second``."""
        angle_map, inputs, weights, scaled, *_ = residuals
        both = by_angles, _array(second)
        found = angle_map.pull_back_tangent(inputs, weights, scaled, moving[:3], both, by_inputs)
        return _by_parameters(*found, by_inputs, sets)

    def _plan(self, num_inputs: int, batch: int) -> tuple[MonomialAngles, ArrayBatch | None]:
        if len(self._plans) >= _KEPT:
            self._plans.clear()
        if num_inputs not in self._maps:
            self._maps[num_inputs] = MonomialAngles(self._simulation.angles, num_inputs)
        plan = self._maps[num_inputs], self._simulation.engine.small_batch(batch)
        return self._plans.setdefault((num_inputs, batch), plan)


def _by_parameters(
    rows: np.ndarray, columns: np.ndarray, by_inputs: bool, sets: Sequence[Tensor]
) -> tuple[Tensor | None, Sequence[Tensor]]:
    by_weights = from_numpy(columns)
    by_sets = (by_weights,) if len(sets) == 1 else by_weights.split([s.numel() for s in sets])
    return from_numpy(rows) if by_inputs else None, by_sets


def _joined(sets: Sequence[Tensor]) -> np.ndarray:
    return _array(sets[0]) if len(sets) == 1 else np.concatenate([_array(s) for s in sets])


def _array(tensor: Tensor) -> np.ndarray:
    """A tensor as a contiguous array that shares its memory if possible."""
    array: np.ndarray = tensor.numpy(force=True)  # also if it requires a gradient or is lazily negated
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
