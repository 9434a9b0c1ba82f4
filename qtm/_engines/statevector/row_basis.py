"""Linear algebra over GF(2): the numbering of a program's amplitudes in the kernels."""

from __future__ import annotations

import numpy as np

from qtm._circuit.gf2 import GrowingBasis, odd_bits, parities

TABLE_BITS = 8  # masks in one table of phases or parities
SET_BITS = 5  # low bits of a row's number, which determine its set in the first-level cache: 4 KiB of rows of 128 bytes
_MODULUS = 0b100101


def split_tables(masks: list[int]) -> list[tuple[list[int], list[int]]]:
    """Split masks into pairs of tables, as few pairs and as small tables as possible."""
    if not masks:
        return []
    pairs = -(-len(masks) // (2 * TABLE_BITS))
    size = -(-len(masks) // pairs)
    chunks = [masks[i : i + size] for i in range(0, len(masks), size)]
    half = [(len(c) + 1) // 2 if len(c) > 5 else len(c) for c in chunks]
    return [(c[:h], c[h:]) for c, h in zip(chunks, half, strict=True)]


def near_bits(bit: int) -> int:
    """Low bits XORed into a row for one of its higher bits: x**bit in the field of 32 elements, modulo x**5 + x**2 + 1.

    The low bits determine the set of the first-level cache. A tile has rows that differ by bits of neighbouring qubits,
    or sums of such bits, and powers of x and their sums with the next powers are independent, five in a row.
    """
    power = 1
    for _ in range(bit):
        power <<= 1
        power ^= _MODULUS if power >> SET_BITS else 0
    return power


class Basis(GrowingBasis):
    """Masks of the program's amplitudes as masks of the kernels' amplitudes.

    Args:
        lane_bits: low bits of the kernels' amplitudes that are lanes; rows start after them.
        spread: whether rows are spread over the sets of the cache. The numbers of rows then depend on the lanes.
    """

    def __init__(self, lane_bits: int = 0, *, spread: bool = True) -> None:
        super().__init__()
        self.lane_bits, self.spread = lane_bits, spread

    def add(self, mask: int) -> int:
        """Make an independent mask the next row bit (with some lower ones); return its row mask."""
        bit = len(self.vectors)
        row = bit - self.lane_bits
        own = 1 << bit | (near_bits(row) << self.lane_bits if self.spread and row >= SET_BITS else 0)
        vector = mask  # = mask + the vectors of the lower bits of own, so that own are the coordinates of mask
        for j in range(bit):
            if own >> j & 1:
                vector ^= self.vectors[j]
        self.extend(mask, vector, own)
        return own

    def functional(self, mask: int, bits: int | None = None) -> int:
        """The row mask of a mask of signs, on the first ``bits`` row bits."""
        vectors = self.vectors if bits is None else self.vectors[:bits]
        return parities(mask, vectors)

    def functionals(self, masks: np.ndarray) -> np.ndarray:
        """`functional` for many masks (masks,) uint64 at once."""
        rows = np.zeros(len(masks), np.int64)
        for j, vector in enumerate(self.vectors):
            rows |= odd_bits(masks, np.uint64(vector)).astype(np.int64) << j
        return rows
