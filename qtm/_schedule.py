"""Scheduling: a program and its observables become a `Recipe` of passes over the state.

Three things happen here. What no observable can see is dropped (the light cone). The amplitudes are renumbered
by a linear map over GF(2), so that the support of the state, which starts as |0...0>, is always a prefix of
the rows: the first rotation about each new mask doubles it, and it ends with 2^rank rows, not 2^n. And real
rotations are grouped in threes that a kernel does in one pass, with eight rows in registers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtm._frame import conjugate
from qtm._kernels.cpu import GROW, LOW_BITS, PHASE, ROTATE, Recipe
from qtm._observables import Observable
from qtm._program import Program, Slot

_COLUMNS = 16
_TABLE_BITS = 8  # masks in one table of phases or parities
_GROUP = 3  # rotations in one pass


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """A recipe, with what the engine must know beside it."""

    program: Program
    recipe: Recipe
    num_observables: int
    basis: tuple[int, ...]  # row bit j stands for this mask of the program's amplitudes
    table_rows: int
    mask_count: int  # of the largest group of observables


def odd_bits(masks: Any, other: Any) -> np.ndarray:
    """Parity of the overlap of bit masks, elementwise."""
    return np.bitwise_count(np.bitwise_and(masks, other)) & 1


# --- Light cone -------------------------------------------------------------------------------------------------


class _Cone:
    """Generators seen so far, walking backwards from the observables."""

    def __init__(self, x: np.ndarray, z: np.ndarray, more: int) -> None:
        self.count = len(x)
        self.x = np.concatenate([x, np.zeros(more, np.uint64)])
        self.z = np.concatenate([z, np.zeros(more, np.uint64)])

    def sees(self, x: int, z: int) -> bool:
        mine = slice(0, self.count)
        clash = odd_bits(self.x[mine], np.uint64(z)) ^ odd_bits(self.z[mine], np.uint64(x))
        if not clash.any():
            return False
        self.x[self.count], self.z[self.count] = x, z
        self.count += 1
        return True


Step = tuple[str, Any]  # ("phase", {z: slot}) or ("rotations", [(x, w, slot)])


def _visible(program: Program, x: np.ndarray, z: np.ndarray) -> list[Step]:
    total = sum(len(p.diagonal) + len(p.rotations) for p in program.phases)
    cone = _Cone(x, z, total)
    steps: list[Step] = []
    for phase in reversed(program.phases):
        rotations = [r for r in reversed(phase.rotations) if cone.sees(r[0], r[1])]
        steps.append(("rotations", rotations[::-1]))
        steps.append(("phase", {m: s for m, s in phase.diagonal.items() if cone.sees(0, m)}))
    return steps[::-1]


# --- Renumbering ------------------------------------------------------------------------------------------------


def _lower_rows(bit: int) -> int:
    """Lower row bits that go with a row bit, so that rows far apart do not share a set of the cache."""
    mixed = 1 << bit % 5 if bit >= 5 else 0
    return mixed | (1 << 5 + bit % 4 if bit >= 9 else 0)


class _Basis:
    """Masks of the program's amplitudes as masks of rows."""

    def __init__(self) -> None:
        self.reduced: dict[int, tuple[int, int]] = {}  # leading bit -> (mask, its coordinates)
        self.vectors: list[int] = []

    def coordinates(self, mask: int) -> int | None:
        """The row mask of ``mask``; None where it is outside the span."""
        total = 0
        while mask:
            entry = self.reduced.get(mask.bit_length())
            if entry is None:
                return None
            mask ^= entry[0]
            total ^= entry[1]
        return total

    def add(self, mask: int) -> int:
        """Make an independent mask the next row bit (with some lower ones); return its row mask."""
        bit = len(self.vectors)
        own = 1 << bit | _lower_rows(bit)
        vector = mask
        for j in range(bit):
            if own >> j & 1:
                vector ^= self.vectors[j]
        self.vectors.append(vector)
        rest, total = mask, own
        while (entry := self.reduced.get(rest.bit_length())) is not None:
            rest ^= entry[0]
            total ^= entry[1]
        self.reduced[rest.bit_length()] = rest, total
        return own

    def functional(self, mask: int, bits: int | None = None) -> int:
        """The row mask of a mask of signs, on the first ``bits`` row bits."""
        vectors = self.vectors if bits is None else self.vectors[:bits]
        return sum(((mask & v).bit_count() & 1) << j for j, v in enumerate(vectors))


