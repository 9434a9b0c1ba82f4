"""Errors of the networks: qtm's own that are also qiskit-machine-learning's, if that is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from qtm._errors import QtmError


@cache
def peer() -> Any:
    """The networks of qiskit-machine-learning, or None if it is not installed."""
    if find_spec("qiskit_machine_learning") is None:
        return None
    import qiskit_machine_learning.neural_networks

    return qiskit_machine_learning.neural_networks


@cache
def _both(kind: Any) -> Any:
    if peer() is None:
        return kind
    from qiskit_machine_learning import QiskitMachineLearningError

    return type(kind.__name__, (QiskitMachineLearningError, kind), {"__module__": kind.__module__})


def network_error(kind: Any, message: str) -> QtmError:
    """An error that code written for qiskit-machine-learning also catches."""
    return _both(kind)(message)
