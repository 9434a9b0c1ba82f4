"""Whether a Pauli string anticommutes with one of many strings, in time independent of their number.

The commutation sign with a product of strings is linear over GF(2): a string that commutes with a basis of their span
commutes with all of them, and a basis has at most 2n strings of n qubits.
"""

from __future__ import annotations

_BRANCH_BITS = 2  # of the tree in `LastClash`


class PauliSpan:
    """The span of Pauli strings X^x Z^z, up to signs."""

    __slots__ = ("basis", "reduced")

    def __init__(self) -> None:
        self.basis: list[tuple[int, int]] = []
        self.reduced: dict[int, tuple[int, int]] = {}  # by leading bit of x, or ~ that of z where x is 0

    def add(self, x: int, z: int) -> bool:
        """Add a string; False if the span already contained it."""
        while x or z:
            key = x.bit_length() if x else ~z.bit_length()
            entry = self.reduced.get(key)
            if entry is None:
                self.reduced[key] = x, z
                self.basis.append((x, z))
                return True
            x, z = x ^ entry[0], z ^ entry[1]
        return False

    def clashes(self, x: int, z: int) -> bool:
        """Whether a string of the span anticommutes with this one."""
        for other_x, other_z in self.basis:  # a loop, because a generator costs more than a few strings
            if ((other_x & z).bit_count() ^ (other_z & x).bit_count()) & 1:
                return True
        return False


class LastClash:
    """Strings at positions 0, 1, 2, ..., and the last position of one that anticommutes with a given string.

    A tree of spans: a node clashes exactly if a string below it does, so the search never backtracks. Strings are
    inserted at the first query.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, int]] = []
        self._levels: list[dict[int, PauliSpan]] = [{}]  # level k, node j: positions j << 2k to (j + 1) << 2k

    def add(self, position: int, x: int, z: int) -> None:
        """Add a string at a position, which may hold several."""
        self._waiting.append((position, x, z))

    def find(self, x: int, z: int) -> int:
        """The last position with a string that anticommutes with this one; -1 if there is none."""
        for string in self._waiting:
            self._insert(*string)
        self._waiting.clear()
        if not any(root.clashes(x, z) for root in self._levels[-1].values()):
            return -1
        node = 0
        for level in reversed(self._levels[:-1]):
            children = range((node + 1 << _BRANCH_BITS) - 1, (node << _BRANCH_BITS) - 1, -1)
            node = next(child for child in children if child in level and level[child].clashes(x, z))
        return node

    def _insert(self, position: int, x: int, z: int) -> None:
        while position >> _BRANCH_BITS * (len(self._levels) - 1):
            self._grow()
        for level in self._levels:
            # Strings in a node's span are also in the spans of its parents.
            if not level.setdefault(position, PauliSpan()).add(x, z):
                return
            position >>= _BRANCH_BITS

    def _grow(self) -> None:
        """Add a root above the old one, which becomes its first child."""
        root = PauliSpan()
        for span in self._levels[-1].values():
            for string in span.basis:
                root.add(*string)
        self._levels.append({0: root})
