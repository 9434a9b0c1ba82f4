"""DeepQuantum: a QubitCircuit over a batch of encoded angles, differentiated by torch."""

from __future__ import annotations

import argparse

from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    import deepquantum
    import torch
    from _torch import TorchRunner, torch_angles

    circuit = deepquantum.QubitCircuit(task.num_qubits)
    for gate in task.gates:
        if gate.angle is None:
            getattr(circuit, {"h": "h", "cx": "cnot", "cz": "cz"}[gate.name])(*gate.qubits)
        else:
            getattr(circuit, gate.name)(*gate.qubits, encode=True)
    circuit.to(torch.float64 if task.dtype == "double" else torch.float32)
    angles_of = torch_angles(task)
    diagonals = torch.tensor(task.diagonals(first_qubit_is_lowest_bit=False))

    def values(weights: torch.Tensor) -> torch.Tensor:
        state = circuit(data=angles_of(weights)).reshape(task.samples, -1)
        return (state.real**2 + state.imag**2) @ diagonals

    return TorchRunner(task, values)


if __name__ == "__main__":
    serve("deepquantum", ("deepquantum", "torch", "numpy"), build)
