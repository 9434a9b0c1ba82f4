"""Compiling kernels with numba: the options, the target, and the cache of machine code on disk.

Numba's own cache asks only whether the file of a kernel has changed. A kernel is compiled from several files, so here
the machine code is kept under a hash of all of them. Numba adds the processor and its features to the key. A cache
that cannot be used (no writable folder, a full disk, a damaged file) costs time, never a result: the kernel is
compiled, and the log says so once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

from numba import njit
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, NullCache
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

_LOGGER = logging.getLogger("qtm")
_ADVICE = ", so every process compiles them, which takes seconds; set NUMBA_CACHE_DIR to a folder with free space"
_said: set[str] = set()


# --- The target ---------------------------------------------------------------------------------------------------


def target_features() -> frozenset[str]:
    """Processor features that numba compiles for: the host's, unless numba's settings name others."""
    given = config.CPU_FEATURES  # NUMBA_CPU_FEATURES, and "" where NUMBA_CPU_NAME is generic
    text = get_host_cpu_features() if given is None else given  # the first obeys NUMBA_ENABLE_AVX
    return frozenset(word[1:] for word in text.split(",") if word.startswith("+"))


# --- The cache ----------------------------------------------------------------------------------------------------


def fingerprint(folder: Any) -> str:
    """Hash of all sources in a folder (anything with the interface of `pathlib.Path`)."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_file() and file.name.endswith((".py", ".pyc")):
            source = file.read_bytes()
            digest.update(f"{file.name} {len(source)} ".encode() + source)
    return digest.hexdigest()


_SOURCES = fingerprint(files(__package__))


def sources_of(function: Callable) -> str:
    """Hash of all sources of these kernels and, for one of another folder of qtm, of that folder too."""
    folder = function.__module__.rpartition(".")[0]
    is_elsewhere = folder.startswith("qtm.") and folder != __package__
    return _SOURCES + (fingerprint(files(folder)) if is_elsewhere else "")


class _CheckedImpl(CompileResultCacheImpl):
    """Machine code with a checksum: a file that was damaged must not run."""

    def reduce(self, cres: Any) -> tuple[str, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).hexdigest(), data

    def rebuild(self, target_context: Any, reduced: tuple[str, bytes]) -> Any:
        checksum, data = reduced
        if hashlib.sha256(data).hexdigest() != checksum:
            raise ValueError("the file is damaged")
        return super().rebuild(target_context, pickle.loads(data))


class _KernelCache(FunctionCache):
    """Numba's cache of a function, valid for these sources of all kernels; its failures are logged, not raised."""

    _impl_class = _CheckedImpl

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, sources_of(function))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001  (unpickling damaged data may raise anything)
            _say_once(f"compiled kernels in {self.cache_path} could not be read, and are compiled again", error)
            self._start_anew()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001  (the kernel is compiled, and runs)
            _say_once(f"compiled kernels could not be kept in {self.cache_path}{_ADVICE}", error)

    def _start_anew(self) -> None:
        """Make a readable, empty index, so that what is compiled now can be kept."""
        try:
            self.flush()
        except OSError as error:
            _say_once(f"compiled kernels could not be kept in {self.cache_path}{_ADVICE}", error)


class _NoCache(NullCache):
    """Where no folder can be written."""

    def __init__(self, reason: Exception) -> None:
        self._reason = reason

    def save_overload(self, sig: Any, cres: Any) -> None:
        _say_once(f"compiled kernels could not be kept{_ADVICE}", self._reason)


def _cache(function: Callable) -> FunctionCache | _NoCache:
    try:
        return _KernelCache(function)
    except (RuntimeError, OSError) as error:  # numba finds no folder that can be written
        return _NoCache(error)


def _say_once(what: str, error: Exception) -> None:
    if what not in _said:
        _said.add(what)
        _LOGGER.warning("%s (%s: %s)", what, type(error).__name__, error)


# --- Forks --------------------------------------------------------------------------------------------------------

# A fork while another thread compiles would leave the child a locked, half-changed compiler: it waits for the end.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


# --- Decorators ---------------------------------------------------------------------------------------------------

# Kernels allocate nothing, so arrays need no reference counts: counting them at every call took longer than the work
# on small states.
_OPTIONS: dict[str, Any] = {
    "nogil": True, "fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "_nrt": False
}  # fmt: skip


def jit(function: Callable) -> Any:
    """Compile a kernel, and keep its machine code on disk."""
    dispatcher = njit(**_OPTIONS)(function)
    dispatcher._cache = _cache(function)
    return dispatcher


# Numba compiles a callee again inside every caller: what is called from one place becomes part of it instead.
inlined = partial(njit, inline="always", **_OPTIONS)
