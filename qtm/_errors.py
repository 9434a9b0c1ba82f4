"""Errors of qtm, and the one way in which optional packages are imported."""

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
    """A parameter is unknown, missing, listed twice, or its value is unusable."""


class ShapeError(QtmError, ValueError):
    """An array or tensor has the wrong shape."""


class DtypeError(QtmError, TypeError):
    """A dtype or a device is not supported."""


class OutOfMemory(QtmError, MemoryError):
    """The state vectors would not fit in memory; the message says how much they need."""


class UnsupportedError(QtmError, NotImplementedError):
    """A simulation method or an output cannot do what was asked of it; the message says which can."""


class WorkerError(QtmError, RuntimeError):
    """A worker of an executor died or failed; no share of the batch is silently missing."""


class JobError(QtmError, RuntimeError):
    """A job of an execution service failed; the message names its id."""


class BudgetExceeded(QtmError, RuntimeError):
    """The next submission would exceed the budget; the message says what was used."""


class MissingPackage(QtmError, ImportError):
    """An optional package is needed and not installed."""


def require(package: str, extra: str) -> ModuleType:
    """Import ``package``, or say which extra of qtm installs it.

    Raises:
        MissingPackage: ``package`` is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackage(
            f"{package!r} is needed here and could not be imported ({error}); "
            f'install it with: pip install "qtm-torch[{extra}]"'
        ) from error
