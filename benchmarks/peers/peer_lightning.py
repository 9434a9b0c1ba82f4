"""PennyLane lightning.qubit: adjoint differentiation in C++, one process a core; or lightning.gpu, one in all."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _pennylane import observable, operation
from _protocol import Runner, Sharded, Task, serve


class LightningRunner(Runner):
    """Tapes through the device's own vector-Jacobian product, without the layers of a QNode."""

    def __init__(self, task: Task, device: str) -> None:
        import pennylane as qml

        self._task = task
        self._device = qml.device(device, wires=task.num_qubits, c_dtype=task.complex)
        self._config = qml.devices.ExecutionConfig(
            gradient_method="adjoint", use_device_gradient=True, use_device_jacobian_product=True
        )
        self._operations = [operation(qml, gate) for gate in task.gates]
        self._measurements = [qml.expval(observable(qml, terms)) for terms in task.observables]
        self._tape = qml.tape.QuantumScript

    def _tapes(self) -> list[Any]:
        tapes = []
        for angles in self._task.angles():
            operations = [make() if angle is None else make(angles[angle]) for make, angle in self._operations]
            tapes.append(self._tape(operations, self._measurements, trainable_params=range(len(angles))))
        return tapes

    def forward(self) -> np.ndarray:
        results = self._device.execute(self._tapes(), self._config)
        return np.reshape(results, (self._task.samples, -1))

    def combined(self) -> tuple[np.ndarray, np.ndarray]:
        cotangents = [tuple(row) if len(row) > 1 else row[0] for row in self._task.cotangent]
        results, products = self._device.execute_and_compute_vjp(self._tapes(), cotangents, self._config)
        by_angles = np.reshape(products, (self._task.samples, -1))
        return np.reshape(results, (self._task.samples, -1)), self._task.weight_gradient(by_angles)


def _build_part(task: Task, options: argparse.Namespace) -> Runner:
    return LightningRunner(task, options.device)


def build(task: Task, options: argparse.Namespace) -> Runner:
    # One sample has nothing to deal out: there the library's own threads do the work.
    alone = task.samples == 1 or options.device == "lightning.gpu"
    return LightningRunner(task, options.device) if alone else Sharded(_build_part, task, options)


if __name__ == "__main__":
    packages = ("pennylane-lightning", "pennylane-lightning-gpu", "pennylane", "numpy")
    devices = {"choices": ["lightning.qubit", "lightning.gpu"], "default": "lightning.qubit"}
    serve("pennylane-lightning", packages, build, {"--device": devices})
