"""LRU cache of compiled simulations."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives.containers.bindings_array import BindingsArray

from qtm._circuit.noise_map import NoiseMap
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._kept_memory import KEPT, ByteCache

_CACHE_SIZE = 64


class Simulations:
    """LRU cache of simulations, so that a circuit in a loop is lowered once. Thread-safe.

    It is limited in number, and in bytes together with all other caches of qtm.

    Copies and pickles start empty; copies share the executor.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._known: ByteCache[Simulation] = ByteCache(_CACHE_SIZE, KEPT, shared=(NoiseMap,))

    def find(self, key: Hashable, make: Callable[[Options], Simulation]) -> Simulation:
        """The simulation known by ``key``, or a new one."""
        return self._known.find(key, lambda: make(self.options))

    def __reduce__(self) -> tuple[Any, ...]:
        return Simulations, (self.options,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Simulations:
        return Simulations(self.options)


def parameter_rows(bindings: BindingsArray, circuit: QuantumCircuit) -> np.ndarray:
    """Parameter values (sets, parameters) in the circuit's order of parameters."""
    return bindings.as_array(circuit.parameters).reshape(bindings.size, circuit.num_parameters)
