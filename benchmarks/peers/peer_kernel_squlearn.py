"""sQUlearn: FidelityKernel on the executor that is asked for."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _kernels import KernelRunner
from _protocol import Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    from qc_executor import QuantumCircuit
    from squlearn import Executor
    from squlearn.encoding_circuit.encoding_circuit_base import EncodingCircuitBase
    from squlearn.kernel import FidelityKernel

    weights = np.append(task.weights, 1.0)

    class Encoding(EncodingCircuitBase):
        """The circuit of the task, in sQUlearn's own kind of circuit."""

        @property
        def num_encoding_slots(self) -> int:
            return task.inputs.shape[1]

        def get_circuit(self, features: Any, parameters: Any) -> Any:
            circuit = QuantumCircuit(task.num_qubits)
            for gate in task.gates:
                if gate.angle is None:
                    getattr(circuit, gate.name)(*gate.qubits)
                    continue
                scale = float(task.scale[gate.angle] * weights[task.weight_of[gate.angle]])
                place, const = task.input_of[gate.angle], float(task.const[gate.angle])
                angle = scale * features[int(place)] if place < task.inputs.shape[1] else scale
                getattr(circuit, gate.name)(*gate.qubits, angle + const if const else angle)
            return circuit

    encoding = Encoding(task.num_qubits, task.inputs.shape[1])
    kernel = FidelityKernel(encoding, Executor(options.executor), evaluate_duplicates="off_diagonal", caching=False)
    return KernelRunner(lambda: np.asarray(kernel.evaluate(task.inputs)))


OPTIONS = {"--executor": {"choices": ["pennylane", "statevector_simulator", "qulacs"], "default": "pennylane"}}

if __name__ == "__main__":
    serve("squlearn", ("squlearn", "pennylane", "qiskit", "numpy"), build, OPTIONS)
