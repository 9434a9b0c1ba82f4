"""Trajectories through a dynamic circuit, and their derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qtm._circuit.branching import Choice, Measurement, Segment, Step
from qtm._engines.branches.rows import Rows, Split, measured
from qtm._engines.engine import Engine


class _Pass(NamedTuple):
    """A segment that some rows went through."""

    segment: Segment
    at: np.ndarray  # the rows
    sample: np.ndarray  # of each of them
    before: np.ndarray  # their states, (rows, 2**qubits)


class Walk:
    """Some trajectories from the start of the circuit to its last segment.

    Args:
        engines: of every segment.
        last: the segment that ends in the observables.
        angles: of the circuit, (batch, angles).
        prepared: of the circuit.
        uniform: random numbers (measurements, trajectories).
        keep: whether to keep what `differentiate` needs.
    """

    def __init__(
        self,
        engines: Mapping[Segment, Engine],
        last: Segment,
        angles: Tensor,
        prepared: Sequence[Tensor],
        uniform: np.ndarray,
        keep: bool,
    ) -> None:
        self.engines, self.last, self.angles, self.prepared = engines, last, angles, prepared
        self.uniform, self.keep = uniform, keep
        self.tape: list[_Pass | Split] = []

    def start(self, segment: Step, samples: np.ndarray, bits: int) -> None:
        """Start the trajectories of ``samples``, (trajectories,), and run the first segment."""
        assert isinstance(segment, Segment)
        self.first = segment
        own, row = np.unique(samples, return_inverse=True)
        states = self.engines[segment].forward(self._angles(segment, own), self._prepared(own))[0].numpy()
        self.rows = Rows(states, np.zeros((len(own), bits), bool), own, row)

    def follow(self, steps: Sequence[Step], active: np.ndarray) -> None:
        """Take the ``active`` trajectories, (trajectories,) bool, through steps."""
        for step in steps:
            if isinstance(step, Segment):
                self._segment(step, self.rows.rows_of(active))
            elif isinstance(step, Measurement):
                self.rows, split = measured(self.rows, active, self.uniform[step.number], step.qubit, step.bit)
                if self.keep:
                    self.tape.append(split)
            else:
                self._choice(step, active)

    def values(self) -> np.ndarray:
        """Values of the observables in each trajectory, (trajectories, observables)."""
        arguments = self._angles(self.last, self.rows.sample), [torch.from_numpy(self.rows.states)]
        found: np.ndarray = self.engines[self.last].forward(*arguments)[0].numpy()
        return found[self.rows.row].astype(np.float64)

    def differentiate(
        self, cotangent: np.ndarray, by_norm: np.ndarray, by_angles: np.ndarray, by_prepared: Sequence[Tensor]
    ) -> None:
        """Add derivatives with respect to the angles and the prepared amplitudes to arrays of their shapes.

        Args:
            cotangent: of the values, (trajectories, observables).
            by_norm: that of the squared norm of the final state, (trajectories,).
            by_angles: (batch, angles), added to.
            by_prepared: added to.
        """
        states = self.rows.states
        total, norms = np.zeros((len(states), cotangent.shape[1])), np.zeros(len(states))
        np.add.at(total, self.rows.row, cotangent)
        np.add.at(norms, self.rows.row, by_norm)
        at = _Pass(self.last, np.arange(len(states)), self.rows.sample, states)
        back = self._pull_back(at, total.astype(states.real.dtype), by_angles)
        back = back + 2 * norms[:, None].astype(states.real.dtype) * states
        for item in reversed(self.tape):
            if isinstance(item, Split):
                back = item.pull_back(back)
            else:
                back[item.at] = self._pull_back(item, back[item.at], by_angles)
        self._finish(np.unique(self.rows.sample), back, by_angles, by_prepared)

    def _segment(self, segment: Segment, at: np.ndarray) -> None:
        rows = self.rows
        item = _Pass(segment, at, rows.sample[at], rows.states[at])
        if self.keep:
            self.tape.append(item)
        arguments = self._angles(segment, item.sample), [torch.from_numpy(item.before)]
        rows.states[at] = self.engines[segment].forward(*arguments)[0].numpy()

    def _choice(self, choice: Choice, active: np.ndarray) -> None:
        shown = self.rows.read(choice.bits)  # before a case changes them
        for values, steps in choice.cases:
            chosen = active & np.isin(shown, list(values))
            if chosen.any():
                self.follow(steps, chosen)

    def _pull_back(self, item: _Pass, cotangent: np.ndarray, by_angles: np.ndarray) -> np.ndarray:
        """The cotangent (rows, 2**qubits) before a segment from that after it."""
        angles, before = self._angles(item.segment, item.sample), [torch.from_numpy(item.before)]
        after = torch.from_numpy(np.ascontiguousarray(cotangent))
        gradient, by_states = self.engines[item.segment].vjp(angles, before, after, by_prepared=True)
        assert by_states is not None
        self._add(item.segment, item.sample, gradient, by_angles)
        return by_states[0].numpy()

    def _finish(self, own: np.ndarray, back: np.ndarray, by_angles: np.ndarray, by_prepared: Sequence[Tensor]) -> None:
        gradient, found = self.engines[self.first].vjp(
            self._angles(self.first, own), self._prepared(own), torch.from_numpy(back), by_prepared=bool(self.prepared)
        )
        self._add(self.first, own, gradient, by_angles)
        for total, part in zip(by_prepared, found or (), strict=True):
            if len(part) == len(total):
                total += part
            else:
                total[own] += part

    def _add(self, segment: Segment, sample: np.ndarray, gradient: Tensor, by_angles: np.ndarray) -> None:
        first, count = segment.first, len(segment.circuit.angles)
        np.add.at(by_angles[:, first : first + count], sample, gradient.numpy())

    def _angles(self, segment: Segment, sample: np.ndarray) -> Tensor:
        first, count = segment.first, len(segment.circuit.angles)
        return self.angles[torch.from_numpy(sample), first : first + count]

    def _prepared(self, own: np.ndarray) -> list[Tensor]:
        return [p if len(p) == 1 else p[torch.from_numpy(own)] for p in self.prepared]
