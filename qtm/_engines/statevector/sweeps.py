"""Sweeps over a batch in one kind of lanes: buffers, tiles, threads and memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qtm import _executors, _machine
from qtm._engines.options import real_dtype
from qtm._engines.statevector.buffer_pool import POOL, aligned
from qtm._engines.statevector.kernels import simd
from qtm._engines.statevector.kernels.expectation import differentiate, evaluate
from qtm._engines.statevector.kernels.sweep import TINY, Team, Workspace
from qtm._engines.statevector.kernels.whole_states import read_seeds, write_states
from qtm._engines.statevector.schedule import Schedule
from qtm._engines.statevector.thread_pool import KERNEL_STARTED, run_together
from qtm._errors import OutOfMemory

_LOGGER = logging.getLogger("qtm")
# Share of the free memory that states may take, for the sweeps and to be kept between forward and backward.
MEMORY_SHARE = 0.5
# Real multiply-adds that are worth a second thread: measured, 48 samples of 6 qubits are not, of 7 qubits are.
_WORTH_A_THREAD = 6_000_000
_WORTH_A_TEAM = 8_000_000  # of one state: its members wait for each other after every pass
_SMALL = 1 << 24  # bytes for which asking how much memory is free takes longer than it is worth
_NO_COUNTER = np.zeros(1, np.int64)
_compiled: set[tuple[str, Any, Any]] = set()


@dataclass(frozen=True, slots=True)
class Part:
    """What one thread does: tiles ``first`` .. ``last``, by itself or together with the rest of a team."""

    place: int  # of the states of these tiles, among those of all parts
    first: int
    last: int
    team: Team


def _member(member: int, size: int, barrier: np.ndarray, *, first: bool) -> Team:
    """A member of a team; the first of several threads tells the others when its kernel has started."""
    ticket = np.zeros(1, np.int64) if size > 1 else _NO_COUNTER
    return Team(member, size, barrier, ticket, KERNEL_STARTED if first else _NO_COUNTER)


@dataclass(frozen=True, slots=True)
class StateView:
    """Where the amplitudes of the kernels stand in a circuit's state, and what they are multiplied by there."""

    place: np.ndarray  # (amplitudes,) int64
    factor: np.ndarray  # (amplitudes,) complex


@dataclass(slots=True)
class Kept:
    """Final states of a forward sweep, for one reverse sweep of the same angles, which consumes them."""

    sweeps: Sweeps
    parts: list[Part]
    states: list[np.ndarray]  # each (tiles, rows * parts * lanes + lanes)

    def take(self) -> list[np.ndarray]:
        """The states, once."""
        if not self.states:
            raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
        taken, self.states = self.states, []
        return taken


