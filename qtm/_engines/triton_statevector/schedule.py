"""Scheduling for the GPU: a cone program and its measured strings become passes over tiles of the state.

Amplitudes are renumbered by a linear map over GF(2), so that 2^rank of them hold the support of the state. A *tile* is
a coset of the span of some masks: rotations about these masks mix amplitudes of the same tile only. A kernel program
holds one tile in registers and does a whole pass there: all rotations that fit the tile and commute with those left for
later passes, then the strings that fit it. A state that is no larger than a tile takes one pass in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm._circuit.causal_cone import ConeProgram, Renumbering, Strings
from qtm._circuit.gf2 import combinations, odd_bits, pivots
from qtm._circuit.light_cone import Item, all_items, visible
from qtm._circuit.pauli_program import Slot
from qtm._locks import fork_safe_lock

MAX_BITS = 31  # of a program of 32-bit masks
_COALESCED_BITS = 5  # log2 of the neighbouring amplitudes that a warp reads together
_LEAST_FREE_BITS = 4  # of a tile, for the masks of rotations
_LOOK_AHEAD = 256  # operations that may be skipped in the search for one that fits
# Maximum of operations, or strings, of a pass over several tiles: each tile writes a partial sum for each.
MAX_SUMS = 128
TABLE_COLUMNS = 4
GROUP_COLUMNS = 4  # mask of X in the tile, whether the factor is i, first string, end


@dataclass(frozen=True, slots=True)
class Pass:
    """One launch: operations ``first`` .. ``last``, then groups of strings, on tiles of the state.

    ``vectors`` span the tiles: bit j of a place in a tile stands for ``vectors[j]``. The groups hold the strings
    ``first_string`` .. ``last_string``.
    """

    vectors: tuple[int, ...]
    first: int
    last: int
    first_group: int
    last_group: int
    first_string: int
    last_string: int


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """Passes, with the tables that the kernels read; operation k has the angle of slot k.

    Strings that are zero on every state of the program have sign 0.
    """

    num_bits: int
    tile_bits: int
    is_complex: bool
    basis: tuple[int, ...]  # bit j of an amplitude stands for this mask of the program's amplitudes
    constant: Slot  # the state is exp(-i/2 of its angle) times what the kernels compute
    passes: tuple[Pass, ...]
    slots: tuple[Slot, ...]
    operations: np.ndarray  # (operations, 2) int32: mask of X in the tile, 0 for a phase; mask of signs
    groups: np.ndarray  # (groups, GROUP_COLUMNS) int32
    string_masks: np.ndarray  # (strings,) int32: masks of signs, in the order of the groups
    order: np.ndarray  # (strings,) int64: for each of these the number in the program
    string_signs: np.ndarray  # (strings,) float64

    def tile_index(self, one: Pass) -> np.ndarray:
        """The amplitude (places,) int32 of every place in the tile that holds amplitude 0."""
        return combinations(one.vectors).astype(np.int32)

    def tile_bases(self, one: Pass) -> np.ndarray:
        """An amplitude (tiles,) int32 of every tile; with xor the `tile_index` gives the others."""
        base: np.ndarray = np.arange(1 << self.num_bits - self.tile_bits, dtype=np.int64)
        for bit in pivots(one.vectors):  # a zero is inserted at each of them
            low = base & ((1 << bit) - 1)
            base = (base ^ low) << 1 | low
        return base.astype(np.int32)

    def operation_table(self, thread_bits: int) -> np.ndarray:
        """The operations as the kernels read them (operations, 4) int32: mask of X in the tile, three columns of signs.

        ``thread_bits`` is log2 of the threads of a program. See `_sign_columns`.
        """
        table = np.zeros((len(self.operations), TABLE_COLUMNS), np.int32)
        table[:, 0] = self.operations[:, 0]
        for one in self.passes:
            own = slice(one.first, one.last)
            table[own, 1:] = _sign_columns(self.operations[own, 1], one.vectors, thread_bits)
        return table

    def string_table(self, thread_bits: int) -> np.ndarray:
        """The same for strings (strings, 4) int32, with 0 as mask of X."""
        table = np.zeros((len(self.string_masks), TABLE_COLUMNS), np.int32)
        for one in self.passes:
            own = slice(one.first_string, one.last_string)
            table[own, 1:] = _sign_columns(self.string_masks[own], one.vectors, thread_bits)
        return table


def _sign_columns(masks: np.ndarray, vectors: Sequence[int], thread_bits: int) -> np.ndarray:
    """Three columns (masks, 3) of masks of signs: in the tile spanned by ``vectors``, as given, and by thread.

    The thread t has the places t + (h << thread_bits) of a tile. Bit h of the last column says whether the mask
    overlaps h << thread_bits oddly.
    """
    local = np.zeros(len(masks), np.int64)
    for bit, vector in enumerate(vectors):
        local |= odd_bits(masks, np.int64(vector)).astype(np.int64) << bit
    numbers = np.arange(32, dtype=np.int64)
    odd = odd_bits((local >> thread_bits)[:, None], numbers).astype(np.int64)
    word = (odd << numbers).sum(1).astype(np.uint32).view(np.int32)
    return np.stack([local.astype(np.int32), masks, word], 1)


class _Tile:
    """A span of masks that grows up to the size of a tile; neighbouring amplitudes are in it."""

    def __init__(self, num_bits: int, tile_bits: int) -> None:
        self.num_bits, self.tile_bits = num_bits, tile_bits
        self.span = Renumbering()
        for bit in range(min(_COALESCED_BITS, tile_bits - _LEAST_FREE_BITS)):
            self.span.add(1 << bit)

    def takes(self, mask: int) -> bool:
        """Add a mask to the span if there is room; return whether the span contains it."""
        if self.span.coordinates(mask) is None:
            if len(self.span.vectors) == self.tile_bits:
                return False
            self.span.add(mask)
        return True

    def filled(self) -> tuple[int, ...]:
        """The vectors of a full tile."""
        for bit in range(self.num_bits):
            self.takes(1 << bit)
        return tuple(self.span.vectors)


@dataclass(slots=True)
class _Group:
    """Strings with the same mask of X, those whose factor is i apart."""

    mask: int
    odd: int
    members: list[tuple[int, int, float]]  # number in the program, mask of signs, sign


class _Builder:
    """Collects passes."""

    def __init__(self, num_bits: int, tile_bits: int) -> None:
        self.num_bits, self.tile_bits = num_bits, tile_bits
        self.passes: list[Pass] = []
        self.slots: list[Slot] = []
        self.operations: list[tuple[int, int]] = []
        self.groups: list[tuple[int, int, int, int]] = []
        self.strings: list[tuple[int, int, float]] = []

    def run(self, items: list[Item], groups: list[_Group]) -> None:
        """All passes; the strings that fit the tiles of the last operations are measured there."""
        while items or groups or not self.passes:
            tile = _Tile(self.num_bits, self.tile_bits)
            taken, items = self._next(items, tile)
            fitting: list[_Group] = []
            if not items:
                fitting, groups = self._measurable(groups, tile)
            self._emit(taken, fitting, tile)

    def _measurable(self, groups: list[_Group], tile: _Tile) -> tuple[list[_Group], list[_Group]]:
        """Groups that a pass measures, and the others; a group with too many strings is divided."""
        several, room = self.num_bits > self.tile_bits, MAX_SUMS
        fitting: list[_Group] = []
        rest: list[_Group] = []
        for group in groups:
            count = min(room, len(group.members)) if several else len(group.members)
            if not count or not tile.takes(group.mask):
                rest.append(group)
                continue
            room -= count
            fitting.append(_Group(group.mask, group.odd, group.members[:count]))
            if count < len(group.members):
                rest.append(_Group(group.mask, group.odd, group.members[count:]))
        return fitting, rest

    def _next(self, items: list[Item], tile: _Tile) -> tuple[list[Item], list[Item]]:
        """The items that the next pass executes, in order, and the others."""
        limit = MAX_SUMS if self.num_bits > self.tile_bits else len(items)
        taken: list[Item] = []
        rest: list[Item] = []
        for number, item in enumerate(items):
            if len(rest) > _LOOK_AHEAD or len(taken) == limit:
                return taken, rest + items[number:]
            fits = all(item.commutes(other) for other in rest) and tile.takes(item.x)
            (taken if fits else rest).append(item)
        return taken, rest

    def _emit(self, items: list[Item], groups: list[_Group], tile: _Tile) -> None:
        first, first_group, first_string = len(self.slots), len(self.groups), len(self.strings)
        vectors = tile.filled()
        for item in items:
            self.slots.append(item.slot)
            self.operations.append((_place(tile, item.x), item.z))
        for group in groups:
            begin = len(self.strings)
            self.strings += group.members
            self.groups.append((_place(tile, group.mask), group.odd, begin, len(self.strings)))
        ends = len(self.slots), len(self.groups), len(self.strings)
        self.passes.append(Pass(vectors, first, ends[0], first_group, ends[1], first_string, ends[2]))


def _place(tile: _Tile, mask: int) -> int:
    place = tile.span.coordinates(mask)
    assert place is not None
    return place


def _renumbered(items: Iterable[Item], basis: Renumbering) -> tuple[list[Item], Slot]:
    """Items on the amplitudes of the support; phases that are equal on all of them go into a constant."""
    kept, constant = [], Slot()
    for item in items:
        x, z = basis.coordinates(item.x), basis.parities(item.z)
        assert x is not None
        if x or z:
            kept.append(Item(x, z, item.slot))
        else:
            constant.add(item.slot.terms.items(), item.slot.offset, 1)
    return kept, constant


def _grouped(strings: Strings, basis: Renumbering, is_complex: bool) -> tuple[list[_Group], list[int]]:
    """Groups of the strings, and those that are zero: they leave the support, or are imaginary on a real state."""
    groups: dict[tuple[int, int], _Group] = {}
    zero: list[int] = []
    for number, (k, x, z) in enumerate(zip(strings.k, strings.x, strings.z, strict=True)):
        mask, odd = basis.coordinates(int(x)), int(k) & 1
        if mask is None or (odd and not is_complex):
            zero.append(number)
            continue
        sign = 1.0 if k in (0, 1) else -1.0
        own = groups.setdefault((mask, odd), _Group(mask, odd, []))
        own.members.append((number, basis.parities(int(z)), sign))
    return list(groups.values()), zero


def _schedule(program: ConeProgram, tile_bits: int) -> Schedule:
    measured = program.measured
    items = all_items(program.phases) if measured.everything else visible(program.phases, *measured.ends)
    basis = Renumbering()
    for mask in [1 << bit for bit in range(program.num_bits)] if program.prepared else [item.x for item in items]:
        basis.add(mask)
    bits = len(basis.vectors)
    items, constant = _renumbered(items, basis)
    is_complex = program.prepared or any(item.x == 0 for item in items)
    groups, zero = _grouped(measured.strings, basis, is_complex)
    builder = _Builder(bits, min(tile_bits, bits))
    builder.run(items, groups)
    rows: list[Any] = [*builder.strings, *((number, 0, 0.0) for number in zero)]
    return Schedule(
        bits,
        builder.tile_bits,
        is_complex,
        tuple(basis.vectors),
        constant,
        tuple(builder.passes),
        tuple(builder.slots),
        np.array(builder.operations, np.int32).reshape(-1, 2),
        np.array(builder.groups, np.int32).reshape(-1, GROUP_COLUMNS),
        np.array([mask for _, mask, _ in rows], np.int32),
        np.array([number for number, _, _ in rows], np.int64),
        np.array([sign for _, _, sign in rows], np.float64),
    )


_LOCK = fork_safe_lock()


def schedule(program: ConeProgram, tile_bits: int) -> Schedule:
    """Schedule a program with its strings, on tiles of at most 2**tile_bits amplitudes; computed once."""
    key = ("tiles", tile_bits)
    with _LOCK:
        if key not in program.compiled:
            program.compiled[key] = _schedule(program, tile_bits)
        found: Schedule = program.compiled[key]
        return found


def compressed(rows: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of (column, coefficient) as starts (rows + 1,) int32, columns int32 and coefficients float64."""
    start = np.cumsum([0, *map(len, rows)])
    flat = [entry for row in rows for entry in row]
    return (
        start.astype(np.int32),
        np.array([column for column, _ in flat], np.int32),
        np.array([coefficient for _, coefficient in flat], np.float64),
    )
