"""Scaluq: states of the whole batch at once forward; one adjoint sweep a sample for the gradient, one process a core.

Its back-propagation takes one state, so batched states serve values alone.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
from _protocol import Runner, Sharded, Task, serve

# Where Kokkos sets its threads itself; of a process of `Sharded` there is one.
os.environ.setdefault("OMP_PROC_BIND", "false")


class ScaluqRunner(Runner):
    """Samples in turn; in the space of one thread where the samples are shared out to processes."""

    def __init__(self, task: Task, serial: bool) -> None:
        import scaluq

        precision = {"double": "f64", "single": "f32"}[task.dtype]
        self._library = getattr(scaluq.default, precision)  # circuits and Pauli words
        self._space = getattr(scaluq.host_serial if serial else scaluq.default, precision)  # states and operators
        self._task = task
        self._circuit, self._keys = _circuit(self._library, task)
        self._observables = [self._operator([(1.0, o)]) for o in range(len(task.observables))]
        self._all = self._space.OperatorBatched(self._observables)
        self._state = self._space.StateVector(task.num_qubits)
        self._states = self._space.StateVectorBatched(task.samples, task.num_qubits)

    def forward(self) -> np.ndarray:
        angles = self._task.angles()
        self._states.set_zero_state()
        columns = {key: angles[:, place].tolist() for place, key in enumerate(self._keys)}
        self._circuit.update_quantum_state(self._states, columns)
        return np.stack([o.get_expectation_value(self._states) for o in self._observables], axis=1).real

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, by_angles = [], []
        for angles, cotangent in zip(self._task.angles().tolist(), self._task.cotangent.tolist(), strict=True):
            parameters = dict(zip(self._keys, angles, strict=True))
            self._state.set_zero_state()
            self._circuit.update_quantum_state(self._state, parameters)
            values.append(self._all.get_expectation_value(self._state))
            adjoint = self._state.copy()
            self._operator([(weight, o) for o, weight in enumerate(cotangent)]).apply_to_state(adjoint)
            gradient = self._circuit.compute_expectation_gradient_backprop(self._state, adjoint, parameters)
            by_angles.append([gradient[key] for key in self._keys])
        return np.real(values), self._task.weight_gradient(np.array(by_angles))

    def _operator(self, parts: list[tuple[float, int]]) -> Any:
        """Sum of a factor times an observable."""
        make = self._library.PauliOperator
        return self._space.Operator([
            make(" ".join(f"{pauli} {qubit}" for pauli, qubit in word), factor * coefficient)
            for factor, o in parts
            for coefficient, word in self._task.observables[o]
        ])  # fmt: skip


def _circuit(library: Any, task: Task) -> tuple[Any, list[str]]:
    """The circuit and the keys of its angles in order."""
    circuit, keys = library.Circuit(), []
    for gate in task.gates:
        if gate.angle is None:
            circuit.add_gate(getattr(library.gate, gate.name.upper())(*gate.qubits))
        else:
            keys.append(f"a{gate.angle}")
            circuit.add_param_gate(getattr(library.gate, f"Param{gate.name.upper()}")(*gate.qubits), keys[-1])
    return circuit, keys


def build(task: Task, options: argparse.Namespace) -> Runner:
    # One sample has nothing to deal out: there the library's own threads do the work.
    return ScaluqRunner(task, False) if task.samples == 1 else Sharded(_build_part, task, options)


def _build_part(task: Task, options: argparse.Namespace) -> Runner:
    return ScaluqRunner(task, True)


if __name__ == "__main__":
    serve("scaluq", ("scaluq", "numpy"), build)
