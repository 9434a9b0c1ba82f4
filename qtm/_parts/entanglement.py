"""Pairs of qubits of a layer of entangling gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from qtm._errors import CircuitError

Pairs = list[tuple[int, int]]
Entanglement = str | Sequence[tuple[int, int]] | Callable[[int], Iterable[tuple[int, int]]]


def _linear(n: int, layer: int) -> Pairs:
    return [(q, q + 1) for q in range(n - 1)]


def _reverse_linear(n: int, layer: int) -> Pairs:
    return _linear(n, layer)[::-1]


def _ring(n: int, layer: int) -> Pairs:
    # With two qubits the closing gate would be the chain's only gate, reversed.
    return _linear(n, layer) + ([(n - 1, 0)] if n > 2 else [])


def _circular(n: int, layer: int) -> Pairs:
    return ([(n - 1, 0)] if n > 2 else []) + _linear(n, layer)


def _shifted_circular_alternating(n: int, layer: int) -> Pairs:
    """The circular pattern, begun one pair earlier in every layer, with control and target swapped in odd layers."""
    pairs = _circular(n, layer)
    shift = layer % len(pairs) if pairs else 0
    pairs = pairs[len(pairs) - shift :] + pairs[: len(pairs) - shift]
    return [(b, a) for a, b in pairs] if layer % 2 else pairs


def _pairwise(n: int, layer: int) -> Pairs:
    return [(q, q + 1) for start in (0, 1) for q in range(start, n - 1, 2)]


def _full(n: int, layer: int) -> Pairs:
    return list(combinations(range(n), 2))


def _star(n: int, layer: int) -> Pairs:
    return [(0, q) for q in range(1, n)]


def _none(n: int, layer: int) -> Pairs:
    return []


# By name, as in Qiskit's n_local; "ring" is its "circular" with the closing gate last, as in the papers here.
PATTERNS: dict[str, Callable[[int, int], Pairs]] = {
    "linear": _linear,
    "reverse_linear": _reverse_linear,
    "ring": _ring,
    "circular": _circular,
    "sca": _shifted_circular_alternating,
    "pairwise": _pairwise,
    "full": _full,
    "star": _star,
    "none": _none,
}


def entangled_pairs(entanglement: Entanglement, num_qubits: int, layer: int = 0) -> Pairs:
    """Pairs (first qubit, second qubit) of one layer, in the order of the gates.

    Raises:
        CircuitError: The pattern is unknown, or a pair does not fit the qubits.
    """
    if isinstance(entanglement, str):
        if entanglement not in PATTERNS:
            raise CircuitError(
                f"unknown entanglement {entanglement!r}; use one of {', '.join(PATTERNS)}, a list of pairs of "
                "qubits, or a function of the layer's number that gives such a list"
            )
        return PATTERNS[entanglement](num_qubits, layer)
    pairs = [tuple(pair) for pair in (entanglement(layer) if callable(entanglement) else entanglement)]
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= q < num_qubits for q in pair):
            raise CircuitError(f"{pair} is not a pair of two different qubits from 0 to {num_qubits - 1}")
    return [(a, b) for a, b in pairs]
