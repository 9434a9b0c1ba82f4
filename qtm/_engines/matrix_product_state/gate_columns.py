"""A flat circuit as columns of small tensors, one column for every site, cut into segments.

Every gate on several qubits is a sum of two products, ``first ⊗ ... ⊗ last`` (a Pauli rotation is
cos(a/2) I - i sin(a/2) P; CX and CZ are two projectors on the control), so it is an operator of bond dimension 2 from
its first site to its last, whatever lies between. Swaps only rename sites. Seen from one site, a circuit is a
sequence of *blocks*: a product of one-qubit gates, then a pair of 2x2 matrices numbered by the gate's bond index. The
bond opens to the right, closes to the left, or passes through:

    kind     new shape of a site tensor (left, 2, right)
    ROTATE   (left, 2, right)              one-qubit gates alone
    OPEN     (left, 2, right * 2)
    CLOSE    (left * 2, 2, right)
    PASS     (left * 2, 2, right * 2)      block-diagonal in the new index

Three rotations of one pair that commute are one gate of bond dimension 4 (`merged_gates`): its kinds end in 4, and
open, close and pass four times as much.

A segment is the part of a circuit between two truncations. A circuit whose bonds stay within the limit is one segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qtm._circuit.gates import Clifford, PauliRotation, Primitive
from qtm._engines.matrix_product_state.merged_gates import Triple, merged

ROTATE, OPEN, CLOSE, PASS = "rotate", "open", "close", "pass"
WIDE = "4"  # at the end of a kind: of bond dimension 4

_I = np.eye(2, dtype=complex)
PAULIS = {
    "I": _I,
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]).astype(complex),
}
_ZERO, _ONE = np.diag([1, 0]).astype(complex), np.diag([0, 1]).astype(complex)  # projectors
_ONE_QUBIT = {"x": PAULIS["X"], "z": PAULIS["Z"], "s": np.diag([1, 1j]), "sdg": np.diag([1, -1j])}
_CONTROLLED = {"cx": "X", "cz": "Z"}
_NO_ROTATION = -1


@dataclass(slots=True)
class _Factor:
    """One-qubit gate: cos(a/2) constant - i sin(a/2) generator for rotation ``slot``, or the constant alone."""

    constant: np.ndarray
    generator: np.ndarray | None = None
    slot: int = _NO_ROTATION


@dataclass(slots=True)
class _Block:
    """One-qubit gates in time order, then matrices numbered by the bond index.

    ``slots``: rotations whose cosines and sines weigh the matrices (`BlockMatrices`), with the sign of a triple.
    """

    kind: str
    factors: list[_Factor]
    matrices: tuple[np.ndarray, ...]
    slots: tuple[int, ...] = ()
    sign: int = 1


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Sites whose columns have the same kinds of blocks, so that they are computed together."""

    kinds: tuple[str, ...]
    sites: tuple[int, ...]
    blocks: np.ndarray  # (sites, len(kinds)): rows of the block table


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a circuit between two truncations.

    Attributes:
        groups: the columns.
        growth: factor by which the dimension of each bond grows, (sites - 1,).
    """

    groups: tuple[ColumnGroup, ...]
    growth: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last site next to a bond that grows; None if no bond does."""
        grown = [i for i, d in enumerate(self.growth) if d > 1]
        return (grown[0], grown[-1] + 1) if grown else None


@dataclass(frozen=True, slots=True)
class BlockTable:
    """All blocks as arrays; a rotation index of -1 means that there is none.

    Rotation r has the angle ``offsets[r] + sum(coefficient * angle)`` over ``terms``.
    """

    offsets: np.ndarray  # (rotations,)
    term_rotation: np.ndarray  # (terms,)
    term_angle: np.ndarray  # (terms,)
    term_coefficient: np.ndarray  # (terms,)
    constants: np.ndarray  # (blocks, factors, 2, 2)
    generators: np.ndarray  # (blocks, factors, 2, 2)
    factor_slots: np.ndarray  # (blocks, factors)
    pairs: np.ndarray  # (blocks, 2 or 4, 2, 2)
    pair_slots: np.ndarray  # (blocks, 3)
    signs: np.ndarray  # (blocks,)


@dataclass(frozen=True, slots=True)
class GateColumns:
    """A circuit as segments of columns.

    Attributes:
        num_sites: number of sites, one for every qubit.
        site_of: the site on which every qubit ends.
        segments: in time order.
        table: the blocks that the segments refer to.
    """

    num_sites: int
    site_of: tuple[int, ...]
    segments: tuple[Segment, ...]
    table: BlockTable


