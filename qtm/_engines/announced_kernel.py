"""Kernels that say when they are compiled, and whose types are looked up once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

_LOGGER = logging.getLogger("qtm")


class AnnouncedKernel:
    """A kernel of numba, called by the kind of its arguments.

    Compiling takes seconds, so the first call of a kind is logged. Later ones go straight to the machine code: numba
    takes 4 us to find out the types of some thirty arrays, which is as long as a small circuit takes to run.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._compiled: dict[Hashable, Callable[..., Any]] = {}
        self._begun: set[Hashable] = set()

    def for_kind(self, *kind: Any) -> Callable[..., Any]:
        """The function for arguments of one kind: the same types, contiguous arrays. It does not check them."""
        return self._compiled.get(kind) or partial(self._first_call, kind)

    def _first_call(self, kind: tuple[Any, ...], *arguments: Any) -> Any:
        name = self._kernel.__name__
        announced = kind not in self._begun  # by another thread
        self._begun.add(kind)
        if not announced:
            return self._kernel(*arguments)
        _LOGGER.info(
            "loading the kernel %r for %s; the first time on a machine, compiling it takes seconds", name, kind[0]
        )
        before, began = sum(self._kernel.stats.cache_misses.values()), time.perf_counter()
        result = self._kernel(*arguments)
        if sum(self._kernel.stats.cache_misses.values()) > before:
            _LOGGER.warning("compiled the kernel %r for %s in %.1f s", name, kind[0], time.perf_counter() - began)
        types = tuple(self._kernel.typeof_pyval(argument) for argument in arguments)
        self._compiled[kind] = self._kernel.overloads[types].entry_point
        return result
