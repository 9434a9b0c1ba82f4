"""Modules by name: an operator in a graph of torch's compiler cannot take an object as argument."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex
from typing import Protocol
from weakref import WeakValueDictionary

from torch import Tensor

from qtm._errors import UnsupportedError


class Compilable(Protocol):
    """A module that an operator can run: see `qtm._torch.circuit_module.CircuitModule`."""

    _output_size: int
    _is_real: bool

    def _values_at(self, inputs: Tensor | None, sets: Sequence[Tensor]) -> Tensor: ...


_MODULES: WeakValueDictionary[str, Compilable] = WeakValueDictionary()


def new_name(module: Compilable) -> str:
    """A name for the module, unique over processes, valid as long as the module exists."""
    name = token_hex(8)
    _MODULES[name] = module
    return name


def module_named(name: str) -> Compilable:
    """The module with this name.

    Raises:
        UnsupportedError: it was created in another process, or no longer exists.
    """
    found = _MODULES.get(name)
    if found is None:
        raise UnsupportedError(
            f"a compiled graph refers to the QuantumModule {name}, which does not exist in this process (any more): "
            "a graph holds the name of a module, not its circuit. Keep the module as long as the graph; for another "
            "process save the module itself with torch.save, and compile or export it there"
        )
    return found
