"""Compiling these kernels: as the state-vector kernels are, and again when any source of either has changed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

from qtm._engines.statevector.kernels import compilation
from qtm._engines.statevector.kernels.compilation import fingerprint, inlined

__all__ = ["inlined", "jit"]

# These kernels inline vector code of both folders.
_SOURCES = compilation._SOURCES + fingerprint(files(__package__))


def jit(function: Callable) -> Any:
    """Compile a kernel, and keep its machine code on disk."""
    dispatcher = compilation.jit(function)
    cache = dispatcher._cache
    if isinstance(cache, FunctionCache):
        cache._cache_file = IndexDataCacheFile(cache._cache_path, cache._impl.filename_base, _SOURCES)
    return dispatcher
