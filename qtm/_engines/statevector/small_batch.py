"""A batch that one thread computes, without the bookkeeping of larger ones.

On few qubits, dealing a batch to cones, threads and chunks of memory takes longer than the kernels. Here all that does
not depend on the angles is done once for each size of a batch, and a step takes its memory in one piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtm._engines.memory import SMALL
from qtm._engines.statevector.buffer_pool import POOL
from qtm._engines.statevector.sweeps import DIFFERENTIATE, EVALUATE, Kept, Sweeps


class SmallBatch:
    """Values and derivatives of a fixed number of samples: contiguous arrays in, arrays out. See `ArrayBatch`."""

    def __init__(self, sweeps: Sweeps, batch: int) -> None:
        (self._part,) = sweeps.tiling.parts(batch, sweeps.threads)
        self._sweeps, self._tiles = sweeps, sweeps.tiling.tiles(batch)
        self._shape = batch, sweeps.schedule.num_outputs
        self._where = self._part.first, self._part.last, sweeps.tiny, self._part.team
        self._no_rows = np.zeros(
            (0, sweeps.tiling.numbers), sweeps.real
        )  # neither initial rows nor derivatives by them
        self._kind = f"small batch {self._tiles} {sweeps.tiling.buffer_numbers} {sweeps.scratch_kind}"
        self._size = (self._tiles + 1) * sweeps.tiling.tile_bytes + sweeps.scratch_bytes

    @staticmethod
    def fits(sweeps: Sweeps, batch: int) -> bool:
        """Whether one thread does best, and memory is no concern."""
        tiling = sweeps.tiling
        return (
            batch > 0
            and (tiling.tiles(batch) + 1) * tiling.tile_bytes < SMALL
            and len(tiling.parts(batch, sweeps.threads)) == 1
        )

    def forward(self, angles: np.ndarray, keep: bool) -> tuple[np.ndarray, list[Any]]:
        """Values (batch, outputs) of angles (batch, angles); residuals, empty unless ``keep``."""
        sweeps = self._sweeps
        room = POOL.take(self._kind)
        if room is None:
            room = sweeps.buffer(self._tiles), sweeps.buffer(1), *sweeps.workspaces([self._part])
        values = np.zeros(self._shape, angles.dtype)
        evaluate = EVALUATE.for_kind(sweeps.real, angles.dtype)
        evaluate(sweeps.recipe, room[2], angles, self._no_rows, room[0], values, *self._where)
        if keep:
            return values, [room]
        POOL.give(self._kind, room, self._size)
        return values, []

    def vjp(self, angles: np.ndarray, cotangent: np.ndarray, residuals: list[Any]) -> np.ndarray:
        """Derivatives by the angles (batch, angles), of a cotangent (batch, outputs); consumes the residuals."""
        states, by_states, scratch = room = _taken(residuals)
        sweeps, gradient = self._sweeps, np.zeros(angles.shape, angles.dtype)
        differentiate = DIFFERENTIATE.for_kind(sweeps.real, angles.dtype, cotangent.dtype)
        differentiate(
            sweeps.recipe, scratch, states, cotangent, by_states, False, gradient, self._no_rows, *self._where
        )  # fmt: skip
        POOL.give(self._kind, room, self._size)
        return gradient

    def general(self, angles: np.ndarray, residuals: list[Any]) -> Any:
        """The residuals as those of the engine; consumes them."""
        states, by_states, scratch = _taken(residuals)
        self._sweeps.recycle([by_states])
        self._sweeps.recycle_workspaces([scratch])
        return [(angles, None, Kept(self._sweeps, [self._part], [states]))]


def _taken(residuals: list[Any]) -> Any:
    if not residuals:
        raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
    return residuals.pop()
