"""Qiskit Aer: `matrix_product_state` with bonds of `--bond`, and parameter shift.

Aer has no derivative of its own: every weight costs two more energies. `--weights` of them are computed, spread over
the circuit, and their time is scaled to all; the others' derivatives are left open.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _protocol import THREADS, Runner, Task, serve


class AerRunner(Runner):
    """One sample whose weights are the angles of one rotation each."""

    def __init__(self, task: Task, options: argparse.Namespace) -> None:
        from qiskit_aer import AerSimulator

        if task.samples != 1 or len(np.unique(task.weight_of)) != len(task.weights) or not np.all(task.scale == 1):
            raise ValueError("this adapter takes one sample and weights that are the angles of one rotation each")
        self._task = task
        precision = {"double": "double", "single": "single"}[task.dtype]
        self._simulator = AerSimulator(
            method="matrix_product_state", matrix_product_state_max_bond_dimension=options.bond,
            max_parallel_threads=THREADS, precision=precision, fusion_enable=False,
        )  # fmt: skip
        self._circuit, self._angles = _circuit(task)
        count = min(options.weights, len(task.weights))
        self.measured_weights = np.unique(np.linspace(0, len(task.weights) - 1, count).astype(int)).tolist()
        self.note = f"parameter shift, timed on {len(self.measured_weights)} of {len(task.weights)} weights and scaled"

    def forward(self) -> np.ndarray:
        return self._values([self._task.weights])

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        return self._shifted()[:2]

    def scaled_seconds(self) -> float:
        """Seconds of a step with all weights, of which only some are measured."""
        return self._shifted()[2]

    def _shifted(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Value, gradient (NaN where it is not measured), and the time of all weights."""
        weights, measured = self._task.weights, self.measured_weights
        began = time.perf_counter()
        value = self._values([weights])
        middle = time.perf_counter()
        shifted = [weights + sign * np.pi / 2 * np.eye(len(weights))[k] for k in measured for sign in (1, -1)]
        values = self._values(shifted).reshape(-1, 2)
        ended = time.perf_counter()
        gradient = np.full(len(weights), np.nan)
        gradient[measured] = self._task.cotangent[0, 0] * (values[:, 0] - values[:, 1]) / 2
        return value, gradient, middle - began + (ended - middle) * len(weights) / len(measured)

    def _values(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Energies at several weights in one job, (points, 1)."""
        weight_of = self._task.weight_of
        binds = {angle: [p[weight_of[k]] for p in points] for k, angle in enumerate(self._angles)}
        result = self._simulator.run([self._circuit], parameter_binds=[binds]).result()
        if not result.success:
            raise RuntimeError(f"Aer: {result.status}")
        return np.array([[result.data(k)["energy"]] for k in range(len(points))])


def _circuit(task: Task) -> tuple[Any, list[Any]]:
    """The circuit that saves the energy at its end, and its parameters in the order of the angles."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter
    from qiskit.quantum_info import SparsePauliOp

    circuit, angles = QuantumCircuit(task.num_qubits), []
    for gate in task.gates:
        if gate.angle is None:
            getattr(circuit, gate.name)(*gate.qubits)
        else:
            angles.append(Parameter(f"a{gate.angle}"))
            getattr(circuit, gate.name)(angles[-1], *gate.qubits)
    (terms,) = task.observables
    words = [("".join(p for p, _ in word), [q for _, q in word], c) for c, word in terms]
    energy = SparsePauliOp.from_sparse_list(words, task.num_qubits)
    circuit.save_expectation_value(energy, range(task.num_qubits), label="energy")
    return circuit, angles


def build(task: Task, options: argparse.Namespace) -> Runner:
    return AerRunner(task, options)


if __name__ == "__main__":
    options = {"--bond": {"type": int, "default": 32}, "--weights": {"type": int, "default": 6}}
    serve("qiskit-aer", ("qiskit-aer", "qiskit", "numpy"), build, options)
