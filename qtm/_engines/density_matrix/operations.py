"""A flat circuit as operations on Pauli coordinates: rotations, shifts and diagonals, Cliffords absorbed.

A density matrix is a real vector v over Pauli strings, ``rho = 2^-n sum_P v_P B_P`` with the Hermitian basis
``B_P = i^(x.z mod 2) X^x Z^z``. A string is the integer ``x << n | z``, and the *dual* of a string is
``z << n | x``: P and Q anticommute where P & dual(Q) has an odd number of bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi

import numpy as np

from qtm._circuit.channels import CHANNELS, Channel
from qtm._circuit.clifford_frame import Frame, PauliMask
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford, PauliRotation


@dataclass(slots=True)
class Rotation:
    """exp(-i a/2 [B_string, .]) with a = offset + sum of coefficient * angle, in radians."""

    string: int
    terms: dict[int, float]
    offset: float

    @property
    def touches(self) -> tuple[int, ...]:
        """Strings: whatever commutes with all of them commutes with this operation."""
        return (self.string,)


@dataclass(slots=True)
class Shift:
    """v_(P string) += coefficient * v_P for all P that are I on a qubit of the circuit, whose Z is the string."""

    string: int
    sign: int
    images: tuple[int, ...]  # strings of X and Z of the qubit
    number: int  # of the coefficient, among `Numbers`

    @property
    def touches(self) -> tuple[int, ...]:
        """As for `Rotation`."""
        return self.images


@dataclass(slots=True)
class Diagonal:
    """v_P *= factors[number of the restriction of P to some qubits of the circuit]."""

    images: tuple[int, ...]  # strings of X and Z of each qubit
    factors: np.ndarray | None  # (4**qubits,); None: learned
    number: int = -1  # of the first factor, among `Numbers`, where it is learned

    @property
    def touches(self) -> tuple[int, ...]:
        """As for `Rotation`."""
        return self.images


Operation = Rotation | Shift | Diagonal


@dataclass(slots=True)
class Numbers:
    """Coefficients of shifts and learned factors: each channel's numbers, one after the other."""

    constants: list[float] = field(default_factory=list)
    learned: list[tuple[Channel, int, int]] = field(default_factory=list)  # channel, its first number, their count

    def add(self, values: list[float]) -> int:
        """Append numbers and return the place of the first."""
        self.constants += values
        return len(self.constants) - len(values)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A circuit on Pauli coordinates: ``operations`` in order; ``frame`` is the Clifford frame at the end."""

    num_qubits: int
    operations: tuple[Operation, ...]
    frame: Frame
    numbers: Numbers


def odd(mask: int) -> int:
    """1 where an odd number of bits is set."""
    return mask.bit_count() & 1


def dual(string: int, num_qubits: int) -> int:
    """X and Z swapped."""
    return (string & (1 << num_qubits) - 1) << num_qubits | string >> num_qubits


class _Lowering:
    def __init__(self, num_qubits: int) -> None:
        self.num_qubits = num_qubits
        self.frame = Frame(num_qubits)
        self.operations: list[Operation] = []
        self.numbers = Numbers()

    def string(self, mask: PauliMask) -> tuple[int, int]:
        """A Hermitian i^k X^x Z^z as (string, sign)."""
        k, x, z = mask
        return x << self.num_qubits | z, 1 if k == odd(x & z) else -1

    def rotate(self, rotation: PauliRotation) -> None:
        quarters = rotation.offset / (pi / 2)
        if not rotation.terms and abs(quarters - round(quarters)) < 1e-14:
            self.frame.turn(rotation, round(quarters))
            return
        string, sign = self.string(self.frame.image(rotation))
        terms: dict[int, float] = {}
        for angle, coefficient in rotation.terms:
            terms[angle] = terms.get(angle, 0.0) + sign * coefficient
        self.operations.append(Rotation(string, terms, sign * rotation.offset))

    def channel(self, channel: Channel) -> None:
        row = CHANNELS[channel.name]
        learned = any(isinstance(s, int) for s in channel.strengths)
        places = [0.25 if isinstance(s, int) else s for s in channel.strengths]
        factors, shifts = [float(f) for f in row.factors(*places)], row.shifts(*places)
        first = self.numbers.add([*(factors if learned else []), *(float(c) for _, c in shifts)])
        images = tuple(self.string(i[q])[0] for q in channel.qubits for i in (self.frame.x, self.frame.z))
        if learned:
            count = len(factors) + len(shifts)
            self.numbers.learned.append((channel, first, count))
            self.operations.append(Diagonal(images, None, first))
            first += len(factors)
        elif any(f != 1.0 for f in factors):
            self.operations.append(Diagonal(images, np.array(factors)))
        for place, (qubit, coefficient) in enumerate(shifts):
            if learned or coefficient:
                string, sign = self.string(self.frame.z[channel.qubits[qubit]])
                self.operations.append(Shift(string, sign, images[2 * qubit : 2 * qubit + 2], first + place))


def lower(flat: FlatCircuit) -> Coordinates:
    """Lower a flat circuit: Clifford gates and Clifford angles go into the frame."""
    lowering = _Lowering(flat.num_qubits)
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            lowering.frame.absorb(operation)
        elif isinstance(operation, PauliRotation):
            lowering.rotate(operation)
        else:
            lowering.channel(operation)
    return Coordinates(flat.num_qubits, tuple(lowering.operations), lowering.frame, lowering.numbers)
