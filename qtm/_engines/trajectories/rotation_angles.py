"""Angles of rotations from the angles of a circuit, exact for large angles too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qtm._circuit.gates import PauliRotation
from qtm._engines.statevector.kernels import sine_cosine
from qtm._engines.statevector.kernels.compilation import jit
from qtm._engines.statevector.kernels.sweep import LARGE


class Slots(NamedTuple):
    """Rotation j has the angle ``offset[j]`` plus the sum of terms ``start[j]`` up to ``start[j + 1]``."""

    start: np.ndarray  # (rotations + 1,) int64
    source: np.ndarray  # (terms,) int64: which angle
    coefficient: np.ndarray  # (terms,) float64
    offset: np.ndarray  # (rotations,) float64, radians


def slots_of(rotations: Sequence[PauliRotation]) -> Slots:
    """The terms of rotations as arrays."""
    terms = [term for rotation in rotations for term in rotation.terms]
    return Slots(
        np.cumsum([0, *(len(rotation.terms) for rotation in rotations)]),
        np.array([angle for angle, _ in terms], np.int64),
        np.array([coefficient for _, coefficient in terms], np.float64),
        np.array([rotation.offset for rotation in rotations], np.float64),
    )


def rotation_angles(angles: np.ndarray, slots: Slots) -> np.ndarray:
    """Radians (batch, rotations) at circuit angles (batch, angles), large terms modulo 4 pi."""
    found = np.zeros((len(angles), len(slots.offset)))
    _add_up(np.ascontiguousarray(angles, np.float64), slots, found)
    return found


def angle_gradient(by_rotations: np.ndarray, slots: Slots, angles: int) -> np.ndarray:
    """Derivatives of circuit angles (batch, angles) from those of the rotations' angles (batch, rotations)."""
    found = np.zeros((len(by_rotations), angles))
    _pull_back(by_rotations, slots, found)
    return found


@jit
def _pull_back(by_rotations: Any, slots: Slots, found: Any) -> None:
    for sample in range(by_rotations.shape[0]):
        for rotation in range(by_rotations.shape[1]):
            for j in range(slots.start[rotation], slots.start[rotation + 1]):
                found[sample, slots.source[j]] += slots.coefficient[j] * by_rotations[sample, rotation]


@jit
def _add_up(angles: Any, slots: Slots, found: Any) -> None:
    for sample in range(found.shape[0]):
        for rotation in range(found.shape[1]):
            total = slots.offset[rotation]
            for j in range(slots.start[rotation], slots.start[rotation + 1]):
                coefficient, angle = slots.coefficient[j], angles[sample, slots.source[j]]
                # Reduced before the sum: a large term would round off the others.
                if abs(coefficient * angle) < LARGE:
                    total += coefficient * angle
                else:
                    total += sine_cosine.reduced_product(coefficient, angle)
            found[sample, rotation] = total
