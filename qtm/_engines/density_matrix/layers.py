"""The operations on Pauli coordinates that observables depend on, with as few diagonals as possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qtm._engines.density_matrix.operations import Coordinates, Diagonal, Operation, Rotation, Shift, dual, odd


class Span:
    """A growing space of strings over GF(2)."""

    def __init__(self, strings: Iterable[int] = ()) -> None:
        self.reduced: dict[int, int] = {}  # by leading bit
        self.basis: list[int] = []  # in the order of their addition
        for string in strings:
            self.add(string)

    def rest(self, string: int) -> int:
        """The string reduced modulo the space: 0 if the space contains it."""
        while string and (other := self.reduced.get(string.bit_length())):
            string ^= other
        return string

    def add(self, string: int) -> bool:
        """Add a string; return whether the space grew."""
        rest = self.rest(string)
        if rest:
            self.reduced[rest.bit_length()] = rest
            self.basis.append(string)
        return bool(rest)


@dataclass(slots=True)
class Layer:
    """Rotations and shifts in order, then diagonals."""

    turns: list[Rotation | Shift] = field(default_factory=list)
    diagonals: list[Diagonal] = field(default_factory=list)


def visible(coordinates: Coordinates, seen: Iterable[int]) -> tuple[list[Operation], Span]:
    """The operations that the observables depend on, and the space of all their strings.

    ``seen``: the observables' strings.
    """
    n = coordinates.num_qubits
    space = Span(seen)
    kept: list[Operation] = []
    for operation in reversed(coordinates.operations):
        duals = [dual(t, n) for t in operation.touches]
        if any(odd(s & d) for s in space.basis for d in duals):
            kept.append(operation)
            if not isinstance(operation, Diagonal):
                space.add(operation.string)
    return kept[::-1], space


def diagonal_strings(space: Span, num_qubits: int, prepared: Sequence[int]) -> list[int]:
    """A basis of the strings of a space that are I or Z on all qubits but the prepared ones.

    These are the coordinates that are not 0 at the start.
    """
    free = sum(1 << q for q in prepared)
    forbidden = ((1 << num_qubits) - 1 & ~free) << num_qubits
    pivots: dict[int, int] = {}
    found = []
    for string in space.basis:
        while (x := string & forbidden) and (other := pivots.get(x.bit_length())):
            string ^= other
        if x:
            pivots[x.bit_length()] = string
        else:
            found.append(string)
    return Span(found).basis


def supported(operations: Sequence[Operation], start: Sequence[int], num_qubits: int) -> tuple[list[Operation], Span]:
    """The operations except rotations whose coordinates are all 0 or unchanged, and the space of the others."""
    space = Span(start)
    kept = []
    for operation in operations:
        if isinstance(operation, Rotation):
            d = dual(operation.string, num_qubits)
            if not any(odd(s & d) for s in space.basis):
                continue
        if not isinstance(operation, Diagonal):
            space.add(operation.string)
        kept.append(operation)
    return kept, space


def commute(a: Operation, b: Operation, num_qubits: int) -> bool:
    """Whether two operations commute for all angles."""
    if isinstance(a, Diagonal) and isinstance(b, Diagonal):
        return True
    duals = [dual(t, num_qubits) for t in b.touches]
    if not any(odd(s & d) for s in a.touches for d in duals):
        return True
    if isinstance(b, Diagonal):
        a, b = b, a
    if isinstance(a, Diagonal):
        return isinstance(b, Rotation) and a.factors is not None and _same_factors(a, b.string, num_qubits)
    assert not isinstance(b, Diagonal)  # then a would be one too, by the exchange above
    if a.string != b.string:
        return False
    if isinstance(a, Shift) and isinstance(b, Shift):  # of the same qubit: equal Z strings do not suffice
        return a.images[0] ^ b.images[0] in (0, a.string)
    return True  # a rotation about Z leaves I and Z alone, and a shift acts on nothing else


def _same_factors(diagonal: Diagonal, string: int, num_qubits: int) -> bool:
    """Whether the factors of P and of P times the string agree for all P that anticommute with the string."""
    assert diagonal.factors is not None
    own = _number(diagonal, string, num_qubits)
    inside = not Span(diagonal.images).rest(string)
    for p, factor in enumerate(diagonal.factors):
        turns = not inside or _clash(p, own)
        if turns and factor != diagonal.factors[p ^ own]:
            return False
    return True


def _number(diagonal: Diagonal, string: int, num_qubits: int) -> int:
    """A string on a diagonal's qubits as a number: bit 2q if it anticommutes with Z, bit 2q + 1 with X."""
    number = 0
    for place, image in enumerate(diagonal.images):  # X, Z, X, Z, ...
        number |= odd(string & dual(image, num_qubits)) << (place ^ 1)
    return number


def _clash(a: int, b: int) -> int:
    return odd(a & ((b & 0x5555) << 1 | (b >> 1) & 0x5555))


def layers(operations: Sequence[Operation], num_qubits: int) -> list[Layer]:
    """Schedule every operation as early as the operations it does not commute with allow."""
    found = [Layer()]
    for operation in operations:
        if isinstance(operation, Diagonal):
            _place_diagonal(found, operation, num_qubits)
        else:
            _place_turn(found, operation, num_qubits)
    return found


def _place_turn(found: list[Layer], turn: Rotation | Shift, n: int) -> None:
    for number in range(len(found) - 1, -1, -1):
        layer = found[number]
        if not all(commute(turn, d, n) for d in layer.diagonals):
            if number + 1 == len(found):
                found.append(Layer())
            found[number + 1].turns.append(turn)
            return
        for other in reversed(layer.turns):
            if _merged(other, turn):
                return
            if not commute(turn, other, n):
                layer.turns.append(turn)
                return
    found[0].turns.append(turn)


def _merged(old: Rotation | Shift, new: Rotation | Shift) -> bool:
    """Merge a rotation with one about the same string."""
    if not (isinstance(old, Rotation) and isinstance(new, Rotation) and old.string == new.string):
        return False
    for angle, coefficient in new.terms.items():
        old.terms[angle] = old.terms.get(angle, 0.0) + coefficient
    old.offset += new.offset
    return True


def _place_diagonal(found: list[Layer], diagonal: Diagonal, n: int) -> None:
    place = len(found) - 1
    while place and all(commute(diagonal, turn, n) for turn in found[place].turns):
        place -= 1
    found[place].diagonals.append(diagonal)
