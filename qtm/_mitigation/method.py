"""The protocol of mitigation methods: the circuits to run, and how their values combine.

A method is a generator: it yields the PUBs to run (construct), is sent their results, and returns the
mitigated values (combine). A method that needs a second round yields again.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import PubResult
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qtm._errors import ParameterError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mitigated:
    """Mitigated values of one PUB.

    Attributes:
        evs: mitigated values, in the shape of the PUB.
        stds: their standard errors, in the same shape.
        raw: values without mitigation, in the same shape.
        metadata: diagnostics for the metadata of the result.
    """

    evs: Floats
    stds: Floats
    raw: Floats
    metadata: dict[str, Any] = field(default_factory=dict)


Steps = Generator[list[EstimatorPub], list[PubResult], Mitigated]


class MitigationMethod(Protocol):
    """A mitigation method: a frozen dataclass whose fields are its options. Derive from `Memoryless` or `Drawing`."""

    def steps(self, pub: EstimatorPub) -> Steps:
        """Yield PUBs, receive their results, return the mitigated values of ``pub``."""
        ...

    def assume_run(self, pub: EstimatorPub) -> None:
        """In a forecast: change the state as a run of ``pub`` would, without results and without drift."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State besides the options that determines the next PUBs: numbers, strings, lists and dicts of them."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        ...

    def forget(self) -> None:
        """Discard measurements of the device, so that they are repeated."""
        ...


class Memoryless:
    """Base class of methods whose PUBs do not depend on earlier ones: no state to save."""

    def assume_run(self, pub: EstimatorPub) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do."""

    def forget(self) -> None:
        """Nothing to do."""


class Draws:
    """Random generators of a method, one per PUB; a run that starts from a saved state repeats them."""

    def __init__(self, seed: int | None) -> None:
        self.seed = secrets.randbits(63) if seed is None else seed
        self.count = 0

    def next(self) -> np.random.Generator:
        """The generator of the next PUB; the first is NumPy's default generator for the seed."""
        self.count += 1
        return np.random.default_rng(self.seed if self.count == 1 else [self.seed, self.count])


class Drawing:
    """Base class of methods whose only state is a random generator; they have a field ``seed``."""

    seed: int | None
    _draws: Draws

    def _start(self) -> None:
        """Create the generators; call it from ``__post_init__``."""
        object.__setattr__(self, "_draws", Draws(self.seed))

    def assume_run(self, pub: EstimatorPub) -> None:
        """Nothing to do: `steps` has drawn."""

    def state_dict(self) -> dict[str, Any]:
        """The seed, and the number of PUBs that have drawn."""
        return {"seed": self._draws.seed, "draws": self._draws.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        self._draws.seed, self._draws.count = state_dict["seed"], state_dict["draws"]

    def forget(self) -> None:
        """Nothing to do: no map is kept."""


def values(result: PubResult) -> tuple[Floats, Floats]:
    """Expectation values and standard errors (zeros where the estimator gives none) of a result."""
    evs = np.asarray(result.data.evs, dtype=float)
    stds = np.asarray(getattr(result.data, "stds", np.zeros_like(evs)), dtype=float)
    return evs, np.broadcast_to(stds, evs.shape)


def stacked(results: Iterable[PubResult]) -> tuple[Floats, Floats]:
    """Values and standard errors of results, stacked along a new first axis."""
    pairs = [values(result) for result in results]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def with_circuit(pub: EstimatorPub, circuit: QuantumCircuit) -> EstimatorPub:
    """The PUB with another circuit that has the same parameters."""
    return EstimatorPub(circuit, pub.observables, pub.parameter_values, pub.precision, validate=False)


def with_angles(
    circuit: QuantumCircuit, observables: ObservablesArray, angles: Floats, precision: float | None
) -> EstimatorPub:
    """The PUB of a circuit whose parameters are its angles (*shape, angles), in sorted order."""
    bindings = BindingsArray({tuple(circuit.parameters): angles}, shape=angles.shape[:-1])
    return EstimatorPub(circuit, observables, bindings, precision, validate=False)


def padded_values(pub: EstimatorPub) -> Floats:
    """Parameter values (*shape, parameters) with as many leading axes as the PUB's result has."""
    array = np.asarray(pub.parameter_values.as_array(pub.circuit.parameters), dtype=float)
    missing = len(pub.shape) - (array.ndim - 1)
    return array.reshape((1,) * missing + array.shape)


def linear_combination(weights: Floats, evs: Floats, stds: Floats) -> tuple[Floats, Floats]:
    """Weighted sums over the first axis of values and of their independent standard errors."""
    errors = np.sqrt(np.einsum("i,i...->...", weights**2, stds**2))
    return np.einsum("i,i...->...", weights, evs), errors


def check_scales(scales: Sequence[float]) -> None:
    """Reject noise scales that do not start at 1 and rise."""
    steps = list(scales)
    if len(steps) < 2 or steps[0] != 1 or any(b <= a for a, b in pairwise(steps)):
        raise ParameterError(f"scale_factors must start at 1 and rise, e.g. (1, 3, 5); got {steps}")
