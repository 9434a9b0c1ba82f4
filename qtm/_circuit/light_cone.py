"""The light cone: rotations and phases that at least one observable can see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.pauli_program import Phase, Slot


class Seen:
    """Strings seen so far, walking backwards from what is measured.

    Anticommuting with a product of strings is linear over GF(2): what anticommutes with none of a basis of their
    span anticommutes with none of them. So a step costs the rank, however long the circuit is.
    """

    def __init__(self, strings: Iterable[tuple[int, int]]) -> None:
        self.basis: list[tuple[int, int]] = []
        self._reduced: dict[int, tuple[int, int]] = {}  # by leading bit of x, or ~ that of z where x is 0
        for x, z in strings:
            self._add(x, z)

    def sees(self, x: int, z: int) -> bool:
        """Whether a rotation about the string matters; from then on it is one of those seen."""
        for other_x, other_z in self.basis:
            if ((other_x & z).bit_count() ^ (other_z & x).bit_count()) & 1:
                self._add(x, z)
                return True
        return False

    def _add(self, x: int, z: int) -> None:
        while x or z:
            key = x.bit_length() if x else ~z.bit_length()
            entry = self._reduced.get(key)
            if entry is None:
                self._reduced[key] = x, z
                self.basis.append((x, z))
                return
            x, z = x ^ entry[0], z ^ entry[1]


@dataclass(frozen=True, slots=True)
class Item:
    """One rotation of the circuit: about i X^x Z^z where x is not 0, about Z^z where it is."""

    x: int
    z: int
    slot: Slot

    def commutes(self, other: Item) -> bool:
        return not ((self.x & other.z).bit_count() ^ (self.z & other.x).bit_count()) & 1


def visible(phases: Sequence[Phase], x: np.ndarray, z: np.ndarray) -> list[Item]:
    """The rotations that strings (strings,) of masks x and z can see, in order."""
    seen = Seen(set(zip(x.tolist(), z.tolist(), strict=True)))
    items: list[Item] = []
    for phase in reversed(phases):
        items += [Item(*r) for r in reversed(phase.rotations) if seen.sees(r[0], r[1])]
        items += [Item(0, m, s) for m, s in reversed(phase.diagonal.items()) if seen.sees(0, m)]
    return items[::-1]
