"""Derivatives along a direction of what a cone computes, and of its vector-Jacobian products: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qtm._engines.statevector.cone_engine import ConeEngine
from qtm._engines.statevector.sweeps import Kept, StateView, Sweeps
from qtm._engines.statevector.tangent_sweeps import Gradient, TangentSweeps

_COPIES = 4  # of a state and its tangent, and of their cotangents


@dataclass(frozen=True, slots=True)
class Point:
    """Where derivatives are taken, and in which direction."""

    angles: np.ndarray  # (batch, angles)
    direction: np.ndarray  # (batch, angles)
    start: np.ndarray | None = None  # (batch or 1, numbers): the initial state; None for |0...0>
    start_tangent: np.ndarray | None = None  # (batch or 1, numbers); None where the initial state does not move


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What fits the memory together."""

    part: slice
    point: Point
    kept: Kept
    tangents: Kept


class ConeTangents:
    """The tangent pass of one cone program."""

    def __init__(self, engine: ConeEngine) -> None:
        self.engine = engine

    def values(self, point: Point) -> np.ndarray:
        """Derivatives (batch, outputs) of the expectation values along the direction."""
        sweeps, batch = self._sweeps(point), len(point.angles)
        if not batch:
            return np.zeros((0, self.engine.num_outputs), point.angles.dtype)
        start, moved = sweeps.start(point.start), _tangent(sweeps, point.start_tangent)
        return TangentSweeps(sweeps).forward(point.angles, point.direction, start, moved, False)[0]

    def values_second(self, point: Point, cotangent: np.ndarray, initial_gradient: bool) -> Gradient:
        """The derivative along the direction of `ConeEngine.vjp` at ``cotangent`` (batch, outputs)."""
        sweeps = self._sweeps(point)
        if not len(point.angles):
            return _joined([], sweeps, point, initial_gradient)
        start, moved = sweeps.start(point.start), _tangent(sweeps, point.start_tangent)
        return TangentSweeps(sweeps).second(point.angles, point.direction, start, moved, cotangent, initial_gradient)

    def probabilities(self, point: Point) -> np.ndarray:
        """Derivatives (batch, amplitudes) of the squared moduli along the direction."""
        sweeps = self._sweeps(point)
        out = np.zeros((len(point.angles), self.engine.amplitudes), point.angles.dtype)
        for chunk in self._chunks(sweeps, point):
            size = len(chunk.point.angles)
            out[chunk.part] = 2 * sweeps.products(chunk.kept, chunk.tangents, size)
            sweeps.recycle([*chunk.kept.take(), *chunk.tangents.take()])
        return out

    def probabilities_second(self, point: Point, cotangent: np.ndarray, initial_gradient: bool) -> Gradient:
        """The derivative along the direction of `ConeEngine.probabilities_vjp` at ``cotangent`` (batch, amplitudes)."""
        sweeps, found = self._sweeps(point), []
        for chunk in self._chunks(sweeps, point):
            own = cotangent[chunk.part]
            seeds = sweeps.seeds(chunk.kept, own), sweeps.seeds(chunk.tangents, own)
            found.append(self._reverse(sweeps, chunk, own, seeds, initial_gradient))
        return _joined(found, sweeps, point, initial_gradient)

    def states(self, point: Point, view: StateView, turn: np.ndarray, by_phase: np.ndarray, out: np.ndarray) -> None:
        """Tangents (batch, 2**qubits) of the final states into ``out``.

        ``turn`` (batch or 1,) is a factor of the states, exp(i a), and ``by_phase`` (batch,) the direction of a.
        """
        sweeps = self._sweeps(point)
        for chunk in self._chunks(sweeps, point):
            own, moving, part = _of(turn, chunk.part), (1j * by_phase[chunk.part]).astype(turn.dtype), chunk.part
            sweeps.write_states(chunk.tangents, view, own, out[part])
            if by_phase.any():
                states = np.zeros_like(out[part])
                sweeps.write_states(chunk.kept, view, np.ascontiguousarray(own * moving), states)
                out[part] += states
            sweeps.recycle([*chunk.kept.take(), *chunk.tangents.take()])

    def states_second(
        self,
        point: Point,
        view: StateView,
        turn: np.ndarray,
        by_phase: np.ndarray,
        cotangent: np.ndarray,
        initial_gradient: bool,
    ) -> tuple[Gradient, np.ndarray]:
        """The derivative along the direction of `ConeEngine.states_vjp`, its last part (batch,) apart."""
        sweeps, found, by_turn = self._sweeps(point), [], [np.zeros(0)]
        for chunk in self._chunks(sweeps, point):
            own, moving = _of(turn, chunk.part), (1j * by_phase[chunk.part]).astype(turn.dtype)
            cotangents, moving = cotangent[chunk.part], np.ascontiguousarray(own * moving)
            # The seed is half the cotangent times conj(turn), and so its tangent has the derivative of turn.
            seeds, first = sweeps.state_seeds(chunk.tangents, view, own, cotangents)
            moved, second = sweeps.state_seeds(chunk.kept, view, moving, cotangents)
            by_turn.append(first + second)
            found.append(self._reverse(sweeps, chunk, chunk.point.angles, (seeds, moved), initial_gradient))
        return _joined(found, sweeps, point, initial_gradient), np.concatenate(by_turn)

    def metric_product(self, point: Point) -> np.ndarray:
        """Products (batch, angles) of the real part of the quantum geometric tensor with the direction."""
        sweeps = self._sweeps(point)
        return TangentSweeps(sweeps).metric_product(point.angles, point.direction, sweeps.start(point.start))

    def _sweeps(self, point: Point) -> Sweeps:
        return self.engine.sweeps(len(point.angles))

    def _chunks(self, sweeps: Sweeps, point: Point) -> Iterator[_Chunk]:
        tangents, moved = TangentSweeps(sweeps), _tangent(sweeps, point.start_tangent)
        for part, start in sweeps.chunks(len(point.angles), sweeps.start(point.start), _COPIES):
            own = Point(point.angles[part], point.direction[part])
            _, kept, moving = tangents.forward(own.angles, own.direction, start, _of(moved, part), True)
            assert kept is not None and moving is not None
            yield _Chunk(part, own, kept, moving)

    def _reverse(
        self,
        sweeps: Sweeps,
        chunk: _Chunk,
        cotangent: np.ndarray,
        seeds: tuple[list[np.ndarray], list[np.ndarray]],
        initial_gradient: bool,
    ) -> Gradient:
        return TangentSweeps(sweeps).reverse(
            chunk.point.direction, cotangent, chunk.kept, chunk.tangents, seeds, initial_gradient
        )


def _tangent(sweeps: Sweeps, tangent: np.ndarray | None) -> np.ndarray:
    """The tangent of an initial state (batch or 1, numbers) in the dtype of the sweeps; no rows where it is still."""
    return sweeps.zero_state if tangent is None else np.ascontiguousarray(tangent, sweeps.real)


def _of(rows: np.ndarray, part: slice) -> np.ndarray:
    return rows if len(rows) <= 1 else rows[part]


def _joined(found: list[Gradient], sweeps: Sweeps, point: Point, initial_gradient: bool) -> Gradient:
    if len(found) == 1:
        return found[0]
    none = np.zeros((0, sweeps.tiling.numbers), sweeps.real)
    found = found or [Gradient(np.zeros_like(point.angles), none, none)]
    return Gradient(
        np.concatenate([g.by_angles for g in found]),
        np.concatenate([g.by_initial for g in found]),
        np.concatenate([g.by_initial_tangent for g in found]),
    )
