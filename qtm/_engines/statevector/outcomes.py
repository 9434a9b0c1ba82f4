"""Probabilities of outcomes, their derivatives, and samples from one cone, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtm._circuit.causal_cone import Cone
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gf2 import odd_bits, parities
from qtm._circuit.pauli_program import PauliProgram
from qtm._engines.memory import check_room
from qtm._engines.options import Options
from qtm._engines.outputs import Probabilities, Samples
from qtm._engines.statevector.column_sums import ColumnSums
from qtm._engines.statevector.cone_batch import ConeBatch
from qtm._engines.statevector.cone_tangents import ConeTangents

Arrays = Sequence[np.ndarray]


class OutcomeEngine:
    """Joint outcomes of qubits: bit j of an outcome is qubit j of the output."""

    def __init__(
        self,
        circuit: FlatCircuit,
        program: PauliProgram,
        cones: Sequence[Cone],
        output: Probabilities | Samples,
        options: Options,
    ) -> None:
        self.batch = ConeBatch(circuit, cones, options)
        basis, rows = self.batch.engine.basis, np.arange(self.batch.engine.amplitudes)
        self._flips = [program.frame.z[q][0] // 2 & 1 for q in output.qubits]  # the sign of the image of Z
        # A bit of the outcome is the parity of the row bits whose basis masks have an odd overlap with it.
        self._masks = [parities(mask, basis) for mask in cones[0].program.measured.outcomes]
        if isinstance(output, Probabilities):
            outcome = np.zeros_like(rows)
            for place in range(len(self._masks)):
                outcome |= self._bit(rows, place) << place
            self._sums = ColumnSums(outcome, 1 << len(self._masks))

    def _bit(self, rows: np.ndarray, place: int) -> np.ndarray:
        bits: np.ndarray = odd_bits(rows, np.int64(self._masks[place])).astype(np.int64) ^ self._flips[place]
        return bits

    def _weights(self, angles: np.ndarray, prepared: Arrays, keep: bool = False) -> tuple[np.ndarray, Any]:
        """Squared modulus (batch, rows) of the amplitudes, and the states for one `vjp`."""
        start = self.batch.start(prepared, len(angles))
        return self.batch.engine.kept_probabilities(self.batch.angles(angles), start, keep=keep)

    def forward(self, angles: np.ndarray, prepared: Arrays, keep: bool) -> tuple[np.ndarray, Any]:
        """Probabilities (batch, outcomes), and the states for one `vjp`."""
        check_room("probabilities", len(angles), self._sums.size, angles.itemsize)
        weights, kept = self._weights(angles, prepared, keep)
        return self._sums.add_up(weights), kept

    def vjp(
        self, angles: np.ndarray, prepared: Arrays, cotangent: np.ndarray, kept: Any, by_prepared: bool
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """Derivatives with respect to angles (batch, angles) and prepared amplitudes, in one sweep for all outcomes."""
        start = self.batch.start(prepared, len(angles))
        by_local, by_rows = self.batch.engine.probabilities_vjp(
            self.batch.angles(angles),
            self._sums.pull_back(cotangent),
            start,
            kept=kept,
            initial_gradient=by_prepared and start is not None,
        )
        amplitudes = [np.zeros_like(p) for p in prepared]
        if by_rows is not None:
            self.batch.pull_back(prepared, by_rows, amplitudes)
        return self.batch.scatter(by_local), amplitudes if by_prepared else None

    def jvp(self, angles: np.ndarray, prepared: Arrays, direction: np.ndarray, tangents: Arrays | None) -> np.ndarray:
        """Derivatives (batch, outcomes) along a direction of angles and prepared amplitudes."""
        point = self.batch.point(angles, direction, prepared, tangents)
        return self._sums.add_up(ConeTangents(self.batch.engine).probabilities(point))

    def second(
        self,
        angles: np.ndarray,
        prepared: Arrays,
        cotangent: np.ndarray,
        direction: np.ndarray,
        tangents: Arrays | None,
        by_prepared: bool,
    ) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """The derivative of `vjp` along a direction of angles and prepared amplitudes."""
        point = self.batch.point(angles, direction, prepared, tangents)
        by_rows_too = by_prepared and point.start is not None
        own = self._sums.pull_back(cotangent)
        gradient = ConeTangents(self.batch.engine).probabilities_second(point, own, by_rows_too)
        amplitudes = [np.zeros_like(p) for p in prepared]
        if by_rows_too:
            self.batch.pull_back_tangent(prepared, tangents, gradient, amplitudes)
        return self.batch.scatter(gradient.by_angles), amplitudes if by_prepared else None

    def sample(self, angles: np.ndarray, prepared: Arrays, shots: int, generator: np.random.Generator) -> np.ndarray:
        """Bits (batch, shots, qubits) bool."""
        bits = np.zeros((len(angles), shots, len(self._masks)), bool)
        for sample in range(len(angles)):
            own = [p if len(p) == 1 else p[sample : sample + 1] for p in prepared]
            weights = self._weights(angles[sample : sample + 1], own)[0][0].astype(float)
            rows = generator.choice(len(weights), p=weights / weights.sum(), size=shots)
            for place in range(len(self._masks)):
                bits[sample, :, place] = self._bit(rows, place)
        return bits
