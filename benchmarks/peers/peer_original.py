"""The original qiskit-torch-module (Qiskit 1.0, numpy below 2), imported from a checkout.

It starts its processes and splits its circuit anew in every pass, so its time is not linear in the samples:
scaled from 4 of 48 it came out twice too long. Time it on the whole batch.
"""

from __future__ import annotations

import argparse
import sys

from _protocol import THREADS, Runner, Task, serve


def build(task: Task, options: argparse.Namespace) -> Runner:
    sys.path.insert(0, options.checkout)
    import torch
    from _qiskit import qiskit_circuit, qiskit_observables
    from _torch import TorchRunner
    from qiskit_torch_module import QuantumModule

    circuit, inputs, weights = qiskit_circuit(task)
    model = QuantumModule(
        circuit,
        encoding_params=list(inputs),
        variational_params=list(weights),
        observables=qiskit_observables(task),
        num_threads_forward=THREADS,
        num_threads_backward=THREADS,
    )
    data = torch.tensor(task.inputs, dtype=torch.float32)
    (held,) = model.variational_

    class Shared(TorchRunner):
        """Uses the module's own parameter, which it keeps outside torch's registry of parameters."""

        def __init__(self) -> None:
            super().__init__(task, lambda _: model(data))
            held.data = torch.tensor(task.weights, dtype=torch.float32)
            self._weights = held

    return Shared()


if __name__ == "__main__":
    checkout = {"required": True, "help": "folder of a clone of nicomeyer96/qiskit-torch-module"}
    packages = ("qiskit", "qiskit-algorithms", "torch", "numpy")
    serve("qiskit-torch-module", packages, build, {"--checkout": checkout})
