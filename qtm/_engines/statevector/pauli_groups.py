"""Observables as groups of Pauli strings that are measured in one pass over the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from qtm._circuit.causal_cone import Strings
from qtm._engines.statevector.kernels.recipe import STRING_COLUMNS, line
from qtm._engines.statevector.row_basis import Basis, split_tables


class Builder(Protocol):
    """The interface of a schedule that a group needs."""

    basis: Basis
    table_rows: int

    @property
    def row_bits(self) -> int:
        """Bits of a row."""

    def split(self, mask: int) -> tuple[int, int]:
        """A mask's rows and its lanes."""

    def row_index(self, masks: Sequence[int], bits: int) -> int:
        """Start of the index array of the masks."""


class Groups:
    """Strings grouped by row mask and parity, with their sign masks split into tables."""

    def __init__(self, builder: Builder, terms: Strings, parts: int) -> None:
        self.builder = builder
        self.rows: list[list[int]] = []
        self.mask_entries: list[list[tuple[int, float]]] = []
        self.mask_lanes: list[int] = []
        grouped: dict[tuple[int, int], dict[int, list[tuple[int, float]]]] = {}
        x_rows = {x: builder.basis.coordinates(x) for x in map(int, np.unique(terms.x))}
        z_rows = builder.basis.functionals(terms.z)
        for m, coef, k, x, z in zip(terms.output, terms.coef, terms.k, terms.x, z_rows, strict=True):
            row_x = x_rows[int(x)]
            odd = int(k) & 1
            if row_x is None or (odd and parts == 1):
                continue  # the string maps the state out of its support, or is imaginary on a real state
            sign = 1.0 if k in (0, 3) else -1.0
            grouped.setdefault((row_x, odd), {}).setdefault(int(z), []).append((int(m), sign * coef))
        for (x, odd), masks in grouped.items():
            self._add(x, odd, masks)

    def _add(self, x: int, odd: int, masks: dict[int, list[tuple[int, float]]]) -> None:
        bits, (mask, lane) = self.builder.row_bits, self.builder.split(x)
        for first, second in split_tables(list(masks)):
            self.rows.append(
                line(
                    STRING_COLUMNS,
                    string_mask=mask,
                    string_odd=odd,
                    string_first=len(self.mask_entries),
                    string_counts=[len(first), len(second)],
                    string_index=[self.builder.row_index(first, bits), self.builder.row_index(second, bits)],
                    string_lanes=lane,
                )
            )
            self.mask_entries += [masks[m] for m in (*first, *second)]
            self.mask_lanes += [self.builder.split(m)[1] for m in (*first, *second)]
            rows = (1 << len(first)) + (1 << len(second))
            self.builder.table_rows = max(self.builder.table_rows, rows)
