"""States of sampled branches; trajectories with the same outcomes share one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_KEPT = 2  # in place of an outcome: the trajectory does not measure here


@dataclass(slots=True)
class Rows:
    """The trajectories of some samples, and their states.

    Attributes:
        states: normalised, (rows, 2**qubits) complex, as `qiskit.quantum_info.Statevector` orders them.
        bits: the measured values, (rows, bits) bool.
        sample: the sample of each row, (rows,).
        row: the row of each trajectory, (trajectories,).
    """

    states: np.ndarray
    bits: np.ndarray
    sample: np.ndarray
    row: np.ndarray

    def rows_of(self, active: np.ndarray) -> np.ndarray:
        """The rows of the ``active`` trajectories, (trajectories,) bool, ascending."""
        return np.unique(self.row[active])

    def read(self, bits: tuple[int, ...]) -> np.ndarray:
        """The values of bits in each trajectory, (trajectories,): that of ``bits[j]`` is bit j."""
        shown = np.zeros(len(self.bits), np.int64)
        for place, bit in enumerate(bits):
            shown |= self.bits[:, bit].astype(np.int64) << place
        return shown[self.row]


@dataclass(frozen=True, slots=True)
class Split:
    """A measurement of some trajectories: the parent of each new row, and the outcome.

    Attributes:
        parent: (new rows,).
        outcome: 0 or 1, or 2 where nothing was measured, (new rows,).
        scale: 1 over the norm of the projected state, (new rows,).
        qubit: the measured qubit.
        resets: whether the qubit is in 0 afterwards.
        parents: number of rows before.
    """

    parent: np.ndarray
    outcome: np.ndarray
    scale: np.ndarray
    qubit: int
    resets: bool
    parents: int

    def states(self, before: np.ndarray) -> np.ndarray:
        """The new rows (rows, 2**qubits) from the old ones: projected, and divided by their norm."""
        after = np.zeros((len(self.parent), before.shape[1]), before.dtype)
        old, new = _by_qubit(before, self.qubit), _by_qubit(after, self.qubit)
        for outcome in (0, 1):
            rows = np.flatnonzero(self.outcome == outcome)
            scale = self.scale[rows, None, None].astype(before.real.dtype)
            new[rows, :, 0 if self.resets else outcome] = old[self.parent[rows], :, outcome] * scale
        kept = self.outcome == _KEPT
        after[kept] = before[self.parent[kept]]
        return after

    def pull_back(self, cotangent: np.ndarray) -> np.ndarray:
        """The adjoint of `states`, with the norms as constants: (parents, 2**qubits)."""
        found = np.zeros((self.parents, cotangent.shape[1]), cotangent.dtype)
        old, new = _by_qubit(found, self.qubit), _by_qubit(cotangent, self.qubit)
        for outcome in (0, 1):  # a row has at most one child for each outcome
            rows = np.flatnonzero(self.outcome == outcome)
            scale = self.scale[rows, None, None].astype(cotangent.real.dtype)
            old[self.parent[rows], :, outcome] = new[rows, :, 0 if self.resets else outcome] * scale
        kept = self.outcome == _KEPT
        found[self.parent[kept]] = cotangent[kept]
        return found


def measured(rows: Rows, active: np.ndarray, uniform: np.ndarray, qubit: int, bit: int | None) -> tuple[Rows, Split]:
    """Measure a qubit in the ``active`` trajectories; the outcome is 1 where ``uniform`` is below its probability.

    Args:
        rows: before the measurement.
        active: (trajectories,) bool.
        uniform: numbers in [0, 1), (trajectories,).
        qubit: the measured qubit.
        bit: the bit that holds the outcome; None for a reset.
    """
    at = rows.rows_of(active)
    weights = np.zeros((len(rows.states), 2))
    weights[at] = (np.abs(_by_qubit(rows.states[at], qubit)) ** 2).sum((1, 3), dtype=np.float64)
    total = weights.sum(1)
    chance = np.divide(weights[:, 1], total, out=np.zeros_like(total), where=total > 0)
    drawn = np.where(active, uniform < chance[rows.row], _KEPT)
    children, row = np.unique(3 * rows.row + drawn, return_inverse=True)
    parent, outcome = children // 3, children % 3
    norm = np.ones(len(parent))
    split = outcome < _KEPT
    norm[split] = weights[parent[split], outcome[split]]
    found = Split(parent, outcome, 1 / np.sqrt(norm), qubit, bit is None, len(rows.states))
    bits = rows.bits[parent]
    if bit is not None:
        bits[split, bit] = outcome[split] == 1
    return Rows(found.states(rows.states), bits, rows.sample[parent], row), found


def _by_qubit(states: np.ndarray, qubit: int) -> np.ndarray:
    """States (rows, 2**qubits) as (rows, higher qubits, 2, lower qubits)."""
    return states.reshape(len(states), -1, 2, 1 << qubit)
