"""The simulations that ran last, by what they simulate."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives.containers.bindings_array import BindingsArray

from qtm._engine import Options
from qtm._errors import ParameterError
from qtm._parallel import resolve_threads
from qtm._simulation import Simulation
from qtm._sweeps import real_dtype

_CACHE_SIZE = 64


def checked_options(dtype: Any, num_threads: int, executor: Executor | None) -> Options:
    """Options of the engine from what the user gave.

    Raises:
        DtypeError: the dtype is not complex128 or complex64.
        ParameterError: ``num_threads`` is negative, or ``executor`` cannot be submitted to.
    """
    name = "complex64" if real_dtype(dtype) == np.float32 else "complex128"
    resolve_threads(num_threads)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ParameterError(
            f"executor must have the interface of concurrent.futures.Executor, not be {executor!r}; "
            "give a ProcessPoolExecutor, say, or None for threads of this process"
        )
    return Options(name, num_threads, executor)


class Simulations:
    """The simulations used last, so that what runs in a loop is lowered once. Safe to use from threads.

    Copies and pickles start empty; copies share the executor.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._known: OrderedDict[Hashable, Simulation] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable, make: Callable[[Options], Simulation]) -> Simulation:
        """The simulation known by ``key``, or a new one."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = make(self.options)
        with self._lock:
            self._known[key] = made
            if len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Simulations, (self.options,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Simulations:
        return Simulations(self.options)


def parameter_rows(bindings: BindingsArray, circuit: QuantumCircuit) -> np.ndarray:
    """Parameter values (sets, parameters) in the circuit's order of parameters."""
    return bindings.as_array(circuit.parameters).reshape(bindings.size, circuit.num_parameters)
