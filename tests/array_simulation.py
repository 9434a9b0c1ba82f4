"""The state-vector engine below its door: a simulation with one cone, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qtm._circuit.observables import Observable
from qtm._engines.options import Options
from qtm._engines.outputs import Expectation, Probabilities
from qtm._engines.simulation import Simulation
from qtm._engines.statevector.cone_engine import ConeEngine


class ArrayEngine(ConeEngine):
    """A cone engine with the full Jacobian, from one reverse sweep per observable."""

    def jacobian(self, angles: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        count = self.num_outputs
        repeated = np.repeat(angles, count, axis=0)
        if initial is not None and len(initial) > 1:
            initial = np.repeat(initial, count, axis=0)
        one_hot = np.tile(np.eye(count, dtype=angles.dtype), (len(angles), 1))
        gradient, _ = self.vjp(repeated, one_hot, initial)
        return gradient.reshape(len(angles), count, angles.shape[1])


class ArraySimulation(Simulation):
    """Expectation values, or where ``observables`` is None the probabilities of all qubits."""

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        observables: Sequence[Observable] | None,
        options: Options | None = None,
    ) -> None:
        qubits = tuple(range(circuit.num_qubits))
        output = Probabilities(qubits) if observables is None else Expectation(tuple(observables))
        super().__init__(circuit, parameters, output, options)
        self.torch_engine = self.engine
        arrays = self.engine.arrays
        (self.batch,) = [arrays.batch] if observables is None else arrays.batches
        self.engine = ArrayEngine(self.batch.engine.program, self.batch.engine.options)

    def values(self, values: np.ndarray) -> np.ndarray:
        """See `Simulation.values`."""
        array_engine, self.engine = self.engine, self.torch_engine
        try:
            return super().values(values)
        finally:
            self.engine = array_engine

    def initial_rows(self, values: np.ndarray) -> np.ndarray | None:
        """The initial rows of the kernels for parameter values (batch, parameters)."""
        return self.batch.start([p.numpy(values) for p in self.preparations], len(values))
