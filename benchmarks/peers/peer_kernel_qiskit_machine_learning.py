"""qiskit-machine-learning: FidelityStatevectorKernel, its fastest exact kernel."""

from __future__ import annotations

import argparse

from _kernels import KernelRunner
from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    from _qiskit import qiskit_circuit
    from qiskit_machine_learning.kernels import FidelityStatevectorKernel

    circuit, inputs, weights = qiskit_circuit(task)
    bound = circuit.assign_parameters(dict(zip(weights, task.weights, strict=True)))
    assert list(bound.parameters) == list(inputs)
    kernel = FidelityStatevectorKernel(feature_map=bound)
    return KernelRunner(lambda: kernel.evaluate(task.inputs))


if __name__ == "__main__":
    serve("qiskit-machine-learning", ("qiskit-machine-learning", "qiskit", "numpy"), build)
