"""pyqtorch: the batch as one tensor, differentiated by torch, whose sweep serves all observables at once."""

from __future__ import annotations

import argparse

from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    import pyqtorch
    import torch
    from _torch import TorchRunner, torch_angles

    kind = {"double": torch.complex128, "single": torch.complex64}[task.dtype]
    operations = {"h": pyqtorch.H, "cx": pyqtorch.CNOT, "cz": pyqtorch.CZ}
    rotations = {"rx": pyqtorch.RX, "ry": pyqtorch.RY, "rz": pyqtorch.RZ}
    circuit = pyqtorch.QuantumCircuit(task.num_qubits, [
        operations[gate.name](*gate.qubits)
        if gate.angle is None else rotations[gate.name](*gate.qubits, f"a{gate.angle}")
        for gate in task.gates
    ]).to(kind)  # fmt: skip
    angles_of = torch_angles(task)
    diagonals = torch.tensor(task.diagonals(first_qubit_is_lowest_bit=False))
    start = circuit.init_state(batch_size=task.samples).to(kind)

    def values(weights: torch.Tensor) -> torch.Tensor:
        columns = angles_of(weights).unbind(1)
        state = circuit.run(start, {f"a{place}": column for place, column in enumerate(columns)})
        amplitudes = state.reshape(-1, task.samples)  # the batch is the last dimension
        return (amplitudes.real**2 + amplitudes.imag**2).T @ diagonals

    return TorchRunner(task, values)


if __name__ == "__main__":
    serve("pyqtorch", ("pyqtorch", "torch", "numpy"), build)
