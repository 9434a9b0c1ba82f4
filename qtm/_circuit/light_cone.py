"""The light cone: rotations and phases that at least one observable can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm._circuit.pauli_program import PauliProgram, Slot
from qtm._circuit.pauli_span import PauliSpan


class _Cone(PauliSpan):
    """Generators seen so far, walking backwards from the observables."""

    def sees(self, x: int, z: int) -> bool:
        seen = self.clashes(x, z)
        if seen:
            self.add(x, z)
        return seen


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
    cone = _Cone()
    for string in set(zip(x.tolist(), z.tolist(), strict=True)):
        cone.add(*string)
    items: list[_Item] = []
    for phase in reversed(program.phases):
        items += [_Item(*r) for r in reversed(phase.rotations) if cone.sees(r[0], r[1])]
        items += [_Item(0, m, s) for m, s in reversed(phase.diagonal.items()) if cone.sees(0, m)]
    return items[::-1]
