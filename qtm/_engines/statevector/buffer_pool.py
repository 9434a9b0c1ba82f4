"""Used memory of states, kept for the next call: new memory costs a page fault every 4 KiB."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from qtm._engines.statevector.kernels import simd
from qtm._kept_memory import KEPT, KeptMemory


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array whose first number stands on a vector boundary."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + simd.VECTOR_BYTES, np.uint8)
    start = -raw.__array_interface__["data"][0] % simd.VECTOR_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


@dataclass(eq=False)
class _Spare:
    buffer: Any


class BufferPool:
    """Spare buffers by kind, within a bound of bytes. Safe for threads.

    Args:
        memory: the bound, which other caches may share.
    """

    def __init__(self, memory: KeptMemory) -> None:
        self.memory = memory
        self._spare: defaultdict[Hashable, list[_Spare]] = defaultdict(list)

    def take(self, kind: Hashable) -> Any:
        """A spare buffer of this kind, which nobody else has any more; None where there is none."""
        with self.memory.lock:
            same = self._spare.get(kind)
            if same is None:
                return None
            spare = same.pop()
            self._tidy(kind)
            self.memory.forget(spare)
            return spare.buffer

    def give(self, kind: Hashable, buffer: Any, size: int) -> None:
        """Keep a buffer of ``size`` bytes for whoever next wants one of its kind, if it is within the bound."""
        spare = _Spare(buffer)
        with self.memory.lock:
            self._spare[kind].append(spare)
            self.memory.keep(spare, size, self, lambda pool: pool._drop(kind, spare))

    def _drop(self, kind: Hashable, spare: _Spare) -> None:
        self._spare[kind].remove(spare)
        self._tidy(kind)

    def _tidy(self, kind: Hashable) -> None:
        if not self._spare[kind]:
            del self._spare[kind]


POOL = BufferPool(KEPT)
