"""Linear algebra over GF(2) on bit masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def odd_bits(masks: Any, other: Any) -> np.ndarray:
    """Parity of the overlap of bit masks, elementwise."""
    return np.bitwise_count(np.bitwise_and(masks, other)) & 1


def bits_of(mask: int) -> Iterator[int]:
    """The bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def parities(mask: int, vectors: Sequence[int]) -> int:
    """Bit j says whether the mask overlaps vector j oddly: masks of signs in the coordinates of a basis."""
    return sum(((mask & vector).bit_count() & 1) << j for j, vector in enumerate(vectors))


def combinations(masks: Sequence[int]) -> np.ndarray:
    """The xor of every subset of the masks, subset s at position s."""
    index = np.zeros(1, np.int64)
    for mask in masks:
        index = np.concatenate([index, index ^ mask])
    return index


def pivots(masks: Sequence[int]) -> list[int]:
    """Ascending bits at which the span of the masks has a row-reduced basis: cosets are numbered by the rest."""
    reduced: list[int] = []
    for mask in masks:
        for r in reduced:
            mask = min(mask, mask ^ r)
        if mask:
            reduced.append(mask)
    return sorted(r.bit_length() - 1 for r in reduced)
