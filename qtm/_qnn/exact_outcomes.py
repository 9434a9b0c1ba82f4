"""Probabilities of measured outcomes, summed over the outcomes that map to the same output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qtm._arguments import is_whole, shown
from qtm._engines.options import Options
from qtm._engines.outputs import Probabilities
from qtm._engines.simulation import Simulation
from qtm._errors import ParameterError, ShapeError
from qtm._gradients.adjoint import EngineMethod
from qtm._gradients.fused import FusedMethod, Residuals
from qtm._qnn.errors import network_error

Interpret = Callable[[int], Any]

# Probabilities below this are rounding errors.
_ROUNDING = 1e-6


class Outputs:
    """The output of each outcome: ``interpret`` gives an index into an array of ``shape``."""

    def __init__(self, interpret: Interpret, shape: tuple[int, ...]) -> None:
        self.interpret, self.shape, self.size = interpret, shape, prod(shape)
        self._index = np.arange(self.size).reshape(shape)

    def of(self, outcomes: Iterable[int]) -> np.ndarray:
        """Flat indices (outcomes,) of outputs; ``size`` marks outcomes outside of the shape."""
        return np.array([self._of(outcome) for outcome in outcomes], np.int64)

    def _of(self, outcome: int) -> int:
        key = self._interpreted(outcome)
        place = key if isinstance(key, tuple) else (key,)
        if len(place) != len(self.shape):
            raise ShapeError(
                f"interpret({outcome}) is {key!r}; an output of shape {self.shape} needs {len(self.shape)} indices"
            )
        inside = all(0 <= k < length for k, length in zip(place, self.shape, strict=True))
        return int(self._index[place]) if inside else self.size

    def _interpreted(self, outcome: int) -> Any:
        """The value of ``interpret`` for an outcome: an integer or a tuple of integers."""
        try:
            key = self.interpret(outcome)
        except Exception as error:  # a user's function, which may raise anything
            raise network_error(
                ParameterError, f"interpret({outcome}) failed ({type(error).__name__}: {error}); correct the function"
            ) from error
        if is_whole(key) or isinstance(key, bool):
            return int(key)
        places = tuple(key) if isinstance(key, Iterable) and not isinstance(key, str) else ()
        if places and all(isinstance(k, bool) or is_whole(k) for k in places):
            return tuple(int(k) for k in places)
        raise network_error(
            ParameterError,
            f"interpret({outcome}) must be an integer or a tuple of integers, not {shown(key)}; return the index of "
            "the output that the outcome belongs to",
        )

    def check(self, outside: np.ndarray, outcomes: Sequence[int]) -> None:
        """Raise an error for nonzero probabilities (...) of outcomes outside of the shape.

        Raises:
            ShapeError: one of them is above rounding.
        """
        if outside.size and outside.max() > _ROUNDING:
            wrong = next(o for o in outcomes if self._of(o) == self.size)
            raise ShapeError(
                f"outcome {wrong} is interpreted as {self.interpret(wrong)!r}, which is outside of the "
                f"output_shape {self.shape}; change interpret or output_shape"
            )


class ExactProbabilities(EngineMethod):
    """Exact outputs (batch, outputs) of a measured circuit, and their derivative in one sweep.

    Args:
        circuit: the circuit; its measurements are ignored.
        parameters: all of its parameters, in the order of the values.
        bits: for each bit of an outcome, from the lowest, the qubit it is read from; None for a bit that is always 0.
        outputs: the outputs of outcomes.
        options: method, dtype and workers.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        bits: Sequence[int | None],
        outputs: Outputs,
        options: Options,
    ) -> None:
        qubits = tuple(sorted({qubit for qubit in bits if qubit is not None}))
        super().__init__(Simulation(circuit, parameters, Probabilities(qubits), options), outputs.size)
        measured = np.arange(1 << len(qubits))
        shown = np.zeros_like(measured)
        for place, qubit in enumerate(bits):
            if qubit is not None:
                shown |= (measured >> qubits.index(qubit) & 1) << place
        self.outputs, self.outcomes = outputs, shown.tolist()
        self._target = torch.from_numpy(outputs.of(self.outcomes))  # (outcomes,)
        self._is_identity = self._target.tolist() == list(range(outputs.size))
        self._has_outside = bool((self._target == outputs.size).any())
        if options.device == "cpu" and FusedMethod.of(self.simulation) is not None:
            self.fused = _FusedOutputs(self.simulation, self)

    def summed(self, probabilities: Tensor) -> Tensor:
        """Outputs (batch, outputs) from probabilities (batch, outcomes).

        Raises:
            ShapeError: an outcome outside of the shape has a probability.
        """
        if self._is_identity:
            return probabilities
        size = self.outputs.size
        target = self._target_on(probabilities.device)
        sums = probabilities.new_zeros(len(probabilities), size + 1).index_add_(1, target, probabilities)
        if self._has_outside:
            self.outputs.check(sums[:, -1].cpu().numpy(), self.outcomes)
        return sums[:, :-1].contiguous()

    def spread(self, cotangent: Tensor) -> Tensor:
        """The cotangent (batch, outcomes) of probabilities from the cotangent (batch, outputs) of outputs."""
        if self._is_identity:
            return cotangent
        return torch.nn.functional.pad(cotangent, (0, 1)).index_select(1, self._target_on(cotangent.device))

    def _target_on(self, device: torch.device) -> Tensor:
        if self._target.device != device:
            self._target = self._target.to(device)
        return self._target

    def forward(self, angles: Tensor, prepared: Sequence[Tensor], keep: bool) -> tuple[Tensor, Any]:
        found, residuals = super().forward(angles, prepared, keep)
        return self.summed(found), residuals

    def vjp(
        self, angles: Tensor, prepared: Sequence[Tensor], cotangent: Tensor, residuals: Any, by_prepared: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return super().vjp(angles, prepared, self.spread(cotangent), residuals, by_prepared)

    def jvp(
        self, angles: Tensor, prepared: Sequence[Tensor], tangent: Tensor, prepared_tangents: Sequence[Tensor]
    ) -> Tensor:
        return self.summed(super().jvp(angles, prepared, tangent, prepared_tangents))

    def second(
        self,
        angles: Tensor,
        prepared: Sequence[Tensor],
        cotangent: Tensor,
        tangent: Tensor,
        prepared_tangents: Sequence[Tensor],
        by_prepared: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return super().second(angles, prepared, self.spread(cotangent), tangent, prepared_tangents, by_prepared)


class _FusedOutputs(FusedMethod):
    """The same from inputs and weights in compiled code."""

    def __init__(self, simulation: Simulation, method: ExactProbabilities) -> None:
        super().__init__(simulation)
        self._method = method

    def forward(
        self, inputs: Tensor | None, sets: Sequence[Tensor], batch: int, keep: bool
    ) -> tuple[Tensor, Residuals]:
        found, residuals = super().forward(inputs, sets, batch, keep)
        return self._method.summed(found), residuals

    def by_angles(self, residuals: Residuals, cotangent: Tensor) -> np.ndarray:
        return super().by_angles(residuals, self._method.spread(cotangent))
