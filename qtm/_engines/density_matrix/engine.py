"""Exact simulation of noisy circuits: the density matrix in Pauli coordinates, with its derivatives."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qtm import _executors
from qtm._circuit.channels import CHANNELS
from qtm._circuit.flatten import FlatCircuit
from qtm._engines.batch_shares import DealtEngine
from qtm._engines.density_matrix import outputs
from qtm._engines.density_matrix.kernels.recipe import Workspace
from qtm._engines.density_matrix.kernels.sweep import differentiate, evaluate
from qtm._engines.density_matrix.operations import Numbers
from qtm._engines.density_matrix.schedule import Schedule, Terms, extent, schedule
from qtm._engines.density_matrix.start import Start
from qtm._engines.engine import SAMPLES, VALUES, VJP, Cost, Engine, Plan, SimulationMethod
from qtm._engines.memory import SMALL, budget
from qtm._engines.options import Options, real_dtype
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples
from qtm._engines.statevector.buffer_pool import POOL, aligned
from qtm._engines.statevector.contention import Contention
from qtm._engines.statevector.kernels import simd
from qtm._engines.statevector.thread_pool import KERNEL_STARTED, run_together
from qtm._errors import OutOfMemory

_LOGGER = logging.getLogger("qtm")
# Real multiply-adds that are worth a second thread.
_WORTH_A_THREAD = 2_000_000
_NOBODY = np.zeros(1, np.int64)
_compiled: set[tuple[str, Any]] = set()


@dataclass(frozen=True, slots=True)
class DensityMatrix(SimulationMethod):
    """Exact expectation values and probabilities under noise, and their derivatives.

    The density matrix is a real vector over Pauli strings. Clifford gates are free, a rotation rotates pairs of
    coordinates, a channel scales and shifts them. Only coordinates that the observables depend on are computed.
    """

    name: ClassVar[str] = "density_matrix"
    simulates_noise: ClassVar[bool] = True
    gives: ClassVar[Mapping[type, frozenset[str]]] = {
        Expectation: frozenset({VALUES, VJP}),
        Probabilities: frozenset({VALUES, VJP}),
        Samples: frozenset({SAMPLES}),
    }

    def cost(self, circuit: FlatCircuit, output: Output, options: Options) -> Cost:
        """The predicted cost of one sample; without noise a state vector always costs less."""
        if not circuit.is_noisy:
            return Cost(inf, inf)
        bits, turns, scales = extent(circuit, _terms(circuit, output))
        size = real_dtype(options.dtype).itemsize
        return Cost(2.0**bits * (3.5 * turns + 3.0 * scales), 2.0 * 2.0**bits * size)

    def compile(self, circuit: FlatCircuit, output: Output, options: Options) -> Engine:
        """The engine for one output."""
        real = real_dtype(options.dtype)
        plan = schedule(circuit, _terms(circuit, output), real.itemsize)
        start = Start(circuit.initial, plan.start_basis, circuit.num_qubits) if circuit.initial else None
        matrices: tuple[np.ndarray, ...] = ()
        if not isinstance(output, Expectation):
            matrices = tuple(outputs.outcome_matrices(_qubits(output), circuit.readout))
        if options.executor is None:
            return DensityMatrixEngine(plan, output, options, start, matrices, len(circuit.angles))
        alone = replace(options, executor=None, num_threads=1, backward_threads=None)  # one thread per worker
        engine = DensityMatrixEngine(plan, output, alone, start, matrices, len(circuit.angles))
        return DealtEngine(engine, options.executor, options.num_threads)


def _qubits(output: Output) -> tuple[int, ...]:
    assert isinstance(output, Probabilities | Samples)
    return output.qubits


def _terms(circuit: FlatCircuit, output: Output) -> Terms:
    if isinstance(output, Expectation):
        return outputs.observable_terms(output.observables, circuit.num_qubits, circuit.readout)
    return outputs.outcome_terms(_qubits(output))


@dataclass(slots=True)
class Kept:
    """Final states of a forward sweep, for one reverse sweep of the same angles, which consumes them."""

    shares: list[tuple[int, int]]
    states: list[np.ndarray]  # for each share (tiles, rows * lanes)
    checkpoints: list[np.ndarray]

    def take(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The states and checkpoints, once."""
        taken, self.states = (self.states, self.checkpoints), []
        return taken