class _Builder:
    """One pass over the operations."""

    def __init__(self, num_sites: int, initial_bits: Sequence[int], limit_bits: int, rename: bool) -> None:
        self.num_sites, self.rename = num_sites, rename
        self.site_of = list(range(num_sites))
        self.entering_bits, self.limit_bits = initial_bits, limit_bits
        self.columns: list[list[list[_Block]]] = []  # segments, sites, blocks
        self.crossings: list[list[int]] = []  # segments, bonds: how many gates cross
        self.open_gates: list[list[list[_Factor]]] = []  # segments, sites: one-qubit gates not yet in a block
        self.latest = [0] * num_sites  # segment of the last gate that acts on a site
        self.rotations: list[PauliRotation] = []
        self.add_segment()

    def add_segment(self) -> None:
        self.columns.append([[] for _ in range(self.num_sites)])
        self.open_gates.append([[] for _ in range(self.num_sites)])
        self.crossings.append([0] * (self.num_sites - 1))

    def add(self, operation: Primitive | Triple) -> None:
        sites = [self.site_of[q] for q in operation.qubits]
        if isinstance(operation, Triple):
            self.triple(operation, sites)
        elif isinstance(operation, PauliRotation):
            self.rotate(operation, sites)
        elif operation.name == "swap" and not self.rename:
            a, b = operation.qubits
            for pair in ((a, b), (b, a), (a, b)):
                self.add(Clifford("cx", pair))
        elif operation.name == "swap":
            a, b = operation.qubits
            self.site_of[a], self.site_of[b] = sites[1], sites[0]
        elif operation.name in _CONTROLLED:
            target = PAULIS[_CONTROLLED[operation.name]]
            self.product({sites[0]: (_ZERO, _ONE), sites[1]: (_I, target)})
        else:
            self.one_qubit(sites[0], _Factor(_ONE_QUBIT[operation.name]))

    def rotate(self, gate: PauliRotation, sites: list[int]) -> None:
        paulis = {site: PAULIS[letter] for site, letter in zip(sites, gate.pauli, strict=True)}
        slots: tuple[int, ...] = ()
        scale = (np.cos(gate.offset / 2), -1j * np.sin(gate.offset / 2))
        if gate.terms:
            slots, scale = (len(self.rotations),), (1.0, 1.0)
            self.rotations.append(gate)
        first = min(sites, default=0)
        if len(sites) > 1:
            pairs = {site: (_I, pauli) for site, pauli in paulis.items()}
            pairs[first] = (scale[0] * _I, scale[1] * paulis[first])
            self.product(pairs, slots)
        elif sites and gate.terms:
            self.one_qubit(first, _Factor(_I, paulis[first], slots[0]))
        elif sites:
            self.one_qubit(first, _Factor(scale[0] * _I + scale[1] * paulis[first]))

    def triple(self, gate: Triple, sites: list[int]) -> None:
        slots = tuple(range(len(self.rotations), len(self.rotations) + 3))
        self.rotations += gate.rotations
        letters = zip(*gate.paulis, strict=True)
        self.product(
            {site: (_I, *(PAULIS[letter] for letter in own)) for site, own in zip(sites, letters, strict=True)},
            slots, gate.sign,
        )  # fmt: skip

    def one_qubit(self, site: int, factor: _Factor) -> None:
        gates = self.open_gates[self.latest[site]][site]
        if gates and gates[-1].generator is None and factor.generator is None:
            gates[-1] = _Factor(factor.constant @ gates[-1].constant)
        else:
            gates.append(factor)

    def product(self, pairs: Mapping[int, tuple[np.ndarray, ...]], slots: tuple[int, ...] = (), sign: int = 1) -> None:
        """Add a sum of two or four products of matrices on sites; rotations ``slots`` weigh the first site's."""
        first, last = min(pairs), max(pairs)
        terms = len(pairs[first])
        bits = terms.bit_length() - 1
        segment = self.place(max(self.latest[site] for site in pairs), first, last, bits)
        for site in range(first, last + 1):
            kind = OPEN if site == first else CLOSE if site == last else PASS
            if site in pairs:
                self.latest[site] = segment
            kind += WIDE if terms == 4 else ""
            block = _Block(kind, self.open_gates[segment][site], pairs.get(site, (_I,) * terms))
            if site == first:
                block.slots, block.sign = slots, sign
            self.open_gates[segment][site] = []
            self.columns[segment][site].append(block)
        for bond in range(first, last):
            self.crossings[segment][bond] += bits

    def place(self, segment: int, first: int, last: int, bits: int) -> int:
        """The earliest segment, from ``segment`` on, in which every crossed bond has room."""
        while not all(self.has_room(segment, bond, bits) for bond in range(first, last)):
            segment += 1
            if segment == len(self.columns):
                self.add_segment()
        return segment

    def has_room(self, segment: int, bond: int, bits: int) -> bool:
        """Whether a bond can take another gate: up to the limit, or a single gate if it enters at the limit."""
        entering = self.entering_bits[bond] + sum(counts[bond] for counts in self.crossings[:segment])
        here = self.crossings[segment][bond]
        return here == 0 or min(entering, self.limit_bits) + here + bits <= self.limit_bits

    def flush(self) -> None:
        for columns, gates in zip(self.columns, self.open_gates, strict=True):
            for site, factors in enumerate(gates):
                if factors:
                    columns[site].append(_Block(ROTATE, factors, (_I, 0 * _I)))


