"""Sweeps over a batch with one kind of lanes: buffers, threads and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qtm._engines.announced_kernel import AnnouncedKernel
from qtm._engines.memory import SMALL, budget
from qtm._engines.options import real_dtype
from qtm._engines.statevector.buffer_pool import POOL, aligned
from qtm._engines.statevector.contention import Contention
from qtm._engines.statevector.kernels import expectation, whole_states
from qtm._engines.statevector.kernels.sweep import TINY, Scratch
from qtm._engines.statevector.schedule import Schedule
from qtm._engines.statevector.thread_pool import run_together
from qtm._engines.statevector.tiling import Part, Tiling
from qtm._errors import OutOfMemory

EVALUATE, DIFFERENTIATE = AnnouncedKernel(expectation.evaluate), AnnouncedKernel(expectation.differentiate)
_WRITE_STATES, _READ_SEEDS = AnnouncedKernel(whole_states.write_states), AnnouncedKernel(whole_states.read_seeds)


@dataclass(frozen=True, slots=True)
class StateView:
    """The places of the kernels' amplitudes in a circuit's state, and their factors there."""

    place: np.ndarray  # (amplitudes,) int64
    factor: np.ndarray  # (amplitudes,) complex


@dataclass(slots=True)
class Kept:
    """Final states of a forward sweep, for one reverse sweep of the same angles, which consumes them."""

    sweeps: Sweeps
    parts: Sequence[Part]
    states: list[np.ndarray]  # each (tiles, numbers of a buffer): states, scales and sines

    def take(self) -> list[np.ndarray]:
        """The states, once."""
        if not self.states:
            raise RuntimeError("these states were consumed by a reverse sweep; run the forward sweep again")
        taken, self.states = self.states, []
        return taken


class Sweeps:
    """One schedule, whose lanes are samples or amplitudes, with its buffers."""

    def __init__(self, plan: Schedule, dtype: str, threads: int, memory: int | None) -> None:
        self.schedule, self.dtype, self.threads, self.memory = plan, dtype, threads, memory
        self.recipe = plan.recipe
        self.real = real_dtype(dtype)
        self.contention = Contention()
        self.tiling = Tiling(plan.recipe, self.real, threads)
        self.tiny = TINY[self.real.itemsize]
        self.zero_state = np.zeros((0, self.tiling.numbers), self.real)
        slots, rows, factors = max(len(self.recipe.slot_offset), 1), plan.table_rows, max(plan.mask_count, 1)
        self._scratch_sizes = (slots, slots, 1, 2, 2 * rows, 2 * rows, factors)
        self.scratch_kind = f"scratch {self._scratch_sizes} {self.real.str}"
        self._buffer_kinds: dict[int, str] = {}  # by the number of tiles
        self.scratch_bytes = self.tiling.lanes * (8 * slots + self.real.itemsize * sum(self._scratch_sizes[1:]))

    def __reduce__(self) -> tuple[Any, ...]:
        return Sweeps, (self.schedule, self.dtype, self.threads, self.memory)

    def alone(self) -> Sweeps:
        """A copy for a worker of an executor: on one thread, without the program, which its arrays do not need."""
        return Sweeps(self.schedule, self.dtype, 1, self.memory)

    # Sweeps

    def forward(self, angles: np.ndarray, start: np.ndarray, keep: bool) -> tuple[np.ndarray, Kept | None]:
        """Values (batch, observables), and the final states if ``keep``."""
        parts, angles = self.parts(len(angles)), np.ascontiguousarray(angles)
        values = np.zeros((parts[0].team.size, len(angles), self.schedule.num_outputs), angles.dtype)
        states = [self.buffer(p.last - p.first if keep else 1) for p in parts if p.team.member == 0]
        works = self.workspaces(parts)
        evaluate = EVALUATE.for_kind(self.real, angles.dtype)
        calls = [
            partial(
                evaluate, self.recipe, work, angles, start, states[p.place], values[p.team.member],
                p.first, p.last, self.tiny, p.team,
            )
            for p, work in zip(parts, works, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort, self.contention)
        self.recycle_workspaces(works)
        if keep:
            return summed(values), Kept(self, parts, states)
        self.recycle(states)
        return summed(values), None

    def reverse(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        kept: Kept | None,
        seeds: list[np.ndarray] | None,
        initial_gradient: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by the angles (batch, angles) and by the initial state (batch or 0, numbers).

        ``seeds`` are buffers of this object, which takes them back.
        """
        assert kept is not None
        if kept.sweeps is not self:
            return kept.sweeps.reverse(angles, cotangent, kept, seeds, initial_gradient)
        states, parts = kept.take(), kept.parts
        angles, cotangent = np.ascontiguousarray(angles), np.ascontiguousarray(cotangent)
        by_initial = np.zeros((len(angles) if initial_gradient else 0, self.tiling.numbers), self.real)
        gradient = np.zeros((parts[0].team.size, *angles.shape), angles.dtype)
        cotangents = [self.buffer(1) for _ in states] if seeds is None else seeds
        works = self.workspaces(parts)
        differentiate = DIFFERENTIATE.for_kind(self.real, angles.dtype, cotangent.dtype)
        calls = [
            partial(
                differentiate, self.recipe, work, states[p.place], cotangent, cotangents[p.place],
                seeds is not None, gradient[p.team.member], by_initial, p.first, p.last, self.tiny, p.team,
            )
            for p, work in zip(parts, works, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort, self.contention)
        self.recycle_workspaces(works)
        self.recycle(states)
        self.recycle(cotangents)
        return summed(gradient), by_initial

    def parts(self, batch: int, states: int = 2) -> tuple[Part, ...]:
        """The work of each thread, on ``states`` states at a time: its own samples or, for few large ones, their rows.

        Raises:
            OutOfMemory: they do not fit.
        """
        workers = self._affordable_workers(states)
        return self.tiling.parts(batch, 1 if workers > 1 and self.contention.is_crowded() else workers)

    # Whole states, for probabilities

    def probabilities(self, kept: Kept | None, batch: int) -> np.ndarray:
        """Squared modulus (batch, amplitudes) of kept states."""
        assert kept is not None
        return self.products(kept, kept, batch)

    def products(self, kept: Kept, others: Kept, batch: int) -> np.ndarray:
        """Re(conj(a) b) (batch, amplitudes) of the amplitudes a of kept states and b of others at the same scale."""
        pieces = []
        for states, more in zip(kept.states, others.states, strict=True):
            # (tiles, rows, parts, lanes), summed over the parts
            product = (self._rows(states) * self._rows(more)).sum(2)
            pieces.append(self._by_sample(product * self._scales(states) ** 2))
        return np.concatenate(pieces)[:batch]

    def seeds(self, kept: Kept | None, cotangent: np.ndarray) -> list[np.ndarray]:
        """The diagonal operator ``cotangent`` (batch, amplitudes) applied to kept states."""
        assert kept is not None
        samples = self.tiling.tiles(len(cotangent)) * self.tiling.samples_per_tile
        padded = np.zeros((samples, cotangent.shape[1]), self.real)  # np.pad takes longer than a small sweep
        padded[: len(cotangent)] = cotangent
        if self.recipe.lane_bits:
            factors: np.ndarray = padded.reshape(len(padded), -1, 1, self.tiling.lanes)
        else:
            factors = padded.reshape(-1, self.tiling.lanes, padded.shape[1]).transpose(0, 2, 1)[:, :, None, :]
        seeds = []
        for part in kept.parts:
            if part.team.member == 0:
                states = kept.states[part.place]
                seed = self.buffer(len(states))
                np.multiply(self._rows(states), factors[part.first : part.last], out=self._rows(seed))
                seeds.append(seed)
        return seeds

    def write_states(self, kept: Kept | None, view: StateView, turn: np.ndarray, out: np.ndarray) -> None:
        """Kept states into ``out`` (batch, 2**qubits) complex, times ``turn`` (batch or 1,)."""
        assert kept is not None
        write, (lane_bits, parts, lanes) = _WRITE_STATES.for_kind(self.real), self._layout
        for p in kept.parts:
            if p.team.member == 0:
                write(kept.states[p.place], p.first, lane_bits, parts, lanes, view.place, view.factor, turn, out)

    def state_seeds(
        self, kept: Kept | None, view: StateView, turn: np.ndarray, cotangent: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Seeds of a reverse sweep from a cotangent (batch, 2**qubits).

        Also the derivative (batch,) with respect to a, where ``turn`` is exp(i a).
        """
        assert kept is not None
        seeds, by_phase = [], np.zeros(len(cotangent))
        read, (lane_bits, parts, lanes) = _READ_SEEDS.for_kind(self.real), self._layout
        for p in kept.parts:
            if p.team.member == 0:
                states = kept.states[p.place]
                seeds.append(self.buffer(len(states)))
                read(
                    states, p.first, lane_bits, parts, lanes, view.place, view.factor, turn, cotangent, seeds[-1],
                    by_phase,
                )  # fmt: skip
        return seeds, by_phase

    @property
    def _layout(self) -> tuple[int, int, int]:
        return self.recipe.lane_bits, self.recipe.parts, self.tiling.lanes

    def _rows(self, states: np.ndarray) -> np.ndarray:
        """A view of stored states as (tiles, rows, parts, lanes)."""
        return states[:, : self.tiling.tile_numbers].reshape(len(states), -1, self.recipe.parts, self.tiling.lanes)

    def _scales(self, states: np.ndarray) -> np.ndarray:
        """Their scales (tiles, 1, lanes)."""
        first = self.tiling.tile_numbers
        return states[:, None, first : first + self.tiling.lanes]

    def _by_sample(self, rows: np.ndarray) -> np.ndarray:
        """(tiles, rows, lanes) as (samples, amplitudes)."""
        if self.recipe.lane_bits:
            return rows.reshape(len(rows), -1)
        return rows.transpose(0, 2, 1).reshape(-1, rows.shape[1])

    # Memory

    def start(self, initial: np.ndarray | None) -> np.ndarray:
        """The initial state (batch or 1, numbers) in the dtype of the sweeps; no rows mean |0...0>."""
        if initial is None:
            return self.zero_state
        return np.ascontiguousarray(initial, self.real)

    def fits(self, batch: int) -> bool:
        """Whether the final states of the batch may be kept."""
        size = self.tiling.tiles(batch) * self.tiling.tile_bytes
        return size < SMALL or size <= budget(self.memory)

    def chunks(self, batch: int, start: np.ndarray, copies: int = 1) -> Iterator[tuple[slice, np.ndarray]]:
        """Parts of the batch whose final states fit in memory together, with their initial states.

        ``copies``: number of states kept for each sample.
        """
        tiles = self.tiling.tiles(batch)
        if self.memory is not None or tiles * self.tiling.tile_bytes >= SMALL:
            available = budget(self.memory) // copies
            tiles = max((available - self.threads * self.tiling.tile_bytes) // self.tiling.tile_bytes, 1)
        size = max(tiles, 1) * self.tiling.samples_per_tile
        for first in range(0, batch, size):
            part = slice(first, first + size)
            yield part, start if len(start) <= 1 else start[part]

    def _affordable_workers(self, states: int) -> int:
        """Number of workers whose states each fit in memory.

        Raises:
            OutOfMemory: not even those of one worker fit.
        """
        if self.tiling.tile_bytes < SMALL:
            return self.threads
        available = budget(self.memory)
        if available < states * self.tiling.tile_bytes:
            narrower = "" if self.real == np.float32 else " or complex64"
            bits, needed = self.recipe.row_bits + self.recipe.lane_bits, states * self.tiling.tile_bytes / 2**30
            raise OutOfMemory(
                f"{bits} qubits need {needed:.2f} GiB for {states} states, and {available / 2**30:.2f} GiB may be "
                f"used; use fewer qubits{narrower}"
            )
        return available // (states * self.tiling.tile_bytes)

    def buffer(self, tiles: int) -> np.ndarray:
        """A buffer for the states of some tiles, their scales, and the cosines, sines and tangents of their angles."""
        spare: np.ndarray | None = POOL.take(self._buffer_kind(tiles))
        if spare is not None:
            return spare
        return aligned((tiles, self.tiling.buffer_numbers), self.real)

    def _buffer_kind(self, tiles: int) -> str:
        kind = self._buffer_kinds.get(tiles)
        if kind is None:
            kind = f"states {tiles} {self.tiling.buffer_numbers} {self.real.str}"
            self._buffer_kinds[tiles] = kind
        return kind

    def recycle(self, buffers: list[np.ndarray]) -> None:
        """Return buffers to the pool."""
        for buffer in buffers:
            POOL.give(self._buffer_kind(len(buffer)), buffer, buffer.nbytes)

    def workspaces(self, parts: Sequence[Part]) -> list[Scratch]:
        """Scratch memory for each part."""
        # Allocate all before the first part starts: a team would wait forever for a member that found no memory.
        return [self._scratch() for _ in parts]

    def _scratch(self) -> Scratch:
        spare: Scratch | None = POOL.take(self.scratch_kind)
        if spare is not None:
            return spare
        dtypes = (np.float64, *[self.real] * 6)
        sizes = [n * self.tiling.lanes for n in self._scratch_sizes]
        return Scratch(*(aligned((n,), d) for n, d in zip(sizes, dtypes, strict=True)))

    def recycle_workspaces(self, works: list[Scratch]) -> None:
        """Return scratch memory to the pool."""
        for work in works:
            POOL.give(self.scratch_kind, work, self.scratch_bytes)


def summed(partial_sums: np.ndarray) -> np.ndarray:
    """The sum over the members of a team, (members, batch, ...)."""
    total: np.ndarray = partial_sums[0] if len(partial_sums) == 1 else partial_sums.sum(0)
    return total
