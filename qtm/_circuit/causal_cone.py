"""Causal cones: the part of a circuit that some Pauli strings depend on, on renumbered bits.

Going backwards from a string, a rotation is relevant only if it anticommutes with the string or with a relevant
rotation. The x masks of these rotations span a space of rank r, so 2^r amplitudes determine the value of the string,
whatever the number of qubits. A `ConeProgram` has r bits: x masks become coordinates in a basis of that space, z masks
the parities of their overlaps with the basis. Cones that are equal after renumbering are one program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from qtm._circuit.gf2 import GrowingBasis, bits_of, parities
from qtm._circuit.light_cone import Seen
from qtm._circuit.pauli_program import Generator, PauliProgram, Phase, place
from qtm._locks import cached_property

Mask = tuple[int, int]  # of X and of Z
MAX_BITS = 62  # of a program of 64-bit masks


@dataclass(frozen=True, slots=True)
class Strings:
    """Pauli strings ``coef * i^k X^x Z^z`` conjugated to the start of the circuit, each part of one output."""

    output: np.ndarray  # (strings,) int64
    coef: np.ndarray  # (strings,) float64
    k: np.ndarray  # (strings,) int64
    x: np.ndarray  # (strings,) uint64, or object for wide masks
    z: np.ndarray  # (strings,) uint64, or object


NO_STRINGS = Strings(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), *[np.zeros(0, np.uint64)] * 2)


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement at the end: strings that add up to ``num_outputs`` expectation values, or joint outcomes.

    ``outcomes`` are masks of Z whose eigenvalues are the bits of an outcome. ``everything``: the output is the state
    itself, so no rotation may be left out.
    """

    strings: Strings
    outcomes: tuple[int, ...]
    num_outputs: int
    everything: bool = False

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Masks x and z of all measured strings, where the backward walk starts."""
        if not self.outcomes:
            return self.strings.x, self.strings.z
        return np.zeros(len(self.outcomes), np.uint64), np.array(self.outcomes, np.uint64)


@dataclass(frozen=True, eq=False)
class ConeProgram:
    """A program on few bits that starts in |0...0>, or in prepared amplitudes, which may reach every bit.

    ``phases`` hold rotations with local numbers of angles, ``num_angles`` in total.
    """

    num_bits: int
    prepared: bool
    phases: tuple[Phase, ...]
    num_angles: int
    measured: Measured
    compiled: dict[Any, Any] = field(default_factory=dict, repr=False)  # data that engines derive, by their keys

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "compiled": {}}


class ConeWalker:
    """Walks backwards through one program, over the rotations that share a bit with relevant ones."""

    def __init__(self, program: PauliProgram) -> None:
        self.program = program

    @cached_property
    def _on_bit(self) -> dict[int, list[int]]:
        """Positions of the generators that have an X or Z on a bit, ascending."""
        found: dict[int, list[int]] = {}
        for position, g in enumerate(self.program.generators):
            for bit in bits_of(g.x | g.z):
                found.setdefault(bit, []).append(position)
        return found

    def seen_by(self, strings: Iterable[Mask]) -> list[int]:
        """Positions of the generators that the strings depend on, ascending."""
        generators, seen = self.program.generators, Seen()
        touched = 0
        for x, z in strings:
            seen.add(x, z)
            touched |= x | z
        waiting = {p for bit in bits_of(touched) for p in self._on_bit.get(bit, ())}
        heap = [-p for p in waiting]
        heapify(heap)
        visible: list[int] = []
        while heap:
            position = -heappop(heap)
            g = generators[position]
            if not seen.sees(g.x, g.z):
                continue
            visible.append(position)
            new = (g.x | g.z) & ~touched
            touched |= new
            for bit in bits_of(new):
                for earlier in self._on_bit[bit]:
                    if earlier >= position:
                        break
                    if earlier not in waiting:
                        waiting.add(earlier)
                        heappush(heap, -earlier)
        return visible[::-1]


@dataclass(frozen=True, eq=False)
class Cone:
    """One occurrence of a `ConeProgram` in a circuit.

    Attributes:
        program: the shared program.
        angles: for each of its angles, its number in the circuit.
        terms: for each of its strings, its number in the caller's list.
        basis: its bits as masks of the circuit's program.
        preparations: numbers of the circuit's preparations in the cone.
    """

    program: ConeProgram
    angles: np.ndarray  # (angles,) int64
    terms: np.ndarray  # (strings,) int64
    basis: tuple[int, ...]
    preparations: tuple[int, ...]


class Renumbering(GrowingBasis):
    """Coordinates in a growing basis of x masks: the independent ones, in the order of their addition."""

    def add(self, mask: int) -> None:
        """Make a mask the next vector, if it is independent of those before."""
        self.extend(mask, mask, 1 << len(self.vectors))

    def parities(self, mask: int) -> int:
        """The new mask of a z mask: bit j is the parity of its overlap with vector j."""
        return parities(mask, self.vectors)


class ConeBuilder:
    """Creates cones of one program; equal ones share their `ConeProgram`."""

    def __init__(self, program: PauliProgram) -> None:
        self.program = program
        self._prepared = [sum(1 << q for q in preparation.qubits) for preparation in program.flat.initial]
        self._known: dict[Any, ConeProgram] = {}

    def of_strings(
        self, strings: Strings, members: Sequence[int], positions: Sequence[int], num_outputs: int | None = None
    ) -> Cone:
        """The cone of some strings, which depend on the generators at ``positions``.

        Without ``num_outputs`` every string is an output of its own with coefficient 1, so that cones which differ
        in coefficients alone share a program; with it, the outputs are those that the strings name.
        """
        preparations, numbers = self._numbers(positions, [(int(strings.x[m]), int(strings.z[m])) for m in members])
        found = []
        for m in members:
            row = numbers.coordinates(int(strings.x[m]))
            if row is not None:  # otherwise the string maps the state outside its support, and its value is 0
                found.append((row, numbers.parities(int(strings.z[m])), int(strings.k[m]), int(m)))
        found.sort()
        mask = np.uint64 if len(numbers.vectors) <= MAX_BITS else object  # above, engines do not support the cone
        kinds: tuple[Any, ...] = (mask, mask, np.int64, np.int64)
        x, z, k, terms = (np.array([row[i] for row in found], kind) for i, kind in enumerate(kinds))
        if num_outputs is None:
            mine = Strings(np.arange(len(terms)), np.ones(len(terms)), k, x, z)
            key = tuple(row[:3] for row in found)
            return self._cone(positions, numbers, preparations, Measured(mine, (), len(terms)), terms, key)
        mine = Strings(strings.output[terms], strings.coef[terms], k, x, z)
        return self._cone(positions, numbers, preparations, Measured(mine, (), num_outputs), terms, None)

    def of_outcomes(self, masks: Sequence[int], positions: Sequence[int]) -> Cone:
        """The cone of the joint outcomes of some masks of Z."""
        preparations, numbers = self._numbers(positions, [(0, m) for m in masks])
        measured = Measured(NO_STRINGS, tuple(numbers.parities(m) for m in masks), 0)
        return self._cone(positions, numbers, preparations, measured, np.zeros(0, np.int64), None)

    def _numbers(self, positions: Sequence[int], ends: Sequence[Mask]) -> tuple[tuple[int, ...], Renumbering]:
        """The preparations in the cone, and a basis: their bits, then the x masks in time order."""
        generators = [self.program.generators[p] for p in positions]
        touched = 0
        for x, z in [*ends, *((g.x, g.z) for g in generators)]:
            touched |= x | z
        preparations = tuple(i for i, mask in enumerate(self._prepared) if mask & touched)
        numbers = Renumbering()
        for preparation in preparations:
            for qubit in self.program.flat.initial[preparation].qubits:
                numbers.add(1 << qubit)
        for g in generators:
            numbers.add(g.x)
        return preparations, numbers

    def _cone(
        self,
        positions: Sequence[int],
        numbers: Renumbering,
        preparations: tuple[int, ...],
        measured: Measured,
        terms: np.ndarray,
        key: Any,
    ) -> Cone:
        local: dict[int, int] = {}
        generators = tuple(_renumbered(self.program.generators[p], numbers, local) for p in positions)
        bits = len(numbers.vectors)
        full = (bits, preparations != (), generators, key)
        made = self._known.get(full) if key is not None else None
        if made is None:
            made = ConeProgram(bits, preparations != (), place(generators), len(local), measured)
            self._known[full] = made
        return Cone(made, np.array(list(local), np.int64), terms, tuple(numbers.vectors), preparations)


def _renumbered(g: Generator, numbers: Renumbering, local: dict[int, int]) -> Generator:
    """The generator on the new bits, with local numbers of angles, assigned in order of appearance."""
    terms = tuple((local.setdefault(angle, len(local)), coef) for angle, coef in g.terms)
    x = numbers.coordinates(g.x)
    assert x is not None
    return Generator(g.k, x, numbers.parities(g.z), numbers.parities(g.turn), terms, g.offset)
