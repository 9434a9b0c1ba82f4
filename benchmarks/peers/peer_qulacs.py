"""Qulacs: one process a core, one adjoint sweep a sample through `backprop_inner_product`."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _protocol import Runner, Sharded, Task, serve

STANDARD = {"h": "H", "cx": "CNOT", "cz": "CZ"}
ROTATIONS = {"rx": "parametric_RX", "ry": "parametric_RY", "rz": "parametric_RZ"}


class QulacsRunner(Runner):
    """Samples one after the other; observables are diagonal, so values are sums over |psi|^2."""

    def __init__(self, task: Task) -> None:
        import qulacs

        if task.dtype != "double":
            raise ValueError("qulacs computes in double precision only")
        self._task = task
        self._circuit = _circuit(task)
        self._state = qulacs.QuantumState(task.num_qubits)
        self._bra = qulacs.QuantumState(task.num_qubits)
        self._diagonals = task.diagonals(first_qubit_is_lowest_bit=True)

    def forward(self) -> np.ndarray:
        return np.stack([self._sample(angles)[1] for angles in self._task.angles()])

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        values, by_angles = [], []
        for angles, cotangent in zip(self._task.angles(), self._task.cotangent, strict=True):
            amplitudes, value = self._sample(angles)
            values.append(value)
            self._bra.load(amplitudes * (self._diagonals @ cotangent))
            gradient = self._circuit.backprop_inner_product(self._bra)
            # Rotations have the opposite sign; the value's derivative is twice that of the inner product.
            by_angles.append(-2.0 * np.asarray(gradient))
        return np.stack(values), self._task.weight_gradient(np.stack(by_angles))

    def _sample(self, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Amplitudes, (2^n,), and values, (M,), at the angles of one sample."""
        for place, angle in enumerate(angles):
            self._circuit.set_parameter(place, -angle)
        self._state.set_zero_state()
        self._circuit.update_quantum_state(self._state)
        amplitudes = self._state.get_vector()
        probabilities = amplitudes.real**2 + amplitudes.imag**2
        return amplitudes, probabilities @ self._diagonals


def _circuit(task: Task) -> Any:
    import qulacs

    circuit = qulacs.ParametricQuantumCircuit(task.num_qubits)
    for gate in task.gates:
        add = getattr(circuit, f"add_{(STANDARD | ROTATIONS)[gate.name]}_gate")
        add(*gate.qubits) if gate.angle is None else add(*gate.qubits, 0.0)
    return circuit


def build(task: Task, options: argparse.Namespace) -> Runner:
    # One sample has nothing to deal out: there the library's own threads do the work.
    if task.samples == 1:
        return QulacsRunner(task)
    return Sharded(_build_part, task, options)


def _build_part(task: Task, options: argparse.Namespace) -> Runner:
    return QulacsRunner(task)


if __name__ == "__main__":
    serve("qulacs", ("qulacs", "numpy"), build)
