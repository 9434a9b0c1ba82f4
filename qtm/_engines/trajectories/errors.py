"""Pauli errors as signs: an error flips the later rotations, and the measured strings, that anticommute with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qtm._circuit.channels import CHANNELS, Channel, anticommute
from qtm._circuit.clifford_frame import Frame
from qtm._circuit.flatten import FlatCircuit
from qtm._circuit.gates import Clifford, PauliRotation
from qtm._engines.trajectories.signed_rows import draw_signs
from qtm._errors import UnsupportedError

_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, slots=True)
class Errors:
    """The signs that the errors of one channel flip."""

    chances: np.ndarray  # (strings,)
    flips: np.ndarray  # (strings, signs) bool: rotations, then measured strings


def pauli_chances(channel: Channel, twirl: bool) -> np.ndarray:
    """Probabilities (4**qubits,) of the Pauli errors of a channel, or of its twirl if ``twirl``.

    Raises:
        UnsupportedError: it is not a mixture of Pauli errors, or a strength is a parameter.
    """
    row = CHANNELS[channel.name]
    strengths = [s for s in channel.strengths if not isinstance(s, int)]
    if len(strengths) < len(channel.strengths):
        raise UnsupportedError("trajectories are not differentiable by channel strengths; use method='density_matrix'")
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
    """The circuit without channels, with a separate angle for every rotation."""
    rotations = 0
    operations: list[Clifford | PauliRotation] = []
    for operation in flat.operations:
        if isinstance(operation, PauliRotation):
            operations.append(replace(operation, terms=((rotations, 1.0),), offset=0.0))
            rotations += 1
        elif isinstance(operation, Clifford):
            operations.append(operation)
    # The engine uses the number of angles, not their expressions.
    angles = (flat.angles[:1] or (0.0,)) * rotations
    return replace(flat, operations=tuple(operations), angles=angles, shifts=(), readout=())


def errors_of(flat: FlatCircuit, strings: Sequence[tuple[int, int]], twirl: bool) -> list[Errors]:
    """The errors of the channels of a circuit, in order; ``strings`` are the measured ones, (x, z) each."""
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
    """The errors of all channels in one table, drawn together.

    Attributes:
        hit: probability that a channel has an error, (channels,).
        start: errors ``start[c]`` up to ``start[c + 1]`` are those of channel c, (channels + 1,).
        shares: running sums of the errors' shares of that probability, up to 1 for each channel, (errors,).
        flips: the sign by which every error multiplies a rotation or string, (errors, signs) int8.
    """

    hit: np.ndarray
    start: np.ndarray
    shares: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, errors: Sequence[Errors], signs: int) -> ErrorTable:
        """The table of some channels, except those without errors."""
        some = [error for error in errors if error.chances[1:].sum() > 0]
        hit = np.array([error.chances[1:].sum() for error in some]).clip(max=1.0)
        start = np.cumsum([0, *(len(error.chances) - 1 for error in some)], dtype=np.int64)
        shares = np.concatenate([*[_running_shares(error.chances[1:]) for error in some], np.zeros(0)])
        flips = np.concatenate([*[error.flips[1:] for error in some], np.zeros((0, signs), bool)])
        return cls(hit, start, shares, 1 - 2 * flips.astype(np.int8))


def _running_shares(chances: np.ndarray) -> np.ndarray:
    found = np.cumsum(chances)
    return found / found[-1]  # the last one is 1 exactly


def draw(table: ErrorTable, rows: int, seed: int) -> np.ndarray:
    """Signs (rows, signs) int8 of trajectories, one per row: +1, or -1 where the drawn errors flip it."""
    signs = np.ones((rows, table.flips.shape[1]), np.int8)
    if len(table.hit):
        bits, likeliest = np.uint64(seed & 2**64 - 1), float(table.hit.max())
        draw_signs(bits, likeliest, table.hit, table.start, table.shares, table.flips, signs)
    return signs
