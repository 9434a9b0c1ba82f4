"""Sweeps over a batch in one kind of lanes: buffers, tiles, threads and memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from qtm import _parallel
from qtm._errors import DtypeError, OutOfMemory
from qtm._kernels import simd
from qtm._kernels.cpu import TINY, Team, Workspace
from qtm._kernels.measure import differentiate, evaluate
from qtm._schedule import Schedule

_LOGGER = logging.getLogger("qtm")
_DTYPES: dict[str, np.dtype[Any]] = {"complex128": np.dtype(np.float64), "complex64": np.dtype(np.float32)}
# Share of the free memory that states may take, for the sweeps and to be kept between forward and backward.
MEMORY_SHARE = 0.5
# Real multiply-adds that are worth a second thread: measured, 48 samples of 6 qubits are not, of 8 qubits are.
_WORTH_A_THREAD = 6_000_000
_WORTH_A_TEAM = 8_000_000  # of one state: its members wait for each other after every pass
_SMALL = 1 << 24  # bytes for which asking how much memory is free takes longer than it is worth
_compiled: set[tuple[str, Any, Any]] = set()


def _alone() -> Team:
    return Team(0, 1, _NOBODY, _NOBODY)


_NOBODY = np.zeros(1, np.int64)


def real_dtype(dtype: Any) -> np.dtype:
    """The real dtype behind ``"complex128"`` or ``"complex64"``.

    Raises:
        DtypeError: another dtype.
    """
    try:
        return _DTYPES[dtype if isinstance(dtype, str) else str(np.dtype(dtype))]
    except (KeyError, TypeError) as error:
        raise DtypeError(f"dtype {dtype!r} is not supported; use one of {', '.join(_DTYPES)}") from error


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array whose first number stands on a vector boundary."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % simd.VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


@dataclass(slots=True)
class Kept:
    """Final states of a forward sweep, for one reverse sweep of the same angles, which consumes them."""

    sweeps: Sweeps
    shares: list[tuple[int, int]]
    states: list[np.ndarray]  # per share, (tiles, rows * parts * lanes + lanes)

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
        self._spare: list[Workspace] = []
        self._spare_buffers: dict[int, list[np.ndarray]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Sweeps, (self.schedule, self.dtype, self.threads, self.memory)

    def alone(self) -> Sweeps:
        """The same for a worker elsewhere: without the program, which its arrays do not need, on one thread."""
        return Sweeps(self.schedule.without_program(), self.dtype, 1, self.memory)

    # Sweeps

    def forward(self, angles: np.ndarray, start: np.ndarray, keep: bool) -> tuple[np.ndarray, Kept | None]:
        """Values (batch, observables), and the final states if ``keep``."""
        if self._in_team(len(angles)):
            return self._forward_in_team(angles, start, keep)
        values = np.zeros((len(angles), self.schedule.num_observables), angles.dtype)
        shares = self._shares(len(angles))
        states = {a: self._buffer(b - a if keep else 1) for a, b in shares}

        def run(first: int, last: int) -> None:
            work = self._workspace()
            evaluate(self.recipe, work, angles, start, states[first], values, first, last, self._tiny, _alone())
            self._spare.append(work)

        self._announced(evaluate, angles, lambda: _parallel.thread_map(run, shares))
        if keep:
            return values, Kept(self, shares, [states[first] for first, _ in shares])
        self._recycle(*states.values())
        return values, None

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
        team = self._team() if self._in_team(len(angles)) else [_alone()]
        gradients = np.zeros((len(team), *angles.shape), angles.dtype)
        shares = kept.shares if len(team) == 1 else [(m.member, m.member + 1) for m in team]
        number = {first: i for i, (first, _) in enumerate(shares)}
        scratch = self._buffer(1) if len(team) > 1 and seeds is None else None

        works = [self._workspace() for _ in shares]

        def run(first: int, last: int) -> None:
            i = number[first]
            work = works[i]
            member, i, (first, last) = (team[i], 0, kept.shares[0]) if len(team) > 1 else (team[0], i, (first, last))
            own = self._buffer(1) if seeds is None and scratch is None else None
            seed = seeds[i] if seeds is not None else scratch if own is None else own
            differentiate(
                self.recipe, work, angles, states[i], cotangent, seed, seeds is not None,
                gradients[member.member], by_initial, first, last, self._tiny, member,
            )  # fmt: skip
            self._spare.append(work)
            self._recycle(own)

        self._announced(differentiate, angles, lambda: _parallel.thread_map(run, shares))
        self._recycle(scratch, *states)
        return gradients.sum(0) if len(team) > 1 else gradients[0], by_initial

    # Several threads on one state

    def _in_team(self, batch: int) -> bool:
        large = self.recipe.lane_bits > 0 and self._multiply_adds > _WORTH_A_TEAM
        return large and self.threads > 1 and batch < self.threads

    def _team(self) -> list[Team]:
        barrier = np.zeros(1, np.int64)
        return [Team(member, self.threads, barrier, np.zeros(1, np.int64)) for member in range(self.threads)]

    def _forward_in_team(self, angles: np.ndarray, start: np.ndarray, keep: bool) -> tuple[np.ndarray, Kept | None]:
        self._affordable_workers()
        team, states = self._team(), self._buffer(len(angles) if keep else 1)
        values = np.zeros((len(team), len(angles), self.schedule.num_observables), angles.dtype)

        # All at hand before the first member starts: the others would wait forever for one that found no memory.
        works = [self._workspace() for _ in team]

        def run(number: int, _: int) -> None:
            member, work = team[number], works[number]
            evaluate(
                self.recipe, work, angles, start, states, values[number], 0, len(angles), self._tiny, member
            )  # fmt: skip
            self._spare.append(work)

        shares = [(member.member, member.member + 1) for member in team]
        self._announced(evaluate, angles, lambda: _parallel.thread_map(run, shares))
        if keep:
            return values.sum(0), Kept(self, [(0, len(angles))], [states])
        self._recycle(states)
        return values.sum(0), None

    # Whole states, for probabilities

    def weights(self, kept: Kept | None, batch: int) -> np.ndarray:
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
        for (first, last), states in zip(kept.shares, kept.states, strict=True):
            seed = aligned((last - first, self._tile_numbers), self.real)
            np.multiply(self._rows(states), factors[first:last], out=self._rows(seed))
            seeds.append(seed)
        return seeds

    def _rows(self, states: np.ndarray) -> np.ndarray:
        """A view of stored states as (tiles, rows, parts, lanes)."""
        return states[:, : self._tile_numbers].reshape(len(states), -1, self.recipe.parts, self.lanes)

    def _by_sample(self, rows: np.ndarray) -> np.ndarray:
        """(tiles, rows, lanes) as (samples, amplitudes)."""
        if self.recipe.lane_bits:
            return rows.reshape(len(rows), -1)
        return rows.transpose(0, 2, 1).reshape(-1, rows.shape[1])

    # Memory and sharing

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
        return self.memory if self.memory is not None else int(MEMORY_SHARE * _parallel.free_memory())

    def _shares(self, batch: int) -> list[tuple[int, int]]:
        tiles = -(-batch // self.samples_per_tile)
        workers = min(self.threads, self._affordable_workers())
        return _parallel.deal(tiles, workers if tiles * self._multiply_adds > _WORTH_A_THREAD else 1)

    def _affordable_workers(self) -> int:
        """Workers whose two states each fit the memory.

        Raises:
            OutOfMemory: not even one worker's do.
        """
        if self._tile_bytes < _SMALL:
            return self.threads
        budget = self._budget()
        if budget < 2 * self._tile_bytes:
            raise OutOfMemory(
                f"{self.recipe.row_bits + self.recipe.lane_bits} qubits need {2 * self._tile_bytes / 2**30:.2f} GiB "
                f"for two states, and {budget / 2**30:.2f} GiB may be used; use fewer qubits or complex64"
            )
        return budget // (2 * self._tile_bytes)

    def _buffer(self, tiles: int) -> np.ndarray:
        """Room for the states of some tiles: new memory costs a page fault every 4 KiB, so used room is kept."""
        spare = self._spare_buffers.get(tiles)
        return spare.pop() if spare else aligned((tiles, self._tile_numbers + self.lanes), self.real)

    def _recycle(self, *buffers: np.ndarray | None) -> None:
        for buffer in buffers:
            if buffer is not None and buffer.nbytes < _SMALL:
                spare = self._spare_buffers.setdefault(len(buffer), [])
                if len(spare) < 2 * self.threads:
                    spare.append(buffer)

    def _workspace(self) -> Workspace:
        try:
            return self._spare.pop()
        except IndexError:
            slots, rows = max(len(self.recipe.slot_offset), 1), self.schedule.table_rows
            factors = max(self.schedule.mask_count, 1)
            sizes = (slots, slots, slots, slots, slots, 1, 1, 2 * rows, rows, factors)
            dtypes = (np.float64, *[self.real] * 9)
            return Workspace(*(aligned((n * self.lanes,), d) for n, d in zip(sizes, dtypes, strict=True)))

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
            _LOGGER.warning("compiled the kernel %r for %s in %.1f s; later runs load it", *key[:2], seconds)
