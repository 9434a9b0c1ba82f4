"""States out of the tiles of a sweep into the order of a circuit's amplitudes, and cotangents back.

Amplitude a of a sample goes to ``place[a]``, times ``factor[a]`` and the sample's ``turn``. Real states have one part.
Where the lanes are samples, a block of rows is read lane by lane: it stays in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtm._engines.statevector.kernels.compilation import jit

_BLOCK = 64  # rows


@jit
def write_states(
    states: np.ndarray,  # (tiles, rows * parts * lanes + lanes or more): rows, then the scale of each lane
    first: int,  # number of the first tile
    lane_bits: int,
    parts: int,
    lanes: int,
    place: np.ndarray,  # (amplitudes,) int64
    factor: np.ndarray,  # (amplitudes,) complex
    turn: np.ndarray,  # (samples or 1,) complex
    out: np.ndarray,  # (samples, 2**qubits) complex
) -> None:
    """The states of some tiles into their samples of ``out``."""
    for tile in range(states.shape[0]):
        state = states[tile]
        rows = place.size // lanes if lane_bits else place.size
        for block in range(0, rows, _BLOCK):
            for lane in range(lanes):
                sample = first + tile if lane_bits else (first + tile) * lanes + lane
                if sample < out.shape[0]:
                    _write(state, block, rows, lane, lane_bits, parts, lanes, place, factor, turn, out, sample)


@jit
def _write(
    state: Any, block: int, rows: int, lane: int, lane_bits: int, parts: int, lanes: int, place: Any, factor: Any,
    turn: Any, out: Any, sample: int,
) -> None:  # fmt: skip
    """One lane of a block of rows."""
    whole = turn[min(sample, turn.size - 1)] * state[rows * parts * lanes + lane]
    target, step, start = out[sample], lanes if lane_bits else 1, lane if lane_bits else 0
    for row in range(block, min(block + _BLOCK, rows)):
        at, amplitude = row * parts * lanes + lane, row * step + start
        phase = factor[amplitude] * whole
        if parts == 2:
            target[place[amplitude]] = complex(state[at], state[at + lanes]) * phase
        else:
            target[place[amplitude]] = state[at] * phase


@jit
def read_seeds(
    states: np.ndarray,  # as for `write_states`
    first: int,
    lane_bits: int,
    parts: int,
    lanes: int,
    place: np.ndarray,
    factor: np.ndarray,
    turn: np.ndarray,
    cotangent: np.ndarray,  # (samples, 2**qubits) complex, in the convention of torch
    seeds: np.ndarray,  # (tiles, rows * parts * lanes or more): set
    by_phase: np.ndarray,  # (samples,) float64, zeros: the derivative by the angle a of turns exp(i a)
) -> None:
    """Half the cotangents of the states of some tiles, at the scale of these."""
    for tile in range(states.shape[0]):
        state, seed = states[tile], seeds[tile]
        rows = place.size // lanes if lane_bits else place.size
        for block in range(0, rows, _BLOCK):
            for lane in range(lanes):
                sample = first + tile if lane_bits else (first + tile) * lanes + lane
                if sample < cotangent.shape[0]:
                    by_phase[sample] += _read(
                        state, block, rows, lane, lane_bits, parts, lanes, place, factor, turn, cotangent, seed, sample
                    )
                else:
                    for row in range(block, min(block + _BLOCK, rows)):
                        for part in range(parts):
                            seed[(row * parts + part) * lanes + lane] = 0


@jit
def _read(
    state: Any, block: int, rows: int, lane: int, lane_bits: int, parts: int, lanes: int, place: Any, factor: Any,
    turn: Any, cotangent: Any, seed: Any, sample: int,
) -> float:  # fmt: skip
    """One lane of a block of rows; returns what it adds to the derivative by the turn's angle."""
    scale, total = state[rows * parts * lanes + lane], 0.0
    whole = turn[min(sample, turn.size - 1)].conjugate() / (2 * scale)
    source, step, start = cotangent[sample], lanes if lane_bits else 1, lane if lane_bits else 0
    for row in range(block, min(block + _BLOCK, rows)):
        at, amplitude = row * parts * lanes + lane, row * step + start
        half = source[place[amplitude]] * (factor[amplitude].conjugate() * whole)
        seed[at] = half.real
        if parts == 2:
            seed[at + lanes] = half.imag
            total += half.real * state[at + lanes] - half.imag * state[at]
        else:
            total -= half.imag * state[at]
    return -2.0 * total * scale * scale
