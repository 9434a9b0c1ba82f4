"""The light cone: rotations and phases that at least one observable can see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qtm._circuit.gf2 import odd_bits
from qtm._circuit.pauli_program import PauliProgram, Slot


class _Cone:
    """Generators seen so far, walking backwards from the observables."""

    def __init__(self, x: np.ndarray, z: np.ndarray, more: int) -> None:
        self.count = len(x)
        self.x = np.concatenate([x, np.zeros(more, np.uint64)])
        self.z = np.concatenate([z, np.zeros(more, np.uint64)])

    def sees(self, x: int, z: int) -> bool:
        mine = slice(0, self.count)
        clash = odd_bits(self.x[mine], np.uint64(z)) ^ odd_bits(self.z[mine], np.uint64(x))
        if not clash.any():
            return False
        self.x[self.count], self.z[self.count] = x, z
        self.count += 1
        return True


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
    total = sum(len(p.diagonal) + len(p.rotations) for p in program.phases)
    cone = _Cone(x, z, total)
    items: list[_Item] = []
    for phase in reversed(program.phases):
        items += [_Item(*r) for r in reversed(phase.rotations) if cone.sees(r[0], r[1])]
        items += [_Item(0, m, s) for m, s in reversed(phase.diagonal.items()) if cone.sees(0, m)]
    return items[::-1]
