"""Prepared amplitudes as rows of the kernels, and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtm._circuit.flatten import Preparation
from qtm._circuit.gf2 import odd_bits
from qtm._engines.statevector.column_sums import ColumnSums
from qtm._locks import cached_property


class PreparedRows:
    """The initial state of a cone, as rows (batch or 1, 2 * rows) of the kernels.

    Args:
        preparations: those in the cone.
        basis: the mask of the circuit's amplitudes for each row bit.
    """

    def __init__(self, preparations: Sequence[Preparation], basis: Sequence[int]) -> None:
        rows = np.arange(1 << len(basis), dtype=np.int64)

        def bit(qubit: int) -> np.ndarray:
            # Qubit q of an amplitude is the parity of the row bits whose basis masks contain q.
            mask = sum((vector >> qubit & 1) << j for j, vector in enumerate(basis))
            return odd_bits(rows, np.int64(mask)).astype(np.int64)

        prepared = {q for preparation in preparations for q in preparation.qubits}
        reached = 0
        for vector in basis:
            reached |= vector
        self.places = []  # for each preparation and row the amplitude: (rows,)
        for preparation in preparations:
            place = np.zeros_like(rows)
            for j, qubit in enumerate(preparation.qubits):
                place |= bit(qubit) << j
            self.places.append(place)
        self.support = np.ones(len(rows), bool)  # all other qubits start in state 0
        for qubit in range(reached.bit_length()):
            if reached >> qubit & 1 and qubit not in prepared:
                self.support &= bit(qubit) == 0
        self.sizes = [1 << len(preparation.qubits) for preparation in preparations]

    def rows(self, amplitudes: Sequence[np.ndarray]) -> np.ndarray:
        """Rows from the amplitudes (batch or 1, 2**qubits) of each preparation."""
        total = times(self.support.astype(amplitudes[0].dtype)[None], amplitudes, self.places)
        return np.ascontiguousarray(total).view(total.real.dtype)

    def pull_back(self, amplitudes: Sequence[np.ndarray], by_rows: np.ndarray) -> list[np.ndarray]:
        """Derivatives with respect to each preparation's amplitudes (batch or 1, 2**qubits) from those of the rows."""
        gradient = np.ascontiguousarray(by_rows).view(np.result_type(by_rows.dtype, np.complex64)) * self.support
        found = []
        conjugate = [part.conj() for part in amplitudes] if len(amplitudes) > 1 else amplitudes  # of one: not read
        for number, (part, sums) in enumerate(zip(amplitudes, self._sums, strict=True)):
            total = sums.add_up(times(gradient, conjugate, self.places, number))
            found.append(total if len(part) == len(total) else total.sum(0, keepdims=True))
        return found

    def tangent(self, amplitudes: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray:
        """The derivative of `rows` along tangents (batch or 1, 2**qubits) of the amplitudes."""
        return np.asarray(sum(self.rows(moved) for moved in _one_replaced(amplitudes, tangents)))

    def pull_back_tangent(
        self,
        amplitudes: Sequence[np.ndarray],
        tangents: Sequence[np.ndarray],
        by_rows: np.ndarray,
        by_rows_tangent: np.ndarray,
    ) -> list[np.ndarray]:
        """The derivative of `pull_back` along tangents of the amplitudes and of the rows' derivatives."""
        found = self.pull_back(amplitudes, by_rows_tangent)
        for number, moved in enumerate(_one_replaced(amplitudes, tangents)):
            for other, more in enumerate(self.pull_back(moved, by_rows)):
                if other != number:  # the derivative with respect to amplitudes does not depend on them
                    found[other] = found[other] + more
        return found

    @cached_property
    def _sums(self) -> list[ColumnSums]:
        return [ColumnSums(place, size) for place, size in zip(self.places, self.sizes, strict=True)]


def times(rows: Any, amplitudes: Sequence[Any], places: Sequence[Any], but: int | None = None) -> Any:
    """Rows (batch or 1, rows) times the amplitudes of all preparations except number ``but``.

    For NumPy arrays and for tensors.
    """
    for number, (part, place) in enumerate(zip(amplitudes, places, strict=True)):
        if number != but:
            rows = rows * part[:, place]
    return rows


def _one_replaced(amplitudes: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The amplitudes with those of one preparation after another replaced by their tangent: the product rule."""
    return [[t if i == n else a for i, a in enumerate(amplitudes)] for n, t in enumerate(tangents)]
