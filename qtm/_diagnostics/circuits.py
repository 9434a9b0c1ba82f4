"""The circuit under examination, and random values of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qtm import _machine
from qtm._arguments import check_generator_seed, checked_int, refused, shown
from qtm._errors import CircuitError, OutOfMemory, ParameterError, ShapeError
from qtm._parts.model_circuit import ModelCircuit
from qtm._parts.stacking import StackedCircuit

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
Seed = np.random.Generator | int | None
_SHARE = 0.4  # share of the free memory for states


def uniform_angles(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Angles from 0 to 2 pi."""
    return generator.uniform(0, 2 * pi, shape)


@dataclass(frozen=True)
class Roles:
    """A circuit, the parameters of its inputs, and its weights."""

    circuit: QuantumCircuit
    inputs: list[Parameter]
    weights: list[Parameter]

    @property
    def parameters(self) -> list[Parameter]:
        """Inputs, then weights."""
        return [*self.inputs, *self.weights]


def read_circuit(circuit: Any, encoding_params: Any = None) -> Roles:
    """A circuit or a model of `qtm.circuits`, with the roles of its parameters.

    Raises:
        CircuitError: it is not a circuit.
        ParameterError: it has no weights, or an encoding parameter is not in it.
    """
    if isinstance(circuit, ModelCircuit):
        found = Roles(circuit.circuit, list(circuit.encoding_params), circuit.trainable_params)
    elif isinstance(circuit, StackedCircuit):
        weights = [p for parameters in circuit.parameter_sets.values() for p in parameters]
        found = Roles(circuit.circuit, list(circuit.encoding_params), weights)
    elif isinstance(circuit, QuantumCircuit):
        inputs = [] if encoding_params is None else list(encoding_params)
        if unknown := [str(p) for p in inputs if p not in set(circuit.parameters)]:
            raise ParameterError(f"encoding_params that are not in the circuit: {', '.join(unknown)}")
        found = Roles(circuit, inputs, [p for p in circuit.parameters if p not in set(inputs)])
    else:
        raise CircuitError(
            f"circuit must be a circuit, not {shown(circuit)}; give a qiskit.QuantumCircuit, or a model of qtm.circuits"
        )
    if not found.weights:
        raise ParameterError(
            f"circuit {found.circuit.name!r} has no trainable parameters, so there is nothing to examine"
        )
    return found


def random_rows(columns: int, samples: int, seed: Seed, draw: Draw) -> np.ndarray:
    """Random parameter values (samples, columns).

    Raises:
        ParameterError: the seed is unusable, or ``draw`` gives values that are not finite.
        ShapeError: ``draw`` gives another shape.
    """
    check_generator_seed(seed, "seed")
    if not callable(draw):
        raise refused("draw", "a function of a generator and a shape", draw, "leave it out for angles from 0 to 2 pi")
    rows = np.asarray(draw(np.random.default_rng(seed), (samples, columns)), dtype=np.float64)
    if rows.shape != (samples, columns):
        raise ShapeError(f"draw gave values of shape {rows.shape}; expected {(samples, columns)}")
    if not np.isfinite(rows).all():
        raise ParameterError("draw gave values that are NaN or infinite; angles are finite numbers in radians")
    return rows


def checked_samples(samples: Any, least: int = 2) -> int:
    """The number of random parameter values.

    Raises:
        ParameterError: it is not an integer of at least ``least``.
    """
    return checked_int(samples, "samples", "give the random parameter values to average over", least=least)


def in_chunks(rows: np.ndarray, bytes_per_row: float, what: str) -> Iterator[np.ndarray]:
    """Chunks of the rows whose results fit in memory.

    Raises:
        OutOfMemory: the results of a single row do not fit.
    """
    room = _SHARE * _machine.free_memory()
    if bytes_per_row > room:
        raise OutOfMemory(
            f"{what} needs {bytes_per_row / 2**30:.3g} GiB, and {room / 2**30:.3g} GiB may be used; use fewer qubits"
        )
    size = int(max(min(room / bytes_per_row, 4096), 1))
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
