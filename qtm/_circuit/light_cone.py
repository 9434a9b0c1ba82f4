"""The light cone: rotations and phases that at least one observable can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm._circuit.pauli_program import PauliProgram, Slot


class _Cone:
    """Generators seen so far, walking backwards from the observables.

    Anticommuting with a product of generators is linear over GF(2): what anticommutes with none of a basis of
    their span anticommutes with none of them. So a step costs the rank, however long the circuit is.
    """

    def __init__(self, x: np.ndarray, z: np.ndarray) -> None:
        self.basis: list[tuple[int, int]] = []
        self.reduced: dict[int, tuple[int, int]] = {}  # by leading bit of x, or ~ that of z where x is 0
        for pair in set(zip(x.tolist(), z.tolist(), strict=True)):
            self._add(*pair)

    def sees(self, x: int, z: int) -> bool:
        for other_x, other_z in self.basis:
            if ((other_x & z).bit_count() ^ (other_z & x).bit_count()) & 1:
                self._add(x, z)
                return True
        return False

    def _add(self, x: int, z: int) -> None:
        while x or z:
            key = x.bit_length() if x else ~z.bit_length()
            entry = self.reduced.get(key)
            if entry is None:
                self.reduced[key] = x, z
                self.basis.append((x, z))
                return
            x, z = x ^ entry[0], z ^ entry[1]


@dataclass(frozen=True, slots=True)
class _Item:
    """One rotation of the circuit: about i X^x Z^z where x is not 0, about Z^z where it is."""

    x: int
    z: int
    slot: Slot

    def commutes(self, other: _Item) -> bool:
        return not ((self.x & other.z).bit_count() ^ (self.z & other.x).bit_count()) & 1


def _visible(program: PauliProgram, x: np.ndarray, z: np.ndarray) -> list[_Item]:
    """The rotations that an observable can see, in order."""
    cone = _Cone(x, z)
    items: list[_Item] = []
    for phase in reversed(program.phases):
        items += [_Item(*r) for r in reversed(phase.rotations) if cone.sees(r[0], r[1])]
        items += [_Item(0, m, s) for m, s in reversed(phase.diagonal.items()) if cone.sees(0, m)]
    return items[::-1]
