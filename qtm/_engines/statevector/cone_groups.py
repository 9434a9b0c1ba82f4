"""The states that a circuit needs for an output: one for all, or one per group of overlapping causal cones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.causal_cone import (
    MAX_BITS,
    NO_STRINGS,
    Cone,
    ConeBuilder,
    ConeProgram,
    ConeWalker,
    Measured,
    Renumbering,
    Strings,
)
from qtm._circuit.clifford_frame import conjugate
from qtm._circuit.gf2 import bits_of
from qtm._circuit.observables import Observable
from qtm._circuit.pauli_program import PauliProgram, place
from qtm._engines.outputs import Expectation, Output, Probabilities, Samples, State

# Below this many bits all observables share one state: the passes cost less than a second schedule would.
_SPLIT_BITS = 9
_MANY_STRINGS = 512  # for more cones, finding them takes longer than they save on circuits that fit in one state
# Overhead of a state besides its amplitudes, in rotations of one amplitude: its angles, its place in a batch.
_OVERHEAD = 1 << 9
# Merging must save this share of the cost of two cones: unmerged cones are more often equal to others.
_WORTH_MERGING = 0.9


def conjugated_strings(program: PauliProgram, observables: Sequence[Observable]) -> Strings:
    """All strings of all observables, conjugated to the start of the circuit."""
    if not observables:
        return NO_STRINGS
    owner = np.repeat(np.arange(len(observables)), [len(o.coeffs) for o in observables])
    coef, k, x, z = (
        np.concatenate([np.asarray(getattr(o, name)) for o in observables]) for name in ("coeffs", "k", "x", "z")
    )
    wide = object if program.num_qubits > MAX_BITS else np.uint64
    k, x, z = conjugate(program.frame, k.astype(np.int64), x.astype(wide), z.astype(wide))
    return Strings(owner, coef.astype(float), k, x, z)


def cones_of(program: PauliProgram, output: Output) -> tuple[Cone, ...]:
    """The cones that together give an output."""
    if isinstance(output, Expectation):
        return _cones_of_strings(program, conjugated_strings(program, output.observables), len(output.observables))
    if isinstance(output, State):
        return (_whole(program, Measured(NO_STRINGS, (), 0, everything=True)),)
    assert isinstance(output, Probabilities | Samples)
    masks = [program.frame.z[q][2] for q in output.qubits]
    if program.num_qubits <= MAX_BITS:
        return (_whole(program, Measured(NO_STRINGS, tuple(masks), 0)),)
    cone = ConeBuilder(program).of_outcomes(masks, ConeWalker(program).seen_by([(0, m) for m in masks]))
    return (cone,)


def _cones_of_strings(program: PauliProgram, strings: Strings, num_outputs: int) -> tuple[Cone, ...]:
    narrow = program.num_qubits <= MAX_BITS
    whole = Measured(strings, (), num_outputs)
    if narrow and (program.num_qubits <= _SPLIT_BITS or len(strings.k) > _MANY_STRINGS):
        return (_whole(program, whole),)
    groups = _Grouping(program, strings, stop_early=narrow).groups()
    if groups is None:
        return (_whole(program, whole),)
    builder = ConeBuilder(program)
    if len(groups) == 1:
        members, positions = groups[0].members, groups[0].positions()
        return (builder.of_strings(strings, members, positions, num_outputs),)
    return tuple(builder.of_strings(strings, g.members, g.positions()) for g in groups)


def _whole(program: PauliProgram, measured: Measured) -> Cone:
    """The whole circuit as one cone; qubits keep their numbers."""
    flat = program.flat
    one = ConeProgram(program.num_qubits, bool(flat.initial), place(program.generators), len(flat.angles), measured)
    basis = tuple(1 << q for q in range(program.num_qubits))
    return Cone(
        one, np.arange(len(flat.angles)), np.arange(len(measured.strings.k)), basis, tuple(range(len(flat.initial)))
    )


@dataclass(slots=True)
class _Group:
    """Strings that share a state, and the generators that they depend on, as a bit mask of positions."""

    members: list[int]
    seen: int
    span: Renumbering

    def positions(self) -> list[int]:
        return list(bits_of(self.seen))

    @property
    def rank(self) -> int:
        return len(self.span.vectors)

    @property
    def cost(self) -> float:
        return _cost(self.seen.bit_count(), self.rank, len(self.members))


def _cost(generators: int, rank: int, strings: int) -> float:
    """Rotations and strings, each over the amplitudes of the state."""
    return _OVERHEAD + float(generators + 0.5 * strings) * 2.0 ** max(rank, 4)


class _Grouping:
    """Groups the strings of one output by their causal cones, greedily."""

    def __init__(self, program: PauliProgram, strings: Strings, stop_early: bool) -> None:
        self.program, self.strings, self.stop_early = program, strings, stop_early
        self.walker = ConeWalker(program)
        self.everything = Renumbering()
        if stop_early:
            for g in program.generators:
                self.everything.add(g.x)

    def groups(self) -> list[_Group] | None:
        """The groups; None if one state for all costs little more than the most expensive group alone."""
        if not len(self.strings.k):
            return [_Group([], 0, Renumbering())]
        found: dict[int, _Group] = {}
        for m in range(len(self.strings.k)):
            positions = self.walker.seen_by([(int(self.strings.x[m]), int(self.strings.z[m]))])
            seen = sum(1 << position for position in positions)
            if seen in found:
                found[seen].members.append(m)
                continue
            found[seen] = _Group([m], seen, self._span(positions))
            if self.stop_early and found[seen].rank >= len(self.everything.vectors) - 1:
                return None
        groups = _merged(_without_subsets(list(found.values())))
        if self.stop_early and self._one_is_cheaper(groups):
            return None
        return groups

    def _one_is_cheaper(self, groups: list[_Group]) -> bool:
        together = _cost(len(self.program.generators), len(self.everything.vectors), len(self.strings.k))
        return 2 * sum(g.cost for g in groups) > together

    def _span(self, positions: Sequence[int]) -> Renumbering:
        span = Renumbering()
        for position in positions:
            span.add(self.program.generators[position].x)
        return span


def _without_subsets(groups: list[_Group]) -> list[_Group]:
    """Merge strings into groups that depend on a superset of their generators."""
    kept: list[_Group] = []
    by_position: dict[int, list[_Group]] = {}
    for group in sorted(groups, key=lambda g: -g.seen.bit_count()):
        lowest = (group.seen & -group.seen).bit_length() - 1
        larger = kept[:1] if group.seen == 0 else by_position.get(lowest, [])
        home = next((other for other in larger if group.seen & ~other.seen == 0), None)
        if home is not None:
            home.members += group.members
            continue
        kept.append(group)
        for position in bits_of(group.seen):
            by_position.setdefault(position, []).append(group)
    return kept


def _merged(groups: list[_Group]) -> list[_Group]:
    """Merge neighbouring groups while that saves enough."""
    groups = sorted(groups, key=lambda g: g.seen & -g.seen)
    result: list[_Group] = []
    for group in groups:
        best, saved = None, 0.0
        for other in result[-8:]:
            if not other.seen & group.seen:
                continue
            apart = other.cost + group.cost
            seen = other.seen | group.seen
            least = _cost(seen.bit_count(), max(other.rank, group.rank), len(other.members) + len(group.members))
            if least > _WORTH_MERGING * apart:
                continue
            span = _union(other.span, group.span)
            gain = apart - _cost(seen.bit_count(), len(span.vectors), len(other.members) + len(group.members))
            if gain > max(saved, (1 - _WORTH_MERGING) * apart):
                best, saved, joined = other, gain, (seen, span)
        if best is None:
            result.append(group)
        else:
            best.seen, best.span = joined
            best.members += group.members
    return result


def _union(a: Renumbering, b: Renumbering) -> Renumbering:
    span = Renumbering()
    for vector in (*a.vectors, *b.vectors):
        span.add(vector)
    return span
