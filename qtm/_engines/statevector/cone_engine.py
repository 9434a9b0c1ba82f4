"""Batched values and vector-Jacobian products of a scheduled circuit, on workers and within memory.

Everything here is arrays in, arrays out: angles (batch, angles), values and cotangents (batch, observables).
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from qtm import _executors
from qtm._circuit.causal_cone import ConeProgram
from qtm._circuit.pauli_program import Slot
from qtm._engines.options import Options, real_dtype
from qtm._engines.statevector.kernels.simd import lanes
from qtm._engines.statevector.schedule import schedule
from qtm._engines.statevector.small_batch import SmallBatch
from qtm._engines.statevector.sweeps import Kept, StateView, Sweeps

# log2 of the number of amplitudes up to which states with one sample per lane fit in the cache.
_SAMPLE_LANE_BITS = 13
_KEPT = 64  # number of batch sizes whose lanes are cached


class ConeEngine:
    """Runs one cone program with one set of options; numpy arrays in and out."""

    def __init__(self, program: ConeProgram, options: Options) -> None:
        self.program, self.options = program, options
        self.real = real_dtype(options.dtype)
        self.threads = _executors.resolve_threads(options.num_threads)
        self.num_outputs = program.measured.num_outputs
        self._sweeps_of: dict[int, Sweeps] = {}
        self._chosen: dict[int, Sweeps] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ConeEngine, (self.program, self.options)

    # Public operations

    def values(
        self, angles: np.ndarray, initial: np.ndarray | None = None, *, keep: bool = False
    ) -> tuple[np.ndarray, Kept | None]:
        """Expectation values (batch, outputs), and the final states if ``keep`` and they fit."""
        if not len(angles):
            return np.zeros((0, self.num_outputs), angles.dtype), None
        sweeps = self.sweeps(len(angles))
        start = sweeps.start(initial)
        if self.options.executor is not None:
            return self._remote(_remote_values, sweeps, angles, start)[0], None
        return sweeps.forward(angles, start, keep and sweeps.fits(len(angles)))

    def small_batch(self, batch: int) -> SmallBatch | None:
        """The fast path for a batch from |0...0>; None if it does not fit, or with an executor."""
        if batch == 0 or self.options.executor is not None:
            return None
        sweeps = self.sweeps(batch)
        return SmallBatch(sweeps, batch) if SmallBatch.fits(sweeps, batch) else None

    def vjp(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        kept: Kept | None = None,
        initial_gradient: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Derivatives of ``sum(cotangent * values)``: of the angles (batch, angles) and of the initial state."""
        sweeps = self.sweeps(len(angles))
        start = sweeps.start(initial)
        if not len(angles):
            return np.zeros_like(angles), np.zeros((0, sweeps.tiling.numbers), self.real) if initial_gradient else None
        if self.options.executor is not None:
            pair = self._remote(_remote_vjp, sweeps, angles, start, cotangent, initial_gradient)
            return pair[0], pair[1] if initial_gradient else None
        pieces = []
        for part, begin in sweeps.chunks(len(angles), start) if kept is None else [(slice(None), start)]:
            states = kept or sweeps.forward(angles[part], begin, True)[1]
            pieces.append(sweeps.reverse(angles[part], cotangent[part], states, None, initial_gradient))
        return _joined(pieces, initial_gradient)

    def probabilities(self, angles: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        """Squared modulus (batch, amplitudes) of every amplitude of the final states."""
        return self.kept_probabilities(angles, initial, keep=False)[0]

    def kept_probabilities(
        self, angles: np.ndarray, initial: np.ndarray | None = None, *, keep: bool = True
    ) -> tuple[np.ndarray, Kept | None]:
        """`probabilities`, and the final states if ``keep`` and they fit."""
        sweeps, kept, number = self.sweeps(len(angles)), None, 0
        out = np.zeros((len(angles), sweeps.tiling.amplitudes), angles.dtype)
        for part, start in sweeps.chunks(len(angles), sweeps.start(initial)):
            kept = sweeps.forward(angles[part], start, True)[1]
            out[part] = sweeps.probabilities(kept, len(angles[part]))
            number += 1
        return out, kept if keep and number == 1 else None

    def probabilities_vjp(
        self,
        angles: np.ndarray,
        cotangent: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        kept: Kept | None = None,
        initial_gradient: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Derivative of ``sum(cotangent * probabilities)``, cotangent (batch, amplitudes), in one sweep."""
        sweeps = self.sweeps(len(angles)) if kept is None else kept.sweeps
        start, pieces = sweeps.start(initial), []
        for part, begin in sweeps.chunks(len(angles), start) if kept is None else [(slice(None), start)]:
            states = kept or sweeps.forward(angles[part], begin, True)[1]
            seeds = sweeps.seeds(states, cotangent[part])
            pieces.append(sweeps.reverse(angles[part], cotangent[part], states, seeds, initial_gradient))
        if not pieces:
            return np.zeros_like(angles), np.zeros((0, sweeps.tiling.numbers), self.real) if initial_gradient else None
        return _joined(pieces, initial_gradient)

    def states(
        self,
        angles: np.ndarray,
        view: StateView,
        turn: np.ndarray,
        out: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        keep: bool = False,
    ) -> Kept | None:
        """Final states into ``out`` (batch, 2**qubits), times ``turn`` (batch or 1,); kept if ``keep`` and they fit."""
        sweeps, kept, number = self.sweeps(len(angles)), None, 0
        for part, start in sweeps.chunks(len(angles), sweeps.start(initial)):
            kept = sweeps.forward(angles[part], start, True)[1]
            sweeps.write_states(kept, view, turn if len(turn) == 1 else turn[part], out[part])
            number += 1
        return kept if keep and number == 1 else None

    def states_vjp(
        self,
        angles: np.ndarray,
        view: StateView,
        turn: np.ndarray,
        cotangent: np.ndarray,
        initial: np.ndarray | None = None,
        *,
        kept: Kept | None = None,
        initial_gradient: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Derivatives of ``Re sum(conj(cotangent) * states)`` with respect to the angles and the initial state.

        Also the derivative (batch,) with respect to a, where ``turn`` is exp(i a).
        """
        sweeps = self.sweeps(len(angles)) if kept is None else kept.sweeps
        start = sweeps.start(initial)
        pieces, by_phase = [], [np.zeros(0)]
        for part, begin in sweeps.chunks(len(angles), start) if kept is None else [(slice(None), start)]:
            states = kept or sweeps.forward(angles[part], begin, True)[1]
            seeds, more = sweeps.state_seeds(states, view, turn if len(turn) == 1 else turn[part], cotangent[part])
            pieces.append(sweeps.reverse(angles[part], angles[part], states, seeds, initial_gradient))
            by_phase.append(more)
        if not pieces:
            empty = np.zeros((0, sweeps.tiling.numbers), self.real) if initial_gradient else None
            return np.zeros_like(angles), empty, by_phase[0]
        return *_joined(pieces, initial_gradient), np.concatenate(by_phase)

    @property
    def basis(self) -> tuple[int, ...]:
        """The meaning of the bits of an amplitude of `probabilities` and of the initial state."""
        return self._likely.schedule.basis

    @property
    def constant(self) -> Slot:
        """The final state is exp(-i/2 of this angle) times what `states` returns."""
        return self._likely.schedule.constant

    @property
    def amplitudes(self) -> int:
        """Number of amplitudes of a state."""
        return self._likely.tiling.amplitudes

    # Inside

    @property
    def _likely(self) -> Sweeps:
        """The preferred lanes for the size of the program; the others are scheduled only when needed."""
        return self._by_samples if self.program.num_bits <= _SAMPLE_LANE_BITS else self._by_amplitudes

    @property
    def _by_samples(self) -> Sweeps:
        return self._made(0)

    @property
    def _by_amplitudes(self) -> Sweeps:
        return self._made(lanes(self.real).bit_length() - 1)

    def _made(self, lane_bits: int) -> Sweeps:
        if lane_bits not in self._sweeps_of:
            plan = schedule(self.program, lane_bits)
            self._sweeps_of[lane_bits] = Sweeps(plan, self.options.dtype, self.threads, self.options.memory)
        return self._sweeps_of[lane_bits]

    def sweeps(self, batch: int) -> Sweeps:
        """Sample lanes or amplitude lanes, whichever takes less time for this batch."""
        found = self._chosen.get(batch)
        if found is None:
            if len(self._chosen) >= _KEPT:
                self._chosen.clear()
            found = self._chosen[batch] = self._by_samples if self._samples_pay(batch) else self._by_amplitudes
        return found

    def _samples_pay(self, batch: int) -> bool:
        """Whether sample lanes are faster."""
        kind, width = self.options.lane_kind, lanes(self.real)
        bits = self._likely.tiling.amplitudes.bit_length() - 1
        if kind is not None or bits < max(width.bit_length() + 1, 6):
            return kind != "amplitude" or bits < width.bit_length() + 1
        threads = 1 if self.options.executor is not None else self.threads
        # Measured: for small states, amplitude lanes lose time by moving lanes and starting passes; sample lanes are
        # slower once two states for each lane of a vector no longer fit in the cache.
        moves = 1 + width / 8 * 2 ** ((9 - bits) / 2)
        misses = 1.0 if bits <= _SAMPLE_LANE_BITS else 1.3 if bits == _SAMPLE_LANE_BITS + 1 else 2.0
        by_samples = ceil(ceil(batch / width) / threads) * misses
        return by_samples <= ceil(batch / threads) * moves / width

    def _remote(self, function: Any, sweeps: Sweeps, angles: np.ndarray, start: np.ndarray, *more: Any) -> Any:
        executor = self.options.executor
        assert executor is not None
        workers = self.options.num_threads or _executors.workers_of(executor)
        tasks = []
        for first, last in _executors.deal(len(angles), workers):
            begin = start if len(start) <= 1 else start[first:last]
            rest = [m[first:last] if isinstance(m, np.ndarray) else m for m in more]
            tasks.append((sweeps.alone(), angles[first:last], begin, *rest))
        results = _executors.executor_map(executor, function, tasks)
        return tuple(np.concatenate(column) for column in zip(*results, strict=True))


def _joined(pieces: list, initial_gradient: bool) -> tuple[np.ndarray, np.ndarray | None]:
    if len(pieces) == 1:
        return pieces[0][0], pieces[0][1] if initial_gradient else None
    by_angles, by_initial = zip(*pieces, strict=True)
    return np.concatenate(by_angles), np.concatenate(by_initial) if initial_gradient else None


def _remote_values(sweeps: Sweeps, angles: np.ndarray, start: np.ndarray) -> tuple:
    return (sweeps.forward(angles, start, False)[0],)


def _remote_vjp(sweeps: Sweeps, angles: np.ndarray, start: np.ndarray, cotangent: np.ndarray, initial: bool) -> tuple:
    pieces = []
    for part, begin in sweeps.chunks(len(angles), start):
        states = sweeps.forward(angles[part], begin, True)[1]
        pieces.append(sweeps.reverse(angles[part], cotangent[part], states, None, initial))
    return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))
