"""Sweeps of one schedule over a batch on one device: forward, and in reverse with the derivatives by all angles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.schedule import MAX_SUMS, Pass, Schedule

_PARTIAL_SUMS = 1 << 28  # maximum bytes of partial sums by tile


@dataclass(frozen=True, slots=True)
class Turns:
    """Cosine and sine (rows, operations) of half the angle of every operation."""

    cosine: Tensor
    sine: Tensor

    def rows(self, part: slice) -> Turns:
        """The turns of some rows."""
        return Turns(self.cosine[part], self.sine[part])


class Traffic(NamedTuple):
    """Launches of a sweep, and bytes of states moved between a GPU and its memory.

    Attributes:
        passes: of the forward sweep, and of the reverse sweep.
        forward: bytes of a forward sweep whose states are not kept.
        both: bytes of both sweeps together.
    """

    passes: int
    forward: int
    both: int


class Sweeps:
    """One schedule on one device; a row is a cone of a sample.

    Args:
        plan: the passes.
        real: dtype of the parts of amplitudes.
        device: the device of the tables and states.
        memory: bytes that states may take; None: a share of the free.
    """

    def __init__(self, plan: Schedule, real: torch.dtype, device: torch.device, memory: int | None) -> None:
        self.schedule, self.real, self.device, self.memory = plan, real, device, memory
        self.parts, self.amplitudes = 1 + plan.is_complex, 1 << plan.num_bits
        self.tiles = 1 << plan.num_bits - plan.tile_bits
        self.unit_bits = launch.unit_bits(plan.tile_bits, device)
        self.row_bytes = self.parts * self.amplitudes * real.itemsize
        self.thread_bits = launch.thread_bits(plan.tile_bits + self.unit_bits)
        sums = MAX_SUMS * self.tiles if self.tiles > 1 else len(plan.slots) + len(plan.string_masks)
        # Bytes of a row: the state, the adjoint state, and sums by tile, those of a pass and the totals.
        self.working_bytes = 2 * self.row_bytes + 2 * sums * real.itemsize
        self._operations, self._groups = self._table(plan.operation_table(self.thread_bits)), self._table(plan.groups)
        self._masks = self._table(plan.string_table(self.thread_bits))
        self._empty = torch.zeros(1, dtype=real, device=device)
        self._index: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self._places = [self._tile_places(one) for one in plan.passes]

    def _table(self, array: np.ndarray) -> Tensor:
        found = torch.from_numpy(array).to(self.device)
        return found if found.numel() else torch.zeros(1, dtype=found.dtype, device=self.device)

    def _tile_places(self, one: Pass) -> tuple[Tensor, Tensor]:
        """Index and bases of the tiles of a pass; passes with the same tiles share them."""
        if one.vectors not in self._index:
            plan = self.schedule
            self._index[one.vectors] = self._table(plan.tile_index(one)), self._table(plan.tile_bases(one))
        return self._index[one.vectors]

    # Sweeps

    def forward(self, turns: Turns, start: Tensor | None, keep: bool) -> tuple[Tensor, Tensor | None]:
        """Strings (rows, strings) in the order of the schedule, and the final states if ``keep``.

        ``start`` (rows or 1, parts, amplitudes); None: amplitude 0 is 1.
        """
        rows, count = len(turns.cosine), len(self.schedule.string_masks)
        strings = torch.zeros(rows, count, dtype=self.real, device=self.device)
        several = len(self.schedule.passes) > 1
        state = self._new_states(rows) if keep or several else self._empty
        source = start
        for number, one in enumerate(self.schedule.passes):
            changed = source is not state or one.last > one.first  # a measuring pass does not change the states
            stored = changed and (keep or number + 1 < len(self.schedule.passes))
            self._evolve(number, one, source, state, turns, strings, stored)
            source = state
        return strings, state if keep else None

    def _evolve(
        self, number: int, one: Pass, source: Tensor | None, state: Tensor, turns: Turns, strings: Tensor, stored: bool
    ) -> None:
        rows, width = len(strings), one.last_string - one.first_string
        sums = strings if self.tiles == 1 else strings.new_empty(rows, self.tiles, width)
        stride = 0 if source is None or len(source) == 1 else self.parts * self.amplitudes
        states = (self._empty if source is None else source, state)
        self._launch(
            launch.kernels().evolve, number, turns, states, (sums, stride), (one.first_string, sums.shape[-1]),
            ZERO=source is None, STORE=stored,
        )  # fmt: skip
        if self.tiles > 1 and width:
            torch.sum(sums, 1, out=strings[:, one.first_string : one.last_string])

    def reverse(
        self, turns: Turns, state: Tensor, weights: Tensor | None, adjoint: Tensor | None, by_start: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Derivatives by the angles (rows, operations) and, if requested, the adjoint of the initial state.

        The adjoint state is given, or follows from ``weights`` (rows, strings). Both states are overwritten.
        """
        rows, operations = turns.cosine.shape
        gradient = torch.empty(rows, operations, dtype=self.real, device=self.device)
        given = adjoint is not None
        last = len(self.schedule.passes) - 1
        if adjoint is None:
            adjoint = self._new_states(rows) if last or by_start else self._empty
        for number in range(last, -1, -1):
            one = self.schedule.passes[number]
            self._pull_back(
                number, (state, adjoint), turns, self._empty if weights is None else weights, gradient,
                LOAD=given or number < last, STORE_STATE=number > 0 and one.last > one.first,
                STORE_ADJOINT=number > 0 or by_start,
            )  # fmt: skip
        return gradient, adjoint if by_start else None

    def _pull_back(
        self, number: int, states: tuple[Tensor, Tensor], turns: Turns, weights: Tensor, gradient: Tensor, **which: bool
    ) -> None:
        one = self.schedule.passes[number]
        sums = gradient if self.tiles == 1 else gradient.new_empty(len(gradient), self.tiles, one.last - one.first)
        strings = len(self.schedule.string_masks)
        self._launch(
            launch.kernels().pull_back, number, turns, states, (weights, sums, strings), (one.first, sums.shape[-1]),
            **which,
        )  # fmt: skip
        if self.tiles > 1 and one.last > one.first:
            torch.sum(sums, 1, out=gradient[:, one.first : one.last])

    def _launch(
        self,
        kernel: Any,
        number: int,
        turns: Turns,
        states: tuple[Tensor, Tensor],
        own: tuple[Any, ...],
        columns: tuple[int, int],
        **constants: bool,
    ) -> None:
        """Run a pass; with several tiles each writes its own sums, whose first column is that of the pass."""
        plan, (rows, operations) = self.schedule, turns.cosine.shape
        one, (index, base) = plan.passes[number], self._places[number]
        units, shift = rows * self.tiles, 0 if self.tiles == 1 else columns[0]
        launch.launch_tiles(
            kernel, -(-units >> self.unit_bits), plan.tile_bits + self.unit_bits, self.device,
            *states, turns.cosine, turns.sine, self._operations, index, base, self._groups, self._masks, *own,
            units, one.first, one.last, one.first_group, one.last_group, operations, plan.num_bits - plan.tile_bits,
            self.amplitudes, shift, columns[1],
            TILE_BITS=plan.tile_bits, UNIT_BITS=self.unit_bits, LOW=self.thread_bits, COMPLEX=int(plan.is_complex),
            **constants,
        )  # fmt: skip

    def _new_states(self, rows: int) -> Tensor:
        return torch.empty(rows, self.parts, self.amplitudes, dtype=self.real, device=self.device)

    # Memory

    def traffic(self, rows: int) -> Traffic:
        """Memory traffic of a batch. The first pass does not read the state, and the last one does not write it.

        Passes that only measure do not write the state, forward or in reverse.
        """
        passes, size = len(self.schedule.passes), rows * self.row_bytes
        writes = [number == 0 or one.last > one.first for number, one in enumerate(self.schedule.passes)]
        forward, reverse = passes - 1 + sum(writes[:-1]), 3 * passes - 2 + sum(writes[1:])
        return Traffic(passes, forward * size, (forward + writes[-1] + reverse) * size)

    def fits(self, rows: int) -> bool:
        """Whether the final states of this many rows may be kept."""
        needed = rows * self.row_bytes
        return needed < _PARTIAL_SUMS or needed <= launch.budget(self.device, self.memory)

    def chunks(self, samples: int, rows_of_sample: int) -> Iterator[slice]:
        """Parts of a batch whose states and adjoint states fit in memory together.

        Raises:
            OutOfMemory: not even those of one sample fit.
        """
        needed = 2 * rows_of_sample * self.row_bytes
        size = samples
        if self.memory is not None or needed * samples >= _PARTIAL_SUMS:
            available = launch.budget(self.device, self.memory)
            launch.check_fits(f"two states of {self.schedule.num_bits} bits", 2 * self.row_bytes, available)
            size = max(available // needed, 1)
        if self.tiles > 1:
            partial = rows_of_sample * self.tiles * MAX_SUMS * self.real.itemsize
            size = min(size, max(_PARTIAL_SUMS // partial, 1))
        for first in range(0, samples, max(size, 1)):
            yield slice(first, first + size)


def complex_states(state: Tensor) -> Tensor:
    """States (rows, parts, amplitudes) as complex ones (rows, amplitudes)."""
    real: Any = state[:, 0]
    return torch.complex(real, state[:, 1] if state.shape[1] == 2 else torch.zeros_like(real))


def parts_of(states: Tensor, parts: int) -> Tensor:
    """Complex states (rows, amplitudes) as (rows, parts, amplitudes)."""
    return torch.stack([states.real, states.imag][:parts], 1)
