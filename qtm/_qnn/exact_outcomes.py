"""Probabilities of measured outcomes, added up where an interpretation maps outcomes to the same output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qtm._circuit.expressions import check_angles
from qtm._engines.options import Options
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError, ShapeError
from qtm._gradients.method import GradientMethod
from qtm._primitives.job_usage import Usage

Interpret = Callable[[int], Any]

# A probability below this is rounding.
_ROUNDING = 1e-6


class Outputs:
    """The output that each outcome counts for: ``interpret`` read as an index into an array of ``shape``."""

    def __init__(self, interpret: Interpret, shape: tuple[int, ...]) -> None:
        self.interpret, self.shape, self.size = interpret, shape, prod(shape)
        self._index = np.arange(self.size).reshape(shape)

    def of(self, outcomes: Iterable[int]) -> np.ndarray:
        """Flat numbers (outcomes,) of outputs; ``size`` stands for outcomes outside of the shape."""
        return np.array([self._of(outcome) for outcome in outcomes], np.int64)

    def _of(self, outcome: int) -> int:
        key = self.interpret(outcome)
        place = (int(key),) if isinstance(key, Integral) else tuple(int(k) for k in key)
        if len(place) != len(self.shape):
            raise ShapeError(
                f"interpret({outcome}) is {key!r}; an output of shape {self.shape} needs {len(self.shape)} indices"
            )
        try:
            return int(self._index[place])
        except IndexError:
            return self.size

    def check(self, outside: np.ndarray, outcomes: Sequence[int]) -> None:
        """Refuse probabilities (...) of outcomes that are outside of the shape.

        Raises:
            ShapeError: one of them is above rounding.
        """
        if outside.size and outside.max() > _ROUNDING:
            wrong = next(o for o in outcomes if self._of(o) == self.size)
            raise ShapeError(
                f"outcome {wrong} is interpreted as {self.interpret(wrong)!r}, which is outside of the "
                f"output_shape {self.shape}; change interpret or output_shape"
            )


class ExactProbabilities:
    """Exact outputs (batch, outputs) of a measured circuit, and their derivative in one sweep: a `GradientMethod`.

    Args:
        circuit: the circuit; its measurements are ignored.
        parameters: all of its parameters, in the order of the values.
        bits: for each bit of an outcome, from the lowest, the qubit that it reads; None is always 0.
        outputs: what outcomes count for.
        dtype: "complex64" or "complex128".
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        bits: Sequence[int | None],
        outputs: Outputs,
        dtype: str,
    ) -> None:
        self.simulation = Simulation(circuit, parameters, None, Options(dtype))
        full = self.simulation.outcomes()  # (amplitudes,)
        shown = np.zeros_like(full)
        for place, qubit in enumerate(bits):
            if qubit is not None:
                shown |= (full >> qubit & 1) << place
        distinct, inverse = np.unique(shown, return_inverse=True)
        self.outputs, self.outcomes = outputs, distinct.tolist()
        self.target = outputs.of(self.outcomes)[inverse]  # (amplitudes,)
        self.order = np.argsort(self.target, kind="stable")
        self.used, self.starts = np.unique(self.target[self.order], return_index=True)

    def differentiating(self, by: tuple[bool, ...]) -> GradientMethod:
        return self

    @property
    def usage(self) -> Usage:
        return Usage()

    def preview(self, batch: int) -> Usage:
        return Usage()

    def angles(self, inputs: Tensor | None, weights: Tensor, batch: int) -> Tensor:
        return self.simulation.angles.torch(inputs, weights, batch)

    def initial(self, inputs: Tensor | None, weights: Tensor) -> Tensor | None:
        return None if self.simulation.initial is None else self.simulation.initial.torch(inputs, weights)

    def values(self, angles: np.ndarray, initial: np.ndarray | None, keep: bool) -> tuple[np.ndarray, Any]:
        check_angles(angles, self.simulation.program.angles)
        found = self.simulation.engine.weights(angles, initial)  # (batch, amplitudes)
        if not np.isfinite(found).all():
            raise ParameterError("an amplitude of the initial state is not finite: inputs must be finite, not all zero")
        sums = np.zeros((len(angles), self.outputs.size + 1), found.dtype)
        sums[:, self.used] = np.add.reduceat(found.take(self.order, axis=1), self.starts, axis=1)
        self.outputs.check(sums[:, -1], self.outcomes)
        return np.ascontiguousarray(sums[:, :-1]), None

    def vjp(
        self, angles: np.ndarray, cotangent: np.ndarray, initial: np.ndarray | None, memo: Any, by_initial: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        padded = np.pad(cotangent, ((0, 0), (0, 1)))
        diagonal = np.ascontiguousarray(padded.take(self.target, axis=1))  # (batch, amplitudes)
        return self.simulation.engine.weights_vjp(angles, diagonal, initial, initial_gradient=by_initial)
