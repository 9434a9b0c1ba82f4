"""The light cone: rotations and phases that at least one observable depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.pauli_program import Phase, Slot
from qtm._circuit.pauli_span import PauliSpan


class Seen(PauliSpan):
    """Relevant strings so far, going backwards from the measured ones."""

    def sees(self, x: int, z: int) -> bool:
        """Whether a rotation about the string is relevant; if so, the string becomes relevant too."""
        seen = self.clashes(x, z)
        if seen:
            self.add(x, z)
        return seen


@dataclass(frozen=True, slots=True)
class Item:
    """One rotation of the circuit: about i X^x Z^z, or about Z^z if x is 0."""

    x: int
    z: int
    slot: Slot

    def commutes(self, other: Item) -> bool:
        return not ((self.x & other.z).bit_count() ^ (self.z & other.x).bit_count()) & 1


def all_items(phases: Sequence[Phase]) -> list[Item]:
    """All rotations, in order."""
    items: list[Item] = []
    for phase in phases:
        items += [Item(0, m, s) for m, s in phase.diagonal.items()]
        items += [Item(*r) for r in phase.rotations]
    return items


def visible(phases: Sequence[Phase], x: np.ndarray, z: np.ndarray) -> list[Item]:
    """The rotations that strings (strings,) with masks x and z depend on, in order."""
    seen = Seen()
    for string in set(zip(x.tolist(), z.tolist(), strict=True)):
        seen.add(*string)
    items: list[Item] = []
    for phase in reversed(phases):
        items += [Item(*r) for r in reversed(phase.rotations) if seen.sees(r[0], r[1])]
        items += [Item(0, m, s) for m, s in reversed(phase.diagonal.items()) if seen.sees(0, m)]
    return items[::-1]
