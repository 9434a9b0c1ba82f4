"""How a batch is split: tiles of samples, shares of threads, and the sizes of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm import _executors
from qtm._engines.statevector.kernels import simd
from qtm._engines.statevector.kernels.recipe import Recipe
from qtm._engines.statevector.kernels.sweep import Team
from qtm._engines.statevector.thread_pool import KERNEL_STARTED

# Real multiply-adds from which a second thread pays off; measured: 48 samples of 8 qubits, not of 7.
WORTH_A_THREAD = 12_000_000
# The same for a team on one state, whose members wait for each other after every pass, in multiply-adds of vectors;
# measured, at depth 3: 15 qubits in double precision and 16 in single, not 14 and 15.
WORTH_A_TEAM = 9_000_000
_NO_COUNTER = np.zeros(1, np.int64)
_KEPT = 64  # number of batch sizes whose shares are cached


@dataclass(frozen=True, slots=True)
class Part:
    """The work of one thread: tiles ``first`` .. ``last``, alone or together with the rest of a team."""

    place: int  # of the states of these tiles, among those of all parts
    first: int
    last: int
    team: Team


def _member(member: int, size: int, barrier: np.ndarray, *, first: bool) -> Team:
    """A member of a team; the first of several threads signals the others when its kernel has started."""
    ticket = np.zeros(1, np.int64) if size > 1 else _NO_COUNTER
    return Team(member, size, barrier, ticket, KERNEL_STARTED if first else _NO_COUNTER)


class Tiling:
    """Sizes of a recipe's states, and the parts of a batch.

    Attributes:
        samples_per_tile: the lanes of a vector, or 1 if amplitudes are the lanes.
        amplitudes: of one sample's state.
        numbers: real numbers of one sample's state.
        tile_numbers: real numbers of the states of a tile.
        buffer_numbers: the same with the scales and the cosines, sines and tangents of the slots' angles stored after
        them.
        tile_bytes: of a buffer.
    """

    def __init__(self, recipe: Recipe, real: np.dtype, threads: int) -> None:
        self.threads = threads
        self.lanes = simd.lanes(real)
        self.lanes_are_amplitudes = recipe.lane_bits > 0
        self.samples_per_tile = 1 if self.lanes_are_amplitudes else self.lanes
        self.amplitudes = 1 << recipe.row_bits + recipe.lane_bits
        self.numbers = self.amplitudes * recipe.parts
        self.tile_numbers = (recipe.parts << recipe.row_bits) * self.lanes
        slots = max(len(recipe.slot_offset), 1)
        self.buffer_numbers = self.tile_numbers + self.lanes * (1 + 3 * slots)
        self.tile_bytes = self.buffer_numbers * real.itemsize
        self._multiply_adds = 8 * slots * self.tile_numbers
        self._shares: dict[tuple[int, int], tuple[Part, ...]] = {}

    def tiles(self, batch: int) -> int:
        """Number of tiles of a batch."""
        return -(-batch // self.samples_per_tile)

    def in_team(self, batch: int) -> bool:
        """Whether threads work on one state together, rather than each on its own samples."""
        return self.lanes_are_amplitudes and batch < self.threads and self._multiply_adds // self.lanes > WORTH_A_TEAM

    def parts(self, batch: int, workers: int) -> tuple[Part, ...]:
        """The work of each thread, with memory for ``workers`` threads."""
        if self.in_team(batch):
            barrier, size = np.zeros(1, np.int64), self.threads
            return tuple(Part(0, 0, batch, _member(m, size, barrier, first=m == 0)) for m in range(size))
        found = self._shares.get((batch, workers))
        if found is None:
            if len(self._shares) >= _KEPT:
                self._shares.clear()
            found = self._shares[batch, workers] = self._dealt(batch, workers)
        return found

    def _dealt(self, batch: int, workers: int) -> tuple[Part, ...]:
        tiles = self.tiles(batch)
        worth = tiles * self._multiply_adds > WORTH_A_THREAD
        shares = _executors.deal(tiles, min(self.threads, workers) if worth else 1)
        several = len(shares) > 1
        return tuple(
            Part(i, a, b, _member(0, 1, _NO_COUNTER, first=several and i == 0)) for i, (a, b) in enumerate(shares)
        )
