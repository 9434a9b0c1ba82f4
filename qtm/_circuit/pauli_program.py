"""Lowering: a Qiskit circuit becomes phases of diagonal rotations and phases of real rotations.

Clifford gates go into the frame. A rotation about a string whose image is diagonal is a phase; any other image
i^k X^x Z^w with odd k acts as a real rotation of the pairs ``(i, i ^ x)``,

    p_i <- cos(a/2) p_i - (-1)^popcount(i & w) sin(a/2) p_{i ^ x},

and for even k the same, conjugated by rotations of +-pi/2 about a Z string that anticommutes with X^x. Phases commute
with each other, so a layer's diagonals are one pass; a real rotation costs half of a general one, a quarter
when its cosine is divided out, and needs one real sum for its derivative instead of three.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import pi
from typing import Any

from qiskit import QuantumCircuit

from qtm._circuit.clifford_frame import Frame
from qtm._circuit.content import content_of
from qtm._circuit.dynamic import is_dynamic, static_circuit
from qtm._circuit.embedded_noise import EmbeddedNoise
from qtm._circuit.flatten import FlatCircuit, flatten
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._circuit.noise_map import NoiseMap
from qtm._circuit.pauli_span import LastClash
from qtm._circuit.trained_noise import TrainedNoiseMap, with_strength_angles
from qtm._kept_memory import KEPT, ByteCache

_NEAR = 64  # number of strings and phases compared one by one before the trees are searched


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


@dataclass(frozen=True, slots=True)
class Generator:
    """A rotation conjugated to the start of the circuit, without Clifford gates: about ``i^k X^x Z^z``."""

    k: int
    x: int
    z: int
    turn: int  # a mask of Z: the image of the first qubit's
    terms: tuple[tuple[int, float], ...]  # (angle, coefficient)
    offset: float


@dataclass(frozen=True, eq=False, slots=True)
class PauliProgram:
    """A flat circuit with its Clifford gates in a frame; masks are as wide as the circuit.

    Compared by identity, because `program_of` creates one per flat circuit.
    """

    flat: FlatCircuit
    generators: tuple[Generator, ...]
    frame: Frame

    @property
    def num_qubits(self) -> int:
        """Qubits of the circuit."""
        return self.flat.num_qubits


def _odd(mask: int) -> int:
    return mask.bit_count() & 1


class _Lowering:
    """Places every rotation as early as the rotations it does not commute with allow."""

    def __init__(self) -> None:
        self.phases = [Phase()]
        self.last_diagonal: dict[int, int] = {}  # by mask: the last phase that contains it
        self.last_real: dict[tuple[int, int], tuple[int, int]] = {}  # by masks: phase and index
        self.clashes = LastClash()  # at 2 * phase its diagonals, at 2 * phase + 1 its rotations
        self.clashes_within: defaultdict[int, LastClash] = defaultdict(LastClash)  # by phase: at the index

    def rotate(self, g: Generator) -> None:
        if g.x == 0:
            self._diagonal(g.z, g.terms, g.offset, 1 - g.k)
        elif g.k & 1:
            self._real(g.x, g.z, g.terms, g.offset, 2 - g.k)
        else:
            # P = D Q D' with D = exp(-i pi/4 Z^turn) and Q = i Z^turn P, which is real. The image of the first
            # qubit's Z comes first: that qubit's own diagonals have the same mask, and merge with the turns.
            turn = next(m for m in (g.turn, g.x & -g.x) if _odd(m & g.x))
            self._diagonal(turn, (), -pi / 2, 1)
            self._real(g.x, g.z ^ turn, g.terms, g.offset, 2 - ((g.k + 3) & 3))
            self._diagonal(turn, (), pi / 2, 1)

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
        """The last phase with a rotation that does not commute with this one, and its index there: -1 for a diagonal.

        (-1, -1) if there is none. Most are near the end; the trees find the others.
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


def place(generators: Iterable[Generator]) -> tuple[Phase, ...]:
    """Generators as phases, each rotation as early as possible, equal ones merged."""
    return _drop_identities(_placed(generators))


def dropped_signs(generators: Iterable[Generator]) -> int:
    """Number of rotations dropped by `place` that are -1: those by an odd number of full turns."""
    slots = [s for phase in _placed(generators) for s in (*phase.diagonal.values(), *(r[2] for r in phase.rotations))]
    return sum(round(slot.offset / (2 * pi)) & 1 for slot in slots if slot.is_zero())


def _placed(generators: Iterable[Generator]) -> list[Phase]:
    lowering = _Lowering()
    for generator in generators:
        lowering.rotate(generator)
    return lowering.phases


def program_of(flat: FlatCircuit) -> PauliProgram:
    """The program of a flat circuit; computed once."""
    return _PROGRAMS.find(flat, lambda: _program_of(flat))


def _program_of(flat: FlatCircuit) -> PauliProgram:
    frame = Frame(flat.num_qubits)
    generators: list[Generator] = []
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            frame.absorb(operation)
        else:
            assert isinstance(operation, PauliRotation)  # channels are refused by methods without noise
            turn = frame.z[operation.qubits[0]][2]
            generators.append(Generator(*frame.image(operation), turn, operation.terms, operation.offset))
    return PauliProgram(flat, tuple(generators), frame)


# Flat circuits count towards the bytes of their own cache, which is used whenever the other one is.
_CACHE_SIZE = 256
_PROGRAMS: ByteCache[PauliProgram] = ByteCache(_CACHE_SIZE, KEPT, shared=(FlatCircuit, NoiseMap))
_FLAT_CIRCUITS: ByteCache[FlatCircuit] = ByteCache(_CACHE_SIZE, KEPT, shared=(NoiseMap,))


def flattened(circuit: QuantumCircuit, noise: NoiseMap | None = None) -> FlatCircuit:
    """A circuit as primitives, with noise; equal circuits with the same noise share the object.

    Raises:
        CircuitError: an instruction cannot be simulated; the message names it.
    """
    dynamic = noise is not None and is_dynamic(circuit)
    if not dynamic:
        circuit = static_circuit(circuit)
    content, flat = None if dynamic else content_of(circuit), None
    if content is None:  # unknown content: the key is its primitives
        flat = _with_noise(circuit, noise)
        content = (
            flat.num_qubits, flat.operations, flat.angles, flat.parameters, flat.initial, flat.phase, flat.readout,
        )  # fmt: skip
    return _FLAT_CIRCUITS.find((content, noise), lambda: _with_noise(circuit, noise) if flat is None else flat)


def _with_noise(circuit: QuantumCircuit, noise: NoiseMap | None) -> FlatCircuit:
    static = circuit if noise is None else static_circuit(circuit, noise)
    embedded = noise if noise is None or static is circuit else EmbeddedNoise(noise, circuit.num_qubits)
    flat = flatten(static, embedded)
    return with_strength_angles(flat, noise, circuit.num_qubits) if isinstance(noise, TrainedNoiseMap) else flat


def lower(circuit: QuantumCircuit) -> PauliProgram:
    """The program of a circuit; the same one for equal circuits.

    Raises:
        CircuitError: an instruction cannot be simulated; the message names it.
    """
    return program_of(flattened(circuit))
