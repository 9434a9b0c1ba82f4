"""Sweeps of states together with their tangents: derivatives along a direction, of values and of derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qtm._engines.announced_kernel import AnnouncedKernel
from qtm._engines.statevector.buffer_pool import POOL, aligned
from qtm._engines.statevector.kernels import tangent
from qtm._engines.statevector.kernels.sweep import Scratch
from qtm._engines.statevector.kernels.tangent import Direction
from qtm._engines.statevector.sweeps import Kept, Sweeps, summed
from qtm._engines.statevector.thread_pool import run_together
from qtm._engines.statevector.tiling import Part

_STATES = 4  # of a worker: a state and its tangent, and their cotangents
_EVALUATE = AnnouncedKernel(tangent.evaluate_tangent)
_DIFFERENTIATE = AnnouncedKernel(tangent.differentiate_tangent)
_PROJECT = AnnouncedKernel(tangent.project_tangents)


@dataclass(frozen=True, slots=True)
class Gradient:
    """A derivative, and the initial state's part of it."""

    by_angles: np.ndarray  # (batch, angles)
    by_initial: np.ndarray  # (batch or 0, numbers): by the initial state, without the direction
    by_initial_tangent: np.ndarray  # (batch or 0, numbers): its derivative along the direction


class TangentSweeps:
    """The sweeps of one schedule, each with a tangent."""

    def __init__(self, sweeps: Sweeps) -> None:
        self.sweeps = sweeps
        slots, rows = max(len(sweeps.recipe.slot_offset), 1), sweeps.schedule.table_rows
        self._direction_sizes = slots * sweeps.tiling.lanes, rows * sweeps.tiling.lanes
        self._direction_kind = f"direction {self._direction_sizes} {sweeps.real.str}"

    def forward(
        self,
        angles: np.ndarray,  # (batch, angles)
        direction: np.ndarray,  # (batch, angles)
        start: np.ndarray,
        start_tangent: np.ndarray,
        keep: bool,
    ) -> tuple[np.ndarray, Kept | None, Kept | None]:
        """Derivatives (batch, observables) of the values, and the final states and their tangents if ``keep``."""
        sweeps, angles, direction = self.sweeps, np.ascontiguousarray(angles), np.ascontiguousarray(direction)
        parts = sweeps.parts(len(angles))
        values = np.zeros((parts[0].team.size, len(angles), sweeps.schedule.num_outputs), angles.dtype)
        owners = [p for p in parts if p.team.member == 0]
        states, tangents = ([sweeps.buffer(p.last - p.first if keep else 1) for p in owners] for _ in range(2))
        works, alongs = sweeps.workspaces(parts), self._directions(parts)
        evaluate = _EVALUATE.for_kind(sweeps.real, angles.dtype, direction.dtype)
        calls = [
            partial(
                evaluate, sweeps.recipe, work, along, angles, direction, start, start_tangent,
                states[p.place], tangents[p.place], values[p.team.member], p.first, p.last, sweeps.tiny, p.team,
            )
            for p, work, along in zip(parts, works, alongs, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort, sweeps.contention)
        self._recycle(works, alongs, [] if keep else [*states, *tangents])
        if keep:
            return summed(values), Kept(sweeps, parts, states), Kept(sweeps, parts, tangents)
        return summed(values), None, None

    def reverse(
        self,
        direction: np.ndarray,
        cotangent: np.ndarray,
        kept: Kept,
        kept_tangents: Kept,
        seeds: tuple[list[np.ndarray], list[np.ndarray]],
        initial_gradient: bool,
    ) -> Gradient:
        """The derivative along the direction of what `Sweeps.reverse` returns; ``seeds`` with their tangents."""
        buffers = [kept.take(), kept_tangents.take(), *seeds]
        start = self.sweeps.zero_state, self.sweeps.zero_state
        none = direction[:0]
        return self._differentiate(none, direction, start, cotangent, kept.parts, buffers, initial_gradient)

    def second(
        self,
        angles: np.ndarray,
        direction: np.ndarray,
        start: np.ndarray,
        start_tangent: np.ndarray,
        cotangent: np.ndarray,
        initial_gradient: bool,
    ) -> Gradient:
        """The derivative along the direction of the vector-Jacobian product of the values; no states are kept."""
        parts = self.sweeps.parts(len(angles), _STATES)
        owners = sum(p.team.member == 0 for p in parts)
        buffers = [[self.sweeps.buffer(1) for _ in range(owners)] for _ in range(_STATES)]
        both = start, start_tangent
        return self._differentiate(
            np.ascontiguousarray(angles), direction, both, cotangent, parts, buffers, initial_gradient
        )

    def _differentiate(
        self,
        angles: np.ndarray,  # (batch or 0, angles); no rows: the states and tangents, and the seeds of both, are given
        direction: np.ndarray,
        start: tuple[np.ndarray, np.ndarray],
        cotangent: np.ndarray,
        parts: Sequence[Part],
        buffers: list[list[np.ndarray]],
        initial_gradient: bool,
    ) -> Gradient:
        """Reverse sweeps with the states, tangents, seeds and their tangents in ``buffers``, which are given back."""
        sweeps, direction, cotangent = self.sweeps, np.ascontiguousarray(direction), np.ascontiguousarray(cotangent)
        rows = len(direction) if initial_gradient else 0
        by_initial, by_initial_tangent = (np.zeros((rows, sweeps.tiling.numbers), sweeps.real) for _ in range(2))
        gradient = np.zeros((parts[0].team.size, *direction.shape), angles.dtype)
        works, alongs = sweeps.workspaces(parts), self._directions(parts)
        differentiate = _DIFFERENTIATE.for_kind(sweeps.real, angles.dtype, direction.dtype, cotangent.dtype)
        states, tangents, seeds, seed_tangents = buffers
        calls = [
            partial(
                differentiate, sweeps.recipe, work, along, angles, direction, *start, states[p.place],
                tangents[p.place], cotangent, seeds[p.place], seed_tangents[p.place],
                gradient[p.team.member], by_initial, by_initial_tangent, p.first, p.last, sweeps.tiny, p.team,
            )
            for p, work, along in zip(parts, works, alongs, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort, sweeps.contention)
        self._recycle(works, alongs, [buffer for some in buffers for buffer in some])
        return Gradient(summed(gradient), by_initial, by_initial_tangent)

    def metric_product(self, angles: np.ndarray, direction: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Products (batch, angles) of the real part of the quantum geometric tensor with directions (batch, angles)."""
        sweeps = self.sweeps
        pieces = [np.zeros_like(angles[:0])]
        for part, begin in sweeps.chunks(len(angles), start, 2):
            _, kept, tangents = self.forward(angles[part], direction[part], begin, sweeps.zero_state, True)
            assert kept is not None and tangents is not None
            self._project(kept, tangents)
            # A reverse sweep gives 2 Re <seed|derivative of the state>.
            by_angles, _ = sweeps.reverse(angles[part], angles[part], kept, tangents.take(), False)
            pieces.append(by_angles / 2)
        return np.concatenate(pieces)

    def _project(self, kept: Kept, tangents: Kept) -> None:
        """Take the change of the phase out of the tangents (the Berry term); real states have none."""
        if self.sweeps.recipe.parts == 2:
            project, scratch = _PROJECT.for_kind(self.sweeps.real), np.zeros(self.sweeps.tiling.lanes)
            for states, moved in zip(kept.states, tangents.states, strict=True):
                project(states, moved, self.sweeps.tiling.tile_numbers, self.sweeps.recipe.lane_bits, scratch)

    def _directions(self, parts: Sequence[Part]) -> list[Direction]:
        """Room for the direction, for each part."""
        return [POOL.take(self._direction_kind) or self._new_direction() for _ in parts]

    def _new_direction(self) -> Direction:
        return Direction(*(aligned((numbers,), self.sweeps.real) for numbers in self._direction_sizes))

    def _recycle(self, works: list[Scratch], alongs: list[Direction], buffers: list[np.ndarray]) -> None:
        self.sweeps.recycle_workspaces(works)
        self.sweeps.recycle(buffers)
        for along in alongs:
            POOL.give(self._direction_kind, along, along.half.nbytes + along.table.nbytes)
