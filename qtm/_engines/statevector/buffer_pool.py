"""Used memory of states, kept for the next call: new memory costs a page fault every 4 KiB."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import prod
from typing import Any

import numpy as np

from qtm._engines.statevector.kernels import simd
from qtm._locks import fork_safe_lock

_KINDS = 4096  # kinds that are remembered, most of them without a spare buffer


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array whose first number stands on a vector boundary."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % simd.VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


class BufferPool:
    """Spare buffers by kind, of limited size in all: what was given back longest ago goes first. Safe for threads.

    Best is a string for a kind: Python remembers its hash, and buffers are taken and given back eight times in a step.

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
            if not same:
                return None
            buffer, size = same.pop()
            self.spare_bytes -= size
            return buffer

    def give(self, kind: Hashable, buffer: Any, size: int) -> None:
        """Keep a buffer of ``size`` bytes for whoever next wants one of its kind, if it is within the limit."""
        if size > self.limit:
            return
        with self._lock:
            same = self._spare.get(kind)
            if same is None:
                same = self._spare[kind] = []
            else:
                self._spare.move_to_end(kind)
            same.append((buffer, size))
            self.spare_bytes += size
            if self.spare_bytes > self.limit or len(self._spare) > _KINDS:
                self._shrink()

    def _shrink(self) -> None:
        """Let go of what was given back longest ago, until what is left is within the limit."""
        while self.spare_bytes > self.limit or len(self._spare) > _KINDS:
            oldest, same = next(iter(self._spare.items()))
            if same:
                self.spare_bytes -= same.pop(0)[1]
            if not same:
                del self._spare[oldest]


# One for all circuits: a bound for each would grow with the number of circuits in use.
POOL = BufferPool(1 << 28)
