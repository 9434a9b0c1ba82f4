"""A circuit with its observables, ready to run on parameter values: what the layers above compute with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qtm._circuit.expressions import check_angles, compile_angles
from qtm._circuit.gf2 import combinations
from qtm._circuit.observables import Observable
from qtm._circuit.pauli_program import lower
from qtm._engines.options import Options
from qtm._engines.statevector.engine import Engine
from qtm._engines.statevector.initial_rows import InitialState
from qtm._errors import CircuitError, ParameterError


class Simulation:
    """Exact expectation values of a circuit, or its probabilities where ``observables`` is None.

    Args:
        circuit: any circuit that `qtm` can lower.
        parameters: all parameters of the circuit, in the order of the values.
        observables: what to measure, on the qubits of the circuit.
        options: dtype, workers and memory.

    Raises:
        CircuitError: the circuit cannot be simulated.
        ParameterError: a parameter of the circuit is missing from ``parameters``, or listed twice.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        observables: Sequence[Observable] | None,
        options: Options | None = None,
    ) -> None:
        self.parameters = tuple(parameters)
        self.program = lower(circuit)
        if self.program.num_qubits > 62:
            raise CircuitError(f"{self.program.num_qubits} qubits are more than any memory holds; use at most 30 or so")
        self.angles = compile_angles(self.program.angles, self.parameters)
        measured = None if observables is None else tuple(observables)
        self.engine = Engine(self.program, measured, options or Options())
        initial = self.program.initial
        self.initial = InitialState(initial, self.parameters, self.engine.basis) if initial else None

    def with_options(self, options: Options) -> Simulation:
        """The same simulation, run with other options."""
        other = object.__new__(Simulation)
        other.__dict__.update(self.__dict__, engine=Engine(self.program, self.engine.observables, options))
        return other

    def initial_rows(self, values: np.ndarray) -> np.ndarray | None:
        """The initial state for parameter values (batch, parameters), in the dtype of the engine."""
        return None if self.initial is None else self.initial.numpy(values).astype(self.engine.real, copy=False)

    def values(self, values: np.ndarray) -> np.ndarray:
        """Expectation values (batch, observables) at parameter values (batch, parameters), in radians.

        Raises:
            ParameterError: a result is not finite, because a value was NaN or infinite.
        """
        results, _ = self.engine.values(self.numpy_angles(values), self.initial_rows(values))
        check_finite(results, values, self.parameters)
        return results

    def numpy_angles(self, values: np.ndarray) -> np.ndarray:
        """Gate angles (batch, angles) at parameter values (batch, parameters).

        Raises:
            ParameterError: a value or an angle is not finite, or an angle is too large.
        """
        check_finite(values, values, self.parameters)  # also those that no angle holds
        angles = np.broadcast_to(self.angles.numpy(values), (len(values), self.angles.num_angles))
        check_angles(angles, self.program.angles)
        return np.ascontiguousarray(angles)

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """Probabilities (batch, 2**qubits) of all outcomes, bit q of an outcome being qubit q."""
        angles = self.numpy_angles(values)
        rows = self.engine.weights(angles, self.initial_rows(values))  # (batch, rows)
        check_finite(rows, values, self.parameters)
        out = np.zeros((len(values), 1 << self.program.num_qubits), rows.dtype)
        out[:, self.outcomes()] = rows
        return out

    def outcomes(self) -> np.ndarray:
        """The measured outcome that every row of the kernels stands for."""
        index = combinations(self.engine.basis)
        total = np.zeros_like(index)
        for qubit, (k, _, mask) in enumerate(self.program.frame.z):
            total |= ((np.bitwise_count(index & mask).astype(np.int64) + k // 2) & 1) << qubit
        return total


def check_finite(results: np.ndarray, values: np.ndarray, parameters: Sequence[Parameter]) -> None:
    """Raise if a result is NaN or infinite, naming the parameter value that made it so."""
    if np.isfinite(results).all():
        return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        sample, position = bad[0]
        raise ParameterError(
            f"parameter {parameters[position].name!r} is {values[sample, position]} in sample {sample}; "
            "all parameter values must be finite"
        )
    raise ParameterError("an angle of the circuit is not finite for these parameter values (a logarithm or division?)")
