"""Batched values, vector-Jacobian products and Jacobians of a schedule, on workers and within memory.

Everything here is arrays in, arrays out: angles (batch, angles), values and cotangents (batch, observables).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm import _parallel
from qtm._errors import DtypeError, OutOfMemory
from qtm._kernels import simd
from qtm._kernels.cpu import TINY, Recipe, Workspace
from qtm._kernels.measure import differentiate, evaluate
from qtm._schedule import Schedule

_DTYPES = {"complex128": np.dtype(np.float64), "complex64": np.dtype(np.float32)}
# Share of the free memory that states may take, for the sweeps and to be kept between forward and backward.
MEMORY_SHARE = 0.5
# Real multiply-adds that are worth a second thread: starting one costs about 20 us.
_WORTH_A_THREAD = 400_000


def real_dtype(dtype: Any) -> np.dtype:
    """The real dtype behind ``"complex128"`` or ``"complex64"``.

    Raises:
        DtypeError: another dtype.
    """
    name = str(np.dtype(dtype)) if not isinstance(dtype, str) else dtype
    if name not in _DTYPES:
        raise DtypeError(f"dtype {name!r} is not supported; use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array whose first number stands on a vector boundary."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.ctypes.data % simd.VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def free_memory() -> int:
    """Bytes of memory that could be had now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":") for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True, slots=True)
class Options:
    """How to compute: dtype, workers, and how much memory states may take (bytes; None: a share of the free)."""

    dtype: str = "complex128"
    num_threads: int = 0
    executor: Executor | None = None
    memory: int | None = None


@dataclass(slots=True)
class Kept:
    """Final states of a forward sweep, for the reverse sweep of the same angles."""

    shares: list[tuple[int, int]]
    states: list[np.ndarray]  # per share, (tiles, rows * parts * lanes + lanes)


