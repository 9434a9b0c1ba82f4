"""Sums of Pauli strings as one matrix product operator with an output for every observable.

The operator is read as a weighted automaton from left to right. At a bond it is in state 0 (no string has begun) or in
one of the states 1..r (inside a string). Prefixes whose continuations are linearly dependent share states, so r is the
rank of the coefficients across the bond (C. Hubig et al., Phys. Rev. B 95, 035129 (2017)): 3 for any nearest-neighbour
Heisenberg model, however many sites. A string that ends adds its value to the outputs of its observable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.observables import Observable

_LETTERS = "IXYZ"
_RANK_TOLERANCE = 1e-13
_MAX_DENSE = 2048  # a matrix with more rows and columns than this is not compressed


@dataclass(frozen=True, slots=True)
class SiteWeights:
    """The automaton at one site.

    Attributes:
        inner: weights (states before, 4, states after) of the letters I, X, Y, Z inside strings.
        ends: for strings that end here: state before, letter, observable (ends, 3) and weight (ends,).
    """

    inner: np.ndarray
    ends: np.ndarray
    end_weights: np.ndarray


@dataclass(frozen=True, slots=True)
class PauliMPO:
    """Observables on a chain of sites.

    Attributes:
        sites: the automaton, site by site.
        constants: coefficient of the identity in every observable, (observables,).
    """

    sites: tuple[SiteWeights, ...]
    constants: np.ndarray

    @property
    def num_states(self) -> tuple[int, ...]:
        """States before every site, state 0 included."""
        return tuple(len(site.inner) for site in self.sites)


def pauli_mpo(observables: Sequence[Observable], site_of: Sequence[int]) -> PauliMPO:
    """Compile observables; ``site_of[q]`` is the site of qubit q."""
    constants = np.zeros(len(observables))
    strings: dict[int, list[tuple[str, int, float]]] = {}  # first site -> (letters from there on, observable, weight)
    for m, observable in enumerate(observables):
        for label, weight in zip(observable.labels(), observable.coeffs.tolist(), strict=True):
            letters = _on_sites(label, site_of)
            text = letters.rstrip("I")
            if text:
                first = len(text) - len(text.lstrip("I"))
                strings.setdefault(first, []).append((text[first:], m, weight))
            else:
                constants[m] += weight
    return PauliMPO(tuple(_Automaton(strings).sites(len(site_of))), constants)


def _on_sites(label: str, site_of: Sequence[int]) -> str:
    """A label of Qiskit (qubit 0 rightmost) as letters in the order of the sites."""
    letters = ["I"] * len(site_of)
    for qubit, letter in enumerate(reversed(label)):
        letters[site_of[qubit]] = letter
    return "".join(letters)


class _Automaton:
    """The strings that cross a bond: their continuations, and the weights with which states reach them."""

    def __init__(self, strings: dict[int, list[tuple[str, int, float]]]) -> None:
        self.strings = strings
        self.columns: list[tuple[str, int]] = []  # continuations: letters, observable
        self.weights: np.ndarray = np.zeros((1, 0))  # (states, columns)

    def sites(self, count: int) -> list[SiteWeights]:
        return [self.step(site) for site in range(count)]

    def step(self, site: int) -> SiteWeights:
        self.begin(self.strings.get(site, []))
        states = len(self.weights)
        ends, end_weights = [], []
        rows: dict[tuple[int, int], int] = {}  # (state, letter) -> row
        after: dict[tuple[str, int], int] = {}  # continuation -> column
        entries: dict[tuple[int, int], float] = {}
        for column, (text, m) in enumerate(self.columns):
            letter, rest = _LETTERS.index(text[0]), text[1:]
            for state in np.flatnonzero(self.weights[:, column]).tolist():
                weight = float(self.weights[state, column])
                if rest:
                    place = rows.setdefault((state, letter), len(rows)), after.setdefault((rest, m), len(after))
                    entries[place] = entries.get(place, 0.0) + weight
                else:
                    ends.append((state, letter, m))
                    end_weights.append(weight)
        matrix = np.zeros((len(rows), len(after)))
        for place, weight in entries.items():
            matrix[place] = weight
        reached, rest_weights = _factors(matrix)
        inner = np.zeros((states, 4, 1 + reached.shape[1]))
        for (state, letter), row in rows.items():
            inner[state, letter, 1:] = reached[row]
        self.columns = list(after)
        self.weights = np.concatenate([np.zeros((1, len(after))), rest_weights])
        return SiteWeights(inner, np.array(ends, dtype=np.int64).reshape(-1, 3), np.array(end_weights))

    def begin(self, strings: list[tuple[str, int, float]]) -> None:
        """Add strings that begin at this site: columns that state 0 reaches."""
        place = {column: i for i, column in enumerate(self.columns)}
        new = [(text, m) for text, m, _ in strings if (text, m) not in place]
        for column in new:
            place[column] = len(place)
        self.columns = list(place)
        self.weights = np.pad(self.weights, ((0, 0), (0, len(self.columns) - self.weights.shape[1])))
        for text, m, weight in strings:
            self.weights[0, place[text, m]] += weight


def _factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor a matrix (rows, columns) with its rank as the number of states; sparse if it has full rank."""
    rows, columns = matrix.shape
    if min(rows, columns) > 1 and max(rows, columns) <= _MAX_DENSE:
        u, s, vh = np.linalg.svd(matrix, full_matrices=False)
        rank = int(np.count_nonzero(s > _RANK_TOLERANCE * s[0]))
        if rank < min(rows, columns):
            return u[:, :rank], s[:rank, None] * vh[:rank]
    if rows <= columns:
        return np.eye(rows), matrix
    return matrix, np.eye(columns)
