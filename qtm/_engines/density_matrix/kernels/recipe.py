"""The input of the kernels: a scheduled circuit as plain arrays, and the scratch memory of one worker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROTATE, SHIFT, SCALE, LEARNED = 0, 1, 2, 3

# An operation: kind, slot or number, two test masks, mask of the sign, whether the sign includes the parity of the
# row's string, then place and count of the pairs for each of the four parities of a tile's first row under the tests.
# A scale: kind, 0, place of its factors. A learned one: kind, its first number, place of its classes, their count.
COLUMNS = 14
# A pass: rows of a tile, place of their combinations, place of the first rows of its tiles, how many tiles, first and
# last operation, number of the checkpoint of the state before it (-1: none).
PASS_COLUMNS = 7


class Recipe(NamedTuple):
    """A scheduled circuit with its observables."""

    ops: np.ndarray  # (operations, COLUMNS) int64
    passes: np.ndarray  # (passes, PASS_COLUMNS) int64
    pairs: np.ndarray  # int32: row | partner << 12 | sign << 24
    combs: np.ndarray  # int32: rows of a tile, xor its first row
    reps: np.ndarray  # int32: first rows of tiles
    parity: np.ndarray  # (rows,) uint8: parity of x & z
    factors: np.ndarray  # float64: of all rows, for each scale
    classes: np.ndarray  # uint8: of all rows, for each learned scale
    slot_start: np.ndarray  # (slots + 1,) int64; slot angle = offset + sum coef * angle
    slot_angle: np.ndarray  # (terms,) int64
    slot_coef: np.ndarray  # (terms,) float64
    slot_offset: np.ndarray  # (slots,) float64
    value_start: np.ndarray  # (values + 1,) int64; value = sum coef * row
    value_row: np.ndarray  # (entries,) int64
    value_coef: np.ndarray  # (entries,) float64
    row_bits: int
    start_bits: int  # rows that are not 0 at the start
    tile_rows: int


class Workspace(NamedTuple):
    """Scratch of one worker; every array starts on a vector boundary."""

    angles: np.ndarray  # (slots * lanes,) float64
    cosine: np.ndarray  # (slots * lanes,) like the state, and so the others
    sine: np.ndarray  # (2 * slots * lanes,): + and - of each
    spare: np.ndarray  # (slots * lanes,)
    sums: np.ndarray  # (slots * lanes,): derivatives by the slots' angles
    numbers: np.ndarray  # (2 * numbers * lanes,): + and - of each
    by_numbers: np.ndarray  # (numbers * lanes,)
    units: np.ndarray  # (2 * lanes,): +1, then -1
    state: np.ndarray  # (tile rows * lanes,)
    cotangent: np.ndarray  # (tile rows * lanes,)
    rows: np.ndarray  # (tile rows,) int32
    parities: np.ndarray  # (tile rows,) uint8
