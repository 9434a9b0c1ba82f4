"""Sweeps of states together with their tangents: derivatives along a direction, of values and of derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from qtm._engines.announced_kernel import AnnouncedKernel
from qtm._engines.statevector.buffer_pool import aligned
from qtm._engines.statevector.kernels import tangent
from qtm._engines.statevector.kernels.tangent import Direction
from qtm._engines.statevector.sweeps import Kept, Sweeps, summed
from qtm._engines.statevector.thread_pool import run_together

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
        works = sweeps.workspaces(parts)
        evaluate = _EVALUATE.for_kind(sweeps.real, angles.dtype)
        calls = [
            partial(
                evaluate, sweeps.recipe, work, self._along(), angles, direction, start, start_tangent,
                states[p.place], tangents[p.place], values[p.team.member], p.first, p.last, sweeps.tiny, p.team,
            )
            for p, work in zip(parts, works, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort)
        sweeps.recycle_workspaces(works)
        if keep:
            return summed(values), Kept(sweeps, parts, states), Kept(sweeps, parts, tangents)
        sweeps.recycle([*states, *tangents])
        return summed(values), None, None

    def reverse(
        self,
        angles: np.ndarray,
        direction: np.ndarray,
        cotangent: np.ndarray,
        kept: Kept,
        kept_tangents: Kept,
        seeds: tuple[list[np.ndarray], list[np.ndarray]] | None,
        initial_gradient: bool,
    ) -> Gradient:
        """The derivative along the direction of what `Sweeps.reverse` returns; ``seeds`` with their tangents."""
        sweeps, states, tangents, parts = self.sweeps, kept.take(), kept_tangents.take(), kept.parts
        angles, direction = np.ascontiguousarray(angles), np.ascontiguousarray(direction)
        cotangent = np.ascontiguousarray(cotangent)
        rows = len(angles) if initial_gradient else 0
        by_initial, by_initial_tangent = (np.zeros((rows, sweeps.tiling.numbers), sweeps.real) for _ in range(2))
        gradient = np.zeros((parts[0].team.size, *angles.shape), angles.dtype)
        first, second = seeds or tuple([sweeps.buffer(1) for _ in states] for _ in range(2))
        works = sweeps.workspaces(parts)
        differentiate = _DIFFERENTIATE.for_kind(sweeps.real, angles.dtype, cotangent.dtype)
        calls = [
            partial(
                differentiate, sweeps.recipe, work, self._along(), direction, states[p.place],
                tangents[p.place], cotangent, first[p.place], second[p.place], seeds is not None,
                gradient[p.team.member], by_initial, by_initial_tangent, p.first, p.last, sweeps.tiny, p.team,
            )
            for p, work in zip(parts, works, strict=True)
        ]  # fmt: skip
        run_together(calls, parts[0].team.abort)
        sweeps.recycle_workspaces(works)
        sweeps.recycle([*states, *tangents, *first, *second])
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

    def _along(self) -> Direction:
        recipe, tiling = self.sweeps.recipe, self.sweeps.tiling
        slots, rows = max(len(recipe.slot_offset), 1), self.sweeps.schedule.table_rows
        return Direction(
            aligned((slots * tiling.lanes,), self.sweeps.real), aligned((rows * tiling.lanes,), self.sweeps.real)
        )
