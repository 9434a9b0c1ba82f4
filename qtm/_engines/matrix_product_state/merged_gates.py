"""Three commuting rotations of one pair of qubits as one gate: RXX, RYY and RZZ need four products, not eight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qtm._circuit.gates import PauliRotation, Primitive

# Products of two letters: the letter, and the power of i.
_PRODUCTS = {("X", "Y"): ("Z", 1), ("Y", "Z"): ("X", 1), ("Z", "X"): ("Y", 1)}
_PRODUCTS |= {(b, a): (c, -k) for (a, b), (c, k) in _PRODUCTS.items()}
_PRODUCTS |= {(a, a): ("I", 0) for a in "XYZ"}


@dataclass(frozen=True, slots=True)
class Triple:
    """Rotations about G1, G2 and G3 on the same two qubits, where G1 G2 = sign * G3.

    Attributes:
        qubits: ascending.
        paulis: for each rotation its letters on these qubits.
        rotations: in time order; they commute.
        sign: +1 or -1.
    """

    qubits: tuple[int, int]
    paulis: tuple[tuple[str, str], ...]
    rotations: tuple[PauliRotation, ...]
    sign: int


def merged(operations: Iterable[Primitive]) -> Iterator[Primitive | Triple]:
    """The same operations with triples merged; only operations on disjoint qubits change their order."""
    waiting: dict[tuple[int, int], list[PauliRotation]] = {}  # by ascending qubits; no two share a qubit
    for operation in operations:
        pair = _pair(operation)
        for other in [p for p in waiting if p != pair and not set(p).isdisjoint(operation.qubits)]:
            yield from waiting.pop(other)
        if pair is None:
            yield operation
            continue
        assert isinstance(operation, PauliRotation)
        own = waiting.setdefault(pair, [])
        if any(not _commute(operation, other) or _letters(operation) == _letters(other) for other in own):
            yield from own
            own.clear()
        own.append(operation)
        if len(own) == 3:
            yield _triple(pair, waiting.pop(pair))
    for rotations in waiting.values():
        yield from rotations


def _pair(operation: Primitive) -> tuple[int, int] | None:
    if not isinstance(operation, PauliRotation) or len(operation.qubits) != 2:
        return None
    first, last = sorted(operation.qubits)
    return first, last


def _letters(rotation: PauliRotation) -> tuple[str, str]:
    """Letters on ascending qubits."""
    first, last = rotation.pauli[0], rotation.pauli[1]
    return (first, last) if rotation.qubits[0] < rotation.qubits[1] else (last, first)


def _commute(a: PauliRotation, b: PauliRotation) -> bool:
    return sum(x != y for x, y in zip(_letters(a), _letters(b), strict=True)) != 1


def _triple(pair: tuple[int, int], rotations: list[PauliRotation]) -> Triple:
    """Three different strings of weight two that commute in pairs: each is the product of the others, up to sign."""
    paulis = tuple(_letters(r) for r in rotations)
    power = sum(_PRODUCTS[a, b][1] for a, b in zip(paulis[0], paulis[1], strict=True))
    return Triple(pair, paulis, tuple(rotations), 1 if power % 4 == 0 else -1)
