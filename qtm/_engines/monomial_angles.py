"""Angle maps that are sums of monomials, computed and differentiated in compiled code.

Nearly every circuit has angles such as ``w``, ``x``, ``w*x`` or ``2*x + b``. They need no torch operation between the
parameters and the engine, which on small circuits would take longer than the simulation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qtm._circuit.angle_map import AngleMap
from qtm._engines.announced_kernel import AnnouncedKernel
from qtm._engines.statevector.kernels import monomial_tangents, monomials
from qtm._engines.statevector.kernels.monomials import NO_FACTOR, Monomials

_EVALUATE, _PULL_BACK = AnnouncedKernel(monomials.evaluate), AnnouncedKernel(monomials.pull_back)
_PUSH_FORWARD = AnnouncedKernel(monomial_tangents.push_forward)
_PULL_BACK_TANGENT = AnnouncedKernel(monomial_tangents.pull_back_tangent)


class MonomialAngles:
    """The angles of an `AngleMap` whose first ``num_inputs`` parameters are inputs, and the others weights."""

    def __init__(self, angle_map: AngleMap, num_inputs: int) -> None:
        rows = [dict(program[0][1]) for program in angle_map.programs]
        terms = [(angle, m, c) for angle, row in enumerate(rows) for m, c in row.items() if m]
        terms.sort(key=lambda term: any(p < num_inputs for p in term[1]))  # stable: terms without inputs come first
        of_inputs = [[p for p in monomial if p < num_inputs] for _, monomial, _ in terms]
        self._sums = Monomials(
            np.array([row.get((), 0.0) for row in rows], np.float64),
            np.array([angle for angle, _, _ in terms], np.int64),
            np.array([coefficient for _, _, coefficient in terms], np.float64),
            _factors([[p - num_inputs for p in monomial if p >= num_inputs] for _, monomial, _ in terms]),
            _factors([factors for factors in of_inputs if factors]),
        )

    @staticmethod
    def fits(angle_map: AngleMap) -> bool:
        """Whether every angle is a sum of monomials."""
        return all(len(program) == 1 for program in angle_map.programs)

    def angles(
        self, inputs: np.ndarray | None, weights: np.ndarray, batch: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Angles (batch, angles), the weights' part of every term (terms,), and the sum of all angles squared.

        ``inputs`` (batch, inputs) and ``weights`` (weights,) are contiguous and of one dtype.
        """
        count = len(self._sums.constant)
        angles = np.empty((batch, count), weights.dtype)
        scaled, shared = np.empty(len(self._sums.coefficient)), np.empty(count)
        evaluate = _EVALUATE.for_kind(weights.dtype)
        rows = _no_rows(weights) if inputs is None else inputs
        squares: float = evaluate(self._sums, rows, weights, scaled, shared, angles)
        return angles, scaled, squares

    def pull_back(
        self,
        inputs: np.ndarray | None,
        weights: np.ndarray,
        scaled: np.ndarray,
        by_angles: np.ndarray,
        by_inputs_too: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives with respect to inputs (batch or 0, inputs) and weights (weights,) from those of the angles."""
        rows = _no_rows(weights) if inputs is None else inputs
        by_inputs = np.zeros((len(rows) if by_inputs_too else 0, rows.shape[1]), weights.dtype)
        by_weights = np.zeros(len(weights), weights.dtype)
        by_terms, by_shared = np.zeros(len(scaled)), np.zeros(by_angles.shape[1])
        pull = _PULL_BACK.for_kind(weights.dtype)
        pull(self._sums, rows, weights, scaled, by_angles, by_terms, by_shared, by_inputs, by_weights)
        return by_inputs, by_weights

    def push_forward(
        self,
        inputs: np.ndarray | None,
        weights: np.ndarray,
        scaled: np.ndarray,
        moving: tuple[np.ndarray | None, np.ndarray],
        batch: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tangents (terms,) of ``scaled``, and those (batch, angles) of the angles.

        ``moving``: the tangents of inputs, None where they are still, and of weights.
        """
        count, moving_scaled = len(self._sums.constant), np.empty(len(scaled))
        rows = _no_rows(weights) if inputs is None else inputs
        push = _PUSH_FORWARD.for_kind(weights.dtype)
        along, moving_angles = _along(rows, moving[0]), np.empty((batch, count), weights.dtype)
        push(self._sums, rows, weights, scaled, along, moving[1], moving_scaled, np.zeros(count), moving_angles)
        return moving_scaled, moving_angles

    def pull_back_tangent(
        self,
        inputs: np.ndarray | None,
        weights: np.ndarray,
        scaled: np.ndarray,
        moving: tuple[np.ndarray | None, np.ndarray, np.ndarray],
        by_angles: tuple[np.ndarray, np.ndarray],
        by_inputs_too: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tangents of what `pull_back` gives.

        ``moving``: the tangents of inputs, weights and ``scaled``; ``by_angles``: derivatives, and their tangents.
        """
        rows = _no_rows(weights) if inputs is None else inputs
        pull = _PULL_BACK_TANGENT.for_kind(weights.dtype)
        by_inputs = np.zeros((len(rows) if by_inputs_too else 0, rows.shape[1]), weights.dtype)
        by_weights = np.zeros(len(weights), weights.dtype)
        by_terms, by_shared = np.zeros((2, len(scaled))), np.zeros((2, by_angles[0].shape[1]))
        along, *others = moving
        pull(
            self._sums, rows, weights, scaled, _along(rows, along), *others, *by_angles, by_terms, by_shared, by_inputs,
            by_weights,
        )  # fmt: skip
        return by_inputs, by_weights


def _along(rows: np.ndarray, moving: np.ndarray | None) -> np.ndarray:
    return np.zeros_like(rows) if moving is None else moving


def _no_rows(weights: np.ndarray) -> np.ndarray:
    return np.zeros((0, 0), weights.dtype)


def _factors(monomials: Sequence[Sequence[int]]) -> np.ndarray:
    """Factors (terms, most factors of a term), filled up with `NO_FACTOR`."""
    width = max(map(len, monomials), default=0)
    padded = [[*monomial, *[NO_FACTOR] * (width - len(monomial))] for monomial in monomials]
    return np.array(padded, np.int64).reshape(len(monomials), width)
