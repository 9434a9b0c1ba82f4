"""Scheduling: a program and its observables become a `Recipe` of passes over the state.

Three things happen here. What no observable can see is dropped (the light cone). The amplitudes are renumbered
by a linear map over GF(2), so that the support of the state, which starts as |0...0>, is always a prefix of
the rows: the first rotation about each new mask doubles it, what can be done before the next doubling is, and
it ends with 2^rank amplitudes, not 2^n. And rotations and phases share passes, see `passes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.causal_cone import ConeProgram
from qtm._circuit.gf2 import combinations, odd_bits, pivots
from qtm._circuit.light_cone import Item, all_items, visible
from qtm._circuit.pauli_program import Slot
from qtm._engines.statevector.kernels.lookup_tables import LOW_BITS
from qtm._engines.statevector.kernels.recipe import (
    DOUBLE_SUPPORT,
    KIND,
    MAX_GENERATORS,
    OPERATION_COLUMNS,
    PHASE,
    ROTATE,
    ROTATE_LANES,
    STRING_COLUMNS,
    STRING_COUNTS,
    Recipe,
    line,
)
from qtm._engines.statevector.passes import LOOK_AHEAD, Rotation, Span, in_groups, is_phase, next_pass
from qtm._engines.statevector.pauli_groups import Groups
from qtm._engines.statevector.row_basis import Basis, split_tables
from qtm._errors import OutOfMemory
from qtm._locks import fork_safe_lock
from qtm._machine import free_memory

_TILE_BITS = 7  # rows of which two states fit the first-level cache, with the tables of phases
_EARLY_BITS = 7  # of a final state; on a smaller one passes of their own cost as much as the rows save
_GROWTH = MAX_GENERATORS  # bits by which a support grows before what that makes possible is done, three in a pass


@dataclass(slots=True)
class _Phases:
    """Diagonal rotations that share two tables."""

    first: Sequence[int]  # masks of signs
    second: Sequence[int]
    slots: list[tuple[int, Slot]]
    slot: int = 0  # the first of them
    table_row: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """A recipe, with what the engine must know beside it."""

    recipe: Recipe
    num_outputs: int
    basis: tuple[int, ...]  # row bit j stands for this mask of the program's amplitudes
    table_rows: int
    mask_count: int  # of the largest group of observables
    constant: Slot  # the state is exp(-i/2 of its angle) times what the kernels compute


# --- Passes -----------------------------------------------------------------------------------------------------


class _Builder:
    """Collects operations, slots and index arrays."""

    def __init__(self, program: ConeProgram, lane_bits: int) -> None:
        self.lane_bits = lane_bits
        # Whoever reads or writes rows by their numbers does so once for both kinds of lanes.
        measured = program.measured
        self.basis = Basis(lane_bits, spread=not (program.prepared or measured.everything or measured.outcomes))
        if program.prepared:
            for bit in range(program.num_bits):
                self.basis.add(1 << bit)
        self.ops: list[list[int]] = []
        self.slots: list[Slot] = []
        self.slot_lanes: list[int] = []
        self.index: list[np.ndarray] = []
        self.index_size = 0
        self.known: dict[tuple, int] = {}
        self.table_rows = 2
        self.constant = Slot()

    @property
    def bits(self) -> int:
        """Bits of the support so far."""
        return len(self.basis.vectors)

    @property
    def row_bits(self) -> int:
        return max(self.bits - self.lane_bits, 0)

    def split(self, mask: int) -> tuple[int, int]:
        """A mask's rows and its lanes."""
        return mask >> self.lane_bits, mask & ((1 << self.lane_bits) - 1)

    def emit(self, **columns: int | Sequence[int]) -> None:
        """Add an operation; its columns are those of `recipe`."""
        self.ops.append(line(OPERATION_COLUMNS, **columns))

    def run(self, items: list[Item]) -> None:
        """Emit all items: first those that let the support grow, every few followed by what they make possible."""
        rank = self.bits or len(pivots([item.x for item in items]))
        _refuse_what_cannot_fit(rank)
        early = rank >= _EARLY_BITS
        while (place := self._first_outside(items)) is not None:
            self.passes(items[:place])
            self._grow(items[place])
            items = items[place + 1 :]
            if early and (rank - self.bits) % _GROWTH == 0:
                ready, items = self._ready(items)
                self.passes(ready)
        self.passes(items)

    def _first_outside(self, items: list[Item]) -> int | None:
        return next((i for i, item in enumerate(items) if self.basis.coordinates(item.x) is None), None)

    def _ready(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """Items that stay in the support and commute with all that is left before them; and the rest."""
        ready: list[Item] = []
        rest: list[Item] = []
        for number, item in enumerate(items):
            if len(rest) > LOOK_AHEAD:
                return ready, rest + items[number:]
            inside = self.basis.coordinates(item.x) is not None
            (ready if inside and all(item.commutes(r) for r in rest) else rest).append(item)
        return ready, rest

    def passes(self, items: list[Item]) -> None:
        """Emit items that stay in the support, in passes that take as many of them as fit a tile."""
        basis = self.basis
        rest = [(basis.coordinates(i.x) or 0, basis.functional(i.z), i.slot) for i in items]
        while rest:
            runs, span, rest = next_pass(rest, _TILE_BITS, self.lane_bits)
            span.fill(self.row_bits)
            self._pass(runs, span)

    def _pass(self, runs: list[list[Rotation]], span: Span) -> None:
        steps: list[list[Rotation] | _Phases] = []
        for run in runs:
            steps += self._phases(run) if is_phase(run[0]) else in_groups(run, self.lane_bits)
        if not steps:
            return
        # The angles of the rotations follow one another: their cosines are multiplied.
        row = 0
        for step in steps:
            if isinstance(step, _Phases):
                step.slot, step.table_row = len(self.slots), row
                row += (1 << len(step.first)) + (1 << len(step.second))
                for mask, slot in step.slots:
                    self._slot(slot, mask)
        self.table_rows = max(self.table_rows, row)
        pivot_index = self._store(("pivots", *span.masks), np.array(pivots(span.masks), np.int32))
        for place, step in enumerate(steps):
            tile = {"tile_index": pivot_index, "tile_bits": len(span.masks), "place": place, "groups": len(steps)}
            if isinstance(step, _Phases):
                self._emit_phases(step, span, tile)
            else:
                masks = [m for x, _, _ in step if (m := self.split(x)[0])]  # none, of a rotation between lanes
                self._operation(ROTATE, self.row_bits, step, **self._cosets(span.complement(masks)), **tile)

    def _cosets(self, masks: list[int]) -> dict[str, int]:
        offset = self._store(("coset", *masks), combinations(masks).astype(np.int32))
        return {"cosets": 1 << len(masks), "coset_index": offset}

    # Phases

    def _phases(self, run: list[Rotation]) -> list[_Phases]:
        """Diagonal rotations; those that are constant on the support are global phases, and go into ``constant``."""
        rows: dict[int, Slot] = {}
        for _, mask, slot in run:
            total = rows.setdefault(mask, Slot()) if mask else self.constant
            total.add(slot.terms.items(), slot.offset, 1)
        return [_Phases(a, b, [(m, rows[m]) for m in (*a, *b)]) for a, b in split_tables(list(rows))]

    def _emit_phases(self, step: _Phases, span: Span, tile: dict[str, int]) -> None:
        tables = [[m >> self.lane_bits for m in masks] for masks in (step.first, step.second)]
        different, alike = span.split([m for masks in tables for m in masks])
        offsets = combinations(different)
        in_tile = [self._store(("tile", *different, -1, *t), entries(t, offsets)) for t in tables]
        self.emit(
            kind=PHASE,
            bits=self.row_bits,
            slot=step.slot,
            count=len(step.first),
            second_count=len(step.second),
            first_index=self.row_index(step.first, self.row_bits),
            second_index=self.row_index(step.second, self.row_bits),
            first_tile=in_tile[0],
            second_tile=in_tile[1],
            table_row=step.table_row,
            alike=1 << len(alike),
            cosets=1 << len(different),
            coset_index=self._cosets([*alike, *different])["coset_index"],
            **tile,
        )

    def _slot(self, slot: Slot, signs: int) -> None:
        self.slots.append(slot)
        self.slot_lanes.append(self.split(signs)[1])

    def row_index(self, masks: Sequence[int], bits: int) -> int:
        """Where the index array begins that maps (low rows, high rows) to a table entry: xor the two."""
        rows = tuple(m >> self.lane_bits for m in masks)
        return self._store(("rows", bits, *rows), row_index(rows, bits))

    def _store(self, key: tuple, numbers: np.ndarray) -> int:
        """Where the numbers stand in the index; equal ones are stored once."""
        if key not in self.known:
            self.known[key] = self.index_size
            self.index.append(numbers)
            self.index_size += len(numbers)
        return self.known[key]

    # Rotations

    def _grow(self, item: Item) -> None:
        bits = self.bits
        mask = self.basis.add(item.x)
        kind = DOUBLE_SUPPORT if bits >= self.lane_bits else ROTATE_LANES
        # Growing, a pass goes over the rows there were; within a row it goes over both lanes of a pair.
        signs = self.basis.functional(item.z, bits if kind == DOUBLE_SUPPORT else bits + 1)
        self._operation(kind, max(bits - self.lane_bits, 0), [(mask, signs, item.slot)])

    def _operation(self, kind: int, bits: int, group: list[Rotation], **tile: int) -> None:
        """Rotations as one operation; ``tile`` has the columns of a pass over tiles, where it is part of one."""
        masks, lanes = zip(*(self.split(x) for x, _, _ in group), strict=True)
        signs = [self.split(w)[0] for _, w, _ in group]
        # The lowest set bit of a mask: of the two rows of a pair, one has it and the other does not.
        single = [max((m & -m).bit_length() - 1, 0) for m in masks]
        self.emit(
            kind=kind,
            bits=bits,
            slot=len(self.slots),
            count=len(group),
            masks=masks,
            signs=signs,
            pivots=single,
            lanes=lanes,
            **(tile or {"groups": 1}),
        )
        for _, w, slot in group:
            self._slot(slot, w)


def _refuse_what_cannot_fit(bits: int) -> None:
    """Raise before even the index of the rows is made; what else must fit, the engine checks."""
    needed, free = 2 * 8 << bits, free_memory()
    if needed > free:
        raise OutOfMemory(
            f"{bits} qubits need {needed / 2**30:.1f} GiB for two states in single precision, and "
            f"{free / 2**30:.1f} GiB of memory are free; use fewer qubits"
        )


def row_index(masks: Sequence[int], bits: int) -> np.ndarray:
    """Table entry of every low row, then of every high row: bit j is the parity under mask j."""
    low = np.arange(1 << min(bits, LOW_BITS), dtype=np.int64)
    high = np.arange(1 << max(bits - LOW_BITS, 0), dtype=np.int64) << LOW_BITS
    return entries(masks, np.concatenate([low, high]))


def entries(masks: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Table entry of every row: bit j is the parity under mask j."""
    found = np.zeros(len(rows), np.int64)
    for j, mask in enumerate(masks):
        found |= odd_bits(rows, np.int64(mask)).astype(np.int64) << j
    return found.astype(np.int32)


# --- The whole --------------------------------------------------------------------------------------------------


def _csr(rows: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start = np.cumsum([0, *(len(r) for r in rows)])
    flat = [entry for row in rows for entry in row]
    return (
        start.astype(np.int64),
        np.array([i for i, _ in flat], np.int64),
        np.array([c for _, c in flat], np.float64),
    )


def _schedule(program: ConeProgram, lane_bits: int) -> Schedule:
    terms = program.measured.strings
    builder = _Builder(program, lane_bits)
    measured = program.measured
    builder.run(all_items(program.phases) if measured.everything else visible(program.phases, *measured.ends))
    parts = 2 if program.prepared or any(op[KIND] == PHASE for op in builder.ops) else 1
    groups = Groups(builder, terms, parts)
    builder.row_index((), builder.row_bits)
    recipe = Recipe(
        np.array(builder.ops, np.int64).reshape(-1, OPERATION_COLUMNS),
        *_csr([sorted(slot.terms.items()) for slot in builder.slots]),
        np.array([slot.offset for slot in builder.slots], np.float64),
        np.array(builder.slot_lanes, np.int64),
        np.concatenate(builder.index),
        np.array(groups.rows, np.int64).reshape(-1, STRING_COLUMNS),
        *_csr(groups.mask_entries),
        np.array(groups.mask_lanes, np.int64),
        builder.row_bits,
        lane_bits,
        parts,
    )
    largest = max((row[STRING_COUNTS] + row[STRING_COUNTS + 1] for row in groups.rows), default=1)
    count = program.measured.num_outputs
    return Schedule(recipe, count, tuple(builder.basis.vectors), builder.table_rows, largest, builder.constant)


_LOCK = fork_safe_lock()


def schedule(program: ConeProgram, lane_bits: int = 0) -> Schedule:
    """Schedule a program for what it measures; made once.

    ``lane_bits`` low bits of the kernels' amplitudes are lanes of a vector; 0: the lanes are samples.
    """
    with _LOCK:
        if lane_bits not in program.compiled:
            program.compiled[lane_bits] = _schedule(program, lane_bits)
        return program.compiled[lane_bits]
