"""Memory kept between calls: one limit in bytes for all caches, evicting the least recently used entries first."""

from __future__ import annotations

import gc
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import ReferenceType, ref

import numpy as np

from qtm._locks import fork_safe_lock

Value = TypeVar("Value")

# Objects that their referrers do not own; their references lead to all other objects.
_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, Executor, ReferenceType)


def bytes_of(value: object, shared: tuple[type, ...] = ()) -> int:
    """Bytes of an object and of everything it refers to, each counted once, except objects of the types ``shared``."""
    skip, seen, total = (*_SHARED, *shared), set(), 0
    level: list[Any] = [value]
    while level:
        found: list[Any] = []
        for item in level:
            if id(item) in seen or isinstance(item, skip):
                continue
            seen.add(id(item))
            total += _own_bytes(item)
            found.append(item)
        level = gc.get_referents(*found)  # the referents of an array do not include its base
        level += [item.base for item in found if isinstance(item, np.ndarray) and item.base is not None]
    return total


def _own_bytes(item: Any) -> int:
    if hasattr(item, "untyped_storage"):  # a tensor: Python does not see its storage
        return sys.getsizeof(item) + int(item.untyped_storage().nbytes())
    return sys.getsizeof(item)  # includes the data of an array, unless it is a view


class KeptMemory:
    """A limit in bytes on everything that is kept. Call `keep`, `touch` and `forget` with `lock` held.

    Args:
        limit: total bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self.lock = fork_safe_lock()
        self.waiting: list[tuple[ReferenceType[ByteCache[Any]], ReferenceType[Any]]] = []
        # A finalizer could run while the lock is held, so entries of dead owners are removed when room is made.
        self._kept: OrderedDict[Hashable, tuple[int, ReferenceType[Any], Callable[[Any], None]]] = OrderedDict()
        self._spare: list[Callable[[], bool]] = []

    def keep(self, token: Hashable, size: int, owner: object, drop: Callable[[Any], None]) -> None:
        """Count ``size`` bytes as used just now; ``drop(owner)`` is called to evict them."""
        self.forget(token)
        if size > self.limit:  # too large on its own: evict nothing else for it
            drop(owner)
            return
        self._kept[token] = size, ref(owner), drop
        self.used += size
        if self.used > self.limit:
            self.make_room()

    def make_room_in(self, drop_oldest: Callable[[], bool]) -> None:
        """Call ``drop_oldest`` (returns whether it freed anything) before anything else is evicted."""
        self._spare.append(drop_oldest)

    def make_room(self) -> None:
        """Free spare memory, then evict the least recently used entries, until the rest is within the limit."""
        for other in [t for t, (_, kept_by, _) in self._kept.items() if kept_by() is None]:
            self.forget(other)
        for drop_oldest in self._spare:
            while self.used > self.limit and drop_oldest():
                pass
        while self.used > self.limit and self._kept:
            _, (freed, kept_by, drop) = self._kept.popitem(last=False)
            self.used -= freed
            if (alive := kept_by()) is not None:
                drop(alive)

    def not_measured(self) -> list[tuple[ReferenceType[ByteCache[Any]], ReferenceType[Any]]]:
        """Entries created but not yet measured, by cache; the caller measures them."""
        with self.lock:
            waiting, self.waiting = self.waiting, []
        return waiting

    def touch(self, token: Hashable) -> None:
        """Mark an entry as used just now."""
        if token in self._kept:
            self._kept.move_to_end(token)

    def forget(self, token: Hashable) -> None:
        """Stop counting an entry."""
        found = self._kept.pop(token, None)
        if found is not None:
            self.used -= found[0]


@dataclass(eq=False)
class _Entry(Generic[Value]):
    key: Hashable
    value: Value


class ByteCache(Generic[Value]):
    """An LRU cache of at most ``most`` values, whose bytes count against a limit shared with other caches.

    A value is measured when the next one is created, in any cache: by then it has been used and has built its tables.

    Args:
        most: maximum number of values.
        memory: the shared limit.
        shared: types of objects that are not counted, because something else owns them.
    """

    def __init__(self, most: int, memory: KeptMemory, shared: tuple[type, ...] = ()) -> None:
        self.most, self.memory, self._shared = most, memory, shared
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of this key, or a new one. If two threads create it, both get the one stored first."""
        with self.memory.lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                self.memory.touch(found)
                return found.value
        entry = _Entry(key, make())
        for owner, waiting in self.memory.not_measured():
            if (cache := owner()) is not None:
                cache.measure(waiting)
        with self.memory.lock:
            entry = self._entries.setdefault(key, entry)
            if len(self._entries) > self.most:
                self.memory.forget(self._entries.popitem(last=False)[1])
            self.memory.waiting.append((ref(self), ref(entry)))
        return entry.value

    def measure(self, waiting: ReferenceType[_Entry[Value]]) -> None:
        """Count the bytes of an entry, if it is still in the cache."""
        entry = waiting()
        if entry is None:
            return
        size = bytes_of(entry.value, self._shared)
        with self.memory.lock:
            if self._entries.get(entry.key) is entry:
                self.memory.keep(entry, size, self, lambda cache: cache._entries.pop(entry.key, None))


# One limit for all circuits and all caches: separate limits would add up with their number.
KEPT = KeptMemory(1 << 28)
