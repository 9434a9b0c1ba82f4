"""Errors of qtm, and the import of optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType


class QtmError(Exception):
    """Base of every error that qtm raises on purpose."""


class CircuitError(QtmError, ValueError):
    """A circuit, or one of its instructions, cannot be simulated or sent."""


class ObservableError(QtmError, ValueError):
    """An observable is malformed, not Hermitian, or does not fit its circuit."""


class ParameterError(QtmError, ValueError):
    """A parameter is unknown, missing or listed twice, or a value is invalid."""


class ShapeError(QtmError, ValueError):
    """An array or tensor has the wrong shape."""


class DtypeError(QtmError, TypeError):
    """A dtype or a device is not supported."""


class OutOfMemory(QtmError, MemoryError):
    """The states would not fit in memory; the message states the memory needed and available."""


class UnsupportedError(QtmError, NotImplementedError):
    """A simulation method or an output does not support a request; the message names one that does."""


class WorkerError(QtmError, RuntimeError):
    """A worker of an executor died or failed; no share of the batch is silently missing."""


class JobError(QtmError, RuntimeError):
    """A job of an execution service failed; the message names its id."""


class BudgetExceeded(QtmError, RuntimeError):
    """The next submission would exceed the budget; the message states the usage so far."""


class MissingPackage(QtmError, ImportError):
    """A required optional package is not installed."""


def require(package: str, extra: str) -> ModuleType:
    """Import ``package``; if it is missing, name the extra of qtm that installs it.

    Raises:
        MissingPackage: ``package`` is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackage(
            f"{package!r} is required here and could not be imported ({error}); "
            f'install it with: pip install "qtm-torch[{extra}]"'
        ) from error