# --- Passes -----------------------------------------------------------------------------------------------------


class _Builder:
    """Collects operations, slots and index arrays."""

    def __init__(self, program: Program) -> None:
        self.basis = _Basis()
        self.full = bool(program.initial)
        if self.full:
            for q in range(program.num_qubits):
                self.basis.add(1 << q)
        self.ops: list[list[int]] = []
        self.slots: list[Slot] = []
        self.index: list[np.ndarray] = []
        self.index_size = 0
        self.known: dict[tuple, int] = {}
        self.table_rows = 2

    @property
    def bits(self) -> int:
        return len(self.basis.vectors)

    def emit(self, *columns: int) -> None:
        self.ops.append([*columns, *[0] * (_COLUMNS - len(columns))])

    # Phases

    def phase(self, diagonal: dict[int, Slot]) -> None:
        """Diagonal rotations; those that act on the support as a constant are global phases and vanish."""
        if self.bits == 0:
            return
        rows: dict[int, Slot] = {}
        for mask, slot in diagonal.items():
            row_mask = self.basis.functional(mask)
            if row_mask:
                rows.setdefault(row_mask, Slot()).add(slot.terms.items(), slot.offset, 1)
        masks = list(rows)
        for first, second in split_tables(masks):
            slot = len(self.slots)
            self.slots += [rows[m] for m in (*first, *second)]
            offsets = self.row_index(first, self.bits), self.row_index(second, self.bits)
            self.emit(PHASE, self.bits, slot, len(first), len(second), *offsets)
            self.table_rows = max(self.table_rows, (1 << len(first)) + (1 << len(second)))

    def row_index(self, masks: Sequence[int], bits: int) -> int:
        """Where the index array begins that maps (low rows, high rows) to a table entry: xor the two."""
        key = (tuple(masks), bits)
        if key not in self.known:
            self.known[key] = self.index_size
            self.index.append(row_index(masks, bits))
            self.index_size += len(self.index[-1])
        return self.known[key]

    # Rotations

    def rotations(self, rotations: list[tuple[int, int, Slot]]) -> None:
        pending: list[tuple[int, int, Slot]] = []
        for x, w, slot in rotations:
            row_x = self.basis.coordinates(x)
            if row_x is None:
                self._flush(pending)
                self._grow(x, w, slot)
            else:
                pending.append((row_x, self.basis.functional(w), slot))
        self._flush(pending)

    def _grow(self, x: int, w: int, slot: Slot) -> None:
        bits = self.bits
        row_x = self.basis.add(x)
        signs = self.basis.functional(w, bits)
        self.emit(GROW, bits, len(self.slots), 1, row_x, 0, 0, signs)
        self.slots.append(slot)

    def _flush(self, pending: list[tuple[int, int, Slot]]) -> None:
        groups: list[list[tuple[int, int, Slot]]] = []
        while pending:
            group = _next_group(pending)
            groups.append(group)
            pending[:] = [r for r in pending if not any(r is g for g in group)]
        for group in _balanced(groups):
            self._rotate(group)

    def _rotate(self, group: list[tuple[int, int, Slot]]) -> None:
        pad = [0] * (_GROUP - len(group))
        masks = [x for x, _, _ in group]
        pivots = _pivots(masks)
        alone = [(m & -m).bit_length() - 1 for m in masks]
        signs = [w for _, w, _ in group]
        self.emit(
            ROTATE, self.bits, len(self.slots), len(group), *masks, *pad, *signs, *pad, *pivots, *pad, *alone, *pad
        )
        self.slots += [slot for _, _, slot in group]