class Sweeps:
    """One schedule, whose lanes are samples or amplitudes, with the buffers to run it."""

    def __init__(self, plan: Schedule, dtype: str, threads: int, memory: int | None) -> None:
        self.schedule, self.dtype, self.threads, self.memory = plan, dtype, threads, memory
        self.recipe = plan.recipe
        self.real = real_dtype(dtype)
        self.lanes = simd.lanes(self.real)
        self.samples_per_tile = 1 if self.recipe.lane_bits else self.lanes
        self.amplitudes = 1 << self.recipe.row_bits + self.recipe.lane_bits
        self.numbers = self.amplitudes * self.recipe.parts  # real numbers of one sample's state
        self._tile_numbers = (self.recipe.parts << self.recipe.row_bits) * self.lanes
        self._tile_bytes = self._tile_numbers * self.real.itemsize
        self._multiply_adds = 8 * max(len(self.recipe.slot_offset), 1) * self._tile_numbers
        self._tiny = TINY[self.real.itemsize]
        slots, rows, factors = max(len(self.recipe.slot_offset), 1), plan.table_rows, max(plan.mask_count, 1)
        self._workspace_sizes = (slots, slots, slots, slots, slots, 1, 1, 2 * rows, 2 * rows, factors)
        self._workspace_kind = (self._workspace_sizes, self.real.str)

    def __reduce__(self) -> tuple[Any, ...]:
        return Sweeps, (self.schedule, self.dtype, self.threads, self.memory)

    def alone(self) -> Sweeps:
        """The same for a worker elsewhere: without the program, which its arrays do not need, on one thread."""
        return Sweeps(self.schedule, self.dtype, 1, self.memory)

    # Sweeps

    def forward(self, angles: np.ndarray, start: np.ndarray, keep: bool) -> tuple[np.ndarray, Kept | None]:
        """Values (batch, observables), and the final states if ``keep``."""
        parts = self._parts(len(angles))
        values = np.zeros((parts[0].team.size, len(angles), self.schedule.num_outputs), angles.dtype)
        states = [self._buffer(p.last - p.first if keep else 1) for p in parts if p.team.member == 0]

        def run(part: Part, work: Workspace) -> None:
            evaluate(
                self.recipe, work, angles, start, states[part.place], values[part.team.member],
                part.first, part.last, self._tiny, part.team,
            )  # fmt: skip

        self._run(evaluate, angles, parts, run)
        if keep:
            return _summed(values), Kept(self, parts, states)
        self._recycle(states)
        return _summed(values), None

    def reverse(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        kept: Kept | None,
        seeds: list[np.ndarray] | None,
        initial_gradient: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by the angles (batch, angles) and by the initial state (batch or 0, numbers)."""
        assert kept is not None
        if kept.sweeps is not self:
            return kept.sweeps.reverse(angles, cotangent, kept, seeds, initial_gradient)
        states = kept.take()
        by_initial = np.zeros((len(angles) if initial_gradient else 0, self.numbers), self.real)
        gradient = np.zeros((kept.parts[0].team.size, *angles.shape), angles.dtype)
        cotangents = [self._buffer(1) for _ in states] if seeds is None else seeds

        def run(part: Part, work: Workspace) -> None:
            differentiate(
                self.recipe, work, angles, states[part.place], cotangent, cotangents[part.place], seeds is not None,
                gradient[part.team.member], by_initial, part.first, part.last, self._tiny, part.team,
            )  # fmt: skip

        self._run(differentiate, angles, kept.parts, run)
        self._recycle(states)
        if seeds is None:
            self._recycle(cotangents)
        return _summed(gradient), by_initial

    def _run(self, kernel: Any, angles: np.ndarray, parts: list[Part], run: Callable[[Part, Workspace], None]) -> None:
        # All at hand before the first part begins: the rest of a team would wait forever for one that found no memory.
        works = [self._workspace() for _ in parts]
        calls = [partial(run, part, work) for part, work in zip(parts, works, strict=True)]
        self._announced(kernel, angles, lambda: run_together(calls, parts[0].team.abort))
        for work in works:
            POOL.give(self._workspace_kind, work, sum(array.nbytes for array in work))

    # Sharing

    def _parts(self, batch: int) -> list[Part]:
        """What each thread does: samples of its own or, of a few large states, rows of each."""
        if self._in_team(batch):
            self._affordable_workers()
            barrier, size = np.zeros(1, np.int64), self.threads
            return [Part(0, 0, batch, _member(m, size, barrier, first=m == 0)) for m in range(size)]
        shares = self._shares(batch)
        several = len(shares) > 1
        return [Part(i, a, b, _member(0, 1, _NO_COUNTER, first=several and i == 0)) for i, (a, b) in enumerate(shares)]

    def _in_team(self, batch: int) -> bool:
        large = self.recipe.lane_bits > 0 and self._multiply_adds > _WORTH_A_TEAM
        return large and self.threads > 1 and batch < self.threads

    def _shares(self, batch: int) -> list[tuple[int, int]]:
        tiles = -(-batch // self.samples_per_tile)
        workers = min(self.threads, self._affordable_workers())
        return _executors.deal(tiles, workers if tiles * self._multiply_adds > _WORTH_A_THREAD else 1)

    # Whole states, for probabilities

    def probabilities(self, kept: Kept | None, batch: int) -> np.ndarray:
        """Squared modulus (batch, amplitudes) of kept states."""
        assert kept is not None
        pieces = []
        for states in kept.states:
            rows = self._rows(states)  # (tiles, rows, parts, lanes)
            square = (rows * rows).sum(2) * states[:, None, self._tile_numbers :] ** 2
            pieces.append(self._by_sample(square))
        return np.concatenate(pieces)[:batch]

    def seeds(self, kept: Kept | None, cotangent: np.ndarray) -> list[np.ndarray]:
        """The diagonal operator ``cotangent`` (batch, amplitudes) applied to kept states."""
        assert kept is not None
        pad = -len(cotangent) % self.samples_per_tile
        padded = np.pad(cotangent, ((0, pad), (0, 0))).astype(self.real, copy=False)
        if self.recipe.lane_bits:
            factors: np.ndarray = padded.reshape(len(padded), -1, 1, self.lanes)
        else:
            factors = padded.reshape(-1, self.lanes, padded.shape[1]).transpose(0, 2, 1)[:, :, None, :]
        seeds = []
        for part in kept.parts:
            if part.team.member == 0:
                states = kept.states[part.place]
                seed = aligned((len(states), self._tile_numbers), self.real)
                np.multiply(self._rows(states), factors[part.first : part.last], out=self._rows(seed))
                seeds.append(seed)
        return seeds

    def write_states(self, kept: Kept | None, view: StateView, turn: np.ndarray, out: np.ndarray) -> None:
        """Kept states into ``out`` (batch, 2**qubits) complex, times ``turn`` (batch or 1,)."""
        assert kept is not None
        for part in kept.parts:
            if part.team.member == 0:
                write_states(
                    kept.states[part.place], part.first, self.recipe.lane_bits, self.recipe.parts, self.lanes,
                    view.place, view.factor, turn, out,
                )  # fmt: skip

    def state_seeds(
        self, kept: Kept | None, view: StateView, turn: np.ndarray, cotangent: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Seeds of a reverse sweep from a cotangent (batch, 2**qubits); and the derivative (batch,) by -2 log turn."""
        assert kept is not None
        seeds, by_turn = [], np.zeros(len(cotangent))
        for part in kept.parts:
            if part.team.member == 0:
                states = kept.states[part.place]
                seeds.append(aligned((len(states), self._tile_numbers), self.real))
                read_seeds(
                    states, part.first, self.recipe.lane_bits, self.recipe.parts, self.lanes, view.place, view.factor,
                    turn, cotangent, seeds[-1], by_turn,
                )  # fmt: skip
        return seeds, by_turn

    def _rows(self, states: np.ndarray) -> np.ndarray:
        """A view of stored states as (tiles, rows, parts, lanes)."""
        return states[:, : self._tile_numbers].reshape(len(states), -1, self.recipe.parts, self.lanes)

    def _by_sample(self, rows: np.ndarray) -> np.ndarray:
        """(tiles, rows, lanes) as (samples, amplitudes)."""
        if self.recipe.lane_bits:
            return rows.reshape(len(rows), -1)
        return rows.transpose(0, 2, 1).reshape(-1, rows.shape[1])

    # Memory

    def start(self, initial: np.ndarray | None) -> np.ndarray:
        """The initial state (batch or 1, numbers) in the dtype of the sweeps; no rows stand for |0...0>."""
        if initial is None:
            return np.zeros((0, self.numbers), self.real)
        return np.ascontiguousarray(initial, self.real)

    def fits(self, batch: int) -> bool:
        """Whether the final states of the batch may be kept."""
        size = -(-batch // self.samples_per_tile) * self._tile_bytes
        return size < _SMALL or size <= self._budget()

    def chunks(self, batch: int, start: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Parts of the batch whose final states fit the memory together, with their initial states."""
        tiles = -(-batch // self.samples_per_tile)
        if self.memory is not None or tiles * self._tile_bytes >= _SMALL:
            tiles = max((self._budget() - self.threads * self._tile_bytes) // self._tile_bytes, 1)
        size = max(tiles, 1) * self.samples_per_tile
        for first in range(0, batch, size):
            part = slice(first, first + size)
            yield part, start if len(start) <= 1 else start[part]

    def _budget(self) -> int:
        return self.memory if self.memory is not None else int(MEMORY_SHARE * _machine.free_memory())

    def _affordable_workers(self) -> int:
        """Workers whose two states each fit the memory.

        Raises:
            OutOfMemory: not even one worker's do.
        """
        if self._tile_bytes < _SMALL:
            return self.threads
        budget = self._budget()
        if budget < 2 * self._tile_bytes:
            narrower = "" if self.real == np.float32 else " or complex64"
            raise OutOfMemory(
                f"{self.recipe.row_bits + self.recipe.lane_bits} qubits need {2 * self._tile_bytes / 2**30:.2f} GiB "
                f"for two states, and {budget / 2**30:.2f} GiB may be used; use fewer qubits{narrower}"
            )
        return budget // (2 * self._tile_bytes)

    def _buffer(self, tiles: int) -> np.ndarray:
        """Room for the states of some tiles, and a scale for each."""
        shape = tiles, self._tile_numbers + self.lanes
        spare: np.ndarray | None = POOL.take((shape, self.real.str))
        return aligned(shape, self.real) if spare is None else spare

    def _recycle(self, buffers: list[np.ndarray]) -> None:
        for buffer in buffers:
            POOL.give((buffer.shape, self.real.str), buffer, buffer.nbytes)

    def _workspace(self) -> Workspace:
        spare: Workspace | None = POOL.take(self._workspace_kind)
        if spare is not None:
            return spare
        dtypes = (np.float64, *[self.real] * 9)
        return Workspace(*(aligned((n * self.lanes,), d) for n, d in zip(self._workspace_sizes, dtypes, strict=True)))

    def _announced(self, kernel: Any, angles: np.ndarray, call: Any) -> None:
        """Run ``call``; if the kernel had to be compiled for it, say so, because it takes seconds."""
        key = kernel.__name__, self.real, angles.dtype
        if key in _compiled:
            call()
            return
        _LOGGER.info("loading the kernel %r for %s; where it is new to this machine, compiling takes seconds", *key[:2])
        before, began = sum(kernel.stats.cache_misses.values()), time.perf_counter()
        call()
        _compiled.add(key)
        if sum(kernel.stats.cache_misses.values()) > before:
            seconds = time.perf_counter() - began
            _LOGGER.warning("compiled the kernel %r for %s in %.1f s", *key[:2], seconds)


def _summed(partial_sums: np.ndarray) -> np.ndarray:
    """The sum over the members of a team, (members, batch, ...)."""
    total: np.ndarray = partial_sums[0] if len(partial_sums) == 1 else partial_sums.sum(0)
    return total
