"""The table of simulation methods, and the choice of one for a circuit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from qtm._circuit.flatten import FlatCircuit
from qtm._engines.engine import SimulationMethod
from qtm._engines.options import Options
from qtm._engines.outputs import Output
from qtm._engines.statevector.engine import StateVector
from qtm._errors import ParameterError, UnsupportedError


class MethodTable(Mapping[str, type[SimulationMethod]]):
    """Simulation methods by name, each imported when it is first used: most circuits need one of them."""

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> type[SimulationMethod]:
        module, kind = self._places[name]
        found: type[SimulationMethod] = getattr(import_module(module), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


METHODS = MethodTable(
    {
        "statevector": ("qtm._engines.statevector.engine", "StateVector"),
        "triton": ("qtm._engines.triton_statevector.engine", "TritonStateVector"),
        "density_matrix": ("qtm._engines.density_matrix.engine", "DensityMatrix"),
        "trajectories": ("qtm._engines.trajectories.engine", "Trajectories"),
        "branches": ("qtm._engines.branches.engine", "Branches"),
        "matrix_product_state": ("qtm._engines.matrix_product_state.method", "MatrixProductState"),
    }
)
AUTO = "auto"
_ON_CUDA = "triton"  # the state vectors of tensors on a GPU
_SMALL = 1 << 26  # bytes of the states of one sample

Method = str | tuple[str, Mapping[str, Any]] | SimulationMethod


def simulation_method(method: Method) -> SimulationMethod | None:
    """The method meant by a name, a pair of name and options, or a method itself; None for ``"auto"``.

    Raises:
        ParameterError: the name or an option is unknown.
    """
    if isinstance(method, SimulationMethod):
        return method
    name, options = method if isinstance(method, tuple) and len(method) == 2 else (method, {})
    if name == AUTO and not options:
        return None
    if not isinstance(name, str) or name not in METHODS or not isinstance(options, Mapping):
        raise ParameterError(
            f"unknown simulation method {method!r}; use 'auto', one of {', '.join(map(repr, METHODS))}, a pair "
            "(name, options), or a SimulationMethod"
        )
    try:
        return METHODS[name](**options)
    except TypeError as error:
        kind: Any = METHODS[name]
        known = ", ".join(field.name for field in fields(kind)) if is_dataclass(kind) else ""
        raise ParameterError(f"method {name!r}: {error}; its options are {known or 'none'}") from error


def _on_device(method: SimulationMethod, device: str) -> SimulationMethod:
    """A method, or its counterpart on a type of device."""
    return METHODS[_ON_CUDA]() if device == "cuda" and isinstance(method, StateVector) else method


def _refusal(method: SimulationMethod, circuit: FlatCircuit, output: Output, options: Options) -> str | None:
    return method.refuses_device(options.device) or method.refuses(circuit, output, options)


def choose(method: Method, circuit: FlatCircuit, output: Output, options: Options) -> SimulationMethod:
    """The method to run: the named one, or with ``"auto"`` the cheapest exact one that supports the circuit.

    For tensors on ``cuda``, "triton" computes state vectors. A small state vector is not compared with other methods:
    predicting their cost would take longer than the simulation.

    Raises:
        ParameterError: the name or an option is unknown.
        UnsupportedError: the method, or with ``"auto"`` every method, refuses the circuit.
    """
    named = simulation_method(method)
    if named is not None:
        named = _on_device(named, options.device)
        if (why := _refusal(named, circuit, output, options)) is not None:
            raise UnsupportedError(f"method {named.name!r} {why}")
        return named
    first = _on_device(StateVector(), options.device)
    if first.refuses(circuit, output, options) is None and first.cost(circuit, output, options).memory <= _SMALL:
        return first
    able, refusals = [], []
    for name in METHODS:
        if name == _ON_CUDA:
            continue
        candidate = _on_device(METHODS[name](), options.device)
        why = _unfit(candidate, circuit) or _refusal(candidate, circuit, output, options)
        if why is None:
            able.append(candidate)
        else:
            refusals.append(f"{candidate.name!r} {why}")
    if not able:
        raise UnsupportedError("no simulation method can do this: " + "; ".join(refusals))
    if len(able) == 1:
        return able[0]
    return min(able, key=lambda one: one.cost(circuit, output, options).multiply_adds)


def _unfit(method: SimulationMethod, circuit: FlatCircuit) -> str | None:
    """Why "auto" does not select a method; None if it may."""
    if not method.is_exact:
        return "is not exact, and must be selected by name"
    if method.simulates_noise and not circuit.is_noisy:
        return "costs more than a state vector where there is no noise"
    return None
