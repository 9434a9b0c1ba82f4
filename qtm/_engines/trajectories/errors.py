"""Pauli errors as signs: an error flips the later rotations, and the measured strings, that anticommute with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qtm._circuit.channels import CHANNELS, Channel, anticommute
from qtm._circuit.clifford_frame import Frame
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._errors import UnsupportedError

_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, slots=True)
class Errors:
    """What every error of one channel flips."""

    chances: np.ndarray  # (strings,)
    flips: np.ndarray  # (strings, signs) bool: rotations, then measured strings


def pauli_chances(channel: Channel, twirl: bool) -> np.ndarray:
    """Probabilities (4**qubits,) of the Pauli errors of a channel; of its twirl, if asked and it is no Pauli channel.

    Raises:
        UnsupportedError: it is not a mixture of Pauli errors, or a strength is a parameter.
    """
    row = CHANNELS[channel.name]
    strengths = [s for s in channel.strengths if not isinstance(s, int)]
    if len(strengths) < len(channel.strengths):
        raise UnsupportedError("trajectories have no derivatives by strengths of channels; use method='density_matrix'")
    if not twirl and any(coefficient for _, coefficient in row.shifts(*strengths)):
        raise UnsupportedError(
            f"{channel.name!r} is not a Pauli channel and cannot be sampled as errors: twirl it with "
            "method=('trajectories', {'twirl': True}), or use method='density_matrix'"
        )
    factors = np.array(row.factors(*strengths), float)
    signs = np.array([[1 - 2 * anticommute(a, b) for b in range(len(factors))] for a in range(len(factors))])
    chances = signs @ factors / len(factors)
    if chances.min() < -_ROUNDING:
        raise UnsupportedError(f"the factors of {channel.name!r} are not a mixture of Pauli errors")
    chances = chances.clip(0)
    return chances / chances.sum()


def without_errors(flat: FlatCircuit) -> FlatCircuit:
    """The circuit without channels, with an angle of its own for every rotation."""
    rotations = 0
    operations: list[Clifford | PauliRotation] = []
    for operation in flat.operations:
        if isinstance(operation, PauliRotation):
            operations.append(replace(operation, terms=((rotations, 1.0),), offset=0.0))
            rotations += 1
        elif isinstance(operation, Clifford):
            operations.append(operation)
    # The engine reads how many angles there are, not what they are made of.
    angles = (flat.angles[:1] or (0.0,)) * rotations
    return replace(flat, operations=tuple(operations), angles=angles, shifts=(), readout=())


def errors_of(flat: FlatCircuit, strings: Sequence[tuple[int, int]], twirl: bool) -> list[Errors]:
    """What the channels of a circuit flip, in order; ``strings`` are the measured ones, (x, z) each."""
    frame, found = Frame(flat.num_qubits), []
    channels: list[tuple[int, np.ndarray, list[tuple[int, int]]]] = []
    rotations: list[tuple[int, int]] = []
    for operation in flat.operations:
        if isinstance(operation, Clifford):
            frame.absorb(operation)
        elif isinstance(operation, PauliRotation):
            rotations.append(frame.image(operation)[1:])
        else:
            images = [image[q][1:] for q in operation.qubits for image in (frame.x, frame.z)]
            chances = pauli_chances(operation, twirl)
            channels.append((len(rotations), chances, [_product(images, s) for s in range(len(chances))]))
    ends = [frame.pull_back((x & z).bit_count() & 3, x, z)[1:] for x, z in strings]
    for first, chances, errors in channels:
        late = [*rotations[first:], *ends]
        flips = np.zeros((len(errors), len(rotations) + len(ends)), bool)
        for place, error in enumerate(errors):
            flips[place, first:] = [_clash(error, other) for other in late]
        found.append(Errors(chances, flips))
    return found


def _product(images: list[tuple[int, int]], string: int) -> tuple[int, int]:
    """The image of a numbered string: bit 2q stands for X of its qubit q, bit 2q + 1 for Z."""
    x = z = 0
    for place, image in enumerate(images):
        if string >> place & 1:
            x, z = x ^ image[0], z ^ image[1]
    return x, z


def _clash(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return bool(((a[0] & b[1]).bit_count() ^ (a[1] & b[0]).bit_count()) & 1)


@dataclass(frozen=True, eq=False, slots=True)
class ErrorTable:
    """The errors of all channels below each other, to be drawn together.

    Attributes:
        hit: probability that a channel does anything, (channels,).
        shares: for each channel, running sums of its errors' shares of that probability, its number added: ascending.
        flips: what every error flips, (errors, signs) bool.
    """

    hit: np.ndarray
    shares: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, errors: Sequence[Errors], signs: int) -> ErrorTable:
        """Put the channels together; those without errors are left out."""
        some = [error for error in errors if error.chances[1:].sum() > 0]
        hit = np.array([error.chances[1:].sum() for error in some])
        shares = [number + _running_shares(error.chances[1:]) for number, error in enumerate(some)]
        flips = [error.flips[1:] for error in some]
        empty = np.zeros((0, signs), bool)
        return cls(hit, np.concatenate([*shares, np.zeros(0)]), np.concatenate([*flips, empty]))


def _running_shares(chances: np.ndarray) -> np.ndarray:
    found = np.cumsum(chances)
    return found / found[-1]  # the last one is 1 exactly


def draw(table: ErrorTable, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Signs (rows, signs) float of as many trajectories: +1, or -1 where the errors drawn flip it."""
    drawn = generator.random((len(table.hit), rows))
    channel, row = np.nonzero(drawn < table.hit[:, None])  # mostly, there is no error
    # Given that there is one, the number drawn is uniform below its probability: it also says which.
    share = channel + drawn[channel, row] / table.hit[channel]
    error = np.searchsorted(table.shares, share, side="right").clip(max=max(len(table.shares) - 1, 0))
    flipped = np.zeros((rows, table.flips.shape[1]), np.uint8)
    np.add.at(flipped, row, table.flips[error].view(np.uint8))
    return 1.0 - 2.0 * (flipped & 1)