class Engine:
    """Runs one schedule with one set of options."""

    def __init__(self, schedule: Schedule, options: Options) -> None:
        self.schedule, self.options = schedule, options
        self.recipe = schedule.recipe
        self.real = real_dtype(options.dtype)
        self.lanes = simd.lanes(self.real)
        self.row_numbers = self.recipe.parts << self.recipe.row_bits
        self.tile_numbers = self.row_numbers * self.lanes
        self.tile_bytes = self.tile_numbers * self.real.itemsize
        self._spare: list[Workspace] = []
        self._multiply_adds = 16 * len(self.recipe.slot_offset) * self.tile_numbers // 2

    def __getstate__(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # Public operations

    def values(
        self, angles: np.ndarray, initial: np.ndarray | None = None, *, keep: bool = False
    ) -> tuple[np.ndarray, Kept | None]:
        """Expectation values (batch, observables), and the final states if ``keep`` and they fit."""
        if not len(angles):
            return np.zeros((0, self.schedule.num_observables), angles.dtype), None
        if self.options.executor is not None:
            return self._remote(_remote_values, angles, self._initial(initial))[0], None
        return self._forward(angles, self._initial(initial), keep and self._fits(len(angles)))

    def vjp(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        kept: Kept | None = None,
        initial_gradient: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Derivative of ``sum(cotangent * values)`` by the angles (batch, angles), and by the initial state."""
        start = self._initial(initial)
        if not len(angles):
            return np.zeros_like(angles), np.zeros((0, self.row_numbers)) if initial_gradient else None
        if self.options.executor is not None:
            gradient, by_initial = self._remote(_remote_vjp, angles, start, cotangent, initial_gradient)
            return gradient, by_initial if initial_gradient else None
        return self._reverse(angles, cotangent, start, kept, None, initial_gradient)

    def jacobian(self, angles: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        """Derivatives (batch, observables, angles): one reverse sweep per observable, in the same lanes."""
        count = self.schedule.num_observables
        repeated = np.repeat(angles, count, axis=0)
        if initial is not None and len(initial) > 1:
            initial = np.repeat(initial, count, axis=0)
        one_hot = np.tile(np.eye(count, dtype=angles.dtype), (len(angles), 1))
        gradient, _ = self.vjp(repeated, one_hot, initial)
        return gradient.reshape(len(angles), count, -1)

    def weights(self, angles: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        """Squared modulus (batch, rows) of every row of the final states."""
        out = np.zeros((len(angles), 1 << self.recipe.row_bits), angles.dtype)
        for part, start in self._chunks(len(angles), initial):
            _, kept = self._forward(angles[part], start, True)
            assert kept is not None
            for (first, _), states in zip(kept.shares, kept.states, strict=True):
                rows = self._rows(states)
                square = (rows * rows).sum(2) * states[:, None, self.tile_numbers :] ** 2  # (tiles, rows, lanes)
                samples = square.transpose(0, 2, 1).reshape(-1, square.shape[1])
                target = out[part][first * self.lanes :]
                target[: len(samples)] = samples[: len(target)]
        return out

    def weights_vjp(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        initial_gradient: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Derivative of ``sum(cotangent * weights)``, cotangent (batch, rows): one sweep for any number of rows."""
        pieces = []
        for part, start in self._chunks(len(angles), initial):
            _, kept = self._forward(angles[part], start, True)
            assert kept is not None
            pad = -len(angles[part]) % self.lanes
            padded = np.pad(cotangent[part], ((0, pad), (0, 0))).astype(self.real, copy=False)
            factors = padded.reshape(-1, self.lanes, padded.shape[1]).transpose(0, 2, 1)[:, :, None, :]
            seeds = []
            for (first, last), states in zip(kept.shares, kept.states, strict=True):
                seed = aligned((last - first, self.tile_numbers), self.real)
                np.multiply(self._rows(states), factors[first:last], out=self._rows(seed))
                seeds.append(seed)
            pieces.append(self._reverse(angles[part], cotangent[part], start, kept, seeds, initial_gradient))
        if not pieces:
            return np.zeros_like(angles), None
        by_angles, by_initial = zip(*pieces, strict=True)
        return np.concatenate(by_angles), np.concatenate(by_initial) if initial_gradient else None

    # Inside

    def _rows(self, states: np.ndarray) -> np.ndarray:
        """A view of stored states as (tiles, rows, parts, lanes)."""
        return states[:, : self.tile_numbers].reshape(len(states), -1, self.recipe.parts, self.lanes)

    def _chunks(self, batch: int, initial: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
        """Parts of the batch whose final states fit the memory together, with their initial states."""
        start = self._initial(initial)
        size = max(self._budget() // (3 * self.tile_bytes), 1) * self.lanes
        for first in range(0, batch, size):
            part = slice(first, first + size)
            yield part, start if len(start) <= 1 else start[part]

    def _forward(self, angles: np.ndarray, start: np.ndarray, keep: bool) -> tuple[np.ndarray, Kept | None]:
        values = np.zeros((len(angles), self.schedule.num_observables), angles.dtype)
        shares, states = self._states(len(angles), keep)

        def run(first: int, last: int) -> None:
            work = self._workspace()
            evaluate(self.recipe, work, angles, start, states[first], values, first, last, TINY[self.real.itemsize])
            self._spare.append(work)

        _parallel.thread_map(run, shares)
        return values, Kept(shares, [states[first] for first, _ in shares]) if keep else None

    def _reverse(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        start: np.ndarray,
        kept: Kept | None,
        seeds: list[np.ndarray] | None,
        initial_gradient: bool,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        gradient = np.zeros(angles.shape, angles.dtype)
        by_initial = np.zeros((len(angles) if initial_gradient else 0, self.row_numbers), self.real)
        if kept is None:
            shares, states = self._states(len(angles), False)
            known = [states[first] for first, _ in shares]
        else:
            shares, known = kept.shares, kept.states
        number = {first: i for i, (first, _) in enumerate(shares)}

        def run(first: int, last: int) -> None:
            work, i = self._workspace(), number[first]
            seed = aligned((1, self.tile_numbers), self.real) if seeds is None else seeds[i]
            differentiate(
                self.recipe, work, angles, start, known[i], kept is not None, cotangent, seed, seeds is not None,
                gradient, by_initial, first, last, TINY[self.real.itemsize],
            )  # fmt: skip
            self._spare.append(work)

        _parallel.thread_map(run, shares)
        return gradient, by_initial if initial_gradient else None

    def _workspace(self) -> Workspace:
        try:
            return self._spare.pop()
        except IndexError:
            slots, rows = max(len(self.recipe.slot_offset), 1), self.schedule.table_rows
            factors = max(self.schedule.mask_count, 1)
            sizes = (slots, slots, slots, slots, slots, 1, 1, 2 * rows, rows, factors)
            dtypes = (np.float64, *[self.real] * 9)
            return Workspace(*(aligned((n * self.lanes,), d) for n, d in zip(sizes, dtypes, strict=True)))

    def _initial(self, initial: np.ndarray | None) -> np.ndarray:
        return np.zeros((0, self.row_numbers), self.real) if initial is None else initial

    def _states(self, batch: int, keep: bool) -> tuple[list[tuple[int, int]], dict[int, np.ndarray]]:
        tiles = -(-batch // self.lanes)
        workers = min(_parallel.resolve_threads(self.options.num_threads), self._affordable_workers())
        if tiles * self._multiply_adds < _WORTH_A_THREAD:
            workers = 1
        shares = _parallel.deal(tiles, workers)
        width = self.tile_numbers + self.lanes
        return shares, {a: aligned((b - a if keep else 1, width), self.real) for a, b in shares}

    def _fits(self, batch: int) -> bool:
        size = -(-batch // self.lanes) * self.tile_bytes
        # Asking for the free memory takes longer than a small circuit.
        return size < 1 << 24 or size <= self._budget()

    def _budget(self) -> int:
        return self.options.memory if self.options.memory is not None else int(MEMORY_SHARE * free_memory())

    def _affordable_workers(self) -> int:
        """Workers whose two states each fit the memory.

        Raises:
            OutOfMemory: not even one worker's do.
        """
        if self.tile_bytes < 1 << 24:
            return 1 << 30
        workers = self._budget() // (2 * self.tile_bytes)
        if workers == 0:
            raise OutOfMemory(
                f"{self.schedule.program.num_qubits} qubits need {2 * self.tile_bytes / 2**30:.1f} GiB for two states of "
                f"{self.lanes} samples, and {self._budget() / 2**30:.1f} GiB may be used; use fewer qubits or complex64"
            )
        return workers

    def _remote(self, function: Any, angles: np.ndarray, start: np.ndarray, *more: Any) -> Any:
        executor = self.options.executor
        workers = self.options.num_threads or getattr(executor, "_max_workers", None) or _parallel.available_cores()
        options = Options(self.options.dtype, 1, None, self.options.memory)
        bare = Schedule(None, self.recipe, *(getattr(self.schedule, name) for name in _PLAIN))  # type: ignore[arg-type]
        tasks = []
        for first, last in _parallel.deal(len(angles), workers):
            begin = start if len(start) <= 1 else start[first:last]
            rest = [m[first:last] if isinstance(m, np.ndarray) else m for m in more]
            tasks.append((bare, options, angles[first:last], begin, *rest))
        assert executor is not None
        results = _parallel.executor_map(executor, function, tasks)
        return tuple(np.concatenate(column) for column in zip(*results, strict=True))


_PLAIN = ("num_observables", "basis", "table_rows", "mask_count")


def _remote_values(schedule: Schedule, options: Options, angles: np.ndarray, start: np.ndarray) -> tuple:
    return (Engine(schedule, options).values(angles, start if len(start) else None)[0],)


def _remote_vjp(
    schedule: Schedule, options: Options, angles: np.ndarray, start: np.ndarray, cotangent: np.ndarray, initial: bool
) -> tuple:
    engine = Engine(schedule, options)
    gradient, by_initial = engine.vjp(angles, cotangent, start if len(start) else None, initial_gradient=initial)
    return gradient, by_initial if by_initial is not None else np.zeros((0, engine.row_numbers))
