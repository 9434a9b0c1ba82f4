"""Lowering: a Qiskit circuit becomes phases of diagonal rotations and phases of real rotations.

Clifford gates go into the frame. A rotation about a string whose image is diagonal is a phase; any other image
i^k X^x Z^w with odd k acts as a real rotation of the pairs ``(i, i ^ x)``,

    p_i <- cos(a/2) p_i - (-1)^popcount(i & w) sin(a/2) p_{i ^ x},

and one with even k does between two quarter turns about any Z string that overlaps x oddly. Phases commute
with each other, so a layer's diagonals are one pass; a real rotation costs half of a general one, a quarter
when its cosine is divided out, and needs one real sum for its derivative instead of three.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from math import pi
from threading import Lock
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression

from qtm._circuit.clifford_frame import Frame
from qtm._circuit.content import content_of
from qtm._circuit.flatten import FlatCircuit, Preparation, flatten
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.pauli_span import LastClash

_NEAR = 64  # strings and phases that are compared one by one before the trees are asked


@dataclass(slots=True)
class Slot:
    """An angle of the kernels: ``offset + sum of coef * angle``, in radians."""

    terms: dict[int, float] = field(default_factory=dict)
    offset: float = 0.0

    def add(self, terms: Any, offset: float, sign: int) -> None:
        self.offset += sign * offset
        for angle, coef in terms:
            self.terms[angle] = self.terms.get(angle, 0.0) + sign * coef

    def is_zero(self) -> bool:
        """Whether the rotation is always the identity, up to a global phase."""
        turns = self.offset / (2 * pi)
        return not any(self.terms.values()) and abs(turns - round(turns)) < 1e-15


@dataclass(slots=True)
class Phase:
    """Diagonal rotations (mask z), then real rotations (masks x, w) in order."""

    diagonal: dict[int, Slot] = field(default_factory=dict)
    rotations: list[tuple[int, int, Slot]] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class PauliProgram:
    """A lowered circuit; compared by identity, because `lower` returns the same one for equal circuits."""

    num_qubits: int
    parameters: tuple[Parameter, ...]
    angles: tuple[ParameterExpression, ...]
    phases: tuple[Phase, ...]
    frame: Frame
    initial: tuple[Preparation, ...]


def _odd(mask: int) -> int:
    return mask.bit_count() & 1


class _Lowering:
    """Places every rotation as early as what it does not commute with allows."""

    def __init__(self, num_qubits: int) -> None:
        self.frame = Frame(num_qubits)
        self.phases = [Phase()]
        self.last_diagonal: dict[int, int] = {}  # by mask: the phase it stands in last
        self.last_real: dict[tuple[int, int], tuple[int, int]] = {}  # by masks: phase and index
        self.clashes = LastClash()  # at 2 * phase its diagonals, at 2 * phase + 1 its rotations
        self.clashes_within: defaultdict[int, LastClash] = defaultdict(LastClash)  # by phase: at the index

    def rotate(self, rotation: PauliRotation) -> None:
        k, x, z = self.frame.image(rotation)
        if x == 0:
            self._diagonal(z, rotation.terms, rotation.offset, 1 - k)
        elif k & 1:
            self._real(x, z, rotation.terms, rotation.offset, 2 - k)
        else:
            # P = D Q D' with D = exp(-i pi/4 Z^turn) and Q = i Z^turn P, which is real.
            turn = next(m for m in (self._own_mask(rotation), x & -x) if _odd(m & x))
            self._diagonal(turn, (), -pi / 2, 1)
            self._real(x, z ^ turn, rotation.terms, rotation.offset, 2 - ((k + 3) & 3))
            self._diagonal(turn, (), pi / 2, 1)

    def _own_mask(self, rotation: PauliRotation) -> int:
        """The image of the first qubit's Z: its own diagonals have that mask, and merge with the turns."""
        return self.frame.z[rotation.qubits[0]][2]

    def _diagonal(self, z: int, terms: Any, offset: float, sign: int) -> None:
        place = max(self._last_clash(0, z)[0] + 1, self.last_diagonal.get(z, 0))
        if place == len(self.phases):
            self.phases.append(Phase())
        diagonal = self.phases[place].diagonal
        if z not in diagonal:
            diagonal[z] = Slot()
            self.last_diagonal[z] = place
            self.clashes.add(2 * place, 0, z)
        diagonal[z].add(terms, offset, sign)

    def _real(self, x: int, w: int, terms: Any, offset: float, sign: int) -> None:
        clash, (place, index) = self._last_clash(x, w), self.last_real.get((x, w), (-1, -1))
        if place >= 0 and (place, index) > clash:
            self.phases[place].rotations[index][2].add(terms, offset, sign)
            return
        place = max(clash[0], 0)
        rotations, slot = self.phases[place].rotations, Slot()
        slot.add(terms, offset, sign)
        self.last_real[x, w] = place, len(rotations)
        self.clashes.add(2 * place + 1, x, w)
        self.clashes_within[place].add(len(rotations), x, w)
        rotations.append((x, w, slot))

    def _last_clash(self, x: int, z: int) -> tuple[int, int]:
        """The last phase that holds what this does not commute with, and the index there: -1 for a diagonal.

        (-1, -1) if there is none. Most are near the end: the trees are for those that are not.
        """
        left = _NEAR
        for number in range(len(self.phases) - 1, -1, -1):
            phase = self.phases[number]
            for index in range(len(phase.rotations) - 1, -1, -1):
                other_x, other_w, _ = phase.rotations[index]
                if _odd(other_x & z) ^ _odd(other_w & x):
                    return number, index
                left -= 1
                if left < 0:
                    return self._far_clash(x, z)
            if x and any(_odd(other & x) for other in phase.diagonal):
                return number, -1
            left -= 1
        return -1, -1

    def _far_clash(self, x: int, z: int) -> tuple[int, int]:
        place, in_rotations = divmod(self.clashes.find(x, z), 2)
        if place < 0:
            return -1, -1
        return place, self.clashes_within[place].find(x, z) if in_rotations else -1


def _drop_identities(phases: list[Phase]) -> tuple[Phase, ...]:
    return tuple(
        Phase(
            {z: slot for z, slot in phase.diagonal.items() if not slot.is_zero()},
            [rotation for rotation in phase.rotations if not rotation[2].is_zero()],
        )
        for phase in phases
    )


def _lower(flat: FlatCircuit) -> PauliProgram:
    lowering = _Lowering(flat.num_qubits)
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            lowering.frame.absorb(operation)
        else:
            lowering.rotate(operation)
    phases = _drop_identities(lowering.phases)
    return PauliProgram(flat.num_qubits, flat.parameters, flat.angles, phases, lowering.frame, flat.initial)


_CACHE: OrderedDict[Any, PauliProgram] = OrderedDict()
_CACHE_SIZE = 256
_LOCK = Lock()


def lower(circuit: QuantumCircuit) -> PauliProgram:
    """Lower a circuit, or return the program of an equal circuit lowered before.

    Raises:
        CircuitError: an instruction cannot be simulated; the message names it.
    """
    key: Any = content_of(circuit)
    flat = flatten(circuit) if key is None else None
    key = flat if key is None else key
    with _LOCK:
        found = _CACHE.get(key)
        if found is None:
            found = _CACHE[key] = _lower(flat or flatten(circuit))
            if len(_CACHE) > _CACHE_SIZE:
                _CACHE.popitem(last=False)
        else:
            _CACHE.move_to_end(key)
        return found
