"""Buffers of states, reused by the next call: new memory costs a page fault every 4 KiB."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import prod
from typing import Any

import numpy as np

from qtm._engines.statevector.kernels import simd
from qtm._kept_memory import KEPT, KeptMemory

_KINDS = 4096  # kinds in the table, most of them without a spare buffer


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array aligned to a vector boundary."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % simd.VECTOR_BYTES
    array = raw[start : start + size].view(dtype).reshape(shape)
    if array.shape != shape:  # a compiler that traces NumPy reads the view differently: kernels would write beyond it
        raise RuntimeError(f"an array of shape {shape} has shape {array.shape}: do not trace qtm with torch.compile")
    return array


class BufferPool:
    """Spare buffers by kind, limited in bytes; the one returned longest ago is dropped first. Thread-safe.

    Use strings as kinds: Python caches their hashes, and a step takes and returns buffers eight times.

    Args:
        memory: the limit, which other caches may share; spare buffers are dropped before their entries.
    """

    def __init__(self, memory: KeptMemory) -> None:
        self.memory = memory
        self._spare: OrderedDict[Hashable, list[tuple[Any, int]]] = OrderedDict()
        memory.make_room_in(self.drop_oldest)

    def take(self, kind: Hashable) -> Any:
        """Take a spare buffer of this kind out of the pool; None if there is none."""
        memory = self.memory
        with memory.lock:
            same = self._spare.get(kind)
            if not same:
                return None
            buffer, size = same.pop()
            memory.used -= size
            return buffer

    def give(self, kind: Hashable, buffer: Any, size: int) -> None:
        """Return a buffer of ``size`` bytes to the pool, if it is within the limit."""
        memory = self.memory
        if size > memory.limit:
            return
        with memory.lock:
            same = self._spare.get(kind)
            if same is None:
                same = self._spare[kind] = []
            else:
                self._spare.move_to_end(kind)
            same.append((buffer, size))
            memory.used += size
            if memory.used > memory.limit:
                memory.make_room()
            while len(self._spare) > _KINDS:
                self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Drop the buffer returned longest ago; return whether there was one. The caller holds the limit's lock."""
        if not self._spare:
            return False
        kind, same = next(iter(self._spare.items()))
        if same:
            self.memory.used -= same.pop(0)[1]
        if not same:
            del self._spare[kind]
        return True


POOL = BufferPool(KEPT)