def gate_columns(
    num_qubits: int,
    operations: Iterable[Primitive],
    initial_bits: Sequence[int],
    limit_bits: int,
    *,
    rename: bool = True,
) -> GateColumns:
    """Compile operations on ``num_qubits`` qubits.

    Args:
        num_qubits: number of qubits, in the order of the chain.
        operations: in time order.
        initial_bits: log2 of the bond dimensions at the start, rounded up, (qubits - 1,).
        limit_bits: log2 of the bond dimension that a segment may reach.
        rename: swaps rename sites; otherwise they are applied, and qubit q ends on site q.
    """
    builder = _Builder(num_qubits, initial_bits, limit_bits, rename)
    for operation in merged(operations):
        builder.add(operation)
    builder.flush()
    blocks: list[_Block] = []
    segments = []
    for columns, crossings in zip(builder.columns, builder.crossings, strict=True):
        segments.append(Segment(_groups(columns, blocks), tuple(2**count for count in crossings)))
    return GateColumns(num_qubits, tuple(builder.site_of), tuple(segments), _table(blocks, builder.rotations))


def _groups(columns: list[list[_Block]], blocks: list[_Block]) -> tuple[ColumnGroup, ...]:
    """Group the sites of a segment by their kinds of blocks, and append the blocks to the list of all."""
    by_kinds: dict[tuple[str, ...], list[tuple[int, list[int]]]] = {}
    for site, column in enumerate(columns):
        if column:
            rows = list(range(len(blocks), len(blocks) + len(column)))
            blocks.extend(column)
            by_kinds.setdefault(tuple(block.kind for block in column), []).append((site, rows))
    return tuple(
        ColumnGroup(kinds, tuple(site for site, _ in members), np.array([rows for _, rows in members]))
        for kinds, members in by_kinds.items()
    )


def _table(blocks: list[_Block], rotations: list[PauliRotation]) -> BlockTable:
    terms = [(r, angle, coefficient) for r, gate in enumerate(rotations) for angle, coefficient in gate.terms]
    width = max((len(block.factors) for block in blocks), default=0) or 1
    constants = np.tile(_I, (len(blocks), width, 1, 1))
    generators = np.zeros_like(constants)
    slots = np.full((len(blocks), width), _NO_ROTATION)
    pairs = np.zeros((len(blocks), max((len(block.matrices) for block in blocks), default=2), 2, 2), complex)
    for row, block in enumerate(blocks):
        pairs[row, : len(block.matrices)] = block.matrices
        for column, factor in enumerate(block.factors):
            constants[row, column], slots[row, column] = factor.constant, factor.slot
            if factor.generator is not None:
                generators[row, column] = factor.generator
    return BlockTable(
        np.array([gate.offset for gate in rotations], dtype=float),
        np.array([term[0] for term in terms], dtype=np.int64),
        np.array([term[1] for term in terms], dtype=np.int64),
        np.array([term[2] for term in terms], dtype=float),
        constants,
        generators,
        slots,
        pairs,
        np.array([_three(block.slots) for block in blocks], np.int64).reshape(-1, 3),
        np.array([block.sign for block in blocks], dtype=float),
    )


def _three(slots: tuple[int, ...]) -> tuple[int, ...]:
    return (*slots, *[_NO_ROTATION] * (3 - len(slots)))
