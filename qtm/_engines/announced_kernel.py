"""Kernels that log their compilation and look up the types of their arguments once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

_LOGGER = logging.getLogger("qtm")


class AnnouncedKernel:
    """A numba kernel whose machine code is found by the dtypes of its arguments.

    Compiling takes seconds, so the first call for some dtypes is logged. Later calls go straight to the machine code:
    numba takes 4 us to determine the types of some thirty arrays, as long as a small circuit takes to run.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._compiled: dict[Hashable, Callable[..., Any]] = {}
        self._begun: set[Hashable] = set()

    def for_kind(self, *kind: Any) -> Callable[..., Any]:
        """Return the function for these dtypes; it does not check its arguments, which must be contiguous arrays."""
        return self._compiled.get(kind) or partial(self._first_call, kind)

    def _first_call(self, kind: tuple[Any, ...], *arguments: Any) -> Any:
        name, types = self._kernel.__name__, tuple(self._kernel.typeof_pyval(argument) for argument in arguments)
        if kind in self._begun:  # another thread has announced it
            return self._kernel(*arguments)
        self._begun.add(kind)
        said, began = _described(kind), time.perf_counter()
        _LOGGER.info(
            "loading the kernel %r for %s; the first time on a machine, compiling it takes seconds", name, said
        )
        result = self._kernel(*arguments)
        if self._kernel.stats.cache_misses[types]:  # of these types alone: another thread may be compiling for others
            _LOGGER.warning("compiled the kernel %r for %s in %.1f s", name, said, time.perf_counter() - began)
        self._compiled[kind] = self._kernel.overloads[types].entry_point
        return result


def _described(kind: tuple[Any, ...]) -> str:
    """The dtypes of a kind: "float32", or "float32, float64" where a kernel has arguments of several."""
    names = [str(dtype) for dtype in kind]
    return names[0] if len(set(names)) == 1 else ", ".join(names)
