"""PennyLane default.qubit: backpropagation through torch, the batch broadcast."""

from __future__ import annotations

import argparse

from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    import pennylane as qml
    import torch
    from _pennylane import observable, operation
    from _torch import TorchRunner, torch_angles

    operations = [operation(qml, gate) for gate in task.gates]
    observables = [observable(qml, terms) for terms in task.observables]
    angles_of = torch_angles(task)

    @qml.qnode(qml.device("default.qubit", wires=task.num_qubits), interface="torch", diff_method="backprop")
    def circuit(angles: torch.Tensor):  # (angles, samples)
        for make, angle in operations:
            make() if angle is None else make(angles[angle])
        return [qml.expval(each) for each in observables]

    def values(weights: torch.Tensor) -> torch.Tensor:
        return torch.stack(circuit(angles_of(weights).T)).T.to(weights.dtype)

    return TorchRunner(task, values)


if __name__ == "__main__":
    serve("pennylane-default.qubit", ("pennylane", "torch", "numpy"), build)
