"""Equal cones in one batch on one device: a row of their schedule is a cone of a sample; cones vary fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.causal_cone import Cone
from qtm._circuit.expressions import LARGEST_ANGLE
from qtm._circuit.flatten import FlatCircuit
from qtm._engines.options import Options
from qtm._engines.statevector.prepared_rows import PreparedRows, times
from qtm._engines.triton_statevector import launch
from qtm._engines.triton_statevector.schedule import compressed, schedule
from qtm._engines.triton_statevector.sparse_map import SparseMap
from qtm._engines.triton_statevector.sweeps import Sweeps, Turns, complex_states, parts_of

REAL = {"complex64": torch.float32, "complex128": torch.float64}


class Target(NamedTuple):
    """The point of derivatives, angles (samples, angles) and prepared amplitudes, and which of them are requested."""

    angles: Tensor
    prepared: Sequence[Tensor]
    by_prepared: bool


class Chunk(NamedTuple):
    """A part of a batch after the forward sweep."""

    part: slice
    turns: Turns
    strings: Tensor  # (rows, strings)
    state: Tensor | None  # (rows, parts, amplitudes), if kept

    @property
    def final(self) -> Tensor:
        """The final states, which must have been kept."""
        assert self.state is not None
        return self.state


class ConeBatch:
    """Cones that share a program, on one device.

    Args:
        circuit: the circuit of the cones.
        cones: equal ones.
        options: dtype and memory.
        tile_bits: log2 of the amplitudes of a tile, at most.
        device: the device to compute on.
    """

    def __init__(
        self, circuit: FlatCircuit, cones: Sequence[Cone], options: Options, tile_bits: int, device: torch.device
    ) -> None:
        self.cones, self.device, self.real = tuple(cones), device, REAL[options.dtype]
        self.plan = schedule(cones[0].program, tile_bits)
        self.sweeps = Sweeps(self.plan, self.real, device, options.memory)
        slots = self.plan.slots
        terms = [[(int(cone.angles[a]), c) for a, c in slot.terms.items()] for cone in cones for slot in slots]
        halves = np.array([slot.offset / 2 for slot in slots] * len(cones)).reshape(-1, 1)
        self._longest = max(map(len, terms), default=0)
        start, source, coefficient = compressed(terms)
        tables = start, source, coefficient / 2, np.concatenate([np.cos(halves), np.sin(halves)], 1)
        self._half_angles = [torch.from_numpy(np.ascontiguousarray(table)).to(device) for table in tables]
        by_angle: list[list[tuple[int, float]]] = [[] for _ in circuit.angles]
        for column, row in enumerate(terms):
            for angle, c in row:
                by_angle[angle].append((column, c))
        self._by_angles = SparseMap(by_angle, device)
        self._start = [_PreparedTensors(circuit, cone, device) for cone in cones if cone.program.prepared]

    def by_sample(self, rows: Tensor) -> Tensor:
        """Reshape numbers (rows, columns): all cones of a sample in one row."""
        count = len(self.cones)
        return rows.reshape(len(rows) // count, rows.shape[1] * count)

    # Forward

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> Iterator[Chunk]:
        """The parts of a batch, with their final states if ``keep``."""
        for part in self.sweeps.chunks(len(angles), len(self.cones)):
            turns = self._turns(angles[part])
            yield Chunk(
                part, turns, *self.sweeps.forward(turns, self._initial(prepared, part, len(turns.cosine)), keep)
            )

    def _turns(self, angles: Tensor) -> Turns:
        rows, slots = len(angles) * len(self.cones), len(self.plan.slots)
        cosine, sine = (torch.empty(rows, slots, dtype=self.real, device=self.device) for _ in range(2))
        launch.launch_elements(
            launch.kernels().half_angles, rows * slots, self.device, angles.contiguous(), *self._half_angles,
            cosine, sine, len(angles), angles.shape[1], slots * len(self.cones), self._longest,
            LARGEST_ANGLE,
        )  # fmt: skip
        return Turns(cosine, sine)

    def _initial(self, prepared: Sequence[Tensor], part: slice, rows: int) -> Tensor | None:
        """Initial states (rows or 1, parts, amplitudes); None for amplitude 0."""
        if not self._start:
            return None
        found = [one.rows(_of_part(prepared, part)) for one in self._start]
        if len(found) > 1:  # all cones of a sample, then those of the next
            count = max(rows // len(self.cones), 1)
            found = [torch.stack([f.expand(count, -1) for f in found], 1).flatten(0, 1)]
        return parts_of(found[0], 2).to(self.real).contiguous()

    # Reverse

    def reverse(
        self, target: Target, chunk: Chunk, weights: Tensor | None, adjoint: Tensor | None, into: Sequence[Tensor]
    ) -> Tensor:
        """Derivatives (samples, angles) of a part; those of the prepared amplitudes are added to ``into``.

        They are those of the sum of ``weights`` (rows, strings) times strings, unless the adjoint state is given.
        """
        by_start = target.by_prepared and bool(self._start)
        by_rows, start = self.sweeps.reverse(chunk.turns, chunk.final, weights, adjoint, by_start)
        if start is not None:
            by_cone = complex_states(2 * start).unflatten(0, (-1, len(self.cones)))
            for number, one in enumerate(self._start):
                one.pull_back(_of_part(target.prepared, chunk.part), by_cone[:, number], chunk.part, into)
        return self._by_angles.sums(self.by_sample(by_rows), target.angles.dtype)


def _of_part(prepared: Sequence[Tensor], part: slice) -> list[Tensor]:
    return [p if len(p) == 1 else p[part] for p in prepared]


class _PreparedTensors:
    """The initial state of a cone as a function of the prepared amplitudes of the circuit."""

    def __init__(self, circuit: FlatCircuit, cone: Cone, device: torch.device) -> None:
        self.numbers = cone.preparations
        rows = PreparedRows([circuit.initial[i] for i in self.numbers], cone.basis)
        self.places = [torch.from_numpy(place).to(device) for place in rows.places]
        self.support = torch.from_numpy(rows.support).to(device)

    def rows(self, prepared: Sequence[Tensor]) -> Tensor:
        """Amplitudes (batch or 1, amplitudes)."""
        found: Tensor = times(self.support[None], [prepared[number] for number in self.numbers], self.places)
        return found

    def pull_back(self, prepared: Sequence[Tensor], by_rows: Tensor, part: slice, into: Sequence[Tensor]) -> None:
        """Add the derivatives of each preparation's amplitudes: per sample, or summed if all samples share them."""
        gradient, conjugate = by_rows * self.support, [prepared[number].conj() for number in self.numbers]
        for own, (number, place) in enumerate(zip(self.numbers, self.places, strict=True)):
            rest = times(gradient, conjugate, self.places, own)
            whole = into[number]
            found = torch.zeros(len(rest), whole.shape[1], dtype=rest.dtype, device=rest.device)
            found.index_add_(1, place, rest)
            if len(whole) == 1:
                whole += found.sum(0, keepdim=True)
            else:
                whole[part] += found
