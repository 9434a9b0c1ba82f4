"""Passes over the coordinates: the operations that run together, their tiles, and the arrays that kernels read.

A *row* numbers a coordinate: bit j stands for basis vector j of the space of relevant strings. A pass works on
tiles, the cosets of up to 2**TILE_BITS rows that its rotations and shifts mix; a tile is copied, all operations of the
pass run on the copy, and it is copied back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gf2 import combinations, pivots
from qtm._engines.density_matrix.kernels.recipe import (
    COLUMNS,
    LEARNED,
    PASS_COLUMNS,
    ROTATE,
    SCALE,
    SHIFT,
    Recipe,
)
from qtm._engines.density_matrix.layers import Span, commute, diagonal_strings, layers, supported, visible
from qtm._engines.density_matrix.operations import (
    Coordinates,
    Diagonal,
    Numbers,
    Operation,
    Rotation,
    Shift,
    lower,
    odd,
)
from qtm._engines.density_matrix.rows import Rows, odd_rows
from qtm._errors import OutOfMemory

# Tiles of a state and its cotangent stay in the first-level cache with the pairs of an operation; larger tiles take
# fewer passes, and up to 8 bits one tile is the whole state.
WHOLE_BITS, TILE_BITS = 8, 6
MAX_ROW_BITS = 26
_LOOK_AHEAD = 64
# The product of factors by which a state may be divided, by bytes of a number; below it, the state is kept instead.
_LEAST_FACTOR = {4: 1e-2, 8: 1e-5}

# Observables as terms: for each observable, pairs (string x << n | z before the frame, coefficient).
Terms = Sequence[Sequence[tuple[int, float]]]


@dataclass(slots=True)
class Scale:
    """Several diagonals at once, and the factor of every row if they are constant."""

    diagonals: list[Diagonal]
    factors: np.ndarray | None = None  # (rows,)

    def commutes(self, other: Operation, num_qubits: int) -> bool:
        """Whether all of them commute with another operation."""
        return all(commute(d, other, num_qubits) for d in self.diagonals)


Item = Rotation | Shift | Scale


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """A circuit with its observables, ready for the kernels."""

    recipe: Recipe
    numbers: Numbers
    row_bits: int
    start_basis: tuple[int, ...]  # strings of the first row bits: coordinates that are not 0 at the start
    checkpoints: int
    multiply_adds: float  # real multiply-adds of one sample, forward and reverse


def measured(frame_coordinates: Coordinates, terms: Terms) -> list[list[tuple[int, float]]]:
    """Strings of observables pulled back through the frame; signs go into their coefficients."""
    n, frame = frame_coordinates.num_qubits, frame_coordinates.frame
    found = []
    for observable in terms:
        row = []
        for string, coefficient in observable:
            x, z = string >> n, string & (1 << n) - 1
            k, x, z = frame.pull_back((x & z).bit_count() & 3, x, z)  # Y = i X Z
            row.append((x << n | z, coefficient if k == odd(x & z) else -coefficient))
        found.append(row)
    return found


def schedule(flat: FlatCircuit, terms: Terms, real_bytes: int) -> Schedule:
    """Schedule a circuit for observables.

    Raises:
        OutOfMemory: there are more relevant coordinates than any memory holds.
    """
    coordinates, pulled, start, kept, space = _cone(flat, terms)
    n = coordinates.num_qubits
    if len(space.basis) > MAX_ROW_BITS:
        raise OutOfMemory(
            f"the density matrix needs 2**{len(space.basis)} coordinates for each sample; "
            'use fewer qubits, or sample trajectories with method="trajectories"'
        )
    builder = _Builder(space, len(start), n, real_bytes, coordinates.numbers)
    items: list[Item] = []
    for layer in layers(kept, n):
        items += layer.turns
        items += builder.scales(layer.diagonals)
    return builder.build(items, pulled)


def _cone(
    flat: FlatCircuit, terms: Terms
) -> tuple[Coordinates, list[list[tuple[int, float]]], list[int], list[Operation], Span]:
    """The lowered circuit, the observables pulled back through it, and the operations that they depend on."""
    coordinates = lower(flat)
    pulled = measured(coordinates, terms)
    prepared = [q for p in flat.initial for q in p.qubits]
    kept, space = visible(coordinates, (s for row in pulled for s, _ in row))
    start = diagonal_strings(space, flat.num_qubits, prepared)
    kept, space = supported(kept, start, flat.num_qubits)
    return coordinates, pulled, start, kept, space


def extent(flat: FlatCircuit, terms: Terms) -> tuple[int, int, int]:
    """Row bits, rotations with shifts, and merged diagonals of a circuit, without its schedule."""
    coordinates, _, _, kept, space = _cone(flat, terms)
    found = layers(kept, coordinates.num_qubits)
    return len(space.basis), sum(len(f.turns) for f in found), sum(bool(f.diagonals) for f in found)


@dataclass(slots=True)
class _Pass:
    items: list[Item]
    masks: list[int]
    checkpoint: bool = False


class _Builder:
    def __init__(self, space: Span, start_bits: int, n: int, real_bytes: int, numbers: Numbers) -> None:
        self.rows = Rows(space, n)
        self.n, self.start_bits, self.numbers = n, start_bits, numbers
        self.least = _LEAST_FACTOR[real_bytes]
        self.index = np.arange(1 << self.rows.bits, dtype=np.int64)
        self.tile_bits = self.rows.bits if self.rows.bits <= WHOLE_BITS else TILE_BITS
        self.slots: list[Rotation] = []
        self.shifts: list[int] = []
        self.factors: list[np.ndarray] = []
        self.classes: list[np.ndarray] = []
        self.pairs: list[int] = []
        self.ops: list[list[int]] = []
        self.passes: list[list[int]] = []
        self.combs: list[int] = []
        self.reps: list[np.ndarray] = []
        self.work = 0

    # Diagonals

    def scales(self, diagonals: list[Diagonal]) -> list[Scale]:
        """One scale for all constant diagonals, and one for each learned one."""
        known = [d for d in diagonals if d.factors is not None]
        first = [Scale(known, self.product(known))] if known else []
        return first + [Scale([d]) for d in diagonals if d.factors is None]

    def number_of(self, diagonal: Diagonal) -> np.ndarray:
        """For every row, the number of its restriction to the diagonal's qubits."""
        number = np.zeros(len(self.index), np.int64)
        for place, image in enumerate(diagonal.images):
            number |= odd_rows(self.index, self.rows.against(image)) << (place ^ 1)
        return number

    def product(self, diagonals: list[Diagonal]) -> np.ndarray:
        """The factor of every row."""
        total = np.ones(len(self.index))
        for diagonal in diagonals:
            assert diagonal.factors is not None
            total *= diagonal.factors[self.number_of(diagonal)]
        return total

    # Passes

    def build(self, items: list[Item], pulled: list[list[tuple[int, float]]]) -> Schedule:
        passes = self.partition(items)
        observed, csr = self.observed(pulled)
        support = self.index < 1 << self.start_bits
        before = []
        for p in passes:
            before.append(support)
            support = self.spread(support, p.items)
        after = []
        for p in reversed(passes):
            after.append(observed)
            observed = self.spread(observed, p.items[::-1])
        for p, s, v in zip(passes, before, after[::-1], strict=True):
            self.emit(p, s, v)
        return self.finish(csr)

    def observed(
        self, pulled: list[list[tuple[int, float]]]
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        seen = np.zeros(len(self.index), bool)
        start, rows, coefs = [0], [], []
        for observable in pulled:
            for string, coefficient in observable:
                row = self.rows.row(string)
                if row is not None:
                    rows.append(row)
                    coefs.append(coefficient)
                    seen[row] = True
            start.append(len(rows))
        return seen, (np.array(start, np.int64), np.array(rows, np.int64), np.array(coefs, np.float64))

    def spread(self, alive: np.ndarray, items: Sequence[Item]) -> np.ndarray:
        """Rows reached from ``alive`` ones; the same forward and backward, except for shifts, which count as both."""
        for item in items:
            if not isinstance(item, Scale):
                mask = self.rows.row(item.string)
                assert mask is not None
                alive = alive | (alive[self.index ^ mask] & self.acts(item, self.index))
        return alive

    def acts(self, item: Rotation | Shift, rows: np.ndarray) -> np.ndarray:
        """Rows that a rotation rotates, or that a shift reads or changes (a superset: I or Z on its qubit)."""
        if isinstance(item, Rotation):
            return odd_rows(rows, self.rows.against(item.string)) == 1
        return odd_rows(rows, self.rows.against(item.string)) == 0

    def partition(self, items: list[Item]) -> list[_Pass]:
        passes = []
        pending = list(items)
        strength = 1.0  # the smallest factor that the scales since the last checkpoint leave on any row
        while pending:
            taken, pending, strength = self.next_pass(pending, strength)
            passes.append(taken)
        return passes

    def next_pass(self, pending: list[Item], strength: float) -> tuple[_Pass, list[Item], float]:
        found = _Pass([], [])
        skipped: list[Item] = []
        for place, item in enumerate(pending):
            if len(skipped) > _LOOK_AHEAD or not self.passes_by(item, skipped):
                skipped.append(item)
            elif isinstance(item, Scale):
                left = strength * self.strength(item)
                if left < self.least:
                    # Division cannot undo it, so the state before it is kept, at the start of a pass.
                    if found.items:
                        return found, skipped + pending[place:], strength
                    found.checkpoint, left = True, 1.0
                strength = left
                found.items.append(item)
            elif self.room_for(item, found):
                found.items.append(item)
            else:
                skipped.append(item)
        return found, skipped, strength

    def strength(self, scale: Scale) -> float:
        return 0.0 if scale.factors is None else float(np.abs(scale.factors).min())  # learned ones may become 0

    def passes_by(self, item: Item, skipped: list[Item]) -> bool:
        return all(_commute(item, other, self.n) for other in skipped)

    def room_for(self, item: Rotation | Shift, found: _Pass) -> bool:
        mask = self.rows.row(item.string)
        assert mask is not None
        more = [*found.masks, mask]
        if len(pivots(more)) == len(more):
            if len(more) > self.tile_bits:
                return False
            found.masks.append(mask)
        return True

    # Arrays of a pass

    def emit(self, p: _Pass, support: np.ndarray, seen: np.ndarray) -> None:
        masks = list(p.masks)
        for bit in range(self.rows.bits):  # to the size of a tile with neighbouring rows
            if len(masks) < self.tile_bits and len(pivots([*masks, 1 << bit])) > len(masks):
                masks.append(1 << bit)
        comb = combinations(masks)
        closed = sum(1 << bit for bit in pivots(masks))
        reps = self.index[self.index & closed == 0]
        tile = _Tile(self, comb, reps, support, seen)
        first = len(self.ops)
        tile.emit(p.items)
        self.passes.append(
            [len(comb), len(self.combs), sum(map(len, self.reps)), len(tile.reps), first, len(self.ops), p.checkpoint]
        )
        self.combs += comb.tolist()
        self.reps.append(tile.reps)
        self.work += len(tile.reps) * len(comb) * (2 + 4 * len(p.items))

    def finish(self, csr: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Schedule:
        slots = [sorted(slot.terms.items()) for slot in self.slots]
        start = np.cumsum([0, *map(len, slots)]).astype(np.int64)
        flat = [entry for slot in slots for entry in slot]
        passes = np.array(self.passes, np.int64).reshape(-1, PASS_COLUMNS)
        checkpoints = int(passes[:, 6].sum())
        passes[:, 6] = np.where(passes[:, 6] > 0, np.cumsum(passes[:, 6]) - 1, -1)
        recipe = Recipe(
            np.array(self.ops, np.int64).reshape(-1, COLUMNS),
            passes,
            np.array(self.pairs, np.int32),
            np.array(self.combs, np.int32),
            np.concatenate([*self.reps, np.zeros(0, np.int64)]).astype(np.int32),
            self.rows.parity,
            np.concatenate([*self.factors, np.zeros(0)]),
            np.concatenate([*self.classes, np.zeros(0, np.uint8)]),
            start,
            np.array([a for a, _ in flat], np.int64),
            np.array([c for _, c in flat], np.float64),
            np.array([slot.offset for slot in self.slots], np.float64),
            *csr,
            self.rows.bits,
            self.start_bits,
            1 << self.tile_bits,
        )
        basis = tuple(self.rows.basis[: self.start_bits])
        return Schedule(recipe, self.numbers, self.rows.bits, basis, checkpoints, float(self.work))


def _commute(a: Item, b: Item, n: int) -> bool:
    if isinstance(a, Scale):
        return isinstance(b, Scale) or a.commutes(b, n)
    return b.commutes(a, n) if isinstance(b, Scale) else commute(a, b, n)


class _Tile:
    """The tiles of one pass, and which of their rows are nonzero and relevant."""

    def __init__(
        self, builder: _Builder, comb: np.ndarray, reps: np.ndarray, support: np.ndarray, seen: np.ndarray
    ) -> None:
        self.builder, self.comb = builder, comb
        rows = reps[:, None] ^ comb[None, :]  # (tiles, rows of a tile)
        has, sees = support[rows], seen[rows]
        active = has.any(1) & sees.any(1)
        rows, has, sees = rows[active], has[active], sees[active]
        # Tiles start at a relevant row, so that few rows of a tile are relevant in any of them.
        lead = (has if has.sum() <= sees.sum() else sees).argmax(1)
        self.reps = rows[np.arange(len(rows)), lead]
        self.support = support[self.reps[:, None] ^ comb].any(0)  # in any tile
        self.seen = seen[self.reps[:, None] ^ comb].any(0)

    def emit(self, items: list[Item]) -> None:
        turns = [_Turn(self.builder, self.comb, self.reps, i) if not isinstance(i, Scale) else None for i in items]
        seen, after = self.seen, []
        for turn in reversed(turns):
            after.append(seen)
            seen = seen if turn is None else turn.spread(seen)
        for item, turn, after_it in zip(items, turns, after[::-1], strict=True):
            if turn is not None:
                self.builder.ops.append(turn.row(self.support, after_it))
                self.support = turn.spread(self.support)
            else:
                assert isinstance(item, Scale)
                self.scale(item)

    def scale(self, scale: Scale) -> None:
        b = self.builder
        diagonal = scale.diagonals[0]
        if scale.factors is None:
            place = sum(map(len, b.classes))
            b.classes.append(b.number_of(diagonal).astype(np.uint8))
            b.ops.append([LEARNED, diagonal.number, place, 1 << len(diagonal.images)] + [0] * (COLUMNS - 4))
        else:
            place = sum(map(len, b.factors))
            b.factors.append(scale.factors)
            b.ops.append([SCALE, 0, place] + [0] * (COLUMNS - 3))


class _Turn:
    """A rotation or shift on the tiles of a pass: the pairs of a tile's rows that it mixes, and their signs."""

    def __init__(self, builder: _Builder, comb: np.ndarray, reps: np.ndarray, item: Rotation | Shift) -> None:
        self.builder, self.comb, self.item = builder, comb, item
        rows = builder.rows
        mask = rows.row(item.string)
        assert mask is not None
        self.local = np.arange(len(comb))
        self.partner = self.local ^ int(np.flatnonzero(comb == mask)[0])
        rotates = isinstance(item, Rotation)
        images = (item.string, item.string) if isinstance(item, Rotation) else item.images
        # A rotation rotates strings that anticommute with its own; a shift reads strings that commute with X and Z of
        # its qubit.
        self.tests = [rows.against(image) for image in images]
        bits = [odd_rows(comb, test) for test in self.tests]
        cases = set((odd_rows(reps, self.tests[0]) | odd_rows(reps, self.tests[1]) << 1).tolist())
        self.hits: dict[int, np.ndarray] = {}  # by the parities of a tile's first row
        for case in cases:
            hit = [bit ^ (case >> place & 1) == int(rotates) for place, bit in enumerate(bits)]
            self.hits[case] = hit[0] & hit[1]

    def spread(self, alive: np.ndarray) -> np.ndarray:
        """Rows reached from ``alive`` ones, in either direction."""
        reached = alive.copy()
        for hit in self.hits.values():
            if isinstance(self.item, Shift):
                hit = hit | hit[self.partner]
            reached |= hit & alive[self.partner]
        return reached

    def row(self, support: np.ndarray, seen: np.ndarray) -> list[int]:
        """The operation as the kernels read it; stores its pairs."""
        b, item = self.builder, self.item
        x, z = item.string >> b.n, item.string & (1 << b.n) - 1
        own = odd(x & z)
        if isinstance(item, Rotation):
            sign, quadratic, constant = b.rows.functional(z << b.n), 1 - own, 1 - own
            kind, number = ROTATE, len(b.slots)
            b.slots.append(item)
        else:
            sign, quadratic, constant = b.rows.functional(x), own, int(item.sign < 0)
            kind, number = SHIFT, item.number
        lists = []
        flips = odd_rows(self.comb, sign) ^ constant
        for case in range(4):
            pairs = self.pairs(case, support, seen)
            lists += [len(b.pairs), len(pairs)]
            b.pairs += (pairs | self.partner[pairs] << 12 | flips[pairs] << 24).tolist()
        return [kind, number, *self.tests, sign, quadratic, *lists]

    def pairs(self, case: int, support: np.ndarray, seen: np.ndarray) -> np.ndarray:
        if case not in self.hits:
            return np.zeros(0, np.int64)
        hit, other = self.hits[case], self.partner
        if isinstance(self.item, Rotation):
            hit = hit & (self.local < other) & (support | support[other]) & (seen | seen[other])
        else:
            hit = hit & support & seen[other]
        return self.local[hit]
