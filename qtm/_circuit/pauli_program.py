"""Lowering: a Qiskit circuit becomes phases of diagonal rotations and phases of real rotations.

Clifford gates go into the frame. A rotation about a string whose image is diagonal is a phase; any other image
i^k X^x Z^w with odd k acts as a real rotation of the pairs ``(i, i ^ x)``,

    p_i <- cos(a/2) p_i - (-1)^popcount(i & w) sin(a/2) p_{i ^ x},

and one with even k does between two quarter turns about any Z string that overlaps x oddly. Phases commute
with each other, so a layer's diagonals are one pass; a real rotation costs half of a general one, a quarter
when its cosine is divided out, and needs one real sum for its derivative instead of three.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import pi
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Gate, Instruction, Measure, Parameter, ParameterExpression

from qtm._circuit.clifford_frame import Frame
from qtm._circuit.flatten import Preparation, flatten
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._locks import fork_safe_lock


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
        place = 0
        for number in range(len(self.phases) - 1, -1, -1):
            phase = self.phases[number]
            if any(_odd(z & x) for x, _, _ in phase.rotations):
                place = number + 1
                break
            if z in phase.diagonal:
                place = number
                break
        if place == len(self.phases):
            self.phases.append(Phase())
        self.phases[place].diagonal.setdefault(z, Slot()).add(terms, offset, sign)

    def _real(self, x: int, w: int, terms: Any, offset: float, sign: int) -> None:
        for phase in reversed(self.phases):
            for other_x, other_w, slot in reversed(phase.rotations):
                if (other_x, other_w) == (x, w):
                    slot.add(terms, offset, sign)
                    return
                if _odd(other_x & w) ^ _odd(other_w & x):
                    self._append(phase, x, w, terms, offset, sign)
                    return
            if any(_odd(z & x) for z in phase.diagonal):
                self._append(phase, x, w, terms, offset, sign)
                return
        self._append(self.phases[0], x, w, terms, offset, sign)

    def _append(self, phase: Phase, x: int, w: int, terms: Any, offset: float, sign: int) -> None:
        slot = Slot()
        slot.add(terms, offset, sign)
        phase.rotations.append((x, w, slot))


def _drop_identities(phases: list[Phase]) -> tuple[Phase, ...]:
    return tuple(
        Phase(
            {z: slot for z, slot in phase.diagonal.items() if not slot.is_zero()},
            [rotation for rotation in phase.rotations if not rotation[2].is_zero()],
        )
        for phase in phases
    )


def _lower(circuit: QuantumCircuit) -> PauliProgram:
    flat = flatten(circuit)
    lowering = _Lowering(flat.num_qubits)
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            lowering.frame.absorb(operation)
        else:
            lowering.rotate(operation)
    phases = _drop_identities(lowering.phases)
    return PauliProgram(flat.num_qubits, flat.parameters, flat.angles, phases, lowering.frame, flat.initial)


_CACHE: OrderedDict[Any, tuple[Any, PauliProgram]] = OrderedDict()
_CACHE_SIZE = 256
_LOCK = fork_safe_lock()


def _parameter_key(parameter: Any) -> Any:
    if isinstance(parameter, np.ndarray):
        return parameter.shape, parameter.tobytes()
    return parameter if isinstance(parameter, int | float | complex | str | ParameterExpression) else id(parameter)


def _structure(circuit: QuantumCircuit) -> tuple[Any, list[Any]]:
    """A key that equal circuits share, and what must stay alive for its ids to stay unique."""
    index = {bit: i for i, bit in enumerate(circuit.qubits)}
    rows, alive = [], []
    for instruction in circuit.data:
        operation = instruction.operation
        kind: Any = 0
        if not instruction.is_standard_gate() and not isinstance(operation, Barrier | Measure):
            definition = operation.definition if type(operation) in (Gate, Instruction) else None
            if definition is None:
                kind = id(operation)
                alive.append(operation)
            else:
                # A composite may be changed after it was used: what counts is what it is made of now.
                kind, inner = _structure(definition)
                alive += inner
        rows.append(
            (
                operation.name,
                kind,
                tuple(index[q] for q in instruction.qubits),
                len(instruction.clbits),
                tuple(_parameter_key(p) for p in instruction.params),
            )
        )
    return (circuit.num_qubits, tuple(circuit.parameters), tuple(rows)), alive


def lower(circuit: QuantumCircuit) -> PauliProgram:
    """Lower a circuit, or return the program of an equal circuit lowered before.

    Raises:
        CircuitError: an instruction cannot be simulated; the message names it.
    """
    key, alive = _structure(circuit)
    with _LOCK:
        found = _CACHE.get(key)
        if found is None:
            found = _CACHE[key] = alive, _lower(circuit)
            if len(_CACHE) > _CACHE_SIZE:
                _CACHE.popitem(last=False)
        else:
            _CACHE.move_to_end(key)
        return found[1]
