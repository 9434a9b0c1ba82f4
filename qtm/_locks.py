"""Locks that are free in a forked child, and a cached property without a lock.

A fork copies locks as they are, but only the thread that forks: a lock that another thread holds at that moment would
stay locked in the child for ever. What these locks guard is changed in single steps, so it is always consistent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload
from weakref import WeakSet

Result = TypeVar("Result")


_LOCKS: WeakSet[threading.Lock] = WeakSet()


def fork_safe_lock() -> threading.Lock:
    """A lock that is free in a forked child, whoever held it in the parent."""
    # Not a class around a lock: an interrupt (Ctrl-C) at the start of an `__exit__` in Python would leave it locked.
    lock = threading.Lock()
    _LOCKS.add(lock)
    return lock


def _renew_all() -> None:
    for lock in _LOCKS:  # as the standard library reinitialises its own
        lock._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


class cached_property(Generic[Result]):  # noqa: N801  (a decorator, named like that of functools)
    """`functools.cached_property` without the lock that Python 3.11 holds while any instance computes its value."""

    def __init__(self, compute: Callable[[Any], Result]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[Result]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Result: ...

    def __get__(self, instance: object | None, owner: type) -> cached_property[Result] | Result:
        """The value; later look-ups find it in the instance first."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
