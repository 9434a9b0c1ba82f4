"""Maps between samples and their trajectories, in compiled code: the signs of angles and of measured strings.

Row ``count * sample + t`` is trajectory t of a sample. Its signs are those of the rotations, then those of the strings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtm._engines.statevector.kernels.compilation import inlined, jit

_STEP = np.uint64(0x9E3779B97F4A7C15)


@inlined
def _mixed(state: Any) -> Any:
    """64 random bits from a counter that grows by `_STEP` (splitmix64; Steele, Lea and Flood, OOPSLA 2014)."""
    bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@inlined
def _uniform(bits: Any) -> Any:
    """A number in [0, 1) from 64 random bits."""
    return np.float64(bits >> np.uint64(11)) * 2.0**-53


@jit
def draw_signs(seed: Any, likeliest: Any, hit: Any, start: Any, shares: Any, flips: Any, signs: Any) -> None:
    """Draw errors for every row, and multiply its signs, (rows, signs) int8, by those of the errors.

    Args:
        seed: uint64.
        likeliest: the maximum of ``hit``.
        hit: probability that a channel has an error, (channels,).
        start: errors ``start[c]`` up to ``start[c + 1]`` are those of channel c, (channels + 1,).
        shares: running sums of the errors' shares of that probability, up to 1 for each channel, (errors,).
        flips: the signs of every error, (errors, signs) int8.
        signs: changed in place.
    """
    rows, trials = signs.shape[0], signs.shape[0] * len(hit)
    miss = np.log1p(-likeliest)
    state, trial = seed, np.int64(-1)
    while True:
        # Errors are rare: jump to the next trial that would have one if every channel were the likeliest.
        state += _STEP
        missed = np.floor(np.log(1.0 - _uniform(_mixed(state))) / miss)
        if missed >= trials - 1 - trial:
            return
        trial += 1 + np.int64(missed)
        channel, row = trial // rows, trial % rows
        state += _STEP
        if _uniform(_mixed(state)) * likeliest >= hit[channel]:
            continue
        state += _STEP
        share, error = _uniform(_mixed(state)), start[channel]
        while shares[error] <= share and error < start[channel + 1] - 1:
            error += 1
        for k in range(signs.shape[1]):
            signs[row, k] *= flips[error, k]


@jit
def sign_angles(angles: Any, signs: Any, out: Any) -> None:
    """Angles (rows, rotations) of trajectories from those (samples, rotations) of samples."""
    count = len(signs) // max(len(angles), 1)
    for sample in range(angles.shape[0]):
        for row in range(count * sample, count * sample + count):
            for j in range(angles.shape[1]):
                out[row, j] = angles[sample, j] * signs[row, j]


@jit
def average(values: Any, signs: Any, weights: Any, out: Any) -> None:
    """Averages (samples, observables) of strings' values (rows, strings) with weights (strings, observables)."""
    count = len(values) // max(len(out), 1)
    first = signs.shape[1] - values.shape[1]
    for sample in range(out.shape[0]):
        for m in range(out.shape[1]):
            out[sample, m] = 0.0
        for string in range(values.shape[1]):
            total = 0.0
            for row in range(count * sample, count * sample + count):
                total += values[row, string] * signs[row, first + string]
            for m in range(out.shape[1]):
                out[sample, m] += weights[string, m] * total / count


@jit
def spread(cotangent: Any, signs: Any, out: Any) -> None:
    """The adjoint of averages: cotangents (rows, strings) from those of the strings' averages (samples, strings)."""
    count = len(out) // max(len(cotangent), 1)
    first = signs.shape[1] - out.shape[1]
    for sample in range(cotangent.shape[0]):
        for row in range(count * sample, count * sample + count):
            for string in range(out.shape[1]):
                out[row, string] = cotangent[sample, string] * signs[row, first + string] / count


@jit
def gather(by_rows: Any, signs: Any, out: Any) -> None:
    """The adjoint of `sign_angles`: derivatives (samples, rotations) from those of rows (rows, rotations)."""
    count = len(by_rows) // max(len(out), 1)
    for sample in range(out.shape[0]):
        for row in range(count * sample, count * sample + count):
            for j in range(out.shape[1]):
                out[sample, j] += by_rows[row, j] * signs[row, j]
