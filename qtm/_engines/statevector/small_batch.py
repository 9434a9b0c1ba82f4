"""The fast path for batches of small states.

On few qubits, splitting a batch into cones, threads and chunks of memory takes longer than the kernels. Here everything
that does not depend on the angles is done once for each batch size, and a step takes its memory in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from qtm._engines.memory import SMALL
from qtm._engines.statevector.buffer_pool import POOL
from qtm._engines.statevector.kernels.sweep import Scratch
from qtm._engines.statevector.sweeps import DIFFERENTIATE, EVALUATE, Sweeps
from qtm._engines.statevector.thread_pool import run_together
from qtm._engines.statevector.tiling import Part

# Memory for one share of a step: states (tiles, numbers of a buffer), the cotangent of the tile that is pulled back (1,
# numbers of a buffer), scratch.
_Room: TypeAlias = tuple[np.ndarray, np.ndarray, Scratch]


class _Deal:
    """A batch split into shares for threads."""

    def __init__(self, sweeps: Sweeps, parts: Sequence[Part]) -> None:
        self.sweeps, self.parts = sweeps, parts
        self.is_shared = len(parts) > 1
        tiles = [part.last - part.first for part in parts]
        self.where = [(part.first, part.last, sweeps.tiny, part.team) for part in parts]
        self._kind = f"small batch {tiles} {sweeps.tiling.buffer_numbers} {sweeps.scratch_kind}"
        self._size = (sum(tiles) + len(parts)) * sweeps.tiling.tile_bytes + len(parts) * sweeps.scratch_bytes

    def take(self) -> list[_Room]:
        """Take memory for every share."""
        rooms: list[_Room] | None = POOL.take(self._kind)
        if rooms is not None:
            return rooms
        sweeps, works = self.sweeps, self.sweeps.workspaces(self.parts)
        shares = zip(self.parts, works, strict=True)
        return [(sweeps.buffer(p.last - p.first), sweeps.buffer(1), work) for p, work in shares]

    def run(self, shares: Iterable[Callable[..., Any]]) -> None:
        """Run each share on a thread; it is called with its tiles."""
        calls = [partial(share, *where) for share, where in zip(shares, self.where, strict=True)]
        run_together(calls, self.parts[0].team.abort, self.sweeps.contention)

    def give(self, rooms: list[_Room]) -> None:
        """Return the memory for the next step."""
        POOL.give(self._kind, rooms, self._size)


class SmallBatch:
    """Values and derivatives of a fixed number of samples: contiguous arrays in, arrays out. See `ArrayBatch`."""

    def __init__(self, sweeps: Sweeps, batch: int) -> None:
        self._sweeps, self._shape = sweeps, (batch, sweeps.schedule.num_outputs)
        self._all = _Deal(sweeps, sweeps.tiling.parts(batch, sweeps.threads))
        self._alone = _Deal(sweeps, sweeps.tiling.parts(batch, 1))  # if several threads gain nothing
        self._no_rows = np.zeros((0, sweeps.tiling.numbers), sweeps.real)  # neither initial rows nor their derivatives

    @staticmethod
    def fits(sweeps: Sweeps, batch: int) -> bool:
        """Whether the batch fits in memory for certain, and every thread has its own samples."""
        tiling = sweeps.tiling
        tiles = tiling.tiles(batch) + sweeps.threads
        return batch > 0 and tiles * tiling.tile_bytes < SMALL and not tiling.in_team(batch)

    def forward(self, angles: np.ndarray, keep: bool) -> tuple[np.ndarray, list[Any]]:
        """Values (batch, outputs) of angles (batch, angles); residuals, empty unless ``keep``."""
        sweeps = self._sweeps
        deal = self._alone if self._all.is_shared and sweeps.contention.is_crowded() else self._all
        rooms, values = deal.take(), np.zeros(self._shape, angles.dtype)
        evaluate = EVALUATE.for_kind(sweeps.real, angles.dtype)
        if deal.is_shared:
            deal.run(
                partial(evaluate, sweeps.recipe, scratch, angles, self._no_rows, states, values)
                for states, _, scratch in rooms
            )
        else:  # creating partial calls takes a tenth of a step of a small circuit
            states, _, scratch = rooms[0]
            evaluate(sweeps.recipe, scratch, angles, self._no_rows, states, values, *deal.where[0])
        if keep:
            return values, [deal, rooms]
        deal.give(rooms)
        return values, []

    def vjp(self, angles: np.ndarray, cotangent: np.ndarray, residuals: list[Any]) -> np.ndarray:
        """Derivatives by the angles (batch, angles), of a cotangent (batch, outputs); consumes the residuals."""
        deal, rooms = _taken(residuals)
        sweeps, no_rows, gradient = self._sweeps, self._no_rows, np.zeros(angles.shape, angles.dtype)
        differentiate = DIFFERENTIATE.for_kind(sweeps.real, angles.dtype, cotangent.dtype)
        if deal.is_shared:
            deal.run(
                partial(differentiate, sweeps.recipe, work, states, cotangent, by_states, False, gradient, no_rows)
                for states, by_states, work in rooms
            )
        else:
            (states, by_states, work), where = rooms[0], deal.where[0]
            differentiate(sweeps.recipe, work, states, cotangent, by_states, False, gradient, no_rows, *where)
        deal.give(rooms)
        return gradient


def _taken(residuals: list[Any]) -> tuple[_Deal, list[_Room]]:
    if not residuals:
        raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
    deal, rooms = residuals
    residuals.clear()
    return deal, rooms
