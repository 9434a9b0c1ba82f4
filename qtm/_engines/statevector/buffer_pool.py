"""Used memory of states, kept for the next call: new memory costs a page fault every 4 KiB."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import prod
from typing import Any

import numpy as np

from qtm._engines.statevector.kernels import simd
from qtm._locks import fork_safe_lock


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array whose first number stands on a vector boundary."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % simd.VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


class BufferPool:
    """Spare buffers by kind, of limited size in all: what was given back longest ago goes first. Safe for threads.

    Args:
        limit: bytes of all spare buffers together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spare_bytes = 0
        self._spare: OrderedDict[Hashable, list[tuple[Any, int]]] = OrderedDict()
        self._lock = fork_safe_lock()

    def take(self, kind: Hashable) -> Any:
        """A spare buffer of this kind, which nobody else has any more; None where there is none."""
        with self._lock:
            same = self._spare.get(kind)
            if same is None:
                return None
            buffer, size = same.pop()
            self._forget(kind, same, size)
            return buffer

    def give(self, kind: Hashable, buffer: Any, size: int) -> None:
        """Keep a buffer of ``size`` bytes for whoever next wants one of its kind, if it is within the limit."""
        if size > self.limit:
            return
        with self._lock:
            self._spare.setdefault(kind, []).append((buffer, size))
            self._spare.move_to_end(kind)
            self.spare_bytes += size
            while self.spare_bytes > self.limit:
                oldest, same = next(iter(self._spare.items()))
                self._forget(oldest, same, same.pop(0)[1])

    def _forget(self, kind: Hashable, same: list, size: int) -> None:
        self.spare_bytes -= size
        if not same:
            del self._spare[kind]


# One for all circuits: a bound for each would grow with the number of circuits in use.
POOL = BufferPool(1 << 28)
