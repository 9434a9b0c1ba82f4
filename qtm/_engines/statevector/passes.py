"""Which rotations share a pass over the state.

A pass goes over the state tile by tile, and a tile is the coset of a row under a few masks. Whatever pairs rows by
combinations of these masks can be done on a tile while it is in the first-level cache: rotations of one layer, phases,
and rotations of the next layers as far as they do not have to wait for one that the tile has no room for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from qtm._circuit.gf2 import pivots
from qtm._circuit.pauli_program import Slot
from qtm._engines.statevector.kernels.recipe import MAX_GENERATORS
from qtm._engines.statevector.row_basis import SET_BITS

Rotation = tuple[int, int, Slot]  # masks x and w, and the angle; a phase has no x

LOOK_AHEAD = 64  # rotations that may be passed over in the search for one that fits
_WORTH_PHASES = 4  # rotations: looking phases up for a whole tile costs as much as three
_SETS = (1 << SET_BITS) - 1


def _raises_rank(masks: Sequence[int], mask: int) -> bool:
    """Whether the sets of the cache that rows lie in are more with ``mask`` than without."""
    return len(pivots([m & _SETS for m in (*masks, mask)])) > len(pivots([m & _SETS for m in masks]))


@dataclass(slots=True)
class Span:
    """Independent masks of rows, no more than a tile has room for."""

    room: int
    lane_bits: int
    masks: list[int] = field(default_factory=list)

    def copy(self) -> Span:
        """One of its own with the same masks."""
        return Span(self.room, self.lane_bits, self.masks[:])

    def has_room(self, rotation: Rotation) -> bool:
        """Whether the rotation stays within a tile, which may grow for it; phases do not count."""
        mask = rotation[0] >> self.lane_bits
        if not rotation[0]:
            return False
        if mask and self.is_new(mask):
            if len(self.masks) == self.room:
                return False
            self.masks.append(mask)
        return True

    def is_new(self, mask: int) -> bool:
        """Whether the mask is no combination of the others."""
        return len(pivots([*self.masks, mask])) > len(self.masks)

    def fill(self, bits: int) -> None:
        """Use the room that is left for neighbouring rows."""
        for bit in range(bits):
            if len(self.masks) < self.room and self.is_new(1 << bit):
                self.masks.append(1 << bit)

    def complement(self, masks: Sequence[int]) -> list[int]:
        """Masks of the span that with ``masks`` span all of it; first those that lead to other sets of the cache.

        A row must not be read while one that was just written waits for the same set: the processor takes both for the
        same address.
        """
        chosen, others = Span(self.room, 0, [*masks]), []
        for elsewhere in (True, False):
            for mask in self.masks:
                if chosen.is_new(mask) and (not elsewhere or _raises_rank(chosen.masks, mask)):
                    chosen.masks.append(mask)
                    others.append(mask)
        return others

    def split(self, signs: Sequence[int]) -> tuple[list[int], list[int]]:
        """Another basis of the span: masks that change the parities under ``signs``, and masks that do not."""
        reduced: list[tuple[int, int]] = []  # parities of a mask, and the mask
        alike = []
        for mask in self.masks:
            parities = sum(((mask & sign).bit_count() & 1) << j for j, sign in enumerate(signs))
            for other_parities, other in reduced:
                if parities ^ other_parities < parities:
                    parities, mask = parities ^ other_parities, mask ^ other
            if parities:
                reduced.append((parities, mask))
                reduced.sort(reverse=True)
            else:
                alike.append(mask)
        return [mask for _, mask in reduced], alike


def next_pass(rest: list[Rotation], room: int, lane_bits: int) -> tuple[list[list[Rotation]], Span, list[Rotation]]:
    """Runs of rotations, and of phases, for the next pass; the span of its tiles; and what is left for others."""
    span, runs = Span(room, lane_bits), []
    while rest:
        rotations, after = _taken(rest, span.has_room)
        if rotations:
            runs.append(rotations)
            rest = after
            continue
        phases, behind = _taken(rest, is_phase)
        larger = span.copy()
        rotations, after = _taken(behind, larger.has_room)
        if not phases or (runs and len(rotations) < _WORTH_PHASES and not all(map(is_phase, behind))):
            break
        later = []
        if not all(map(is_phase, after)):  # then those that nothing here waits for may join others
            later = [p for p in phases if all(commute(p, r) for r in rotations)] if rotations else []
        runs.append([p for p in phases if p not in later])
        if rotations:
            runs.append(rotations)
        span, rest = larger, [*later, *after]
    return runs, span, rest


def is_phase(rotation: Rotation) -> bool:
    """Whether the rotation is diagonal."""
    return not rotation[0]


def commute(a: Rotation, b: Rotation) -> bool:
    """Whether the order of two rotations does not matter."""
    return not ((a[0] & b[1]).bit_count() ^ (a[1] & b[0]).bit_count()) & 1


def _taken(pending: list[Rotation], wanted: Callable[[Rotation], bool]) -> tuple[list[Rotation], list[Rotation]]:
    """What is wanted and commutes with all that is left before it, and the others."""
    taken: list[Rotation] = []
    left: list[Rotation] = []
    for number, rotation in enumerate(pending):
        if len(left) > LOOK_AHEAD:
            return taken, left + pending[number:]
        if all(commute(rotation, other) for other in left) and wanted(rotation):
            taken.append(rotation)
        else:
            left.append(rotation)
    return taken, left


# --- Groups -----------------------------------------------------------------------------------------------------


def in_groups(rotations: list[Rotation], lane_bits: int) -> list[list[Rotation]]:
    """Deal a run of rotations into groups that a kernel does in one go."""
    groups: list[list[Rotation]] = []
    while rotations:
        group, rotations = _next_group(rotations, lane_bits)
        groups.append(group)
    return _balanced(groups, lane_bits)


def _fits(group: list[Rotation], x: int, w: int, lane_bits: int) -> bool:
    """Whether each generator's signs are settled by its own mask alone, and their masks of rows are independent."""
    span = [0]
    for other_x, other_w, _ in group:
        if (other_x & w).bit_count() & 1 or (other_w & x).bit_count() & 1:
            return False
        span += [mask ^ other_x >> lane_bits for mask in span]
    return 0 not in span[1:] and x >> lane_bits not in span


def _next_group(pending: list[Rotation], lane_bits: int) -> tuple[list[Rotation], list[Rotation]]:
    """The first rotation with those behind it that can be done with it and may be moved up to it; and the others."""
    group: list[Rotation] = [pending[0]]
    skipped: list[Rotation] = []
    for rotation in pending[1:]:
        if len(group) == MAX_GENERATORS or len(skipped) > LOOK_AHEAD:
            break
        if _fits(group, rotation[0], rotation[1], lane_bits) and all(commute(rotation, s) for s in skipped):
            group.append(rotation)
        else:
            skipped.append(rotation)
    return group, skipped + pending[len(group) + len(skipped) :]


def _balanced(groups: list[list[Rotation]], lane_bits: int) -> list[list[Rotation]]:
    """A pass for one rotation costs nearly as much as one for two: deal 3 + 1 as 2 + 2."""
    for before, single in pairwise(groups):
        if len(before) == MAX_GENERATORS and len(single) == 1 and _fits(before[-1:], *single[0][:2], lane_bits):
            single.insert(0, before.pop())
    return groups
