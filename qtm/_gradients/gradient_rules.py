"""Derivatives from values alone: the points to evaluate, and the combination of their values to a gradient.

A rule gives points around every sample; an estimator or a device evaluates them; the rule contracts the values with
the cotangent. Nothing here evaluates a circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from qtm._circuit.gates import ShiftRule

# Assumed standard deviation of values without known shot noise: rounding in a simulator.
_ROUNDING = 1e-15


class Rule(Protocol):
    """Points around samples, and the derivative that follows from their values."""

    def points(self, at: np.ndarray) -> np.ndarray:
        """Points (batch, count, coordinates) to evaluate around ``at`` (batch, coordinates), in radians."""

    def combine(self, values: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Derivative (batch, coordinates) of ``sum(cotangent * f)`` from the values of f at the points.

        Args:
            values: (batch, count, observables), in the order of the points.
            cotangent: (batch, observables).
        """


class ParameterShift:
    """The exact derivative with respect to gate angles, each shifted on its own.

    Schuld et al., Phys. Rev. A 99, 032331 (2019) for two terms; `ShiftRule` for more.

    Args:
        rules: the rule of every angle.
        wanted: (angles,) bool, the angles whose derivatives are requested; those of the others are 0 and cost no
        points.
            None for all.

    Example:
        >>> shift = ParameterShift([ShiftRule((1.0,))])
        >>> at = np.array([[0.3]])
        >>> float(shift.combine(np.cos(shift.points(at)), np.ones((1, 1)))[0, 0].round(6))
        -0.29552
    """

    def __init__(self, rules: Sequence[ShiftRule], wanted: np.ndarray | None = None) -> None:
        chosen = range(len(rules)) if wanted is None else np.flatnonzero(wanted).tolist()
        terms = [(k, c, s) for k in chosen for c, s in rules[k].terms]
        self._angle = np.array([k for k, _, _ in terms], dtype=np.intp)  # (count,)
        self._shift = np.array([s for _, _, s in terms], dtype=float)  # (count,)
        self._coefficients = np.array([c for _, c, _ in terms], dtype=float)  # (count,)
        self._num_angles = len(rules)

    @property
    def count(self) -> int:
        """Points per sample."""
        return len(self._angle)

    def points(self, at: np.ndarray) -> np.ndarray:
        """Points (batch, count, angles) around gate angles ``at`` (batch, angles), in radians."""
        points = np.repeat(at[:, None, :], self.count, axis=1)
        points[:, np.arange(self.count), self._angle] += self._shift
        return points

    def combine(self, values: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Derivative (batch, angles) from values (batch, count, observables) at the points."""
        weighted = np.einsum("bpm,bm->bp", values, cotangent) * self._coefficients
        gradient = np.zeros((len(values), self._num_angles))
        np.add.at(gradient.T, self._angle, weighted.T)
        return gradient


class Spsa:
    """An estimate of the derivative from two points per repetition, for any number of parameters.

    Spall, IEEE Trans. Autom. Control 37, 332 (1992), eq. (2.2): all parameters are displaced at once, by
    ``epsilon`` times random signs, which are drawn anew for every sample, so that a mini-batch averages
    over them. The bias is of the order of ``epsilon**2``.

    Args:
        signs: (batch, repeats, parameters) in {-1, 0, 1}; 0 for parameters that are not differentiated.
        epsilon: displacement in radians.
    """

    def __init__(self, signs: np.ndarray, epsilon: float) -> None:
        self._signs, self._epsilon = signs, epsilon

    @classmethod
    def draw(cls, rng: np.random.Generator, batch: int, repeats: int, wanted: np.ndarray, epsilon: float) -> Spsa:
        """Random signs for the ``wanted`` (parameters,) bool."""
        signs = rng.choice((-1.0, 1.0), (batch, repeats, len(wanted)))
        return cls(signs * wanted, epsilon)

    def points(self, at: np.ndarray) -> np.ndarray:
        """Points (batch, count, parameters): all repetitions up, then all down."""
        steps = self._epsilon * self._signs
        return at[:, None, :] + np.concatenate([steps, -steps], axis=1)

    def combine(self, values: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """Derivative (batch, parameters), the mean of the repetitions."""
        up, down = np.split(np.einsum("bpm,bm->bp", values, cotangent), 2, axis=1)  # (batch, repeats) each
        slopes = (up - down) / (2 * self._epsilon)
        return np.einsum("br,brk->bk", slopes, self._signs) / self._signs.shape[1]


def balanced_epsilon(noise: float, num_parameters: int) -> float:
    """The displacement, in radians, that minimises the error of a central difference from shot noise and curvature.

    The error of ``(f(e) - f(-e)) / 2e`` has variance ``noise**2 / (2 e**2)`` and bias ``f''' e**2 / 6``:
    their mean square is minimal at ``e = (3 noise / f''')**(1/3)``. Along k random signs, angles of unit
    frequency oscillate with a frequency of about ``sqrt(k)``, hence ``f''' = k**1.5``.

    Args:
        noise: standard deviation of a value; 0 for an exact one.
        num_parameters: number of parameters displaced at once.
    """
    return float(np.cbrt(3 * max(noise, _ROUNDING)) / np.sqrt(max(num_parameters, 1)))
