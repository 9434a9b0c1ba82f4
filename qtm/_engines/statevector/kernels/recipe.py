"""The recipe of a sweep: what `schedule` writes, and the kernels read, as integer arrays with named columns.

A *row* is the vectors of one amplitude or, with amplitude lanes, of as many amplitudes as a vector has lanes. Masks of
rows and masks of lanes are apart; a row mask has the bits of a row number, a lane mask those of a lane number.

Operations, a line of ``Recipe.ops`` each, in order. All kinds have

| column | content |
| --- | --- |
| KIND | ROTATE, DOUBLE_SUPPORT, ROTATE_LANES or PHASE |
| BITS | the operation works on the first 2**BITS rows |
| SLOT | the first of its angles; the others follow |
| COUNT | how many generators share the operation; of a PHASE, how many masks are in its first table |

ROTATE, up to three commuting generators in one go, or one whose mask of rows is 0: it pairs lanes of the same row.
DOUBLE_SUPPORT, one generator whose partner rows are still zero. ROTATE_LANES, one whose partner lanes are still zero.
For generator j they have

| column | content |
| --- | --- |
| MASKS + j | rows i and i ^ mask are a pair |
| SIGNS + j | the sign of a pair is the parity of i & signs |
| PIVOTS + j | a bit of the mask: pairs are numbered by the rows in which it is 0 |
| LANES + j | lanes l and l ^ lanes are paired |

A PHASE multiplies every row with an entry of each of two tables, looked up by the parities of the row under the masks:

| column | content |
| --- | --- |
| SECOND_COUNT | how many masks are in the second table |
| FIRST_INDEX, SECOND_INDEX | where in ``Recipe.index`` the lookups of the tables begin, see `lookup_tables` |
| TABLE_ROW | where its tables stand among those of the pass |

ROTATE and PHASE are done tile by tile, together with their neighbours. A tile is the coset of a row under 2**TILE_BITS
combinations of masks: those of the operations that share the pass, and others that fill it up. The angles of the
rotations of a pass follow one another. They have

| column | content |
| --- | --- |
| COSETS | how many cosets of its own masks a tile has; of a PHASE, how many groups of rows with the same entries |
| COSET_INDEX | where in ``Recipe.index`` their first rows stand, relative to the tile; of a PHASE, those of all rows |
| ALIKE | of a PHASE, how many rows a group has |
| FIRST_TILE, SECOND_TILE | of a PHASE, where the groups' entries stand there, relative to the tile's |
| TILE_INDEX | where in ``Recipe.index`` the pivots of the tile's masks stand |
| TILE_BITS | how many these are |
| PLACE | its place among the operations of the pass |
| GROUPS | how many operations the pass has |

Strings that are measured, a line of ``Recipe.groups`` for those that share a mask x and the parity of k (i^k X^x Z^z):

| column | content |
| --- | --- |
| STRING_MASK, STRING_LANES | x, as masks of rows and of lanes |
| STRING_ODD | 1 where the imaginary part is measured |
| STRING_FIRST | the first of its masks z among all masks |
| STRING_COUNTS + t | how many masks are in table t (0, 1) |
| STRING_INDEX + t | where in ``Recipe.index`` the lookup of table t begins |
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

ROTATE, DOUBLE_SUPPORT, PHASE, ROTATE_LANES = 0, 1, 2, 3
MAX_GENERATORS = 3  # of one ROTATE: the rows of a coset fill the registers

KIND, BITS, SLOT, COUNT = 0, 1, 2, 3
MASKS, SIGNS, PIVOTS, LANES = 4, 7, 10, 13
COSETS, COSET_INDEX, TILE_INDEX, TILE_BITS, PLACE, GROUPS = 16, 17, 18, 19, 20, 21
SECOND_COUNT, FIRST_INDEX, SECOND_INDEX, FIRST_TILE, SECOND_TILE, TABLE_ROW, ALIKE = range(4, 11)  # of a PHASE
OPERATION_COLUMNS = 22

STRING_MASK, STRING_ODD, STRING_FIRST, STRING_COUNTS, STRING_INDEX, STRING_LANES = 0, 1, 2, 3, 5, 7
STRING_COLUMNS = 8


class Recipe(NamedTuple):
    """A scheduled circuit with its observables, as plain arrays."""

    ops: np.ndarray  # (operations, OPERATION_COLUMNS) int64
    slot_start: np.ndarray  # (slots + 1,) int64; slot angle = offset + sum coef * angle
    slot_angle: np.ndarray  # (terms,) int64
    slot_coef: np.ndarray  # (terms,) float64
    slot_offset: np.ndarray  # (slots,) float64
    slot_lanes: np.ndarray  # (slots,) int64, mask of the signs over the lanes
    index: np.ndarray  # type: ignore[assignment]  # int32, lookups, cosets and pivots, one after another
    groups: np.ndarray  # (groups, STRING_COLUMNS) int64
    mask_start: np.ndarray  # (masks + 1,) int64; observable m has sum coef * mask value
    mask_observable: np.ndarray  # (entries,) int64
    mask_coef: np.ndarray  # (entries,) float64
    mask_lanes: np.ndarray  # (masks,) int64
    row_bits: int
    lane_bits: int  # 0: lanes are samples
    parts: int  # 1: real states, 2: complex ones


def line(width: int, **columns: Any) -> list[int]:
    """A line of ``Recipe.ops`` or ``Recipe.groups``, its columns by their names in small letters.

    A sequence fills the columns from the named one on; what is not named is 0.
    """
    numbers = [0] * width
    for name, value in columns.items():
        first = globals()[name.upper()]
        for place, number in enumerate(value if isinstance(value, list | tuple) else [value]):
            numbers[first + place] = number
    return numbers
