"""TorchQuantum: batched state in torch, single precision only."""

from __future__ import annotations

import argparse

from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    if task.dtype != "single":
        raise ValueError("torchquantum computes in single precision only")
    import torch
    import torchquantum
    from _torch import TorchRunner, torch_angles

    functions = torchquantum.functional
    apply = {
        "h": functions.hadamard,
        "cx": functions.cnot,
        "cz": functions.cz,
        "rx": functions.rx,
        "ry": functions.ry,
        "rz": functions.rz,
    }
    angles_of = torch_angles(task, options.device)
    diagonals = torch.tensor(task.diagonals(first_qubit_is_lowest_bit=False), device=options.device)

    def values(weights: torch.Tensor) -> torch.Tensor:
        angles = angles_of(weights)
        device = torchquantum.QuantumDevice(task.num_qubits, bsz=task.samples, device=options.device)
        for gate in task.gates:
            params = None if gate.angle is None else angles[:, gate.angle : gate.angle + 1]
            apply[gate.name](device, wires=list(gate.qubits), params=params)
        probabilities = device.get_states_1d().abs() ** 2
        return probabilities @ diagonals

    return TorchRunner(task, values, options.device)


if __name__ == "__main__":
    devices = {"choices": ["cpu", "cuda"], "default": "cpu"}
    serve("torchquantum", ("torchquantum", "torch", "numpy"), build, {"--device": devices})
