"""Qulacs' density matrix under noise: one process a core, gradients by parameter shift, as it has no other there."""

from __future__ import annotations

import argparse

import numpy as np
from _protocol import Runner, Sharded, Task, serve
from peer_qulacs import ROTATIONS, STANDARD


class MixedRunner(Runner):
    def __init__(self, task: Task) -> None:
        import qulacs

        if task.dtype != "double":
            raise ValueError("qulacs computes in double precision only")
        self._task = task
        self._circuit = _circuit(task)
        self._state = qulacs.DensityMatrix(task.num_qubits)
        self._diagonals = task.diagonals(first_qubit_is_lowest_bit=True)

    def forward(self) -> np.ndarray:
        return np.stack([self._values(angles) for angles in self._task.angles()])

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        by_angles = []
        for angles, cotangent in zip(self._task.angles(), self._task.cotangent, strict=True):
            row = []
            for place in range(len(angles)):
                ends = []
                for step in (np.pi / 2, -np.pi / 2):
                    moved = angles.copy()
                    moved[place] += step
                    ends.append(cotangent @ self._values(moved))
                row.append((ends[0] - ends[1]) / 2)
            by_angles.append(row)
        return self.forward(), self._task.weight_gradient(np.array(by_angles))

    def _values(self, angles: np.ndarray) -> np.ndarray:
        for place, angle in enumerate(angles):
            self._circuit.set_parameter(place, -angle)
        self._state.set_zero_state()
        self._circuit.update_quantum_state(self._state)
        return np.diagonal(self._state.get_matrix()).real @ self._diagonals


def _circuit(task: Task):
    import qulacs

    circuit = qulacs.ParametricQuantumCircuit(task.num_qubits)
    for gate in task.gates:
        name = (STANDARD if gate.angle is None else ROTATIONS)[gate.name]
        add = getattr(circuit, f"add_{name}_gate")
        add(*gate.qubits) if gate.angle is None else add(*gate.qubits, 0.0)
        for qubit in gate.qubits if task.pauli else ():
            circuit.add_gate(qulacs.gate.CPTP(_kraus(qubit, task.pauli)))
    return circuit


def _kraus(qubit: int, chance: float) -> list:
    import qulacs

    paulis = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
    weights = [np.sqrt(1 - 3 * chance), *[np.sqrt(chance)] * 3]
    return [qulacs.gate.DenseMatrix(qubit, w * p) for w, p in zip(weights, paulis, strict=True)]


def build(task: Task, options: argparse.Namespace) -> Runner:
    return MixedRunner(task) if task.samples == 1 else Sharded(_build_part, task, options)


def _build_part(task: Task, options: argparse.Namespace) -> Runner:
    return MixedRunner(task)


if __name__ == "__main__":
    serve("qulacs-densitymatrix", ("qulacs", "numpy"), build)
