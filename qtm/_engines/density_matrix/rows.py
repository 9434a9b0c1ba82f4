"""Numbering of Pauli coordinates: bit j of a row stands for basis vector j of the space of relevant strings."""

from __future__ import annotations

import numpy as np

from qtm._circuit.gf2 import combinations
from qtm._engines.density_matrix.layers import Span
from qtm._engines.density_matrix.operations import dual, odd
from qtm._errors import CircuitError


class Rows:
    """The relevant coordinates, numbered."""

    def __init__(self, space: Span, num_qubits: int) -> None:
        self.n, self.space = num_qubits, space
        self.basis = space.basis
        self.bits = len(self.basis)
        used = 0
        for string in self.basis:
            used |= string >> num_qubits | string & (1 << num_qubits) - 1
        qubits = [q for q in range(num_qubits) if used >> q & 1]
        if len(qubits) > 62:
            raise CircuitError(f"the observables depend on {len(qubits)} qubits; with noise, at most 62 are supported")
        self.x = combinations([_packed(s >> num_qubits, qubits) for s in self.basis])
        self.z = combinations([_packed(s, qubits) for s in self.basis])
        self.parity = (np.bitwise_count(self.x & self.z) & 1).astype(np.uint8)
        self._coordinates: dict[int, int] = {}
        self._reduced: dict[int, tuple[int, int]] = {}
        for j, string in enumerate(self.basis):
            rest, total = self._reduce(string, 1 << j)
            self._reduced[rest.bit_length()] = rest, total

    def _reduce(self, string: int, total: int) -> tuple[int, int]:
        while string and (entry := self._reduced.get(string.bit_length())):
            string ^= entry[0]
            total ^= entry[1]
        return string, total

    def row(self, string: int) -> int | None:
        """The row of a string; None where its coordinate is 0."""
        rest, total = self._reduce(string, 0)
        return None if rest else total

    def functional(self, mask: int) -> int:
        """The row mask whose parity is that of a string & ``mask``."""
        return sum(odd(string & mask) << j for j, string in enumerate(self.basis))

    def against(self, string: int) -> int:
        """The row mask whose parity is odd where a row anticommutes with a string."""
        return self.functional(dual(string, self.n))


def _packed(mask: int, qubits: list[int]) -> int:
    return sum((mask >> q & 1) << i for i, q in enumerate(qubits))


def odd_rows(rows: np.ndarray, mask: int) -> np.ndarray:
    """Parity of the overlap of rows with a mask."""
    return (np.bitwise_count(rows & mask) & 1).astype(np.int64)