class DensityMatrixEngine(Engine):
    """A noisy circuit compiled for one output."""

    def __init__(
        self,
        plan: Schedule,
        output: Output,
        options: Options,
        start: Start | None,
        matrices: tuple[np.ndarray, ...],
        num_angles: int,
    ) -> None:
        self.schedule, self.output, self.options, self.start = plan, output, options, start
        self.matrices, self.num_angles = matrices, num_angles
        self.real = real_dtype(options.dtype)
        self.lanes = simd.lanes(self.real)
        self.threads = _executors.resolve_threads(options.num_threads)
        self._contention = Contention()
        self.numbers = np.array([plan.numbers.constants], np.float64)  # (1, numbers)
        self.learned = _by_kind(plan.numbers)
        self._size = self.lanes << plan.row_bits  # numbers of one tile's state
        self._workspace_kind = "density_matrix", plan.recipe.tile_rows, len(plan.recipe.slot_offset), self.real.str

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self.schedule, self.output, self.options, self.start, self.matrices, self.num_angles
        return DensityMatrixEngine, arguments

    # The protocol

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor, Any]:
        """The output (batch, outputs), and the residuals if ``keep`` and they fit in memory."""
        rows, kept = self._values(_array(angles), self._start(prepared), self._numbers(angles).numpy(), keep)
        values = torch.from_numpy(rows)
        return (outputs.apply_to_bits(self.matrices, values) if self.matrices else values), kept

    def vjp(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        residuals: Any = None,
        *,
        by_prepared: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Pull a cotangent (batch, outputs) back to the angles and, if requested, to the prepared amplitudes."""
        if self.matrices:
            cotangent = outputs.apply_to_bits([m.T for m in self.matrices], cotangent)
        cotangent = cotangent.to(angles.dtype)
        numbers = self._numbers(angles)
        by_angles, by_numbers, by_start = self._derivatives(
            _array(angles), self._start(prepared), numbers.numpy(), _array(cotangent), residuals, by_prepared
        )
        gradient = torch.from_numpy(by_angles)
        if self.learned:
            gradient = gradient + self._by_strengths(angles, torch.from_numpy(by_numbers))
        if not by_prepared:
            return gradient, None
        return gradient, () if self.start is None else self.start.vjp(prepared, torch.from_numpy(by_start))

    def sample(
        self, angles: Tensor, prepared: Sequence[Tensor], shots: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Bits (batch, shots, qubits) bool, drawn from the exact probabilities."""
        chances = self.forward(angles, prepared)[0].double().clamp(min=0).numpy()
        chances = chances / chances.sum(1, keepdims=True)
        drawn = np.stack([generator.choice(chances.shape[1], shots, p=row) for row in chances])
        return (drawn[:, :, None] >> np.arange(len(_qubits(self.output))) & 1).astype(bool)

    def plan(self, batch: int) -> Plan:
        """Memory and arithmetic of a batch of this size."""
        tiles = -(-batch // self.lanes)
        state = self._size * self.real.itemsize
        states = tiles * (1 + self.schedule.checkpoints) + min(self.threads, max(tiles, 1))
        notes = []
        if self.schedule.checkpoints:
            notes.append(f"{self.schedule.checkpoints} states are kept: channels too strong to be undone by division")
        return Plan(
            DensityMatrix.name, ((float(self.schedule.row_bits), 2),), float(states * state),
            batch * self.schedule.multiply_adds, tuple(notes),
        )  # fmt: skip

    # Strengths of channels

    def _numbers(self, angles: Tensor) -> Tensor:
        """Numbers of the channels (batch or 1, numbers)."""
        numbers = torch.from_numpy(self.numbers)
        if not self.learned:
            return numbers
        numbers = numbers.repeat(len(angles), 1)
        for places, values in zip(self.learned.values(), self._strengths(angles.detach()), strict=True):
            numbers[:, places] = values[:, None, :]
        return numbers

    def _strengths(self, angles: Tensor) -> list[Tensor]:
        """Factors, then shifts, of each kind of learned channel: (batch, count) each."""
        found = []
        for name, strengths in self.learned:
            row = CHANNELS[name]
            values = [angles[:, s].double() if isinstance(s, int) else s for s in strengths]
            numbers = [*row.factors(*values), *(c for _, c in row.shifts(*values))]
            whole = [torch.as_tensor(v, dtype=torch.float64).expand(len(angles)) for v in numbers]
            found.append(torch.stack(whole, 1))
        return found

    def _by_strengths(self, angles: Tensor, by_numbers: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = angles.detach().requires_grad_()
            values = self._strengths(leaf)
            pulled = [by_numbers[:, places].sum(1).double() for places in self.learned.values()]
            return torch.autograd.grad(values, leaf, pulled)[0]

    # Sweeps

    def _start(self, prepared: Sequence[Tensor]) -> np.ndarray:
        if self.start is None:
            return np.zeros((0, 1 << self.schedule.recipe.start_bits))
        return self.start.numpy(prepared).astype(np.float64, copy=False)

    def _values(
        self, angles: np.ndarray, start: np.ndarray, numbers: np.ndarray, keep: bool
    ) -> tuple[np.ndarray, Kept | None]:
        values = np.zeros((len(angles), len(self.schedule.recipe.value_start) - 1), angles.dtype)
        if not len(angles):
            return values, None
        shares = self._shares(len(angles))
        keep = keep and self._fits(-(-len(angles) // self.lanes))
        kept = Kept(shares, [], [])
        for a, b in shares:
            kept.states.append(self._states(b - a if keep else 1))
            kept.checkpoints.append(self._checkpoints(b - a if keep else 0))

        def run(place: int, work: Workspace) -> None:
            evaluate(
                self.schedule.recipe, work, angles, numbers, start, kept.states[place], kept.checkpoints[place],
                values, *shares[place], _NOBODY if place else KERNEL_STARTED,
            )  # fmt: skip

        self._run(evaluate, len(shares), run)
        if keep:
            return values, kept
        self._recycle(kept.states)
        return values, None

    def _derivatives(
        self, angles: np.ndarray, start: np.ndarray, numbers: np.ndarray, cotangent: np.ndarray,
        kept: Kept | None, by_prepared: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        batch, learned = len(angles), bool(self.learned)
        by_angles = np.zeros_like(angles)
        by_numbers = np.zeros((batch if learned else 0, numbers.shape[1]))
        by_start = np.zeros((batch if by_prepared else 0, 1 << self.schedule.recipe.start_bits))
        if not batch:
            return by_angles, by_numbers, by_start
        again = kept is None or not kept.states
        shares = self._shares(batch) if again else kept.shares  # type: ignore[union-attr]
        if again:
            states, checkpoints = [self._states(1) for _ in shares], [self._checkpoints(1) for _ in shares]
        else:
            states, checkpoints = kept.take()  # type: ignore[union-attr]
        pulled = [self._states(1) for _ in shares]

        def run(place: int, work: Workspace) -> None:
            differentiate(
                self.schedule.recipe, work, angles, numbers, start, states[place], checkpoints[place], again,
                cotangent, pulled[place][0], by_angles, by_numbers, by_start, *shares[place],
                _NOBODY if place else KERNEL_STARTED,
            )  # fmt: skip

        self._run(differentiate, len(shares), run)
        self._recycle([*states, *pulled])
        return by_angles, by_numbers, by_start

    def _run(self, kernel: Any, count: int, run: Callable[[int, Workspace], None]) -> None:
        works = [self._workspace() for _ in range(count)]
        calls = [partial(run, place, work) for place, work in enumerate(works)]
        key = kernel.__name__, self.real
        before, began = sum(kernel.stats.cache_misses.values()), time.perf_counter()
        run_together(calls, contention=self._contention)
        if key not in _compiled:
            _compiled.add(key)
            if sum(kernel.stats.cache_misses.values()) > before:
                _LOGGER.warning(
                    "compiled the kernel %r for %s in %.1f s; later runs load it", *key, time.perf_counter() - began
                )
        for work in works:
            POOL.give((*self._workspace_kind, self.numbers.shape), work, sum(array.nbytes for array in work))

    # Sharing and memory

    def _shares(self, batch: int) -> list[tuple[int, int]]:
        tiles = -(-batch // self.lanes)
        worth = tiles * self.lanes * self.schedule.multiply_adds > _WORTH_A_THREAD
        several = worth and not self._contention.is_crowded()
        return _executors.deal(tiles, min(self.threads, self._affordable()) if several else 1)

    def _bytes(self) -> int:
        return self._size * self.real.itemsize * (1 + self.schedule.checkpoints)

    def _fits(self, tiles: int) -> bool:
        size = tiles * self._bytes()
        return size < SMALL or size <= budget(self.options.memory)

    def _affordable(self) -> int:
        """Number of workers that fit in memory, each with a state, its checkpoints and a cotangent."""
        size = self._bytes() + self._size * self.real.itemsize
        if size < SMALL:
            return self.threads
        available = budget(self.options.memory)
        if available < size:
            raise OutOfMemory(
                f"2**{self.schedule.row_bits} coordinates of {self.lanes} samples and their cotangents need "
                f"{size / 2**30:.2f} GiB, and {available / 2**30:.2f} GiB may be used; use fewer qubits, complex64, "
                'or sample trajectories with method="trajectories"'
            )
        return available // size

    def _states(self, tiles: int) -> np.ndarray:
        shape = tiles, self._size
        spare: np.ndarray | None = POOL.take((shape, self.real.str))
        return aligned(shape, self.real) if spare is None else spare

    def _recycle(self, arrays: list[np.ndarray]) -> None:
        for array in arrays:
            POOL.give((array.shape, self.real.str), array, array.nbytes)

    def _checkpoints(self, tiles: int) -> np.ndarray:
        return aligned((max(tiles, 1), self._size * self.schedule.checkpoints if tiles else 0), self.real)

    def _workspace(self) -> Workspace:
        spare: Workspace | None = POOL.take((*self._workspace_kind, self.numbers.shape))
        if spare is not None:
            return spare
        recipe, real = self.schedule.recipe, self.real
        slots, numbers, rows = max(len(recipe.slot_offset), 1), max(self.numbers.shape[1], 1), recipe.tile_rows
        sizes = (slots, slots, 2 * slots, slots, slots, 2 * numbers, numbers, 2, rows, rows)
        dtypes = (np.float64, *[real] * 9)
        arrays = [aligned((n * self.lanes,), d) for n, d in zip(sizes, dtypes, strict=True)]
        indices = np.zeros(rows, np.int32), np.zeros(rows, np.uint8)
        return Workspace(*arrays, *indices)  # type: ignore[call-arg]


def _by_kind(numbers: Numbers) -> dict[tuple[str, tuple[int | float, ...]], Tensor]:
    """Places (channels, count) of the numbers of learned channels, grouped by name and strengths."""
    found: dict[tuple[str, tuple[int | float, ...]], list[list[int]]] = {}
    for channel, first, count in numbers.learned:
        found.setdefault((channel.name, channel.strengths), []).append(list(range(first, first + count)))
    return {kind: torch.tensor(places) for kind, places in found.items()}


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().contiguous().numpy()
    return found