def split_tables(masks: list[int]) -> list[tuple[list[int], list[int]]]:
    """Deal masks into pairs of tables, as few pairs and as small tables as possible."""
    if not masks:
        return []
    pairs = -(-len(masks) // (2 * _TABLE_BITS))
    size = -(-len(masks) // pairs)
    chunks = [masks[i : i + size] for i in range(0, len(masks), size)]
    half = [(len(c) + 1) // 2 if len(c) > 5 else len(c) for c in chunks]
    return [(c[:h], c[h:]) for c, h in zip(chunks, half, strict=True)]


def row_index(masks: Sequence[int], bits: int) -> np.ndarray:
    """Table entry of every low row, then of every high row: bit j is the parity under mask j."""
    low = np.arange(1 << min(bits, LOW_BITS), dtype=np.int64)
    high = np.arange(1 << max(bits - LOW_BITS, 0), dtype=np.int64) << LOW_BITS
    rows = np.concatenate([low, high])
    entries = np.zeros(len(rows), np.int64)
    for j, mask in enumerate(masks):
        entries |= odd_bits(rows, np.int64(mask)).astype(np.int64) << j
    return entries.astype(np.int32)


def _fits(group: list[tuple[int, int, Slot]], x: int, w: int) -> bool:
    """Whether each generator's signs are settled by its own mask alone (then all of them commute too)."""
    return all(
        not (other_x & w).bit_count() & 1 and not (other_w & x).bit_count() & 1 for other_x, other_w, _ in group
    )


def _commute(a: tuple[int, int, Slot], b: tuple[int, int, Slot]) -> bool:
    return not ((a[0] & b[1]).bit_count() ^ (a[1] & b[0]).bit_count()) & 1


def _next_group(pending: list[tuple[int, int, Slot]]) -> list[tuple[int, int, Slot]]:
    """The first rotation and those behind it that can be done with it and may be moved up to it."""
    group, skipped = [pending[0]], []
    for rotation in pending[1:]:
        if len(group) == _GROUP:
            break
        if _fits(group, rotation[0], rotation[1]) and all(_commute(rotation, s) for s in skipped):
            group.append(rotation)
        else:
            skipped.append(rotation)
            if len(skipped) > 64:
                break
    return group


def _balanced(groups: list[list[tuple[int, int, Slot]]]) -> list[list[tuple[int, int, Slot]]]:
    """A pass for one rotation costs nearly as much as one for two: deal 3 + 1 as 2 + 2."""
    for before, single in zip(groups, groups[1:], strict=False):
        if len(before) == _GROUP and len(single) == 1 and _fits(before[-1:], *single[0][:2]):
            single.insert(0, before.pop())
    return groups


def _pivots(masks: list[int]) -> list[int]:
    """Ascending bits at which the span of the masks has a row-reduced basis: cosets are numbered by the rest."""
    reduced: list[int] = []
    for mask in masks:
        for r in reduced:
            mask = min(mask, mask ^ r)
        reduced.append(mask)
    return sorted(r.bit_length() - 1 for r in reduced)


# --- Observables ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Terms:
    """All Pauli strings of all observables, conjugated by the frame."""

    observable: np.ndarray  # (terms,)
    coef: np.ndarray  # (terms,)
    k: np.ndarray  # (terms,)
    x: np.ndarray  # (terms,) uint64
    z: np.ndarray  # (terms,) uint64


def _terms(program: Program, observables: Sequence[Observable]) -> _Terms:
    owner = np.repeat(np.arange(len(observables)), [len(o.coeffs) for o in observables])
    coef, k, x, z = (
        np.concatenate([np.asarray(getattr(o, name)) for o in observables]) if observables else np.zeros(0)
        for name in ("coeffs", "k", "x", "z")
    )
    k, x, z = conjugate(program.frame, k.astype(np.int64), x.astype(np.uint64), z.astype(np.uint64))
    return _Terms(owner, coef.astype(float), k, x, z)


class _Groups:
    """Strings grouped by row mask and parity, their sign masks dealt into tables."""

    def __init__(self, builder: _Builder, terms: _Terms, parts: int) -> None:
        self.builder, self.rows = builder, []
        self.mask_entries: list[list[tuple[int, float]]] = []
        grouped: dict[tuple[int, int], dict[int, list[tuple[int, float]]]] = {}
        x_rows = {x: builder.basis.coordinates(x) for x in map(int, np.unique(terms.x))}
        z_rows = _functionals(builder.basis, terms.z)
        for m, coef, k, x, z in zip(terms.observable, terms.coef, terms.k, terms.x, z_rows, strict=True):
            row_x = x_rows[int(x)]
            odd = int(k) & 1
            if row_x is None or (odd and parts == 1):
                continue  # the string takes the state out of its support, or is imaginary on a real state
            sign = 1.0 if k in (0, 3) else -1.0
            grouped.setdefault((row_x, odd), {}).setdefault(int(z), []).append((int(m), sign * coef))
        for (x, odd), masks in grouped.items():
            self._add(x, odd, masks)

    def _add(self, x: int, odd: int, masks: dict[int, list[tuple[int, float]]]) -> None:
        bits = self.builder.bits
        for first, second in split_tables(list(masks)):
            offsets = self.builder.row_index(first, bits), self.builder.row_index(second, bits)
            self.rows.append([x, odd, len(self.mask_entries), len(first), len(second), *offsets])
            self.mask_entries += [masks[m] for m in (*first, *second)]
            rows = (1 << len(first)) + (1 << len(second))
            self.builder.table_rows = max(self.builder.table_rows, rows)


def _functionals(basis: _Basis, z: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(z), np.int64)
    for j, vector in enumerate(basis.vectors):
        rows |= odd_bits(z, np.uint64(vector)).astype(np.int64) << j
    return rows


# --- The whole --------------------------------------------------------------------------------------------------


def _csr(rows: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start = np.cumsum([0, *(len(r) for r in rows)])
    flat = [entry for row in rows for entry in row]
    return (
        start.astype(np.int64),
        np.array([i for i, _ in flat], np.int64),
        np.array([c for _, c in flat], np.float64),
    )


def _schedule(program: Program, observables: Sequence[Observable] | None) -> Schedule:
    """``observables`` None: all probabilities, that is, anything diagonal."""
    if observables is None:
        masks = np.array([m for _, _, m in program.frame.z], np.uint64)
        terms, x, z = _terms(program, ()), np.zeros(len(masks), np.uint64), masks
    else:
        terms = _terms(program, observables)
        x, z = terms.x, terms.z
    builder = _Builder(program)
    for kind, content in _visible(program, x, z):
        getattr(builder, kind)(content)
    real = not any(op[0] == PHASE for op in builder.ops) and not program.initial
    parts = 1 if real else 2
    groups = _Groups(builder, terms, parts)
    slots = [sorted(slot.terms.items()) for slot in builder.slots]
    builder.row_index((), builder.bits)
    recipe = Recipe(
        np.array(builder.ops, np.int64).reshape(-1, _COLUMNS),
        *_csr(slots),
        np.array([slot.offset for slot in builder.slots], np.float64),
        np.concatenate(builder.index),
        np.array(groups.rows, np.int64).reshape(-1, 7),
        *_csr(groups.mask_entries),
        builder.bits,
        parts,
    )
    largest = max((row[3] + row[4] for row in groups.rows), default=1)
    count = 0 if observables is None else len(observables)
    return Schedule(program, recipe, count, tuple(builder.basis.vectors), builder.table_rows, largest)


_CACHE: OrderedDict[Any, Schedule] = OrderedDict()
_CACHE_SIZE = 256


def schedule(program: Program, observables: tuple[Observable, ...] | None) -> Schedule:
    """Schedule a program for its observables (None: for probabilities); cached."""
    key = program, observables
    found = _CACHE.get(key)
    if found is None:
        found = _CACHE[key] = _schedule(program, observables)
        if len(_CACHE) > _CACHE_SIZE:
            _CACHE.popitem(last=False)
    else:
        _CACHE.move_to_end(key)
    return found
