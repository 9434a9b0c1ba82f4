"""PennyLane: states by broadcasting on default.qubit, or one by one on lightning.qubit, and one product of matrices.

`qml.kernels.square_kernel_matrix` runs a circuit for every pair; `--pairs` measures that.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _kernels import KernelRunner
from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    import pennylane as qml
    from _pennylane import operation

    operations = [operation(qml, gate) for gate in task.gates]
    angles = task.angles()  # (samples, angles)
    device = qml.device(options.device, wires=task.num_qubits)

    def prepare(values: Any) -> None:  # (angles,) or (angles, samples)
        for make, angle in operations:
            make() if angle is None else make(values[angle])

    if options.pairs:

        @qml.qnode(device)
        def overlap(left: Any, right: Any) -> Any:
            prepare(left)
            qml.adjoint(prepare)(right)
            return qml.probs(wires=range(task.num_qubits))

        return KernelRunner(lambda: qml.kernels.square_kernel_matrix(angles, lambda a, b: overlap(a, b)[0]))

    @qml.qnode(device)
    def state(values: Any) -> Any:
        prepare(values)
        return qml.state()

    def matrix() -> np.ndarray:
        broadcast = options.device == "default.qubit"
        states = np.asarray(state(angles.T) if broadcast else [state(row) for row in angles])
        return np.abs(states @ states.conj().T) ** 2

    return KernelRunner(matrix)


OPTIONS = {
    "--device": {"choices": ["default.qubit", "lightning.qubit"], "default": "default.qubit"},
    "--pairs": {"action": "store_true"},
}

if __name__ == "__main__":
    serve("pennylane", ("pennylane", "pennylane-lightning", "numpy"), build, OPTIONS)
