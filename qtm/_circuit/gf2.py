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
    """Bit j is the parity of the mask's overlap with vector j: masks of signs in the coordinates of a basis."""
    return sum(((mask & vector).bit_count() & 1) << j for j, vector in enumerate(vectors))


class GrowingBasis:
    """Independent bit masks, and the coordinates of other masks in this basis.

    A mask in the span is the xor of some vectors; its coordinates are the bit mask of these. Vectors are reduced on
    insertion (Gaussian elimination): each reduced mask is stored under its leading bit, and leading bits are distinct.
    To reduce a mask, xor it with the stored masks of its leading bits, from the highest on; the remainder is its part
    outside the span.
    """

    def __init__(self) -> None:
        self.vectors: list[int] = []
        self._reduced: dict[int, tuple[int, int]] = {}  # leading bit -> (reduced mask, its coordinates)

    def extend(self, mask: int, vector: int, own: int) -> bool:
        """Add ``vector``; with it, ``mask`` has the coordinates ``own``. False if the mask is in the span."""
        rest, coordinates = self._reduce(mask)
        if not rest:
            return False
        # mask = rest + (sum of the coordinates' vectors), so over GF(2) rest has the sum of both coordinates.
        self._reduced[rest.bit_length()] = rest, coordinates ^ own
        self.vectors.append(vector)
        return True

    def coordinates(self, mask: int) -> int | None:
        """The coordinates of a mask; None if it is outside the span."""
        rest, coordinates = self._reduce(mask)
        return None if rest else coordinates

    def _reduce(self, mask: int) -> tuple[int, int]:
        """The part of a mask outside the span, and the coordinates of the rest."""
        coordinates = 0
        while mask and (entry := self._reduced.get(mask.bit_length())):
            mask ^= entry[0]
            coordinates ^= entry[1]
        return mask, coordinates


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
